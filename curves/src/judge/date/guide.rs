//! The course of training as the shape that a validation curve follows until it turns: what is known
//! of many steps stands for a form that few evaluations would have to show.

use super::Series;

/// Most of the run that is taken together for one place.
const WIDEST: f64 = 0.05;
/// Of the noise of the curve that follows, how much the guide may have.
const NOISE: f64 = 0.5;

/// Levels of `training` at the places of `series`, each from a line through its neighbours.
pub(super) fn guide(series: &Series, training: &Series, log: bool) -> Option<Vec<f64>> {
    let n = training.x.len();
    let run = training.x.last()? - training.x.first()?;
    if n < 16 || run <= 0.0 {
        return None;
    }
    // Nodes whose mean is quiet enough, on either side.
    let needed = training.variance / (NOISE * NOISE * series.variance.max(1e-12));
    let side = ((needed / 2.0).ceil().max(1.0)).min(WIDEST * n as f64 / 2.0).max(1.0) as usize;
    let level = |at: f64| {
        let middle = training.nearest(at);
        let (from, to) = (middle.saturating_sub(side), (middle + side + 1).min(n));
        let (x, y) = (&training.x[from..to], &training.y[from..to]);
        let count = x.len() as f64;
        let (mx, my) = (x.iter().sum::<f64>() / count, y.iter().sum::<f64>() / count);
        let (mut xx, mut xy) = (0.0, 0.0);
        for (x, y) in x.iter().zip(y) {
            (xx, xy) = (xx + (x - mx) * (x - mx), xy + (x - mx) * (y - my));
        }
        let slope = if xx > 0.0 { xy / xx } else { 0.0 };
        my + slope * (at - mx)
    };
    let levels: Vec<f64> = series.x.iter().map(|at| level(*at)).collect();
    let low = levels.iter().copied().fold(f64::INFINITY, f64::min);
    let shape: Vec<f64> =
        levels.into_iter().map(|y| if log { (y - low).min(30.0).exp() } else { y }).collect();
    shape.iter().all(|y| y.is_finite()).then_some(shape)
}
