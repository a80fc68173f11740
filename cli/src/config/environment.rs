//! `[environment]`: how packages come to the machine.

use lifecycle::spec::EnvironmentKind;
use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::problem::Problem;
use super::section::Section;

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
}

impl Section for Environment {
    fn keys(&self) -> &'static [&'static str] {
        &["kind", "setup"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "kind" => assign(&mut self.kind, field.choice(&KINDS)),
            "setup" => assign(&mut self.setup, Self::setup(field)),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        match key {
            "kind" => json!(self.kind),
            _ => json!(self.setup),
        }
    }
}
