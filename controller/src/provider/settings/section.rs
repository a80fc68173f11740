//! One table of `providers.toml` while it is read: "give me a whole number, or
//! say what is wrong with it". A key that nobody asked for is an error, since a
//! misspelt setting is no setting.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use artifacts::store::trouble::foreign;
use toml::de::{DeTable, DeValue};

use super::{Problem, line_of};

/// A table, its place, and where complaints go.
pub(crate) struct Section<'t> {
    path: String,
    line: usize,
    text: &'t str,
    entries: BTreeMap<String, (usize, &'t DeValue<'t>)>,
    asked: RefCell<Vec<&'static str>>,
    problems: &'t RefCell<Vec<Problem>>,
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn whole(value: &DeValue<'_>) -> Option<i64> {
    let DeValue::Integer(number) = value else { return None };
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

impl<'t> Section<'t> {
    pub(super) fn new(
        path: &str,
        line: usize,
        text: &'t str,
        table: &'t DeTable<'t>,
        problems: &'t RefCell<Vec<Problem>>,
    ) -> Self {
        let entry =
            |(key, value): (&'t toml::Spanned<std::borrow::Cow<'t, str>>, &'t toml::Spanned<DeValue<'t>>)| {
                (key.get_ref().to_string(), (line_of(text, key.span().start), value.get_ref()))
            };
        let entries = table.iter().map(entry).collect();
        Self { path: path.to_owned(), line, text, entries, asked: RefCell::default(), problems }
    }

    /// The whole name of a key, fit to be shown.
    fn named(&self, key: &str) -> String {
        let dot = if self.path.is_empty() { "" } else { "." };
        foreign(&format!("{}{dot}{key}", self.path))
    }

    /// Complains about a key's value.
    pub(crate) fn refuse<T>(&self, key: &str, message: &str, help: &str) -> Option<T> {
        let line = self.entries.get(key).map_or(self.line, |(line, _)| *line);
        let message = format!("`{}` {message}", self.named(key));
        self.problems.borrow_mut().push(Problem { line, message, help: help.to_owned() });
        None
    }

    /// Complains about the table.
    pub(crate) fn complain(&self, message: &str, help: &str) {
        let message = format!("`{}` {message}", foreign(&self.path));
        self.problems.borrow_mut().push(Problem { line: self.line, message, help: help.to_owned() });
    }

    fn value(&self, key: &'static str) -> Option<&'t DeValue<'t>> {
        self.asked.borrow_mut().push(key);
        self.entries.get(key).map(|(_, value)| *value)
    }

    fn wrong<T>(&self, key: &str, wanted: &str, value: &DeValue<'_>, example: &str) -> Option<T> {
        let help = format!("for example: {key} = {example}");
        self.refuse(key, &format!("must be {wanted}, not {}", kind(value)), &help)
    }

    /// A string with something in it and no control characters.
    pub(crate) fn string(&self, key: &'static str, example: &str) -> Option<String> {
        match self.value(key)? {
            DeValue::String(text) if text.trim().is_empty() => {
                self.refuse(key, "is empty", &format!("for example: {key} = {example}"))
            }
            DeValue::String(text) if text.chars().any(char::is_control) || text.len() > 4096 => {
                self.refuse(key, "is too long or has control characters in it", "write one short line")
            }
            DeValue::String(text) => Some(text.to_string()),
            other => self.wrong(key, "a string", other, example),
        }
    }

    /// The same where it cannot be left out.
    pub(crate) fn needed(&self, key: &'static str, example: &str) -> Option<String> {
        if !self.entries.contains_key(key) {
            self.asked.borrow_mut().push(key);
            self.complain(&format!("has no `{key}`"), &format!("for example: {key} = {example}"));
            return None;
        }
        self.string(key, example)
    }

    /// A whole number.
    pub(crate) fn count(&self, key: &'static str, range: RangeInclusive<u32>, example: &str) -> Option<u32> {
        let value = self.value(key)?;
        let DeValue::Integer(_) = value else { return self.wrong(key, "a whole number", value, example) };
        match whole(value).and_then(|number| u32::try_from(number).ok()) {
            Some(count) if range.contains(&count) => Some(count),
            _ => {
                let wanted = format!("must be from {} to {}", range.start(), range.end());
                self.refuse(key, &wanted, &format!("for example: {key} = {example}"))
            }
        }
    }

    /// A finite number that is not negative.
    pub(crate) fn amount(&self, key: &'static str, example: &str) -> Option<f64> {
        let value = self.value(key)?;
        let number = match value {
            DeValue::Float(number) => number.as_str().replace('_', "").parse().unwrap_or(f64::NAN),
            DeValue::Integer(_) => whole(value).map_or(f64::NAN, |whole| whole as f64),
            other => return self.wrong(key, "a number", other, example),
        };
        if number.is_finite() && number >= 0.0 {
            return Some(number + 0.0);
        }
        self.refuse(key, "must be finite and not negative", &format!("for example: {key} = {example}"))
    }

    /// One word, or a list of words and whole numbers; a word is a list of
    /// itself with `true`.
    pub(crate) fn word_or_list(&self, key: &'static str, example: &str) -> Option<(Vec<String>, bool)> {
        match self.value(key)? {
            DeValue::String(text) => Some((vec![text.to_string()], true)),
            DeValue::Array(items) => {
                let word = |item: &DeValue<'_>| match item {
                    DeValue::String(text) => Some(text.to_string()),
                    DeValue::Integer(_) => whole(item).map(|number| number.to_string()),
                    _ => None,
                };
                let words: Option<Vec<String>> = items.iter().map(|item| word(item.get_ref())).collect();
                let Some(words) = words else {
                    let help = format!("for example: {key} = {example}");
                    return self.refuse(key, "must hold whole numbers and strings only", &help);
                };
                Some((words, false))
            }
            other => self.wrong(key, "a string or an array", other, example),
        }
    }

    /// A table below this one.
    pub(crate) fn table(&self, key: &'static str, example: &str) -> Option<Section<'t>> {
        match self.value(key)? {
            DeValue::Table(table) => Some(self.below(key, table)),
            other => self.wrong(key, "a table", other, example),
        }
    }

    /// All tables below this one, by their names.
    pub(crate) fn tables(&self) -> Vec<(String, Section<'t>)> {
        let mut found = Vec::new();
        for (key, (_, value)) in &self.entries {
            match value {
                DeValue::Table(table) => found.push((key.clone(), self.below(key, table))),
                other => {
                    let message = format!("must be a table, not {}", kind(other));
                    self.refuse::<()>(key, &message, "write it as a [section] of its own");
                }
            }
        }
        found
    }

    fn below(&self, key: &str, table: &'t DeTable<'t>) -> Section<'t> {
        let line = self.entries.get(key).map_or(self.line, |(line, _)| *line);
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Section::new(&path, line, self.text, table, self.problems)
    }

    /// Complains about every key that nobody asked for.
    pub(crate) fn finish(&self) {
        let asked = self.asked.borrow();
        let help = format!("known here: {}", asked.join(", "));
        for key in self.entries.keys().filter(|key| !asked.contains(&key.as_str())) {
            self.refuse::<()>(key, "is not known", &help);
        }
    }
}
