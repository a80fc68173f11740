//! A price that cannot be: far above what was agreed and what may be paid. A
//! provider that errs or lies once must not use up anybody's caps: nothing that
//! was is reckoned at such a price, it counts from its second reading on, and
//! then bounded. What it made dearer is taken back once the price is sane.

use serde::{Deserialize, Serialize};

use super::{Billed, Meter, Rates};

/// So many times the agreed price, or the most that may be paid, is possible.
const FACTOR: f64 = 4.0;
/// What a gigabyte may cost anywhere, US dollars.
const PER_GB: f64 = 1.0;
/// A second reading is another answer, not the same one once more.
const CONFIRM_MS: u64 = 50_000;

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Doubt {
    /// When it was said first, unix milliseconds.
    since_ms: u64,
    /// The meter as it goes on at the price that was agreed.
    pub(super) sound: Box<Meter>,
}

/// What became of a price that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It counts.
    Sound,
    /// It cannot be, and does not count yet.
    Doubted,
    /// It cannot be and was said again: it counts, bounded.
    Repeated,
}

/// The most that can be, beside an agreed price and the most that may be paid.
fn bound(agreed: &Rates, said: &Rates, ceiling: Option<f64>) -> Rates {
    let most = FACTOR * agreed.hourly().max(ceiling.unwrap_or(0.0));
    let hourly = said.hourly();
    // Nothing is known to compare it with.
    let share = if most > 0.0 && hourly > most { most / hourly } else { 1.0 };
    Rates {
        compute_usd_per_hour: said.compute_usd_per_hour * share,
        disk_usd_per_hour: said.disk_usd_per_hour * share,
        up_usd_per_gb: said.up_usd_per_gb.min((FACTOR * agreed.up_usd_per_gb).max(PER_GB)),
        down_usd_per_gb: said.down_usd_per_gb.min((FACTOR * agreed.down_usd_per_gb).max(PER_GB)),
    }
}

impl Meter {
    /// As [`Meter::look`], where the price may be anything; `ceiling` is the most
    /// that an hour may cost.
    pub fn hear(&mut self, now_ms: u64, billed: Billed, said: Rates, ceiling: Option<f64>) -> Word {
        let agreed = self.doubt.as_ref().map_or(self.rates, |doubt| doubt.sound.rates);
        let bounded = bound(&agreed, &said, ceiling);
        if bounded == said {
            if let Some(doubt) = self.doubt.take() {
                *self = *doubt.sound;
            }
            self.look(now_ms, billed, said);
            return Word::Sound;
        }
        let Some(mut doubt) = self.doubt.take() else {
            self.look(now_ms, billed, agreed);
            self.doubt = Some(Box::new(Doubt { since_ms: now_ms, sound: Box::new(self.clone()) }));
            return Word::Doubted;
        };
        doubt.sound.look(now_ms, billed, agreed);
        let repeated = now_ms >= doubt.since_ms.saturating_add(CONFIRM_MS);
        self.look(now_ms, billed, if repeated { bounded } else { agreed });
        self.doubt = Some(doubt);
        if repeated { Word::Repeated } else { Word::Doubted }
    }

    /// Whether its provider said a price last that cannot be.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.doubt.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60_000;

    fn begun() -> Meter {
        let mut meter = Meter::default();
        meter.begin(MINUTE, Rates::flat(0.42));
        meter
    }

    #[test]
    fn one_lie_costs_nothing_and_a_repeated_one_little_until_the_truth_is_back() {
        let (lie, ceiling) = (Rates::flat(900_000.0), Some(0.5));
        let mut meter = begun();
        let cost = |meter: &Meter, minute: u64| meter.at(minute * MINUTE).total();
        assert_eq!(meter.hear(2 * MINUTE, Billed::All, Rates::flat(0.42), ceiling), Word::Sound);
        assert_eq!(meter.hear(3 * MINUTE, Billed::All, lie, ceiling), Word::Doubted);
        // The same answer once more.
        assert_eq!(meter.hear(3 * MINUTE + 10_000, Billed::All, lie, ceiling), Word::Doubted);
        assert!((cost(&meter, 4) - 0.42 * 3.0 / 60.0).abs() < 1e-9, "{meter:?}");
        assert_eq!(meter.hear(4 * MINUTE, Billed::All, lie, ceiling), Word::Repeated);
        assert!((meter.rates.hourly() - 2.0).abs() < 1e-9, "bounded: {meter:?}");
        meter.hear(10 * MINUTE, Billed::All, lie, ceiling);
        assert!(cost(&meter, 11) < 0.3 && cost(&meter, 11) > 0.2, "{}", cost(&meter, 11));
        // As it is written down and read back.
        let mut meter: Meter = serde_json::from_value(serde_json::to_value(&meter).unwrap()).unwrap();
        assert_eq!(meter.hear(12 * MINUTE, Billed::All, Rates::flat(0.43), ceiling), Word::Sound);
        assert!(!meter.is_doubted() && cost(&meter, 12) < 0.43 * 11.0 / 60.0 + 1e-9, "{meter:?}");
        // Bytes too.
        let bytes = Rates { up_usd_per_gb: 500.0, ..Rates::flat(0.42) };
        assert_eq!(meter.hear(13 * MINUTE, Billed::All, bytes, ceiling), Word::Doubted);
        meter.traffic(1_000_000_000, 0);
        assert!(cost(&meter, 13) < 0.1);
    }

    proptest! {
        /// Whatever is said, an hour never counts more than the bound; and with
        /// the truth at the end it is what it would have been without the lies.
        #[test]
        fn no_word_makes_it_dearer_than_the_bound(
            words in proptest::collection::vec((1_u64..300, prop_oneof![Just(0.42), 0.0..1e9_f64]), 1..40)
        ) {
            let (mut meter, mut now) = (begun(), MINUTE);
            let mut agreed = 0.42_f64;
            for (seconds, usd) in words {
                now += seconds * 1_000;
                if meter.hear(now, Billed::All, Rates::flat(usd), Some(0.5)) == Word::Sound {
                    agreed = agreed.max(usd);
                }
                let hours = (now - MINUTE) as f64 / 3.6e6;
                prop_assert!(meter.at(now).total() <= hours * 4.0 * agreed.max(0.5) + 1e-9, "{meter:?}");
            }
        }
    }
}
