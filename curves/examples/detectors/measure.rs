//! Precision, recall and step error of every detector on the corpus.

use std::collections::BTreeMap;

use curves::judge::{Finding, Judge, Kind, Settings};

use crate::corpus::{Plan, SHAPES, Truth, play};

/// What was counted of one kind, at one noise and length.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    pub(crate) planted: u32,
    pub(crate) found: u32,
    /// Found within 1 % of the run, or one value of the metric, of its step.
    pub(crate) placed: u32,
    /// Distances from the true step, as shares of the run.
    pub(crate) errors: Vec<f64>,
    /// Found where nothing of the kind was planted.
    pub(crate) false_alarms: u32,
}

/// Counts by noise, length and kind, and healthy runs by noise and length.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) cells: BTreeMap<(u64, u64, Kind), Cell>,
    /// (noise, length, whether the loss is smoothed): healthy runs, those with an alarm.
    pub(crate) healthy: BTreeMap<(u64, u64, bool), (u32, u32)>,
    /// The first of them, to be looked at.
    pub(crate) examples: Vec<String>,
}

/// Noise as a key: thousandths.
pub(crate) fn key(sigma: f64) -> u64 {
    (sigma * 1000.0).round() as u64
}

/// A finding that is no mistake in a run: what was planted, or what is true of
/// the curve without noise.
fn right(finding: &Finding, truth: &Truth) -> bool {
    if truth.allows(finding.kind) {
        return true;
    }
    if finding.kind != Kind::Plateau {
        return false;
    }
    // Flat means: of the whole gain, in logarithms, at most a tenth came
    // after the step named, give or take the 1 % that a step may be off.
    let Some(first) = finding.first_step else { return false };
    let at = |step: usize| f64::from(truth.clean[step.min(truth.clean.len() - 1)]).ln();
    let low = truth.clean.iter().map(|v| f64::from(*v).ln()).fold(f64::MAX, f64::min);
    let high = truth.clean.iter().map(|v| f64::from(*v).ln()).fold(f64::MIN, f64::max);
    at(first as usize + truth.clean.len() / 100) - low <= 0.1 * (high - low).max(1e-9)
}

/// A rate that is so low that the fall drowns in noise is told as no learning.
fn same(found: Kind, planted: Kind) -> bool {
    found == planted || planted == Kind::LearningRateTooLow && found == Kind::NotLearning
}

/// Plays one run and counts what is said of it.
pub(crate) fn measure(plan: &Plan, tally: &mut Tally) {
    let mut judge = Judge::new(Settings { planned_steps: Some(plan.steps), ..Settings::default() });
    let truth = play(plan, &mut judge);
    let report = judge.report();
    let place = (key(plan.sigma), plan.steps);
    let wrong: Vec<&Finding> = report.findings.iter().filter(|f| !right(f, &truth)).collect();
    // What smoothed losses are taken for is counted apart.
    for finding in wrong.iter().filter(|_| plan.memory == 0.0) {
        tally.cells.entry((place.0, place.1, finding.kind)).or_default().false_alarms += 1;
    }
    if !wrong.is_empty() && tally.examples.len() < 4000 {
        let told: Vec<String> = wrong
            .iter()
            .map(|f| {
                format!(
                    "{} {} {:?} {:?}",
                    f.kind.name(),
                    f.metric,
                    f.first_step,
                    f.evidence.iter().map(|e| e.value).collect::<Vec<_>>()
                )
            })
            .collect();
        tally.examples.push(format!("wrong {plan:?} truth {}: {}", truth.step, told.join("; ")));
    }
    let Some(kind) = plan.fault else {
        let healthy = tally.healthy.entry((place.0, place.1, plan.memory > 0.0)).or_default();
        healthy.0 += 1;
        healthy.1 += u32::from(!wrong.is_empty());
        return;
    };
    let n = plan.steps as f64;
    let off = |f: &Finding| f.first_step.map_or(f64::MAX, |s| s.abs_diff(truth.step) as f64);
    let hits = report.findings.iter().filter(|f| {
        same(f.kind, kind) && (truth.metrics.is_empty() || truth.metrics.contains(&f.metric.as_str()))
    });
    let nearest = hits.map(off).min_by(f64::total_cmp);
    let cell = tally.cells.entry((place.0, place.1, kind)).or_default();
    cell.planted += 1;
    let allowed = (0.01 * n).max(truth.interval as f64);
    if let Some(off) = nearest {
        cell.found += 1;
        cell.placed += u32::from(off <= allowed);
        cell.errors.push(off / n);
    }
    if nearest.is_none_or(|off| off > allowed) && tally.examples.len() < 4000 {
        let told: Vec<String> = report
            .findings
            .iter()
            .map(|f| format!("{} {} {:?}", f.kind.name(), f.metric, f.first_step))
            .collect();
        tally.examples.push(format!("missed {plan:?} truth {}: {}", truth.step, told.join("; ")));
    }
}

/// How much of its noise a smoothed loss keeps.
const MEMORIES: [f64; 3] = [0.7, 0.9, 0.95];

/// Kinds that are planted: loss scales are logged in half of the runs only, and
/// then every run is made such.
pub(crate) fn plans(steps: u64, sigma: f64, of_each: u64, seed: u64) -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut next = seed.wrapping_mul(1_000_003) ^ steps ^ (key(sigma) << 32);
    let mut add = |shape, fault, memory| {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        plans.push(Plan { shape, fault, steps, sigma, memory, seed: next >> 8 });
    };
    for kind in Kind::ALL {
        for i in 0..of_each {
            add(SHAPES[(i % 8) as usize], Some(kind), 0.0);
        }
    }
    for i in 0..of_each * 4 {
        add(SHAPES[(i % 8) as usize], None, 0.0);
    }
    for i in 0..of_each * 2 {
        add(SHAPES[(i % 8) as usize], None, MEMORIES[(i % 3) as usize]);
    }
    plans
}

impl Tally {
    /// Takes in the counts of another.
    pub(crate) fn add(&mut self, other: Self) {
        for (key, cell) in other.cells {
            let mine = self.cells.entry(key).or_default();
            mine.planted += cell.planted;
            mine.found += cell.found;
            mine.placed += cell.placed;
            mine.errors.extend(cell.errors);
            mine.false_alarms += cell.false_alarms;
        }
        for (key, (runs, alarmed)) in other.healthy {
            let mine = self.healthy.entry(key).or_default();
            mine.0 += runs;
            mine.1 += alarmed;
        }
        self.examples.extend(other.examples);
    }

    /// The counts of `kind` where `keep` holds for noise and length.
    pub(crate) fn sum(&self, kind: Kind, keep: impl Fn(u64, u64) -> bool) -> Cell {
        let mut sum = Cell::default();
        for ((sigma, steps, of), cell) in &self.cells {
            if *of == kind && keep(*sigma, *steps) {
                sum.planted += cell.planted;
                sum.found += cell.found;
                sum.placed += cell.placed;
                sum.errors.extend(&cell.errors);
                sum.false_alarms += cell.false_alarms;
            }
        }
        sum.errors.sort_by(f64::total_cmp);
        sum
    }
}

impl Cell {
    pub(crate) fn recall(&self) -> f64 {
        f64::from(self.found) / f64::from(self.planted.max(1))
    }

    pub(crate) fn placed_share(&self) -> f64 {
        f64::from(self.placed) / f64::from(self.planted.max(1))
    }

    pub(crate) fn precision(&self) -> f64 {
        f64::from(self.found) / f64::from((self.found + self.false_alarms).max(1))
    }

    /// Step error below which a share `q` of the found ones lie.
    pub(crate) fn error(&self, q: f64) -> f64 {
        let at = (q * self.errors.len() as f64) as usize;
        self.errors.get(at.min(self.errors.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }
}
