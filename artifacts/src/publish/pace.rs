//! How much a core may spend on making chunks smaller: as long as coding and
//! sending side by side are so much faster than sending alone that the time of
//! the core, which a training may want, is worth it. Both are measured while they
//! happen, for neither a link nor a machine is known beforehand.

use std::time::Duration;

use crate::codec::Effort;

/// Bytes and the time they took, the older ones counting less and less.
#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    bytes: f64,
    seconds: f64,
}

impl Flow {
    fn add(&mut self, bytes: u64, took: Duration) {
        *self =
            Self { bytes: self.bytes / 2.0 + bytes as f64, seconds: self.seconds / 2.0 + took.as_secs_f64() };
    }

    /// Bytes per second, once there is anything to tell by.
    fn speed(self) -> Option<f64> {
        (self.seconds > 1e-4 && self.bytes > 1e5).then_some(self.bytes / self.seconds)
    }
}

/// What one publish has seen of its core and its link.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    coding: Flow,
    sending: Flow,
    plain: f64,
    stored: f64,
    /// Turns since all effort was last made, and how many there are to be.
    cheap: u32,
    patience: u32,
}

/// What a second of a core costs in seconds of waiting for the link.
const PRICE: f64 = 0.5;
/// So many times in a row the cheap way is gone before the other is measured
/// again, twice as many each time that it came to the same: what a core or a
/// link does once it need not do for hours.
const AGAIN: u32 = 16;
const SELDOM: u32 = 256;

impl Pace {
    /// Chunks were coded with all effort.
    pub(super) fn coded(&mut self, plain: u64, stored: u64, took: Duration) {
        self.coding.add(plain, took);
        self.plain = self.plain / 2.0 + plain as f64;
        self.stored = self.stored / 2.0 + stored as f64;
    }

    /// A pack was stored.
    pub(super) fn sent(&mut self, stored: u64, took: Duration) {
        self.sending.add(stored, took);
    }

    /// What the next chunks are worth.
    pub(super) fn effort(&mut self) -> Effort {
        self.patience = self.patience.max(AGAIN);
        if self.worth() == Effort::Dense {
            (self.cheap, self.patience) = (0, AGAIN);
            return Effort::Dense;
        }
        self.cheap += 1;
        if self.cheap < self.patience {
            return Effort::Light;
        }
        (self.cheap, self.patience) = (0, (self.patience * 2).min(SELDOM));
        Effort::Dense
    }

    /// Whether the link is known to be slower than coding.
    pub(super) fn pays(&self) -> bool {
        self.coding.speed().is_some() && self.sending.speed().is_some() && self.worth() == Effort::Dense
    }

    fn worth(&self) -> Effort {
        let (Some(core), Some(link)) = (self.coding.speed(), self.sending.speed()) else {
            return Effort::Dense;
        };
        let share = self.stored / self.plain;
        let dense = (1.0 / core).max(share / link) + PRICE / core;
        if 1.0 / link < dense { Effort::Light } else { Effort::Dense }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(core_mb: u64, link_mb: u64, percent: u64) -> Effort {
        let second = Duration::from_secs(1);
        let mut pace = Pace::default();
        assert_eq!(pace.effort(), Effort::Dense, "nothing is known yet");
        pace.coded(core_mb * 1_000_000, core_mb * percent * 10_000, second);
        assert_eq!(pace.effort(), Effort::Dense);
        pace.sent(link_mb * 1_000_000, second);
        pace.effort()
    }

    #[test]
    fn a_link_faster_than_the_core_gets_plain_bytes() {
        for (core, link, percent, effort) in [
            (600, 12, 83, Effort::Dense),
            (600, 125, 83, Effort::Dense),
            (600, 1250, 83, Effort::Light),
            (400, 125, 78, Effort::Dense),
            (600, 250, 71, Effort::Dense),
            (600, 250, 83, Effort::Light),
            (600, 590, 60, Effort::Light),
            (700, 560, 71, Effort::Light),
            (600, 590, 20, Effort::Light),
            (600, 350, 20, Effort::Dense),
            (1200, 1250, 60, Effort::Light),
            (600, 125, 100, Effort::Light),
        ] {
            assert_eq!(pace(core, link, percent), effort, "{core} MB/s, {link} MB/s, {percent} %");
        }
    }

    /// One slow measurement of the core, in a moment when all of it was at
    /// work for others, and the link never seems slow again.
    #[test]
    fn what_was_given_up_is_tried_again() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::default();
        pace.coded(20_000_000, 10_000_000, second);
        pace.sent(200_000_000, second);
        let mut cheap_until_the_next = || (0..).take_while(|_| pace.effort() == Effort::Light).count();
        let waits: Vec<usize> = (0..6).map(|_| cheap_until_the_next()).collect();
        assert_eq!(waits, [15, 31, 63, 127, 255, 255]);
        for _ in 0..3 {
            pace.coded(800_000_000, 400_000_000, second);
        }
        assert_eq!(pace.effort(), Effort::Dense);
    }

    #[test]
    fn a_link_that_slows_down_is_noticed() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::default();
        pace.coded(600_000_000, 400_000_000, second);
        pace.sent(2_000_000_000, second);
        assert_eq!(pace.effort(), Effort::Light);
        pace.sent(8_000_000, 8 * second);
        assert_eq!(pace.effort(), Effort::Dense);
    }
}
