//! How often a run saves and into how many packs: what a booklet must hold is
//! measured, not guessed.

use std::collections::VecDeque;
use std::time::Duration;

use artifacts::store::booklet::plan::Measured;

/// Saves that are looked back at.
const LOOKED_AT: usize = 8;

/// The last saves: when, by the wall clock, and how many packs.
#[derive(Debug, Default)]
pub(super) struct Rate(VecDeque<(u64, u32)>);

impl Rate {
    pub(super) fn saved(&mut self, at_ms: u64, packs: u32) {
        if self.0.len() == LOOKED_AT {
            self.0.pop_front();
        }
        self.0.push_back((at_ms, packs));
    }

    /// `None` until two saves were seen.
    pub(super) fn measured(&self) -> Option<Measured> {
        let ((first, _), (last, _)) = (self.0.front()?, self.0.back()?);
        let between = u32::try_from(self.0.len() - 1).ok().filter(|between| *between > 0)?;
        let packs_per_save = self.0.iter().map(|(_, packs)| *packs).max().unwrap_or(1).max(1);
        Some(Measured {
            between_saves: Duration::from_millis(last.saturating_sub(*first)) / between,
            packs_per_save,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_pause_and_the_most_packs_count() {
        let mut rate = Rate::default();
        rate.saved(1_000, 9);
        assert_eq!(rate.measured(), None, "one save says nothing");
        for save in 0..20 {
            rate.saved(10_000 + save * 2_000, if save == 15 { 5 } else { 2 });
        }
        let measured = rate.measured().unwrap();
        assert_eq!((measured.between_saves, measured.packs_per_save), (Duration::from_secs(2), 5));
        // A clock that was set back is no reason to ask for a million URLs.
        rate.saved(0, 1);
        assert_eq!(rate.measured().unwrap().between_saves, Duration::ZERO);
    }
}
