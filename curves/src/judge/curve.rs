//! A metric's curve as the detectors see it when a report is asked for: nodes
//! in order of arrival, on a scale where noise is even and lower is better.

use super::fit;
use super::schema::Direction;
use super::sketch::{NO_STEP, Sketch};

/// Groups of nodes that are compared with one another; about the number of
/// epochs of the curves on which the rules were measured.
const GROUPS: usize = 48;

/// A bucket, transformed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    /// Its level: logarithm where all values are positive and the metric is of
    /// that kind; negated where higher is better.
    pub(super) y: f64,
    pub(super) n: u32,
    first: u64,
    last: u64,
}

impl Node {
    pub(super) fn first_step(&self) -> Option<u64> {
        (self.first != NO_STEP).then_some(self.first)
    }

    pub(super) fn last_step(&self) -> Option<u64> {
        (self.last != NO_STEP).then_some(self.last)
    }
}

/// All nodes of one metric.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    pub(super) nodes: Vec<Node>,
    log: bool,
    sign: f64,
}

/// Levels of contiguous groups of nodes.
#[derive(Debug, Clone)]
pub(super) struct Levels {
    /// Level of each group, on the curve's scale.
    pub(super) y: Vec<f64>,
    /// The first node of each group, and one past the last node.
    pub(super) from: Vec<usize>,
    /// Standard deviation of the noise of one level.
    pub(super) sd: f64,
}

impl Curve {
    /// `log` asks for logarithms; they are taken only where all values allow it.
    pub(super) fn new(sketch: &Sketch, log: bool, direction: Direction) -> Self {
        let log = log && sketch.positive();
        let sign = if direction == Direction::Higher { -1.0 } else { 1.0 };
        let nodes = sketch.buckets().iter().map(|b| Node {
            y: sign * b.level(log),
            n: b.n,
            first: b.first_step,
            last: b.last_step,
        });
        Self { nodes: nodes.collect(), log, sign }
    }

    /// The value, as the program logs it, that stands at `y`.
    pub(super) fn value(&self, y: f64) -> f64 {
        if self.log { (self.sign * y).exp() } else { self.sign * y }
    }

    pub(super) fn in_logarithms(&self) -> bool {
        self.log
    }

    /// The same with its sign such that lower is better, for differences.
    pub(super) fn oriented(&self, y: f64) -> f64 {
        self.sign * self.value(y)
    }

    pub(super) fn ys(&self) -> Vec<f64> {
        self.nodes.iter().map(|n| n.y).collect()
    }

    /// Levels, of which those far from both neighbours are replaced by the
    /// median of the three.
    pub(super) fn despiked(&self) -> Vec<f64> {
        let values = self.ys();
        let sd = fit::noise(&values).max(1e-12);
        let mut out = values.clone();
        for (i, w) in values.windows(3).enumerate() {
            let middle = fit::median_of(w);
            if (w[1] - middle).abs() > 6.0 * sd {
                out[i + 1] = middle;
            }
        }
        out
    }

    pub(super) fn points(&self) -> u64 {
        self.nodes.iter().map(|n| u64::from(n.n)).sum()
    }

    /// Groups of at least three nodes where there are enough.
    pub(super) fn levels(&self) -> Levels {
        let n = self.nodes.len();
        let groups = if n < 15 { n } else { (n / 3).min(GROUPS) };
        let from: Vec<usize> = (0..=groups).map(|g| (g * n).checked_div(groups).unwrap_or(0)).collect();
        let y: Vec<f64> = from
            .windows(2)
            .map(|w| fit::middle_mean(&mut self.nodes[w[0]..w[1]].iter().map(|n| n.y).collect::<Vec<_>>()))
            .collect();
        let range = y.iter().copied().fold(f64::MIN, f64::max) - y.iter().copied().fold(f64::MAX, f64::min);
        let sd = fit::noise(&y).max(1e-4 * range.abs()).max(1e-9);
        Levels { y, from, sd }
    }
}

impl Levels {
    pub(super) fn len(&self) -> usize {
        self.y.len()
    }

    /// The lowest group and its level.
    pub(super) fn best(&self) -> Option<(usize, f64)> {
        self.y.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Median of the last three, as the rules have it.
    pub(super) fn last(&self) -> f64 {
        fit::median_of(&self.y[self.len().saturating_sub(3)..])
    }

    pub(super) fn first(&self) -> f64 {
        self.y.first().copied().unwrap_or(0.0)
    }
}

impl Curve {
    /// A value of the program on the curve's scale.
    pub(super) fn scaled(&self, value: f64) -> f64 {
        if self.log { self.sign * value.max(f64::MIN_POSITIVE).ln() } else { self.sign * value }
    }
}
