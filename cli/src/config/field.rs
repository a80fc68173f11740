//! What every section asks of a value: "give me a positive number, or say
//! what is wrong with it". Each question reports its own problem, with the
//! place and the way out, and answers `None`.

use std::time::Duration;

use super::near::nearest;
use super::problem::Problem;
use super::quantity::{self, NoSize};
use super::value::{Name, Node, Value, inline};
use super::words;

/// A key's value while it is being read.
pub(super) struct Field<'a> {
    /// The whole name: `budget.max_usd`.
    pub(super) path: String,
    /// The value.
    pub(super) node: &'a Node,
    /// Where complaints go.
    pub(super) problems: &'a mut Vec<Problem>,
}

/// Puts a value that was read into its slot; a bad one leaves the default.
pub(super) fn assign<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

impl Field<'_> {
    /// Complains about the value as a whole.
    pub(super) fn refuse<T>(&mut self, message: &str, help: impl Into<String>) -> Option<T> {
        let problem = Problem::new(&self.node.at, format!("`{}` {message}", self.path)).help(help);
        self.problems.push(problem);
        None
    }

    /// Complains that the value is of another kind.
    pub(super) fn refuse_type(&mut self, wanted: &str, example: &str) {
        self.wrong_type::<()>(wanted, example);
    }

    fn wrong_type<T>(&mut self, wanted: &str, example: &str) -> Option<T> {
        let kind = self.node.value.kind();
        let key = self.path.rsplit('.').next().unwrap_or_default().to_owned();
        self.refuse(&format!("must be {wanted}, not {kind}"), format!("for example: {key} = {example}"))
    }

    /// A string that is neither empty nor holds a NUL byte.
    pub(super) fn string(&mut self, example: &str) -> Option<String> {
        match &self.node.value {
            Value::String(text) | Value::Untyped(text) => {
                let text = text.clone();
                if text.trim().is_empty() {
                    return self.refuse("is empty", format!("for example: {example}"));
                }
                if text.contains('\0') {
                    return self.refuse("holds a NUL byte", "leave it out: no program could receive it");
                }
                Some(text)
            }
            _ => self.wrong_type("a string", example),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        let names = || choices.iter().map(|(name, _)| *name);
        let listed = names().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let example = format!("\"{}\"", names().next().unwrap_or_default());
        let text = self.string(&example)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let mut problem = Problem::new(&self.node.at, format!("`{}` cannot be {text:?}", self.path));
        if let Some(near) = nearest(&text, names()) {
            problem = problem.help(format!("did you mean \"{near}\"?"));
        }
        self.problems.push(problem.help(format!("valid values: {listed}")));
        None
    }

    /// Yes or no.
    pub(super) fn flag(&mut self) -> Option<bool> {
        match &self.node.value {
            Value::Boolean(flag) => Some(*flag),
            Value::Untyped(text) => match text.trim() {
                "true" => Some(true),
                "false" => Some(false),
                _ => self.refuse("must be true or false", "write one of the two words"),
            },
            _ => self.wrong_type("a boolean", "true"),
        }
    }

    /// Yes, no, or one word that is neither.
    pub(super) fn flag_or<T>(&mut self, word: &str, other: T, of: impl Fn(bool) -> T) -> Option<T> {
        match &self.node.value {
            Value::String(text) | Value::Untyped(text) if text.trim() == word => Some(other),
            Value::Boolean(_) | Value::Untyped(_) => self.flag().map(of),
            _ => {
                let help = format!("valid values: true, false, \"{word}\"");
                self.refuse(&format!("must be true, false or \"{word}\""), help)
            }
        }
    }

    /// A finite number.
    pub(super) fn number(&mut self, example: &str) -> Option<f64> {
        let number = match &self.node.value {
            Value::Integer(Some(whole)) => *whole as f64,
            Value::Float(float) => *float,
            Value::Untyped(text) => match text.trim().parse::<f64>() {
                Ok(float) => float,
                Err(_) => return self.refuse("must be a number", format!("for example: {example}")),
            },
            _ => return self.wrong_type("a number", example),
        };
        if number.is_finite() {
            Some(number)
        } else {
            self.refuse("must be finite", format!("for example: {example}"))
        }
    }

    /// A whole number from `least` on.
    pub(super) fn count(&mut self, least: u32, example: &str) -> Option<u32> {
        let whole = match &self.node.value {
            Value::Integer(whole) => *whole,
            Value::Untyped(text) => match text.trim().parse::<i64>() {
                Ok(whole) => Some(whole),
                Err(_) => return self.refuse("must be a whole number", format!("for example: {example}")),
            },
            _ => return self.wrong_type("a whole number", example),
        };
        match whole.and_then(|whole| u32::try_from(whole).ok()) {
            Some(count) if count >= least => Some(count),
            _ if whole.is_some_and(|whole| whole < i64::from(least)) => {
                self.refuse(&format!("must be at least {least}"), format!("for example: {example}"))
            }
            _ => self.refuse("is too large", format!("for example: {example}")),
        }
    }

    /// A duration of whole seconds, at least `least`.
    pub(super) fn seconds(&mut self, least: u64, example: &str) -> Option<Duration> {
        let units = format!("write a number with its unit (s, m, h, d), for example: {example}");
        if let Value::Integer(Some(seconds)) = self.node.value {
            if seconds < 0 {
                return self.refuse("cannot be negative", format!("for example: {example}"));
            }
            let help = format!("if seconds are meant: \"{seconds}s\"");
            return self.refuse("is a duration and needs a unit", help);
        }
        let text = self.string(example)?;
        let Some(duration) = quantity::duration(&text) else {
            return self.refuse("is not a duration", units);
        };
        if duration.subsec_nanos() != 0 {
            return self.refuse("must be whole seconds", format!("for example: {example}"));
        }
        if duration.as_secs() < least {
            return self.refuse(&format!("must be at least {least}s"), format!("for example: {example}"));
        }
        Some(duration)
    }

    /// A size of at least `least` bytes.
    pub(super) fn size(&mut self, least: u64, example: &str) -> Option<u64> {
        if let Value::Integer(Some(bytes)) = self.node.value {
            if bytes < 0 {
                return self.refuse("cannot be negative", format!("for example: {example}"));
            }
            let help = format!("if bytes are meant: \"{bytes}B\"");
            return self.refuse("is a size and needs a unit", help);
        }
        let text = self.string(example)?;
        match quantity::size(&text) {
            Err(NoSize::Shape) => self.refuse(
                "is not a size",
                format!(
                    "write a number with its unit (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB), for example: {example}"
                ),
            ),
            Err(NoSize::TooLarge) => self.refuse("is too large", format!("for example: {example}")),
            Ok(bytes) if bytes < least => {
                let least = quantity::write_size(least);
                self.refuse(&format!("must be at least {least}"), format!("for example: {example}"))
            }
            Ok(bytes) => Some(bytes),
        }
    }

    /// The items of an array of strings. A variable or flag may give one item
    /// as it is, or a TOML array.
    pub(super) fn strings(&mut self, example: &str) -> Option<Vec<(String, Node)>> {
        let items = match self.node.value.clone() {
            Value::Array(items) => items,
            Value::Untyped(text) if text.trim_start().starts_with('[') => {
                match inline(&self.node.at.source, self.node.at.span.start) {
                    Ok(Node { value: Value::Array(items), .. }) => items,
                    Ok(_) => return self.wrong_type("an array of strings", example),
                    Err(problem) => {
                        self.problems.push(problem);
                        return None;
                    }
                }
            }
            Value::Untyped(_) => vec![self.node.clone()],
            Value::String(text) => {
                let help = format!("write it in brackets: [{text:?}]");
                return self.refuse("must be an array of strings, not a string", help);
            }
            _ => return self.wrong_type("an array of strings", example),
        };
        self.items(&items, example)
    }

    fn items(&mut self, items: &[Node], example: &str) -> Option<Vec<(String, Node)>> {
        let before = self.problems.len();
        let mut list = Vec::new();
        for (index, node) in items.iter().enumerate() {
            let path = format!("{}[{index}]", self.path);
            let mut field = Field { path, node, problems: &mut *self.problems };
            match &node.value {
                Value::String(text) | Value::Untyped(text) if text.contains('\0') => {
                    field.refuse::<()>("holds a NUL byte", "leave it out: no program could receive it");
                }
                Value::String(text) | Value::Untyped(text) => list.push((text.clone(), node.clone())),
                other => {
                    let message = format!("must be a string, not {}", other.kind());
                    field.refuse::<()>(&message, format!("put it in quotes: {example}"));
                }
            }
        }
        (self.problems.len() == before).then_some(list)
    }

    /// A command: an array of words, or one line split without a shell.
    pub(super) fn command(&mut self) -> Option<Vec<String>> {
        const EXAMPLE: &str = "[\"python\", \"train.py\"]";
        let line = match &self.node.value {
            Value::String(text) => Some(text.clone()),
            Value::Untyped(text) if !text.trim_start().starts_with('[') => Some(text.clone()),
            Value::Array(_) | Value::Untyped(_) => None,
            _ => return self.wrong_type("an array of strings or a string", EXAMPLE),
        };
        if line.as_ref().is_some_and(|line| line.contains('\0')) {
            return self.refuse("holds a NUL byte", "leave it out: no program could receive it");
        }
        if let Some(line) = line {
            return match words::split(&line) {
                Ok(list) => Some(list),
                Err(unsplit) => self.refuse(&unsplit.reason(), unsplit.way_out()),
            };
        }
        let list: Vec<String> = self.strings(EXAMPLE)?.into_iter().map(|(text, _)| text).collect();
        if list.first().is_none_or(String::is_empty) {
            return self.refuse("is empty", format!("for example: {EXAMPLE}"));
        }
        Some(list)
    }

    /// The entries of a table.
    pub(super) fn table(&mut self, example: &str) -> Option<Vec<(Name, Node)>> {
        match &self.node.value {
            Value::Table(entries) => Some(entries.clone()),
            Value::Untyped(_) => {
                let variable =
                    format!("OUTLAST_CONFIG_{}__NAME", self.path.replace('.', "__").to_uppercase());
                let help = format!("set one name at a time: {variable} or {}.NAME", self.path);
                self.refuse("is a table", help)
            }
            _ => self.wrong_type("a table", example),
        }
    }
}
