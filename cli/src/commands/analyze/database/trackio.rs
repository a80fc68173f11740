//! trackio's database of one project: `metrics`, `configs`, `system_metrics` and
//! `alerts`.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use curves::format::{Format, TrackioRows};
use curves::log::{Counts, Fact, Record, Sink};
use rusqlite::Connection;

use super::table::{Rows, bytes, each, has, text, whole};
use super::{Listing, Stored, more, spans};

const ALL: (i64, i64) = (i64::MIN, i64::MAX);
/// Alerts of one run that are taken.
const MAX_ALERTS: usize = 10_000;

fn column(by_id: bool) -> &'static str {
    if by_id { "run_id" } else { "run_name" }
}

pub(super) fn list(connection: &Connection, by_id: bool) -> io::Result<Listing> {
    let spans = spans(connection, column(by_id))?;
    let mut order: Vec<(String, (i64, i64))> = spans.into_iter().collect();
    order.sort_by_key(|(_, (first, _))| *first);
    let mut names: HashMap<i64, String> = HashMap::new();
    for (_, (first, _)) in &order {
        each(connection, ("metrics", &["run_name"]), (*first, *first), |_, row| {
            names.extend(text(row, 1).map(|name| (*first, name)));
            false
        })?;
    }
    let runs = order.into_iter().map(|(run, (first, last))| {
        let name = names.remove(&first).filter(|name| !name.is_empty()).unwrap_or_else(|| run.clone());
        Stored { run, name, first, last }
    });
    let why = "an SQLite database with trackio's tables";
    Ok(Listing { format: Format::Trackio, why, runs: runs.collect(), left_out: Vec::new() })
}

pub(super) fn feed(
    connection: &Connection,
    path: &Path,
    (stored, by_id): (&Stored, bool),
    sink: &mut dyn Sink,
    counts: &mut Counts,
) -> io::Result<Rows> {
    let key = column(by_id);
    let mine = |run: Option<&[u8]>| run == Some(stored.run.as_bytes());
    sink.record(Record::Meta(Fact::RunId, &stored.run));
    sink.record(Record::Meta(Fact::Name, &stored.name));
    if let Some(project) = path.file_stem() {
        sink.record(Record::Meta(Fact::Project, &project.to_string_lossy()));
    }
    let mut rows = TrackioRows::new();
    if has(connection, "configs", &[key, "config"])? {
        each(connection, ("configs", &[key, "config"]), ALL, |_, row| {
            if mine(bytes(row, 1)) && bytes(row, 2).is_none_or(|json| rows.config(json, sink).is_none()) {
                more(&mut counts.corrupt, 1);
            }
            true
        })?;
    }
    if has(connection, "alerts", &[key, "title", "text", "level"])? {
        let mut left = MAX_ALERTS;
        each(connection, ("alerts", &[key, "title", "text", "level"]), ALL, |_, row| {
            if mine(bytes(row, 1)) {
                let said = |column| text(row, column).unwrap_or_default();
                sink.record(Record::Alert { title: &said(2), text: &said(3), level: &said(4) });
                left -= 1;
            }
            left > 0
        })?;
    }
    if has(connection, "system_metrics", &[key, "timestamp", "metrics"])? {
        each(connection, ("system_metrics", &[key, "timestamp", "metrics"]), ALL, |_, row| {
            if mine(bytes(row, 1)) {
                let time = text(row, 2).unwrap_or_default();
                if bytes(row, 3).is_none_or(|json| rows.system(&time, json, sink).is_none()) {
                    more(&mut counts.corrupt, 1);
                }
            }
            true
        })?;
    }
    let columns = ["timestamp", "step", "metrics", key];
    each(connection, ("metrics", &columns), (stored.first, stored.last), |_, row| {
        if !mine(bytes(row, 4)) {
            return true;
        }
        let json = bytes(row, 3).unwrap_or_default();
        counts.bytes = counts.bytes.saturating_add(json.len() as u64);
        let time = text(row, 1).unwrap_or_default();
        // A step that is none goes with no step.
        match rows.metrics(whole(row, 2).unwrap_or(-1), &time, json, sink) {
            Some(dropped) => {
                counts.records += 1;
                more(&mut counts.dropped, dropped);
            }
            None => more(&mut counts.corrupt, 1),
        }
        true
    })
}
