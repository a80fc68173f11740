//! When a curve turned: least squares of shapes that change at one step, over
//! every step at which they may.
//!
//! A turn is a line or an exponential that falls to it, and from it a rise
//! that goes on or ends; a stop is a line that becomes level. The
//! stretch is as long as such a shape describes it to within its noise: a
//! longer one dates better, a bend elsewhere would pull the date along. What
//! is named is not the likeliest step but the middle of the likeliest hundredth
//! of the run, and curves that changed together are dated together.
//!
//! A validation curve follows training until it overfits: the course of training
//! is one more form of the fall before. Of all forms and lengths none is chosen:
//! each counts by how likely it is.
//!
//! A slow rise is fitted to the values themselves, where it is nearly straight,
//! with weights that make up for noise that grows with the value; a loss that
//! is lost grows by factors, and a plateau is defined on the curve's own scale.
//!
//! All is done on nodes, so the cost does not grow with the run.

mod guide;
mod stretch;

use super::detect::View;
use super::fit;
use stretch::Stretch;

/// Steps that are tried at first, and again where they are likely.
const COARSE: usize = 40;
const FINE: usize = 100;
/// Fewest nodes on either side.
const SIDE: usize = 3;
/// Share of the run within which a date counts as right.
pub(in crate::judge) const TOLERANCE: f64 = 0.01;

/// Neighbours on either side from which a node's weight is taken.
const NEIGHBOURS: usize = 4;

/// What changes at the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::judge) enum Change {
    /// From falling or level to rising by so much a step.
    Turn,
    /// From falling or level to rising by the same factor each step.
    Leap,
    /// From falling to level.
    Stop,
}

/// A change and where it was.
#[derive(Debug, Clone, Copy)]
pub(in crate::judge) struct Dated {
    /// The node nearest to it.
    pub(in crate::judge) node: usize,
    /// Its step, which may lie between two nodes.
    pub(in crate::judge) step: Option<u64>,
    /// For a stop: by how much likelier it is than an exponential that runs out,
    /// twice the logarithm, over all curves.
    pub(in crate::judge) over_decay: f64,
}

/// Nodes of one curve along their steps, or along their points where the
/// program names no steps.
#[derive(Debug, Clone)]
pub(in crate::judge) struct Series {
    x: Vec<f64>,
    y: Vec<f64>,
    weight: Vec<f64>,
    /// Steps are named, so other curves have the same axis.
    stepped: bool,
    /// Square of the noise of one node of weight 1.
    variance: f64,
    /// What it may have followed before it changed, at the same places.
    guide: Option<Vec<f64>>,
}

impl Series {
    pub(in crate::judge) fn of(view: &View<'_>, change: Change) -> Self {
        let nodes = &view.curve.nodes;
        let stepped = nodes.iter().all(|n| n.first_step().is_some() && n.last_step().is_some());
        let (mut x, mut newest, mut points) = (Vec::with_capacity(nodes.len()), 0.0_f64, 0.0);
        for node in nodes {
            let middle = match node.first_step().zip(node.last_step()) {
                Some((first, last)) if stepped => first as f64 / 2.0 + last as f64 / 2.0,
                _ => points,
            };
            points += f64::from(node.n);
            newest = newest.max(middle);
            x.push(newest);
        }
        let values = change == Change::Turn && view.curve.in_logarithms();
        Self::new(x, view.curve.despiked(), stepped, values)
    }

    /// `values`: `y` are logarithms of what is to be fitted.
    fn new(x: Vec<f64>, y: Vec<f64>, stepped: bool, values: bool) -> Self {
        let variance = variance(&y);
        if !values {
            return Self { x, weight: vec![1.0; y.len()], y, stepped, variance, guide: None };
        }
        let n = y.len();
        let level = |i: usize| fit::median_of(&y[i.saturating_sub(NEIGHBOURS)..(i + NEIGHBOURS + 1).min(n)]);
        let levels: Vec<f64> = (0..n).map(level).collect();
        let low = levels.iter().copied().fold(f64::INFINITY, f64::min);
        // Of what stands e to the thirtieth higher nothing is left to be weighed.
        let weight = levels.iter().map(|l| (-2.0 * (l - low).min(30.0)).exp()).collect();
        let y = y.iter().map(|y| (y - low).clamp(-30.0, 60.0).exp()).collect();
        Self { x, y, weight, stepped, variance, guide: None }
    }

    /// The node whose middle is nearest to `at`.
    fn nearest(&self, at: f64) -> usize {
        let after = self.x.partition_point(|x| *x < at);
        let before = after.saturating_sub(1);
        let near = |i: usize| self.x.get(i).map_or(f64::MAX, |x| (x - at).abs());
        if near(before) <= near(after) { before } else { after }
    }
}

/// Mean square of the second differences: what is left of a curve when smooth
/// change is taken off.
fn variance(y: &[f64]) -> f64 {
    let mut squares: Vec<f64> = y.windows(3).map(|w| (w[2] - 2.0 * w[1] + w[0]).powi(2) / 6.0).collect();
    // A jump is no noise.
    let bound = 20.0 * fit::median(&mut squares).unwrap_or(0.0);
    let kept: Vec<f64> = squares.into_iter().filter(|s| *s <= bound).collect();
    (kept.iter().sum::<f64>() / kept.len().max(1) as f64).max(1e-12)
}

/// The node of `view` at which it changed, about `guess`; it has changed by
/// `changed`. `beside` are curves of the same run that changed with it; `follows` is the training
/// whose course it may have followed until then.
pub(in crate::judge) fn date(
    view: &View<'_>,
    change: Change,
    (guess, changed): (usize, usize),
    beside: &[&View<'_>],
    follows: Option<&View<'_>>,
) -> Option<Dated> {
    let mut own = Series::of(view, change);
    if let Some(training) = follows.filter(|t| t.curve.in_logarithms() == view.curve.in_logarithms()) {
        let training = Series::of(training, Change::Leap);
        if own.stepped && training.stepped && change == Change::Turn {
            own.guide = guide::guide(&own, &training, view.curve.in_logarithms());
        }
    }
    let run = own.x.last()? - own.x.first()?;
    let stretch = Stretch::widest(&own, change, guess, changed)?;
    let (low, high) = stretch.range();
    let mut parts = vec![stretch];
    let others: Vec<Series> =
        beside.iter().map(|v| Series::of(v, change)).filter(|s| s.stepped && own.stepped).collect();
    for other in &others {
        let at = |node: usize| other.nearest(own.x[node.min(own.x.len() - 1)]);
        parts.extend(Stretch::widest(other, change, at(guess), at(changed)));
    }
    let coarse = grid(low, high, COARSE);
    apart(&mut parts, &coarse);
    let cost = |at: f64| parts.iter().map(|p| p.cost(at)).sum::<f64>();
    let costs: Vec<f64> = coarse.iter().map(|at| cost(*at)).collect();
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    if !least.is_finite() {
        return None;
    }
    // Twenty off the best: e to the tenth less likely.
    let near = |i: &usize| costs[*i] <= least + 20.0;
    let (first, last) = ((0..COARSE).find(near)?, (0..COARSE).rfind(near)?);
    let fine = grid(coarse[first.saturating_sub(1)], coarse[(last + 1).min(COARSE - 1)], FINE);
    let costs: Vec<f64> = fine.iter().map(|at| cost(*at)).collect();
    let named = likeliest(&fine, &costs, TOLERANCE * run)?;
    let best = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let over_decay = if change == Change::Stop {
        parts.iter().filter_map(Stretch::decays).sum::<f64>() - best
    } else {
        0.0
    };
    let step = own.stepped.then_some(named.round().max(0.0) as u64);
    Some(Dated { node: own.nearest(named), step, over_decay })
}

/// Leaves out curves that did not change at the same step as the first: whose
/// best place is not one of the neighbours of its best, and where one step for
/// both is less likely by more than three deviations.
fn apart(parts: &mut Vec<Stretch>, places: &[f64]) {
    let best = |costs: &[f64]| costs.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
    let costs = |part: &Stretch| places.iter().map(|at| part.cost(*at)).collect::<Vec<f64>>();
    let own = costs(&parts[0]);
    let Some((at, least)) = best(&own) else { return };
    let mut first = true;
    parts.retain(|part| {
        if std::mem::take(&mut first) {
            return true;
        }
        let other = costs(part);
        let together: Vec<f64> = own.iter().zip(&other).map(|(a, b)| a + b).collect();
        let alone = best(&other);
        let near = alone.is_some_and(|(there, cost)| cost.is_finite() && there.abs_diff(at) <= 2);
        near || best(&together).zip(alone).is_some_and(|(both, alone)| both.1 <= least + alone.1 + 9.0)
    });
}

fn grid(low: f64, high: f64, n: usize) -> Vec<f64> {
    (0..n).map(|i| low + (high - low) * i as f64 / (n - 1) as f64).collect()
}

/// The middle of the likeliest stretch of twice `tolerance`.
fn likeliest(places: &[f64], costs: &[f64], tolerance: f64) -> Option<f64> {
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let chance: Vec<f64> = costs.iter().map(|c| (-0.5 * (c - least)).exp()).collect();
    let around = |middle: f64| -> f64 {
        places.iter().zip(&chance).filter(|(p, _)| (*p - middle).abs() <= tolerance).map(|(_, c)| c).sum()
    };
    let sums: Vec<f64> = places.iter().map(|p| around(*p)).collect();
    let most = sums.iter().copied().fold(f64::MIN, f64::max);
    // Many stretches may hold all there is: then the middle of them.
    let as_good: Vec<f64> =
        places.iter().zip(&sums).filter(|(_, s)| **s >= most * (1.0 - 1e-6)).map(|(p, _)| *p).collect();
    as_good.get(as_good.len() / 2).copied()
}

#[cfg(test)]
mod tests;
