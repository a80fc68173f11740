//! How well a shape that changes at one step describes a part of a curve, for
//! every step at which it may; and how long that part may be.

use super::{COARSE, Change, SIDE, Series, grid};
use crate::judge::fit;

/// Steepness of the fall before, per length of the stretch; 0 is a line.
const RATES: [f64; 10] = [0.0, 1.5, 2.3, 3.4, 5.0, 7.6, 11.4, 17.0, 26.0, 38.0];
/// How long a rise takes that ends, in lengths of the stretch.
const RAMPS: [f64; 7] = [0.01, 0.03, 0.06, 0.1, 0.16, 0.25, 0.4];
/// How likely it is, before anything is seen, that a rise goes on to the end.
const ON: f64 = 0.9;

/// Sums over a part of a curve that is described by one shape, its axis scaled
/// to 0..1.
pub(super) struct Stretch {
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
    /// The last of them, node by node, where it is the course of training.
    guide: Option<Vec<f64>>,
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
    pub(super) fn widest(series: &Series, change: Change, guess: usize, changed: usize) -> Option<Self> {
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
    pub(super) fn decays(&self) -> Option<f64> {
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
        let mut falls: Vec<Vec<[f64; 3]>> = falls.collect();
        let guide = series.guide.as_ref().map(|g| g[from..end].to_vec());
        if let Some(guide) = &guide {
            let mut running = [0.0; 3];
            let parts = guide.iter().zip(&y).zip(weight).map(|((e, y), w)| {
                running = [running[0] + w * e, running[1] + w * e * e, running[2] + w * e * y];
                running
            });
            falls.push(std::iter::once([0.0; 3]).chain(parts).collect());
        }
        let squares = y.iter().zip(weight).map(|(y, w)| w * y * y).sum();
        Self { change, from: start, span, x, y, sums, falls, guide, squares, variance: series.variance }
    }

    /// Where the change may be.
    pub(super) fn range(&self) -> (f64, f64) {
        let side = SIDE.min((self.x.len() - 1) / 2);
        let at = |i: usize| self.from + self.span * self.x[i];
        (at(side), at(self.x.len() - 1 - side))
    }

    /// Squared error over the variance of the noise, with the change at `at`.
    pub(super) fn cost(&self, at: f64) -> f64 {
        let (low, high) = self.range();
        let at = (at.clamp(low, high) - self.from) / self.span;
        let first = self.x.partition_point(|x| *x < at);
        let fall = |i: usize| (self.shape(i, first, at), self.falls[i][first]);
        if self.change == Change::Stop {
            return self.error(first, fall(0), [0.0; 3]) / self.variance;
        }
        // Error and weight of every form of the fall with every length of the rise.
        let mut all: Vec<(f64, f64)> = Vec::with_capacity(self.falls.len() * (RAMPS.len() + 5));
        let mut of = |ramp: f64, weight: f64| {
            let rise = self.rise(first, at, ramp);
            let errors = (0..self.falls.len()).map(|i| self.error(first, fall(i), rise));
            let begun = all.len();
            all.extend(errors.map(|error| (error, weight)));
            (all[begun..].iter().map(|e| e.0).fold(f64::INFINITY, f64::min), ramp)
        };
        let best = |a: (f64, f64), b: (f64, f64)| if b.0 < a.0 { b } else { a };
        let each = (1.0 - ON) / RAMPS.len() as f64;
        let (mut least, mut ramp) = of(f64::INFINITY, ON);
        for ended in RAMPS.into_iter().filter(|r| at + r < 1.0) {
            (least, ramp) = best((least, ramp), of(ended, each));
        }
        // Between the lengths that were tried.
        for apart in [1.2, 1.1] {
            for beside in [ramp / apart, ramp * apart].into_iter().filter(|r| at + r < 1.0) {
                (least, ramp) = best((least, ramp), of(beside, 0.2 * each));
            }
        }
        if !least.is_finite() {
            return least;
        }
        let chance = |(error, weight): &(f64, f64)| weight * (-0.5 * (error - least) / self.variance).exp();
        least / self.variance - 2.0 * (all.iter().map(chance).sum::<f64>() / RATES.len() as f64).ln()
    }

    /// The value of a fall at `at`, which lies before node `first`.
    fn shape(&self, i: usize, first: usize, at: f64) -> f64 {
        let Some(guide) = self.guide.as_ref().filter(|_| i >= self.falls.len() - 1) else {
            return falling(RATES[i], at);
        };
        let (before, after) = (first.saturating_sub(1), first.min(guide.len() - 1));
        let gap = self.x[after] - self.x[before];
        let share = if gap > 0.0 { ((at - self.x[before]) / gap).clamp(0.0, 1.0) } else { 0.0 };
        guide[before] + share * (guide[after] - guide[before])
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
