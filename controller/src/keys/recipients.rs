//! To whom manifests are sealed, as a person wrote it down. A line that nobody
//! can be sealed to is told by its number with what to do about it, and never
//! keeps the others from being used where those are enough; it is never taken
//! out of the file by this program.

use std::path::Path;

use artifacts::seal::{MOST_RECIPIENTS, PublicKey};

use super::{RECIPIENTS, damaged};
use crate::home::{HomeError, read_text, write_file};

/// Others must be able to open what is sealed, besides the controller.
const FEWEST: usize = 2;

/// A line of the file that nobody can be sealed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Its number; the first line is 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipients {
    /// Each key that can be sealed to, once, in the order of the lines.
    pub good: Vec<PublicKey>,
    /// The other lines.
    pub flaws: Vec<Flaw>,
}

impl Recipients {
    /// Reads the text of the file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for (line, text) in (1..).zip(text.lines().map(str::trim)) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let why = match text.parse::<PublicKey>().and_then(|key| key.check().map(|()| key)) {
                Ok(key) if found.good.contains(&key) => continue,
                Ok(key) if found.good.len() < MOST_RECIPIENTS => {
                    found.good.push(key);
                    continue;
                }
                Ok(_) => {
                    format!("one recipient more than the {MOST_RECIPIENTS} that a manifest has room for")
                }
                Err(error) => error.to_string(),
            };
            found.flaws.push(Flaw { line, why });
        }
        found
    }

    pub(super) fn read(dir: &Path) -> Result<Self, HomeError> {
        Ok(Self::parse(&read_text(&dir.join(RECIPIENTS))?.unwrap_or_default()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.good.is_empty() && self.flaws.is_empty()
    }

    /// Whether trees are sealed to the good ones. Fewer recipients than were
    /// meant hide nothing less; but the controller must be able to open what a
    /// run is to go on from, and somebody else, should its key be lost. Where
    /// nothing is wrong with the file it is as the person wants it.
    #[must_use]
    pub fn suffice(&self, own: Option<&PublicKey>) -> bool {
        let opened = own.is_some_and(|own| self.good.contains(own));
        !self.good.is_empty() && (self.flaws.is_empty() || (self.good.len() >= FEWEST && opened))
    }

    /// What is wrong with the lines, what comes of it, and the cure.
    #[must_use]
    pub fn problem(&self, own: Option<&PublicKey>, path: &Path) -> Option<(String, String)> {
        let Flaw { line, why } = self.flaws.first()?;
        let more = match self.flaws.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let comes = if self.suffice(own) {
            format!("checkpoints are sealed to the other {} alone", self.good.len())
        } else {
            "no sealed checkpoint is published by machines that start now".to_owned()
        };
        let path = path.display();
        let what = format!("{path}, line {line}{more}: {why}; {comes}");
        Some((what, format!("correct line {line} of {path}, or take it out")))
    }
}

/// Puts a key before all others, and leaves every line as it is.
pub(super) fn prepend(dir: &Path, key: &PublicKey) -> Result<(), HomeError> {
    let path = dir.join(RECIPIENTS);
    let text = read_text(&path)?.unwrap_or_default();
    let remarks: usize =
        text.split_inclusive('\n').take_while(|line| line.starts_with('#')).map(str::len).sum();
    let (remarks, lines) = text.split_at(remarks);
    write_file(&path, format!("{remarks}{key}\n{lines}").as_bytes(), 0o600)
}

/// Adds a key to those of a file without flaws.
pub(super) fn append(dir: &Path, key: &PublicKey) -> Result<(), HomeError> {
    let path = dir.join(RECIPIENTS);
    let known = Recipients::read(dir)?;
    if known.is_empty() {
        return Err(damaged(path, &"no controller has run here yet: start it once"));
    }
    if let Err(error) = key.check() {
        return Err(damaged(path, &format!("the key is not added: {error}")));
    }
    if known.good.contains(key) {
        return Ok(());
    }
    if let Some(Flaw { line, why }) = known.flaws.first() {
        return Err(damaged(path, &format!("correct line {line} first, or take it out: {why}")));
    }
    if known.good.len() >= MOST_RECIPIENTS {
        return Err(damaged(
            path,
            &format!("there are {MOST_RECIPIENTS} recipients already: take one out first"),
        ));
    }
    let text = read_text(&path)?.unwrap_or_default();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    write_file(&path, format!("{text}{end}{key}\n").as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use artifacts::seal::PrivateKey;

    use super::*;

    fn keys(count: u8) -> Vec<PublicKey> {
        (1..=count).map(|n| PrivateKey::from_bytes([n; 32]).public().unwrap()).collect()
    }

    fn text(keys: &[PublicKey]) -> String {
        keys.iter().map(|key| format!("{key}\n")).collect()
    }

    #[test]
    fn a_line_that_is_none_is_named_and_the_others_are_used_where_they_are_enough() {
        let made = keys(17);
        let low = PublicKey::from_bytes([0; 32]);
        let path = Path::new("keys/recipients");
        // Text, how many are good, the line that is named, whether it goes on.
        let table = [
            (text(&made[..2]), 2, None, true),
            (text(&made[..1]), 1, None, true),
            (format!("# mine\n\n{}{}", text(&made[..2]), text(&made[..2])), 2, None, true),
            (text(&made), 16, Some(17), true),
            (format!("# mine\n{}{low}\n", text(&made[..2])), 2, Some(4), true),
            (format!("{low}\n{}", text(&made[..1])), 1, Some(1), false),
            (format!("{}x\n", text(&made[1..4])), 3, Some(4), false),
            ("x\n".into(), 0, Some(1), false),
        ];
        for (text, good, line, goes_on) in table {
            let found = Recipients::parse(&text);
            assert_eq!(found.good.len(), good, "{text}");
            assert_eq!(found.flaws.first().map(|flaw| flaw.line), line, "{text}");
            assert_eq!(found.suffice(Some(&made[0])), goes_on, "{text}");
            let problem = found.problem(Some(&made[0]), path);
            assert_eq!(problem.is_some(), line.is_some());
            if let (Some((what, cure)), Some(line)) = (problem, line) {
                assert!(what.contains(&format!("keys/recipients, line {line}")), "{what}");
                assert!(cure.contains(&format!("line {line} of keys/recipients")), "{cure}");
                assert_eq!(what.contains("no sealed checkpoint is published"), !goes_on, "{what}");
            }
        }
    }
}
