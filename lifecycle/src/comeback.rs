//! A machine that stopped while its run still needs it, with its disk as it
//! was: whether it is asked to go on, with a higher bid where it was outbid, or
//! left for another one. What waiting for it costs is compared with what
//! another machine costs and the steps that would be done again there. Pure;
//! never above the ceiling, and never for ever.

use crate::spec::WhenStopped;

/// From the first sight of its stop a machine has so long to be back.
pub const PATIENCE_MS: u64 = 180_000;
/// A bid that has not won after this does not win; the next one is higher.
const RUNG_MS: u64 = 30_000;
/// Each bid is so much above the last one, and above what is said to win.
const RAISE: f64 = 1.25;
const ABOVE: f64 = 1.1;
/// A machine that stops more often is no machine to come back to.
const EVER: u32 = 6;

/// What is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stop {
    /// What was bid last, US dollars an hour beside the disk; `None`: its price
    /// is fixed.
    pub bid_usd: Option<f64>,
    /// What its provider says would win.
    pub winning_usd: Option<f64>,
    /// An hour of it at a fixed price, its disk included.
    pub price_usd: f64,
    /// An hour of its disk.
    pub disk_usd: f64,
    /// The most that an hour may cost, disk included.
    pub ceiling_usd: f64,
    /// Since its stop was first seen.
    pub stopped_for_ms: u64,
    /// Since it was last asked to go on; `None`: not yet since this stop.
    pub asked_ago_ms: Option<u64>,
    /// How often it was asked in its life.
    pub ever: u32,
    /// Until the program works again here, once it may.
    pub here_ms: u64,
    /// Work that is done again here, and on another machine.
    pub repeat_here_ms: u64,
    /// See [`Stop::repeat_here_ms`].
    pub repeat_there_ms: u64,
    /// Until the program works on another machine.
    pub there_ms: u64,
    /// An hour of the best other machine; `None`: there is none, or that is not
    /// known.
    pub elsewhere_usd: Option<f64>,
    /// Work that is left, as far as is known.
    pub left_ms: u64,
    /// What its run wishes.
    pub wish: WhenStopped,
    /// Whether other machines could be looked for: without an answer none is
    /// known to be dearer, and it is asked once at most.
    pub looked_elsewhere: bool,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// It is asked to go on; with this bid where it was outbid.
    Ask {
        /// US dollars an hour beside the disk.
        bid_usd: Option<f64>,
    },
    /// It was asked and has its time.
    Wait,
    /// It is lost, for this reason.
    Leave(&'static str),
}

/// Chooses.
#[must_use]
pub fn choose(stop: &Stop) -> Choice {
    if stop.wish == WhenStopped::Leave {
        return Choice::Leave("its run does not wait for machines that have stopped");
    }
    if stop.stopped_for_ms >= PATIENCE_MS {
        return Choice::Leave("it did not come back in time");
    }
    if stop.ever >= EVER {
        return Choice::Leave("it has stopped too often");
    }
    let (next, hourly) = match (stop.bid_usd, stop.asked_ago_ms) {
        (_, Some(ago)) if ago < RUNG_MS => return Choice::Wait,
        // A fixed price is asked for once.
        (None, Some(_)) => return Choice::Wait,
        (None, None) => (None, stop.price_usd),
        // What has won already is on its way up.
        (Some(bid), Some(_)) if stop.winning_usd.is_some_and(|wins| wins < bid) => return Choice::Wait,
        (Some(_), Some(_)) if !stop.looked_elsewhere => return Choice::Wait,
        (Some(bid), _) => match raised(stop, bid) {
            Some(next) => (Some(next), next + stop.disk_usd),
            None => return Choice::Leave("what would win is above the ceiling"),
        },
    };
    if !hourly.is_finite() || hourly > stop.ceiling_usd * 1.000_001 {
        return Choice::Leave("it is dearer than the ceiling");
    }
    let cost =
        |usd: f64, ms: u64, again: u64| usd * hours(ms.saturating_add(again).saturating_add(stop.left_ms));
    let here = cost(hourly, stop.here_ms, stop.repeat_here_ms);
    let there = stop.elsewhere_usd.map(|usd| cost(usd, stop.there_ms, stop.repeat_there_ms));
    match there {
        Some(there) if stop.wish == WhenStopped::Decide && there < here => {
            Choice::Leave("another machine is cheaper than the wait and the higher price")
        }
        _ => Choice::Ask { bid_usd: next },
    }
}

/// The next bid, at the ceiling at most; `None`: there is none that is higher.
fn raised(stop: &Stop, bid: f64) -> Option<f64> {
    let most = stop.ceiling_usd - stop.disk_usd;
    let wins = stop.winning_usd.filter(|usd| usd.is_finite()).map_or(0.0, |usd| usd * ABOVE);
    if stop.winning_usd.is_some_and(|usd| usd > most) {
        return None;
    }
    let next = (bid * RAISE).max(wins);
    // The vendor counts tenths of a cent.
    let next = (next.min(most) * 1_000.0).floor() / 1_000.0;
    (next.is_finite() && next > bid && next > 0.0).then_some(next)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of years fit")]
fn hours(ms: u64) -> f64 {
    ms as f64 / 3_600_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OUTBID: Stop = Stop {
        bid_usd: Some(0.2),
        winning_usd: None,
        price_usd: 0.0,
        disk_usd: 0.01,
        ceiling_usd: 0.5,
        stopped_for_ms: 1_000,
        asked_ago_ms: None,
        ever: 0,
        here_ms: 60_000,
        repeat_here_ms: 0,
        repeat_there_ms: 600_000,
        there_ms: 300_000,
        elsewhere_usd: Some(0.22),
        left_ms: 3_600_000,
        wish: WhenStopped::Decide,
        looked_elsewhere: true,
    };

    #[test]
    fn the_steps_that_would_be_repeated_are_weighed_against_the_higher_price() {
        // 0.26 x 61 min against 0.22 x 75 min.
        assert_eq!(choose(&OUTBID), Choice::Ask { bid_usd: Some(0.25) });
        // Nothing to repeat: 0.26 x 61 min against 0.22 x 65 min.
        let saved = Stop { repeat_there_ms: 0, ..OUTBID };
        assert!(matches!(choose(&saved), Choice::Leave(why) if why.contains("cheaper")));
        assert_eq!(choose(&Stop { wish: WhenStopped::Return, ..saved }), Choice::Ask { bid_usd: Some(0.25) });
        assert!(matches!(choose(&Stop { wish: WhenStopped::Leave, ..OUTBID }), Choice::Leave(_)));
        // A long way to go makes the price weigh more.
        assert!(matches!(choose(&Stop { left_ms: 360_000_000, ..OUTBID }), Choice::Leave(_)));
        // There is no other machine.
        assert_eq!(choose(&Stop { elsewhere_usd: None, ..saved }), Choice::Ask { bid_usd: Some(0.25) });
    }

    #[test]
    fn bids_rise_rung_by_rung_to_the_ceiling_and_no_further() {
        let mut stop = Stop { elsewhere_usd: None, ..OUTBID };
        let mut bids = Vec::new();
        while let Choice::Ask { bid_usd: Some(bid) } = choose(&stop) {
            bids.push(bid);
            stop = Stop { bid_usd: Some(bid), asked_ago_ms: Some(0), ever: stop.ever + 1, ..stop };
            assert_eq!(choose(&stop), Choice::Wait, "it has its time first");
            stop =
                Stop { asked_ago_ms: Some(RUNG_MS), stopped_for_ms: stop.stopped_for_ms + RUNG_MS, ..stop };
        }
        assert_eq!(bids, [0.25, 0.312, 0.39, 0.487, 0.49]);
        assert!(
            matches!(choose(&stop), Choice::Leave(why) if why.contains("ceiling")),
            "{:?}",
            choose(&stop)
        );
        // What is said to win is outbid at once, if it may be.
        let told = Stop { winning_usd: Some(0.3), ..OUTBID };
        assert_eq!(choose(&Stop { elsewhere_usd: None, ..told }), Choice::Ask { bid_usd: Some(0.33) });
        let high = Stop { winning_usd: Some(0.6), elsewhere_usd: None, ..OUTBID };
        assert!(
            matches!(choose(&high), Choice::Leave(why) if why.contains("ceiling")),
            "it would be in vain"
        );
        let won = Stop {
            bid_usd: Some(0.25),
            winning_usd: Some(0.2),
            asked_ago_ms: Some(RUNG_MS),
            ever: 1,
            ..OUTBID
        };
        assert_eq!(choose(&won), Choice::Wait, "it has won and starts");
        let blind = Stop { elsewhere_usd: None, looked_elsewhere: false, ..OUTBID };
        assert_eq!(choose(&blind), Choice::Ask { bid_usd: Some(0.25) });
        let again = Stop { bid_usd: Some(0.25), asked_ago_ms: Some(RUNG_MS), ever: 1, ..blind };
        assert_eq!(choose(&again), Choice::Wait, "once, while nobody says what others cost");
    }

    #[test]
    fn a_fixed_price_is_asked_for_once() {
        let stop = Stop { bid_usd: None, price_usd: 0.3, elsewhere_usd: Some(0.3), ..OUTBID };
        assert_eq!(choose(&stop), Choice::Ask { bid_usd: None });
        assert_eq!(choose(&Stop { asked_ago_ms: Some(100_000), ever: 1, ..stop }), Choice::Wait);
        let late = Stop { stopped_for_ms: PATIENCE_MS, asked_ago_ms: Some(170_000), ever: 1, ..stop };
        assert!(matches!(choose(&late), Choice::Leave(_)));
        assert!(matches!(choose(&Stop { price_usd: 0.6, ..stop }), Choice::Leave(_)));
        assert!(matches!(choose(&Stop { ever: EVER, ..stop }), Choice::Leave(_)));
    }

    proptest! {
        #[test]
        fn no_bid_is_above_the_ceiling_or_below_the_last(
            bid in 0.001f64..5.0, winning in proptest::option::of(-1.0f64..50.0), disk in 0.0f64..0.5,
            ceiling in 0.01f64..6.0, left in 0u64..1_000_000_000, elsewhere in proptest::option::of(0.0f64..9.0),
        ) {
            let stop = Stop { bid_usd: Some(bid), winning_usd: winning, disk_usd: disk, ceiling_usd: ceiling,
                left_ms: left, elsewhere_usd: elsewhere, ..OUTBID };
            if let Choice::Ask { bid_usd } = choose(&stop) {
                let next = bid_usd.unwrap();
                prop_assert!(next > bid && next + disk <= ceiling + 1e-6, "{stop:?} {next}");
                prop_assert!(winning.is_none_or(|wins| wins <= ceiling - disk + 1e-6), "{stop:?} {next}");
            }
        }
    }
}
