//! A pace that dropped and stayed low: levels of the logarithm, split where
//! that explains most.

use crate::judge::curve::Curve;
use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::fit;
use crate::judge::schema::Direction;

/// Least drop, as a share, and in deviations of the difference.
const DROP: f64 = 0.05;
const DEVIATIONS: f64 = 6.0;

/// `curve` is such that lower is better: seconds of a step, or a negated rate.
pub(in crate::judge) fn find(name: &str, curve: &Curve, alarm: f64) -> Option<Finding> {
    let ys = curve.ys();
    let n = ys.len();
    if n < 20 {
        return None;
    }
    let least = (n / 50).max(5);
    let sd = fit::noise(&ys).max(1e-4);
    let mut cuts = fit::level_changes(&ys, least, 3.0 * (n as f64).ln() * alarm, 5);
    cuts.insert(0, 0);
    cuts.push(n);
    let parts: Vec<(usize, usize, f64)> =
        cuts.windows(2).map(|w| (w[0], w[1], fit::median_of(&ys[w[0]..w[1]]))).collect();
    // Against the fastest part before it that is not a mere moment.
    let mut worst: Option<(f64, usize, usize)> = None;
    for (i, slow) in parts.iter().enumerate().skip(1) {
        let Some(before) = parts[..i].iter().min_by(|a, b| a.2.total_cmp(&b.2)) else { continue };
        let spread = 1.25 * sd * (1.0 / (slow.1 - slow.0) as f64 + 1.0 / (before.1 - before.0) as f64).sqrt();
        let rise = slow.2 - before.2;
        let entered = slow.2 - parts[i - 1].2;
        if rise > (1.0 / (1.0 - DROP)).ln() * alarm
            && rise > DEVIATIONS * spread * alarm
            && entered > rise / 3.0
            && worst.is_none_or(|(w, ..)| rise > w)
        {
            worst = Some((rise, i, parts.iter().position(|p| p == before).unwrap_or(0)));
        }
    }
    let (rise, slow, before) = worst?;
    let (from, to, level) = parts[slow];
    // It lasts if no later part came back at least halfway.
    let back = parts[slow + 1..].iter().find(|p| p.2 < level - rise / 2.0).map(|p| p.0);
    let first = curve.nodes[from].first_step();
    let (was, is) = (curve.value(parts[before].2), curve.value(level));
    let share = 1.0 - (-rise).exp();
    Some(Finding {
        kind: Kind::ThroughputDrop,
        severity: if back.is_some() { Severity::Note } else { Severity::Warning },
        metric: name.to_owned(),
        first_step: first,
        last_step: back.and_then(|b| curve.nodes[b.saturating_sub(1)].last_step()),
        window: curve.nodes[from..to].iter().map(|n| u64::from(n.n)).sum(),
        threshold: DROP,
        evidence: facts([("share of the pace that was lost", share), ("before", was), ("since", is)]),
        recommendation: format!(
            "{name} went from {} to {}{}: {}% of the pace is lost; look at data loading, clocks and heat of the device, and other jobs on the machine",
            short(was),
            short(is),
            at(first),
            (100.0 * share).round()
        ),
    })
}

/// The curve of a throughput or step-time metric.
pub(in crate::judge) fn curve(sketch: &crate::judge::sketch::Sketch, direction: Direction) -> Curve {
    Curve::new(sketch, true, direction)
}
