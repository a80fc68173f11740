//! A provider's notice that it takes a machine, as the machine's row has it.
//! What an agent says is bounded here: it changes the row a few times at most,
//! and a deadline only ever comes nearer while the notice stands.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who may give notice.
const SOURCES: [&str; 7] = ["ec2", "gce", "azure", "sigterm", "hook", "file", "host"];
/// Longest text that is kept.
const TEXT: usize = 200;
/// A notice that says no time is for this long: the shortest that clouds give.
const UNTOLD_MS: u64 = 30_000;
/// No notice is for longer.
const LONGEST_MS: u64 = 48 * 3_600_000;
/// A deadline that comes nearer by less is the same.
const NEARER_MS: u64 = 5_000;
/// Changes of one machine's notice that count: whoever gives and takes back
/// notices without end is not listened to.
const MOST: u32 = 32;

/// What an agent says, in the controller's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Who gave it.
    pub source: String,
    /// The machine ends; else it may.
    pub ends: bool,
    /// The source's own words.
    pub text: String,
    /// Milliseconds until the machine is taken.
    pub in_ms: Option<u64>,
    /// It was taken back.
    pub withdrawn: bool,
    /// What was asked for is durable.
    pub saved: bool,
}

/// The notice of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Who gave it.
    pub source: String,
    /// The machine ends; else it may.
    pub ends: bool,
    /// The source's own words.
    pub text: String,
    /// When it was heard here, unix milliseconds.
    pub heard_ms: u64,
    /// When the machine is taken, by this clock.
    pub until_ms: u64,
    /// A checkpoint of after the notice is durable.
    #[serde(default)]
    pub saved: bool,
    /// It was taken back.
    #[serde(default)]
    pub withdrawn: bool,
    /// How often it changed.
    #[serde(default)]
    pub changes: u32,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.ends { "" } else { " that it may be taken" };
        write!(f, "notice from {}{how}: {}", self.source, self.text)
    }
}

impl Notice {
    /// The notice after what was said, with the verb for the journal; `None`:
    /// nothing of weight changes.
    #[must_use]
    pub fn after(before: Option<&Self>, said: &Said, now_ms: u64) -> Option<(Self, &'static str)> {
        if !SOURCES.contains(&said.source.as_str()) {
            return None;
        }
        let changes = before.map_or(0, |notice| notice.changes) + 1;
        if changes > MOST {
            return None;
        }
        let standing = before.filter(|notice| !notice.withdrawn);
        let same = standing.filter(|notice| notice.source == said.source);
        if said.withdrawn {
            return same
                .map(|notice| (Self { withdrawn: true, changes, ..notice.clone() }, "notice-withdrawn"));
        }
        let in_ms = said.in_ms.unwrap_or(UNTOLD_MS).min(LONGEST_MS);
        let until_ms = now_ms.saturating_add(in_ms);
        let nearer = same.is_some_and(|notice| {
            notice.ends == said.ends && until_ms.saturating_add(NEARER_MS) < notice.until_ms
        });
        match standing {
            Some(notice) if nearer => {
                let saved = notice.saved || said.saved;
                Some((Self { until_ms, saved, changes, ..notice.clone() }, "notice"))
            }
            // That it ends outweighs that it may.
            Some(notice) if notice.ends || !said.ends => {
                let saved = same.is_some() && said.saved && !notice.saved;
                saved.then(|| (Self { saved: true, changes, ..notice.clone() }, "notice-saved"))
            }
            _ => {
                let text = said.text.chars().filter(|c| !c.is_control()).take(TEXT).collect();
                let (source, ends, saved) = (said.source.clone(), said.ends, said.saved);
                let notice =
                    Self { source, ends, text, heard_ms: now_ms, until_ms, saved, withdrawn: false, changes };
                Some((notice, "notice"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(source: &str, ends: bool) -> Said {
        let text = "terminate\u{1b}[2J".into();
        Said { source: source.into(), ends, text, in_ms: Some(120_000), withdrawn: false, saved: false }
    }

    #[test]
    fn a_notice_is_kept_once_and_becomes_louder_saved_or_withdrawn() {
        let (hint, verb) = Notice::after(None, &said("ec2", false), 1_000).unwrap();
        assert_eq!((verb, hint.until_ms, hint.text.as_str()), ("notice", 121_000, "terminate[2J"));
        assert_eq!(Notice::after(Some(&hint), &said("ec2", false), 2_000), None, "said again");
        let (end, verb) = Notice::after(Some(&hint), &said("ec2", true), 3_000).unwrap();
        assert_eq!((verb, end.until_ms), ("notice", 123_000));
        assert_eq!(Notice::after(Some(&end), &said("hook", true), 4_000), None, "one is enough");
        assert_eq!(Notice::after(Some(&end), &said("ec2", true), 90_000), None, "no deadline moves away");
        let nearer = Said { in_ms: Some(9_000), ..said("ec2", true) };
        let (near, verb) = Notice::after(Some(&end), &nearer, 4_000).unwrap();
        assert_eq!((verb, near.until_ms, near.heard_ms), ("notice", 13_000, 3_000));
        let saved = Said { saved: true, ..said("ec2", true) };
        let (end, verb) = Notice::after(Some(&end), &saved, 5_000).unwrap();
        assert_eq!((verb, end.saved, end.until_ms), ("notice-saved", true, 123_000));
        let back = Said { withdrawn: true, ..said("ec2", true) };
        assert_eq!(Notice::after(Some(&end), &Said { source: "gce".into(), ..back.clone() }, 6_000), None);
        let (over, verb) = Notice::after(Some(&end), &back, 6_000).unwrap();
        assert_eq!((verb, over.withdrawn), ("notice-withdrawn", true));
        assert_eq!(Notice::after(Some(&over), &back, 6_000), None);
        let (again, _) = Notice::after(Some(&over), &said("gce", true), 7_000).unwrap();
        assert!(!again.withdrawn && !again.saved && again.changes == over.changes + 1);
        assert_eq!(Notice::after(None, &said("moon", true), 1), None);
    }

    proptest! {
        #[test]
        fn whatever_is_said_changes_a_row_a_bounded_number_of_times(
            words in proptest::collection::vec((0usize..7, any::<bool>(), any::<bool>(), any::<bool>(), any::<Option<u64>>()), 0..200),
        ) {
            let mut kept: Option<Notice> = None;
            let mut times = 0;
            for (n, (source, ends, withdrawn, saved, in_ms)) in (0u64..).zip(words) {
                let source = SOURCES.get(source).copied().unwrap_or("other").to_owned();
                let word = Said { source, ends, text: "x".repeat(900), in_ms, withdrawn, saved };
                if let Some((next, _)) = Notice::after(kept.as_ref(), &word, n) {
                    prop_assert!(next.text.len() <= TEXT && next.until_ms <= n + LONGEST_MS);
                    times += 1;
                    kept = Some(next);
                }
            }
            prop_assert!(times <= MOST);
        }
    }
}
