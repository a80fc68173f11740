//! The language in which runs are searched for:
//! `val_acc > 0.8 and state == finished and tag:baseline since 7d`.
//!
//! ```text
//! any     = all ("or" all)*
//! all     = one ("and"? one)*            side by side means "and"
//! one     = "not" one | "(" any ")" | term
//! term    = field op value               > >= < <= == = != ~
//!         | key ":" word                 tag name id group project state label format path notes commit
//!         | "since" when | "before" when 7d 12h 2w 30m, or 2026-11-21
//!         | word                         in name, id, tag, group, notes or path
//! field   = word | "quoted" | min(field) | max(field) | last(field)
//! ```
//!
//! A bare metric is its last value. `80%` is 0.8, `3k` is 3000: units beyond that
//! are not known. A comparison with something that a run does not have is false.

mod evaluate;
mod lex;
mod parse;

use std::fmt;

pub use evaluate::{Subject, normal};
pub use parse::parse;

/// Keys that take a word after a colon.
pub const KEYS: [&str; 11] =
    ["tag", "name", "id", "group", "project", "state", "label", "format", "path", "notes", "commit"];

/// What is compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// Last value of a metric, a setting, or one of the facts of a run.
    Plain(String),
    /// Smallest finite value of a metric.
    Min(String),
    /// Largest finite value of a metric.
    Max(String),
}

/// How it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `==`
    Is,
    /// `!=`
    IsNot,
    /// `~`: the text contains it.
    Contains,
}

/// With what.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A number.
    Number(f64),
    /// A word or quoted text.
    Text(String),
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// So many seconds before now.
    Ago(f64),
    /// Seconds since 1970.
    At(f64),
}

/// A filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All of them hold; without any, every run is taken.
    All(Vec<Filter>),
    /// At least one holds.
    Any(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// A comparison.
    Compare(Field, Op, Operand),
    /// One of the texts of a key is this word, or begins with it where it ends with
    /// `*`; of notes, has it in it.
    Has(&'static str, String),
    /// Begun at or after.
    Since(When),
    /// Begun before.
    Before(When),
    /// A word somewhere in the names of the run.
    Word(String),
}

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} at character {at}")]
pub struct FilterError {
    /// What is wrong.
    pub message: String,
    /// The place, counted in characters from 1.
    pub at: usize,
}

impl Filter {
    /// All fields that are compared.
    #[must_use]
    pub fn fields(&self) -> Vec<&Field> {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::fields).collect(),
            Self::Not(part) => part.fields(),
            Self::Compare(field, ..) => vec![field],
            _ => Vec::new(),
        }
    }
}

impl Field {
    /// The name in it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Plain(name) | Self::Min(name) | Self::Max(name) => name,
        }
    }
}

fn word(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(lex::in_word)
        && !lex::RESERVED.contains(&text.to_lowercase().as_str());
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(name) => f.write_str(&word(name)),
            Self::Min(name) => write!(f, "min({})", word(name)),
            Self::Max(name) => write!(f, "max({})", word(name)),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Is => "==",
            Self::IsNot => "!=",
            Self::Contains => "~",
        })
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Ago(seconds) | Self::At(seconds)) = *self;
        match self {
            Self::At(_) => f.write_str(&super::date(seconds)),
            Self::Ago(_) if seconds % 86_400.0 == 0.0 => write!(f, "{}d", seconds / 86_400.0),
            Self::Ago(_) if seconds % 3600.0 == 0.0 => write!(f, "{}h", seconds / 3600.0),
            Self::Ago(_) if seconds % 60.0 == 0.0 => write!(f, "{}m", seconds / 60.0),
            Self::Ago(_) => write!(f, "{seconds}s"),
        }
    }
}

impl fmt::Display for Filter {
    /// The filter in its own language: parsed again it is the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], by: &str| {
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    f.write_str(by)?;
                }
                match part {
                    Self::All(_) | Self::Any(_) => write!(f, "({part})")?,
                    _ => write!(f, "{part}")?,
                }
            }
            Ok(())
        };
        match self {
            Self::All(parts) => joined(f, parts, " and "),
            Self::Any(parts) => joined(f, parts, " or "),
            Self::Not(part) => match **part {
                Self::All(_) | Self::Any(_) => write!(f, "not ({part})"),
                _ => write!(f, "not {part}"),
            },
            Self::Compare(field, op, Operand::Number(value)) => write!(f, "{field} {op} {value}"),
            Self::Compare(field, op, Operand::Text(text)) => write!(f, "{field} {op} {}", word(text)),
            Self::Has(key, text) => write!(f, "{key}:{}", word(text)),
            Self::Since(when) => write!(f, "since {when}"),
            Self::Before(when) => write!(f, "before {when}"),
            Self::Word(text) => f.write_str(&word(text)),
        }
    }
}

#[cfg(test)]
mod tests;
