//! What a curve does because somebody meant it to: a learning rate that is raised again, a stage
//! that begins with harder data. Such a rise is worth knowing and is no fault.
//!
//! A loss that is lost for good is a fault whatever was meant, and stays one.

use super::super::Judge;
use super::super::detect::View;
use super::super::finding::{Finding, Kind, Severity, short};
use super::super::sketch::{Bucket, NO_STEP};

/// Times what it was that a rate must rise to, and the share of its highest so far, to be a
/// restart of its schedule rather than a warm-up.
const RAISED: f64 = 2.0;
const OF_HIGHEST: f64 = 0.5;

/// Makes notes of rises that a restart of the rate or the begin of a stage explains.
pub(super) fn explain(judge: &Judge, rate: Option<&View<'_>>, found: &mut [Finding]) {
    let run = judge.max_step.unwrap_or(0);
    let margin = run / 50 + 2;
    for finding in found.iter_mut() {
        let Some(first) = finding.first_step.filter(|_| may_be_meant(finding)) else { continue };
        let restart = rate.and_then(|rate| raised(rate.track.sketch.buckets(), first, margin));
        let stage = || {
            let stages = judge.settings.schema.stages.iter();
            let mut near = stages.filter(|s| s.from_step > 0 && s.from_step.abs_diff(first) <= margin);
            near.next()
        };
        let why = match (restart, stage()) {
            (Some((low, high)), _) => format!(
                "there the learning rate was raised again, from {} to {}: a warm restart, after which a loss comes back as the rate falls",
                short(low),
                short(high)
            ),
            (None, Some(stage)) => {
                format!("there stage `{}` begins: hold it against values of that stage alone", stage.name)
            }
            (None, None) => continue,
        };
        finding.severity = Severity::Note;
        finding.recommendation = format!("{}; {why}", rise(finding));
    }
}

fn may_be_meant(finding: &Finding) -> bool {
    let lost = finding.severity == Severity::Critical
        && finding
            .fact("level now")
            .zip(finding.fact("value at the start"))
            .is_none_or(|(now, start)| now > start);
    match finding.kind {
        Kind::Spike => true,
        Kind::Regression => finding.severity < Severity::Critical,
        Kind::Divergence => !lost,
        _ => false,
    }
}

/// What rose, in words.
fn rise(finding: &Finding) -> String {
    let numbers = match finding.kind {
        Kind::Spike => finding.fact("level before").zip(finding.fact("peak")),
        _ => finding.fact("best level").zip(finding.fact("level now")),
    };
    let step = finding.first_step.map(|s| format!(" at step {s}")).unwrap_or_default();
    let (before, after) = numbers.unwrap_or((f64::NAN, f64::NAN));
    format!("{} went from {} to {}{step}", finding.metric, short(before), short(after))
}

/// The lowest rate right before `step` and the highest right after it, where it was raised there
/// and had been as high before.
fn raised(rates: &[Bucket], step: u64, margin: u64) -> Option<(f64, f64)> {
    let near = |b: &&Bucket| {
        b.first_step != NO_STEP
            && b.last_step.saturating_add(margin) >= step
            && b.first_step <= step.saturating_add(margin)
    };
    let (mut low, mut restart) = (f64::MAX, None);
    for bucket in rates.iter().filter(near) {
        // In a bucket that the restart cuts its lowest came before its highest, as in a cycle it must.
        low = low.min(bucket.min);
        if bucket.max >= RAISED * low.max(f64::MIN_POSITIVE) {
            restart = Some((low, restart.map_or(bucket.max, |(_, high): (f64, f64)| high.max(bucket.max))));
        }
    }
    let (_, high) = restart?;
    let before = rates.iter().filter(|b| b.last_step.saturating_add(margin) < step);
    let highest = before.map(|b| b.max).fold(0.0, f64::max);
    restart.filter(|_| highest >= OF_HIGHEST * high)
}
