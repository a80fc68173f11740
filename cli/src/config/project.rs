//! `[project]`: whose runs these are.

use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::section::Section;

/// The owner of the runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Project {
    /// The project's name, `[a-z0-9-]`; by default made from the name of the
    /// directory.
    pub name: String,
}

/// Longer names are cut or refused: they become parts of object keys.
const LONGEST: usize = 63;

/// What can be made of any text as a name; empty if nothing can.
pub(super) fn normalised(text: &str) -> String {
    let mut out = String::new();
    for c in text.to_lowercase().chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    out.truncate(LONGEST);
    out.trim_end_matches('-').to_owned()
}

impl Field<'_> {
    /// A name of lower-case letters, digits and single inner hyphens.
    pub(super) fn slug(&mut self, example: &str) -> Option<String> {
        let text = self.string(example)?;
        let good = normalised(&text);
        if good == text {
            return Some(text);
        }
        let help = if good.is_empty() {
            format!("for example: {example}")
        } else {
            format!("for example: \"{good}\"")
        };
        let message =
            format!("may hold only a-z, 0-9 and single hyphens between them, at most {LONGEST} characters");
        self.refuse(&message, help)
    }
}

impl Section for Project {
    fn keys(&self) -> &'static [&'static str] {
        &["name"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        if key == "name" {
            assign(&mut self.name, field.slug("\"my-project\""));
        }
    }

    fn get(&self, _key: &str) -> Json {
        json!(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_directory_gives_a_name() {
        assert_eq!(normalised("My Project (v2)"), "my-project-v2");
        assert_eq!(normalised("--a__b--"), "a-b");
        assert_eq!(normalised("项目"), "");
        assert_eq!(normalised(&"x".repeat(100)).len(), LONGEST);
    }
}
