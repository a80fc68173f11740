//! A setting's value with the place it stands, whatever it came from: TOML
//! with spans, or the bare text of a variable or flag. Building the tree never
//! judges it; that is for the sections.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;
use super::source::{At, Source};

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The value.
    pub(super) value: Value,
    /// Where it stands.
    pub(super) at: At,
}

/// A key and its place.
#[derive(Debug, Clone)]
pub(super) struct Name {
    /// The key.
    pub(super) text: String,
    /// Where it stands.
    pub(super) at: At,
}

/// What a setting can be.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Text of a variable or flag: its type is what the key wants.
    Untyped(String),
    /// A TOML string.
    String(String),
    /// A TOML integer; `None` is one that does not fit.
    Integer(Option<i64>),
    /// A TOML float.
    Float(f64),
    /// A TOML boolean.
    Boolean(bool),
    /// A TOML date or time; no key takes one.
    Datetime,
    /// A list.
    Array(Vec<Node>),
    /// A table, in the order of the text.
    Table(Vec<(Name, Node)>),
}

impl Value {
    /// The kind of value, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Untyped(_) | Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime => "a date or time",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// A syntax error is often followed by others that it caused: one is shown
/// for a line, and this many at all.
const SYNTAX_SHOWN: usize = 5;

/// Reads a whole file.
pub(super) fn document(source: &Arc<Source>, problems: &mut Vec<Problem>) -> Vec<(Name, Node)> {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    if errors.is_empty() {
        return entries(table.get_ref(), source, 0);
    }
    let mut found: Vec<Problem> = errors.iter().map(|error| syntax(error, source, 0)).collect();
    found.dedup_by_key(|problem| problem.at.as_ref().map(At::line));
    problems.extend(found.into_iter().take(SYNTAX_SHOWN));
    Vec::new()
}

/// Reads a TOML value that begins at byte `offset` of the source.
pub(super) fn inline(source: &Arc<Source>, offset: usize) -> Result<Node, Problem> {
    match DeValue::parse(&source.text[offset..]) {
        Ok(value) => Ok(node(&value, source, offset)),
        Err(error) => Err(syntax(&error, source, offset)),
    }
}

fn syntax(error: &toml::de::Error, source: &Arc<Source>, offset: usize) -> Problem {
    let end = source.text.len();
    let span = error.span().map_or(end..end, |span| shift(&span, offset));
    let within_secrets = is_within_secrets(&source.text, span.start);
    let at = At::new(source, span);
    let what = format!("not valid TOML: {}", error.message());
    // The line may hold a value that somebody forgot to quote.
    if within_secrets {
        return Problem::nowhere(format!("{}:{}: {what}", source.label, at.line()));
    }
    Problem::new(&at, what)
}

/// Whether a place lies in the section of secrets.
fn is_within_secrets(text: &str, place: usize) -> bool {
    let before = text.get(..place.min(text.len())).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
    let header = before.lines().rev().find(|line| line.trim_start().starts_with('[')).unwrap_or_default();
    let named = |text: &str| text.trim_start_matches(['[', ' ', '"', '\'']).starts_with("secrets");
    named(header) || line.starts_with("secrets")
}

fn shift(span: &Range<usize>, offset: usize) -> Range<usize> {
    span.start + offset..span.end + offset
}

fn entries(table: &DeTable<'_>, source: &Arc<Source>, offset: usize) -> Vec<(Name, Node)> {
    let mut list: Vec<(Name, Node)> = table
        .iter()
        .map(|(key, value)| {
            let at = At::new(source, shift(&key.span(), offset));
            (Name { text: key.get_ref().to_string(), at }, node(value, source, offset))
        })
        .collect();
    list.sort_by_key(|(name, _)| name.at.span.start);
    list
}

fn node(value: &Spanned<DeValue<'_>>, source: &Arc<Source>, offset: usize) -> Node {
    let at = At::new(source, shift(&value.span(), offset));
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(list) => Value::Array(list.iter().map(|item| node(item, source, offset)).collect()),
        DeValue::Table(table) => Value::Table(entries(table, source, offset)),
    };
    Node { value, at }
}
