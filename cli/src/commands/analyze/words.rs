//! Names and texts out of files, made such that they can stand in a sentence:
//! ASCII, one line, bounded, and in quotes unless they are plain names, so that
//! nobody takes what a file says for what this program says.

use std::collections::BTreeMap;
use std::path::Path;

use curves::format::Format;
use curves::judge::Report;
use serde::Serialize;

use crate::args::FORMATS;

mod letters;

pub(crate) use letters::{legible, page, page_path};

/// Longest plain name that stands without quotes.
const PLAIN: usize = 64;
/// Characters of a quoted text before it is cut.
const QUOTED: usize = 80;

/// Characters of a path that is shown to be typed.
const TYPED: usize = 1024;

/// Text in quotes, spelt in ASCII and cut when it is long.
pub(crate) fn quoted(text: &str) -> String {
    quoted_within(text, QUOTED)
}

/// The same, cut after so many characters.
pub(crate) fn quoted_within(text: &str, most: usize) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        if out.len() > most {
            out.push_str("...");
            break;
        }
        match c {
            ' '..='~' if c != '"' && c != '\\' => out.push(c),
            c => out.extend(c.escape_default()),
        }
    }
    out.push('"');
    out
}

/// The same, but a plain name stays as it is.
pub(crate) fn name(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:@%+=-#".contains(c);
    if !text.is_empty() && text.len() <= PLAIN && text.chars().all(plain) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// The name under which a metric is judged and shown. Two different names that
/// are cut alike stay apart by a number made from all of the name.
pub(crate) fn metric(text: &str) -> String {
    let shown = name(text);
    if !shown.ends_with("...\"") {
        return shown;
    }
    // FNV-1a: it need only keep names apart that do not mean to be the same.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{shown}#{:06x}", hash >> 40)
}

/// Any text of this program's own with names in it, as ASCII on one line.
pub(crate) fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => out.push(c),
            c => out.extend(c.escape_default()),
        }
    }
    out
}

/// Gives metrics the names that the log has for them where they stand alone;
/// in sentences they stay quoted.
pub(crate) fn restore(report: &mut Report, renamed: &BTreeMap<String, String>) {
    if renamed.is_empty() {
        return;
    }
    let back = |text: &mut String| {
        if let Some(name) = renamed.get(text.as_str()) {
            text.clone_from(name);
        }
    };
    report.primary.as_mut().map(back);
    report.summary.metric.as_mut().map(back);
    for metric in &mut report.metrics {
        back(&mut metric.name);
        metric.pair.as_mut().map(back);
    }
    report.findings.iter_mut().for_each(|finding| back(&mut finding.metric));
    report.health.parts.iter_mut().for_each(|part| back(&mut part.metric));
    report.moments.iter_mut().for_each(|moment| back(&mut moment.metric));
}

/// A path; of a long one the end, which tells more.
pub(crate) fn path(path: &Path) -> String {
    let text = path.to_string_lossy();
    let long = text.chars().count().saturating_sub(PLAIN);
    if long == 0 {
        return name(&text);
    }
    name(&format!("...{}", text.chars().skip(long + 3).collect::<String>()))
}

/// A path that is named to be typed: whole, and as a shell takes it, unless it has
/// signs that nobody can type.
pub(crate) fn typed(path: &Path) -> String {
    let text = path.to_string_lossy();
    let bare = |c: char| c.is_ascii_alphanumeric() || "_./:@%+=-,".contains(c);
    if !text.is_empty() && text.len() <= TYPED && text.chars().all(bare) {
        text.into_owned()
    } else if text.len() <= TYPED && text.chars().all(|c| (' '..='~').contains(&c) && c != '\'') {
        format!("'{text}'")
    } else {
        quoted(&text)
    }
}

/// The name that the command line has for a format.
pub(crate) fn format(format: Format) -> &'static str {
    if format == Format::Plugin {
        return "plugin";
    }
    FORMATS.iter().find(|(_, known)| *known == format).map_or("mlflow", |(name, _)| name)
}

/// The name that a value has in JSON.
pub(crate) fn in_json(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_names_stay_and_others_stand_in_quotes() {
        for (text, shown) in [
            ("train/loss", "train/loss"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("\"", "\"\\\"\""),
            ("\u{1b}[2J", "\"\\u{1b}[2J\""),
            ("\u{e9}", "\"\\u{e9}\""),
        ] {
            assert_eq!(name(text), shown);
        }
        assert_eq!(path(Path::new(&format!("/{}/end.csv", "d".repeat(300)))).len(), PLAIN);
        let long = format!("/{}/end.csv", "d".repeat(300));
        for (path, shown) in [
            (long.as_str(), long.as_str()),
            ("a b/mlflow.db#run", "'a b/mlflow.db#run'"),
            ("it's\u{1b}", "\"it's\\u{1b}\""),
        ] {
            assert_eq!(typed(Path::new(path)), shown);
        }
        let (a, b) = (format!("{}a", "long ".repeat(60)), format!("{}b", "long ".repeat(60)));
        assert_ne!(metric(&a), metric(&b));
    }

    proptest! {
        #[test]
        fn whatever_a_name_is_it_is_short_printable_and_closed(text in any::<String>()) {
            let shown = metric(&text);
            prop_assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && shown.len() < 120);
            let inner = shown.strip_prefix('"').map(|rest| rest.rsplit_once('"').map_or("", |(inner, _)| inner));
            let quotes = inner.unwrap_or_default().replace("\\\\", "").replace("\\\"", "").matches('"').count();
            prop_assert_eq!(quotes, 0);
            prop_assert!(inner.is_some() || shown == text);
        }
    }
}
