//! `[source]`: which files of the project go to the machine.

use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::section::Section;

/// What belongs to the source tree of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceTree {
    /// Globs of files taken although git ignores them.
    pub include: Vec<String>,
    /// Globs of files left out.
    pub exclude: Vec<String>,
}

impl Section for SourceTree {
    fn keys(&self) -> &'static [&'static str] {
        &["include", "exclude"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "include" => assign(&mut self.include, field.globs("[\"configs/**\"]")),
            "exclude" => assign(&mut self.exclude, field.globs("[\"data/**\"]")),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        if key == "include" { json!(self.include) } else { json!(self.exclude) }
    }
}
