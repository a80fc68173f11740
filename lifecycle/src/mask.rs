//! Takes secrets out of text that leaves a machine or an installation: what was
//! given as a secret wherever it occurs, also in its usual encodings; what is
//! named like a secret; what has the shape of a key; passwords of addresses;
//! private keys of several lines. Whoever shows such text masks it, whatever
//! was masked before: masking what is masked changes nothing. Masking too much
//! costs a word, masking too little costs a key; but what stands beside a
//! secret is what explains a failure, so that no more than the secret goes.
//! Each text is gone over a few times, with bounded looks ahead: hostile text
//! costs its length and no more.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

mod blocks;
mod names;
mod shapes;
mod words;

#[cfg(test)]
mod tests;

pub use names::is_secret_name;
pub use shapes::is_key;
use shapes::is_uuid;

/// What stands in a secret's place.
pub const MASK: &str = "[masked]";
/// A literal shorter than this occurs by chance.
const LITERAL: usize = 6;
/// Literals that are looked for.
const LITERALS: usize = 300;
/// How often a text is gone over at most; twice is the rule.
const PASSES: usize = 6;
/// Variables of places, whose long values are paths.
const PLACES: [&str; 9] = [
    "PATH",
    "HOME",
    "PWD",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "TMPDIR",
    "CUDA_HOME",
];
/// Variables of the contract with programs, whose long values are ids.
const CONTRACT: &str = "OUTLAST_";

/// Knows what to hide.
#[derive(Clone, Default)]
pub struct Masker {
    literals: Vec<String>,
    /// Those of them that are values as they were given.
    whole: BTreeSet<String>,
    /// Ids of this installation's own things: as mixed as keys, and none.
    known: BTreeSet<String>,
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The literals are the very secrets.
        f.debug_struct("Masker").field("literals", &self.literals.len()).finish_non_exhaustive()
    }
}

impl Masker {
    /// From the variables that a program was given: those that are named or
    /// look like secrets are hidden everywhere.
    #[must_use]
    pub fn new(variables: &BTreeMap<String, String>) -> Self {
        let (mut literals, mut whole) = (BTreeSet::new(), BTreeSet::new());
        for (name, value) in variables {
            let is_secret = is_secret_name(name) || is_key(value) && !name.starts_with(CONTRACT);
            if value.len() < LITERAL || !is_secret {
                continue;
            }
            literals.extend(forms(value));
            whole.insert(value.clone());
        }
        Self { literals: ordered(literals, &whole), whole, known: BTreeSet::new() }
    }

    /// With values that are secrets, whatever they are named or look like.
    #[must_use]
    pub fn hiding<'a>(mut self, values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut literals: BTreeSet<String> = std::mem::take(&mut self.literals).into_iter().collect();
        let mut whole = std::mem::take(&mut self.whole);
        for value in values.into_iter().filter(|value| value.len() >= LITERAL) {
            literals.extend(forms(value));
            whole.insert(value.to_owned());
        }
        Self { literals: ordered(literals, &whole), whole, ..self }
    }

    /// With ids that are no secrets, whatever they look like.
    #[must_use]
    pub fn knowing(mut self, ids: impl IntoIterator<Item = String>) -> Self {
        self.known.extend(ids);
        self
    }

    /// A text of any number of lines without its secrets.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut masked = self.pass(text);
        // A mask may stand where a secret hid the next one. Each pass leaves
        // less to be found.
        for _ in 1..PASSES {
            let next = self.pass(&masked);
            if next == masked {
                break;
            }
            masked = next;
        }
        masked
    }

    fn pass(&self, text: &str) -> String {
        let text = self.without_literals(text);
        let text = blocks::without_private_keys(&text);
        let mut out = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            words::hide(line, self, &mut out);
        }
        out
    }

    /// The value of a variable, by its name.
    #[must_use]
    pub fn value(&self, name: &str, value: &str) -> String {
        if is_secret_name(name) && !words::is_trivial(value) {
            return MASK.to_owned();
        }
        let is_place = PLACES.contains(&name) && value.starts_with('/');
        if is_place || name.starts_with(CONTRACT) {
            return words::without_passwords(&self.without_literals(value));
        }
        if value.split(['/', ':', ',', ';', ' ']).any(|part| self.is_key(part) || is_uuid(part)) {
            return MASK.to_owned();
        }
        self.text(value)
    }

    /// Strings of any depth, by the names that they stand under.
    pub fn json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Object(fields) => {
                for (name, field) in fields.iter_mut() {
                    match field {
                        Value::String(text) if is_secret_name(name) && !words::is_trivial(text) => {
                            MASK.clone_into(text);
                        }
                        other => self.json(other),
                    }
                }
            }
            _ => {}
        }
    }

    /// A command and its arguments: `--token X` and `--token=X` too.
    #[must_use]
    pub fn command(&self, command: &[String]) -> Vec<String> {
        let mut hide = false;
        let masked = command.iter().map(|argument| {
            let flag = argument.starts_with('-') && !argument.contains('=');
            let shown =
                if std::mem::take(&mut hide) && !flag { MASK.to_owned() } else { self.text(argument) };
            hide = flag && is_secret_name(argument.trim_start_matches('-'));
            shown
        });
        masked.collect()
    }

    fn without_literals<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for literal in &self.literals {
            if text.contains(literal.as_str()) {
                text = Cow::Owned(text.replace(literal.as_str(), MASK));
            }
        }
        text
    }

    fn is_key(&self, word: &str) -> bool {
        is_key(word) && !self.known.contains(word)
    }
}

/// A secret as it is, and as it is usually written elsewhere.
fn forms(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let mut forms = vec![
        value.to_owned(),
        data_encoding::BASE64.encode(bytes),
        data_encoding::BASE64URL_NOPAD.encode(bytes),
        data_encoding::HEXLOWER.encode(bytes),
        percent(value),
        serde_json::to_string(value).unwrap_or_default().trim_matches('"').to_owned(),
    ];
    forms.extend(value.lines().filter(|line| line.len() >= 2 * LITERAL).map(str::to_owned));
    forms
}

fn ordered(literals: BTreeSet<String>, whole: &BTreeSet<String>) -> Vec<String> {
    // What is part of the mask would be masked for ever.
    let mut literals: Vec<String> = literals
        .into_iter()
        .filter(|literal| literal.len() >= LITERAL && !MASK.contains(literal.as_str()))
        .collect();
    // Where there are too many, the values themselves stay, and what is derived
    // from them goes.
    literals.sort_by_key(|literal| std::cmp::Reverse((whole.contains(literal), literal.len())));
    literals.truncate(LITERALS);
    // Longest first, so that none is cut by a shorter one within it.
    literals.sort_by_key(|literal| std::cmp::Reverse(literal.len()));
    literals
}

fn percent(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
