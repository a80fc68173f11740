//! A line cut into words and the signs between them.
//!
//! Cuts only; what the pieces mean is decided elsewhere.

/// A line of more pieces is no line of metrics.
const MAX_TOKENS: usize = 16 * 1024;

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A run of anything but blanks and signs, with a letter or digit in it.
    Word,
    /// `=`.
    Equals,
    /// `:`.
    Colon,
    /// An opening bracket or parenthesis.
    Open,
    /// Whatever else separates: commas, bars, tabs, dashes, quotes, closings.
    Separator,
}

/// One piece.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    /// What it is.
    pub(super) kind: Kind,
    /// As written.
    pub(super) text: &'a str,
    /// Whether blanks stand before it.
    pub(super) spaced: bool,
}

/// Cuts a line; `None` when it is cut into too many pieces.
pub(super) fn tokens(line: &str) -> Option<Vec<Token<'_>>> {
    let mut out: Vec<Token<'_>> = Vec::new();
    let mut rest = line;
    let mut spaced = false;
    while let Some(c) = rest.chars().next() {
        let size = match sign(c) {
            _ if c.is_whitespace() && c != '\t' => {
                spaced = true;
                rest = &rest[c.len_utf8()..];
                continue;
            }
            Some(_) => c.len_utf8(),
            None => word_length(rest),
        };
        let (text, after) = rest.split_at(size);
        let wordless = !text.contains(char::is_alphanumeric);
        let kind = sign(c).unwrap_or(if wordless { Kind::Separator } else { Kind::Word });
        out.push(Token { kind, text, spaced });
        if out.len() > MAX_TOKENS {
            return None;
        }
        rest = after;
        spaced = false;
    }
    Some(out)
}

/// How long the word is that the text begins with. A comma right between digits is
/// a part of it: a number that is cut there would be another one.
fn word_length(text: &str) -> usize {
    let mut end = 0;
    loop {
        let rest = &text[end..];
        let size = rest.find(|c: char| c.is_whitespace() || sign(c).is_some()).unwrap_or(rest.len());
        let piece = rest[..size].trim_start_matches(['-', '+']);
        end += size;
        let digits = !piece.is_empty() && piece.bytes().all(|b| b.is_ascii_digit() || b == b'/');
        let behind = text[end..].strip_prefix(',').unwrap_or_default();
        if !digits || !behind.starts_with(|c: char| c.is_ascii_digit()) {
            return end;
        }
        end += 1;
    }
}

fn sign(c: char) -> Option<Kind> {
    match c {
        '=' => Some(Kind::Equals),
        ':' => Some(Kind::Colon),
        '[' | '(' | '{' => Some(Kind::Open),
        ']' | ')' | '}' | ',' | ';' | '|' | '\t' | '"' | '`' => Some(Kind::Separator),
        _ => None,
    }
}
