//! `[checkpoints]`: where a program saves, and how a saved state comes back.

use std::time::Duration;

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
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            restore: RestoreMode::Auto,
            resume_args: Vec::new(),
            quiet: Duration::from_secs(10),
            keep_local: 3,
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
        &["paths", "restore", "resume_args", "quiet", "keep_local"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "paths" => assign(&mut self.paths, field.globs("[\"checkpoints/*.pt\"]")),
            "restore" => assign(&mut self.restore, field.choice(&RESTORES)),
            "resume_args" => assign(&mut self.resume_args, resume_args(field)),
            "quiet" => assign(&mut self.quiet, field.seconds(1, "\"10s\"")),
            "keep_local" => assign(&mut self.keep_local, field.count(1, "3")),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        match key {
            "paths" => json!(self.paths),
            "restore" => json!(self.restore),
            "resume_args" => json!(self.resume_args),
            "quiet" => json!(write_duration(self.quiet)),
            _ => json!(self.keep_local),
        }
    }
}
