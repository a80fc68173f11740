//! The files of MLflow's file store: one for each metric, parameter and tag of
//! a run, and a `meta.yaml` that says how it stands. Which files belong to a run
//! the caller finds out; names of metrics are paths below `metrics/`.

use super::json;
use super::lines::Lines;
use crate::log::{Counts, Fact, Metric, Reader, Record, Row, Sink, Value, shown};
use crate::number::as_step;

/// Reads the file of one metric: lines of time in ms, value and step.
#[derive(Debug)]
pub struct MlflowMetric {
    name: String,
    metric: Option<Option<Metric>>,
    lines: Lines,
    counts: Counts,
}

impl MlflowMetric {
    /// A reader of the file of the metric `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: shown(name).into_owned(),
            metric: None,
            lines: Lines::default(),
            counts: Counts::default(),
        }
    }
}

impl Reader for MlflowMetric {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let Self { name, metric, lines, counts } = self;
        lines.feed(bytes, counts, |at, line, counts| {
            if line.trim_ascii().is_empty() {
                return;
            }
            let Some((time, value, step)) = point(line) else {
                counts.corrupt.hit(at);
                return;
            };
            counts.records += 1;
            match metric.get_or_insert_with(|| sink.metric(name)) {
                Some(metric) => {
                    sink.row(&Row { step, time: Some(time / 1000.0), values: &[(*metric, value)] });
                }
                None => counts.dropped.hit(at),
            }
        });
    }

    fn finish(&mut self, _sink: &mut dyn Sink) {
        self.lines.count_torn(&mut self.counts);
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Time, value and step of a line. Two fields have no step; behind the step
/// there may be the name and digest of a data set.
fn point(line: &[u8]) -> Option<(f64, f64, Option<u64>)> {
    let mut words = line.split(|b| *b == b' ').filter(|word| !word.is_empty());
    let mut number = || {
        let word = words.next()?;
        let (value, used) = fast_float2::parse_partial::<f64, _>(word).ok()?;
        (used == word.len()).then_some(value)
    };
    let time = number().filter(|time| time.is_finite())?;
    let value = number()?;
    let step = number();
    match (words.count(), step) {
        (0, None) => Some((time, value, None)),
        (0 | 2, Some(step)) => Some((time, value, as_step(step))),
        _ => None,
    }
}

/// Reads the `meta.yaml` of a run or an experiment, as far as MLflow writes
/// YAML: one scalar a line.
#[derive(Debug, Default)]
pub struct MlflowMeta {
    lines: Lines,
    counts: Counts,
    /// Whether the file is of a run, not of an experiment.
    of_run: bool,
}

impl MlflowMeta {
    /// A reader at the start of a file.
    #[must_use]
    pub fn of_run() -> Self {
        Self { of_run: true, ..Self::default() }
    }

    /// The same for an experiment, whose name is the project of its runs.
    #[must_use]
    pub fn of_experiment() -> Self {
        Self::default()
    }
}

impl Reader for MlflowMeta {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let of_run = self.of_run;
        self.lines.feed(bytes, &mut self.counts, |at, line, counts| {
            let line = String::from_utf8_lossy(line);
            // Continued or nested values are none that this reader wants.
            if line.is_empty() || line.starts_with([' ', '-', '#']) {
                return;
            }
            match line.split_once(':') {
                Some((key, value)) => {
                    counts.records += 1;
                    entry(key, &scalar(value.trim()), of_run, sink);
                }
                None => counts.corrupt.hit(at),
            }
        });
    }

    fn finish(&mut self, _sink: &mut dyn Sink) {
        self.lines.count_torn(&mut self.counts);
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

fn entry(key: &str, value: &str, of_run: bool, sink: &mut dyn Sink) {
    if value.is_empty() || value == "null" || value == "[]" {
        return;
    }
    let seconds = || value.parse::<f64>().ok().filter(|ms| ms.is_finite()).map(|ms| ms / 1000.0);
    let fact = match (key, of_run) {
        ("name", false) => Fact::Project,
        ("run_id" | "run_uuid", true) => Fact::RunId,
        ("run_name", true) => Fact::Name,
        ("user_id", true) => Fact::Entity,
        ("status", true) => {
            // RunStatus of MLflow's service.proto.
            let words = ["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"];
            let number = value.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            let word = number.and_then(|n| words.get(n).copied()).unwrap_or(value);
            sink.record(Record::Meta(Fact::Status, word));
            return;
        }
        ("start_time", true) => return seconds().map_or((), |time| sink.record(Record::Started(time))),
        ("end_time", true) => return seconds().map_or((), |time| sink.record(Record::Ended(time))),
        _ => return,
    };
    sink.record(Record::Meta(fact, value));
}

/// Whether a `meta.yaml` says that its run or experiment was deleted: MLflow leaves
/// the files of such a run where they are.
#[must_use]
pub fn mlflow_is_deleted(meta: &[u8]) -> bool {
    meta.split(|byte| *byte == b'\n').any(|line| {
        let stage = line.strip_prefix(b"lifecycle_stage:").map(String::from_utf8_lossy);
        stage.is_some_and(|stage| scalar(stage.trim()) == "deleted")
    })
}

/// A YAML scalar in one of its three spellings.
fn scalar(text: &str) -> std::borrow::Cow<'_, str> {
    if let Some(inner) = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\'')) {
        return inner.replace("''", "'").into();
    }
    if text.starts_with('"')
        && let Some(Value::Text(inner)) = json::parse(text.as_bytes())
    {
        return inner.into();
    }
    text.into()
}

/// A longer parameter or tag is cut.
const MAX_VALUE_BYTES: usize = 64 * 1024;

fn content(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_VALUE_BYTES)])
}

/// Pushes the file of a parameter, named by its path below `params/`. MLflow
/// keeps settings as the text that Python prints of them.
pub fn mlflow_param(name: &str, bytes: &[u8], sink: &mut dyn Sink) {
    sink.record(Record::Config { path: &[name], value: Value::Text(content(bytes).into_owned()) });
}

/// Pushes the file of a tag, named by its path below `tags/`.
pub fn mlflow_tag(name: &str, bytes: &[u8], sink: &mut dyn Sink) {
    let text = content(bytes);
    let fact = match name {
        "mlflow.runName" => Fact::Name,
        "mlflow.parentRunId" => Fact::Parent,
        "mlflow.note.content" => Fact::Notes,
        "mlflow.user" => Fact::Entity,
        "mlflow.source.name" => Fact::Program,
        "mlflow.source.git.commit" => Fact::Commit,
        "mlflow.source.git.repoURL" => Fact::Remote,
        _ if name.starts_with("mlflow.") => return,
        _ => return sink.record(Record::Meta(Fact::Tag, &format!("{name}={text}"))),
    };
    sink.record(Record::Meta(fact, &text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deleted_is_told_by_its_stage() {
        for (meta, deleted) in [
            ("end_time: 1\nlifecycle_stage: deleted\nrun_name: a\n", true),
            ("lifecycle_stage: 'deleted'\r\n", true),
            ("lifecycle_stage: active\n", false),
            ("run_name: 'x\n  lifecycle_stage: deleted'\nlifecycle_stage: active\n", false),
            ("", false),
        ] {
            assert_eq!(mlflow_is_deleted(meta.as_bytes()), deleted, "{meta:?}");
        }
    }
}
