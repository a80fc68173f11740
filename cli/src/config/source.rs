//! Where a setting's text stands: a file, an environment variable or a flag,
//! with the exact span. Reports and origins are made from these positions, so
//! nothing here may guess: a position it cannot name is left out.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::printer::safe;

/// What kind of place a text came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The user's own file.
    UserFile(PathBuf),
    /// The project's `outlast.toml`.
    ProjectFile(PathBuf),
    /// An environment variable, by its name.
    Environment(String),
    /// A flag, by the setting that it names.
    Flag(String),
}

/// One text that holds settings.
#[derive(Debug)]
pub(super) struct Source {
    /// Where the text came from.
    pub(super) place: Place,
    /// How the place is shown in a report.
    pub(super) label: String,
    /// The whole text; spans are byte offsets into it.
    pub(super) text: String,
}

/// A span of one source.
#[derive(Debug, Clone)]
pub(super) struct At {
    /// The text.
    pub(super) source: Arc<Source>,
    /// The bytes of the text that are meant.
    pub(super) span: Range<usize>,
}

/// A line as a report shows it.
pub(super) struct Excerpt {
    /// Line number from 1.
    pub(super) line: usize,
    /// Column from 1, counted in characters.
    pub(super) column: usize,
    /// The line without control characters, clipped around the span.
    pub(super) shown: String,
    /// Columns before the caret.
    pub(super) indent: usize,
    /// How many carets.
    pub(super) carets: usize,
}

/// Lines longer than this are clipped around the caret.
const WIDEST: usize = 120;

impl At {
    /// A span of `source`.
    pub(super) fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        Self { source: Arc::clone(source), span }
    }

    /// Line number of the first byte, from 1.
    pub(super) fn line(&self) -> usize {
        let start = floor(&self.source.text, self.span.start);
        self.source.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// Whether line numbers mean anything here: only in files.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.source.place, Place::UserFile(_) | Place::ProjectFile(_))
    }

    /// The line with its caret.
    pub(super) fn excerpt(&self) -> Excerpt {
        let text = &self.source.text;
        let start = floor(text, self.span.start);
        let end = floor(text, self.span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let before = shown(&text[line_start..start]);
        let marked = shown(&text[start..end.min(line_end)]);
        let after = shown(text[end.min(line_end)..line_end].trim_end());
        let (shown, indent, carets) = clip(&before, &marked, &after);
        Excerpt {
            line: self.line(),
            column: text[line_start..start].chars().count() + 1,
            shown,
            indent,
            carets: carets.max(1),
        }
    }
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Text as one line of printable characters; a tab is four columns.
fn shown(text: &str) -> String {
    safe(&text.trim_end_matches('\r').replace('\t', "    ")).into_owned()
}

/// Joins the three pieces and clips them so that the carets stay visible.
fn clip(before: &str, marked: &str, after: &str) -> (String, usize, usize) {
    let (lead, carets) = (before.chars().count(), marked.chars().count());
    if lead + carets + after.chars().count() <= WIDEST {
        return (format!("{before}{marked}{after}"), lead, carets);
    }
    let mut out = String::new();
    let kept = lead.min(WIDEST / 3);
    if kept < lead {
        out.push('…');
    }
    out.extend(before.chars().skip(lead - kept));
    let indent = out.chars().count();
    let carets = carets.min(WIDEST / 3);
    out.extend(marked.chars().chain(after.chars()).take(WIDEST * 2 / 3));
    out.push('…');
    (out, indent, carets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, span: Range<usize>) -> Excerpt {
        let place = Place::ProjectFile(PathBuf::from("outlast.toml"));
        let source = Arc::new(Source { place, label: "outlast.toml".to_owned(), text: text.to_owned() });
        At::new(&source, span).excerpt()
    }

    #[test]
    fn a_span_is_found_by_line_and_column() {
        let excerpt = at("a = 1\n\tbé = x\r\n", 7..10);
        assert_eq!((excerpt.line, excerpt.column), (2, 2));
        assert_eq!(excerpt.shown, "    bé = x");
        assert_eq!((excerpt.indent, excerpt.carets), (4, 2));
    }

    #[test]
    fn spans_outside_the_text_do_not_panic() {
        assert_eq!(at("é", 1..9).column, 1);
        assert_eq!(at("", 5..7).carets, 1);
        assert_eq!(at("a\nb", 1..2).carets, 1);
    }

    #[test]
    fn long_lines_are_clipped_around_the_span() {
        let text = format!("{}BAD{}", "x".repeat(400), "y".repeat(400));
        let excerpt = at(&text, 400..403);
        let pointed: String = excerpt.shown.chars().skip(excerpt.indent).take(excerpt.carets).collect();
        assert_eq!(pointed, "BAD");
        assert!(excerpt.shown.chars().count() <= WIDEST + 2);
    }

    #[test]
    fn terminal_escapes_are_never_echoed() {
        assert!(!at("a = \x1b[31m", 0..1).shown.contains('\x1b'));
    }
}
