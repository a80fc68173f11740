//! Which local copies of checkpoints go when a disk fills. Pure. Only copies of
//! what is durable, oldest first; never the newest, never what changed since
//! it was published, never what a name without a step or a link stands for:
//! the program itself may look there.

/// Below this a disk is short of room whatever is saved on it, unless a
/// twentieth of it is less.
const RESERVE: u64 = 256 << 20;

/// The room on a disk, and how it shrinks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Room {
    /// Its size in bytes.
    pub total: u64,
    /// Free for an unprivileged process.
    pub free: u64,
    /// Bytes per second by which it fills; 0 is steady or unknown.
    pub filling_per_s: f64,
    /// Seconds for which there should be room at that rate.
    pub horizon_s: u64,
}

/// A copy of a durable checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// The step that its name tells.
    pub step: Option<u64>,
    /// Its size.
    pub bytes: u64,
    /// Its bytes are the published ones.
    pub same: bool,
    /// A link beside it leads to it.
    pub linked: bool,
}

/// How many bytes should be freed; `None`: there is room. `largest` is the
/// size of the newest checkpoint: the next one needs as much, and is written
/// beside it.
#[must_use]
pub fn wanted(room: &Room, largest: u64) -> Option<u64> {
    if room.total == 0 {
        return None;
    }
    let least = RESERVE.min(room.total / 20);
    let reserve = largest.saturating_mul(2).max(least).min(room.total / 2);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, clamped to the disk's size"
    )]
    let coming = (room.filling_per_s.max(0.0) * room.horizon_s as f64).min(room.total as f64 / 2.0) as u64;
    let needed = reserve.max(coming).saturating_sub(room.free);
    (needed > 0).then_some(needed)
}

/// Which of `copies` (in the order in which they became durable) go to free
/// `wanted` bytes, by their places in the list.
#[must_use]
pub fn choose(copies: &[Copy], wanted: u64) -> Vec<usize> {
    let newest_step = copies.iter().filter_map(|copy| copy.step).max();
    let last = copies.len().saturating_sub(1);
    let mut may: Vec<usize> = (0..last)
        .filter(|at| {
            let copy = &copies[*at];
            copy.same && !copy.linked && copy.step.is_some() && copy.step < newest_step
        })
        .collect();
    may.sort_by_key(|at| copies[*at].step);
    let mut freed = 0_u64;
    may.retain(|at| {
        let goes = freed < wanted;
        if goes {
            freed = freed.saturating_add(copies[*at].bytes);
        }
        goes
    });
    may
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MB: u64 = 1_000_000;

    fn copy(step: u64) -> Copy {
        Copy { step: Some(step), bytes: 20 * MB, same: true, linked: false }
    }

    fn room(free: u64, filling_per_s: f64) -> Room {
        Room { total: 200 * MB, free: free * MB, filling_per_s, horizon_s: 600 }
    }

    #[test]
    fn a_disk_keeps_room_for_two_more() {
        assert_eq!(wanted(&room(41, 0.0), 20 * MB), None);
        assert_eq!(wanted(&room(39, 0.0), 20 * MB), Some(MB));
        assert_eq!(wanted(&room(9, 0.0), 0), Some(MB), "a twentieth of a small disk");
        assert_eq!(wanted(&room(120, 1e5), 20 * MB), None);
        assert_eq!(wanted(&room(50, 1e5), 20 * MB), Some(10 * MB), "60 MB come within ten minutes");
        assert_eq!(wanted(&room(99, 1e12), 20 * MB), Some(MB), "never more than half of it");
        assert_eq!(wanted(&Room::default(), 20 * MB), None, "a disk that tells nothing");
        let huge = Room { total: 1 << 40, free: 255 << 20, filling_per_s: f64::NAN, horizon_s: 600 };
        assert_eq!(wanted(&huge, 0), Some(1 << 20));
    }

    #[test]
    fn the_oldest_go_first_and_no_more_than_needed() {
        let copies = [copy(10), copy(20), copy(30), copy(40)];
        assert_eq!(choose(&copies, MB), [0]);
        assert_eq!(choose(&copies, 21 * MB), [0, 1]);
        assert_eq!(choose(&copies, u64::MAX), [0, 1, 2]);
        assert_eq!(choose(&copies, 0), [0; 0]);
        assert_eq!(choose(&copies[..1], u64::MAX), [0; 0]);
        assert_eq!(choose(&[], u64::MAX), [0; 0]);
    }

    #[test]
    fn what_the_program_may_look_for_stays() {
        let changed = Copy { same: false, ..copy(10) };
        let linked = Copy { linked: true, ..copy(20) };
        let best = Copy { step: None, ..copy(0) };
        assert_eq!(choose(&[changed, linked, best, copy(30), copy(40)], u64::MAX), [3]);
        // An older one became durable last: the newest by its step stays too.
        assert_eq!(choose(&[copy(10), copy(40), copy(20)], u64::MAX), [0]);
    }

    proptest! {
        #[test]
        fn the_newest_always_stays(
            steps in proptest::collection::vec((proptest::option::of(0u64..50), 0u64..100, any::<bool>(), any::<bool>()), 0..20),
            wanted in 0u64..1_000,
        ) {
            let copies: Vec<Copy> = steps.iter()
                .map(|(step, bytes, same, linked)| Copy { step: *step, bytes: *bytes, same: *same, linked: *linked })
                .collect();
            let gone = choose(&copies, wanted);
            let newest = copies.iter().filter_map(|c| c.step).max();
            for at in &gone {
                prop_assert!(*at + 1 < copies.len());
                prop_assert!(copies[*at].same && !copies[*at].linked && copies[*at].step < newest);
            }
            let freed: u64 = gone.iter().map(|at| copies[*at].bytes).sum();
            let last: u64 = gone.last().map_or(0, |at| copies[*at].bytes);
            prop_assert!(gone.is_empty() || freed - last < wanted, "more than was needed");
        }
    }
}
