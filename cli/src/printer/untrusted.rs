//! Text that came from machines, made harmless for terminals and readers. Every
//! such character is spelt out; none is dropped in silence.

use std::borrow::Cow;

/// Untrusted text without anything that a terminal would obey: control
/// characters and marks that turn the direction of text are spelt out, line
/// ends too.
#[must_use]
pub fn safe(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// As [`safe`], but line ends and tabs stay.
#[must_use]
pub fn safe_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\n' || c == '\t')
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let bad = |c: char| obeyed(c) && !keep(c);
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if bad(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Whether a terminal or reader does something else than show the character.
fn obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
