//! How many URLs a booklet needs. Too few, and the machine can store nothing
//! while the controller sleeps; too many, and there are more permissions about
//! than anybody needs. So: what the measured rate uses up within the time to
//! be covered, and half as much again.

use std::ops::Range;
use std::time::Duration;

use super::MOST_LEAVES;

/// Signatures of S3 hold no longer.
const LONGEST: Duration = Duration::from_hours(7 * 24);

/// The controller sleeps through a night without anybody planning for it.
pub const OFFLINE_COVER: Duration = Duration::from_hours(12);

/// What a run that has saved nothing yet is given: a save every quarter of an
/// hour, in four packs each.
const UNMEASURED: Measured = Measured { between_saves: Duration::from_mins(15), packs_per_save: 4 };

/// At least so many, whatever was measured: one save more than planned must
/// not be lost to rounding.
const FEWEST: u64 = 4;

/// What a run was seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// From one save to the next.
    pub between_saves: Duration,
    /// The most packs that a save took.
    pub packs_per_save: u32,
}

/// Which URLs to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Numbers of packs.
    pub packs: Range<u64>,
    /// Numbers of manifests.
    pub manifests: Range<u64>,
    /// How long the URLs hold.
    pub valid: Duration,
    /// How long the numbers last at the measured rate: less than asked for
    /// where a booklet is full before that.
    pub covers: Duration,
}

/// Numbers that the machine uses next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// Of packs.
    pub pack: u64,
    /// Of manifests.
    pub manifest: u64,
}

/// Plans a booklet that begins at `next` and covers `cover`.
#[must_use]
pub fn plan(measured: Option<Measured>, cover: Duration, next: Next) -> Plan {
    let rate = measured.unwrap_or(UNMEASURED);
    let cover = cover.min(LONGEST);
    let between = rate.between_saves.max(Duration::from_secs(1));
    let saves = cover.as_millis().div_ceil(between.as_millis()) as u64;
    let per_save = u64::from(rate.packs_per_save.max(1));
    let with_reserve = (saves + saves.div_ceil(2)).max(FEWEST);
    let most = MOST_LEAVES as u64;
    let manifests = with_reserve.min(most);
    let packs = with_reserve.saturating_mul(per_save).min(most);
    // Without the reserve: what can be promised.
    let lasting = manifests.min(packs / per_save).min(saves.max(1));
    let covers = between.saturating_mul(u32::try_from(lasting).unwrap_or(u32::MAX)).min(cover);
    Plan {
        packs: next.pack..next.pack.saturating_add(packs),
        manifests: next.manifest..next.manifest.saturating_add(manifests),
        // Renewed once half is used: the other half must still hold then.
        valid: cover.saturating_mul(2).clamp(Duration::from_hours(1), LONGEST),
        covers,
    }
}

/// Whether the machine should have a new booklet: it has used half of this
/// one, or the URLs end before the time to be covered.
#[must_use]
pub fn is_due(held: &Plan, next: Next, age: Duration, cover: Duration) -> bool {
    let half = |range: &Range<u64>, at: u64| at >= range.start + (range.end - range.start) / 2;
    let left = held.valid.saturating_sub(age);
    half(&held.packs, next.pack) || half(&held.manifests, next.manifest) || left < cover.min(held.valid / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Next = Next { pack: 10, manifest: 3 };

    #[test]
    fn a_night_is_covered_at_the_measured_rate() {
        let measured = Measured { between_saves: Duration::from_mins(30), packs_per_save: 5 };
        let plan = plan(Some(measured), OFFLINE_COVER, START);
        assert_eq!(plan.manifests, 3..39, "24 saves and 12 in reserve");
        assert_eq!(plan.packs, 10..190);
        assert_eq!(plan.covers, OFFLINE_COVER);
        assert_eq!(plan.valid, Duration::from_hours(24));
    }

    #[test]
    fn signatures_hold_no_longer_than_a_week() {
        let long = plan(None, Duration::from_hours(24 * 30), START);
        assert_eq!(long.valid, LONGEST);
        assert!(long.covers <= LONGEST);
    }

    #[test]
    fn a_booklet_that_cannot_cover_says_so() {
        let fast = Measured { between_saves: Duration::from_secs(10), packs_per_save: 100 };
        let plan = plan(Some(fast), OFFLINE_COVER, START);
        assert_eq!(plan.packs.end - plan.packs.start, MOST_LEAVES as u64);
        assert_eq!(plan.covers, Duration::from_secs(400), "40 saves of 100 packs");
    }

    #[test]
    fn a_new_one_is_due_at_half() {
        let measured = Measured { between_saves: Duration::from_hours(1), packs_per_save: 1 };
        let held = plan(Some(measured), OFFLINE_COVER, START);
        assert_eq!(held.manifests, 3..21);
        let due = |pack, manifest, hours| {
            is_due(&held, Next { pack, manifest }, Duration::from_hours(hours), OFFLINE_COVER)
        };
        assert!(!due(10, 3, 0));
        assert!(!due(18, 11, 11));
        assert!(due(19, 3, 0), "half of the packs");
        assert!(due(10, 12, 0), "half of the manifests");
        assert!(due(10, 3, 13), "the URLs end within the cover");
    }

    proptest! {
        #[test]
        fn plans_are_bounded_and_keep_their_promise(
            seconds in 0_u64..1_000_000, per_save in 0_u32..5000, cover in 0_u64..3_000_000, pack in 0_u64..1 << 40
        ) {
            let measured = Measured { between_saves: Duration::from_secs(seconds), packs_per_save: per_save };
            let next = Next { pack, manifest: 0 };
            let plan = plan(Some(measured), Duration::from_secs(cover), next);
            let packs = plan.packs.end - plan.packs.start;
            let manifests = plan.manifests.end - plan.manifests.start;
            prop_assert!(packs <= MOST_LEAVES as u64 && manifests <= MOST_LEAVES as u64);
            prop_assert!(packs >= 1 && manifests >= FEWEST);
            prop_assert!(plan.valid <= LONGEST);
            // What it says it covers, its numbers do.
            let saves = plan.covers.as_secs() / seconds.max(1);
            prop_assert!(saves <= manifests && saves * u64::from(per_save.max(1)) <= packs);
            prop_assert!(!is_due(&plan, next, Duration::ZERO, Duration::from_secs(cover)));
        }
    }
}
