//! Vast.ai's published limits, kept before the vendor complains: a least
//! interval between two calls of one kind, and ten searches a minute. Pure: the
//! caller sleeps as long as it is told.

/// Kinds of calls that have limits of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Op {
    /// `POST /api/v0/bundles/`
    Search,
    /// `PUT /api/v0/asks/{id}/`
    Create,
    /// `DELETE /api/v0/instances/{id}/`
    Destroy,
    /// `GET /api/v0/instances/{id}/`
    Show,
    /// `GET /api/v1/instances/`
    List,
    /// `GET` and `POST /api/v0/ssh/`
    Keys,
    /// `GET /api/v0/charges/`
    Charges,
    /// `PUT /api/v0/instances/{id}/`
    Start,
    /// `PUT /api/v0/instances/bid_price/{id}/`
    Bid,
}

const OPS: usize = 9;
/// Searches within [`SEARCH_WINDOW_MS`] at most.
const SEARCHES: usize = 10;
const SEARCH_WINDOW_MS: u64 = 60_000;
/// Added to each published interval: two clocks and a network lie between.
const MARGIN_MS: u64 = 100;

impl Op {
    /// The published interval.
    fn interval_ms(self) -> u64 {
        match self {
            Self::Create => 4_500,
            Self::Destroy => 3_000,
            Self::Show => 2_000,
            Self::List | Self::Keys | Self::Charges | Self::Start => 1_000,
            Self::Bid => 5_500,
            Self::Search => 0,
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// What was called when, and what is therefore to be waited for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    free_ms: [u64; OPS],
    searches: Vec<u64>,
}

impl Pace {
    /// Takes the next turn of its kind and says when that is: never before
    /// `now_ms`. Turns are handed out in the order in which they are asked for.
    ///
    /// # Errors
    /// Where that is more than `most_ms` away: how far. Then no turn is taken,
    /// or those who give up and ask again would push all turns away for ever.
    pub(super) fn turn(&mut self, op: Op, now_ms: u64, most_ms: u64) -> Result<u64, u64> {
        let mut at = self.free_ms[op.index()].max(now_ms);
        if op == Op::Search {
            self.searches.retain(|then| then + SEARCH_WINDOW_MS + MARGIN_MS > now_ms);
            if let Some(oldest) = self.searches.len().checked_sub(SEARCHES) {
                at = at.max(self.searches[oldest] + SEARCH_WINDOW_MS + MARGIN_MS);
            }
        }
        if at - now_ms > most_ms {
            return Err(at - now_ms);
        }
        if op == Op::Search {
            self.searches.push(at);
        }
        self.free_ms[op.index()] = at + op.interval_ms() + if op == Op::Search { 0 } else { MARGIN_MS };
        Ok(at)
    }

    /// The vendor complained all the same: nothing of this kind for so long.
    pub(super) fn refused(&mut self, op: Op, now_ms: u64, for_ms: u64) {
        let free = &mut self.free_ms[op.index()];
        *free = (*free).max(now_ms + for_ms.max(op.interval_ms()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Op; OPS] =
        [Op::Search, Op::Create, Op::Destroy, Op::Show, Op::List, Op::Keys, Op::Charges, Op::Start, Op::Bid];

    #[test]
    fn kinds_do_not_wait_for_each_other_and_a_refusal_delays_its_own() {
        let mut pace = Pace::default();
        let mut turn = |op, now| pace.turn(op, now, 90_000).unwrap();
        assert_eq!((turn(Op::Create, 1_000), turn(Op::Show, 1_000)), (1_000, 1_000));
        assert_eq!(turn(Op::Create, 1_000), 5_600);
        pace.refused(Op::Show, 2_000, 12_000);
        let mut turn = |op, now| pace.turn(op, now, 90_000).unwrap();
        assert_eq!((turn(Op::Show, 2_000), turn(Op::List, 2_000)), (14_000, 2_000));
    }

    #[test]
    fn who_would_wait_too_long_takes_no_turn_from_those_who_come_later() {
        for op in ALL {
            let mut pace = Pace::default();
            let (mut done, mut now) = (0, 0);
            // A hundred that ask again each second until it is their turn.
            while done < 100 {
                done += (done..100).filter(|_| pace.turn(op, now, 90_000).is_ok()).count();
                now += 1_000;
                assert!(now < 1_000_000, "{op:?}: {done} after {now} ms");
            }
        }
    }

    proptest! {
        #[test]
        fn no_schedule_breaks_a_published_limit(
            calls in prop::collection::vec((0..OPS, 0_u64..3_000), 1..200),
        ) {
            let mut pace = Pace::default();
            let mut now = 0;
            let mut seen: Vec<(Op, u64)> = Vec::new();
            for (op, gap) in calls {
                now += gap;
                let Ok(at) = pace.turn(ALL[op], now, 90_000) else { continue };
                prop_assert!(at >= now && at <= now + 90_000);
                seen.push((ALL[op], at));
            }
            for op in ALL {
                let times: Vec<u64> = seen.iter().filter(|(o, _)| *o == op).map(|(_, at)| *at).collect();
                for pair in times.windows(2) {
                    prop_assert!(pair[1] >= pair[0] + op.interval_ms(), "{op:?} {pair:?}");
                }
                if op == Op::Search {
                    for eleven in times.windows(SEARCHES + 1) {
                        prop_assert!(eleven[SEARCHES] > eleven[0] + SEARCH_WINDOW_MS);
                    }
                }
            }
        }
    }
}
