//! Where each checkpoint on the machine stands, as data: for the decision what
//! to publish, and for people who ask why one is not.

use std::time::Duration;

use artifacts::complete::Reason;
use proto::v1;

/// Told to people at once; the newest count.
const TOLD: usize = 64;

/// Where one checkpoint stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// The store has it, or it came with the attempt.
    Known,
    /// The store has it, and the controller did not say yet that it counts.
    Stored,
    /// It was seen for the first time: what changes while it is looked at is
    /// not finished.
    New,
    /// Complete: it is published in its turn.
    Ready {
        /// What says so.
        by: &'static str,
    },
    /// Nothing is wrong, and only a rest tells that it is all.
    Rests {
        /// The rest that is needed.
        needed: Duration,
        /// How long it has rested.
        so_far: Duration,
        /// What leaves the question open.
        why: Reason,
    },
    /// Not finished.
    Waits {
        /// Why not.
        why: Reason,
    },
    /// It seals or describes checkpoints, and is none by itself.
    Beside,
    /// A link: what it names is judged where it lies.
    Link {
        /// What it names.
        to: String,
        /// That lies where checkpoints are looked for, or is not there.
        is_judged: bool,
    },
}

impl Standing {
    /// For the wire.
    pub(super) fn told(&self, relative: &str) -> v1::CheckpointStanding {
        let (state, why) = match self {
            Self::Known => ("published", "the store has it, or it came with the attempt".to_owned()),
            Self::Stored => {
                let why = "the store has it; it is durable once the controller has answered";
                ("stored", why.to_owned())
            }
            Self::New => ("new", "seen just now; looked at again".to_owned()),
            Self::Ready { by } => ("complete", format!("by {by}")),
            Self::Rests { needed, so_far, why } => {
                let (needed, so_far) = (needed.as_secs(), so_far.as_secs());
                ("rests", format!("{why}; complete after {needed} s without a change, {so_far} s so far"))
            }
            Self::Waits { why } => ("incomplete", why.to_string()),
            Self::Beside => {
                ("beside", "it belongs to the checkpoints beside it and is none itself".to_owned())
            }
            Self::Link { to, is_judged: true } => {
                ("link", format!("leads to `{to}`, which is judged by itself"))
            }
            Self::Link { to, is_judged: false } => {
                ("link", format!("leads to `{to}`, where nothing is looked for: it is not stored"))
            }
        };
        let name = relative.strip_prefix("@/").unwrap_or(relative);
        v1::CheckpointStanding { name: name.to_owned(), state: state.to_owned(), why }
    }
}

/// What is told of all of them: what is open first.
pub(super) fn told<'a>(
    standings: impl Iterator<Item = (&'a String, &'a Standing)>,
) -> Vec<v1::CheckpointStanding> {
    let mut all: Vec<(&String, &Standing)> = standings.collect();
    all.sort_by_key(|(_, standing)| {
        matches!(standing, Standing::Known | Standing::Beside | Standing::Link { .. })
    });
    all.into_iter().take(TOLD).map(|(relative, standing)| standing.told(relative)).collect()
}
