//! What no detector can exceed: an observer who knows the curve, the fault, its
//! size, its length and the noise, and lacks only the answer.
//!
//! *Dating.* He holds the points against the curve with the fault at each step
//! where it may begin, all of which are equally likely, and names the middle of
//! the most likely stretch as long as the tolerance. By Bayes nobody is right
//! more often.
//!
//! *Dating without the size.* The same where he knows the curve but for a
//! factor, and the form of the fault but not how large it is: what a program can
//! know at best.
//!
//! *Finding.* Where the step is given (the start, or a restart) he need only
//! tell the fault from the nearest curve that is none, `D` deviations of the
//! noise away: with one false alarm in a hundred he finds a share of
//! `P(N(0, 1) < D - 2.33)` (Neyman and Pearson 1933).

use curves::judge::Kind;
use fastrand::Rng;

use crate::corpus::{Base, Fault, Plan, Shape, drawn, evaluated_each, loss, normal, validation};

/// Points of a long run are taken together, so many groups at most.
const GROUPS: u64 = 3000;
/// One-sided bound of one false alarm in a hundred.
const ONE_IN_A_HUNDRED: f64 = 2.326;

/// Chance that the observer is right about the run of `plan`: 0 or 1 where one
/// run was drawn, the probability where it has a formula; `None` for kinds
/// that are not bounded here.
pub(crate) fn best_possible(plan: &Plan) -> Option<f64> {
    let (plan, base, fault, mut rng) = drawn(plan);
    match plan.fault? {
        Kind::Plateau
        | Kind::Regression
        | Kind::Overfitting
        | Kind::Divergence
        | Kind::LearningRateTooHigh
        | Kind::Oscillation => Some(f64::from(u8::from(dates(&plan, &base, fault, &mut rng)))),
        Kind::WarmupMissing => Some(power(rise_from_the_start(&plan, &base, &fault))),
        Kind::ResumeJump => Some(power(after_restart(&plan, &fault))),
        Kind::NotLearning | Kind::LearningRateTooLow => {
            Some(power(from_least_learning(&plan, &base, &fault)))
        }
        _ => None,
    }
}

/// Whether an observer who knows all but the answer would be right 19 times in
/// 20: told from the nearest curve without the fault, or between the true step
/// and one just too far from it for a middle to serve both.
pub(crate) fn decidable(plan: &Plan) -> bool {
    let (plan, base, fault, _) = drawn(plan);
    match plan.fault {
        Some(Kind::Oscillation) => true,
        Some(
            Kind::Plateau
            | Kind::Regression
            | Kind::Overfitting
            | Kind::Divergence
            | Kind::LearningRateTooHigh,
        ) => {
            let twice = 2 * tolerance(&plan) as u64;
            let here = seen(&plan, &base, &fault);
            let apart = |at: u64| {
                let there = seen(&plan, &base, &fault.begun_at(at, &base, &plan));
                here.iter().zip(there).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
            };
            // Halfway between two curves the chance of an error is P(N < -D / 2).
            apart(fault.at + twice).min(apart(fault.at.saturating_sub(twice))) > 2.0 * 1.645
        }
        Some(_) => best_possible(&plan).is_none_or(|p| p >= 0.95),
        None => true,
    }
}

/// Steps by which a date may be off.
fn tolerance(plan: &Plan) -> f64 {
    let interval = if plan.fault == Some(Kind::Overfitting) { evaluated_each(plan) } else { 1 };
    (0.01 * plan.steps as f64).max(interval as f64)
}

fn power(distance: f64) -> f64 {
    let z = distance - ONE_IN_A_HUNDRED;
    // Normal distribution by the logistic form of Page (1977), right to 2e-4.
    1.0 / (1.0 + (-(1.5976 * z + 0.070_565_992 * z.powi(3))).exp())
}

/// Noise of the mean of `n` steps: one in ten of a small batch is twice as wide.
fn spread(plan: &Plan, n: u64) -> f64 {
    let wide = if plan.shape == Shape::SmallBatch { 1.3_f64.sqrt() } else { 1.0 };
    plan.sigma * wide / (n as f64).sqrt()
}

/// Logarithms of the losses without noise, divided by its deviation: groups of
/// training steps, then the evaluations.
fn seen(plan: &Plan, base: &Base, fault: &Fault) -> Vec<f64> {
    let group = (plan.steps / GROUPS).max(1);
    let (evals, of_group) = (evaluated_each(plan), spread(plan, group));
    let since = |step: u64| (step >= fault.at).then(|| step - fault.at);
    let of_validation = plan.fault == Some(Kind::Overfitting);
    let training = (0..plan.steps / group).filter(|_| !of_validation).map(|g| {
        // Swings are shorter than a group may be: then single steps.
        loss(base, plan, fault, g * group + group / 2).ln() / of_group
    });
    let evaluated = (evals - 1..plan.steps).step_by(evals as usize).map(|step| {
        let level = loss(base, plan, fault, step);
        validation(base, plan, fault, level, since(step)).ln() / (0.2 * plan.sigma)
    });
    training.chain(evaluated).collect()
}

/// The same of an observer who knows neither the size nor the level of what he
/// sees; `None` for kinds whose form does not leave that open.
pub(crate) fn without_size(plan: &Plan) -> Option<f64> {
    let (plan, base, fault, mut rng) = drawn(plan);
    let sizes: Vec<f64> = match plan.fault? {
        Kind::Regression => (0..9).map(|i| 0.2 + 0.05 * f64::from(i)).collect(),
        Kind::Overfitting => (0..9).map(|i| 0.2 + 0.1 * f64::from(i)).collect(),
        _ => return None,
    };
    let (low, high) = Fault::range(plan.fault);
    let n = plan.steps as f64;
    let each = (plan.steps / 250).max(1);
    let mut points = seen(&plan, &base, &fault);
    points.iter_mut().for_each(|y| *y += normal(&mut rng));
    let evaluations = (plan.steps / evaluated_each(&plan)) as usize;
    let training = points.len().saturating_sub(evaluations);
    // Of training and of validation any level will do: their means are taken off.
    let squares = |clean: &[f64]| -> f64 {
        let left: Vec<f64> = clean.iter().zip(&points).map(|(c, y)| y - c).collect();
        let (of_training, of_validation) = left.split_at(training);
        let about_mean = |part: &[f64]| {
            let mean = part.iter().sum::<f64>() / part.len().max(1) as f64;
            part.iter().map(|v| (v - mean).powi(2)).sum::<f64>()
        };
        about_mean(of_training) + about_mean(of_validation)
    };
    let begin = (low * n) as u64 + (fault.at - (low * n) as u64) % each;
    let steps: Vec<u64> = (begin..=(high * n) as u64).step_by(each as usize).collect();
    let chances: Vec<Vec<f64>> = steps
        .iter()
        .map(|at| {
            let mut moved = fault.begun_at(*at, &base, &plan);
            let of_size = |size: &f64| {
                moved.size = *size;
                -0.5 * squares(&seen(&plan, &base, &moved))
            };
            sizes.iter().map(of_size).collect()
        })
        .collect();
    let top = chances.iter().flatten().copied().fold(f64::MIN, f64::max);
    let chances: Vec<f64> =
        chances.iter().map(|of| of.iter().map(|c| (c - top).exp()).sum::<f64>().ln()).collect();
    Some(f64::from(u8::from(named(&plan, &steps, &chances).abs_diff(fault.at) as f64 <= tolerance(&plan))))
}

fn dates(plan: &Plan, base: &Base, fault: Fault, rng: &mut Rng) -> bool {
    let n = plan.steps as f64;
    let tolerance = tolerance(plan);
    let (low, high) = Fault::range(plan.fault);
    let each = (plan.steps / 1000).max(1);
    if plan.fault == Some(Kind::Oscillation) && plan.steps > GROUPS {
        // Hundreds of steps of tolerance against swings above the noise.
        return true;
    }
    let mut points = seen(plan, base, &fault);
    points.iter_mut().for_each(|y| *y += normal(rng));
    // The true step is one of them: swings have a phase.
    let begin = (low * n) as u64 + (fault.at - (low * n) as u64) % each;
    let steps: Vec<u64> = (begin..=(high * n) as u64).step_by(each as usize).collect();
    let chances: Vec<f64> = steps
        .iter()
        .map(|at| {
            let clean = seen(plan, base, &fault.begun_at(*at, base, plan));
            -0.5 * clean.iter().zip(&points).map(|(c, y)| (c - y).powi(2)).sum::<f64>()
        })
        .collect();
    named(plan, &steps, &chances).abs_diff(fault.at) as f64 <= tolerance
}

/// The middle of the most likely stretch as long as the tolerance; `chances` are logarithms.
fn named(plan: &Plan, steps: &[u64], chances: &[f64]) -> u64 {
    let (top, tolerance) = (chances.iter().copied().fold(f64::MIN, f64::max), tolerance(plan));
    let weight = |middle: u64| -> f64 {
        let near = steps.iter().zip(chances).filter(|(s, _)| s.abs_diff(middle) as f64 <= tolerance);
        near.map(|(_, chance)| (chance - top).exp()).sum()
    };
    steps.iter().copied().max_by(|a, b| weight(*a).total_cmp(&weight(*b))).unwrap_or(0)
}

/// How far the beginning of the run is from every curve that never rises.
fn rise_from_the_start(plan: &Plan, base: &Base, fault: &Fault) -> f64 {
    // The bump is over by then.
    let early = (0.08 * plan.steps as f64) as u64;
    let ys: Vec<f64> = (0..early).map(|step| loss(base, plan, fault, step).ln()).collect();
    // Pool adjacent violators: sums and counts of stretches that may not rise.
    let mut pools: Vec<(f64, f64)> = Vec::new();
    for y in &ys {
        pools.push((*y, 1.0));
        while let [.., a, b] = pools[..]
            && a.0 / a.1 < b.0 / b.1
        {
            pools.pop();
            pools.pop();
            pools.push((a.0 + b.0, a.1 + b.1));
        }
    }
    let falling = pools.iter().flat_map(|(sum, n)| std::iter::repeat_n(sum / n, *n as usize));
    let squares: f64 = ys.iter().zip(falling).map(|(y, f)| (y - f).powi(2)).sum();
    squares.sqrt() / spread(plan, 1)
}

/// How far the points after a restart are from those of a run without a jump.
fn after_restart(plan: &Plan, fault: &Fault) -> f64 {
    let jump = |since: u64| (1.0 + (fault.size - 1.0) * (-(since as f64) / fault.length).exp()).ln();
    let rest = plan.steps - fault.at;
    let training: f64 = (0..rest).map(|s| (jump(s) / spread(plan, 1)).powi(2)).sum();
    let evaluated: f64 = (0..rest)
        .step_by(evaluated_each(plan) as usize)
        .map(|s| (jump(s) / (0.2 * plan.sigma)).powi(2))
        .sum();
    (training + evaluated).sqrt()
}

/// How far a run that learns nothing is from one that learns the least that any
/// healthy run of the corpus does: 15 % within the time of fine-tuning. Where
/// either begins is not given.
fn from_least_learning(plan: &Plan, base: &Base, fault: &Fault) -> f64 {
    let n = plan.steps as f64;
    let learns = |t: f64| (0.85 + 0.15 * (-t / 0.1).exp()).ln();
    let apart = |steps: &mut dyn Iterator<Item = u64>| {
        let gaps: Vec<f64> =
            steps.map(|s| (loss(base, plan, fault, s) / base.start).ln() - learns(s as f64 / n)).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>()
    };
    let training = apart(&mut (0..plan.steps)) / spread(plan, 1).powi(2);
    let each = evaluated_each(plan);
    let evaluated = apart(&mut (each - 1..plan.steps).step_by(each as usize)) / (0.2 * plan.sigma).powi(2);
    (training + evaluated).sqrt()
}
