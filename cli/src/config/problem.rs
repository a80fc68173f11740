//! What is wrong with a configuration, all of it at once, shown as a compiler
//! shows it. A problem carries its position and its way out; it never stops
//! the reading of what follows.

use std::fmt;

use super::source::At;
use crate::printer::safe;

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    /// What is wrong, in one line.
    pub(super) message: String,
    /// Where, if it stands anywhere.
    pub(super) at: Option<At>,
    /// What to do about it.
    pub(super) help: Vec<String>,
}

/// Everything that is wrong with a configuration. Its `Display` is the whole
/// report.
#[derive(Debug, Clone)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
}

/// A report shows this many problems; the rest is counted.
const SHOWN: usize = 50;

impl Problem {
    /// A problem at a position.
    pub(super) fn new(at: &At, message: impl Into<String>) -> Self {
        Self { message: message.into(), at: Some(at.clone()), help: Vec::new() }
    }

    /// A problem that stands nowhere in a text.
    pub(super) fn nowhere(message: impl Into<String>) -> Self {
        Self { message: message.into(), at: None, help: Vec::new() }
    }

    /// The same with a way out.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}

impl ConfigErrors {
    /// Fails with the problems, if there are any.
    pub(super) fn check(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }

    /// One problem alone.
    pub(super) fn one(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }

    /// How many things are wrong.
    #[must_use]
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    /// Each problem in one line, with its place in a file, and the ways out of all.
    pub(crate) fn briefly(&self) -> (String, Vec<String>) {
        let (mut told, mut help) = (Vec::new(), Vec::new());
        for problem in self.problems.iter().take(SHOWN) {
            let at = problem.at.as_ref().filter(|at| at.is_file());
            let place = at.map(|at| format!(" ({}:{})", safe(&at.source.label), at.excerpt().line));
            told.push(format!("{}{}", safe(&problem.message), place.unwrap_or_default()));
            for way in problem.help.iter().map(|way| safe(way).into_owned()) {
                if !help.contains(&way) {
                    help.push(way);
                }
            }
        }
        (told.join("; "), help)
    }

    /// The first line of each problem, for machine-readable output.
    pub fn messages(&self) -> impl Iterator<Item = &str> {
        self.problems.iter().map(|problem| problem.message.as_str())
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        let hidden = self.problems.len().saturating_sub(SHOWN);
        if hidden > 0 { write!(f, "\n\nand {hidden} more") } else { Ok(()) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", safe(&self.message))?;
        let Some(at) = &self.at else {
            return self.help.iter().try_for_each(|help| write!(f, "\n  = help: {}", safe(help)));
        };
        let excerpt = at.excerpt();
        let number = if at.is_file() { excerpt.line.to_string() } else { String::new() };
        let gutter = " ".repeat(number.len());
        write!(f, "\n{gutter} --> {}", safe(&at.source.label))?;
        if at.is_file() {
            write!(f, ":{}:{}", excerpt.line, excerpt.column)?;
        }
        let (indent, carets) = (" ".repeat(excerpt.indent), "^".repeat(excerpt.carets));
        write!(f, "\n {gutter} |\n {number} | {}\n {gutter} | {indent}{carets}", excerpt.shown)?;
        self.help.iter().try_for_each(|help| write!(f, "\n {gutter} = help: {}", safe(help)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_problems_is_counted_not_shown() {
        let problems = vec![Problem::nowhere("bad").help("do better"); SHOWN + 3];
        let errors = ConfigErrors::check(problems).unwrap_err();
        assert_eq!(errors.count(), SHOWN + 3);
        assert!(errors.to_string().ends_with("and 3 more"));
        assert!(ConfigErrors::check(Vec::new()).is_ok());
    }

    #[test]
    fn in_one_line_nothing_is_drawn_and_no_way_out_is_told_twice() {
        let one = |what: &str| Problem::nowhere(what).help("do better");
        let errors = ConfigErrors::check(vec![one("bad"), one("worse")]).unwrap_err();
        assert_eq!(errors.briefly(), ("bad; worse".to_owned(), vec!["do better".to_owned()]));
    }

    #[test]
    fn messages_cannot_carry_terminal_escapes() {
        let errors = ConfigErrors::one(Problem::nowhere("a\x1b[2Jb"));
        assert!(!errors.to_string().contains('\x1b'));
    }
}
