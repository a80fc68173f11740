//! The databases that mlflow 3.17.2 and trackio 0.43.0 wrote, whole, broken and
//! while they are written.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use curves::log::{Collected, Fact, Value};
use rusqlite::Connection;

use super::*;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../curves/tests/data").join(name)
}

/// A database as its tool left it, in a directory of its own.
fn database(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("{name}.db"));
    let mut bytes = Vec::new();
    let packed = fs::File::open(data(&format!("{name}.db.gz"))).unwrap();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// Metric, step and bits of the value.
type Values = BTreeMap<(String, u64), u64>;

/// What the program passed to the tool.
fn truth(name: &str) -> Values {
    let text = fs::read_to_string(data(name)).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let cells = lines.flat_map(|row| {
        let step = row[0].parse().unwrap();
        let cells: Vec<_> = names
            .iter()
            .zip(row)
            .skip(1)
            .map(|(name, cell)| (name.to_string(), step, cell.to_owned()))
            .collect();
        cells
    });
    let value = |cell: &str| match cell.parse::<f64>().unwrap() {
        value if value.is_nan() => f64::NAN.to_bits(),
        value => value.to_bits(),
    };
    cells
        .filter(|(.., cell)| !cell.is_empty())
        .map(|(name, step, cell)| ((name, step), value(&cell)))
        .collect()
}

fn values(log: &Collected) -> Values {
    let bits = |value: f64| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
    let column = |name: &str| {
        let pairs: Vec<_> = log.column(name).unwrap().pairs().collect();
        pairs
            .into_iter()
            .map(|(step, value)| ((name.to_owned(), step.unwrap()), bits(value)))
            .collect::<Vec<_>>()
    };
    ["train/loss", "lr", "grad_norm", "epoch", "val/loss", "val/acc"].into_iter().flat_map(column).collect()
}

fn read(path: &Path, run: &Stored) -> (Collected, Counts, Notes) {
    let mut log = Collected::default();
    let mut counts = Counts::default();
    let notes = feed(path, run, &mut log, &mut counts).unwrap();
    (log, counts, notes)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_value_is_what_the_program_logged() {
    for name in ["mlflow", "trackio"] {
        let (dir, path) = database(name);
        let before = fs::read(&path).unwrap();
        let listing = list(&path).unwrap().unwrap();
        let shown: Vec<&str> = listing.runs.iter().map(|run| run.name.as_str()).collect();
        let expected: &[&str] =
            if name == "mlflow" { &["run-ok", "run-nan", "run-live"] } else { &["run-ok", "run-nan"] };
        assert_eq!((shown, listing.left_out.len()), (expected.to_vec(), 0));
        for (run, file) in listing.runs.iter().zip(["truth-ok.csv", "truth-nan.csv"]) {
            let (log, counts, notes) = read(&path, run);
            assert_eq!(values(&log), truth(file), "{name} {}", run.name);
            assert_eq!(log.fact(Fact::Name), Some(run.name.as_str()));
            let lost =
                counts.corrupt.count + counts.dropped.count + counts.skipped.count + counts.unknown.count;
            assert_eq!((lost, notes.len()), (0, 0));
            assert!(counts.records > 0 && counts.bytes > 0);
        }
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(names(dir.path()), [format!("{name}.db")], "no file appears beside it");
    }
}

#[test]
fn what_else_is_known_of_a_run_comes_with_it() {
    let (_dir, path) = database("mlflow");
    let listing = list(&path).unwrap().unwrap();
    let (log, ..) = read(&path, &listing.runs[0]);
    assert_eq!(
        (log.fact(Fact::Status), log.fact(Fact::RunId)),
        (Some("FINISHED"), Some(listing.runs[0].run.as_str()))
    );
    assert!(log.fact(Fact::Project).is_some() && log.started.is_some() && log.ended.is_some());
    assert_eq!(log.config.get(&vec!["lr".to_owned()]), Some(&Value::Text("0.0003".to_owned())));
    let (live, ..) = read(&path, &listing.runs[2]);
    assert_eq!((live.fact(Fact::Status), live.ended), (Some("RUNNING"), None));
    let (_dir, path) = database("trackio");
    let listing = list(&path).unwrap().unwrap();
    let (log, ..) = read(&path, &listing.runs[1]);
    assert_eq!(log.config.get(&vec!["lr".to_owned()]), Some(&Value::Float(0.0003)));
    assert_eq!(log.fact(Fact::Project), Some("trackio"));
}

#[test]
fn a_database_that_is_written_is_read_and_its_writer_never_waits() {
    for mode in ["delete", "wal"] {
        let (dir, path) = database("mlflow");
        let writer = Connection::open(&path).unwrap();
        writer.pragma_update(None, "journal_mode", mode).unwrap();
        // Whoever would keep the file locked would fail this.
        writer.busy_timeout(std::time::Duration::ZERO).unwrap();
        let run = list(&path).unwrap().unwrap().runs[0].clone();
        let mut log = Collected::default();
        let mut added = 0;
        let mut sink = Between {
            log: &mut log,
            each: &mut |count| {
                if count % 100 == 0 {
                    let insert = "INSERT INTO metrics VALUES ('added', 1.0, 1, ?1, ?2, 0)";
                    // Within a statement the file is read; after it, it is free.
                    added += usize::from(writer.execute(insert, rusqlite::params![run.run, count]).is_ok());
                }
            },
            count: 0,
        };
        feed(&path, &run, &mut sink, &mut Counts::default()).unwrap();
        if mode == "wal" {
            assert!(added >= 8, "{added}");
            assert!(path.with_extension("db-wal").exists());
        }
        assert_eq!(log.column("train/loss").unwrap().values.len(), 200, "{mode}");
        writer.execute("INSERT INTO metrics VALUES ('after', 1.0, 1, ?1, 1, 0)", [&run.run]).unwrap();
        let again = list(&path).unwrap().unwrap().runs[0].clone();
        let (log, ..) = read(&path, &again);
        assert_eq!(
            log.column("after").map(|column| column.values.len()),
            Some(1),
            "{mode}: rows of the log are seen"
        );
        let beside = names(dir.path());
        drop(writer);
        assert!(beside.iter().all(|name| name.starts_with("mlflow.db")), "{beside:?}");
    }
}

/// Calls back between rows.
struct Between<'a> {
    log: &'a mut Collected,
    each: &'a mut dyn FnMut(u32),
    count: u32,
}

impl Sink for Between<'_> {
    fn metric(&mut self, name: &str) -> Option<curves::log::Metric> {
        self.log.metric(name)
    }
    fn row(&mut self, row: &curves::log::Row<'_>) {
        self.count += 1;
        (self.each)(self.count);
        self.log.row(row);
    }
    fn record(&mut self, record: Record<'_>) {
        self.log.record(record);
    }
}

#[test]
fn what_a_killed_writer_left_is_read_and_stays() {
    // A log that was never merged, without its index, as after a copy, and with it.
    let (dir, path) = database("trackio");
    let writer = Connection::open(&path).unwrap();
    writer.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    let insert = "INSERT INTO metrics(run_id, timestamp, run_name, step, metrics) VALUES ('new', '2026-01-01T00:00:00', 'late', 5, ?1)";
    writer.execute(insert, [&b"{\"loss\":\"NaN\"}"[..]]).unwrap();
    for left in [&["trackio.db", "trackio.db-wal"][..], &["trackio.db", "trackio.db-shm", "trackio.db-wal"]] {
        let other = tempfile::tempdir().unwrap();
        let contents =
            || left.iter().map(|name| fs::read(other.path().join(name)).unwrap()).collect::<Vec<_>>();
        for name in left {
            fs::copy(dir.path().join(name), other.path().join(name)).unwrap();
        }
        let before = contents();
        let copy = other.path().join("trackio.db");
        let listing = list(&copy).unwrap().unwrap();
        let late =
            listing.runs.iter().find(|run| run.name == "late").expect("the row that is only in the log");
        let (log, ..) = read(&copy, late);
        assert!(log.column("loss").unwrap().values[0].is_nan());
        assert_eq!(
            (names(other.path()), contents()),
            (left.iter().map(|name| (*name).to_owned()).collect(), before)
        );
    }
    // A transaction that was cut off half-way: its journal undoes it, in a copy.
    let (dir, path) = database("mlflow");
    let whole = read(&path, &list(&path).unwrap().unwrap().runs[0]).0;
    let writer = Connection::open(&path).unwrap();
    writer.pragma_update(None, "cache_size", 1).unwrap();
    writer.execute_batch("BEGIN; UPDATE metrics SET value = -1;").unwrap();
    let other = tempfile::tempdir().unwrap();
    for name in ["mlflow.db", "mlflow.db-journal"] {
        fs::copy(dir.path().join(name), other.path().join(name)).unwrap();
    }
    let copy = other.path().join("mlflow.db");
    let torn = fs::read(&copy).unwrap();
    let (log, ..) = read(&copy, &list(&copy).unwrap().unwrap().runs[0]);
    assert_eq!(values(&log), values(&whole));
    assert_eq!(fs::read(&copy).unwrap(), torn);
    assert_eq!(names(other.path()), ["mlflow.db", "mlflow.db-journal"]);
}

#[test]
fn broken_databases_give_what_is_whole_or_a_reason() {
    for name in ["mlflow", "trackio"] {
        let (dir, path) = database(name);
        let whole = fs::read(&path).unwrap();
        let torn = dir.path().join("torn.db");
        let cuts = (0..200).chain((200..whole.len()).step_by(whole.len() / 60));
        let (mut read_some, mut refused) = (0, 0);
        for cut in cuts {
            fs::write(&torn, &whole[..cut]).unwrap();
            match list(&torn) {
                Ok(Ok(listing)) => {
                    for run in &listing.runs {
                        let mut counts = Counts::default();
                        let told = feed(&torn, run, &mut Collected::default(), &mut counts);
                        let lost = told.map_or(1, |notes| notes.len() as u64) + counts.corrupt.count;
                        assert!(lost > 0, "{name} cut at {cut}");
                        read_some += u32::from(counts.records > 0);
                    }
                }
                Ok(Err(_)) | Err(_) => refused += 1,
            }
        }
        assert!(refused > 0 && read_some > 0, "{name}: {refused} {read_some}");
        for seed in 0..150_u64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bad = whole.clone();
            for _ in 0..random.usize(1..40) {
                let at = random.usize(16..bad.len());
                bad[at] = random.u8(..);
            }
            fs::write(&torn, &bad).unwrap();
            if let Ok(Ok(listing)) = list(&torn) {
                for run in &listing.runs {
                    let _ = feed(&torn, run, &mut Collected::default(), &mut Counts::default());
                }
            }
        }
    }
}

#[test]
fn other_databases_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    for (sql, word) in [
        ("CREATE TABLE run(hash, experiment_id)", "Aim's list of runs"),
        ("CREATE TABLE run_operations(operation)", "neptune-scale"),
        ("CREATE TABLE people(name)", "of no known tool"),
        (
            "CREATE VIEW metrics AS SELECT 1 AS run_name, 2 AS timestamp, 3 AS step, 4 AS metrics",
            "of no known tool",
        ),
    ] {
        let _ = fs::remove_file(&path);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        assert!(list(&path).unwrap().unwrap_err().contains(word), "{sql}");
    }
    fs::write(&path, b"SQLite format 3\0").unwrap();
    assert!(list(&path).is_err());
}
