//! The loss scale of mixed precision: it halves at every overflow and doubles
//! after a quiet time. A scale that only falls means that every step overflows.

use crate::judge::finding::{Finding, Kind, Severity, at, facts, short};
use crate::judge::track::Track;

/// Falls in a row, with no rise between, that no calibration needs.
const FALLS: u32 = 12;
/// Values between two falls after which a new row begins.
const QUIET: u32 = 50;
/// A scale this small, after one 64 times larger, protects nothing.
const USELESS: f64 = 1.0;

/// The present row of falls, and the longest.
#[derive(Debug, Clone, Default)]
pub(in crate::judge) struct Watch {
    newest: Option<f64>,
    /// Values since the last fall.
    quiet: u32,
    row: Row,
    worst: Option<Row>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    falls: u32,
    first: Option<u64>,
    last: Option<u64>,
    from: f64,
    to: f64,
}

impl Row {
    fn collapsed(&self) -> bool {
        self.falls >= FALLS || (self.to <= USELESS && self.from >= 64.0 * self.to.max(f64::MIN_POSITIVE))
    }
}

impl Watch {
    pub(in crate::judge) fn push(&mut self, step: Option<u64>, value: f64) {
        let before = self.newest.replace(value).unwrap_or(value);
        self.quiet = self.quiet.saturating_add(1);
        // Single falls, far apart, are how the scale finds its place.
        let pause = if self.row.falls < FALLS { QUIET } else { 20 * QUIET };
        if value > before || value < before && self.quiet > pause {
            self.row = Row::default();
        }
        if value < before {
            self.quiet = 0;
            if self.row.falls == 0 {
                (self.row.first, self.row.from) = (step, before);
            }
            self.row.falls += 1;
            (self.row.last, self.row.to) = (step, value);
            if self.row.collapsed() && self.worst.is_none_or(|w| self.row.falls >= w.falls) {
                self.worst = Some(self.row);
            }
        }
    }
}

impl Watch {
    /// Forgets rows of falls that began at `from` or after.
    pub(in crate::judge) fn void(&mut self, from: u64) {
        if self.row.first >= Some(from) {
            (self.row, self.newest) = (Row::default(), None);
        }
        self.worst = self.worst.filter(|w| w.first < Some(from));
    }
}

pub(in crate::judge) fn find(track: &Track) -> Option<Finding> {
    let watch = track.scale.as_ref().filter(|_| track.knobs.sensitivity > 0.0)?;
    let row = watch.worst?;
    let lasts = watch.row.collapsed();
    Some(Finding {
        kind: Kind::LossScaleCollapse,
        severity: if lasts { Severity::Critical } else { Severity::Warning },
        metric: track.name.clone(),
        first_step: row.first,
        last_step: if lasts { None } else { row.last },
        window: track.count,
        threshold: f64::from(FALLS),
        evidence: facts([("falls in a row", f64::from(row.falls)), ("from", row.from), ("to", row.to)]),
        recommendation: format!(
            "{} fell {} times in a row{}, from {} to {}: steps overflow one after the other; use bfloat16, or look for what overflows",
            track.name,
            row.falls,
            at(row.first),
            short(row.from),
            short(row.to)
        ),
    })
}
