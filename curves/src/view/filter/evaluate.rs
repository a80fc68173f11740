//! Whether a run is as a filter says.

use std::path::Path;

use super::{Field, Filter, Op, Operand, When};

/// What a filter asks of a run.
pub trait Subject {
    /// The number that a field is; `None` where the run has none.
    fn number(&self, field: &Field) -> Option<f64>;
    /// The texts of a key or of a field that is no number; a run may have several
    /// tags.
    fn texts(&self, key: &str) -> Vec<String>;
    /// When it began, in seconds since 1970.
    fn began(&self) -> Option<f64>;
}

impl Filter {
    /// Whether a run is as the filter says, `now` in seconds since 1970.
    pub fn takes(&self, run: &impl Subject, now: f64) -> bool {
        let time = |when: When| match when {
            When::Ago(seconds) => now - seconds,
            When::At(seconds) => seconds,
        };
        match self {
            Self::All(parts) => parts.iter().all(|part| part.takes(run, now)),
            Self::Any(parts) => parts.iter().any(|part| part.takes(run, now)),
            Self::Not(part) => !part.takes(run, now),
            Self::Compare(field, op, operand) => compare(run, field, *op, operand),
            // Notes are sentences: a word is to be found in them.
            Self::Has("notes", word) => {
                run.texts("notes").iter().any(|text| is(text, word) || contains(text, word))
            }
            Self::Has(key, word) => texts(run, key).iter().any(|text| is(text, word)),
            Self::Since(when) => run.began().is_some_and(|began| began >= time(*when)),
            Self::Before(when) => run.began().is_some_and(|began| began < time(*when)),
            Self::Word(word) => ["name", "id", "tag", "group", "notes", "path"]
                .iter()
                .any(|key| texts(run, key).iter().any(|text| contains(text, word))),
        }
    }
}

/// The texts of a key. A run that has no name is called as its file or directory is,
/// with its ending and without.
fn texts(run: &impl Subject, key: &str) -> Vec<String> {
    let found = run.texts(key);
    if !found.is_empty() || !key.eq_ignore_ascii_case("name") {
        return found;
    }
    let part = |path: &String| {
        let whole = Path::new(path).file_name()?.to_string_lossy().into_owned();
        let stem = Path::new(&whole).file_stem()?.to_string_lossy().into_owned();
        Some([stem, whole])
    };
    run.texts("path").iter().filter_map(part).flatten().collect()
}

fn compare(run: &impl Subject, field: &Field, op: Op, operand: &Operand) -> bool {
    if let (Operand::Number(asked), Some(value)) = (operand, run.number(field)) {
        return match op {
            Op::Above => value > *asked,
            Op::AtLeast => value >= *asked,
            Op::Below => value < *asked,
            Op::AtMost => value <= *asked,
            Op::Is => value == *asked,
            Op::IsNot => value != *asked,
            Op::Contains => false,
        };
    }
    let asked = match operand {
        Operand::Number(value) => value.to_string(),
        Operand::Text(text) => text.clone(),
    };
    // `nan` is the one value that cannot be compared but may be asked for.
    let number = run.number(field).map(|value| if value.is_nan() { "nan".into() } else { value.to_string() });
    let texts: Vec<String> = number.into_iter().chain(texts(run, field.name())).collect();
    match op {
        Op::Is => texts.iter().any(|text| is(text, &asked)),
        Op::IsNot => !texts.is_empty() && !texts.iter().any(|text| is(text, &asked)),
        Op::Contains => texts.iter().any(|text| contains(text, &asked)),
        Op::Above | Op::AtLeast | Op::Below | Op::AtMost => false,
    }
}

fn is(text: &str, word: &str) -> bool {
    let (text, word) = (text.to_lowercase(), word.to_lowercase());
    word.strip_suffix('*').map_or(text == word, |begin| text.starts_with(begin))
}

fn contains(text: &str, word: &str) -> bool {
    text.to_lowercase().contains(&word.to_lowercase())
}

/// A name as people may write it: small letters, and one sign for all that
/// separates, so that `val_acc` is `val/acc`, and `val accuracy`, too.
#[must_use]
pub fn normal(name: &str) -> String {
    let lower = name.to_lowercase();
    let parts = lower.split(['_', '/', '-', '.', ' ']);
    let parts: Vec<&str> = parts.map(|part| if part == "accuracy" { "acc" } else { part }).collect();
    parts.join("_")
}
