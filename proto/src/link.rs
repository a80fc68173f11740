//! The few words around a connection that the controller dialled over SSH:
//! what `outlast-agent link` says before it only carries bytes, and how that
//! is found in what a login may print first. After these words comes TLS, and
//! they prove nothing: whoever is there is decided by TLS alone. Pure.

use std::fmt;
use std::str::FromStr;

/// The agent's socket for carried connections, below its state directory.
pub const SOCKET: &str = "link.sock";

/// Rises when these words change.
pub const VERSION: u32 = 1;

/// What the agent says on a connection when it takes it up; only then is
/// there somebody who speaks TLS.
pub const TAKEN: &str = "outlast-link taken\n";

/// No longer line is looked at: a login that prints more is cut there.
pub const LONGEST_LINE: usize = 4 << 10;

/// What is skipped before the words come, at most.
pub const MOST_NOISE: usize = 64 << 10;

/// The exit code of `link` where no agent listens.
pub const EXIT_NO_AGENT: u8 = 69;

const PREFIX: &str = "outlast-link ";

/// The line with which `outlast controller link` begins: from there on its
/// standard streams are a connection to the operators' port.
#[must_use]
pub fn operators_line() -> String {
    format!("{PREFIX}{VERSION} operators\n")
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Getting a certificate.
    Join,
    /// The one stream.
    Control,
    /// Artifacts.
    Bulk,
}

impl Lane {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Join, Self::Control, Self::Bulk];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Control => "control",
            Self::Bulk => "bulk",
        }
    }

    /// The line that `link` begins with, on both of its sides.
    #[must_use]
    pub fn line(self) -> String {
        format!("{PREFIX}{VERSION} {}\n", self.name())
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No lane has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a lane is join, control or bulk")]
pub struct UnknownLane;

impl FromStr for Lane {
    type Err = UnknownLane;

    fn from_str(text: &str) -> Result<Self, UnknownLane> {
        Self::ALL.into_iter().find(|lane| lane.name() == text).ok_or(UnknownLane)
    }
}

/// The lane that a line (without its end) asks for.
#[must_use]
pub fn asked(line: &str) -> Option<Lane> {
    let line = line.strip_prefix(PREFIX)?;
    line.strip_prefix(&VERSION.to_string())?.strip_prefix(' ')?.parse().ok()
}

/// Why what came is no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLink {
    /// Nothing of ours in all that.
    #[error("{MOST_NOISE} bytes came and no link among them")]
    Noise,
    /// Another version of these words.
    #[error("the program there speaks version `{0}` of the link, this one version {VERSION}")]
    Version(String),
}

/// Finds a line of ours behind whatever a login prints.
#[derive(Debug, Default)]
pub struct Finder {
    line: Vec<u8>,
    seen: usize,
}

impl Finder {
    /// Takes one byte; `true`: the wanted line has just ended. A greeting may
    /// stand before it in the same line.
    ///
    /// # Errors
    /// Where it will not come any more.
    pub fn push(&mut self, byte: u8, wanted: &str) -> Result<bool, NoLink> {
        self.seen += 1;
        if byte != b'\n' {
            if self.seen >= MOST_NOISE {
                return Err(NoLink::Noise);
            }
            if self.line.len() < LONGEST_LINE {
                self.line.push(byte);
            }
            return Ok(false);
        }
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line.ends_with(wanted.trim_end().as_bytes()) {
            return Ok(true);
        }
        let text = String::from_utf8_lossy(line);
        if let Some((_, rest)) = text.rsplit_once(PREFIX)
            && let Some(version) = rest.split(' ').next()
            && !version.is_empty()
            && version.bytes().all(|b| b.is_ascii_digit())
            && version != VERSION.to_string()
        {
            return Err(NoLink::Version(version.chars().take(10).collect()));
        }
        if self.seen >= MOST_NOISE { Err(NoLink::Noise) } else { Ok(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many bytes the line is found.
    fn found(text: &[u8], wanted: &str) -> Result<Option<usize>, NoLink> {
        let mut finder = Finder::default();
        for (at, byte) in text.iter().enumerate() {
            if finder.push(*byte, wanted)? {
                return Ok(Some(at + 1));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_line_says_its_lane_and_its_version() {
        for lane in Lane::ALL {
            assert_eq!(asked(lane.line().trim_end()), Some(lane));
        }
        let operators = operators_line();
        assert_eq!(asked(operators.trim_end()), None, "no machine's lane");
        for bad in ["", "outlast-link 2 join", "outlast-link 1 joins", "outlast-link 11 join", "x"] {
            assert_eq!(asked(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_words_are_found_behind_a_greeting_and_not_in_the_lane_of_another() {
        let wanted = Lane::Control.line();
        let after = |text: &str| found(text.as_bytes(), &wanted).unwrap().map(|at| text[at..].to_owned());
        assert_eq!(after("outlast-link 1 control\nTLS"), Some("TLS".to_owned()));
        let greeted = "Welcome to vast.ai\r\n\x1b[0m[tmux]outlast-link 1 control\r\nTLS";
        assert_eq!(after(greeted), Some("TLS".to_owned()));
        assert_eq!(after("outlast-link 1 bulk\n"), None);
        assert_eq!(after("outlast-link 1 control"), None, "the line is not whole");
    }

    #[test]
    fn endless_noise_and_another_version_are_told() {
        let wanted = Lane::Join.line();
        assert_eq!(found(&vec![b'x'; MOST_NOISE], &wanted), Err(NoLink::Noise));
        assert_eq!(found("y\n".repeat(MOST_NOISE).as_bytes(), &wanted), Err(NoLink::Noise));
        assert_eq!(found(b"outlast-link 7 join\n", &wanted), Err(NoLink::Version("7".into())));
    }
}
