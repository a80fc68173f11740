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
/// Deviations of the difference of two means that count: of one curve alone,
/// and of one where another of the same loss jumped at the same restart.
const ALONE: f64 = 4.0;
const TOGETHER: f64 = 1.65;
/// The least rise that counts, as a share.
const LEAST: f64 = 0.05;
/// Values farther than this from the middle, in deviations, count as so far.
const WILD: f64 = 3.5;

/// A restart and what stood before and after.
#[derive(Debug, Clone)]
struct Boundary {
    step: Option<u64>,
    before_step: Option<u64>,
    before: f64,
    count: usize,
    /// The values of the steps that are done again, in order; empty: none are.
    again: Vec<f64>,
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
        // Where what is held begins after the restart, it holds none of the same steps.
        let reaches = recent.front().is_some_and(|p| p.0 <= step);
        let again: Vec<f64> = recent
            .iter()
            .filter(|p| reaches && step.is_some() && p.0 >= step)
            .map(|p| p.1)
            .take(MOST)
            .collect();
        let newest = || recent.iter().rev().take((recent.len() / 4).clamp(10, MOST)).map(|p| p.1).collect();
        let again = if again.len() >= 2 * FEWEST { again } else { Vec::new() };
        let before: Vec<f64> = if again.is_empty() { newest() } else { again.clone() };
        let all: Vec<f64> = recent.iter().map(|p| p.1).collect();
        self.pending = (before.len() >= FEWEST).then(|| Boundary {
            step,
            before_step,
            before: tame_mean(&before, fit::noise(&all).max(1e-6)),
            count: before.len(),
            again,
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
        let Some(jump) = jump else { return };
        if self.jumps.len() < KEPT {
            self.jumps.push(jump);
        } else if let Some(weakest) = self
            .jumps
            .iter_mut()
            .min_by(|a, b| a.deviations.total_cmp(&b.deviations))
            .filter(|w| w.deviations < jump.deviations)
        {
            *weakest = jump;
        }
    }
}

impl Watch {
    /// Forgets jumps at `from` or after: those lives are void too.
    pub(in crate::judge) fn void(&mut self, from: u64) {
        self.jumps.retain(|j| j.step.is_none_or(|step| step < from));
        self.pending = self.pending.take().filter(|p| p.step.is_none_or(|step| step < from));
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
            let after = tame_mean(&self.after[..width], self.sd);
            // The same steps on both sides: a curve that falls is not higher for being earlier.
            let same = self.again.get(..width);
            let before = same.map_or(self.before, |same| tame_mean(same, self.sd));
            let count = same.map_or(self.count, <[f64]>::len);
            let spread = self.sd * (1.0 / count as f64 + 1.0 / width as f64).sqrt();
            let deviations = (after - before) / spread.max(1e-9);
            Jump { step: self.step, before_step: self.before_step, before, after, deviations }
        });
        jumps.max_by(|a, b| a.deviations.total_cmp(&b.deviations)).filter(|j| j.deviations > TOGETHER)
    }
}

/// Mean of values of which none may pull farther than [`WILD`] deviations.
fn tame_mean(values: &[f64], sd: f64) -> f64 {
    let middle = fit::median_of(values);
    let tamed = values.iter().map(|v| v.clamp(middle - WILD * sd, middle + WILD * sd));
    tamed.sum::<f64>() / values.len().max(1) as f64
}

impl Watch {
    /// Whether there was a restart after which it may have jumped.
    pub(in crate::judge) fn jumped(&self) -> bool {
        !self.jumps.is_empty() || self.pending.is_some()
    }

    fn all(&self, following: &Following) -> impl Iterator<Item = Jump> {
        let newest = self.pending.as_ref().and_then(Boundary::jump);
        let worth = |j: &Jump| following.ratio(j.after, j.before) > 1.0 + LEAST;
        self.jumps.iter().copied().chain(newest).filter(worth)
    }
}

/// Restarts at which `track` jumped beyond doubt: the last step that may be the
/// first of the new life, and the one before which it cannot be.
pub(in crate::judge) fn certain(track: &Track) -> Vec<(u64, u64)> {
    let Some(following) = track.following.as_ref().filter(|_| track.traits.role == Role::Loss) else {
        return Vec::new();
    };
    let run = track.last_step.zip(track.first_step).map_or(0, |(last, first)| last.saturating_sub(first));
    let each = run.div_ceil(track.count.saturating_sub(1).max(1));
    let jumps = following.resume.all(following).filter(|j| j.deviations > ALONE);
    jumps.filter_map(|j| Some((j.step?, j.step?.saturating_sub(each)))).collect()
}

/// `others` is what [`certain`] says of other curves of the same loss.
pub(in crate::judge) fn find(track: &Track, following: &Following, others: &[(u64, u64)]) -> Vec<Finding> {
    if track.traits.role != Role::Loss {
        return Vec::new();
    }
    let both =
        |j: &Jump| j.step.is_some_and(|s| others.iter().any(|(last, first)| (*first..=*last).contains(&s)));
    let jumps = following.resume.all(following).filter(|j| j.deviations > ALONE || both(j));
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
                threshold: if jump.deviations > ALONE { ALONE } else { TOGETHER },
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
