//! In which pieces a run's history is asked for. No IO: what to ask next follows
//! from what came.
//!
//! The server takes a range of steps and a most number of rows, of which it picks
//! some where the range has more. So a range is never believed that came back
//! full, unless it has no more steps than rows were asked for: that is how W&B's
//! own client makes sure of every row. Where rows are far apart ranges grow, as
//! else a run that logs every thousandth step would cost a question for each row.

/// A range of steps, and the most rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    /// The first step.
    pub(super) from: u64,
    /// The step behind the last.
    pub(super) to: u64,
    /// The most rows.
    pub(super) rows: u64,
}

/// Where a fetching of history stands.
#[derive(Debug, Clone)]
pub(super) struct Pages {
    next: u64,
    end: u64,
    width: u64,
    rows: u64,
    /// Whether ranges grow.
    grows: bool,
    /// More steps than that with rows in them were too much.
    ceiling: u64,
}

/// Rows of one question.
const ROWS: u64 = 10_000;
/// Rows of one question of W&B's own client.
pub(super) const SURE_ROWS: u64 = 1_000;

impl Pages {
    /// All steps from `from` to before `end`.
    pub(super) fn new(from: u64, end: u64) -> Self {
        Self { next: from, end, width: ROWS, rows: ROWS, grows: true, ceiling: u64::MAX }
    }

    /// The same exactly as W&B's own client asks: many questions.
    pub(super) fn sure(from: u64, end: u64) -> Self {
        Self { next: from, end, width: SURE_ROWS, rows: SURE_ROWS, grows: false, ceiling: u64::MAX }
    }

    /// What to ask next; `None`: all was asked.
    pub(super) fn ask(&self) -> Option<Ask> {
        let to = self.next.saturating_add(self.width).min(self.end);
        (self.next < self.end).then_some(Ask { from: self.next, to, rows: self.rows })
    }

    /// So many rows came: whether they are all of the range. If they may not be,
    /// a smaller range is asked for next.
    pub(super) fn came(&mut self, rows: u64) -> bool {
        let Some(ask) = self.ask() else { return false };
        if rows >= self.rows && ask.to - ask.from > self.rows {
            self.width = self.rows;
            return false;
        }
        self.next = ask.to;
        if self.grows && rows < self.rows / 4 {
            self.width = self.width.saturating_mul(2);
        } else if self.grows && rows > self.rows / 2 && self.width > self.rows {
            self.width = (self.width / 2).max(self.rows);
        }
        if rows > 0 {
            self.width = self.width.min(self.ceiling);
        }
        true
    }

    /// The answer was too much, or too slow: asks for less of it, to no fewer
    /// steps than `least`. `false`: it is that little already.
    pub(super) fn smaller(&mut self, least: u64) -> bool {
        let asked = self.ask().map_or(0, |ask| ask.to - ask.from);
        let least = least.max(1);
        if asked <= least {
            return false;
        }
        self.width = (asked / 8).max(least);
        self.ceiling = self.width;
        true
    }

    /// Leaves out the range that would be asked for next.
    pub(super) fn pass(&mut self) {
        self.next = self.ask().map_or(self.end, |ask| ask.to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A server with rows at some steps, which picks where there are too many.
    fn fetch(steps: &[u64], mut pages: Pages, most: u64) -> (Vec<u64>, usize) {
        let (mut got, mut asked) = (Vec::new(), 0);
        while let Some(ask) = pages.ask() {
            asked += 1;
            assert!(asked < 200_000, "no end: {pages:?}");
            let at = |step| steps.partition_point(|one| *one < step);
            let inside = steps[at(ask.from)..at(ask.to)].to_vec();
            if inside.len() as u64 > most {
                if !pages.smaller(1) {
                    pages.pass();
                }
                continue;
            }
            let rows = usize::try_from(ask.rows).unwrap();
            let every = inside.len().div_ceil(rows).max(1);
            let picked: Vec<u64> = inside.into_iter().step_by(every).collect();
            let full = every > 1;
            let count = if full { ask.rows } else { picked.len() as u64 };
            if pages.came(count) {
                got.extend(picked);
            }
        }
        (got, asked)
    }

    proptest! {
        #[test]
        fn every_row_comes_once(
            gaps in prop::collection::vec(prop_oneof![4 => 1_u64..3, 1 => 1_u64..5_000], 0..200),
            dense in 0_u64..30_000, start in 0_u64..1 << 40, sure: bool, most in 50_u64..20_000,
        ) {
            let mut steps: Vec<u64> = (start..start + dense).collect();
            let mut at = start + dense;
            for gap in gaps {
                at += gap;
                steps.push(at);
            }
            let end = steps.last().map_or(0, |last| last + 1);
            let from = if sure { start } else { 0 };
            let pages = if sure { Pages::sure(from, end) } else { Pages::new(from, end) };
            let (got, _) = fetch(&steps, pages, most);
            prop_assert_eq!(got, steps);
        }
    }

    #[test]
    fn rows_that_are_far_apart_cost_few_questions() {
        let sparse: Vec<u64> = (0..5_000).map(|row| 61_010 + row * 1_000).collect();
        let (got, asked) = fetch(&sparse, Pages::new(0, 61_010 + 5_000_000), u64::MAX);
        assert!(got == sparse && asked < 30, "{asked} questions for {} rows", got.len());
        let (_, asked) = fetch(&[], Pages::new(0, 1 << 53), u64::MAX);
        assert!(asked < 60, "{asked} questions for nothing");
        let dense: Vec<u64> = (0..100_000).collect();
        let (got, asked) = fetch(&dense, Pages::new(0, 100_000), u64::MAX);
        assert!(got == dense && asked == 10, "{asked}");
    }

    #[test]
    fn the_sure_way_asks_as_the_vendor_does() {
        let mut pages = Pages::sure(5, 2_500);
        let mut asked = Vec::new();
        while let Some(ask) = pages.ask() {
            asked.push((ask.from, ask.to, ask.rows));
            assert!(pages.came(1_000));
        }
        assert_eq!(asked, [(5, 1005, 1000), (1005, 2005, 1000), (2005, 2500, 1000)]);
    }
}
