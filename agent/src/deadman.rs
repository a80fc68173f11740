//! When a machine that hears from no controller ends by itself. The controller
//! grants with each lease how long the machine may go on alone: its share of
//! the money that caps leave. What bytes to and from it cost goes off that time.
//! When that is over its programs save and end; what
//! is in the store needs the machine no more and it is destroyed, what is not
//! keeps its disk and only the rest stops. Pure: moments are milliseconds of
//! the boot-time clock. It must never end a machine whose controller speaks.

use serde::{Deserialize, Serialize};

/// From the moment at which programs are asked to end until the machine ends,
/// whatever they do: what the controller keeps money back for.
pub const ENDING_MS: u64 = 300_000;
/// A machine without work (none yet, or all of it done) whose controller is silent for so long is of no use.
pub const IDLE_MS: u64 = 1_800_000;
/// After a start, and after a time in which nothing here ran, a controller has
/// so long to be heard before anything ends.
const SETTLE_MS: u64 = 120_000;
/// A pause between two looks that is longer is no time that was watched.
const GAP_MS: u64 = 60_000;
/// Between two tries to end the machine.
const AGAIN_MS: u64 = 30_000;
/// Between two looks at the bytes that were moved.
const COUNT_MS: u64 = 1_000;
/// Bytes of a gigabyte.
const GB: u128 = 1_000_000_000;
/// The deadline is written down when it moved by more.
const WRITE_MS: u64 = 10_000;

/// How a machine ends itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Nothing of it is needed: it is given back whole.
    Destroy,
    /// Something is on its disk alone: the disk stays, the rest stops.
    Stop,
}

impl How {
    /// The word for the script that does it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Destroy => "destroy",
            Self::Stop => "stop",
        }
    }
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Programs are asked to save and end.
    Save,
    /// The machine ends itself.
    End(How),
}

/// What is known of the machine's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// A program runs, or something is being prepared or published.
    pub busy: bool,
    /// Something of an attempt is not in the store, or not with the controller.
    pub unpublished: bool,
    /// The longest time that a running program is given to save, milliseconds.
    pub grace_ms: u64,
}

/// What survives the agent's own restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Of which boot the moments are.
    pub boot_id: String,
    /// The deadline; `None`: there is none.
    pub deadline_ms: Option<u64>,
    /// When it was written, by the boot-time clock and by the wall clock.
    pub at_ms: u64,
    /// Unix milliseconds.
    pub wall_ms: u64,
    /// What bytes cost; nothing in files of older agents.
    #[serde(default)]
    pub tariff: Tariff,
    /// Bytes sent and received until then, since the boot.
    #[serde(default)]
    pub counted: Option<(u64, u64)>,
}

/// What a gigabyte costs, in milliseconds of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tariff {
    /// From the machine.
    pub up_ms: u64,
    /// To it.
    pub down_ms: u64,
}

impl Tariff {
    /// As the controller tells it with a lease.
    #[must_use]
    pub fn of(granted: &proto::v1::Granted) -> Self {
        Self { up_ms: granted.up_ms_per_gb, down_ms: granted.down_ms_per_gb }
    }
}

impl Kept {
    /// The deadline in the clock of this boot. A machine that was off meanwhile
    /// cost its disk, and is not given more time for that.
    #[must_use]
    pub fn now(&self, boot_id: &str, now_ms: u64, wall_ms: u64) -> Option<u64> {
        let deadline = self.deadline_ms?;
        if self.boot_id == boot_id {
            return Some(deadline);
        }
        let left = deadline.saturating_sub(self.at_ms);
        Some(now_ms.saturating_add(left.saturating_sub(wall_ms.saturating_sub(self.wall_ms))))
    }
}

/// The dead-man switch of one machine.
#[derive(Debug, Default)]
pub struct DeadMan {
    deadline_ms: Option<u64>,
    written_ms: Option<Option<u64>>,
    heard_ms: u64,
    worked_ms: u64,
    saving_since: Option<u64>,
    tried_ms: Option<u64>,
    looked_ms: Option<u64>,
    quiet_until_ms: u64,
    tariff: Tariff,
    /// Bytes sent and received that have gone off the allowance, and what of a
    /// millisecond is left over (in billionths).
    counted: Option<(u64, u64)>,
    rest: u128,
    counted_ms: u64,
}

impl DeadMan {
    /// As an agent before this one left it.
    #[must_use]
    pub fn restored(deadline_ms: Option<u64>, now_ms: u64) -> Self {
        let quiet_until_ms = now_ms.saturating_add(SETTLE_MS);
        Self {
            deadline_ms,
            written_ms: Some(deadline_ms),
            heard_ms: now_ms,
            quiet_until_ms,
            ..Self::default()
        }
    }

    /// With what the agent before this one knew of bytes.
    #[must_use]
    pub fn with_bytes(mut self, tariff: Tariff, counted: Option<(u64, u64)>) -> Self {
        (self.tariff, self.counted) = (tariff, counted);
        self
    }

    /// What bytes cost from now on, and how many were counted.
    #[must_use]
    pub fn bytes(&self) -> (Tariff, Option<(u64, u64)>) {
        (self.tariff, self.counted)
    }

    /// Bytes cost so much from now on.
    pub fn priced(&mut self, tariff: Tariff) {
        self.tariff = tariff;
    }

    /// Whether bytes are to be counted now: they cost something, and the last
    /// look is a second old.
    pub fn counts(&mut self, now_ms: u64) -> bool {
        let due = self.counted.is_none() || now_ms >= self.counted_ms.saturating_add(COUNT_MS);
        let counts = due && self.deadline_ms.is_some() && self.tariff != Tariff::default();
        if counts {
            self.counted_ms = now_ms;
        }
        counts
    }

    /// So many bytes were sent and received since the boot (fewer than before:
    /// since another one). What the new ones cost goes off the allowance.
    pub fn moved(&mut self, up: u64, down: u64) {
        let (Some((up_before, down_before)), Some(deadline)) =
            (self.counted.replace((up, down)), self.deadline_ms)
        else {
            return;
        };
        let grown = |now: u64, before: u64| u128::from(if now >= before { now - before } else { now });
        let cost = self.rest
            + grown(up, up_before) * u128::from(self.tariff.up_ms)
            + grown(down, down_before) * u128::from(self.tariff.down_ms);
        self.rest = cost % GB;
        let ms = u64::try_from(cost / GB).unwrap_or(u64::MAX);
        self.deadline_ms = Some(deadline.saturating_sub(ms));
    }

    /// A renewal that was sent then was granted: with a new allowance, without
    /// any limit, or as before.
    pub fn granted(&mut self, sent_ms: u64, allowance_ms: Option<u64>, unlimited: bool) {
        self.heard_ms = self.heard_ms.max(sent_ms);
        match allowance_ms {
            Some(ms) => self.deadline_ms = Some(sent_ms.saturating_add(ms)),
            None if unlimited => self.deadline_ms = None,
            None => {}
        }
        // Whoever speaks decides again; it is told of programs that have ended.
        (self.saving_since, self.tried_ms) = (None, None);
    }

    /// The deadline, if it is to be written down now.
    pub fn to_write(&mut self) -> Option<Option<u64>> {
        let same = match (self.written_ms, self.deadline_ms) {
            (Some(Some(before)), Some(now)) => before.abs_diff(now) <= WRITE_MS,
            (Some(None), None) => true,
            _ => false,
        };
        if same {
            return None;
        }
        self.written_ms = Some(self.deadline_ms);
        self.written_ms
    }

    /// What is to be done; each is told once, the end again and again.
    pub fn step(&mut self, now_ms: u64, work: Work, can_end: bool) -> Option<Step> {
        let gap = self.looked_ms.replace(now_ms).is_some_and(|at| now_ms.saturating_sub(at) > GAP_MS);
        if gap {
            self.quiet_until_ms = now_ms.saturating_add(SETTLE_MS);
        }
        if work.busy || work.unpublished {
            self.worked_ms = now_ms;
        }
        if now_ms < self.quiet_until_ms {
            return None;
        }
        let over = self.deadline_ms.is_some_and(|deadline| now_ms >= deadline);
        if !over && self.saving_since.is_none() {
            let idle = can_end && !work.busy && !work.unpublished;
            if idle && now_ms >= self.heard_ms.max(self.worked_ms).saturating_add(IDLE_MS) {
                return self.end(now_ms, How::Destroy);
            }
            return None;
        }
        let Some(since) = self.saving_since else {
            self.saving_since = Some(now_ms);
            return Some(Step::Save);
        };
        let how = if work.busy || work.unpublished { How::Stop } else { How::Destroy };
        if !work.busy || now_ms >= since.saturating_add(ENDING_MS).saturating_add(work.grace_ms) {
            return self.end(now_ms, how);
        }
        None
    }

    fn end(&mut self, now_ms: u64, how: How) -> Option<Step> {
        if self.tried_ms.is_some_and(|at| now_ms < at.saturating_add(AGAIN_MS)) {
            return None;
        }
        self.tried_ms = Some(now_ms);
        Some(Step::End(how))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUSY: Work = Work { busy: true, unpublished: false, grace_ms: 0 };
    const DONE: Work = Work { busy: false, unpublished: false, grace_ms: 0 };
    const HELD: Work = Work { busy: false, unpublished: true, grace_ms: 0 };

    #[test]
    fn programs_save_first_and_what_is_stored_lets_the_machine_go() {
        let mut man = DeadMan::default();
        man.granted(1_000, Some(60_000), false);
        assert_eq!(man.step(60_999, BUSY, true), None);
        assert_eq!(man.step(61_000, BUSY, true), Some(Step::Save));
        assert_eq!(man.step(61_500, BUSY, true), None);
        assert_eq!(man.step(70_000, DONE, true), Some(Step::End(How::Destroy)));
        assert_eq!(man.step(70_001, DONE, true), None);
        assert_eq!(man.step(70_000 + AGAIN_MS, DONE, true), Some(Step::End(How::Destroy)));
    }

    #[test]
    fn the_last_copy_keeps_its_disk_and_a_program_that_does_not_end_is_not_waited_for() {
        let mut man = DeadMan::default();
        man.granted(0, Some(10), false);
        assert_eq!(man.step(10, BUSY, true), Some(Step::Save));
        assert_eq!(man.step(20, HELD, true), Some(Step::End(How::Stop)));
        let mut man = DeadMan::default();
        man.granted(0, Some(10), false);
        assert_eq!(man.step(10, BUSY, true), Some(Step::Save));
        let slow = Work { grace_ms: 20_000, ..BUSY };
        let end = 10 + ENDING_MS + 20_000;
        for at in (40..end).step_by(40_000) {
            assert_eq!(man.step(at, slow, true), None, "{at}");
        }
        assert_eq!(man.step(end, slow, true), Some(Step::End(How::Stop)));
    }

    #[test]
    fn a_controller_that_speaks_again_and_no_cap_at_all_end_nothing() {
        let mut man = DeadMan::default();
        man.granted(0, Some(10), false);
        assert_eq!(man.step(10, BUSY, true), Some(Step::Save));
        man.granted(11, Some(100), false);
        assert_eq!(man.step(12, BUSY, true), None);
        man.granted(13, None, true);
        assert_eq!(man.step(50_000, BUSY, true), None);
        // A controller that does not know the machine yet takes nothing back.
        man.granted(50_000, Some(10), false);
        man.granted(50_005, None, false);
        assert_eq!(man.step(50_010, BUSY, true), Some(Step::Save));
    }

    #[test]
    fn who_was_away_is_given_time_to_be_heard_first() {
        let mut man = DeadMan::restored(Some(5), 1_000);
        assert_eq!(man.step(1_000, BUSY, true), None);
        assert_eq!(man.step(40_000, BUSY, true), None);
        assert_eq!(man.step(80_000, BUSY, true), None);
        assert_eq!(man.step(1_000 + SETTLE_MS, BUSY, true), Some(Step::Save));
        // The host stood still, or the machine was suspended.
        let mut man = DeadMan::default();
        man.granted(0, Some(90_000), false);
        assert_eq!(man.step(10_000, BUSY, true), None);
        assert_eq!(man.step(500_000, BUSY, true), None);
        man.granted(501_000, Some(90_000), false);
        assert_eq!(man.step(502_000, BUSY, true), None);
    }

    #[test]
    fn a_machine_without_work_ends_when_nobody_speaks_for_long() {
        let mut man = DeadMan::default();
        man.granted(0, None, true);
        let mut at = 0;
        let mut until = |man: &mut DeadMan, end: u64, work: Work, can: bool| {
            while at < end {
                assert_eq!(man.step(at, work, can), None, "{at}");
                at += 30_000;
            }
        };
        until(&mut man, IDLE_MS, BUSY, true);
        // What is not delivered is not given up, and time counts from the work.
        until(&mut man, 2 * IDLE_MS, HELD, true);
        until(&mut man, 3 * IDLE_MS - 30_000, DONE, true);
        assert_eq!(man.step(3 * IDLE_MS, DONE, false), None);
        assert_eq!(man.step(3 * IDLE_MS, DONE, true), Some(Step::End(How::Destroy)));
    }

    #[test]
    fn a_new_boot_gets_no_more_time_than_there_was() {
        // As an agent wrote it that knew nothing of bytes.
        let kept = r#"{"boot_id":"a","deadline_ms":90000,"at_ms":30000,"wall_ms":1000000}"#;
        let kept: Kept = serde_json::from_str(kept).unwrap();
        assert_eq!(kept.now("a", 40_000, 1_010_000), Some(90_000));
        assert_eq!(kept.now("b", 5_000, 1_020_000), Some(45_000));
        // A wall clock that went back, and one that is far ahead.
        assert_eq!(kept.now("b", 5_000, 0), Some(65_000));
        assert_eq!(kept.now("b", 5_000, u64::MAX), Some(5_000));
    }

    #[test]
    fn what_is_sent_and_received_while_nobody_speaks_goes_off_the_allowance() {
        let hour = 3_600_000;
        let mut man = DeadMan::default();
        man.granted(0, Some(hour), false);
        assert!(!man.counts(0), "nothing is told of what bytes cost");
        // $0.02 a gigabyte beside $0.4 an hour: three minutes; down nothing.
        man.priced(Tariff { up_ms: 180_000, down_ms: 0 });
        assert!(man.counts(0));
        man.moved(5_000_000_000, 7);
        assert!(!man.counts(900) && man.counts(1_000));
        // A gigabit a second.
        let mut at = 0;
        while man.step(at, BUSY, true).is_none() {
            at += 1_000;
            man.moved(5_000_000_000 + at * 125_000, 9 * at);
        }
        // $0.4 + $9 an hour: as much as $0.4 in less than three minutes.
        assert!((150_000..156_000).contains(&at), "{at}");
        // The next grant counts anew, and little bytes add up.
        man.granted(at, Some(hour), false);
        let before = man.to_write().unwrap().unwrap();
        for n in 0..1_000_u64 {
            man.moved(30_000_000_000 + n * 1_000, 0);
        }
        let last = man.deadline_ms.unwrap();
        let jump = (30_000_000_000 - (5_000_000_000 + at * 125_000)) * 180_000 / 1_000_000_000;
        assert!((before - last).abs_diff(jump + 179) <= 1, "{before} {last} {jump}");
        // Another agent goes on where this one was; another boot begins at nothing.
        let (tariff, counted) = man.bytes();
        let mut next = DeadMan::restored(Some(last), at).with_bytes(tariff, counted);
        next.moved(30_001_999_000, 0);
        assert_eq!(next.deadline_ms.unwrap(), last - 180);
        next.moved(1_000_000_000, 0);
        assert_eq!(next.deadline_ms.unwrap(), last - 180_180);
    }

    proptest! {
        /// Nothing ends before its deadline, and the deadline is always the
        /// newest grant's.
        #[test]
        fn n11_nothing_ends_before_its_allowance_is_over(
            events in proptest::collection::vec((0u64..50_000, proptest::option::of(0u64..200_000), any::<bool>()), 1..60)
        ) {
            let mut man = DeadMan::default();
            let (mut now, mut deadline) = (0, None);
            for (pause, grant, busy) in events {
                now += pause;
                if let Some(allowance) = grant {
                    man.granted(now, Some(allowance), false);
                    deadline = Some(now + allowance);
                }
                let step = man.step(now, Work { busy, unpublished: false, grace_ms: 0 }, false);
                if step.is_some() { prop_assert!(deadline.is_some_and(|at| now >= at)); }
            }
        }
    }
}
