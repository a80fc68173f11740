//! Comparison by stage: what each run gained in each part of its steps that
//! `[metrics] stages` names. The stages are the first run's, and all runs are
//! looked at over the same steps of a stage, never over more than all have been in.

use curves::judge::schema::Stage;
use curves::judge::short;
use curves::view::{Course, Stretch, at, stretch};
use serde_json::{Value, json};

use super::super::numbers;
use super::super::stats::importance;
use super::{Compared, Side, letter, percent};
use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// Where a stage begins, and where the next one does.
pub(super) type Bounds = (u64, Option<u64>);

/// One metric in one stage of all runs.
pub(super) struct Staged {
    stage: String,
    metric: String,
    found: Stretch,
}

fn bounds(stages: &[Stage]) -> impl Iterator<Item = (&Stage, Bounds)> {
    let ends = stages.iter().skip(1).map(|next| Some(next.from_step)).chain([None]);
    stages.iter().zip(ends).map(|(stage, end)| (stage, (stage.from_step, end)))
}

fn of(sides: &[Side]) -> &[Stage] {
    sides.first().map_or(&[], |side| side.run.gathered.stages())
}

/// The stage that somebody means.
///
/// # Errors
/// There is none of that name.
pub(super) fn named(sides: &[Side], name: &str) -> Result<Bounds, Failure> {
    let stages = of(sides);
    let found = bounds(stages).find(|(stage, _)| stage.name == name).map(|(_, bounds)| bounds);
    found.ok_or_else(|| {
        let all: Vec<String> = stages.iter().map(|stage| words::name(&stage.name)).collect();
        let message = match all.len() {
            0 => format!("no stage {}: the first run has none", words::quoted(name)),
            _ => format!("no stage {}; there are {}", words::quoted(name), all.join(", ")),
        };
        let help = "stages are named in outlast.toml: [metrics] stages = [{ name = \"warm-up\", from = 0 }, { name = \"main\", from = 1000 }]";
        Failure::new(ExitCode::NotFound, message).help(help)
    })
}

/// A metric of all runs at the last step of a stage that all have reached.
pub(super) fn at_end(name: &str, sides: &[Side], (from, end): Bounds) -> Option<Compared> {
    let courses: Vec<Option<Course>> = sides.iter().map(|side| side.run.course(name)).collect();
    let found = stretch(&courses, from, end)?;
    let cells = courses.iter().zip(sides).zip(&found.cells);
    let cells = cells.map(|((course, side), cell)| {
        let step = side.step.or_else(|| cell.map(|(_, last)| last.step))?;
        at(course.as_ref()?, step).ok()
    });
    Compared::of(name, cells.collect())
}

/// Every stage of the metrics that are shown.
pub(super) fn all(sides: &[Side], shown: &[&Compared]) -> Vec<Staged> {
    let mut staged = Vec::new();
    for one in shown {
        let courses: Vec<Option<Course>> = sides.iter().map(|side| side.run.course(&one.name)).collect();
        for (stage, (from, end)) in bounds(of(sides)) {
            if let Some(found) = stretch(&courses, from, end) {
                staged.push(Staged { stage: stage.name.clone(), metric: one.name.clone(), found });
            }
        }
    }
    staged
}

impl Staged {
    pub(super) fn rank(&self, primary: Option<&str>) -> u8 {
        if primary == Some(self.metric.as_str()) { 1 } else { 2 + importance(&self.metric) }
    }

    fn gains(&self) -> impl Iterator<Item = Option<f64>> {
        self.found.cells.iter().map(|cell| cell.and_then(|(first, last)| percent(first.value, last.value)))
    }

    pub(super) fn line(&self) -> String {
        let said = |(index, (cell, gain)): (usize, (&Option<_>, Option<f64>))| {
            let mark = letter(index);
            let Some((first, last)): &Option<(curves::view::At, curves::view::At)> = cell else {
                return format!("{mark} none");
            };
            let gain = gain.map(|gain| format!(" ({}{}%)", if gain >= 0.0 { "+" } else { "" }, short(gain)));
            format!("{mark} {} to {}{}", short(first.value), short(last.value), gain.unwrap_or_default())
        };
        let cells: Vec<String> = self.found.cells.iter().zip(self.gains()).enumerate().map(said).collect();
        let Stretch { from, to, .. } = self.found;
        let stage = words::name(&self.stage);
        format!(
            "  stage {stage}, steps {from} to {to}, {}: {}",
            words::metric(&self.metric),
            cells.join(", ")
        )
    }

    pub(super) fn object(&self) -> Value {
        let cells = self.found.cells.iter().zip(self.gains()).map(|(cell, gain)| {
            cell.map(|(first, last)| {
                json!({
                    "first": numbers::json(first.value), "last": numbers::json(last.value), "change_percent": gain
                })
            })
        });
        json!({
            "stage": self.stage, "metric": self.metric, "from": self.found.from, "to": self.found.to,
            "runs": cells.collect::<Vec<_>>(),
        })
    }
}
