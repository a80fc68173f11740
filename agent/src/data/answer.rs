//! What an answer of a server means: taken, asked again and when, or the end of
//! it, in words that say what to do.

use std::time::Duration;

use artifacts::store::trouble::Trouble as Wire;

/// Tries without any byte more.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// Why something was not fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// In words, with the name of what it was.
    pub(super) why: String,
    /// Another try may well not meet it.
    pub(super) passing: bool,
    /// How long the server asks to wait.
    pub(super) after: Option<Duration>,
}

impl Trouble {
    pub(super) fn for_good(why: impl Into<String>) -> Self {
        Self { why: why.into(), passing: false, after: None }
    }

    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), passing: true, after: None }
    }

    pub(super) fn of_wire(name: &str, trouble: &Wire) -> Self {
        match trouble {
            Wire::Senseless(why) => Self::passing(format!("{name}: its answer makes no sense: {why}")),
            Wire::Certificate(why) => {
                let cure = "is ca-certificates installed on the machine?";
                Self::for_good(format!("{name}: its certificate is not trusted: {why} ({cure})"))
            }
            other => Self::passing(format!("{name}: {other}")),
        }
    }

    /// How long to wait before the next try after `tries`; `None`: there is none.
    pub(super) fn pause(&self, tries: u32) -> Option<Duration> {
        if !self.passing || tries + 1 >= TRIES {
            return None;
        }
        let own = PAUSE * 2_u32.pow(tries);
        Some(self.after.unwrap_or(own).max(own).min(LONGEST))
    }
}

/// Who was asked, for the words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// What for.
    pub(super) name: &'a str,
    /// It is the hub, and these are its pages; `None`: it is another server.
    pub(super) page: Option<&'a str>,
    /// A token was sent.
    pub(super) with_token: bool,
}

/// Whether a status brings what was asked, and if not, why.
pub(super) fn judge(status: u16, after: Option<u64>, asked: Asked<'_>) -> Result<(), Trouble> {
    let Asked { name, page, with_token } = asked;
    match status {
        200 | 206 => Ok(()),
        401 | 403 => Err(Trouble::for_good(match (page, with_token) {
            (None, _) => format!("{name}: the server does not let it be read (status {status})"),
            (Some(page), true) => format!(
                "{name}: the hub says {status}: HF_TOKEN has no access; accept its terms at {page}, or use a token \
                 of somebody who may read it"
            ),
            (Some(page), false) => format!(
                "{name}: the hub says {status}: it is gated, private or not there, and there is no HF_TOKEN; see \
                 {page}, and name the token in [secrets] of outlast.toml"
            ),
        })),
        404 | 410 => Err(Trouble::for_good(format!("{name}: it is not there (status {status})"))),
        408 | 425 | 429 | 500..=599 => Err(Trouble {
            why: format!("{name}: the server says {status}"),
            passing: true,
            after: after.map(|seconds| Duration::from_secs(seconds.min(LONGEST.as_secs()))),
        }),
        other => Err(Trouble::for_good(format!("{name}: the server says {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_asked_again_and_not_for_ever() {
        let asked = Asked { name: "x", page: None, with_token: false };
        for status in [408, 429, 500, 503] {
            assert!(judge(status, None, asked).unwrap_err().passing, "{status}");
        }
        for status in [400, 401, 403, 404, 410, 418, 301] {
            assert!(!judge(status, None, asked).unwrap_err().passing, "{status}");
        }
        let busy = judge(429, Some(7), asked).unwrap_err();
        assert_eq!(busy.pause(0), Some(Duration::from_secs(7)));
        assert_eq!(judge(503, Some(9_999), asked).unwrap_err().pause(0), Some(LONGEST));
        let pauses: Vec<_> = (0..9).map_while(|n| Trouble::passing("x").pause(n)).collect();
        assert_eq!(pauses.len(), 5);
        assert!(pauses.windows(2).all(|two| two[0] < two[1]));
        assert_eq!(Trouble::for_good("x").pause(0), None);
    }

    #[test]
    fn without_access_the_words_say_which_token() {
        let asked = Asked { name: "org/x", page: Some("https://hub/org/x"), with_token: false };
        let why = judge(401, None, asked).unwrap_err().why;
        assert!(why.contains("org/x") && why.contains("no HF_TOKEN") && why.contains("[secrets]"), "{why}");
        let why = judge(403, None, Asked { with_token: true, ..asked }).unwrap_err().why;
        assert!(why.contains("HF_TOKEN has no access") && why.contains("https://hub/org/x"), "{why}");
    }
}
