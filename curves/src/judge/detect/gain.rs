//! How much a curve improved over a stretch, and how well that is known.

use super::View;
use crate::judge::fit;

/// Fewest nodes that tell a gain.
const FEWEST: usize = 8;

/// A gain on the curve's scale, and its variance.
#[derive(Debug, Clone, Copy)]
pub(in crate::judge) struct Gain {
    pub(in crate::judge) gain: f64,
    pub(in crate::judge) variance: f64,
}

/// What `view` gained from `node` on, if it gained it as `1 - exp(-t / within)`
/// with `t` from 0 to 1: least squares of that shape.
pub(in crate::judge) fn gained(view: &View<'_>, node: usize, within: f64) -> Option<Gain> {
    let nodes = view.curve.nodes.get(node..)?;
    let all: f64 = nodes.iter().map(|n| f64::from(n.n)).sum();
    let mut points = 0.0;
    let part = |node: &crate::judge::curve::Node| {
        points += f64::from(node.n);
        let t = (points - f64::from(node.n) / 2.0) / all;
        (1.0 - (-t / within).exp()) / (1.0 - (-1.0 / within).exp())
    };
    let x: Vec<f64> = nodes.iter().map(part).collect();
    let mean = x.iter().sum::<f64>() / x.len().max(1) as f64;
    let width: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
    let ys = view.curve.despiked();
    let variance = fit::noise(&ys).powi(2).max(1e-12) / width;
    let slope = fit::regress(&ys[node..], |i| x[i]).1;
    (x.len() >= FEWEST && width > 1e-9).then_some(Gain { gain: -slope, variance })
}

/// The same of several curves of one loss, by how well each is known.
pub(in crate::judge) fn together(curves: &[(&View<'_>, usize)], within: f64) -> Option<Gain> {
    let known: Vec<Gain> = curves.iter().filter_map(|(view, node)| gained(view, *node, within)).collect();
    let weight: f64 = known.iter().map(|g| 1.0 / g.variance).sum();
    let gain = known.iter().map(|g| g.gain / g.variance).sum::<f64>() / weight;
    (!known.is_empty()).then_some(Gain { gain, variance: 1.0 / weight })
}
