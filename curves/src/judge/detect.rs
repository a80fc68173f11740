//! The detectors, one file each. Those with a `Watch` decide while points pass
//! and know exact steps; the others look at the whole curve when asked.

use super::curve::{Curve, Levels};
use super::finding::Finding;
use super::schema::{Role, Traits};
use super::track::Track;

pub(super) mod dead;
pub(super) mod divergence;
pub(super) mod gain;
pub(super) mod gradient;
pub(super) mod learning_rate;
pub(super) mod loss_scale;
pub(super) mod nonfinite;
pub(super) mod not_learning;
pub(super) mod oscillation;
pub(super) mod overfit;
pub(super) mod plateau;
pub(super) mod regression;
pub(super) mod resume;
pub(super) mod rise;
pub(super) mod schedule;
pub(super) mod spike;
pub(super) mod stall;
pub(super) mod throughput;

/// A metric and its curve, as they stand now.
pub(super) struct View<'a> {
    pub(super) track: &'a Track,
    pub(super) curve: Curve,
    pub(super) levels: Levels,
}

impl<'a> View<'a> {
    pub(super) fn new(track: &'a Track) -> Self {
        let curve = Curve::new(&track.sketch, even_in_logarithms(&track.traits), track.traits.direction);
        let levels = curve.levels();
        Self { track, curve, levels }
    }

    /// Level at the start, on the curve's scale: of the first group or of the
    /// first few values, whichever is worse.
    pub(super) fn start(&self) -> f64 {
        let oriented = self.curve.scaled(self.track.start());
        if oriented.is_finite() { self.levels.first().max(oriented) } else { self.levels.first() }
    }

    /// Noise of one point on the curve's scale.
    pub(super) fn point_noise(&self) -> f64 {
        let per = self.curve.nodes.first().map_or(1.0, |n| f64::from(n.n));
        super::fit::noise(&self.curve.ys()) * per.sqrt()
    }

    pub(super) fn step_of_node(&self, node: usize) -> Option<u64> {
        self.curve.nodes.get(node).and_then(super::curve::Node::first_step)
    }
}

/// Metrics whose noise grows with their value.
fn even_in_logarithms(traits: &Traits) -> bool {
    !matches!(traits.role, Role::Score | Role::Counter | Role::Time | Role::Other | Role::Resource)
}

/// Whether a finding covers `step`, with a margin of steps before it.
pub(super) fn covers(finding: &Finding, step: Option<u64>, margin: u64) -> bool {
    match (finding.first_step, step) {
        (Some(first), Some(step)) => {
            step.saturating_add(margin) >= first
                && finding.last_step.is_none_or(|last| step <= last.saturating_add(margin))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests;
