//! One JSON object, or one Python dict, per line.
//!
//! An own lexer: Python's json writes bare NaN and Infinity, and dicts are
//! printed with single quotes. Nothing is built but the metrics, and nothing
//! here recurses deeper than [`MAX_DEPTH`].

use super::line::{LineMetrics, Role, StepChoice, epoch, role, step};
use crate::number;

/// Deeper nesting makes the line no metrics.
const MAX_DEPTH: usize = 32;

/// What a line holds.
pub(super) enum Found<'a> {
    /// An object up to the end of the line, and the text before it.
    Object(&'a str, LineMetrics),
    /// The line begins as an object but is none.
    Broken,
    /// No object.
    Nothing,
}

/// Looks for an object that reaches to the end of the line.
pub(super) fn find(line: &str) -> Found<'_> {
    let text = line.trim_end();
    let Some(start) = ["{\"", "{'", "{ \"", "{ '"].iter().filter_map(|open| text.find(open)).min() else {
        return if text.starts_with('{') { Found::Broken } else { Found::Nothing };
    };
    if !text.ends_with('}') {
        return if start == 0 { Found::Broken } else { Found::Nothing };
    }
    let mut reader =
        Reader { text: &text[start..], at: 0, metrics: LineMetrics::default(), steps: StepChoice::default() };
    if reader.object(None, 0).is_some() && reader.at == reader.text.len() {
        let Reader { mut metrics, steps, .. } = reader;
        steps.store(&mut metrics);
        return Found::Object(&text[..start], metrics);
    }
    if start == 0 { Found::Broken } else { Found::Nothing }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    metrics: LineMetrics,
    steps: StepChoice,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&mut self) -> Option<u8> {
        self.at += self.rest().len() - self.rest().trim_start().len();
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Reads `{...}`. Values are metrics at the top (`prefix` is `None`) and
    /// one level below; deeper ones are passed over.
    fn object(&mut self, prefix: Option<&str>, depth: usize) -> Option<()> {
        self.eat(b'{')?;
        if self.eat(b'}').is_some() {
            return Some(());
        }
        loop {
            self.peek()?;
            let (key, _) = self.string()?;
            self.eat(b':')?;
            let name = match prefix {
                Some(prefix) => format!("{prefix}/{key}"),
                None => key,
            };
            self.value(&name, depth)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
            // Python leaves no comma before a brace, but allows one.
            if self.eat(b'}').is_some() {
                return Some(());
            }
        }
    }

    fn value(&mut self, name: &str, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' if depth == 0 => self.object(Some(name), 1),
            b'{' | b'[' | b'(' => self.skip(depth),
            b'"' | b'\'' => {
                let (text, python) = self.string()?;
                // Newer trainers print a dict of quoted numbers; in JSON a string is a string.
                if let Some(value) = python.then(|| number::whole(text.trim())).flatten() {
                    self.found(name, value, depth);
                }
                Some(())
            }
            _ => {
                if let Some((value, used)) = number::prefix(self.rest()) {
                    self.at += used;
                    self.found(name, value, depth);
                    return Some(());
                }
                self.word(name, depth)
            }
        }
    }

    /// `true`, `null`, `None`, and `np.float64(0.5)` or `tensor(0.5, ...)`.
    fn word(&mut self, name: &str, depth: usize) -> Option<()> {
        let rest = self.rest();
        let len = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_')).count();
        let word = &rest[..len];
        self.at += len;
        if matches!(word, "true" | "false" | "null" | "True" | "False" | "None") {
            return Some(());
        }
        let scalar = word.rsplit('.').next()?;
        if !["float64", "float32", "float16", "int64", "int32", "tensor", "Array"].contains(&scalar) {
            return None;
        }
        self.eat(b'(')?;
        self.peek()?;
        let (value, used) = number::prefix(self.rest())?;
        self.at += used;
        self.at += self.rest().bytes().take(80).position(|b| b == b')')? + 1;
        self.found(name, value, depth);
        Some(())
    }

    fn found(&mut self, name: &str, value: f64, depth: usize) {
        match role(name) {
            // A counter on top beats one in a nested object.
            Role::Step(rank) => {
                if let Some(step) = step(value) {
                    self.steps.offer(rank + depth * 100, step, None);
                }
            }
            Role::Epoch => self.metrics.epoch = self.metrics.epoch.or(epoch(value)),
            Role::Ignored => {}
            Role::Value => self.metrics.push(name.to_owned(), value),
        }
    }

    /// A quoted string and whether its quotes are single. The caller stands
    /// on the quote.
    fn string(&mut self) -> Option<(String, bool)> {
        let quote = *self.text.as_bytes().get(self.at)?;
        if quote != b'"' && quote != b'\'' {
            return None;
        }
        self.at += 1;
        let mut out = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == char::from(quote) => {
                    self.at += at + 1;
                    return Some((out, quote == b'\''));
                }
                '\\' => match chars.next()?.1 {
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    'u' => {
                        let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                        let code = u32::from_str_radix(&digits, 16).ok()?;
                        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    c => out.push(c),
                },
                c => out.push(c),
            }
        }
        None
    }

    /// Passes over a bracketed value without recursion.
    fn skip(&mut self, depth: usize) -> Option<()> {
        let mut open = depth;
        loop {
            match self.peek()? {
                b'{' | b'[' | b'(' => {
                    open += 1;
                    self.at += 1;
                }
                b'}' | b']' | b')' => {
                    open -= 1;
                    self.at += 1;
                }
                b'"' | b'\'' => {
                    self.string()?;
                }
                _ => self.at += self.rest().chars().next()?.len_utf8(),
            }
            if open == depth {
                return Some(());
            }
            if open > MAX_DEPTH {
                return None;
            }
        }
    }
}
