//! Memory and disks that fill up while a run goes on.
//!
//! Told with the numbers that were logged and in no unit but the name's own. When
//! one is full is said only where its name says that it is a percentage or what is
//! left, or where its total is logged beside it.

use serde::{Deserialize, Serialize};

use super::super::Judge;
use super::super::fit;
use super::super::schema::{Fill, Role, fill, total_of};
use super::super::sketch::{Bucket, NO_STEP};
use super::short;
use crate::number;

/// Groups of the later half that a slope is fitted to, and the fewest.
const GROUPS: usize = 48;
const FEWEST: usize = 12;
/// Mann-Kendall's z that a growth must have: chance gives it in one of 200.
const SURE: f64 = 2.58;
/// Share of its level that it must grow by in the later half.
const SHARE: f64 = 0.02;
/// Share of the slope that the end must still have.
const STILL: f64 = 0.3;
/// Times the length seen beyond which nothing is foreseen.
const AHEAD: f64 = 10.0;

/// One that grows, or whose rest shrinks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceTrend {
    /// Its name in the log.
    pub name: String,
    /// Its level in the middle of the log.
    #[serde(with = "number")]
    pub from: f64,
    /// Its newest level.
    #[serde(with = "number")]
    pub to: f64,
    /// Theil-Sen slope of the later half, in an hour where it is measured at times
    /// and in a thousand steps where it is logged with them.
    #[serde(with = "number")]
    pub slope: f64,
    /// Whether `slope` and `seconds_left` are by the clock.
    pub timed: bool,
    /// Mann-Kendall's z of the same levels.
    #[serde(with = "number")]
    pub z: f64,
    /// Where it ends: 100, its total, or 0; `None` where nothing says.
    #[serde(with = "number::option")]
    pub limit: Option<f64>,
    /// The step at which it is there, if it goes on like this.
    pub limit_step: Option<u64>,
    /// Seconds until it is there, if it goes on like this.
    pub seconds_left: Option<f64>,
    /// In words.
    pub text: String,
}

struct Growth {
    from: f64,
    to: f64,
    /// In one place: a step or a millisecond.
    slope: f64,
    z: f64,
    /// The newest place, and how many were seen.
    newest: u64,
    seen: u64,
}

/// What fills up, the first to be full first.
pub(super) fn resources(judge: &Judge) -> Vec<ResourceTrend> {
    let logged = judge.tracks.iter().filter(|t| t.traits.role == Role::Resource && t.knobs.sensitivity > 0.0);
    let all: Vec<(&str, &[Bucket], bool)> = logged
        .map(|track| (track.name.as_str(), track.sketch.buckets(), false))
        .chain(judge.machine.all().map(|(name, sketch)| (name, sketch.buckets(), true)))
        .collect();
    let mut found: Vec<ResourceTrend> = all
        .iter()
        .filter_map(|(name, buckets, timed)| {
            let kind = fill(name)?;
            let growth = growth(buckets)?;
            let total = || {
                let total = all.iter().find(|other| total_of(name, other.0))?;
                total.1.last().map(|bucket| bucket.level(false))
            };
            let limit = match kind {
                Fill::Left => Some(0.0),
                Fill::Percentage if growth.to <= 100.0 => Some(100.0),
                _ => total().filter(|total| *total >= growth.to),
            };
            // What is left shrinks; the rest grows.
            ((growth.slope < 0.0) == (kind == Fill::Left)).then(|| told(judge, name, &growth, limit, *timed))
        })
        .collect();
    let near = |trend: &ResourceTrend| match (trend.seconds_left, trend.limit_step) {
        (Some(seconds), _) => (0, seconds),
        (None, Some(step)) => (1, step as f64),
        _ => (2, 0.0),
    };
    found.sort_by(|a, b| near(a).0.cmp(&near(b).0).then(near(a).1.total_cmp(&near(b).1)));
    found
}

/// The growth of the later half, if it is beyond noise and has not ended.
fn growth(buckets: &[Bucket]) -> Option<Growth> {
    let half = &buckets[buckets.len() / 2..];
    let groups = half.len().min(GROUPS);
    if groups < FEWEST || half.iter().any(|bucket| bucket.first_step == NO_STEP) {
        return None;
    }
    let group = |g: usize| &half[g * half.len() / groups..(g + 1) * half.len() / groups];
    let levels: Vec<f64> = (0..groups)
        .map(|g| fit::median_of(&group(g).iter().map(|b| b.level(false)).collect::<Vec<_>>()))
        .collect();
    let places: Vec<u64> = (0..groups).map(|g| group(g)[0].first_step).collect();
    let slope = |from: usize| {
        let mut slopes: Vec<f64> = (from..groups)
            .flat_map(|a| (a + 1..groups).map(move |b| (a, b)))
            .filter(|(a, b)| places[*b] > places[*a])
            .map(|(a, b)| (levels[b] - levels[a]) / (places[b] - places[a]) as f64)
            .collect();
        fit::median(&mut slopes)
    };
    let (whole, end, z) = (slope(0)?, slope(groups - (groups / 3).max(4))?, fit::mann_kendall(&levels));
    let (from, to) = (fit::median_of(&levels[..3]), fit::median_of(&levels[groups - 3..]));
    let noise = fit::noise(&levels);
    let grown = (to - from).abs();
    let sure = z.abs() > SURE && grown > 3.0 * noise && grown > SHARE * from.abs().max(to.abs());
    let goes_on = whole != 0.0 && end / whole > STILL && (to - from) * whole > 0.0;
    let newest = half.last()?.last_step;
    let seen = newest.checked_sub(buckets.first()?.first_step)?;
    (sure && goes_on).then_some(Growth { from, to, slope: whole, z, newest, seen })
}

fn told(judge: &Judge, name: &str, growth: &Growth, limit: Option<f64>, timed: bool) -> ResourceTrend {
    let ahead = limit.map(|limit| (limit - growth.to) / growth.slope);
    let ahead = ahead
        .filter(|a| judge.end.is_none() && a.is_finite() && (0.0..AHEAD * growth.seen as f64).contains(a));
    let seconds_left = ahead.filter(|_| timed).map(|ms| ms / 1000.0);
    let limit_step = ahead.filter(|_| !timed).map(|steps| growth.newest.saturating_add(steps as u64));
    let slope = growth.slope * if timed { 3_600_000.0 } else { 1000.0 };
    let (way, full) = if growth.slope < 0.0 { ("fell", "used up") } else { ("rose", "full") };
    let per = if timed { "an hour" } else { "in 1000 steps" };
    let course = format!(
        "{name} {way} from {} to {} in the later half ({} {per})",
        short(growth.from),
        short(growth.to),
        short(slope)
    );
    let planned = judge.settings.planned_steps;
    let end = match (limit_step, seconds_left) {
        (Some(step), _) if planned.is_some_and(|planned| step >= planned) => {
            format!(": {full} near step {step}, after the planned end")
        }
        (Some(step), _) => format!(": {full} near step {step}"),
        (None, Some(seconds)) => format!(": {full} in about {}", super::summary::duration(seconds)),
        (None, None) if limit.is_none() => "; no total is logged that says when it is full".to_owned(),
        (None, None) => String::new(),
    };
    ResourceTrend {
        name: name.to_owned(),
        from: growth.from,
        to: growth.to,
        slope,
        timed,
        z: growth.z,
        limit,
        limit_step,
        seconds_left,
        text: format!("{course}{end}"),
    }
}
