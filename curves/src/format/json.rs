//! A lexer of JSON as training programs write it: with bare NaN and Infinity,
//! and with lines that end anywhere.
//!
//! Works on bytes, allocates only for text with escapes, and never recurses
//! deeper than [`MAX_DEPTH`].

use std::borrow::Cow;

use crate::log::Value;

/// Deeper nesting is no data.
pub(super) const MAX_DEPTH: usize = 32;

/// A position in a text.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    /// The whole text.
    pub(super) text: &'a [u8],
    /// What comes next.
    pub(super) at: usize,
}

/// The inside of a string.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    /// As written, without the quotes.
    pub(super) bytes: &'a [u8],
    /// Whether a backslash is in it.
    pub(super) escaped: bool,
}

impl<'a> Raw<'a> {
    /// The text that is meant. Bytes that are not UTF-8 become U+FFFD.
    pub(super) fn text(self) -> Cow<'a, str> {
        if self.escaped { unescape(self.bytes).into() } else { String::from_utf8_lossy(self.bytes) }
    }
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is not blank.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Takes the next byte if it is this one.
    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Whether only blanks are left.
    pub(super) fn at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// A string; the next byte must be its quote.
    pub(super) fn string(&mut self) -> Option<Raw<'a>> {
        self.eat(b'"')?;
        let from = self.at;
        let mut escaped = false;
        loop {
            let found = self.at + memchr::memchr2(b'"', b'\\', self.text.get(self.at..)?)?;
            if self.text[found] == b'"' {
                self.at = found + 1;
                return Some(Raw { bytes: &self.text[from..found], escaped });
            }
            escaped = true;
            self.at = found + 2;
        }
    }

    /// A number, NaN or an infinity, which something must end.
    #[inline]
    pub(super) fn number(&mut self) -> Option<f64> {
        let rest = self.text.get(self.at..)?;
        let (value, used) = fast_float2::parse_partial::<f64, _>(rest).ok()?;
        match rest.get(used) {
            None | Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') => {
                self.at += used;
                Some(value)
            }
            Some(_) => None,
        }
    }

    /// `null`, `true` or `false`.
    pub(super) fn word(&mut self) -> Option<Value> {
        let rest = self.text.get(self.at..)?;
        let words =
            [(&b"null"[..], Value::Null), (b"true", Value::Bool(true)), (b"false", Value::Bool(false))];
        let (word, value) = words.into_iter().find(|(word, _)| rest.starts_with(word))?;
        self.at += word.len();
        Some(value)
    }

    /// Passes over one value of any kind without recursion; brackets must match.
    pub(super) fn skip(&mut self) -> Option<()> {
        let mut open = [0_u8; MAX_DEPTH];
        let mut depth = 0;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                bracket @ (b'{' | b'[') => {
                    // `{` and `}`, `[` and `]` lie two apart.
                    *open.get_mut(depth)? = bracket + 2;
                    depth += 1;
                    self.at += 1;
                }
                bracket @ (b'}' | b']') => {
                    depth = depth.checked_sub(1)?;
                    if open[depth] != bracket {
                        return None;
                    }
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                _ => {
                    let rest = &self.text[self.at..];
                    let len = rest.iter().position(|b| b",:{}[]\" \t\r\n".contains(b)).unwrap_or(rest.len());
                    self.at += len.max(1);
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// One value of any kind.
    pub(super) fn value(&mut self) -> Option<Value> {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Option<Value> {
        if depth >= MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'"' => Some(Value::Text(self.string()?.text().into_owned())),
            b'{' => {
                let mut map = Vec::new();
                self.object(|lexer, key| {
                    map.push((key.text().into_owned(), lexer.value_at(depth + 1)?));
                    Some(())
                })?;
                Some(Value::Map(map))
            }
            b'[' => {
                self.at += 1;
                let mut list = Vec::new();
                if self.eat(b']').is_some() {
                    return Some(Value::List(list));
                }
                loop {
                    list.push(self.value_at(depth + 1)?);
                    if self.eat(b']').is_some() {
                        return Some(Value::List(list));
                    }
                    self.eat(b',')?;
                }
            }
            _ => {
                let from = self.at;
                let Some(value) = self.number() else { return self.word() };
                let text = std::str::from_utf8(&self.text[from..self.at]).ok();
                let integer = text.and_then(|text| text.parse().ok());
                Some(integer.map_or(Value::Float(value), Value::Integer))
            }
        }
    }

    /// An object: hands each key to `member`, which must take the value.
    pub(super) fn object(&mut self, mut member: impl FnMut(&mut Self, Raw<'a>) -> Option<()>) -> Option<()> {
        self.eat(b'{')?;
        if self.eat(b'}').is_some() {
            return Some(());
        }
        loop {
            self.peek()?;
            let key = self.string()?;
            self.eat(b':')?;
            self.peek()?;
            member(self, key)?;
            if self.eat(b'}').is_some() {
                return Some(());
            }
            self.eat(b',')?;
        }
    }
}

/// A longer text is not made into a value, which takes many times its room.
const MAX_VALUE_BYTES: usize = 4 << 20;

/// A whole text as a value; `None` when it is not one.
pub fn parse(text: &[u8]) -> Option<Value> {
    if text.len() > MAX_VALUE_BYTES {
        return None;
    }
    let mut lexer = Lexer::new(text);
    let value = lexer.value()?;
    lexer.at_end().then_some(value)
}

/// Words that stand in quotes where JSON has no number for them.
pub(crate) fn quoted_number(text: &[u8]) -> Option<f64> {
    match text {
        b"NaN" | b"nan" => Some(f64::NAN),
        b"Infinity" | b"inf" => Some(f64::INFINITY),
        b"-Infinity" | b"-inf" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn unescape(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('u') => out.push(code_point(&mut chars)),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

/// What follows `\u`; two of them make a character beyond U+FFFF.
fn code_point(chars: &mut std::str::Chars<'_>) -> char {
    let unit = |chars: &mut std::str::Chars<'_>| {
        let digits: String = chars.by_ref().take(4).collect();
        u32::from_str_radix(&digits, 16).ok()
    };
    let first = unit(chars);
    let second = || {
        let mut ahead = chars.clone();
        (ahead.next() == Some('\\') && ahead.next() == Some('u')).then_some(())?;
        let low = unit(&mut ahead).filter(|low| (0xdc00..0xe000).contains(low))?;
        Some((low, ahead))
    };
    let found = match first {
        Some(high @ 0xd800..0xdc00) => second().and_then(|(low, ahead)| {
            *chars = ahead;
            char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))
        }),
        other => other.and_then(char::from_u32),
    };
    found.unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(text: &str) -> Option<f64> {
        match parse(text.as_bytes()) {
            Some(Value::Float(value)) => Some(value),
            Some(Value::Integer(value)) => Some(value as f64),
            _ => None,
        }
    }

    #[test]
    fn numbers_are_read_to_the_last_bit() {
        for text in ["0", "-1", "0.1", "1e-300", "2.6948823942310476", "1.4999999999999999e-05", "5e-324"] {
            assert_eq!(float(text).map(f64::to_bits), text.parse().ok().map(f64::to_bits), "{text}");
        }
        assert_eq!(float("1e400"), Some(f64::INFINITY));
        assert_eq!(float("-Infinity"), Some(f64::NEG_INFINITY));
        assert!(float("NaN").is_some_and(f64::is_nan));
        for text in ["", "-", "1x", "nanx", "0x10", "--1", "tru"] {
            assert_eq!(float(text), None, "{text}");
        }
    }

    #[test]
    fn values_of_every_kind() {
        let text =
            r#"{"a": [1, 2.5, "x\u00e9\ud83d\ude00\n"], "b": {"c": null, "d": true}, "e": {}, "f": []}"#;
        let value = parse(text.as_bytes());
        let text = |t: &str| Value::Text(t.to_owned());
        let map = |members: Vec<(&str, Value)>| {
            Value::Map(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        };
        assert_eq!(
            value,
            Some(map(vec![
                ("a", Value::List(vec![Value::Integer(1), Value::Float(2.5), text("xé😀\n")])),
                ("b", map(vec![("c", Value::Null), ("d", Value::Bool(true))])),
                ("e", map(vec![])),
                ("f", Value::List(vec![])),
            ]))
        );
    }

    #[test]
    fn depth_is_bounded_and_brackets_match() {
        let deep = "[".repeat(100_000);
        assert_eq!(parse(deep.as_bytes()), None);
        assert_eq!(Lexer::new(deep.as_bytes()).skip(), None);
        assert_eq!(Lexer::new(b"{\"a\": [1, {\"b\": \"}\"}]} x").skip(), Some(()));
        assert_eq!(Lexer::new(b"{\"a\": [1}]").skip(), None);
        assert_eq!(Lexer::new(b"{\"a\": \"x").skip(), None);
    }
}
