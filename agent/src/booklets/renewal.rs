//! When a booklet is asked for. A controller that makes none is left alone for
//! an hour, and one that did not answer is asked again soon: the first booklet
//! is worth a whole night.

use std::time::Duration;

use artifacts::store::booklet::plan::{Next, OFFLINE_COVER, is_due};
use artifacts::store::booklet::{Booklet, Leaf, Plan};
use serde::{Deserialize, Serialize};

/// Until somebody who makes none is asked again.
const NEVER_MS: u64 = 3_600_000;
/// Until somebody who did not answer is.
const SOON_MS: u64 = 20_000;

/// A booklet as it is held and kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Held {
    pub(super) booklet: Booklet,
    /// When it came, by this machine's clock: nobody else's is compared with it.
    pub(super) got_ms: u64,
    pub(super) valid_ms: u64,
    pub(super) covers_ms: u64,
}

/// What became of the last question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// None was asked.
    Nothing,
    /// It was refused, at this time.
    Never(u64),
    /// It was not answered, at this time.
    Unknown(u64),
}

impl Held {
    /// What was signed.
    fn plan(&self) -> Plan {
        let range = |leaves: &[Leaf]| {
            let first = leaves.first().map_or(0, |leaf| leaf.seq);
            first..leaves.last().map_or(first, |leaf| leaf.seq.saturating_add(1))
        };
        Plan {
            packs: range(&self.booklet.packs),
            manifests: range(&self.booklet.manifests),
            valid: Duration::from_millis(self.valid_ms),
            covers: Duration::from_millis(self.covers_ms),
        }
    }

    /// Whether its URLs hold still.
    pub(super) fn holds(&self, now_ms: u64) -> bool {
        now_ms.checked_sub(self.got_ms).is_some_and(|age| age < self.valid_ms)
    }

    fn is_due(&self, next: Next, now_ms: u64) -> bool {
        // A clock that was set back says nothing of its age.
        let Some(age) = now_ms.checked_sub(self.got_ms) else { return true };
        is_due(&self.plan(), next, Duration::from_millis(age), OFFLINE_COVER)
    }
}

/// Whether to ask now. `fresh`: the controller may be another than the one that
/// was asked last.
pub(super) fn asks(held: Option<&Held>, next: Next, now_ms: u64, last: Last, fresh: bool) -> bool {
    if held.is_some_and(|held| !held.is_due(next, now_ms)) {
        return false;
    }
    let since = |at: u64| now_ms.checked_sub(at);
    match last {
        Last::Nothing => true,
        Last::Never(at) => fresh || since(at).is_none_or(|since| since >= NEVER_MS),
        Last::Unknown(at) => fresh || since(at).is_none_or(|since| since >= SOON_MS),
    }
}

#[cfg(test)]
mod tests {
    use artifacts::store::booklet::{SignedUrl, Trust};
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000;

    fn held(packs: u64, manifests: u64, got_ms: u64) -> Held {
        let leaves = |count: u64| {
            let url = |seq| SignedUrl::new(format!("https://s/{seq}"));
            (1..=count).map(|seq| Leaf { seq, put: url(seq), look: url(seq) }).collect()
        };
        let booklet = Booklet {
            scope: "run".into(),
            generation: 1,
            expires_ms: 0,
            trust: Trust::default(),
            packs: leaves(packs),
            manifests: leaves(manifests),
        };
        Held { booklet, got_ms, valid_ms: 24 * HOUR, covers_ms: 12 * HOUR }
    }

    fn asks_at(held: Option<&Held>, pack: u64, manifest: u64, now_ms: u64) -> bool {
        asks(held, Next { pack, manifest }, now_ms, Last::Nothing, false)
    }

    #[test]
    fn it_is_renewed_at_half_of_its_numbers_or_of_its_time() {
        let held = held(40, 10, HOUR);
        assert!(asks_at(None, 1, 1, HOUR));
        assert!(!asks_at(Some(&held), 20, 5, 12 * HOUR));
        assert!(asks_at(Some(&held), 21, 1, HOUR));
        assert!(asks_at(Some(&held), 1, 6, HOUR));
        assert!(asks_at(Some(&held), 1, 1, 14 * HOUR));
        assert!(asks_at(Some(&held), 1, 1, 0), "the clock was set back");
        assert!(held.holds(24 * HOUR) && !held.holds(25 * HOUR) && !held.holds(0));
    }

    #[test]
    fn who_makes_none_is_not_pressed() {
        let next = Next { pack: 1, manifest: 1 };
        let asks = |now, last, fresh| asks(None, next, now, last, fresh);
        assert!(!asks(HOUR, Last::Never(HOUR), false));
        assert!(!asks(2 * HOUR - 1, Last::Never(HOUR), false));
        assert!(asks(2 * HOUR, Last::Never(HOUR), false));
        assert!(asks(HOUR, Last::Never(HOUR), true), "another controller, perhaps");
        assert!(!asks(HOUR + 1_000, Last::Unknown(HOUR), false));
        assert!(asks(HOUR + SOON_MS, Last::Unknown(HOUR), false));
    }

    proptest! {
        /// Whatever is used in whatever order: before the numbers or the hours
        /// run out, it was due.
        #[test]
        fn it_is_due_before_it_is_used_up(packs in 1_u64..300, manifests in 1_u64..300, pack in 1_u64..400, manifest in 1_u64..400, hours in 0_u64..40) {
            let held = held(packs, manifests, 0);
            let used_up = pack > packs || manifest > manifests || hours >= 24;
            if used_up {
                prop_assert!(asks_at(Some(&held), pack, manifest, hours * HOUR));
            }
        }
    }
}
