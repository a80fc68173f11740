//! What one ignore file says, read as git reads it. The last pattern that
//! matches decides; a file that is no text says nothing.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::wildmatch::{Flags, literal_len, matches};

/// No ignore file that a person wrote is larger.
const MAX_BYTES: u64 = 16 << 20;

/// One pattern.
#[derive(Debug)]
struct Rule {
    /// Without `!` before and `/` behind.
    pattern: Vec<u8>,
    negated: bool,
    directories_only: bool,
    /// Without a slash: the last component alone is looked at.
    name_only: bool,
    literal: usize,
    line: usize,
}

/// The patterns of one file.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    /// The directory that the patterns speak of, relative to the repository.
    base: String,
    /// How people know the file.
    shown: String,
}

/// What a file of patterns says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// Ignored, or brought back.
    pub(super) ignored: bool,
    /// The file and the line that say so.
    pub(super) place: String,
}

impl Rules {
    /// The patterns in `file`, for names below `base`; none if it cannot be
    /// read or is a link, which git does not follow either.
    pub(super) fn read(file: &Path, base: &str, shown: &str) -> Self {
        let plain = file.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_BYTES);
        Self::read_any(file, base, shown, plain)
    }

    /// The same for a file that git reads also through a link.
    pub(super) fn read_followed(file: &Path, base: &str, shown: &str) -> Self {
        let plain = file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_BYTES);
        Self::read_any(file, base, shown, plain)
    }

    fn read_any(file: &Path, base: &str, shown: &str, plain: bool) -> Self {
        let mut bytes = Vec::new();
        let read = plain && File::open(file).and_then(|f| f.take(MAX_BYTES).read_to_end(&mut bytes)).is_ok();
        Self::parse(if read { &bytes } else { &[] }, base, shown)
    }

    pub(super) fn parse(bytes: &[u8], base: &str, shown: &str) -> Self {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let lines = bytes.split(|byte| *byte == b'\n').enumerate();
        let rules = lines.filter_map(|(number, line)| rule(line, number + 1)).collect();
        Self { rules, base: base.to_owned(), shown: shown.to_owned() }
    }

    /// What the file says of `path`, relative to the repository.
    pub(super) fn say(&self, path: &str, directory: bool, fold: bool) -> Option<Said> {
        let below = match self.base.as_str() {
            "" => path,
            base => path.strip_prefix(base)?.strip_prefix('/')?,
        };
        let name = below.rsplit_once('/').map_or(below, |(_, name)| name);
        let hit = |rule: &&Rule| {
            (directory || !rule.directories_only) && rule.matches(below.as_bytes(), name.as_bytes(), fold)
        };
        let rule = self.rules.iter().rev().find(hit)?;
        Some(Said { ignored: !rule.negated, place: format!("{}:{}", self.shown, rule.line) })
    }
}

fn rule(line: &[u8], number: usize) -> Option<Rule> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // git's texts end at a NUL.
    let line = &line[..line.iter().position(|byte| *byte == 0).unwrap_or(line.len())];
    if line.is_empty() || line[0] == b'#' {
        return None;
    }
    let line = without_spaces(line);
    let (negated, pattern) = line.strip_prefix(b"!").map_or((false, line), |rest| (true, rest));
    let (directories_only, pattern) =
        pattern.strip_suffix(b"/").map_or((false, pattern), |rest| (true, rest));
    if pattern.is_empty() {
        return None;
    }
    Some(Rule {
        negated,
        directories_only,
        name_only: !pattern.contains(&b'/'),
        literal: literal_len(pattern),
        pattern: pattern.to_owned(),
        line: number,
    })
}

/// Without spaces at the end, but those after a backslash.
fn without_spaces(line: &[u8]) -> &[u8] {
    let (mut at, mut spaces) = (0, None);
    while at < line.len() {
        match line[at] {
            b' ' => spaces = spaces.or(Some(at)),
            b'\\' if at + 1 == line.len() => return line,
            b'\\' => (at, spaces) = (at + 1, None),
            _ => spaces = None,
        }
        at += 1;
    }
    &line[..spaces.unwrap_or(line.len())]
}

fn same(a: &[u8], b: &[u8], fold: bool) -> bool {
    if fold { a.eq_ignore_ascii_case(b) } else { a == b }
}

impl Rule {
    fn matches(&self, path: &[u8], name: &[u8], fold: bool) -> bool {
        let whole = self.literal == self.pattern.len();
        if self.name_only {
            if whole {
                return same(&self.pattern, name, fold);
            }
            return matches(&self.pattern, name, Flags { path: false, fold });
        }
        let (pattern, literal) = match self.pattern.strip_prefix(b"/") {
            Some(rest) => (rest, self.literal.saturating_sub(1)),
            None => (self.pattern.as_slice(), self.literal),
        };
        let (Some(prefix), Some(begin)) = (pattern.get(..literal), path.get(..literal)) else { return false };
        if !same(prefix, begin, fold) {
            return false;
        }
        // The rest of a pattern is read without what stands before it: so a
        // `**` right behind it counts as one at the beginning, as in git.
        let (pattern, path) = (&pattern[literal..], &path[literal..]);
        matches(pattern, path, Flags { path: true, fold })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, path: &str, directory: bool) -> Option<(bool, String)> {
        Rules::parse(text.as_bytes(), "", "f")
            .say(path, directory, false)
            .map(|said| (said.ignored, said.place))
    }

    #[test]
    fn lines_are_read_as_git_reads_them() {
        let ignored = |line: usize| Some((true, format!("f:{line}")));
        assert_eq!(said("# a\na\n", "a", false), ignored(2));
        assert_eq!(said("\\#a\n", "#a", false), ignored(1));
        assert_eq!(said("a  \n", "a", false), ignored(1));
        assert_eq!(said("a\\ \n", "a ", false), ignored(1));
        assert_eq!(said("a\r\n", "a", false), ignored(1));
        assert_eq!(said("\u{feff}a", "a", false), ignored(1));
        assert_eq!(said("a/\n", "a", false), None);
        assert_eq!(said("a/\n", "d/a", true), ignored(1));
        assert_eq!(said("/a\n", "d/a", false), None);
        assert_eq!(said("d/a\n", "e/d/a", false), None);
        assert_eq!(said("*.o\n!k.o\n", "d/k.o", false), Some((false, "f:2".into())));
        assert_eq!(said("\n/\n", "a", true), None);
    }

    #[test]
    fn a_file_below_speaks_only_of_what_lies_below() {
        let rules = Rules::parse(b"/a\n", "d", "d/.gitignore");
        assert!(rules.say("d/a", false, false).is_some());
        assert!(rules.say("dd/a", false, false).is_none() && rules.say("a", false, false).is_none());
    }
}
