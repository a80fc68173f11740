//! Whether a curve goes on after a restart where it stood: state that was not
//! restored shows as a jump.

use std::collections::VecDeque;

use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::fit;
use crate::judge::schema::Role;
use crate::judge::track::{Following, Track};

/// Most points compared on either side, and fewest.
const MOST: usize = 60;
const FEWEST: usize = 5;
/// Jumps kept.
const KEPT: usize = 16;
/// Deviations of the difference of two medians, and the least rise, that count.
const DEVIATIONS: f64 = 5.0;
const LEAST: f64 = 0.05;

/// A restart and what stood before and after.
#[derive(Debug, Clone)]
struct Boundary {
    step: Option<u64>,
    before_step: Option<u64>,
    before: f64,
    count: usize,
    sd: f64,
    after: Vec<f64>,
}

/// A restart after which the curve stood higher.
#[derive(Debug, Clone, Copy)]
struct Jump {
    step: Option<u64>,
    before_step: Option<u64>,
    before: f64,
    after: f64,
    deviations: f64,
}

#[derive(Debug, Clone, Default)]
pub(in crate::judge) struct Watch {
    pending: Option<Boundary>,
    jumps: Vec<Jump>,
}

impl Watch {
    /// A life ends with `recent` and the next begins at `step`. Where steps are
    /// done again the same steps are compared, else the newest.
    pub(in crate::judge) fn boundary(
        &mut self,
        step: Option<u64>,
        before_step: Option<u64>,
        recent: &VecDeque<(Option<u64>, f64)>,
    ) {
        self.settle();
        let again: Vec<f64> =
            recent.iter().filter(|p| step.is_some() && p.0 >= step).map(|p| p.1).take(MOST).collect();
        let newest = || recent.iter().rev().take((recent.len() / 4).clamp(10, MOST)).map(|p| p.1).collect();
        let before: Vec<f64> = if again.len() >= 2 * FEWEST { again } else { newest() };
        let all: Vec<f64> = recent.iter().map(|p| p.1).collect();
        self.pending = (before.len() >= FEWEST).then(|| Boundary {
            step,
            before_step,
            before: fit::median_of(&before),
            count: before.len(),
            sd: fit::noise(&all).max(1e-6),
            after: Vec::new(),
        });
    }

    pub(in crate::judge) fn push(&mut self, _step: Option<u64>, y: f64) {
        let Some(boundary) = &mut self.pending else { return };
        boundary.after.push(y);
        if boundary.after.len() >= boundary.count {
            self.settle();
        }
    }

    fn settle(&mut self) {
        let jump = self.pending.take().as_ref().and_then(Boundary::jump);
        if let Some(jump) = jump.filter(|_| self.jumps.len() < KEPT) {
            self.jumps.push(jump);
        }
    }
}

impl Boundary {
    fn jump(&self) -> Option<Jump> {
        if self.after.len() < FEWEST {
            return None;
        }
        // What comes back quickly is seen best right after the restart, a small
        // jump only in many points.
        let widths = [FEWEST, 2 * FEWEST, 4 * FEWEST, self.after.len()];
        let jumps = widths.into_iter().filter(|w| *w <= self.after.len()).map(|width| {
            let after = fit::median_of(&self.after[..width]);
            let spread = 1.25 * self.sd * (1.0 / self.count as f64 + 1.0 / width as f64).sqrt();
            let deviations = (after - self.before) / spread.max(1e-9);
            Jump { step: self.step, before_step: self.before_step, before: self.before, after, deviations }
        });
        jumps.max_by(|a, b| a.deviations.total_cmp(&b.deviations)).filter(|j| j.deviations > DEVIATIONS)
    }
}

pub(in crate::judge) fn find(track: &Track, following: &Following) -> Vec<Finding> {
    if track.traits.role != Role::Loss {
        return Vec::new();
    }
    let watch = &following.resume;
    let newest = watch.pending.as_ref().and_then(Boundary::jump);
    let jumps =
        watch.jumps.iter().chain(&newest).filter(|j| following.ratio(j.after, j.before) > 1.0 + LEAST);
    jumps
        .map(|jump| {
            let (before, after) = (following.value(jump.before), following.value(jump.after));
            Finding {
                kind: Kind::ResumeJump,
                severity: Severity::Warning,
                metric: track.name.clone(),
                first_step: jump.step,
                last_step: jump.step,
                window: 2 * MOST as u64,
                threshold: DEVIATIONS,
                evidence: facts([
                    ("deviations above the level before", jump.deviations),
                    ("level before", before),
                    ("level after", after),
                    ("last step before", jump.before_step.map_or(f64::NAN, |s| s as f64)),
                ]),
                recommendation: format!(
                    "{} was {} before the restart and {} after it{}: see that optimizer, schedule, random state and place in the data are restored",
                    track.name,
                    short(before),
                    short(after),
                    at(jump.step)
                ),
            }
        })
        .collect()
}
