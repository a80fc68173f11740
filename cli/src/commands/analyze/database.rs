//! Runs in SQLite databases: MLflow's and trackio's. The file is somebody's only
//! record of his trainings: see [`open`] for what must never happen to it.

mod mlflow;
mod open;
mod table;
mod trackio;

use std::collections::HashMap;
use std::io;
use std::path::Path;

use curves::format::Format;
use curves::log::{Counts, Fact, Record, Sink, Tally};
use rusqlite::Connection;

use table::{each, has, text, whole};

/// Runs of one database that are looked for.
const MAX_KNOWN: usize = 10_000;

/// One run in a database, and which rows of the table of metrics may be its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// What the tool calls it in the other tables.
    pub(super) run: String,
    /// The name people see.
    pub(super) name: String,
    first: i64,
    last: i64,
}

/// What a database holds.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) format: Format,
    pub(super) why: &'static str,
    pub(super) runs: Vec<Stored>,
    /// What is not among the runs, and why.
    pub(super) left_out: Vec<(String, &'static str)>,
}

/// First and last row by run.
type Spans = HashMap<String, (i64, i64)>;

/// What is to be said of a reading, beside its counts.
pub(super) type Notes = Vec<String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mlflow,
    Trackio {
        /// Early versions tell runs apart by their names alone.
        by_id: bool,
    },
}

fn kind(connection: &Connection) -> io::Result<Result<Kind, &'static str>> {
    let has = |table, columns| has(connection, table, columns);
    Ok(if has("metrics", &mlflow::METRICS)? && has("runs", &["run_uuid"])? {
        Ok(Kind::Mlflow)
    } else if has("metrics", &["run_id", "run_name", "timestamp", "step", "metrics"])? {
        Ok(Kind::Trackio { by_id: true })
    } else if has("metrics", &["run_name", "timestamp", "step", "metrics"])? {
        Ok(Kind::Trackio { by_id: false })
    } else if has("run", &["hash", "experiment_id"])? {
        Err("Aim's list of runs: their values lie in meta/ and seqs/ beside it")
    } else if has("run_operations", &["operation"])? {
        Err("a database of neptune-scale, which is not read")
    } else {
        Err("an SQLite database of no known tool")
    })
}

/// The runs of a database, or why it is none that is read.
///
/// # Errors
/// Where it cannot be read.
pub(super) fn list(path: &Path) -> io::Result<Result<Listing, &'static str>> {
    let database = open::open(path)?;
    let kind = match kind(&database.connection)? {
        Ok(kind) => kind,
        Err(why) => return Ok(Err(why)),
    };
    Ok(Ok(match kind {
        Kind::Mlflow => mlflow::list(&database.connection)?,
        Kind::Trackio { by_id } => trackio::list(&database.connection, by_id)?,
    }))
}

/// Pushes a run.
///
/// # Errors
/// Where the database cannot be read; what was pushed before counts.
pub(super) fn feed(path: &Path, run: &Stored, sink: &mut dyn Sink, counts: &mut Counts) -> io::Result<Notes> {
    let database = open::open(path)?;
    let connection = &database.connection;
    let rows = match kind(connection)? {
        Ok(Kind::Mlflow) => mlflow::feed(connection, run, sink, counts)?,
        Ok(Kind::Trackio { by_id }) => trackio::feed(connection, path, (run, by_id), sink, counts)?,
        Err(why) => return Err(io::Error::other(why)),
    };
    more(&mut counts.corrupt, rows.damaged);
    let mut notes: Notes = database.note.map(str::to_owned).into_iter().collect();
    if rows.damaged > 0 && notes.is_empty() {
        notes.push("the database is damaged: the rows that could be found were read".to_owned());
    }
    if rows.more {
        notes.push("only the first 100000000 rows were read".to_owned());
    }
    Ok(notes)
}

/// Pushes what Aim's list of runs says of a run: its name and its experiment.
///
/// # Errors
/// Where the list cannot be read.
pub(super) fn aim_names(path: &Path, run: &str, sink: &mut dyn Sink) -> io::Result<()> {
    const ALL: (i64, i64) = (i64::MIN, i64::MAX);
    let database = open::open(path)?;
    let connection = &database.connection;
    if !has(connection, "run", &["hash", "name", "experiment_id"])? {
        return Ok(());
    }
    let mut experiment = None;
    each(connection, ("run", &["hash", "name", "experiment_id"]), ALL, |_, row| {
        let mine = text(row, 1).as_deref() == Some(run);
        if mine {
            experiment = whole(row, 3);
            if let Some(name) = text(row, 2).filter(|name| !name.is_empty()) {
                sink.record(Record::Meta(Fact::Name, &name));
            }
        }
        !mine
    })?;
    if has(connection, "experiment", &["id", "name"])? {
        each(connection, ("experiment", &["id", "name"]), ALL, |_, row| {
            let mine = experiment.is_some() && whole(row, 1) == experiment;
            if let Some(name) = text(row, 2).filter(|_| mine) {
                sink.record(Record::Meta(Fact::Project, &name));
            }
            !mine
        })?;
    }
    Ok(())
}

/// Counts what has no place in a file of bytes.
fn more(tally: &mut Tally, count: u64) {
    tally.count = tally.count.saturating_add(count);
}

/// For each run the first and the last row of the table that names it.
fn spans(connection: &Connection, column: &str) -> io::Result<Spans> {
    let mut spans = Spans::new();
    each(connection, ("metrics", &[column]), (i64::MIN, i64::MAX), |id, row| {
        if let Some(run) = text(row, 1).filter(|run| run.len() <= 512) {
            if let Some(span) = spans.get_mut(&run) {
                span.1 = id;
            } else if spans.len() < MAX_KNOWN {
                spans.insert(run, (id, id));
            }
        }
        true
    })?;
    Ok(spans)
}

#[cfg(test)]
mod tests;
