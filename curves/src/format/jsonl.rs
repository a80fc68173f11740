//! One JSON object a line: what most hand-written training loops log.
//!
//! Nested objects are joined by `/`; text, lists, null and truth values are no
//! metrics. Rows stay in the order of the file, with repeated and falling
//! steps as they are. A line that a killed writer left unfinished costs itself
//! alone, also where the next writer went on in the same line.

use super::fields::{Fields, Schema};
use super::json::{self, Lexer, MAX_DEPTH};
use super::lines::Lines;
use crate::log::{Counts, Reader, Sink};

/// In a broken line so many places are tried for a whole object.
const MAX_RESUMES: usize = 8;

/// Reads JSON Lines.
#[derive(Debug, Default)]
pub struct JsonLines {
    lines: Lines,
    rows: Rows,
    counts: Counts,
}

/// JSON objects into rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    fields: Fields,
    /// Name of a nested value, from the outside in.
    path: Vec<u8>,
    /// The present line was found to be whole JSON.
    checked: bool,
}

impl JsonLines {
    /// A reader at the start of a file.
    #[must_use]
    pub fn new(schema: Schema) -> Self {
        Self { rows: Rows::new(schema), ..Self::default() }
    }
}

impl Reader for JsonLines {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let rows = &mut self.rows;
        self.lines.feed(bytes, &mut self.counts, |at, line, counts| rows.line(at, line, counts, sink));
    }

    fn finish(&mut self, sink: &mut dyn Sink) {
        let (at, tail) = self.lines.tail();
        // An object says itself that it is whole.
        let mut lexer = Lexer::new(tail);
        let whole = lexer.peek() == Some(b'{') && lexer.skip().is_some() && lexer.at_end();
        if whole {
            self.rows.line(at, tail, &mut self.counts, sink);
            self.lines.accept_tail(&mut self.counts);
        }
        self.lines.count_torn(&mut self.counts);
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Rows {
    pub(super) fn new(schema: Schema) -> Self {
        Self { fields: Fields::new(schema), ..Self::default() }
    }

    /// Rows whose step and time stand elsewhere.
    pub(super) fn of_metrics() -> Self {
        Self { fields: Fields::of_metrics(), ..Self::default() }
    }

    /// Reads one object and pushes its row: the values left out, `None` when
    /// it is no object.
    pub(super) fn push_at(
        &mut self,
        text: &[u8],
        step: Option<u64>,
        time: Option<f64>,
        sink: &mut dyn Sink,
    ) -> Option<u64> {
        self.object(text).then(|| self.fields.end_at(step, time, sink))
    }

    /// Reads one object and pushes its row: whether it was an object.
    pub(super) fn push(&mut self, text: &[u8], at: u64, counts: &mut Counts, sink: &mut dyn Sink) -> bool {
        let whole = self.object(text);
        if whole {
            counts.records += 1;
            counts.dropped.add(self.fields.end(sink), at);
        }
        whole
    }

    fn line(&mut self, at: u64, line: &[u8], counts: &mut Counts, sink: &mut dyn Sink) {
        let line = if at == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let Some(first) = Lexer::new(line).peek() else { return };
        if first != b'{' {
            counts.unknown.hit(at);
            return;
        }
        if self.push(line, at, counts, sink) {
            return;
        }
        counts.corrupt.hit(at);
        for begin in memchr::memmem::find_iter(line, b"{\"").filter(|begin| *begin > 0).take(MAX_RESUMES) {
            // A value of an object or a list is no row of its own, unless it begins as
            // rows do: then what was cut off was cut where a value was to come.
            let inner = line[..begin].iter().rev().find(|b| !b.is_ascii_whitespace());
            if (!matches!(inner, Some(b':' | b',' | b'[')) || self.begins_a_row(line, begin))
                && self.push(&line[begin..], at + begin as u64, counts, sink)
            {
                return;
            }
        }
    }

    /// Whether the object at `begin` has the first key of its line, or that of the
    /// rows before.
    fn begins_a_row(&self, line: &[u8], begin: usize) -> bool {
        let key = |text: &[u8]| {
            let inner = text.strip_prefix(b"{\"")?;
            memchr::memchr(b'"', inner).map(|end| inner[..end].to_vec())
        };
        let Some(first) = key(&line[begin..]) else { return false };
        let usual = self.fields.guess(None).is_some_and(|(_, name)| name == first);
        usual || key(line).is_some_and(|key| key == first)
    }

    /// Reads an object up to the end of the text: whether it was one.
    fn object(&mut self, text: &[u8]) -> bool {
        self.fields.begin();
        self.path.clear();
        self.checked = false;
        let mut lexer = Lexer::new(text);
        self.members(&mut lexer, 0).is_some() && lexer.at_end()
    }

    fn members(&mut self, lexer: &mut Lexer<'_>, depth: usize) -> Option<()> {
        lexer.eat(b'{')?;
        if lexer.eat(b'}').is_some() {
            return Some(());
        }
        let mut before = None;
        loop {
            let found = self.key(lexer, before, depth)?;
            lexer.eat(b':')?;
            let nested = lexer.peek()? == b'{';
            match found {
                Key::Known(field) if nested => {
                    // What was a number so far is an object this time.
                    self.path.extend_from_slice(self.fields.name(field));
                    self.members(lexer, depth + 1)?;
                    self.path.clear();
                }
                Key::Known(field) => {
                    self.value(lexer, field)?;
                    before = Some(field);
                }
                Key::New(start) => {
                    if let Some(field) = self.new_value(lexer, depth)?
                        && depth == 0
                    {
                        self.fields.follows(before, field);
                        before = Some(field);
                    }
                    self.path.truncate(start);
                }
            }
            if lexer.eat(b',').is_none() {
                return lexer.eat(b'}');
            }
        }
    }

    /// Reads a key. Rows are mostly alike, so the one that followed last time
    /// is compared first; other keys are appended to the path.
    #[inline]
    fn key(&mut self, lexer: &mut Lexer<'_>, before: Option<u32>, depth: usize) -> Option<Key> {
        if lexer.peek()? != b'"' {
            return None;
        }
        if depth == 0
            && let Some((field, name)) = self.fields.guess(before)
        {
            let rest = &lexer.text[lexer.at + 1..];
            if rest.starts_with(name) && rest.get(name.len()) == Some(&b'"') {
                lexer.at += name.len() + 2;
                return Some(Key::Known(field));
            }
        }
        let key = lexer.string()?;
        let start = self.path.len();
        if depth > 0 {
            self.path.push(b'/');
        }
        if key.escaped {
            self.path.extend_from_slice(key.text().as_bytes());
        } else {
            self.path.extend_from_slice(key.bytes);
        }
        Some(Key::New(start))
    }

    fn value(&mut self, lexer: &mut Lexer<'_>, field: u32) -> Option<()> {
        if let Some(value) = lexer.number() {
            self.fields.value(field, value);
            return Some(());
        }
        match lexer.peek()? {
            b'"' => {
                let text = lexer.string()?;
                if let Some(value) = json::quoted_number(text.bytes) {
                    self.fields.value(field, value);
                } else if self.fields.is_time(field) {
                    self.fields.text(field, &text.text());
                }
                Some(())
            }
            b'{' | b'[' => lexer.skip(),
            _ => lexer.word().map(|_| ()),
        }
    }

    /// The value of the key that the path ends with, and its field if it is a
    /// metric's. Names are only taken from lines that are whole.
    fn new_value(&mut self, lexer: &mut Lexer<'_>, depth: usize) -> Option<Option<u32>> {
        match lexer.peek()? {
            b'{' if depth < MAX_DEPTH => return self.members(lexer, depth + 1).map(|()| None),
            b'{' | b'[' => return lexer.skip().map(|()| None),
            b'"' if !self.fields.is_known(&self.path) => {
                let mut ahead = lexer.clone();
                let text = ahead.string()?;
                let telling =
                    json::quoted_number(text.bytes).is_some() || super::time::iso(&text.text()).is_some();
                if !telling {
                    lexer.at = ahead.at;
                    return Some(None);
                }
            }
            b't' | b'f' => return lexer.word().map(|_| None),
            b'n' if lexer.word().is_some() => return Some(None),
            _ => {}
        }
        if !self.checked && !self.fields.is_known(&self.path) {
            let mut whole = Lexer::new(lexer.text);
            whole.skip()?;
            self.checked = whole.at_end();
            self.checked.then_some(())?;
        }
        let Some(field) = self.fields.field(&self.path) else {
            self.fields.drop_value();
            return lexer.skip().map(|()| None);
        };
        self.value(lexer, field).map(|()| Some(field))
    }
}

enum Key {
    /// The field that was expected.
    Known(u32),
    /// Appended to the path, which was this long before.
    New(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Collected;

    fn rows(text: &str) -> (Vec<(Option<u64>, f64)>, u64) {
        let (mut reader, mut log) = (JsonLines::default(), Collected::default());
        reader.feed(text.as_bytes(), &mut log);
        reader.finish(&mut log);
        let pairs = log.column("loss").map(|column| column.pairs().collect()).unwrap_or_default();
        (pairs, reader.counts().corrupt.count)
    }

    #[test]
    fn the_row_behind_a_cut_is_read_wherever_the_cut_is() {
        let row = |step: u64| format!("{{\"step\": {step}, \"train\": {{\"a\": 1}}, \"loss\": 0.5}}");
        for cut in 1..row(1).len() {
            let text = format!("{}\n{}{}\n{}\n", row(0), &row(1)[..cut], row(2), row(3));
            let (found, corrupt) = rows(&text);
            assert_eq!(found, [(Some(0), 0.5), (Some(2), 0.5), (Some(3), 0.5)], "{text}");
            assert_eq!(corrupt, 1, "{text}");
        }
    }

    #[test]
    fn what_is_nested_in_a_broken_line_is_no_row() {
        let (found, corrupt) = rows("{\"step\": 1, \"loss\": 0.5}\n{\"step\": 2, \"val\": {\"loss\": 9}\n");
        assert_eq!((found, corrupt), (vec![(Some(1), 0.5)], 1));
    }

    #[test]
    fn the_row_behind_zeros_is_read() {
        let zeros = "\0".repeat(4096);
        let (found, corrupt) =
            rows(&format!("{{\"step\": 1, \"loss\": 0.5}}\n{zeros}{{\"step\": 2, \"loss\": 0.25}}\n"));
        assert_eq!((found, corrupt), (vec![(Some(1), 0.5), (Some(2), 0.25)], 1));
        let (found, _) = rows(&format!("{zeros}{{\"step\": 2, \"loss\": 0.25}}"));
        assert_eq!(found, [(Some(2), 0.25)], "without a line's end");
    }
}
