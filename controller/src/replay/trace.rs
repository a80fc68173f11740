//! When a zone has a machine to give, and at what price.

use serde::Serialize;

/// A zone over the time of a recording.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Zone {
    name: String,
    /// When it has a machine: [from, to) each, rising, apart.
    up: Vec<(u64, u64)>,
    /// Prices from a moment on, rising.
    prices: Vec<(u64, f64)>,
    end_ms: u64,
}

impl Zone {
    /// A zone that is up at the ticks that say so.
    #[must_use]
    pub fn from_ticks(name: &str, tick_ms: u64, up: &[bool], prices: &[f64]) -> Self {
        let at = |tick: usize| tick as u64 * tick_ms;
        let changes = up.iter().enumerate().map(|(tick, up)| (at(tick), *up));
        let mut zone = Self::from_changes(name, changes, at(up.len()));
        for (tick, usd) in prices.iter().enumerate() {
            if zone.prices.last().is_none_or(|(_, last)| last.to_bits() != usd.to_bits()) {
                zone.prices.push((at(tick), *usd));
            }
        }
        zone
    }

    /// A zone that is up or not from each of these moments on, until the end.
    /// Moments must rise.
    #[must_use]
    pub fn from_changes(name: &str, changes: impl IntoIterator<Item = (u64, bool)>, end_ms: u64) -> Self {
        let (mut spans, mut since) = (Vec::new(), None);
        for (at, is_up) in changes {
            match (since, is_up) {
                (None, true) => since = Some(at),
                (Some(from), false) => {
                    if from < at {
                        spans.push((from, at));
                    }
                    since = None;
                }
                _ => {}
            }
        }
        spans.extend(since.filter(|from| *from < end_ms).map(|from| (from, end_ms)));
        Self { name: name.to_owned(), up: spans, prices: Vec::new(), end_ms }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the recording ends.
    #[must_use]
    pub fn end_ms(&self) -> u64 {
        self.end_ms
    }

    /// When it has a machine: [from, to) each.
    #[must_use]
    pub fn up(&self) -> &[(u64, u64)] {
        &self.up
    }

    /// Part of the time in which it has one.
    #[must_use]
    pub fn up_share(&self) -> f64 {
        let up: u64 = self.up.iter().map(|(from, to)| to - from).sum();
        if self.end_ms == 0 { 0.0 } else { up as f64 / self.end_ms as f64 }
    }

    /// How often it took machines back: ends of spans, that of the recording aside.
    #[must_use]
    pub fn losses(&self) -> usize {
        self.up.iter().filter(|(_, to)| *to < self.end_ms).count()
    }

    /// If it has one at this moment: until when. One that is there when the
    /// recording ends is not seen to be taken back.
    pub(super) fn until(&self, at_ms: u64) -> Option<u64> {
        let next = self.up.partition_point(|(_, to)| *to <= at_ms);
        let (from, to) = self.up.get(next)?;
        (*from <= at_ms).then_some(if *to == self.end_ms { u64::MAX } else { *to })
    }

    /// Its price at this moment, if the recording has one.
    pub fn usd_at(&self, at_ms: u64) -> Option<f64> {
        let next = self.prices.partition_point(|(from, _)| *from <= at_ms);
        next.checked_sub(1).map(|last| self.prices[last].1)
    }
}

/// Milliseconds within [from, to) in which any of the spans goes on.
pub(super) fn covered(spans: impl IntoIterator<Item = (u64, u64)>, from_ms: u64, to_ms: u64) -> u64 {
    let mut spans: Vec<(u64, u64)> = spans
        .into_iter()
        .map(|(from, to)| (from.max(from_ms), to.min(to_ms)))
        .filter(|(from, to)| from < to)
        .collect();
    spans.sort_unstable();
    let (mut total, mut reached) = (0, from_ms);
    for (from, to) in spans {
        total += to.saturating_sub(from.max(reached));
        reached = reached.max(to);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_spans_with_prices() {
        let up = [false, true, true, false, true];
        let zone = Zone::from_ticks("a", 60_000, &up, &[1.0, 1.0, 2.0, 2.0, 1.5]);
        assert_eq!(zone.up(), [(60_000, 180_000), (240_000, 300_000)]);
        assert_eq!((zone.losses(), zone.end_ms()), (1, 300_000));
        assert_eq!(
            [0, 60_000, 179_999, 180_000].map(|at| zone.until(at)),
            [None, Some(180_000), Some(180_000), None]
        );
        assert_eq!(zone.until(240_000), Some(u64::MAX), "nobody saw it end");
        assert_eq!(
            [0, 119_999, 120_000, 299_999].map(|at| zone.usd_at(at)),
            [Some(1.0), Some(1.0), Some(2.0), Some(1.5)]
        );
        assert!((zone.up_share() - 0.6).abs() < 1e-12);
    }

    #[test]
    fn time_in_which_any_is_up_counts_once() {
        assert_eq!(covered([(0, 10), (5, 20), (30, 40)], 0, 35), 25);
        assert_eq!(covered([(5, 20), (0, 10)], 8, 15), 7);
        assert_eq!(covered([], 0, 10), 0);
    }
}
