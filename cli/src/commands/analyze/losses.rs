//! What became of the bytes that were read: what is counted, and the words for it.

use curves::log::Counts;
use serde::Serialize;

/// What became of the input.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Losses {
    pub(super) bytes: u64,
    pub(super) records: u64,
    pub(super) skipped: Loss,
    /// Records that have nothing of a training's course; they are no loss.
    pub(super) aside: Loss,
    pub(super) corrupt: Loss,
    pub(super) unknown: Loss,
    pub(super) dropped: Loss,
    pub(super) unread: Loss,
    pub(super) unnamed: Loss,
    pub(super) torn: Loss,
}

/// How often, and where first.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Loss {
    pub(super) count: u64,
    pub(super) first_byte: Option<u64>,
}

impl Losses {
    pub(super) fn add(&mut self, counts: &Counts) {
        self.bytes = self.bytes.saturating_add(counts.bytes);
        self.records = self.records.saturating_add(counts.records);
        for (loss, tally) in [
            (&mut self.skipped, counts.skipped),
            (&mut self.aside, counts.aside),
            (&mut self.corrupt, counts.corrupt),
            (&mut self.unknown, counts.unknown),
            (&mut self.dropped, counts.dropped),
            (&mut self.unread, counts.unread),
            (&mut self.unnamed, counts.unnamed),
            (&mut self.torn, counts.torn),
        ] {
            loss.count = loss.count.saturating_add(tally.count);
            loss.first_byte = loss.first_byte.or(tally.first);
        }
    }

    /// Each kind with its name, where there is any.
    pub(super) fn told(&self) -> Vec<(&'static str, Loss)> {
        let all = [
            ("corrupt records", self.corrupt),
            ("bytes of an unfinished record at the end", self.torn),
            ("records left out, as they are too long or did not come", self.skipped),
            ("records of unknown kinds", self.unknown),
            ("values beyond the bounds", self.dropped),
            ("cells that begin like numbers and are none", self.unread),
            ("names of columns, which are called by their place", self.unnamed),
        ];
        all.into_iter().filter(|(_, loss)| loss.count > 0).collect()
    }

    /// The first of them for a file without values; else what was in it instead.
    pub(super) fn instead(&self) -> Option<String> {
        const ASIDE: &str = "records of kinds without values, such as texts, images and histograms";
        let aside = Some((ASIDE, self.aside)).filter(|(_, loss)| loss.count > 0);
        let (what, loss) = self.told().first().copied().or(aside)?;
        Some(format!("{} {what}", loss.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_values_is_no_loss() {
        let mut losses = Losses::default();
        losses.aside.count = 3;
        assert!(losses.told().is_empty());
        assert!(losses.instead().is_some_and(|said| said.starts_with("3 records of kinds without values")));
        losses.corrupt.count = 2;
        assert_eq!(losses.instead().as_deref(), Some("2 corrupt records"));
        assert_eq!(losses.told().len(), 1);
    }
}
