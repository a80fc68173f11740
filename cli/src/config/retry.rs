//! `[retry]`: when a failed attempt is followed by another.

use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::section::Section;

/// How often is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts after failures of the program that made no progress.
    pub failures: u32,
    /// Further attempts after losses of machines; `None` is no limit.
    pub losses: Option<u32>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { failures: 2, losses: None }
    }
}

impl Section for Retry {
    fn keys(&self) -> &'static [&'static str] {
        &["failures", "losses"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "failures" => assign(&mut self.failures, field.count(0, "2")),
            "losses" => assign(&mut self.losses, field.count(0, "10").map(Some)),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        if key == "failures" { json!(self.failures) } else { json!(self.losses) }
    }
}
