//! Settings that tools keep as YAML beside a log: Lightning's `hparams.yaml` and
//! dvclive's `params.yaml`.
//!
//! Reads what those write, mappings and lists in block style with one scalar a line,
//! and takes what it does not know, such as Python's tags, for text or for nothing. It
//! never resolves a tag, an alias or a reference.

use super::json;
use super::lines::Lines;
use crate::log::{Counts, Reader, Record, Sink, Value};

/// Settings of one file; further ones are counted.
const MAX_SETTINGS: u64 = 10_000;
/// Deeper nesting is no data.
const MAX_DEPTH: usize = 32;
/// Elements of one list that are kept.
const MAX_LIST: usize = 1000;

/// Reads settings in YAML.
#[derive(Debug, Default)]
pub struct Yaml {
    lines: Lines,
    tree: Tree,
    counts: Counts,
}

/// A key whose value stands in the lines below it.
#[derive(Debug, Clone)]
struct Open {
    indent: usize,
    key: String,
    list: Vec<Value>,
    /// It has keys below it, or holds what is not read.
    full: bool,
}

#[derive(Debug, Default)]
struct Tree {
    open: Vec<Open>,
    /// Lines that are further in than this belong to a text or a list of mappings.
    within: Option<usize>,
    pushed: u64,
}

impl Yaml {
    /// A reader at the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Reader for Yaml {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let tree = &mut self.tree;
        self.lines.feed(bytes, &mut self.counts, |at, line, counts| tree.line(at, line, counts, sink));
    }

    fn finish(&mut self, sink: &mut dyn Sink) {
        let (at, tail) = self.lines.tail();
        if !tail.is_empty() {
            self.tree.line(at, tail, &mut self.counts, sink);
            self.lines.accept_tail(&mut self.counts);
        }
        (0..self.tree.open.len()).rev().for_each(|depth| self.tree.end(depth, sink));
        self.lines.count_torn(&mut self.counts);
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Tree {
    fn line(&mut self, at: u64, line: &[u8], counts: &mut Counts, sink: &mut dyn Sink) {
        let line = String::from_utf8_lossy(line);
        let text = line.trim_start_matches(' ');
        let indent = line.len() - text.len();
        if text.trim().is_empty() || text.starts_with(['#', '%']) || matches!(text.trim_end(), "---" | "...")
        {
            return;
        }
        if self.within.is_some_and(|outer| indent > outer) {
            return;
        }
        self.within = None;
        counts.records += 1;
        if text == "-" || text.starts_with("- ") {
            self.close(|open| open.indent > indent, sink);
            let Some(open) = self.open.last_mut() else { return };
            let item = text[1..].trim();
            if key(item).is_some() || item.starts_with("- ") || item.is_empty() {
                // Mappings and lists in lists are no settings.
                (open.full, self.within) = (true, Some(indent));
            } else if open.list.len() < MAX_LIST {
                open.list.push(scalar(bare(item)));
            }
            return;
        }
        let Some((key, value)) = key(text) else { return };
        self.close(|open| open.indent >= indent, sink);
        if let Some(above) = self.open.last_mut() {
            above.full = true;
        }
        let value = bare(value.trim());
        if self.pushed >= MAX_SETTINGS || self.open.len() >= MAX_DEPTH {
            counts.dropped.hit(at);
        } else if value.is_empty() {
            self.open.push(Open { indent, key, list: Vec::new(), full: false });
        } else if value.starts_with(['|', '>']) && value.len() <= 3 {
            // A text of several lines.
            self.within = Some(indent);
        } else {
            self.push(&key, scalar(value), self.open.len(), sink);
        }
    }

    /// Ends the innermost keys for which something holds.
    fn close(&mut self, is_over: impl Fn(&Open) -> bool, sink: &mut dyn Sink) {
        while self.open.last().is_some_and(&is_over) {
            self.end(self.open.len() - 1, sink);
            self.open.pop();
        }
    }

    /// Pushes the value of a key that stands open.
    fn end(&mut self, depth: usize, sink: &mut dyn Sink) {
        let Some(open) = self.open.get(depth).filter(|open| !open.full).cloned() else { return };
        let value = if open.list.is_empty() { Value::Null } else { Value::List(open.list) };
        self.push(&open.key, value, depth, sink);
    }

    fn push(&mut self, key: &str, value: Value, depth: usize, sink: &mut dyn Sink) {
        self.pushed += 1;
        let path: Vec<&str> =
            self.open.iter().take(depth).map(|open| open.key.as_str()).chain([key]).collect();
        sink.record(Record::Config { path: &path, value });
    }
}

/// Key and value of `key: value`.
fn key(text: &str) -> Option<(String, &str)> {
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let end = text[1..].find(quote)? + 1;
        let value = text[end + 1..].strip_prefix(':')?;
        return Some((text[1..end].to_owned(), value));
    }
    let end = text.find(": ").or_else(|| text.trim_end().strip_suffix(':').map(str::len))?;
    (end > 0).then(|| (text[..end].to_owned(), &text[end + 1..]))
}

/// A value without the tag or the anchor before it.
fn bare(value: &str) -> &str {
    let mut value = value;
    while value.starts_with(['!', '&']) {
        value = value.split_once(' ').map_or("", |(_, rest)| rest.trim_start());
    }
    value
}

fn scalar(text: &str) -> Value {
    let text = text.split(" #").next().unwrap_or(text).trim_end();
    if let Some(inner) = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
        return Value::Text(inner.replace("''", "'"));
    }
    match text {
        "null" | "~" | "Null" | "NULL" => return Value::Null,
        "true" | "True" => return Value::Bool(true),
        "false" | "False" => return Value::Bool(false),
        ".inf" => return Value::Float(f64::INFINITY),
        "-.inf" => return Value::Float(f64::NEG_INFINITY),
        ".nan" => return Value::Float(f64::NAN),
        _ => {}
    }
    if let Ok(whole) = text.parse() {
        return Value::Integer(whole);
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && let Ok(number) = text.parse()
    {
        return Value::Float(number);
    }
    let inner = text.starts_with(['"', '[', '{']).then(|| json::parse(text.as_bytes())).flatten();
    inner.unwrap_or_else(|| Value::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Collected;
    use proptest::prelude::*;

    fn read(text: &str, piece: usize) -> Collected {
        let (mut reader, mut log) = (Yaml::new(), Collected::default());
        for piece in text.as_bytes().chunks(piece) {
            reader.feed(piece, &mut log);
        }
        reader.finish(&mut log);
        log
    }

    #[test]
    fn settings_as_lightning_and_dvclive_write_them() {
        let text = "lr: 0.1\nmodel: !!python/object:foo.Bar\n  a: 1\n  act: !!python/name:torch.nn.ReLU ''\nlist:\n- 1\n- two\n\
            deep:\n  er:\n    x: 1.0e-05\n    none: null\n  empty: []\nblocks:\n- a: 1\n  b: 2\nsteps: 3 # of it\n\
            'quo: ted': 'it''s'\ntext: |\n  lr: 9\n  more\nflag: true\nnext:\nlast: \"a b\"";
        let log = read(text, text.len());
        let found: Vec<(String, Value)> =
            log.config.into_iter().map(|(path, value)| (path.join("."), value)).collect();
        let text = |text: &str| Value::Text(text.to_owned());
        let expected = [
            ("deep.empty", Value::List(vec![])),
            ("deep.er.none", Value::Null),
            ("deep.er.x", Value::Float(1e-5)),
            ("flag", Value::Bool(true)),
            ("last", text("a b")),
            ("list", Value::List(vec![Value::Integer(1), text("two")])),
            ("lr", Value::Float(0.1)),
            ("model.a", Value::Integer(1)),
            ("model.act", text("")),
            ("next", Value::Null),
            ("quo: ted", text("it's")),
            ("steps", Value::Integer(3)),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn settings_are_bounded() {
        let many: String = (0..20_000).map(|n| format!("k{n}: 1\n")).collect();
        assert_eq!(read(&many, many.len()).config.len() as u64, MAX_SETTINGS);
        let deep: String = (0..200).map(|n| format!("{}k:\n", " ".repeat(n))).collect();
        assert!(read(&deep, deep.len()).config.keys().all(|path| path.len() <= MAX_DEPTH));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "([ab]: |- |\n|  |'|!!x |[|#]|\\PC){0,60}") {
            read(&text, text.len().max(1));
        }
    }
}
