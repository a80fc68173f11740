//! `[checkpoints]`: where a program saves, and how a saved state comes back.

use std::time::Duration;

use lifecycle::retention::Retention;
use lifecycle::retention::score::Best;
use lifecycle::spec::{Cadence, CheckpointSpec, Encrypt, RestoreMode};
use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::quantity::write_duration;
use super::section::Section;

/// The ways of restoring by the words that name them.
const RESTORES: [(&str, RestoreMode); 3] =
    [("auto", RestoreMode::Auto), ("variable", RestoreMode::Variable), ("in-place", RestoreMode::InPlace)];

/// How checkpoints are noticed, kept and handed back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    /// Globs relative to the source tree; empty means that only
    /// `$OUTLAST_CHECKPOINT_DIR` is watched.
    pub paths: Vec<String>,
    /// How a restored checkpoint is handed to the program.
    pub restore: RestoreMode,
    /// Arguments added on resume, with `{path}` in one of them.
    pub resume_args: Vec<String>,
    /// Time without a change after which a file counts as finished.
    pub quiet: Duration,
    /// Glob of the file by which the program says that a checkpoint is
    /// finished; empty: it has none.
    pub marker: String,
    /// Command that tells whether a checkpoint is finished; its path is added.
    pub check: Vec<String>,
    /// How many durable checkpoints stay on the machine.
    pub keep_local: u32,
    /// Part of the link's time that uploads may take, in percent.
    pub uplink_percent: u32,
    /// How many of the newest stay in the store.
    pub keep_latest: u32,
    /// For how long all of them stay there.
    pub keep_all: Duration,
    /// For how long the last one of each day does.
    pub keep_daily: Duration,
    /// For how long the last one of each week does.
    pub keep_weekly: Duration,
    /// How many of the best stay there, where a metric says what is best.
    pub keep_best: u32,
    /// That metric.
    pub best: Option<Best>,
    /// Whether checkpoints and results are sealed before they leave the machine.
    pub encrypt: Encrypt,
    /// Who decides when it is saved.
    pub cadence: Cadence,
}

const DAY: Duration = Duration::from_hours(24);
const CADENCES: [(&str, Cadence); 2] = [("own", Cadence::Own), ("adaptive", Cadence::Adaptive)];

/// Whole days, rounded up: what is asked for is kept.
fn days(length: Duration) -> u32 {
    u32::try_from(length.as_secs().div_ceil(DAY.as_secs())).unwrap_or(u32::MAX)
}

impl Checkpoints {
    /// The settings that describe a run.
    pub(super) fn of(spec: &CheckpointSpec) -> Self {
        Self {
            paths: spec.paths.clone(),
            restore: spec.restore,
            resume_args: spec.resume_args.clone(),
            quiet: Duration::from_secs(spec.quiet_seconds),
            marker: spec.marker.clone(),
            check: spec.check.clone(),
            keep_local: spec.keep_local,
            uplink_percent: spec.uplink_percent,
            keep_latest: spec.keep.latest,
            keep_all: DAY * spec.keep.all_days,
            keep_daily: DAY * spec.keep.daily_days,
            keep_weekly: DAY * spec.keep.weekly_days,
            keep_best: spec.keep.best,
            best: spec.best.clone(),
            encrypt: spec.encrypt,
            cadence: spec.cadence,
        }
    }

    /// The rule for the store.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention {
            latest: self.keep_latest,
            best: self.keep_best,
            all_days: days(self.keep_all),
            daily_days: days(self.keep_daily),
            weekly_days: days(self.keep_weekly),
        }
    }
}

impl Default for Checkpoints {
    fn default() -> Self {
        let usual = Retention::default();
        Self {
            paths: Vec::new(),
            restore: RestoreMode::Auto,
            resume_args: Vec::new(),
            quiet: Duration::from_secs(10),
            marker: String::new(),
            check: Vec::new(),
            keep_local: 3,
            uplink_percent: CheckpointSpec::default().uplink_percent,
            keep_latest: usual.latest,
            keep_all: DAY * usual.all_days,
            keep_daily: DAY * usual.daily_days,
            keep_weekly: DAY * usual.weekly_days,
            keep_best: usual.best,
            best: None,
            encrypt: Encrypt::Auto,
            cadence: Cadence::Own,
        }
    }
}

/// Arguments without `{path}` could not say what to resume from.
fn resume_args(field: &mut Field<'_>) -> Option<Vec<String>> {
    const EXAMPLE: &str = "[\"--resume\", \"{path}\"]";
    let list: Vec<String> = field.strings(EXAMPLE)?.into_iter().map(|(text, _)| text).collect();
    if list.is_empty() || list.iter().any(|arg| arg.contains("{path}")) {
        return Some(list);
    }
    field
        .refuse("must contain {path}, which becomes the checkpoint's path", format!("for example: {EXAMPLE}"))
}

/// None of the link would store nothing, and there is no more than all of it.
fn uplink(field: &mut Field<'_>) -> Option<u32> {
    let percent = field.count(1, "80")?;
    if percent <= 100 { Some(percent) } else { field.refuse("is more than 100 percent", "for example: 80") }
}

/// `"auto"`, or whether it is done everywhere or nowhere.
fn encrypt(field: &mut Field<'_>) -> Option<Encrypt> {
    field.flag_or("auto", Encrypt::Auto, |yes| if yes { Encrypt::Always } else { Encrypt::Never })
}

/// A metric and which end of it is the good one, as `val_loss:min`.
fn best(field: &mut Field<'_>) -> Option<Best> {
    const HELP: &str = "for example: \"val_loss:min\" or \"accuracy:max\"";
    let text = field.string("\"val_loss:min\"")?;
    match text.trim().rsplit_once(':').map(|(metric, end)| (metric.trim(), end.trim())) {
        Some((metric, end @ ("min" | "max"))) if !metric.is_empty() && metric.len() <= 200 => {
            Some(Best { metric: metric.to_owned(), more: end == "max" })
        }
        _ => field.refuse("must be the name of a metric with :min or :max behind it", HELP),
    }
}

/// The marker lies in the checkpoint, or beside it: a name, and no way there.
fn marker(field: &mut Field<'_>) -> Option<String> {
    const EXAMPLE: &str = "\"DONE\" or \"{name}.done\"";
    let text = field.string(EXAMPLE)?;
    if text.contains('/') || artifacts::glob::Glob::new(&text.replace("{name}", "x")).is_err() {
        return field.refuse("is no glob of a file's name", format!("for example: {EXAMPLE}"));
    }
    Some(text)
}

impl Section for Checkpoints {
    fn keys(&self) -> &'static [&'static str] {
        &[
            "paths",
            "restore",
            "resume_args",
            "quiet",
            "marker",
            "check",
            "keep_local",
            "uplink_percent",
            "keep_latest",
            "keep_all",
            "keep_daily",
            "keep_weekly",
            "keep_best",
            "best",
            "encrypt",
            "cadence",
        ]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "paths" => assign(&mut self.paths, field.globs("[\"checkpoints/*.pt\"]")),
            "restore" => assign(&mut self.restore, field.choice(&RESTORES)),
            "resume_args" => assign(&mut self.resume_args, resume_args(field)),
            "quiet" => assign(&mut self.quiet, field.seconds(1, "\"10s\"")),
            "marker" => assign(&mut self.marker, marker(field)),
            "check" => {
                let list = field.strings("[\"python\", \"check.py\"]");
                assign(&mut self.check, list.map(|list| list.into_iter().map(|(text, _)| text).collect()));
            }
            "keep_local" => assign(&mut self.keep_local, field.count(1, "3")),
            "uplink_percent" => assign(&mut self.uplink_percent, uplink(field)),
            "keep_latest" => assign(&mut self.keep_latest, field.count(1, "3")),
            "keep_all" => assign(&mut self.keep_all, field.seconds(0, "\"7d\"")),
            "keep_daily" => assign(&mut self.keep_daily, field.seconds(0, "\"30d\"")),
            "keep_weekly" => assign(&mut self.keep_weekly, field.seconds(0, "\"182d\"")),
            "keep_best" => assign(&mut self.keep_best, field.count(0, "1")),
            "best" => assign(&mut self.best, best(field).map(Some)),
            "encrypt" => assign(&mut self.encrypt, encrypt(field)),
            "cadence" => assign(&mut self.cadence, field.choice(&CADENCES)),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        match key {
            "paths" => json!(self.paths),
            "restore" => json!(self.restore),
            "resume_args" => json!(self.resume_args),
            "quiet" => json!(write_duration(self.quiet)),
            "marker" if self.marker.is_empty() => Json::Null,
            "marker" => json!(self.marker),
            "check" => json!(self.check),
            "uplink_percent" => json!(self.uplink_percent),
            "keep_latest" => json!(self.keep_latest),
            "keep_all" => json!(write_duration(self.keep_all)),
            "keep_daily" => json!(write_duration(self.keep_daily)),
            "keep_weekly" => json!(write_duration(self.keep_weekly)),
            "keep_best" => json!(self.keep_best),
            "best" => self.best.as_ref().map_or(Json::Null, |best| {
                json!(format!("{}:{}", best.metric, if best.more { "max" } else { "min" }))
            }),
            "cadence" => json!(CADENCES.iter().find(|(_, c)| *c == self.cadence).map(|(word, _)| word)),
            "encrypt" => match self.encrypt {
                Encrypt::Auto => json!("auto"),
                Encrypt::Always => json!(true),
                Encrypt::Never => json!(false),
            },
            _ => json!(self.keep_local),
        }
    }
}
