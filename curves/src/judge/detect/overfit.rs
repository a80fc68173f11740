//! Overfitting: Rule O in two steps. First whether validation is worse than its
//! best by more than noise; then the class, by what training did since.

use super::View;
use super::gain::gained;
use super::regression::{COLLAPSED, SHARE, collapsed};
use super::rise::{Rise, onset, rise};
use crate::judge::date::Change;
use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::fit;
use crate::judge::schema::{Direction, Role, Split};

/// Fewest evaluations, and fewest since the best.
pub(in crate::judge) const FEWEST: usize = 8;
const SINCE: usize = 5;
/// Where there are fewer: so many at all, so many since the best, and what share of the best
/// must be lost by just so many, and by more.
const FEWEST_AT_ALL: usize = 4;
const FEW_SINCE: usize = 2;
const FEW_SHARES: [f64; 2] = [0.3, 0.2];

/// `train` is the metric that `view` is measured against, if there is one;
/// `beside` are curves of the same loss that rose beyond their noise.
pub(in crate::judge) fn find(
    view: &View<'_>,
    train: Option<&View<'_>>,
    beside: &[&View<'_>],
) -> Option<Finding> {
    let traits = &view.track.traits;
    let judged = traits.split == Split::Validation
        && traits.direction != Direction::Unknown
        && matches!(traits.role, Role::Loss | Role::Score | Role::Error);
    if !judged || view.track.knobs.sensitivity <= 0.0 {
        return None;
    }
    let curve = &view.curve;
    let Turned { rise, node, first, threshold } =
        if curve.nodes.len() < FEWEST { few(view)? } else { many(view, train, beside)? };
    // What it was there: the wide medians that decided may stand far from it.
    let ys = view.curve.ys();
    let there = fit::median_of(&ys[node.saturating_sub(1)..(node + 2).min(ys.len())]);
    let since = train.and_then(|t| trend_since(t, first));
    // Training that lost a good part of what validation lost is no overfitting.
    let both = train.is_some_and(|t| t.curve.in_logarithms() == curve.in_logarithms());
    let follows = |s: Since| {
        if both { s.change.max(s.rise).max(s.fitted) > 0.4 * (rise.last - rise.best) } else { s.rises }
    };
    let rose = beside.iter().any(|v| train.is_some_and(|t| t.track.name == v.track.name));
    let collapsed = collapsed(view, &rise);
    let overfits = !rose && !collapsed && since.is_some_and(|s| !follows(s));
    let kind = if overfits { Kind::Overfitting } else { Kind::Regression };
    let (best, last) = (curve.value(rise.best.min(there)), curve.value(rise.last));
    let name = &view.track.name;
    // What is worth keeping is the best that was logged, not where the rise began.
    let kept = match traits.direction {
        Direction::Higher => view.track.highest,
        _ => view.track.lowest,
    };
    let (top, of_best) = kept.unwrap_or((best, None));
    let checkpoint = of_best.map_or("its best value".to_owned(), |step| format!("step {step}"));
    let turned = first.map(|step| format!(" near step {step}")).unwrap_or_default();
    let course = format!(
        "{name} was at best {}{}, turned for the worse{turned} and is {}",
        short(top),
        at(of_best),
        short(last)
    );
    let recommendation = match (kind, train) {
        _ if collapsed => format!("{course}: {COLLAPSED}"),
        (Kind::Overfitting, Some(train)) => format!(
            "{course}, while {} still improves: take the checkpoint of {checkpoint}, and stop or regularise more",
            train.track.name
        ),
        (_, Some(train)) => format!(
            "{course}, and {} got worse with it: not overfitting; look at the data and the learning rate there",
            train.track.name
        ),
        _ => format!(
            "{course}; no training metric tells whether it overfits: keep the checkpoint of {checkpoint}"
        ),
    };
    Some(Finding {
        kind,
        severity: if collapsed { Severity::Critical } else { Severity::Warning },
        metric: name.clone(),
        first_step: first,
        last_step: None,
        window: curve.points(),
        threshold,
        evidence: facts([
            ("lost since its best", (last - best).abs()),
            ("best level", best),
            ("level now", last),
            ("value at the start", view.track.start()),
            ("change of training since", since.map_or(f64::NAN, |s| s.change)),
        ]),
        recommendation,
    })
}

/// A turn for the worse, its node and step, and what had to be lost.
struct Turned {
    rise: Rise,
    node: usize,
    first: Option<u64>,
    threshold: f64,
}

fn many(view: &View<'_>, train: Option<&View<'_>>, beside: &[&View<'_>]) -> Option<Turned> {
    let (rise, from, levels) = turn(view)?;
    let curve = &view.curve;
    let (start, best, last) =
        (curve.oriented(view.start()), curve.oriented(rise.best), curve.oriented(rise.last));
    let threshold = SHARE * (start - best).abs().min(best.abs());
    if levels.len() - rise.best_at <= SINCE || last - best <= threshold {
        return None;
    }
    let (node, first) = onset(view, &rise, Change::Turn, (&from, &levels), beside, train);
    Some(Turned { rise, node, first, threshold })
}

/// Of so few evaluations no noise can be measured. What is told is a rise with each of them since
/// the best, far larger than any before it.
fn few(view: &View<'_>) -> Option<Turned> {
    let (ys, curve) = (view.curve.ys(), &view.curve);
    let best_at = (0..ys.len()).min_by(|a, b| ys[*a].total_cmp(&ys[*b]))?;
    let (before, since) = (&ys[..=best_at], &ys[best_at..]);
    if ys.len() < FEWEST_AT_ALL || since.len() <= FEW_SINCE || since.windows(2).any(|w| w[1] <= w[0]) {
        return None;
    }
    let (best, last) = (ys[best_at], *ys.last()?);
    let share = if since.len() == FEW_SINCE + 1 { FEW_SHARES[0] } else { FEW_SHARES[1] };
    let threshold = share * curve.oriented(best).abs() / view.track.knobs.sensitivity;
    let noise = before.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
    let rise = Rise { best_at, best, last, threshold: 3.0 * noise };
    let lost = curve.oriented(last) - curve.oriented(best);
    (lost > threshold && last - best > rise.threshold).then(|| Turned {
        rise,
        node: best_at + 1,
        first: view.step_of_node(best_at + 1),
        threshold,
    })
}

/// The rise of the evaluations themselves, or of groups of them when many.
pub(in crate::judge) fn turn(view: &View<'_>) -> Option<(Rise, Vec<usize>, Vec<f64>)> {
    let n = view.curve.nodes.len();
    if n < FEWEST {
        return None;
    }
    let groups = n.min(100);
    let from: Vec<usize> = (0..=groups).map(|g| g * n / groups).collect();
    let ys = view.curve.ys();
    let levels: Vec<f64> = from.windows(2).map(|w| fit::middle_mean(&mut ys[w[0]..w[1]].to_vec())).collect();
    let sd = fit::noise(&levels).max(1e-9);
    let widths = [SINCE, (groups / 16).max(SINCE), (groups / 8).max(SINCE)];
    let alarm = 1.0 / view.track.knobs.sensitivity.max(1e-9);
    rise(&levels, sd, &widths, alarm).map(|r| (r, from, levels))
}

#[derive(Clone, Copy)]
struct Since {
    /// On the curve's scale, from the step to now.
    change: f64,
    /// The same, if it came within the first part of it.
    fitted: f64,
    /// From right after it to the later half.
    rise: f64,
    rises: bool,
}

fn trend_since(train: &View<'_>, step: Option<u64>) -> Option<Since> {
    let levels = &train.levels;
    let begun =
        |g: usize| train.step_of_node(levels.from[g]).is_none_or(|s| step.is_none_or(|step| s >= step));
    let part: Vec<f64> = (0..levels.len()).filter(|g| begun(*g)).map(|g| levels.y[g]).collect();
    if part.len() < 3 {
        return None;
    }
    let n = part.len() as f64;
    // It may have risen at once and stayed there.
    let few = part.len().min(3);
    let rise = fit::median_of(&part[part.len() / 2..]) - fit::median_of(&part[..few]);
    let change = fit::theil_sen(&part) * (n - 1.0);
    let nodes = &train.curve.nodes;
    let from = nodes.partition_point(|n| n.first_step() < step).saturating_sub(nodes.len() / 33);
    Some(Since {
        change,
        fitted: gained(train, from, 0.15).map_or(f64::MIN, |g| -g.gain),
        rise,
        rises: change > 2.0 * levels.sd * (12.0 / n).sqrt() || rise > 3.0 * levels.sd,
    })
}
