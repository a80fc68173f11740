//! Output as people can read it: valid text, without what only a terminal
//! understands, a progress bar as its last state; and the end of it within a
//! bound that holds for its JSON form, too.

use serde::{Deserialize, Serialize};

/// Bytes of text kept of one stream.
pub const TAIL: usize = 64 << 10;
/// Bytes that this text may have as JSON.
const TAIL_JSON: usize = 96 << 10;

/// The end of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tail {
    /// The text, secrets masked.
    pub text: String,
    /// Bytes that the program wrote to the stream, as far as they were heard of.
    pub bytes: u64,
    /// Bytes that are known to be missing.
    pub missing_bytes: u64,
    /// Whether what lies before `text` was left out.
    pub is_cut: bool,
}

/// Bytes as text: escapes and control characters gone, invalid bytes replaced,
/// of each line what a terminal would show at last.
#[must_use]
pub fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let shown =
            line.trim_end_matches('\r').rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or_default();
        strip(shown, &mut out);
        out.push_str(end);
    }
    out
}

fn strip(line: &str, out: &mut String) {
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some(']' | 'P' | '_' | '^' | 'X') => {
                    while chars.next().is_some_and(|c| c != '\u{7}' && c != '\u{1b}') {}
                }
                Some('(' | ')' | '*' | '+' | '#' | '%') => {
                    chars.next();
                }
                _ => {}
            },
            '\u{9b}' => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
            '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
}

/// Bytes of a character within a JSON string.
fn json_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

/// The end of a text that has at most so many bytes, and at most so many as
/// JSON; whether something was cut. A line that would be cut is left out.
#[must_use]
pub fn end_of(text: &str, most: usize, most_json: usize) -> (&str, bool) {
    let mut json = 0;
    let mut start = text.len();
    for (at, c) in text.char_indices().rev() {
        json += json_len(c);
        if text.len() - at > most || json > most_json {
            break;
        }
        start = at;
    }
    if start == 0 {
        return (text, false);
    }
    let rest = &text[start..];
    if text.as_bytes()[start - 1] == b'\n' {
        return (rest, true);
    }
    let rest = rest.split_once('\n').map_or(rest, |(_, whole)| if whole.is_empty() { rest } else { whole });
    (rest, true)
}

impl Tail {
    /// From clean, masked text, which may begin within a line.
    #[must_use]
    pub fn new(text: &str, bytes: u64, missing_bytes: u64, begins_before: bool) -> Self {
        let (end, is_cut) = end_of(text, TAIL, TAIL_JSON);
        Self { text: end.to_owned(), bytes, missing_bytes, is_cut: is_cut || begins_before }
    }

    /// Its last lines.
    #[must_use]
    pub fn lines(&self, most: usize) -> Vec<String> {
        let mut lines: Vec<String> = self.text.lines().rev().take(most).map(str::to_owned).collect();
        lines.reverse();
        lines
    }
}

/// At most so many characters, with a mark where more were.
#[must_use]
pub fn clip(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn output_is_what_a_terminal_shows_at_last() {
        assert_eq!(clean(b"a\x1b[31mred\x1b[0m\r\nb\n"), "ared\nb\n");
        assert_eq!(clean(b" 1%\r 2%\r 3%\ndone"), " 3%\ndone");
        assert_eq!(clean(b" 1%\r 99%\r\n"), " 99%\n");
        assert_eq!(clean(b"x\x1b]0;title\x07y\xff\x00z\tq"), "xy\u{fffd}z\tq");
        assert_eq!(clean(b""), "");
    }

    #[test]
    fn the_end_begins_at_a_line() {
        assert_eq!(end_of("one\ntwo\nthree", 8, 100), ("three", true));
        assert_eq!(end_of("one\ntwo\nthree", 9, 100), ("two\nthree", true));
        assert_eq!(end_of("short", 9, 100), ("short", false));
        assert_eq!(end_of("longlonglong", 4, 100), ("long", true));
        assert_eq!(end_of("\"\"\"\"", 100, 4), ("\"\"", true));
    }

    proptest! {
        #[test]
        fn any_bytes_give_bounded_clean_text(bytes in proptest::collection::vec(any::<u8>(), 0..4_000), most in 1usize..600) {
            let text = clean(&bytes);
            prop_assert!(text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
            let (end, _) = end_of(&text, most, most);
            prop_assert!(end.len() <= most && serde_json::to_string(end).unwrap().len() <= most + 2);
        }
    }
}
