//! Takes off a line what terminals and loggers put on it: colours, cursor
//! moves, times, levels, rank marks. Never changes the text that remains.

use std::borrow::Cow;

/// Removes ANSI escape sequences and control characters other than tabs.
pub(super) fn strip_escapes(line: &str) -> Cow<'_, str> {
    if !line.chars().any(|c| c.is_control() && c != '\t') {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // CSI: parameters, then one letter or the like.
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // OSC (titles, links) ends with BEL or ESC backslash.
                Some(']') => while chars.next().is_some_and(|c| c != '\u{7}' && c != '\u{1b}') {},
                _ => {}
            },
            '\u{9b}' => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
            c if c.is_control() && c != '\t' => {}
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The line without times, levels and rank marks in front, and the rank that one of
/// them names.
pub(super) fn strip_prefixes(line: &str) -> (&str, Option<u32>) {
    let mut text = line.trim();
    let mut rank = None;
    for _ in 0..6 {
        rank = rank.or_else(|| rank_mark(text));
        let Some(rest) = bracketed(text).or_else(|| time(text)).or_else(|| level(text)) else { break };
        text = rest.trim_start_matches([' ', '\t', ':', '|', '>']);
        text = text.strip_prefix("- ").unwrap_or(text).trim_start();
    }
    (text, rank)
}

/// The number in `[rank3]`, or in torchrun's `[default3]`.
fn rank_mark(text: &str) -> Option<u32> {
    let (inner, _) = text.strip_prefix('[')?.split_once(']')?;
    let number = inner.strip_prefix("rank").or_else(|| inner.strip_prefix("default"))?;
    (number.len() <= 6 && number.bytes().all(|b| b.is_ascii_digit())).then(|| number.parse().ok())?
}

/// `[rank0]:`, `[2026-01-31 10:00:00,123]`, `[INFO]`, `(pid=77)`; not `[5]`.
fn bracketed(text: &str) -> Option<&str> {
    let close = match text.as_bytes().first()? {
        b'[' => ']',
        b'(' => ')',
        _ => return None,
    };
    let (inner, rest) = text[1..].split_once(close)?;
    let lower = inner.to_ascii_lowercase();
    let mark = lower.starts_with("rank")
        || lower.starts_with("default")
        || lower.contains("pid=")
        || time(inner).is_some_and(|rest| rest.len() < 16)
        || level(&lower.to_ascii_uppercase()).is_some();
    (mark && inner.len() <= 60).then_some(rest)
}

/// A date, a time, or both, at the start.
fn time(text: &str) -> Option<&str> {
    let digits = |text: &str, shape: &str| {
        text.len() >= shape.len()
            && text
                .bytes()
                .zip(shape.bytes())
                .all(|(b, s)| if s == b'0' { b.is_ascii_digit() } else { b == s })
    };
    let mut rest = text;
    for shape in ["0000-00-00", "0000/00/00"] {
        if digits(rest, shape) {
            rest = rest[shape.len()..].trim_start_matches(['T', ' ', '_']);
        }
    }
    if digits(rest, "00:00:00") {
        rest = rest[8..].trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | 'Z'));
    }
    (rest.len() < text.len()).then_some(rest)
}

/// `INFO`, `WARNING:`, `INFO:root:`, where a word ends after it.
fn level(text: &str) -> Option<&str> {
    const LEVELS: [&str; 7] = ["INFO", "DEBUG", "WARNING", "WARN", "ERROR", "CRITICAL", "TRACE"];
    let word = LEVELS.into_iter().find(|level| {
        text.strip_prefix(level)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })?;
    let rest = &text[word.len()..];
    let logger = rest.strip_prefix(':').and_then(|rest| rest.split_once(':'));
    match logger {
        Some((name, rest))
            if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "._".contains(c)) =>
        {
            Some(rest)
        }
        _ => Some(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_go_and_the_rest_stays() {
        for line in [
            "2026-01-31 10:00:00,123 - INFO - step 5",
            "[2026-01-31T10:00:00Z] step 5",
            "INFO:root:step 5",
            "[rank0]: step 5",
            "(trainer pid=77) step 5",
            "[INFO] 10:00:00 step 5",
            "2026-01-31 10:00:00.123 | WARNING  | step 5",
        ] {
            assert_eq!(strip_prefixes(line).0, "step 5", "{line}");
        }
        for line in ["[5]\ttrain-loss:1", "information: 5", "-1.5", "(8) items"] {
            assert_eq!(strip_prefixes(line), (line, None));
        }
        for (line, rank) in [
            ("[rank3]: step 5", Some(3)),
            ("2026-01-31 10:00:00 [rank12] step 5", Some(12)),
            ("[default1]:step 5", Some(1)),
            ("[rank]: step 5", None),
            ("[rank99999999999]: step 5", None),
        ] {
            assert_eq!(strip_prefixes(line), ("step 5", rank), "{line}");
        }
    }

    #[test]
    fn escapes_go_whole() {
        assert_eq!(strip_escapes("\u{1b}[1mloss\u{1b}[0m 1\u{1b}[A"), "loss 1");
        assert_eq!(strip_escapes("\u{1b}]0;title\u{7}a\tb\u{1b}"), "a\tb");
    }
}
