//! Patterns that name files: `*`, `?`, `**`, `[a-z]`, `{a,b}` and `\`.
//!
//! What they mean is what the crate `globset` means by them where separators
//! are literal; the tests hold the two against each other. That crate makes
//! regular expressions of them, whose engines are half a megabyte of an agent
//! that must stay small and has a handful of patterns. Matching never takes more
//! than the pattern's length times the path's, whatever a stranger writes, and
//! nothing here touches a file.

use std::fmt;

/// The longest pattern, in bytes.
const LONGEST: usize = 4096;
/// Alternatives within alternatives.
const DEPTH: usize = 100;
/// Steps that a match may take before it keeps a record of where it was.
const FREE: usize = 256;

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// `[` without an end.
    #[error("unclosed character class; missing ']'")]
    UnclosedClass,
    /// `[z-a]`.
    #[error("invalid character range; '{0}' > '{1}'")]
    InvalidRange(char, char),
    /// `{` without an end.
    #[error("unclosed alternate group; missing '}}' (maybe escape '{{' with '[{{]'?)")]
    UnclosedAlternates,
    /// `}` without a beginning.
    #[error("unopened alternate group; missing '{{' (maybe escape '}}' with '[}}]'?)")]
    UnopenedAlternates,
    /// More than 4096 bytes.
    #[error("it is longer than 4096 bytes")]
    TooLong,
    /// A hundred alternatives within each other.
    #[error("alternate groups are nested too deeply")]
    TooDeep,
    /// A `\` at the end.
    #[error("dangling '\\'")]
    DanglingEscape,
}

/// One step of a compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// This character.
    Char(char),
    /// Any character but a separator.
    Any,
    /// Any character.
    All,
    /// One of these ranges, or none of them; never a separator.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// Goes on at both places, first at the first.
    Split(usize, usize),
    /// Goes on there.
    Jump(usize),
}

/// A pattern that matches whole paths, their components apart by `/`.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    /// The match is complete behind the last one.
    steps: Vec<Step>,
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Glob").field(&self.text).finish()
    }
}

impl Glob {
    /// Compiles one.
    ///
    /// # Errors
    /// Where it is none.
    pub fn new(text: &str) -> Result<Self, GlobError> {
        if text.len() > LONGEST {
            return Err(GlobError::TooLong);
        }
        Ok(Self { text: text.to_owned(), steps: parse::compile(text)? })
    }

    /// Whether it matches the whole of a path.
    #[must_use]
    pub fn is_match(&self, path: &str) -> bool {
        self.search(path, FREE).unwrap_or_else(|| self.recorded(path))
    }

    /// Without a record of where it was; `None`: it takes too long so.
    fn search(&self, path: &str, mut left: usize) -> Option<bool> {
        let mut open = vec![(0, 0)];
        while let Some((step, at)) = open.pop() {
            left = left.checked_sub(1)?;
            if self.advance(path, step, at, &mut open) {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Never twice at the same step and place.
    fn recorded(&self, path: &str) -> bool {
        let width = path.len() + 1;
        let mut seen = vec![0_u64; (width * (self.steps.len() + 1)).div_ceil(64)];
        let mut open = vec![(0, 0)];
        while let Some((step, at)) = open.pop() {
            let place = step * width + at;
            let (word, bit) = (&mut seen[place / 64], 1 << (place % 64));
            if *word & bit == 0 {
                *word |= bit;
                if self.advance(path, step, at, &mut open) {
                    return true;
                }
            }
        }
        false
    }

    /// One step; true where all is matched.
    fn advance(&self, path: &str, step: usize, at: usize, open: &mut Vec<(usize, usize)>) -> bool {
        let next = path[at..].chars().next();
        let taken = match (self.steps.get(step), next) {
            (None, next) => return next.is_none(),
            (Some(Step::Split(first, second)), _) => {
                open.push((*second, at));
                open.push((*first, at));
                return false;
            }
            (Some(Step::Jump(to)), _) => {
                open.push((*to, at));
                return false;
            }
            (Some(_), None) => false,
            (Some(Step::Char(wanted)), Some(c)) => *wanted == c,
            (Some(Step::Any), Some(c)) => c != '/',
            (Some(Step::All), Some(_)) => true,
            (Some(Step::Class { negated, ranges }), Some(c)) => {
                c != '/' && ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated
            }
        };
        if taken && let Some(c) = next {
            open.push((step + 1, at + c.len_utf8()));
        }
        false
    }
}

/// Several patterns, of which one must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GlobSet(Vec<Glob>);

impl GlobSet {
    /// Whether one of them matches the whole of a path.
    #[must_use]
    pub fn is_match(&self, path: &str) -> bool {
        self.0.iter().any(|glob| glob.is_match(path))
    }

    /// With one more.
    pub fn add(&mut self, glob: Glob) {
        self.0.push(glob);
    }
}

impl FromIterator<Glob> for GlobSet {
    fn from_iter<I: IntoIterator<Item = Glob>>(globs: I) -> Self {
        Self(globs.into_iter().collect())
    }
}

/// A pattern that matches this text and nothing else.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '?' | '*' | '[' | ']' | '{' | '}') {
            escaped.extend(['[', c, ']']);
        } else if c == '\\' {
            escaped.push_str("\\\\");
        } else {
            escaped.push(c);
        }
    }
    escaped
}

mod parse;
#[cfg(test)]
mod tests;
