//! Whether the learning rate goes on after a restart where its schedule stood. A rate has no noise:
//! another one at the same step means that the schedule began anew, or was changed.
//!
//! Nothing is said where the schedule itself may have moved so far between two values, nor of a
//! single odd value.

use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::sketch::{Bucket, NO_STEP, Sketch};
use crate::judge::track::Track;

/// Values after a restart that must all be off.
const AFTER: usize = 3;
/// Fewest values before a restart.
const FEWEST: u64 = 3;
/// Times what was expected, or the part of it, that is another rate.
const OFF: f64 = 2.0;
/// A rate below this share of the highest had run out: another one is a plan for more steps.
const RUN_OUT: f64 = 0.01;
/// Restarts kept.
const KEPT: usize = 16;

/// The name of a number that only this detector gives.
pub(in crate::judge) const RATE_EXPECTED: &str = "learning rate expected there";

type Point = (Option<u64>, f64);

/// The newest two rates, and what followed the last restart.
#[derive(Debug, Clone, Default)]
pub(in crate::judge) struct Watch {
    newest: Option<(Point, Point)>,
    highest: f64,
    pending: Option<Restart>,
    found: Vec<Jump>,
}

#[derive(Debug, Clone)]
struct Restart {
    before: Vec<Bucket>,
    newest: (Point, Point),
    highest: f64,
    jump: Option<Jump>,
    off: usize,
}

/// The first value after a restart, and the one that was expected there.
#[derive(Debug, Clone, Copy)]
struct Jump {
    step: Option<u64>,
    expected: f64,
    now: f64,
}

impl Watch {
    /// A life ended, of which `before` is held; the next value begins another.
    pub(in crate::judge) fn boundary(&mut self, before: &Sketch) {
        let newest = self.newest.take().filter(|_| before.count() >= FEWEST);
        self.pending = newest.map(|newest| Restart {
            before: before.buckets().to_vec(),
            newest,
            highest: self.highest,
            jump: None,
            off: 0,
        });
    }

    pub(in crate::judge) fn push(&mut self, step: Option<u64>, value: f64) {
        if let Some(restart) = &mut self.pending {
            match restart.off(step, value) {
                Some(expected) => {
                    restart.jump = restart.jump.or(Some(Jump { step, expected, now: value }));
                    restart.off += 1;
                }
                None => self.pending = None,
            }
        }
        if let Some(jump) = self.pending.take_if(|r| r.off >= AFTER).and_then(|r| r.jump)
            && self.found.len() < KEPT
        {
            self.found.push(jump);
        }
        self.highest = self.highest.max(value);
        let last = self.newest.map_or((step, value), |(_, last)| last);
        self.newest = Some((last, (step, value)));
    }

    /// A resume made the rows at `from` or after void: they are what its first rates are held against.
    pub(in crate::judge) fn void(&mut self, from: u64, before: &Sketch) {
        self.found.retain(|j| j.step.is_none_or(|step| step < from));
        self.boundary(before);
    }
}

impl Restart {
    /// What the rate should have been at `step`, where it is far from that.
    fn off(&self, step: Option<u64>, value: f64) -> Option<f64> {
        let (low, high, expected) = self.expected(step)?;
        let known = high > RUN_OUT * self.highest;
        (known && (value > OFF * high || value * OFF < low)).then_some(expected)
    }

    /// The lowest and highest rate that the schedule may have at `step`, and the likeliest: as it was there,
    /// or as the last two rates would go on.
    fn expected(&self, step: Option<u64>) -> Option<(f64, f64, f64)> {
        let later = |b: &Bucket| step.is_some_and(|s| b.last_step != NO_STEP && b.last_step >= s);
        if let Some(at) = self.before.iter().position(later) {
            let there = &self.before[at];
            // Between two of them it may be as either.
            let earlier =
                if step < Some(there.first_step) { self.before.get(at.checked_sub(1)?)? } else { there };
            return Some((there.min.min(earlier.min), there.max.max(earlier.max), there.level(false)));
        }
        let ((from, a), (to, b)) = self.newest;
        let gone = match (from, to, step) {
            (Some(from), Some(to), Some(step)) if to > from => {
                step.saturating_sub(to) as f64 / (to - from) as f64
            }
            _ => 1.0,
        };
        let next = (b + (b - a) * gone).max(0.0);
        Some((b.min(next), b.max(next), b))
    }
}

pub(in crate::judge) fn find(track: &Track) -> Vec<Finding> {
    let Some(watch) = track.schedule.as_ref().filter(|_| track.knobs.sensitivity > 0.0) else {
        return Vec::new();
    };
    let told = |jump: &Jump| Finding {
        kind: Kind::ResumeJump,
        severity: Severity::Warning,
        metric: track.name.clone(),
        first_step: jump.step,
        last_step: jump.step,
        window: AFTER as u64,
        threshold: OFF,
        evidence: facts([("learning rate after the restart", jump.now), (RATE_EXPECTED, jump.expected)]),
        recommendation: format!(
            "{} was {} after the restart{}, where {} was due: unless that is meant, the schedule began anew; restore it, and the optimizer with it, from the checkpoint",
            track.name,
            short(jump.now),
            at(jump.step),
            short(jump.expected)
        ),
    };
    watch.found.iter().map(told).collect()
}
