//! NaN and infinities: exact, on every point.

use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::schema::Role;
use crate::judge::track::Track;

/// Finite values after which a metric counts as recovered.
const RECOVERED: u64 = 10;

/// Counts what is not finite.
#[derive(Debug, Clone, Default)]
pub(in crate::judge) struct Watch {
    nan: u64,
    infinite: u64,
    first: Option<(Option<u64>, f64)>,
    last: Option<u64>,
    before: Option<f64>,
    finite_since: u64,
    newest: Option<f64>,
}

impl Watch {
    pub(in crate::judge) fn push(&mut self, step: Option<u64>, value: f64) {
        if value.is_finite() {
            self.finite_since += 1;
            self.newest = Some(value);
            return;
        }
        if self.first.is_none() {
            self.first = Some((step, value));
            self.before = self.newest;
        }
        self.finite_since = 0;
        self.last = step;
        self.nan += u64::from(value.is_nan());
        self.infinite += u64::from(value.is_infinite());
    }
}

impl Watch {
    /// How many values were not finite.
    pub(in crate::judge) fn all(&self) -> u64 {
        self.nan + self.infinite
    }

    /// Forgets what began at `from` or after.
    pub(in crate::judge) fn void(&mut self, from: u64) {
        if self.first.is_some_and(|(step, _)| step.is_some_and(|s| s >= from)) {
            *self = Self::default();
        } else if self.last >= Some(from) {
            self.last = Some(from.saturating_sub(1));
        }
    }
}

pub(in crate::judge) fn find(track: &Track) -> Option<Finding> {
    let watch = &track.nonfinite;
    let (first, value) = watch.first?;
    let recovered = watch.finite_since >= RECOVERED;
    let matters = matches!(track.traits.role, Role::Loss | Role::GradientNorm);
    let severity = match (matters, recovered) {
        (true, false) => Severity::Critical,
        // Mixed precision meets an infinite gradient now and then and skips it.
        (true, true) if track.traits.role == Role::GradientNorm => Severity::Note,
        _ => Severity::Warning,
    };
    let all = watch.nan + watch.infinite;
    let before = watch.before.map(|v| format!(" after {}", short(v))).unwrap_or_default();
    let recommendation = if recovered {
        format!(
            "{} was {}{}{before} and is finite again; {all} of {} values were not: look at the batches there",
            track.name,
            short(value),
            at(first),
            track.count
        )
    } else {
        format!(
            "{} became {}{}{before} and {all} of {} values are not finite: stop, go back to a checkpoint before that step, and lower the learning rate or clip gradients",
            track.name,
            short(value),
            at(first),
            track.count
        )
    };
    Some(Finding {
        kind: Kind::NonFinite,
        severity,
        metric: track.name.clone(),
        first_step: first,
        last_step: if recovered { watch.last } else { None },
        window: track.count,
        threshold: 0.0,
        evidence: facts([
            ("values not finite", all as f64),
            ("NaN", watch.nan as f64),
            ("infinite", watch.infinite as f64),
            ("last finite value before", watch.before.unwrap_or(f64::NAN)),
        ]),
        recommendation,
    })
}
