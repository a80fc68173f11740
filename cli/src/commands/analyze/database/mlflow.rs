//! MLflow's database: `runs`, `experiments`, `params`, `tags` and `metrics`.
//! Everything else in it is left alone.

use std::io;

use curves::format::{Format, MlflowRows, mlflow_param, mlflow_tag};
use curves::log::{Counts, Fact, Record, Sink};
use rusqlite::{Connection, Row};

use super::table::{Rows, bytes, each, has, number, text, whole};
use super::{Listing, MAX_KNOWN, Stored, more, spans};

pub(super) const METRICS: [&str; 6] = ["run_uuid", "key", "value", "timestamp", "step", "is_nan"];
const RUNS: [&str; 9] = [
    "run_uuid",
    "name",
    "lifecycle_stage",
    "status",
    "start_time",
    "end_time",
    "user_id",
    "source_name",
    "experiment_id",
];
/// Parameters and tags of one run that are taken.
const MAX_FACTS: usize = 10_000;
/// The whole table.
const ALL: (i64, i64) = (i64::MIN, i64::MAX);

pub(super) fn list(connection: &Connection) -> io::Result<Listing> {
    let spans = spans(connection, "run_uuid")?;
    let (mut runs, mut left_out) = (Vec::new(), Vec::new());
    each(connection, ("runs", &RUNS[..3]), ALL, |_, row| {
        let (Some(run), stage) = (text(row, 1), text(row, 3)) else { return true };
        let name = text(row, 2).filter(|name| !name.is_empty()).unwrap_or_else(|| run.clone());
        match spans.get(&run) {
            _ if stage.as_deref() == Some("deleted") => left_out.push((name, "deleted in MLflow")),
            None => left_out.push((name, "no values of metrics in it")),
            Some(&(first, last)) => runs.push(Stored { run, name, first, last }),
        }
        runs.len() + left_out.len() < MAX_KNOWN
    })?;
    let why = "an SQLite database with MLflow's tables";
    Ok(Listing { format: Format::MlflowMetric, why, runs, left_out })
}

pub(super) fn feed(
    connection: &Connection,
    stored: &Stored,
    sink: &mut dyn Sink,
    counts: &mut Counts,
) -> io::Result<Rows> {
    let mut experiment = None;
    each(connection, ("runs", &RUNS), ALL, |_, row| {
        let mine = text(row, 1).as_deref() == Some(&stored.run);
        if mine {
            experiment = whole(row, 9);
            about(row, sink);
        }
        !mine
    })?;
    if has(connection, "experiments", &["experiment_id", "name"])? {
        each(connection, ("experiments", &["experiment_id", "name"]), ALL, |_, row| {
            let mine = experiment.is_some() && whole(row, 1) == experiment;
            if let Some(name) = text(row, 2).filter(|_| mine) {
                sink.record(Record::Meta(Fact::Project, &name));
            }
            !mine
        })?;
    }
    for (table, push) in [("params", mlflow_param as fn(&str, &[u8], &mut dyn Sink)), ("tags", mlflow_tag)] {
        if !has(connection, table, &["run_uuid", "key", "value"])? {
            continue;
        }
        let mut left = MAX_FACTS;
        each(connection, (table, &["run_uuid", "key", "value"]), ALL, |_, row| {
            if bytes(row, 1) == Some(stored.run.as_bytes())
                && let (Some(key), Some(value)) = (text(row, 2), bytes(row, 3))
            {
                push(&key, value, sink);
                left -= 1;
            }
            left > 0
        })?;
    }
    let mut rows = MlflowRows::new();
    each(connection, ("metrics", &METRICS), (stored.first, stored.last), |_, row| {
        if bytes(row, 1) != Some(stored.run.as_bytes()) {
            return true;
        }
        counts.bytes = counts.bytes.saturating_add(24 + bytes(row, 2).map_or(0, <[u8]>::len) as u64);
        let (key, value, step) = (text(row, 2), number(row, 3), whole(row, 5));
        match (key, value, step) {
            (Some(key), Some(value), Some(step)) => {
                counts.records += 1;
                let nan = whole(row, 6).is_some_and(|mark| mark != 0);
                if !rows.row(&key, value, nan, whole(row, 4).unwrap_or(0), step, sink) {
                    more(&mut counts.dropped, 1);
                }
            }
            _ => more(&mut counts.corrupt, 1),
        }
        true
    })
}

fn about(row: &Row<'_>, sink: &mut dyn Sink) {
    for (column, fact) in
        [(1, Fact::RunId), (2, Fact::Name), (4, Fact::Status), (7, Fact::Entity), (8, Fact::Program)]
    {
        if let Some(text) = text(row, column).filter(|text| !text.is_empty()) {
            sink.record(Record::Meta(fact, &text));
        }
    }
    if let Some(ms) = number(row, 5) {
        sink.record(Record::Started(ms / 1000.0));
    }
    if let Some(ms) = number(row, 6) {
        sink.record(Record::Ended(ms / 1000.0));
    }
}
