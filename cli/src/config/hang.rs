//! `[hang]`: what is done about a program that makes no progress.

use std::time::Duration;

use lifecycle::spec::HangAction;
use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::quantity::write_duration;
use super::section::Section;

/// The rungs of the ladder by the words that name them, lowest first.
const ACTIONS: [(&str, HangAction); 5] = [
    ("off", HangAction::Off),
    ("report", HangAction::Report),
    ("dump", HangAction::Dump),
    ("restart", HangAction::Restart),
    ("move", HangAction::Move),
];

/// When a program counts as hanging, and how far the ladder is climbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hang {
    /// The highest rung.
    pub action: HangAction,
    /// Time without progress at the least.
    pub after: Duration,
}

impl Default for Hang {
    fn default() -> Self {
        let spec = lifecycle::spec::HangSpec::default();
        Self { action: spec.action, after: Duration::from_secs(spec.after_seconds) }
    }
}

impl Section for Hang {
    fn keys(&self) -> &'static [&'static str] {
        &["action", "after"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "action" => assign(&mut self.action, field.choice(&ACTIONS)),
            "after" => assign(&mut self.after, field.seconds(1, "\"10m\"")),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        if key == "action" { json!(self.action) } else { json!(write_duration(self.after)) }
    }
}
