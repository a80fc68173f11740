//! Keeps a capsule small whatever was sent: every part has a bound of its own,
//! counted as JSON, and their sum is below the whole's. What does not fit is
//! left out, the oldest first, and counted.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{Capsule, LIMIT};

/// What was left out so far.
#[derive(Debug, Default)]
pub struct Budget {
    /// By part: how many entries.
    pub cut: BTreeMap<String, u64>,
}

/// Bytes of a value as JSON.
#[must_use]
pub fn size(value: &impl Serialize) -> usize {
    serde_json::to_string(value).map_or(0, |text| text.len())
}

/// A value, or the beginning of its JSON where that is longer.
#[must_use]
pub fn clip_value(value: Value, most: usize) -> Value {
    if size(&value) <= most {
        return value;
    }
    let text = match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    // A character takes at most six bytes as JSON, and most take one.
    let mut chars = most.saturating_sub(8);
    loop {
        let cut = Value::String(super::text::clip(&text, chars));
        if size(&cut) <= most || chars == 0 {
            return cut;
        }
        chars /= 2;
    }
}

impl Budget {
    /// Says that entries of a part were left out.
    pub fn left_out(&mut self, part: &str, count: usize) {
        if count > 0 {
            *self.cut.entry(part.to_owned()).or_default() += count as u64;
        }
    }

    /// The newest entries that fit, in their order.
    pub fn newest<T: Serialize>(&mut self, part: &str, entries: Vec<T>, most: usize, bytes: usize) -> Vec<T> {
        let all = entries.len();
        let mut left = bytes;
        let mut kept: Vec<T> = Vec::new();
        for entry in entries.into_iter().rev().take(most) {
            let own = size(&entry) + 1;
            if own > left {
                break;
            }
            left -= own;
            kept.push(entry);
        }
        kept.reverse();
        self.left_out(part, all - kept.len());
        kept
    }

    /// Entries thinned evenly until they fit; the newest stays.
    pub fn thinned<T: Serialize>(&mut self, part: &str, entries: Vec<T>, bytes: usize) -> Vec<T> {
        let all = entries.len();
        let whole: usize = entries.iter().map(|entry| size(entry) + 1).sum();
        if whole <= bytes {
            return entries;
        }
        let every = whole.div_ceil(bytes.max(1)).max(2);
        let thin = entries.into_iter().enumerate().filter(|(at, _)| (all - 1 - at).is_multiple_of(every));
        let thin: Vec<T> = thin.map(|(_, entry)| entry).collect();
        self.left_out(part, all - thin.len());
        // Sizes differ: what is still too much goes from the old end.
        self.newest(part, thin, usize::MAX, bytes)
    }
}

/// Empties one part.
type Clear = fn(&mut Capsule);

/// The parts' bounds add up to less than the limit; should they ever not, the
/// least telling parts go first.
pub(super) fn enforce(capsule: &mut Capsule) {
    let order: [(&str, Clear); 8] = [
        ("other", |c| c.other.clear()),
        ("history", |c| c.history.clear()),
        ("packages", |c| c.packages.clear()),
        ("metrics", |c| c.metrics.clear()),
        ("stacks", |c| c.stacks.clear()),
        ("environment", |c| c.environment.clear()),
        ("timeline", |c| c.timeline.clear()),
        ("setup", |c| c.output.setup.text.clear()),
    ];
    for (part, clear) in order {
        if size(capsule) < LIMIT {
            return;
        }
        clear(capsule);
        capsule.missing.insert(part.to_owned(), "it did not fit".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_stay_and_the_rest_is_counted() {
        let mut budget = Budget::default();
        assert_eq!(budget.newest("a", vec![1, 2, 3, 4], 2, 100), [3, 4]);
        assert_eq!(budget.newest("a", vec![11, 22, 33], 9, 6), [22, 33]);
        assert_eq!(budget.cut["a"], 3);
        let thin = budget.thinned("b", (0..100).map(|n| format!("{n:03}")).collect(), 300);
        assert!(thin.len() >= 40 && thin.last().unwrap() == "099" && size(&thin) <= 310, "{thin:?}");
    }

    #[test]
    fn values_are_cut_to_size() {
        assert_eq!(clip_value(json!({"a": 1}), 100), json!({"a": 1}));
        for most in [10, 50, 1_000] {
            assert!(size(&clip_value(json!({"a": "\u{1}".repeat(5_000)}), most)) <= most);
            assert!(size(&clip_value(json!(vec!["x"; 5_000]), most)) <= most);
        }
    }
}
