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
//! A slow rise is fitted to the values themselves, where it is nearly straight,
//! with weights that make up for noise that grows with the value; a loss that
//! is lost grows by factors, and a plateau is defined on the curve's own scale.
//!
//! All is done on nodes, so the cost does not grow with the run.

use super::detect::View;
use super::fit;

/// Steepness of the fall before, per length of the stretch; 0 is a line.
const RATES: [f64; 10] = [0.0, 1.5, 2.3, 3.4, 5.0, 7.6, 11.4, 17.0, 26.0, 38.0];
/// How long a rise takes that ends, in lengths of the stretch.
const RAMPS: [f64; 7] = [0.01, 0.03, 0.06, 0.1, 0.16, 0.25, 0.4];
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
            return Self { x, weight: vec![1.0; y.len()], y, stepped, variance };
        }
        let n = y.len();
        let level = |i: usize| fit::median_of(&y[i.saturating_sub(NEIGHBOURS)..(i + NEIGHBOURS + 1).min(n)]);
        let levels: Vec<f64> = (0..n).map(level).collect();
        let low = levels.iter().copied().fold(f64::INFINITY, f64::min);
        // Of what stands e to the thirtieth higher nothing is left to be weighed.
        let weight = levels.iter().map(|l| (-2.0 * (l - low).min(30.0)).exp()).collect();
        let y = y.iter().map(|y| (y - low).clamp(-30.0, 60.0).exp()).collect();
        Self { x, y, weight, stepped, variance }
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
/// `changed`. `beside` are curves of the same run that changed with it.
pub(in crate::judge) fn date(
    view: &View<'_>,
    change: Change,
    (guess, changed): (usize, usize),
    beside: &[&View<'_>],
) -> Option<Dated> {
    let own = Series::of(view, change);
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

/// Sums over a part of a curve that is described by one shape, its axis scaled
/// to 0..1.
struct Stretch {
    change: Change,
    from: f64,
    span: f64,
    x: Vec<f64>,
    y: Vec<f64>,
    /// Weighted prefix sums of 1, x, x^2, y, xy.
    sums: Vec<[f64; 5]>,
    /// Weighted prefix sums of E, E^2, E y for each rate, with E what falls
    /// before.
    falls: Vec<Vec<[f64; 3]>>,
    squares: f64,
    variance: f64,
}

fn falling(rate: f64, x: f64) -> f64 {
    if rate > 0.0 { (-rate * x).exp() } else { -x }
}

impl Stretch {
    /// The longest stretch about `guess` that such a change describes: it is
    /// made longer, first before and then after, for as long as the dates that
    /// it allows overlap with those of all shorter ones (the rule of
    /// intersecting intervals, Goldenshluger and Nemirovski 1997), and for as
    /// long as what is left over is no more than the noise.
    fn widest(series: &Series, change: Change, guess: usize, changed: usize) -> Option<Self> {
        let n = series.x.len();
        let (guess, changed) = (guess.min(n.checked_sub(1)?), changed.min(n - 1));
        let rise = changed.saturating_sub(guess).max(SIDE);
        let mut ends: Vec<usize> = vec![(changed + rise / 2 + 2).min(n), (changed + 2 * rise).min(n), n];
        ends.dedup();
        // Where it is seen to rise, it has risen for some time.
        let shortest = rise.max(2 * SIDE);
        let mut befores: Vec<usize> = (0..10).map(|times| (shortest << times).min(guess)).collect();
        befores.dedup();
        let (mut kept, mut allowed): (Option<Self>, (f64, f64)) = (None, (f64::MIN, f64::MAX));
        let mut longer = |from: usize, end: usize, kept: &mut Option<Self>| {
            if end < from + 4 * SIDE {
                return true;
            }
            let stretch = Self::new(series, change, from, end);
            let (least, (low, high)) = stretch.allowed();
            let both = (allowed.0.max(low), allowed.1.min(high));
            // Five numbers are fitted; the variance is known to a tenth or so.
            let free = ((end - from) as f64 - 5.0).max(1.0);
            let fits = least <= free * (1.1 + 2.0 * (2.0 / free).sqrt());
            let agrees = both.0 <= both.1 && (fits || kept.is_none());
            if agrees {
                (*kept, allowed) = (Some(stretch), both);
            }
            agrees
        };
        let mut from = guess.saturating_sub(befores[0]);
        for before in befores {
            if !longer(guess.saturating_sub(before), ends[0], &mut kept) {
                break;
            }
            from = guess.saturating_sub(before);
        }
        for end in &ends[1..] {
            if !longer(from, *end, &mut kept) {
                break;
            }
        }
        kept
    }

    /// Squared error over the variance of the noise, where the curve runs out.
    fn decays(&self) -> Option<f64> {
        fit::decay(&self.y).map(|d| d.error / self.variance)
    }

    /// The same where it does not change at all.
    fn unchanged(&self) -> f64 {
        let all = self.sums[self.x.len()];
        let line = (all[2] - all[1] * all[1] / all[0], all[4] - all[1] * all[3] / all[0]);
        let level = (self.squares - all[3] * all[3] / all[0]).max(0.0);
        let without = |(xx, xy): (f64, f64)| if xx > 1e-12 { (level - xy * xy / xx).max(0.0) } else { level };
        let falls = self.falls.iter().map(|falls| {
            let [e, ee, ey] = falls[self.x.len()];
            without((ee - e * e / all[0], ey - e * all[3] / all[0]))
        });
        falls.fold(level.min(without(line)), f64::min) / self.variance
    }

    /// The least error, and the first and last step within three deviations of
    /// the best one, and a place of the grid.
    fn allowed(&self) -> (f64, (f64, f64)) {
        let (low, high) = self.range();
        let places = grid(low, high, COARSE);
        let costs: Vec<f64> = places.iter().map(|at| self.cost(*at)).collect();
        let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
        // A stretch that holds no change says nothing of its date.
        if !least.is_finite() || self.unchanged() < least + 9.0 {
            return (least.min(self.unchanged()), (f64::MIN, f64::MAX));
        }
        let near = |i: &usize| costs[*i] <= least + 9.0;
        let first = (0..COARSE).find(near).unwrap_or(0);
        let last = (0..COARSE).rfind(near).unwrap_or(COARSE - 1);
        let each = (high - low) / (COARSE - 1) as f64;
        (least, (places[first] - each, places[last] + each))
    }

    fn new(series: &Series, change: Change, from: usize, end: usize) -> Self {
        let (x, y, weight) = (&series.x[from..end], &series.y[from..end], &series.weight[from..end]);
        let start = x[0];
        let span = (x[x.len() - 1] - start).max(1e-9);
        let x: Vec<f64> = x.iter().map(|x| (x - start) / span).collect();
        let centre = y.iter().zip(weight).map(|(y, w)| y * w).sum::<f64>() / weight.iter().sum::<f64>();
        let y: Vec<f64> = y.iter().map(|y| y - centre).collect();
        let mut sums = vec![[0.0; 5]];
        let mut running = [0.0; 5];
        for ((x, y), w) in x.iter().zip(&y).zip(weight) {
            let terms = [*w, w * x, w * x * x, w * y, w * x * y];
            running.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            sums.push(running);
        }
        let rates = if change == Change::Stop { &RATES[..1] } else { &RATES[..] };
        let falls = rates.iter().map(|rate| {
            let mut running = [0.0; 3];
            let parts = x.iter().zip(&y).zip(weight).map(|((x, y), w)| {
                let e = falling(*rate, *x);
                running = [running[0] + w * e, running[1] + w * e * e, running[2] + w * e * y];
                running
            });
            std::iter::once([0.0; 3]).chain(parts).collect()
        });
        let falls = falls.collect();
        let squares = y.iter().zip(weight).map(|(y, w)| w * y * y).sum();
        Self { change, from: start, span, x, y, sums, falls, squares, variance: series.variance }
    }

    /// Where the change may be.
    fn range(&self) -> (f64, f64) {
        let side = SIDE.min((self.x.len() - 1) / 2);
        let at = |i: usize| self.from + self.span * self.x[i];
        (at(side), at(self.x.len() - 1 - side))
    }

    /// Squared error over the variance of the noise, with the change at `at`.
    fn cost(&self, at: f64) -> f64 {
        let (low, high) = self.range();
        let at = (at.clamp(low, high) - self.from) / self.span;
        let first = self.x.partition_point(|x| *x < at);
        let fall = |i: usize| (falling(RATES[i], at), self.falls[i][first]);
        if self.change == Change::Stop {
            return self.error(first, fall(0), [0.0; 3]) / self.variance;
        }
        let of = |ramp: f64| {
            let rise = self.rise(first, at, ramp);
            let errors = (0..RATES.len()).map(|i| (self.error(first, fall(i), rise), ramp));
            errors.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, ramp))
        };
        let best = |a: (f64, f64), b: (f64, f64)| if b.0 < a.0 { b } else { a };
        let ended = RAMPS.iter().filter(|r| at + **r < 1.0).map(|ramp| of(*ramp));
        let (mut least, mut ramp) = ended.fold(of(f64::INFINITY), best);
        // Between the lengths that were tried.
        for apart in [1.2, 1.1] {
            let beside = [ramp / apart, ramp * apart].into_iter().filter(|r| at + r < 1.0).map(&of);
            (least, ramp) = beside.fold((least, ramp), best);
        }
        least / self.variance
    }

    /// Weighted sums of the rise, its square and its product with y, from node
    /// `first` on.
    fn rise(&self, first: usize, at: f64, ramp: f64) -> [f64; 3] {
        let n = self.x.len();
        let top = if ramp < f64::INFINITY { self.x.partition_point(|x| *x < at + ramp) } else { n };
        let part = |from: usize, to: usize, k: usize| self.sums[to][k] - self.sums[from][k];
        let s = |k: usize| part(first, top, k);
        let mut sums = [s(1) - at * s(0), s(2) - 2.0 * at * s(1) + at * at * s(0), s(4) - at * s(3)];
        if ramp < f64::INFINITY {
            let above = (part(top, n, 0), part(top, n, 3));
            sums[0] += ramp * above.0;
            sums[1] += ramp * ramp * above.0;
            sums[2] += ramp * above.1;
        }
        sums
    }

    /// Squared error of level, fall and rise; without the fall where it would
    /// be none.
    fn error(&self, first: usize, (at_end, falls): (f64, [f64; 3]), rise: [f64; 3]) -> f64 {
        let all = self.sums[self.x.len()];
        let (n, sy) = (all[0], all[3]);
        let (after, after_y) = (n - self.sums[first][0], sy - self.sums[first][3]);
        let (e, ee, ey) =
            (falls[0] + after * at_end, falls[1] + after * at_end * at_end, falls[2] + at_end * after_y);
        // The level is taken off, so two unknowns are left.
        let (ee, ey) = (ee - e * e / n, ey - e * sy / n);
        let syy = (self.squares - sy * sy / n).max(0.0);
        if self.change == Change::Stop {
            return if ee > 1e-12 && ey > 0.0 { (syy - ey * ey / ee).max(0.0) } else { f64::INFINITY };
        }
        let (r, rr, ry) = (rise[0], rise[1] - rise[0] * rise[0] / n, rise[2] - rise[0] * sy / n);
        let er = at_end * r - e * r / n;
        let det = ee * rr - er * er;
        if det > 1e-12 * ee * rr && det > 0.0 {
            let (fall, up) = ((ey * rr - ry * er) / det, (ry * ee - ey * er) / det);
            if up <= 0.0 {
                return f64::INFINITY;
            }
            if fall >= 0.0 {
                return (syy - fall * ey - up * ry).max(0.0);
            }
        }
        if rr > 1e-12 && ry > 0.0 { (syy - ry * ry / rr).max(0.0) } else { f64::INFINITY }
    }
}

#[cfg(test)]
mod tests;
