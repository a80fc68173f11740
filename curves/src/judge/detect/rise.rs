//! Whether a curve ended worse than its best by more than noise, and where it
//! turned. Divergence, regression and overfitting are kinds of it.

use super::View;
use crate::judge::date::{Change, date};
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

/// The node and the step at which the curve turned; `beside` are curves that rose with it, `follows`
/// is one whose course it may have followed until then.
pub(in crate::judge) fn onset(
    view: &View<'_>,
    rise: &Rise,
    change: Change,
    (from, levels): (&[usize], &[f64]),
    beside: &[&View<'_>],
    follows: Option<&View<'_>>,
) -> (usize, Option<u64>) {
    let named = |node: usize| (node, view.step_of_node(node));
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
        return named((stays + 1..=leaves).find(|i| ys[*i] > rise.best + 0.4 * height).unwrap_or(leaves));
    }
    if let Some(dated) = date(view, change, (from[good], leaves), beside, follows) {
        return (dated.node, dated.step.or(view.step_of_node(dated.node)));
    }
    // No bend: it rose steeply at first. Then from its lowest place on.
    let lowest = (0..=good).min_by(|a, b| smooth[*a].total_cmp(&smooth[*b]));
    named(from[lowest.unwrap_or(rise.best_at)])
}
