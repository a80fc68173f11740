//! `[checkpoints]`: where a program saves, and how a saved state comes back.

use std::time::Duration;

use lifecycle::retention::Retention;
use lifecycle::spec::RestoreMode;
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
    /// How many durable checkpoints stay on the machine.
    pub keep_local: u32,
    /// How many of the newest stay in the store.
    pub keep_latest: u32,
    /// For how long all of them stay there.
    pub keep_all: Duration,
    /// For how long the last one of each day does.
    pub keep_daily: Duration,
    /// For how long the last one of each week does.
    pub keep_weekly: Duration,
}

const DAY: Duration = Duration::from_hours(24);

/// Whole days, rounded up: what is asked for is kept.
fn days(length: Duration) -> u32 {
    u32::try_from(length.as_secs().div_ceil(DAY.as_secs())).unwrap_or(u32::MAX)
}

impl Checkpoints {
    /// The rule for the store.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention {
            latest: self.keep_latest,
            all_days: days(self.keep_all),
            daily_days: days(self.keep_daily),
            weekly_days: days(self.keep_weekly),
            ..Retention::default()
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
            keep_local: 3,
            keep_latest: usual.latest,
            keep_all: DAY * usual.all_days,
            keep_daily: DAY * usual.daily_days,
            keep_weekly: DAY * usual.weekly_days,
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

impl Section for Checkpoints {
    fn keys(&self) -> &'static [&'static str] {
        &[
            "paths",
            "restore",
            "resume_args",
            "quiet",
            "keep_local",
            "keep_latest",
            "keep_all",
            "keep_daily",
            "keep_weekly",
        ]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "paths" => assign(&mut self.paths, field.globs("[\"checkpoints/*.pt\"]")),
            "restore" => assign(&mut self.restore, field.choice(&RESTORES)),
            "resume_args" => assign(&mut self.resume_args, resume_args(field)),
            "quiet" => assign(&mut self.quiet, field.seconds(1, "\"10s\"")),
            "keep_local" => assign(&mut self.keep_local, field.count(1, "3")),
            "keep_latest" => assign(&mut self.keep_latest, field.count(1, "3")),
            "keep_all" => assign(&mut self.keep_all, field.seconds(0, "\"7d\"")),
            "keep_daily" => assign(&mut self.keep_daily, field.seconds(0, "\"30d\"")),
            "keep_weekly" => assign(&mut self.keep_weekly, field.seconds(0, "\"182d\"")),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        match key {
            "paths" => json!(self.paths),
            "restore" => json!(self.restore),
            "resume_args" => json!(self.resume_args),
            "quiet" => json!(write_duration(self.quiet)),
            "keep_latest" => json!(self.keep_latest),
            "keep_all" => json!(write_duration(self.keep_all)),
            "keep_daily" => json!(write_duration(self.keep_daily)),
            "keep_weekly" => json!(write_duration(self.keep_weekly)),
            _ => json!(self.keep_local),
        }
    }
}
