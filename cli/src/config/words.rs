//! Splits a command line into words as a shell does, without the shell: no
//! variable, glob, pipe or redirection is ever expanded. What a shell would
//! treat specially is refused with the way to say it, because passing it on
//! literally would do something else than the person meant.

/// Why a line cannot be split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unsplit {
    /// A quote is not closed.
    OpenQuote(char),
    /// The line ends in a backslash.
    TrailingBackslash,
    /// Only a shell can do what this character asks for.
    NeedsShell(char),
    /// There is no word at all.
    Empty,
}

impl Unsplit {
    /// What is wrong, as the end of a sentence about the command.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::OpenQuote(quote) => format!("has a {quote} that is not closed"),
            Self::TrailingBackslash => "ends in a backslash".to_owned(),
            Self::NeedsShell(c) => format!("needs a shell for {c:?}, and none is used"),
            Self::Empty => "is empty".to_owned(),
        }
    }

    /// What to write instead.
    pub(super) fn way_out(&self) -> &'static str {
        match self {
            Self::NeedsShell(_) => {
                "put it in single quotes if it is meant literally, or ask for a shell: [\"sh\", \"-c\", \"...\"]"
            }
            _ => "write it as an array of words: [\"python\", \"train.py\"]",
        }
    }
}

/// The words of `line`.
pub(super) fn split(line: &str) -> Result<Vec<String>, Unsplit> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => single(&mut chars, word.get_or_insert_default())?,
            '"' => double(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                None => return Err(Unsplit::TrailingBackslash),
                Some('\n') => {}
                Some(next) => word.get_or_insert_default().push(next),
            },
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' | '*' => return Err(Unsplit::NeedsShell(c)),
            '~' if word.is_none() => return Err(Unsplit::NeedsShell(c)),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.first().is_none_or(String::is_empty) { Err(Unsplit::Empty) } else { Ok(words) }
}

/// Everything up to the closing single quote.
fn single(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), Unsplit> {
    for c in chars {
        if c == '\'' {
            return Ok(());
        }
        word.push(c);
    }
    Err(Unsplit::OpenQuote('\''))
}

/// Everything up to the closing double quote; a backslash escapes what a
/// shell lets it escape there.
fn double(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), Unsplit> {
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(()),
            '$' | '`' => return Err(Unsplit::NeedsShell(c)),
            '\\' => match chars.next() {
                Some(next @ ('"' | '\\' | '$' | '`')) => word.push(next),
                Some('\n') => {}
                Some(next) => word.extend(['\\', next]),
                None => break,
            },
            _ => word.push(c),
        }
    }
    Err(Unsplit::OpenQuote('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).unwrap()
    }

    #[test]
    fn quotes_and_backslashes_work_as_in_a_shell() {
        assert_eq!(words("python  train.py --lr 1e-3"), ["python", "train.py", "--lr", "1e-3"]);
        assert_eq!(words(r#"a 'b c' "d \"e\" \n" f\ g"h"'i'"#), ["a", "b c", r#"d "e" \n"#, "f ghi"]);
        assert_eq!(words("a '' \\\n b"), ["a", "", "b"]);
        assert_eq!(words("x layers=[1,2] {a} a~b"), ["x", "layers=[1,2]", "{a}", "a~b"]);
    }

    #[test]
    fn what_needs_a_shell_is_refused() {
        for (line, c) in
            [("a | b", '|'), ("a $HOME", '$'), ("a \"$HOME\"", '$'), ("ls *.py", '*'), ("~/x", '~')]
        {
            assert_eq!(split(line), Err(Unsplit::NeedsShell(c)), "{line}");
        }
        assert_eq!(words("a '$HOME' \\*"), ["a", "$HOME", "*"]);
    }

    #[test]
    fn unfinished_lines_are_refused() {
        assert_eq!(split("a 'b"), Err(Unsplit::OpenQuote('\'')));
        assert_eq!(split("a \"b\\"), Err(Unsplit::OpenQuote('"')));
        assert_eq!(split("a\\"), Err(Unsplit::TrailingBackslash));
        assert_eq!(split("  "), Err(Unsplit::Empty));
        assert_eq!(split("'' a"), Err(Unsplit::Empty));
    }

    proptest::proptest! {
        #[test]
        fn quoted_words_come_back(list in proptest::collection::vec("[^'\\x00]{1,12}", 1..5)) {
            let line = list.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
            proptest::prop_assert_eq!(split(&line), Ok(list));
        }

        #[test]
        fn random_text_never_panics(text in "\\PC*") {
            let _ = split(&text);
        }
    }
}
