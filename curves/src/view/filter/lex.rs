//! Words and signs of the filter language, each with its place.

use super::FilterError;

/// Longest filter in characters.
const MAX_CHARS: usize = 4000;

/// Words that mean something by themselves.
pub(super) const RESERVED: [&str; 5] = ["and", "or", "not", "since", "before"];

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A bare word; it may be a number.
    Word(String),
    /// Text that stood in quotes.
    Quoted(String),
    /// An operator, a bracket or a colon.
    Sign(&'static str),
}

/// Whether a bare word may hold it.
pub(super) fn in_word(c: char) -> bool {
    c.is_alphanumeric() || "_./@%+-*".contains(c)
}

const SIGNS: [&str; 11] = [">=", "<=", "==", "!=", ">", "<", "=", "~", "(", ")", ":"];

/// The tokens with the places where they begin, counted from 1.
pub(super) fn lex(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() > MAX_CHARS {
        return Err(FilterError { message: format!("more than {MAX_CHARS} characters"), at: MAX_CHARS });
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let begin = at + 1;
        if c.is_whitespace() {
            at += 1;
        } else if c == '"' || c == '\'' {
            let (quoted, next) = quoted(&chars, at, c)?;
            tokens.push((begin, Token::Quoted(quoted)));
            at = next;
        } else if in_word(c) {
            let word: String = chars.iter().skip(at).take_while(|c| in_word(**c)).collect();
            at += word.chars().count();
            tokens.push((begin, Token::Word(word)));
        } else {
            let rest: String = chars.iter().skip(at).take(2).collect();
            let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) else {
                let message = format!("`{}` has no meaning here", c.escape_default());
                return Err(FilterError { message, at: begin });
            };
            tokens.push((begin, Token::Sign(sign)));
            at += sign.len();
        }
    }
    Ok(tokens)
}

fn quoted(chars: &[char], from: usize, mark: char) -> Result<(String, usize), FilterError> {
    let mut text = String::new();
    let mut at = from + 1;
    while let Some(&c) = chars.get(at) {
        match c {
            '\\' => {
                text.extend(chars.get(at + 1));
                at += 1;
            }
            c if c == mark => return Ok((text, at + 1)),
            c => text.push(c),
        }
        at += 1;
    }
    Err(FilterError { message: "the quotes that open are not closed".into(), at: from + 1 })
}
