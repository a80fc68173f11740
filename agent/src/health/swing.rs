//! Whether what is left has fallen far enough to be worth a forecast. Pure. A
//! slope alone is not: where garbage is collected, memory falls steadily for a
//! while and comes back, over and over. A forecast reaches only so far beyond
//! the fall that was seen, and a level that was come back from by itself is no
//! news when it is passed again.

use std::collections::VecDeque;

/// Part of what is left that must have been used since the last high.
const SHARE: f64 = 0.1;
/// Part of the whole below which a fall is noise.
const NOISE: f64 = 0.01;
/// Part of a fall that must come back for its lowest level to count as left.
const BACK: f64 = 0.5;
/// Part of the whole below which nothing comes back by itself: whoever used it
/// ended, or was ended.
const USED_UP: f64 = 0.05;
/// Part of the greatest fall that came back by which such a level must be
/// passed to be news.
const BEYOND: f64 = 0.25;
/// So long a level is remembered, and so many are.
const REMEMBERED_MS: u64 = 1_800_000;
const LEVELS: usize = 32;

/// How a figure went up and down.
#[derive(Debug, Clone, Default)]
pub(super) struct Swing {
    /// Since the last way back: the highest, and the lowest after that.
    high: f64,
    low: f64,
    left: f64,
    /// When it came back, from which level, and from how deep a fall.
    levels: VecDeque<(u64, f64, f64)>,
}

impl Swing {
    /// What is left of the whole now.
    pub(super) fn push(&mut self, at_ms: u64, left: f64, whole: f64) {
        let fall = self.high - self.low;
        if fall > NOISE * whole && left - self.low >= BACK * fall {
            if self.low > USED_UP * whole {
                self.levels.push_back((at_ms, self.low, fall));
            }
            (self.high, self.low) = (left, left);
        } else if left > self.high {
            (self.high, self.low) = (left, left);
        } else {
            self.low = self.low.min(left);
        }
        self.left = left;
        let oldest = at_ms.saturating_sub(REMEMBERED_MS);
        while self.levels.len() > LEVELS || self.levels.front().is_some_and(|(at, ..)| *at < oldest) {
            self.levels.pop_front();
        }
    }

    /// Whether it falls further than it does by itself.
    pub(super) fn is_news(&self) -> bool {
        let known = self.levels.iter().map(|(_, low, _)| *low).reduce(f64::min);
        let deepest = self.levels.iter().map(|(.., fall)| *fall).fold(0.0, f64::max);
        self.high - self.left >= SHARE * self.left
            && known.is_none_or(|known| self.left < known - BEYOND * deepest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: f64 = 64e9;

    /// Ten seconds between two figures; at which of them it was news.
    fn news(left: impl IntoIterator<Item = f64>) -> Vec<usize> {
        let mut swing = Swing::default();
        let mut at = Vec::new();
        for (n, left) in left.into_iter().enumerate() {
            swing.push(n as u64 * 10_000, left, WHOLE);
            if swing.is_news() {
                at.push(n);
            }
        }
        at
    }

    /// Falls by `depth` in `steps`, and comes back at once.
    fn saw(high: f64, depth: f64, steps: u32, count: u32) -> impl Iterator<Item = f64> {
        (0..count).map(move |n| high - depth * f64::from(n % (steps + 1)) / f64::from(steps))
    }

    #[test]
    fn a_small_sawtooth_is_never_news() {
        for steps in [2, 6, 30, 90] {
            assert_eq!(news(saw(40e9, 3.5e9, steps, 1_000)), [0_usize; 0], "{steps}");
        }
    }

    #[test]
    fn a_deep_sawtooth_is_news_once_at_most() {
        for steps in [6, 12, 60] {
            let at = news(saw(40e9, 20e9, steps, 1_000));
            assert!(at.iter().all(|n| *n <= steps as usize), "{steps}: {at:?}");
        }
        // Neither do teeth of uneven depth surprise.
        let uneven = (0..40_u32).flat_map(|n| saw(40e9, 18e9 + f64::from(n * 7 % 5) * 1e9, 12, 13));
        assert!(news(uneven).iter().all(|n| *n <= 12));
    }

    #[test]
    fn a_leak_is_news_also_through_a_sawtooth_and_after_one_that_ended_badly() {
        let leak = |from: f64| (0..60).map(move |n| from - f64::from(n) * 0.5e9);
        assert_eq!(news(leak(40e9)).first(), Some(&8), "a tenth of what is left");
        assert_eq!(news(leak(40e9)).last(), Some(&59));
        let through = saw(40e9, 8e9, 6, 70).chain(leak(40e9));
        assert_eq!(news(through).last(), Some(&129));
        // Out of memory, and again: the second time is no less news.
        let twice = (0..80).chain(0..80).map(|n| 40e9 - f64::from(n) * 0.5e9);
        assert!(news(twice).iter().any(|n| *n > 100));
    }
}
