//! `[budget]`: what a run may cost.

use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::section::Section;

/// The caps of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Budget {
    /// The hard cap in US dollars; `None` is no cap.
    pub max_usd: Option<f64>,
    /// The most that an hour of its machine may cost; `None` is no ceiling.
    pub max_usd_per_hour: Option<f64>,
    /// The cap for all runs of the project together; `None` is no cap.
    pub max_usd_project: Option<f64>,
    /// The cap for everything of the installation on one day of UTC.
    pub max_usd_day: Option<f64>,
}

impl Section for Budget {
    fn keys(&self) -> &'static [&'static str] {
        &["max_usd", "max_usd_per_hour", "max_usd_project", "max_usd_day"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        let (slot, example) = match key {
            "max_usd" => (&mut self.max_usd, "5.00"),
            "max_usd_per_hour" => (&mut self.max_usd_per_hour, "0.60"),
            "max_usd_project" => (&mut self.max_usd_project, "100.00"),
            "max_usd_day" => (&mut self.max_usd_day, "20.00"),
            _ => return,
        };
        let Some(usd) = field.number(example) else { return };
        let checked = if usd > 0.0 {
            Some(usd)
        } else {
            let help = format!("leave it out for no cap, for example: {key} = {example}");
            field.refuse("must be more than 0", help)
        };
        assign(slot, checked.map(Some));
    }

    fn get(&self, key: &str) -> Json {
        json!(match key {
            "max_usd" => self.max_usd,
            "max_usd_per_hour" => self.max_usd_per_hour,
            "max_usd_project" => self.max_usd_project,
            _ => self.max_usd_day,
        })
    }
}
