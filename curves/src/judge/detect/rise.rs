//! Whether a curve ended worse than its best by more than noise, and where it
//! turned. Divergence, regression and overfitting are kinds of it.

use super::View;
use crate::judge::fit;

/// A turn for the worse.
#[derive(Debug, Clone, Copy)]
pub(in crate::judge) struct Rise {
    /// The place of the best stretch among the levels.
    pub(in crate::judge) best_at: usize,
    /// The best smoothed level and that of the end.
    pub(in crate::judge) best: f64,
    pub(in crate::judge) last: f64,
    /// What their difference had to exceed, on the curve's scale.
    pub(in crate::judge) threshold: f64,
}

/// Compares the median of the last `k` levels with the lowest median of `k`
/// neighbours, for several `k`: few levels see a steep rise early, many a small
/// one among noise. A median of k has the noise 1.25 sd/sqrt(k); the lowest of
/// some dozens lies about 2.3 of these below, and the bound leaves 3.1 more.
pub(in crate::judge) fn rise(levels: &[f64], sd: f64, widths: &[usize], alarm: f64) -> Option<Rise> {
    let mut found: Option<Rise> = None;
    for &k in widths {
        if levels.len() < k + 2 || k == 0 {
            continue;
        }
        let smooth: Vec<f64> = levels.windows(k).map(fit::median_of).collect();
        let (at, best) = smooth.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?;
        let last = *smooth.last()?;
        let threshold = 7.2 * sd / (k as f64).sqrt() * alarm;
        let since = levels.len() - (at + k / 2);
        if last - best > threshold
            && since >= 3
            && found.is_none_or(|f| last - best - threshold > f.last - f.best - f.threshold)
        {
            found = Some(Rise { best_at: at + k / 2, best, last, threshold });
        }
    }
    found
}

/// The node at which the curve turned: where two lines describe best what
/// leads from before the best level to most of the rise.
pub(in crate::judge) fn onset(view: &View<'_>, rise: &Rise, from: &[usize], levels: &[f64]) -> usize {
    let height = rise.last - rise.best;
    // Single groups are noise: what reaches a height are medians of three.
    let smooth: Vec<f64> = (0..levels.len())
        .map(|g| fit::median_of(&levels[g.saturating_sub(1)..(g + 2).min(levels.len())]))
        .collect();
    let reaches = |g: &usize| smooth[*g] >= rise.best + 0.7 * height;
    let top = (rise.best_at..levels.len()).find(reaches).unwrap_or(levels.len() - 1);
    // The last group that is still good: a flat bottom may be long.
    let good =
        (rise.best_at..top).rev().find(|g| smooth[*g] <= rise.best + 0.2 * height).unwrap_or(rise.best_at);
    let ys = view.curve.ys();
    let fine: Vec<f64> =
        (0..ys.len()).map(|i| fit::median_of(&ys[i.saturating_sub(1)..(i + 2).min(ys.len())])).collect();
    let leaves =
        (from[good]..ys.len()).find(|i| fine[*i] >= rise.best + 0.7 * height).unwrap_or(ys.len() - 1);
    let stays = (from[good.saturating_sub(3)]..leaves).rev().find(|i| fine[*i] <= rise.best + 0.25 * height);
    // Where the whole rise is one node's work, nothing need be fitted.
    if let Some(stays) = stays.filter(|s| leaves - s <= 2) {
        return (stays + 1..=leaves).find(|i| ys[*i] > rise.best + 0.4 * height).unwrap_or(leaves);
    }
    // As much before as the rise itself is long, since what came earlier
    // bends; a rise that goes on to the end is taken to the end.
    let reach = (top - good + 1).clamp(3, (levels.len() / 4).max(3));
    let low = from[good.saturating_sub(reach)];
    let high = if levels.len() - top < (top - good) { ys.len() } else { (leaves + 2).min(ys.len()) };
    match fit::local_knot(&despiked(&ys), low, high) {
        Some((at, knot)) if knot.after > 0.0 => at,
        // No bend: it rose steeply at first. Then from its lowest place on.
        _ => {
            let lowest = (0..=good).min_by(|a, b| smooth[*a].total_cmp(&smooth[*b]));
            from[lowest.unwrap_or(rise.best_at)]
        }
    }
}

/// Values far from both neighbours are replaced by the median of the three.
fn despiked(values: &[f64]) -> Vec<f64> {
    let sd = fit::noise(values).max(1e-12);
    let mut out = values.to_vec();
    for (i, w) in values.windows(3).enumerate() {
        let middle = fit::median_of(w);
        if (w[1] - middle).abs() > 6.0 * sd {
            out[i + 1] = middle;
        }
    }
    out
}
