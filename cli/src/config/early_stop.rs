//! `[early_stop]`: by which rules on its metrics a run is ended before its time.

use curves::early::{MAX_RULES, Rule};
use lifecycle::spec::EarlyStopSpec;
use serde_json::{Value as Json, json};

use super::field::Field;
use super::problem::Problem;
use super::section::Section;

const EXAMPLE: &str = "[\"nan\", \"val/loss plateau\", \"val_acc < 0.5 after 10k\"]";

/// The rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EarlyStop {
    /// As a run's description has them.
    pub spec: EarlyStopSpec,
}

impl Section for EarlyStop {
    fn keys(&self) -> &'static [&'static str] {
        &["rules"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        if key != "rules" {
            return;
        }
        let Some(given) = field.strings(EXAMPLE) else { return };
        if given.len() > MAX_RULES {
            field.refuse::<()>(&format!("has more than {MAX_RULES} rules"), "keep those that matter");
            return;
        }
        let mut rules = Vec::new();
        for (text, node) in given {
            match text.parse::<Rule>() {
                Ok(rule) => rules.push(rule.to_string()),
                Err(error) => {
                    let help = format!("for example: rules = {EXAMPLE}");
                    field
                        .problems
                        .push(Problem::new(&node.at, format!("`{}`: {error}", field.path)).help(help));
                }
            }
        }
        self.spec.rules = rules;
    }

    fn get(&self, key: &str) -> Json {
        if key == "rules" { json!(self.spec.rules) } else { Json::Null }
    }
}
