//! What the learning rate has to do with what went wrong. Never by its size
//! alone: which rate is high depends on model and optimizer.

use super::View;
use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::fit;
use crate::judge::sketch::Bucket;

/// Share of the peak that is "next to none", and how long it must last.
const VANISHED: f64 = 1e-3;
const LASTING: f64 = 0.1;
/// A start so near the peak has no warm-up.
const WARM: f64 = 0.9;
/// A loss that was lost before it had so many values learned nothing, and nothing
/// says that a third of the rate would do.
const AT_ONCE: u64 = 10;
/// After so many values a rate that did not rise since has proven itself, unless the last value stood so
/// many times above the level.
const PROVEN: u64 = 50;
const WILD: f64 = 1.5;
/// Share of the run that is its beginning.
const EARLY: f64 = 0.08;

/// `rate` is the learning rate's metric, `loss` the training loss, `others`
/// what was found so far.
pub(in crate::judge) fn find(rate: &View<'_>, loss: Option<&View<'_>>, others: &[Finding]) -> Vec<Finding> {
    if rate.track.knobs.sensitivity <= 0.0 {
        return Vec::new();
    }
    let warmup = loss.and_then(|loss| no_warmup(rate, loss));
    let mut found: Vec<Finding> = vanished(rate, loss).into_iter().collect();
    if warmup.is_none() {
        found.extend(too_high(rate, loss, others));
    }
    found.extend(warmup);
    found
}

/// The rate at `step`, to the resolution of the buckets.
fn rate_at(rate: &View<'_>, step: Option<u64>) -> Option<f64> {
    let buckets = rate.track.sketch.buckets();
    let at = buckets.iter().rposition(|b| step.is_none_or(|s| b.first_step <= s)).unwrap_or(0);
    buckets.get(at).map(|b| b.level(false))
}

fn peak(rate: &View<'_>) -> f64 {
    rate.track.highest.map_or(0.0, |h| h.0)
}

fn too_high(rate: &View<'_>, loss: Option<&View<'_>>, others: &[Finding]) -> Option<Finding> {
    let lost = others
        .iter()
        .filter(|f| f.severity == Severity::Critical && matches!(f.kind, Kind::Divergence | Kind::NonFinite))
        .min_by_key(|f| (loss.is_none_or(|l| l.track.name != f.metric), f.first_step))
        .filter(|f| f.kind != Kind::NonFinite || !proven(rate, loss, f, others))
        .map(|f| (f.first_step, f.kind.name().replace('_', "-")));
    let (first, what) =
        lost.or_else(|| loss.and_then(blown_up).map(|step| (step, "an early explosion".to_owned())))?;
    let (now, peak) = (rate_at(rate, first)?, peak(rate));
    // Lost while the rate is low: something else did it.
    (peak > 0.0 && now >= 0.5 * peak).then(|| Finding {
        kind: Kind::LearningRateTooHigh,
        severity: Severity::Warning,
        metric: rate.track.name.clone(),
        first_step: first,
        last_step: None,
        window: rate.track.count,
        threshold: 0.5 * peak,
        evidence: facts([("learning rate there", now), ("highest learning rate", peak)]),
        recommendation: format!(
            "{what}{} came at a learning rate of {}, {}% of its highest: {}",
            at(first),
            short(now),
            (100.0 * now / peak).round(),
            match loss.map(|l| values_before(l, first)) {
                Some(few) if few < AT_ONCE => {
                    format!(
                        "it was lost after {few} of its values, so search upwards from rates far below it"
                    )
                }
                _ => format!("try {}", short(now / 3.0)),
            }
        ),
    })
}

/// Whether the loss had done well at that rate, or at a higher one, for long before it was no number at
/// `lost`, and nothing foretold it: then the rate did not do it.
fn proven(rate: &View<'_>, loss: Option<&View<'_>>, lost: &Finding, others: &[Finding]) -> bool {
    let (Some(loss), step) = (loss, lost.first_step) else { return false };
    let buckets = rate.track.sketch.buckets();
    let at = buckets.iter().rposition(|b| step.is_none_or(|s| b.first_step <= s)).unwrap_or(0);
    let held = buckets[..at / 2].iter().map(|b| b.min).fold(0.0, f64::max);
    let margin = loss.track.last_step.unwrap_or(0) / 20 + 2;
    let foretold = others.iter().any(|f| {
        let trouble = matches!(
            f.kind,
            Kind::Spike | Kind::GradientExplosion | Kind::Oscillation | Kind::Regression | Kind::Divergence
        );
        let lasted = f.last_step.is_none_or(|last| step.is_none_or(|s| last.saturating_add(margin) >= s));
        trouble && f.first_step <= step && lasted
    });
    let before = lost.fact("last finite value before").unwrap_or(f64::NAN);
    let level = loss.curve.value(loss.levels.last());
    let rose = lost.metric == loss.track.name && before > WILD * level && level > 0.0;
    let well = values_before(loss, step) >= PROVEN;
    well && !foretold && !rose && rate_at(rate, step).is_some_and(|now| now <= 1.1 * held)
}

/// How many finite values a loss had before `step`; all of them where no step is
/// known.
fn values_before(loss: &View<'_>, step: Option<u64>) -> u64 {
    let before = loss.curve.nodes.iter().filter(|n| step.is_none_or(|step| n.first_step() < Some(step)));
    before.map(|n| u64::from(n.n)).sum()
}

/// A loss that leapt up in its first points and has been flat since: the step
/// of the leap's top.
pub(in crate::judge) fn blown_up(loss: &View<'_>) -> Option<Option<u64>> {
    let levels = &loss.levels;
    let (high, step) = loss.track.highest?;
    let first = loss.track.start.first().copied()?;
    let early = loss.curve.nodes.first().and_then(super::super::curve::Node::last_step);
    if levels.len() < 10 || high < 1.5 * first || step > early.max(Some(10)) {
        return None;
    }
    let sd = loss.point_noise();
    if loss.curve.scaled(high) - loss.curve.scaled(first) < 6.0 * sd {
        return None;
    }
    let half = &levels.y[1..];
    let moved = (half.len() as f64 * fit::theil_sen(half)).abs();
    (moved < 0.1 && loss.curve.value(levels.first()) < 0.7 * high).then_some(step)
}

/// A rate that starts at its peak, and a loss that within the first part of
/// the run rises beyond noise above where it began, or above what came before.
fn no_warmup(rate: &View<'_>, loss: &View<'_>) -> Option<Finding> {
    let (first, peak) = (rate.track.start.first().copied()?, peak(rate));
    if first < WARM * peak || peak <= 0.0 || loss.curve.points() < 100 {
        return None;
    }
    let buckets = loss.track.sketch.buckets();
    let early = ((buckets.len() as f64 * EARLY) as usize).max(8).min(buckets.len());
    let rise = bump(loss, &buckets[..early])?;
    Some(Finding {
        kind: Kind::WarmupMissing,
        severity: Severity::Warning,
        metric: rate.track.name.clone(),
        first_step: rise.first,
        last_step: rise.back,
        window: u64::from(early as u32),
        threshold: rise.threshold,
        evidence: facts([
            ("highest early level of the loss", rise.top),
            ("loss at the start", rise.start),
            ("first learning rate", first),
            ("highest learning rate", peak),
        ]),
        recommendation: format!(
            "the learning rate starts at {}, its highest, and the loss rose from {} to {} in the first steps: warm it up over the first {} steps or more",
            short(first),
            short(rise.start),
            short(rise.top),
            rise.back.unwrap_or(100)
        ),
    })
}

struct Bump {
    first: Option<u64>,
    back: Option<u64>,
    top: f64,
    start: f64,
    threshold: f64,
}

/// Deviations of the difference of two means above which a loss rose.
const ROSE: f64 = 3.2;
/// The least rise that counts, on the logarithmic scale.
const LEAST_RISE: f64 = 0.2;

/// An early rise of the loss above its start that came back later. How long
/// the start lasted is not known, nor how long the top: the clearest of several
/// is taken. A loss that falls from the first step makes all of them negative.
fn bump(loss: &View<'_>, early: &[Bucket]) -> Option<Bump> {
    let log = loss.track.sketch.positive();
    let scale = |v: f64| if log { v.max(f64::MIN_POSITIVE).ln() } else { v };
    let value = |y: f64| if log { y.exp() } else { y };
    let ys: Vec<f64> = early.iter().map(|b| b.level(log)).collect();
    let starts: Vec<f64> = loss.track.start.iter().map(|v| scale(*v)).collect();
    let per = f64::from(early[0].n);
    // A later part may have no noise at all.
    let (whole, here) = (loss.point_noise(), fit::noise(&ys) * per.sqrt());
    let point = if whole < 0.5 * here { here } else { whole }.max(1e-6);
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len().max(1) as f64;
    // Deviations, start, top, the node at which the top begins.
    let mut best: Option<(f64, f64, f64, usize)> = None;
    for few in [1, 2, 4, 8, 16].into_iter().filter(|f| *f <= starts.len()) {
        let start = mean(&starts[..few]);
        let after = (few as f64 / per).ceil() as usize;
        for width in [2, 4, 6, 9, 14].into_iter().filter(|w| after + w <= ys.len()) {
            for from in after..=ys.len() - width {
                let top = mean(&ys[from..from + width]);
                let spread = point * (1.0 / few as f64 + 1.0 / (width as f64 * per)).sqrt();
                let deviations = (top - start) / spread;
                if top - start > LEAST_RISE && best.is_none_or(|b| deviations > b.0) {
                    best = Some((deviations, start, top, from));
                }
            }
        }
    }
    let (deviations, start, top, from) = best.filter(|b| b.0 > ROSE)?;
    let threshold = (top - start) * (ROSE / deviations).min(1.0);
    let after = mean(&ys[ys.len() - ys.len().min(3)..]);
    if top - after < threshold / 2.0 && top - loss.levels.last() < threshold {
        return None;
    }
    let back = (from..early.len()).find(|i| ys[*i] <= start);
    Some(Bump {
        first: loss.track.first_step,
        back: back.map(|i| early[i].first_step).filter(|s| *s != crate::judge::sketch::NO_STEP),
        top: value(top),
        start: value(start),
        threshold: value(start + threshold),
    })
}

fn vanished(rate: &View<'_>, loss: Option<&View<'_>>) -> Option<Finding> {
    let buckets = rate.track.sketch.buckets();
    let peak = peak(rate);
    if buckets.len() < 20 || peak <= 0.0 {
        return None;
    }
    let low = buckets.iter().rposition(|b| b.max > VANISHED * peak)? + 1;
    let all: u64 = rate.track.sketch.count();
    let points: u64 = buckets[low..].iter().map(|b| u64::from(b.n)).sum();
    let share = points as f64 / all as f64;
    if share < LASTING {
        return None;
    }
    // Little was lost if the loss had come to rest long before.
    let first = buckets[low].first_step;
    let rested = loss.and_then(|l| super::plateau::flat_end(l, 1.0).and_then(|f| l.step_of_node(f.node)));
    let start = buckets[0].first_step;
    let nothing_lost = rested
        .is_some_and(|s| first > start && (s.saturating_sub(start) as f64) < 0.85 * (first - start) as f64);
    let step = (first != crate::judge::sketch::NO_STEP).then_some(first);
    Some(Finding {
        kind: Kind::LearningRateVanished,
        severity: if nothing_lost { Severity::Note } else { Severity::Warning },
        metric: rate.track.name.clone(),
        first_step: step,
        last_step: None,
        window: points,
        threshold: VANISHED * peak,
        evidence: facts([
            ("learning rate now", rate.track.last),
            ("highest learning rate", peak),
            ("share of the run without one", share),
        ]),
        recommendation: format!(
            "the learning rate has been below {} (a thousandth of its highest, {}){} for {}% of the run: lengthen the schedule to the length of the run, or end the run there",
            short(VANISHED * peak),
            short(peak),
            at(step),
            (100.0 * share).round()
        ),
    })
}
