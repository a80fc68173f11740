//! `[budget]`: what a run may cost.

use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::section::Section;

/// The caps of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Budget {
    /// The hard cap in US dollars; `None` is no cap.
    pub max_usd: Option<f64>,
}

impl Section for Budget {
    fn keys(&self) -> &'static [&'static str] {
        &["max_usd"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        if key != "max_usd" {
            return;
        }
        let Some(usd) = field.number("5.00") else { return };
        let checked = if usd > 0.0 {
            Some(usd)
        } else {
            field.refuse("must be more than 0", "leave it out for no cap, for example: max_usd = 5.00")
        };
        assign(&mut self.max_usd, checked.map(Some));
    }

    fn get(&self, _key: &str) -> Json {
        json!(self.max_usd)
    }
}
