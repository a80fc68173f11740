//! From the text of a pattern to its steps. Where stars and alternatives may be
//! read in two ways, it is read as `globset` 0.4 reads it.

use super::{DEPTH, GlobError, Step};

/// A pattern's parts.
#[derive(Debug)]
enum Token {
    Char(char),
    Any,
    Star,
    /// `**/` at the beginning.
    Prefix,
    /// `/**` at the end.
    Suffix,
    /// `/**/` between.
    Between,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    Alternates(Vec<Vec<Token>>),
}

pub(super) fn compile(text: &str) -> Result<Vec<Step>, GlobError> {
    let mut parser =
        Parser { chars: text.chars().collect(), at: 0, branches: vec![Vec::new()], groups: Vec::new() };
    parser.parse()?;
    let tokens = parser.branches.pop().unwrap_or_default();
    let mut steps = Vec::new();
    if matches!(tokens[..], [Token::Prefix]) {
        // Alone it is everything.
        any_run(&mut steps, &Step::All);
    } else {
        emit(&tokens, &mut steps);
    }
    Ok(steps)
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    /// The pattern, and within groups their alternatives; what comes goes to the last.
    branches: Vec<Vec<Token>>,
    /// Where in `branches` each open group begins.
    groups: Vec<usize>,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    fn push(&mut self, token: Token) {
        if let Some(branch) = self.branches.last_mut() {
            branch.push(token);
        }
    }

    fn parse(&mut self) -> Result<(), GlobError> {
        while let Some(c) = self.bump() {
            match c {
                '?' => self.push(Token::Any),
                '*' => self.star(),
                '[' => self.class()?,
                '{' => {
                    if self.groups.len() >= DEPTH {
                        return Err(GlobError::TooDeep);
                    }
                    self.groups.push(self.branches.len());
                    self.branches.push(Vec::new());
                }
                '}' => {
                    let start = self.groups.pop().ok_or(GlobError::UnopenedAlternates)?;
                    let alternates = self.branches.split_off(start);
                    self.push(Token::Alternates(alternates));
                }
                ',' if !self.groups.is_empty() => self.branches.push(Vec::new()),
                '\\' => {
                    let escaped = self.bump().ok_or(GlobError::DanglingEscape)?;
                    self.push(Token::Char(escaped));
                }
                c => self.push(Token::Char(c)),
            }
        }
        if self.groups.is_empty() { Ok(()) } else { Err(GlobError::UnclosedAlternates) }
    }

    /// What begins with a star: two of them mean more only between separators.
    fn star(&mut self) {
        // The star itself is behind `at` already.
        let before = self.at.checked_sub(2).and_then(|at| self.chars.get(at).copied());
        if self.peek() != Some('*') {
            return self.push(Token::Star);
        }
        self.at += 1;
        let two = |parser: &mut Self| {
            parser.push(Token::Star);
            parser.push(Token::Star);
        };
        if self.branches.last().is_none_or(Vec::is_empty) {
            if self.peek().is_some_and(|next| next != '/') {
                return two(self);
            }
            self.push(Token::Prefix);
            self.bump();
            return;
        }
        let within = !self.groups.is_empty();
        if before != Some('/') && !(within && matches!(before, Some(',' | '{'))) {
            return two(self);
        }
        let ends = match self.peek() {
            None => true,
            Some(',' | '}') if within => true,
            Some('/') => {
                self.bump();
                false
            }
            Some(_) => return two(self),
        };
        // It takes the place of the separator before it, but for one that
        // belongs to another of its kind.
        let last = self.branches.last_mut().and_then(Vec::pop);
        self.push(match last {
            Some(token @ (Token::Prefix | Token::Suffix)) => token,
            _ if ends => Token::Suffix,
            _ => Token::Between,
        });
    }

    /// What follows a `[`.
    fn class(&mut self) -> Result<(), GlobError> {
        let negated = matches!(self.peek(), Some('!' | '^'));
        self.at += usize::from(negated);
        let mut ranges: Vec<(char, char)> = Vec::new();
        let (mut first, mut open) = (true, false);
        loop {
            match self.bump().ok_or(GlobError::UnclosedClass)? {
                ']' if !first => break,
                '-' if !first && !open => open = true,
                '[' if !open && self.peek() == Some(':') => match self.named() {
                    Some(named) => ranges.extend(named),
                    None => ranges.push(('[', '[')),
                },
                c => match ranges.last_mut().filter(|_| open) {
                    Some(range) if c < range.0 => return Err(GlobError::InvalidRange(range.0, c)),
                    Some(range) => {
                        range.1 = c;
                        open = false;
                    }
                    None => ranges.push((c, c)),
                },
            }
            first = false;
        }
        if open {
            ranges.push(('-', '-'));
        }
        self.push(Token::Class { negated, ranges });
        Ok(())
    }

    /// `[:name:]`, whose `[` is taken already; nothing more is taken where it is
    /// none.
    fn named(&mut self) -> Option<&'static [(char, char)]> {
        let rest = self.chars.get(self.at + 1..)?;
        let length = rest.iter().take(8).take_while(|c| c.is_ascii_lowercase()).count();
        if rest.get(length..length + 2)? != [':', ']'] {
            return None;
        }
        let name: String = rest[..length].iter().collect();
        let ranges: &[(char, char)] = match name.as_str() {
            "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
            "alpha" => &[('A', 'Z'), ('a', 'z')],
            "blank" => &[('\t', '\t'), (' ', ' ')],
            "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
            "digit" => &[('0', '9')],
            "graph" => &[('!', '~')],
            "lower" => &[('a', 'z')],
            "print" => &[(' ', '~')],
            "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
            "space" => &[('\t', '\r'), (' ', ' ')],
            "upper" => &[('A', 'Z')],
            "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
            _ => return None,
        };
        self.at += length + 3;
        Some(ranges)
    }
}

/// `step` any number of times.
fn any_run(steps: &mut Vec<Step>, step: &Step) {
    let at = steps.len();
    // As few as possible first: what follows a star mostly comes soon.
    steps.extend([Step::Split(at + 3, at + 1), step.clone(), Step::Jump(at)]);
}

fn emit(tokens: &[Token], steps: &mut Vec<Step>) {
    for token in tokens {
        let at = steps.len();
        match token {
            Token::Char(c) => steps.push(Step::Char(*c)),
            Token::Any => steps.push(Step::Any),
            Token::Star => any_run(steps, &Step::Any),
            Token::Class { negated, ranges } => {
                steps.push(Step::Class { negated: *negated, ranges: ranges.clone() });
            }
            // Nothing, or anything up to a separator.
            Token::Prefix => {
                steps.push(Step::Split(at + 5, at + 1));
                any_run(steps, &Step::All);
                steps.push(Step::Char('/'));
            }
            Token::Suffix => {
                steps.push(Step::Char('/'));
                any_run(steps, &Step::All);
            }
            // A separator, or two with anything between.
            Token::Between => {
                steps.push(Step::Char('/'));
                steps.push(Step::Split(at + 6, at + 2));
                any_run(steps, &Step::All);
                steps.push(Step::Char('/'));
            }
            Token::Alternates(parts) => alternates(parts, steps),
        }
    }
}

/// An alternative without anything in it is none.
fn alternates(parts: &[Vec<Token>], steps: &mut Vec<Step>) {
    let mut made: Vec<Vec<Step>> = Vec::new();
    for part in parts {
        let mut run = Vec::new();
        emit(part, &mut run);
        if !run.is_empty() {
            made.push(run);
        }
    }
    let mut jumps = Vec::new();
    let last = made.len().saturating_sub(1);
    for (number, run) in made.into_iter().enumerate() {
        let split = steps.len();
        if number < last {
            steps.push(Step::Jump(0));
        }
        let base = steps.len();
        steps.extend(run.into_iter().map(|step| moved(step, base)));
        if number < last {
            jumps.push(steps.len());
            steps.push(Step::Jump(0));
            steps[split] = Step::Split(split + 1, steps.len());
        }
    }
    let after = steps.len();
    jumps.into_iter().for_each(|jump| steps[jump] = Step::Jump(after));
}

/// A step of a run that now begins elsewhere.
fn moved(step: Step, by: usize) -> Step {
    match step {
        Step::Split(first, second) => Step::Split(first + by, second + by),
        Step::Jump(to) => Step::Jump(to + by),
        other => other,
    }
}
