//! From words to a filter; every refusal names the place and what could stand there.

use super::lex::{Token, lex};
use super::{Field, Filter, FilterError, KEYS, Op, Operand, When};

/// Brackets and `not` in each other.
const MAX_DEPTH: usize = 40;
/// Begin and end of the days that a date may have, in seconds since 1970.
const DAY: f64 = 86_400.0;

/// The filter that a text says; an empty one takes every run.
///
/// # Errors
/// With the place where it cannot be understood.
pub fn parse(text: &str) -> Result<Filter, FilterError> {
    let tokens = lex(text)?;
    let end = text.chars().count() + 1;
    let mut parser = Parser { tokens, next: 0, end, depth: 0 };
    if parser.tokens.is_empty() {
        return Ok(Filter::All(Vec::new()));
    }
    let filter = parser.any()?;
    match parser.peek() {
        None => Ok(filter),
        Some(_) => Err(parser.wrong("a `)` closes nothing")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn wrong(&self, message: &str) -> FilterError {
        let at = self.tokens.get(self.next).map_or(self.end, |(at, _)| *at);
        FilterError { message: message.to_owned(), at }
    }

    fn sign(&mut self, sign: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.next += usize::from(is);
        is
    }

    fn keyword(&mut self, word: &str) -> bool {
        let is = self.is_keyword(word);
        self.next += usize::from(is);
        is
    }

    fn is_keyword(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word))
    }

    fn any(&mut self) -> Result<Filter, FilterError> {
        let mut parts = vec![self.all()?];
        while self.keyword("or") {
            parts.push(self.all()?);
        }
        Ok(one_of(parts, Filter::Any))
    }

    fn all(&mut self) -> Result<Filter, FilterError> {
        let mut parts = vec![self.one()?];
        loop {
            let joined = self.keyword("and");
            let ends = self.peek().is_none()
                || self.is_keyword("or")
                || matches!(self.peek(), Some(Token::Sign(")")));
            if ends && !joined {
                return Ok(one_of(parts, Filter::All));
            }
            parts.push(self.one()?);
        }
    }

    fn one(&mut self) -> Result<Filter, FilterError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong("brackets are nested too deeply"));
        }
        let found =
            if self.keyword("not") {
                self.one().map(|part| Filter::Not(Box::new(part)))
            } else if self.sign("(") {
                self.any().and_then(|inner| {
                    if self.sign(")") { Ok(inner) } else { Err(self.wrong("a `)` is missing")) }
                })
            } else {
                self.term()
            };
        self.depth -= 1;
        found
    }

    fn term(&mut self) -> Result<Filter, FilterError> {
        if self.keyword("since") {
            return self.when().map(Filter::Since);
        }
        if self.keyword("before") {
            return self.when().map(Filter::Before);
        }
        if self.is_keyword("and") || self.is_keyword("or") {
            return Err(self.wrong("something is missing before it: a comparison, `key:word` or a word"));
        }
        let field = match self.peek().cloned() {
            Some(Token::Word(word)) => {
                self.next += 1;
                let lower = word.to_lowercase();
                if let Some(key) = KEYS.iter().find(|key| **key == lower)
                    && self.sign(":")
                {
                    return self.text().map(|text| Filter::Has(key, text));
                }
                if matches!(lower.as_str(), "min" | "max" | "last") && self.sign("(") {
                    let name = self.text()?;
                    if !self.sign(")") {
                        return Err(self.wrong("a `)` is missing"));
                    }
                    match lower.as_str() {
                        "min" => Field::Min(name),
                        "max" => Field::Max(name),
                        _ => Field::Plain(name),
                    }
                } else {
                    Field::Plain(word)
                }
            }
            Some(Token::Quoted(text)) => {
                self.next += 1;
                Field::Plain(text)
            }
            _ => return Err(self.wrong("a comparison, `key:word` or a word was expected")),
        };
        match self.op() {
            Some(op) => self.operand().map(|operand| Filter::Compare(field, op, operand)),
            None if self.sign(":") => {
                self.next -= 1;
                Err(self.wrong(&format!("before a colon stands one of {}", KEYS.join(", "))))
            }
            None => match field {
                Field::Plain(word) => Ok(Filter::Word(word)),
                _ => Err(self.wrong("a comparison such as `< 0.3` was expected")),
            },
        }
    }

    fn op(&mut self) -> Option<Op> {
        let Some(Token::Sign(sign)) = self.peek() else { return None };
        let op = match *sign {
            ">" => Op::Above,
            ">=" => Op::AtLeast,
            "<" => Op::Below,
            "<=" => Op::AtMost,
            "==" | "=" => Op::Is,
            "!=" => Op::IsNot,
            "~" => Op::Contains,
            _ => return None,
        };
        self.next += 1;
        Some(op)
    }

    fn text(&mut self) -> Result<String, FilterError> {
        match self.peek() {
            Some(Token::Word(text) | Token::Quoted(text)) => {
                let text = text.clone();
                self.next += 1;
                Ok(text)
            }
            _ => Err(self.wrong("a word or a text in quotes was expected")),
        }
    }

    fn operand(&mut self) -> Result<Operand, FilterError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let operand = number(word).map_or_else(|| Operand::Text(word.clone()), Operand::Number);
                self.next += 1;
                Ok(operand)
            }
            Some(Token::Quoted(_)) => self.text().map(Operand::Text),
            _ => Err(self.wrong("a number, a word or a text in quotes was expected")),
        }
    }

    fn when(&mut self) -> Result<When, FilterError> {
        let expected = "a time such as 7d, 12h, 30m, 2w or 2026-11-21 was expected";
        let Some(Token::Word(word)) = self.peek() else { return Err(self.wrong(expected)) };
        let when = ago(word).map(When::Ago).or_else(|| day(word).map(When::At));
        let when = when.ok_or_else(|| self.wrong(expected))?;
        self.next += 1;
        Ok(when)
    }
}

fn one_of(mut parts: Vec<Filter>, join: fn(Vec<Filter>) -> Filter) -> Filter {
    if parts.len() == 1 { parts.remove(0) } else { join(parts) }
}

/// A number, with `%` for hundredths and `k`, `M`, `G` for thousands.
pub(super) fn number(word: &str) -> Option<f64> {
    let (digits, factor) = match word.char_indices().next_back()? {
        (at, '%') => (&word[..at], 0.01),
        (at, 'k' | 'K') => (&word[..at], 1e3),
        (at, 'M') => (&word[..at], 1e6),
        (at, 'G') => (&word[..at], 1e9),
        _ => (word, 1.0),
    };
    let begins = digits.trim_start_matches(['+', '-', '.']).starts_with(|c: char| c.is_ascii_digit());
    let value: f64 = digits.parse().ok().filter(|_| begins)?;
    Some(if factor == 0.01 { value / 100.0 } else { value * factor })
}

/// Seconds of `7d` and its like.
pub(crate) fn ago(word: &str) -> Option<f64> {
    let (at, unit) = word.char_indices().next_back()?;
    let seconds = match unit {
        's' => 1.0,
        'm' => 60.0,
        'h' => 3600.0,
        'd' => DAY,
        'w' => 7.0 * DAY,
        _ => return None,
    };
    let count: f64 = word[..at].parse().ok().filter(|count: &f64| (0.0..1e6).contains(count))?;
    Some(count * seconds)
}

/// The beginning of a day in UTC.
fn day(word: &str) -> Option<f64> {
    let mut parts = word.split('-');
    let mut part = || parts.next()?.parse::<i64>().ok();
    let (year, month, day) = (part()?, part()?, part()?);
    let fits = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !fits || parts.next().is_some() {
        return None;
    }
    Some(super::super::days(year, month, day) as f64 * DAY)
}
