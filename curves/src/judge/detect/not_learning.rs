//! Runs that learn next to nothing, told from noise: what they can have gained
//! at most is bounded, for gains that came at once, soon, late or evenly.

use super::View;
use super::gain::{Gain, gained, together};
use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::fit;
use crate::judge::schema::{Direction, Role, Split};
use crate::judge::track::FEW;

/// Share of the start below which nothing was learned.
const LEARNED: f64 = 0.03;
/// Within which part of the run a gain came, and how much of one makes a run
/// that learned.
const GAINS: [(f64, f64); 4] = [(0.03, 0.2), (0.1, 0.12), (0.3, 0.12), (1.0, 0.12)];
/// Deviations of the gain that are added before it is compared.
const SURE: f64 = 1.3;
/// Fewest points, and groups of them, that are looked at; below `MANY` points of a run
/// that is to go on evaluations must say the same.
const POINTS: u64 = 20;
const GROUPS: usize = 6;
const MANY: u64 = 50;
/// A rate that is so many times what it was at half of the points is still warming up.
const WARMING: f64 = 1.5;

/// What else is known of the run.
#[derive(Clone, Copy)]
pub(in crate::judge) struct Around<'a, 'b> {
    /// All its metrics.
    pub(in crate::judge) views: &'a [View<'b>],
    /// Its highest learning rate.
    pub(in crate::judge) rate: Option<f64>,
    /// The rate's curve.
    pub(in crate::judge) rates: Option<&'a View<'b>>,
    /// How long the whole run is against what was seen of it.
    pub(in crate::judge) run: f64,
}

/// A training loss that cannot have fallen by an eighth in the whole run. With
/// a known learning rate and an even fall the rate is too low. `beside` is the
/// same loss on other data, which is often stiller: what improves neither was
/// not learned. Nor is that said where a score improves, or of the warm-up.
pub(in crate::judge) fn find(
    view: &View<'_>,
    around: &Around<'_, '_>,
    beside: &[&View<'_>],
) -> Option<Finding> {
    let (levels, rate) = (&view.levels, around.rate);
    let judged = view.track.is_training_loss() && view.track.knobs.sensitivity > 0.0;
    if !judged || levels.len() < GROUPS || view.curve.points() < POINTS || too_soon(view, around) {
        return None;
    }
    let relative =
        |y: f64| if view.curve.in_logarithms() { y } else { y / view.track.start().abs().max(1e-9) };
    // What was learned in the first moments is learned too.
    let head = fit::middle_mean(&mut levels.y[..levels.len() / 3].to_vec());
    let start = relative(view.curve.scaled(view.track.start()) - head);
    let few = (view.track.start.len().clamp(1, FEW) as f64).sqrt();
    if start > LEARNED + relative(4.0 * view.point_noise() / few) {
        return None;
    }
    let same = |v: &&View<'_>| v.curve.in_logarithms() == view.curve.in_logarithms();
    let others = beside.iter().copied().filter(same);
    let curves: Vec<(&View<'_>, usize)> = std::iter::once(view).chain(others).map(|v| (v, 0)).collect();
    let mut gain = f64::NAN;
    for (within, learned) in GAINS {
        let Gain { gain: known, variance } = together(&curves, within)?;
        let (known, sd) = (relative(known), relative(variance.sqrt()));
        if known + SURE * sd > learned || known - sd > 2.0 * LEARNED || known < -LEARNED - 2.5 * sd {
            return None;
        }
        gain = known;
    }
    if around.views.iter().any(score_improved) {
        return None;
    }
    let half = levels.len() / 2;
    let falls = fit::mann_kendall(&levels.y) < -2.6;
    let late = fit::theil_sen(&levels.y[half..]) < 0.4 * fit::theil_sen(&levels.y[..half]);
    let too_low = rate.filter(|_| falls && late);
    let now = view.curve.value(levels.last());
    let advice = match too_low {
        Some(lr) => {
            format!("it falls evenly but hardly at a learning rate of {}: try ten times as much", short(lr))
        }
        None => {
            "check that gradients reach the weights, the labels belong to the inputs, and the learning rate"
                .into()
        }
    };
    Some(Finding {
        kind: if too_low.is_some() { Kind::LearningRateTooLow } else { Kind::NotLearning },
        severity: Severity::Warning,
        metric: view.track.name.clone(),
        first_step: view.track.first_step,
        last_step: None,
        window: view.curve.points(),
        threshold: 2.0 * LEARNED,
        evidence: facts([
            ("share gained over the run, if evenly", gain),
            ("value at the start", view.track.start()),
            ("level now", now),
            ("learning rate", rate.unwrap_or(f64::NAN)),
        ]),
        recommendation: format!(
            "{} went from {} to {} in {} points: {advice}",
            view.track.name,
            short(view.track.start()),
            short(now),
            view.curve.points()
        ),
    })
}

/// Whether more is to come before anything can be said: the rate still rises, or there are few
/// points of a long run and no evaluation beside them.
fn too_soon(view: &View<'_>, around: &Around<'_, '_>) -> bool {
    let (few, ahead) = (view.curve.points() < MANY, around.run > 1.05);
    let warming = around.rates.is_some_and(|rates| {
        let half = rates.levels.y.get(rates.levels.len() / 2).map_or(0.0, |y| rates.curve.value(*y));
        rates.curve.value(rates.levels.last()) > WARMING * half
    });
    let evaluated = || {
        let still = |v: &&View<'_>| v.track.traits.split == Split::Validation && judges(v) && bounded(v);
        around.views.iter().filter(still).count() > 0
    };
    warming && (few || ahead) || few && ahead && !evaluated()
}

/// Whether a metric says how good the model is, by values enough.
fn judges(view: &View<'_>) -> bool {
    let traits = &view.track.traits;
    traits.direction != Direction::Unknown
        && matches!(traits.role, Role::Loss | Role::Score | Role::Error)
        && view.curve.nodes.len() >= FEWEST
}

/// A score or an error that gained more than noise and what an idle model may.
fn score_improved(view: &View<'_>) -> bool {
    let beyond = |learned: f64, g: Gain| g.gain > learned + 2.5 * g.variance.sqrt();
    matches!(view.track.traits.role, Role::Score | Role::Error)
        && judges(view)
        && GAINS
            .iter()
            .any(|(within, learned)| relatively(view, *within).is_some_and(|g| beyond(*learned, g)))
}

/// Still enough to have shown a gain, and without one.
fn bounded(view: &View<'_>) -> bool {
    GAINS.iter().all(|(within, learned)| {
        relatively(view, *within).is_some_and(|g| g.gain + SURE * g.variance.sqrt() <= *learned)
    })
}

/// What `view` gained, in shares of its start.
fn relatively(view: &View<'_>, within: f64) -> Option<Gain> {
    let unit = if view.curve.in_logarithms() { 1.0 } else { view.track.start().abs().max(1e-9) };
    gained(view, 0, within).map(|g| Gain { gain: g.gain / unit, variance: g.variance / unit / unit })
}

/// Fewest evaluations that say whether anything was learned.
const FEWEST: usize = 8;

/// Whether a run whose loss leapt up at `step`, in its first moments, has
/// learned nothing since: the loss is flat, and no evaluation improved either.
/// That the loss is below the leap, or below a bad first value, is no gain.
pub(in crate::judge) fn after_leap(
    loss: &View<'_>,
    step: Option<u64>,
    views: &[View<'_>],
) -> Option<Finding> {
    let judged = |v: &&View<'_>| v.track.traits.split == Split::Validation && judges(v);
    let evaluations: Vec<&View<'_>> = views.iter().filter(judged).collect();
    let improved = |v: &&View<'_>| {
        let beyond_noise = |g: Gain| g.gain > LEARNED + 2.5 * g.variance.sqrt();
        GAINS.iter().any(|(within, _)| relatively(v, *within).is_none_or(beyond_noise))
    };
    // One at least must be still enough to have shown it.
    if evaluations.iter().any(improved) || !evaluations.iter().any(|v| bounded(v)) {
        return None;
    }
    let high = loss.track.highest.map_or(f64::NAN, |h| h.0);
    let now = loss.curve.value(loss.levels.last());
    Some(Finding {
        kind: Kind::NotLearning,
        severity: Severity::Warning,
        metric: loss.track.name.clone(),
        first_step: step,
        last_step: None,
        window: loss.curve.points(),
        threshold: 2.0 * LEARNED,
        evidence: facts([
            ("evaluations without a gain", evaluations.len() as f64),
            ("highest value", high),
            ("value at the start", loss.track.start()),
            ("level now", now),
        ]),
        recommendation: format!(
            "{} leapt to {}{} and has stayed near {} since, and no evaluation has improved: start again with a lower learning rate",
            loss.track.name,
            short(high),
            at(step),
            short(now)
        ),
    })
}
