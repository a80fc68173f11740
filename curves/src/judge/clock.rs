//! How fast a run moves, from the times of its points.

use std::collections::VecDeque;

use super::sketch::Sketch;
use super::window::{SortedWindow, WIDEST};

/// Pauses shorter than this are none, whatever the pace: seconds.
pub(super) const SHORTEST: f64 = 30.0;
/// Stalls kept.
const KEPT: usize = 16;
/// Newest (time, step) pairs kept for the pace.
const PAIRS: usize = crate::MAX_SAMPLES;

/// A pause between two steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    /// The step after which nothing came, and the one that ended it.
    pub(super) from: Option<u64>,
    pub(super) to: Option<u64>,
    pub(super) seconds: f64,
    pub(super) usual: f64,
    pub(super) threshold: f64,
}

/// Times and steps of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    newest: Option<(f64, Option<u64>)>,
    gaps: SortedWindow,
    evaluations: SortedWindow,
    /// The longest gaps so far, longest first.
    longest: Vec<f64>,
    /// Seconds of each step.
    pub(super) pace: Sketch,
    /// Newest times in milliseconds, and steps.
    pub(super) pairs: VecDeque<(u64, u64)>,
    pub(super) stalls: Vec<Pause>,
    pub(super) started: Option<f64>,
}

impl Clock {
    /// A point at `time` seconds. `validation`: it belongs to an evaluation,
    /// whose time is not that of a step.
    pub(super) fn push(&mut self, step: Option<u64>, time: f64, validation: bool) {
        if !time.is_finite() {
            return;
        }
        self.started = self.started.or(Some(time));
        let Some((before, last)) = self.newest else {
            self.newest = Some((time, step));
            self.keep(time, step);
            return;
        };
        let same = match (step, last) {
            (Some(step), Some(last)) => step == last,
            _ => time == before,
        };
        if time < before || step.zip(last).is_some_and(|(s, l)| s < l) {
            self.newest = Some((time, step));
            return;
        }
        if same {
            // What comes later under the same step is part of it, and if it is
            // of an evaluation, the time it took.
            if validation {
                self.evaluations.push(time - before, WIDEST);
                self.newest = Some((time, step));
            }
            return;
        }
        self.step(step, time, (before, last), validation);
        self.newest = Some((time, step));
        self.keep(time, step);
    }

    fn step(&mut self, step: Option<u64>, time: f64, (before, last): (f64, Option<u64>), validation: bool) {
        let gap = time - before;
        let steps = step.zip(last).map_or(1, |(s, l)| (s - l).max(1));
        let (threshold, usual) = self.threshold();
        let evaluated =
            validation && (self.evaluations.len() < 3 || gap < 3.0 * self.evaluations.quantile(0.9));
        if gap > threshold && self.gaps.len() >= 10 && !evaluated {
            if self.stalls.len() < KEPT {
                self.stalls.push(Pause { from: last, to: step, seconds: gap, usual, threshold });
            }
        } else if gap > 0.0 {
            self.pace.push(step, gap / steps as f64);
        }
        if validation {
            self.evaluations.push(gap, WIDEST);
        }
        self.gaps.push(gap, WIDEST);
        let at = self.longest.partition_point(|g| *g > gap);
        self.longest.insert(at, gap);
        self.longest.truncate(3);
    }

    /// Above how many seconds a pause is a stall, and how long one usually is.
    /// Pauses that came three times already are part of the run.
    pub(super) fn threshold(&self) -> (f64, f64) {
        let usual = self.gaps.median();
        let recurring = if self.longest.len() == 3 { self.longest[2] } else { 0.0 };
        let p99 = self.gaps.quantile(0.98);
        (SHORTEST.max(10.0 * usual).max(3.0 * p99).max(2.0 * recurring), usual)
    }

    /// The pause that lasts at `now`, if it is a stall.
    pub(super) fn stalled(&self, now: f64) -> Option<Pause> {
        let (time, step) = self.newest?;
        let (threshold, usual) = self.threshold();
        let seconds = now - time;
        (self.gaps.len() >= 10 && seconds > threshold).then_some(Pause {
            from: step,
            to: None,
            seconds,
            usual,
            threshold,
        })
    }

    /// The run was resumed: the time between its lives is no step.
    pub(super) fn segment(&mut self) {
        self.newest = None;
    }

    /// Forgets stalls and paces of steps at `from` or after.
    pub(super) fn void(&mut self, from: u64) {
        self.stalls.retain(|s| s.from.is_none_or(|step| step < from));
        self.pace.void(from);
        self.pairs.retain(|pair| pair.1 < from);
    }

    fn keep(&mut self, time: f64, step: Option<u64>) {
        let Some(step) = step else { return };
        if self.pairs.len() == PAIRS {
            self.pairs.pop_front();
        }
        self.pairs.push_back(((time * 1000.0).clamp(0.0, 9e15) as u64, step));
    }
}
