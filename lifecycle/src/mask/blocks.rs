//! Private keys as they stand in files: a block of several lines, also as one
//! line with `\n` in it, and also when its beginning or its end is missing.

use std::borrow::Cow;

use super::MASK;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// Characters between the dashes at most.
const LABEL: usize = 48;
/// A line that is part of a key, and not a word, where no end follows.
const LINE: usize = 16;

/// Bytes of a marker such as `-----BEGIN RSA PRIVATE KEY-----` at the start
/// of this text.
fn marker(text: &str, kind: &str) -> Option<usize> {
    let label = text.strip_prefix(kind)?;
    let end = label.char_indices().take(LABEL).find(|(_, c)| *c == '-').map(|(at, _)| at)?;
    let (label, rest) = label.split_at(end);
    let is_label = label.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ');
    let whole = is_label && label.contains("PRIVATE KEY") && rest.starts_with(DASHES);
    whole.then_some(kind.len() + end + DASHES.len())
}

/// The first marker of this kind, and where it ends.
fn find(text: &str, kind: &str) -> Option<(usize, usize)> {
    text.match_indices(kind).find_map(|(at, _)| Some((at, at + marker(&text[at..], kind)?)))
}

/// A line of the text, and the bytes of what ends it: a line feed, or that as
/// a string's escape.
fn line(text: &str) -> (&str, usize) {
    let bytes = text.as_bytes();
    let ends = |at: &usize| bytes[*at] == b'\n' || bytes[*at..].starts_with(b"\\n");
    match (0..bytes.len()).find(ends) {
        Some(at) => (&text[..at], if bytes[at] == b'\n' { 1 } else { 2 }),
        None => (text, 0),
    }
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
}

/// What a line holds without what was printed before each line of the block.
fn bare<'a>(line: &'a str, prefix: &str) -> &'a str {
    let line = line.strip_prefix(prefix).unwrap_or(line);
    line.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\'))
}

/// Bytes of the block whose beginning was before `text`, with its end if it
/// has one. `prefix` is what stood on the line before the beginning.
fn length(text: &str, prefix: &str) -> usize {
    let (mut at, mut kept) = (0, 0);
    loop {
        let (line, feed) = line(&text[at..]);
        if let Some((_, end)) = find(line, END) {
            return at + end;
        }
        let content = bare(line, prefix);
        let is_header = content.starts_with("Proc-Type:") || content.starts_with("DEK-Info:");
        if !(content.is_empty() || is_header || is_base64(content)) {
            return kept;
        }
        if is_header || content.len() >= LINE || content.ends_with('=') {
            kept = at + line.len();
        }
        if feed == 0 {
            return kept;
        }
        at += line.len() + feed;
    }
}

/// The text with each private key replaced.
pub(super) fn without_private_keys(text: &str) -> Cow<'_, str> {
    if !text.contains("PRIVATE KEY") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, after)) = find(rest, BEGIN) {
        let before = without_ends(&rest[..at]);
        let prefix = before.rsplit('\n').next().unwrap_or_default().to_owned();
        out.push_str(&before);
        out.push_str(MASK);
        rest = &rest[after..];
        // No key holds the beginning of another.
        let body = &rest[..rest.find(BEGIN).unwrap_or(rest.len())];
        rest = &rest[length(body, &prefix)..];
    }
    out.push_str(&without_ends(rest));
    Cow::Owned(out)
}

/// Blocks whose beginning is not there, as in the end of a long text.
fn without_ends(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, end)) = find(rest, END) {
        out.push_str(&rest[..block_start(&rest[..at])]);
        out.push_str(MASK);
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Where the lines begin, at the end of this text, that are a key's: nothing
/// but base64, a line of it long enough to be no word.
fn block_start(text: &str) -> usize {
    let (mut start, mut at) = (0, 0);
    let mut is_key = false;
    loop {
        let (line, feed) = line(&text[at..]);
        let content = bare(line, "");
        if feed == 0 {
            // The line on which the end stands.
            return if is_key && content.is_empty() { start } else { text.len() };
        }
        at += line.len() + feed;
        if is_base64(content) {
            is_key |= content.len() >= LINE;
        } else {
            (start, is_key) = (at, false);
        }
    }
}
