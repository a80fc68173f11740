//! Values that a run says of itself beside the course of its metrics: its best, its
//! result, what it was tested with.
//!
//! They are somebody's last word and are shown as such; nothing is judged by them.

use std::collections::BTreeMap;

use curves::judge::short;
use curves::log::Value;
use serde::Serialize;

use super::words;
use crate::commands::views::settings;

/// Values of one run that are kept.
const MAX_VALUES: usize = 1000;
/// Characters of a name or a text that are kept, and bytes of a list.
const MAX_TEXT: usize = 200;
/// Values that are told in a sentence.
const TOLD: usize = 8;

/// The newest value of each, by its path joined by dots.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Summary(BTreeMap<String, serde_json::Value>);

impl Summary {
    pub(super) fn take(&mut self, path: &[&str], value: &Value) {
        let name: String = path.join(".").chars().take(MAX_TEXT).collect();
        let value = match value {
            Value::Text(text) => text.chars().take(MAX_TEXT).collect::<String>().into(),
            value => settings::of(value),
        };
        let fits = match &value {
            list @ (serde_json::Value::Array(_) | serde_json::Value::Object(_)) => {
                list.to_string().len() <= MAX_TEXT
            }
            _ => true,
        };
        if fits && (self.0.len() < MAX_VALUES || self.0.contains_key(&name)) {
            self.0.insert(name, value);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first of them in a sentence, but for those that are the last value of the
    /// metric of their name: tools keep those by themselves.
    pub(super) fn told<'a>(&self, last: impl Iterator<Item = (&'a str, f64)>) -> Option<String> {
        // Nested names are joined otherwise in a log.
        let plain = |name: &str| name.replace('/', ".");
        let last: BTreeMap<String, f64> = last.map(|(name, value)| (plain(name), value)).collect();
        let own: Vec<String> = self
            .0
            .iter()
            .filter(|(name, value)| {
                let last = last.get(&plain(name));
                last.is_none_or(|last| value.is_number() && value.as_f64() != Some(*last))
            })
            .map(|(name, value)| {
                let value = match value {
                    serde_json::Value::Number(number) => match number.as_f64() {
                        Some(value) if number.is_f64() => short(value),
                        _ => number.to_string(),
                    },
                    serde_json::Value::String(text) => words::name(text),
                    other => words::ascii(&other.to_string()),
                };
                format!("{} = {value}", words::name(name))
            })
            .collect();
        let more = own.len().saturating_sub(TOLD);
        let tail = if more > 0 { format!(", and {more} more") } else { String::new() };
        let told: Vec<&str> = own.iter().take(TOLD).map(String::as_str).collect();
        (!told.is_empty()).then(|| format!("summary: {}{tail}", told.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_curve_says_is_told_and_all_is_kept() {
        let mut summary = Summary::default();
        for (path, value) in [
            (&["best"][..], Value::Float(0.93)),
            (&["loss"], Value::Float(0.5)),
            (&["train", "acc"], Value::Float(0.25)),
            (&["val/acc", "max"], Value::Float(0.75)),
            (&["note"], Value::Text("two words".to_owned())),
            (&["best"], Value::Float(0.95)),
            (&["table"], Value::List(vec![Value::Integer(1); 1000])),
        ] {
            summary.take(path, &value);
        }
        let last = [("loss", 0.5), ("train/acc", 0.3), ("val/acc", 0.7)];
        assert_eq!(
            summary.told(last.into_iter()).as_deref(),
            Some("summary: best = 0.95, note = \"two words\", train.acc = 0.25, val/acc.max = 0.75")
        );
        assert_eq!(serde_json::to_value(&summary).expect("a map")["loss"], 0.5);
        (0..2 * MAX_VALUES).for_each(|n| summary.take(&[&format!("k{n}")], &Value::Integer(1)));
        assert_eq!(summary.0.len(), MAX_VALUES);
        assert!(summary.told(std::iter::empty()).is_some_and(|told| told.ends_with("more")));
    }
}
