//! Spikes, and gradients that explode: Rule S, a one-sided CUSUM of robust z
//! scores, and beside it a bound for single values, which a capped sum cannot
//! see.
//!
//! While a spike lasts, level and noise are those from before it.

use std::collections::VecDeque;

use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::schema::Role;
use crate::judge::track::{Following, Track};
use crate::judge::window::Sight;

/// Slack and threshold of the CUSUM, and the cap of one z (measured on ten
/// per-step curves: no false alarm in 60,000 steps).
const SLACK: f64 = 1.0;
const THRESHOLD: f64 = 12.0;
const CAP: f64 = 8.0;
/// One value so many deviations up is a spike by itself.
const SINGLE: f64 = 8.0;
/// Spikes kept with their steps; more are counted.
const KEPT: usize = 32;
/// Points after which a spike is a new level: so many, or a tenth of the run.
const LONGEST: u64 = 200;

/// What the follower of level and noise does with the point just judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::judge) enum Follow {
    /// Take it in.
    On,
    /// Stay as it is: a spike lasts.
    Hold,
    /// Start anew: the level moved.
    Anew,
}

/// How a spike ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::judge) enum End {
    Lasts,
    Recovered,
    Moved,
}

/// One excursion.
#[derive(Debug, Clone)]
pub(in crate::judge) struct Spike {
    pub(in crate::judge) first: Option<u64>,
    /// The last step at which it was more than two deviations up.
    pub(in crate::judge) last: Option<u64>,
    pub(in crate::judge) peak_step: Option<u64>,
    pub(in crate::judge) peak: f64,
    pub(in crate::judge) expected: f64,
    pub(in crate::judge) sd: f64,
    pub(in crate::judge) points: u64,
    pub(in crate::judge) end: End,
    /// The points since the one before it: their number when it began.
    began: u64,
    tail: VecDeque<f64>,
}

/// The state between points.
#[derive(Debug, Clone, Default)]
pub(in crate::judge) struct Watch {
    sum: f64,
    /// First point of the present climb of the sum, and of the present row of
    /// high values.
    climb: Option<(Option<u64>, u64)>,
    high: Option<(Option<u64>, u64)>,
    open: Option<Spike>,
    done: Vec<Spike>,
    more: u64,
}

impl Watch {
    /// Judges one value; `alarm` scales the thresholds.
    pub(in crate::judge) fn push(
        &mut self,
        step: Option<u64>,
        y: f64,
        sight: Option<Sight>,
        seen: u64,
        alarm: f64,
    ) -> Follow {
        if self.open.is_some() {
            return self.go_on(step, y, seen);
        }
        let Some(sight) = sight else { return Follow::On };
        if self.sum <= 0.0 {
            self.climb = Some((step, seen));
        }
        if sight.z > SINGLE / 2.0 {
            self.high = self.high.or(Some((step, seen)));
        } else {
            self.high = None;
        }
        self.sum = (self.sum + sight.z.min(CAP) - SLACK).max(0.0);
        let single = sight.z > SINGLE * alarm;
        if !single && self.sum <= THRESHOLD * alarm {
            return Follow::On;
        }
        // A row of high values dates a spike better than the sum, which may
        // have begun to climb with the noise before it.
        let began = if self.high.is_some() { self.high } else { self.climb };
        let (first, at) = began.unwrap_or((step, seen));
        self.sum = 0.0;
        self.high = None;
        self.open = Some(Spike {
            first,
            last: step,
            peak_step: step,
            peak: y,
            expected: sight.expected,
            sd: sight.sd,
            points: (seen + 1).saturating_sub(at),
            end: End::Lasts,
            began: at,
            tail: VecDeque::from([y]),
        });
        Follow::Hold
    }

    fn go_on(&mut self, step: Option<u64>, y: f64, seen: u64) -> Follow {
        let Some(spike) = &mut self.open else { return Follow::On };
        if y > spike.peak {
            (spike.peak, spike.peak_step) = (y, step);
        }
        if y > spike.expected + 2.0 * spike.sd {
            spike.last = step;
            spike.points = (seen + 1).saturating_sub(spike.began);
        }
        if spike.tail.len() == 5 {
            spike.tail.pop_front();
        }
        spike.tail.push_back(y);
        let tail: Vec<f64> = spike.tail.iter().copied().collect();
        if tail.len() >= 3 && crate::judge::fit::median_of(&tail) <= spike.expected + spike.sd {
            self.close(End::Recovered);
            return Follow::On;
        }
        // Rows may have become void since: then fewer were seen than before.
        if seen.saturating_sub(spike.began) > LONGEST.max(spike.began / 10) {
            self.close(End::Moved);
            return Follow::Anew;
        }
        Follow::Hold
    }

    fn close(&mut self, end: End) {
        let Some(mut spike) = self.open.take() else { return };
        spike.end = end;
        spike.tail.clear();
        spike.tail.shrink_to_fit();
        if self.done.len() < KEPT {
            self.done.push(spike);
        } else {
            self.more += 1;
        }
    }

    /// Forgets what lasts: the scale has changed.
    pub(in crate::judge) fn abandon(&mut self) {
        self.open = None;
        self.sum = 0.0;
        self.high = None;
    }

    /// Forgets what began at `from` or after.
    pub(in crate::judge) fn void(&mut self, from: u64) {
        self.done.retain(|s| s.first.is_none_or(|first| first < from));
        self.open = self.open.take().filter(|s| s.first.is_none_or(|first| first < from));
        (self.sum, self.climb, self.high) = (0.0, None, None);
    }

    /// All spikes, the one that lasts at the end.
    pub(in crate::judge) fn spikes(&self) -> impl Iterator<Item = &Spike> {
        self.done.iter().chain(&self.open)
    }

    /// The one that lasts.
    pub(in crate::judge) fn open(&self) -> Option<&Spike> {
        self.open.as_ref()
    }
}

/// Spikes of one metric, as findings. A gradient norm that was ten times its
/// level for three points, or a hundred times once, exploded.
pub(in crate::judge) fn find(track: &Track) -> Vec<Finding> {
    let Some(following) = &track.following else { return Vec::new() };
    let gradient = track.traits.role == Role::GradientNorm;
    let least = if gradient { 2.0 } else { 1.1 };
    // A norm that was nothing has no size to be a multiple of.
    let sized = |s: &&Spike| !gradient || following.value(s.expected) > 0.0;
    let higher = |s: &&Spike| following.ratio(s.peak, s.expected) >= least;
    following
        .spike
        .spikes()
        .filter(sized)
        .filter(higher)
        .map(|spike| finding(track, following, spike, gradient))
        .collect()
}

fn finding(track: &Track, following: &Following, spike: &Spike, gradient: bool) -> Finding {
    let ratio = following.ratio(spike.peak, spike.expected);
    let exploded = gradient && ((ratio >= 10.0 && spike.points >= 3) || ratio >= 100.0);
    let recovered = spike.end == End::Recovered;
    let severity = match (recovered, exploded) {
        (false, true) => Severity::Critical,
        (true, false) => Severity::Note,
        _ => Severity::Warning,
    };
    let (peak, expected) = (following.value(spike.peak), following.value(spike.expected));
    let rose = format!(
        "{} rose from {} to {}{} ({}x)",
        track.name,
        short(expected),
        short(peak),
        at(spike.peak_step),
        short(ratio)
    );
    let recommendation = match (exploded, recovered) {
        (true, _) => format!(
            "{rose}: clip the gradient norm near {}, or lower the learning rate",
            short(2.0 * expected)
        ),
        (false, true) => format!(
            "{rose} and came back after {} points: look at the batches there; nothing else need be done",
            spike.points
        ),
        (false, false) => format!(
            "{rose} and has not come back for {} points: if it stays, go on from a checkpoint before{} and skip those batches",
            spike.points,
            at(spike.first).replace(" at", "")
        ),
    };
    Finding {
        kind: if exploded { Kind::GradientExplosion } else { Kind::Spike },
        severity,
        metric: track.name.clone(),
        first_step: spike.first,
        last_step: if recovered { spike.last } else { None },
        window: track.count.min(crate::judge::window::WIDEST as u64),
        threshold: if exploded { 10.0 } else { SINGLE },
        evidence: facts([
            if exploded {
                ("times its level", ratio)
            } else {
                ("deviations above its level", (spike.peak - spike.expected) / spike.sd)
            },
            ("peak", peak),
            ("level before", expected),
            ("times the level", ratio),
            ("points", spike.points as f64),
            ("spikes not kept", following.spike.more as f64),
        ]),
        recommendation,
    }
}
