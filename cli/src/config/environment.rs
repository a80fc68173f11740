//! `[environment]`: how packages come to the machine.

use std::collections::BTreeMap;

use lifecycle::spec::EnvironmentKind;
use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::problem::Problem;
use super::section::Section;
use super::source::At;

/// The builders by the words that name them.
const KINDS: [(&str, EnvironmentKind); 4] = [
    ("auto", EnvironmentKind::Auto),
    ("venv", EnvironmentKind::Venv),
    ("conda", EnvironmentKind::Conda),
    ("none", EnvironmentKind::None),
];

/// How the environment is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    /// Which builder.
    pub kind: EnvironmentKind,
    /// Shell lines run after the packages are installed.
    pub setup: Vec<String>,
    /// A container image in which the command runs; empty is none.
    pub image: String,
}

impl Environment {
    fn setup(field: &mut Field<'_>) -> Option<Vec<String>> {
        let list = field.strings("[\"pip install -e .\"]")?;
        let mut good = true;
        for (text, node) in &list {
            if text.trim().is_empty() {
                let problem = Problem::new(&node.at, format!("`{}` has an empty line", field.path));
                field.problems.push(problem.help("leave it out"));
                good = false;
            }
        }
        good.then(|| list.into_iter().map(|(text, _)| text).collect())
    }

    fn image(field: &mut Field<'_>) -> Option<String> {
        const EXAMPLE: &str = "\"docker.io/library/python:3.12\"";
        let text = field.string(EXAMPLE)?;
        let good = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
        // A bare number is a version that lost its image, or no image at all.
        let named = text.contains(|c: char| c.is_ascii_alphabetic());
        if named && text.chars().all(good) && text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Some(text);
        }
        field.refuse("cannot be the name of a container image", format!("for example: image = {EXAMPLE}"))
    }
}

/// An image brings its own packages: a builder besides it would have no place.
pub(super) fn contradiction(environment: &Environment, places: &BTreeMap<String, At>) -> Option<Problem> {
    let builds = matches!(environment.kind, EnvironmentKind::Venv | EnvironmentKind::Conda);
    if environment.image.is_empty() || !builds {
        return None;
    }
    let message = "an image brings its own packages: `environment.kind` cannot build others beside it";
    let at = places.get("environment.kind").cloned();
    let problem = Problem { message: message.to_owned(), at, help: Vec::new() };
    Some(problem.help("leave out kind, and install what is missing with setup lines: they run in the image"))
}

impl Section for Environment {
    fn keys(&self) -> &'static [&'static str] {
        &["kind", "setup", "image"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "kind" => assign(&mut self.kind, field.choice(&KINDS)),
            "setup" => assign(&mut self.setup, Self::setup(field)),
            "image" => assign(&mut self.image, Self::image(field)),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        match key {
            "kind" => json!(self.kind),
            "image" if self.image.is_empty() => Json::Null,
            "image" => json!(self.image),
            _ => json!(self.setup),
        }
    }
}
