//! Names and texts out of files for pages and pictures that people look at:
//! letters of every script stand as they are. What cannot be seen, or turns the
//! direction of what stands beside it, is spelt out, so that no name looks like
//! another and none reaches beyond itself.

use std::path::Path;

/// Longest name that stands without quotes, and characters of a longer one.
const PLAIN: usize = 64;
const QUOTED: usize = 80;
/// Marks over one letter: more would cover the lines around it.
const MARKS: usize = 4;

/// Any text on one line, with what nobody can see spelt out.
pub(crate) fn legible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut marks, mut letter) = (0, false);
    for c in text.chars() {
        let mark = is_mark(c);
        marks = if mark { marks + 1 } else { 0 };
        let shown = match c {
            ' '..='~' => true,
            _ if is_hidden(c) => false,
            _ if mark => letter && marks <= MARKS,
            c => c.escape_debug().nth(1).is_none(),
        };
        if shown {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
        letter = shown && (mark || c.is_alphanumeric());
    }
    out
}

/// The name of a metric, setting or run on a page.
pub(crate) fn page(text: &str) -> String {
    // One that is cut stays apart from others that are cut alike.
    if text.is_ascii() || text.chars().nth(QUOTED).is_some() {
        return super::metric(text);
    }
    let shown = legible(text);
    let plain = |c: char| c.is_alphanumeric() || "_./:@%+=-#".contains(c);
    if shown == text && text.chars().nth(PLAIN).is_none() && text.chars().all(plain) {
        return shown;
    }
    format!("\"{}\"", shown.replace('"', "\\\""))
}

/// A path on a page; of a long one the end, which tells more.
pub(crate) fn page_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    let long = text.chars().count().saturating_sub(PLAIN);
    if long == 0 {
        return page(&text);
    }
    page(&format!("...{}", text.chars().skip(long + 3).collect::<String>()))
}

/// Whether it stands over, under or behind the letter before it.
fn is_mark(c: char) -> bool {
    // The standard library knows them: it spells them out where they begin a text.
    let mut text = String::from("a");
    text.push(c);
    c.escape_debug().nth(1).is_some() && text.escape_debug().nth(2).is_none()
}

/// Letters and marks that leave nothing to see: fillers, selectors of variants, and
/// the Braille pattern without dots.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn letters_stand_and_what_is_not_seen_is_spelt_out() {
        for (text, shown) in [
            ("Verlust/gr\u{f6}\u{df}e_loss", "Verlust/gr\u{f6}\u{df}e_loss"),
            ("\u{635f}\u{5931}", "\u{635f}\u{5931}"),
            ("Val Loss", "\"Val Loss\""),
            ("a\u{301} \u{939}\u{93f}", "\"a\u{301} \u{939}\u{93f}\""),
            ("say \"\u{f6}\"", "\"say \\\"\u{f6}\\\"\""),
            ("a\u{202e}b", "\"a\\u{202e}b\""),
            ("a\u{200b}b", "\"a\\u{200b}b\""),
            ("a\u{2028}b", "\"a\\u{2028}b\""),
            ("\u{3164}", "\"\\u{3164}\""),
            ("\u{1b}[2J\n", "\"\\u{1b}[2J\\n\""),
            ("say \"x\"", "\"say \\\"x\\\"\""),
            ("", "\"\""),
        ] {
            assert_eq!(page(text), shown);
        }
        let tall = format!("a{}", "\u{301}".repeat(40));
        assert_eq!(legible(&tall).matches("\\u{301}").count(), 36);
        assert_eq!(legible("\u{301}"), "\\u{301}", "there is no letter below it");
        let (a, b) = (format!("{}a", "\u{f6} ".repeat(60)), format!("{}b", "\u{f6} ".repeat(60)));
        assert_ne!(page(&a), page(&b));
        assert!(page_path(Path::new(&format!("/{}/\u{f6}.csv", "d".repeat(300)))).ends_with("d/\u{f6}.csv"));
    }

    proptest! {
        #[test]
        fn nothing_that_is_shown_is_a_control_or_turns_the_direction(text in any::<String>()) {
            for shown in [legible(&text), page(&text)] {
                for c in shown.chars() {
                    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
                    prop_assert!(!c.is_control() && !turns && !is_hidden(c), "{:?}", c);
                }
            }
        }
    }
}
