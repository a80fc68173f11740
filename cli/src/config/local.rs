//! `[local]`: this computer as a machine.

use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::section::Section;

/// What the local provider should assume.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Local {
    /// What an hour on this computer is counted as, in US dollars.
    pub usd_per_hour: f64,
}

impl Section for Local {
    fn keys(&self) -> &'static [&'static str] {
        &["usd_per_hour"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        if key != "usd_per_hour" {
            return;
        }
        let Some(usd) = field.number("0.35") else { return };
        let checked = if usd >= 0.0 {
            // Adding zero turns -0.0 into 0.0.
            Some(usd + 0.0)
        } else {
            field.refuse("must not be negative", "for example: usd_per_hour = 0.35")
        };
        assign(&mut self.usd_per_hour, checked);
    }

    fn get(&self, _key: &str) -> Json {
        json!(self.usd_per_hour)
    }
}
