//! `[artifacts]`: which result files are kept.

use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::section::Section;

/// The results of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Artifacts {
    /// Globs relative to the source tree.
    pub globs: Vec<String>,
}

impl Section for Artifacts {
    fn keys(&self) -> &'static [&'static str] {
        &["globs"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        if key == "globs" {
            assign(&mut self.globs, field.globs("[\"results/**\"]"));
        }
    }

    fn get(&self, _key: &str) -> Json {
        json!(self.globs)
    }
}
