//! Copies of runs: a directory for each, with what is known of it, its history
//! and what was measured of the machine. What is there is not fetched again.
//!
//! ```text
//! cache/wandb/HOST/ENTITY/PROJECT/wandb-project.json   the runs that were listed last
//!                                /RUN/wandb-run.jsonl  what is known of one
//!                                /RUN/history.jsonl    its rows; only ever grows, or is replaced
//!                                /RUN/system.jsonl     the machine
//!                                /RUN/.held.json       how far the rows go
//! ```
//!
//! A copy may go at any time and holds no key. Rows count as held only when
//! `.held.json` says so, which is written after them: what a killed process left
//! behind them is cut off.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::answers::Node;

/// What is known of a run; its presence tells what the directory is.
pub(crate) const ABOUT: &str = "wandb-run.jsonl";
/// The runs of a project that were listed last.
pub(crate) const PROJECT: &str = "wandb-project.json";
const HISTORY: &str = "history.jsonl";
const SYSTEM: &str = "system.jsonl";
const HELD: &str = ".held.json";
/// Copies that nobody asked for in so long go.
const KEPT: Duration = Duration::from_hours(24 * 30);
/// All copies together; beyond that go those that nobody asked for the longest,
/// but none that was just asked for.
pub(super) const MOST: u64 = 16 << 30;
const JUST: Duration = Duration::from_hours(1);
/// Bytes of the small files that are read.
const MAX_SMALL: u64 = 1 << 20;

/// How far a copy goes, and what the server said when it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// When the run was made.
    pub(super) created: String,
    /// The first step that is not here.
    pub(super) next: u64,
    /// Rows that are here, and their bytes.
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Rows that could not be taken.
    pub(super) lost: u64,
    /// Rows that the server counted.
    pub(super) counted: Option<u64>,
    /// The server's count for which every row was asked for in the sure way.
    pub(super) sure: Option<u64>,
    /// When the server had heard of the run last as the machine was asked for.
    pub(super) machine: Option<String>,
}

/// What is to be fetched of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing: all of it is here.
    Keep,
    /// From this step on.
    From(u64),
    /// All of it; what is here is of another run, or of one that went back.
    Anew,
}

/// What is to be fetched, by what is here and what the server says.
pub(super) fn plan(held: Option<&Held>, node: &Node) -> Plan {
    let Some(held) = held else { return Plan::Anew };
    let fewer = held.counted.zip(node.rows()).is_some_and(|(before, now)| now < before);
    match node.last_step() {
        _ if held.created != node.created() || fewer => Plan::Anew,
        None if held.rows > 0 => Plan::Anew,
        None => Plan::Keep,
        Some(last) if last.saturating_add(1) < held.next => Plan::Anew,
        Some(last) if last < held.next => Plan::Keep,
        Some(_) => Plan::From(held.next),
    }
}

/// What a project's list said.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// Directories of runs, which lie beside the list.
    pub(crate) runs: Vec<String>,
    /// Runs that were passed over, named in the same way, and why.
    pub(crate) passed: Vec<(String, String)>,
}

impl Listed {
    /// The list in a directory. Whoever wrote it, it names nothing elsewhere.
    pub(crate) fn read(file: &Path) -> io::Result<Self> {
        let mut listed: Self = serde_json::from_slice(&small(file)?)?;
        listed.runs.retain(|run| Path::new(run).components().count() == 1 && !run.starts_with('.'));
        Ok(listed)
    }

    /// Puts it into a project's directory.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        whole(dir, PROJECT, &serde_json::to_vec(self)?)
    }
}

/// The copy of one run. While it is held, no other process changes it.
#[derive(Debug)]
pub(super) struct Copy {
    dir: PathBuf,
    pub(super) held: Option<Held>,
    _lock: File,
}

/// Rows that are being added to a copy.
#[derive(Debug)]
pub(super) struct Adding {
    file: File,
    at: PathBuf,
    pub(super) held: Held,
}

impl Copy {
    /// Opens it; waits while another process has it.
    ///
    /// # Errors
    /// Where the directory cannot be written to.
    pub(super) async fn open(dir: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(".lock"))?;
        // Who waits leaves its thread to others.
        let lock = tokio::task::spawn_blocking(move || {
            lock.lock()?;
            lock.set_modified(SystemTime::now())?;
            io::Result::Ok(lock)
        })
        .await
        .map_err(io::Error::other)??;
        let held: Option<Held> =
            small(&dir.join(HELD)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let long = |held: &Held| fs::metadata(dir.join(HISTORY)).is_ok_and(|meta| meta.len() >= held.bytes);
        let held = held.filter(|held| long(held));
        Ok(Self { dir, held, _lock: lock })
    }

    /// Begins to add rows behind those that are here.
    ///
    /// # Errors
    /// Where it cannot be written to.
    pub(super) fn add(&self, held: Held) -> io::Result<Adding> {
        let at = self.dir.join(HISTORY);
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&at)?;
        file.set_len(held.bytes)?;
        file.seek(SeekFrom::Start(held.bytes))?;
        Ok(Adding { file, at, held })
    }

    /// Begins a history that takes the place of what is here when it is kept.
    ///
    /// # Errors
    /// Where it cannot be written to.
    pub(super) fn anew(&self, created: &str) -> io::Result<Adding> {
        let at = self.dir.join(format!(".{HISTORY}.new"));
        let held = Held { created: created.to_owned(), ..Held::default() };
        Ok(Adding { file: File::create(&at)?, at, held })
    }

    /// Keeps what was added.
    ///
    /// # Errors
    /// Where it cannot be written to.
    pub(super) fn keep(&mut self, adding: Adding) -> io::Result<()> {
        adding.file.sync_data()?;
        let place = self.dir.join(HISTORY);
        if adding.at != place {
            // Between the two the copy is not known, rather than known wrongly.
            match fs::remove_file(self.dir.join(HELD)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::rename(&adding.at, place)?;
        }
        self.remember(adding.held)
    }

    /// Notes how far it goes.
    ///
    /// # Errors
    /// Where it cannot be written to.
    pub(super) fn remember(&mut self, held: Held) -> io::Result<()> {
        whole(&self.dir, HELD, &serde_json::to_vec(&held)?)?;
        self.held = Some(held);
        Ok(())
    }

    /// Puts down what is known of the run.
    ///
    /// # Errors
    /// Where it cannot be written to.
    pub(super) fn about(&self, lines: &str) -> io::Result<()> {
        whole(&self.dir, ABOUT, lines.as_bytes())
    }

    /// Puts down what was measured of the machine.
    ///
    /// # Errors
    /// Where it cannot be written to.
    pub(super) fn machine(&self, lines: &str) -> io::Result<()> {
        whole(&self.dir, SYSTEM, lines.as_bytes())
    }
}

impl Adding {
    /// Adds lines, all at once.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub(super) fn lines(&mut self, lines: &str, rows: u64) -> io::Result<()> {
        self.file.write_all(lines.as_bytes())?;
        self.held.bytes += lines.len() as u64;
        self.held.rows += rows;
        Ok(())
    }
}

fn small(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_SMALL).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file that is there whole or as it was.
fn whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut beside = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    beside.write_all(bytes)?;
    beside.persist(dir.join(name))?;
    Ok(())
}

/// Copies go that nobody asked for in a long time, or that are too many.
pub(super) fn forget(copies: &Path) {
    let mut runs = Vec::new();
    gather(copies, 4, &mut runs);
    runs.sort_unstable_by_key(|(asked, ..)| *asked);
    let mut all: u64 = runs.iter().map(|(_, bytes, _)| *bytes).sum();
    for (asked, bytes, dir) in runs {
        let age = asked.elapsed().unwrap_or_default();
        if age > KEPT || (all > MOST && age > JUST) {
            // Who holds it is still copying.
            let lock = File::open(dir.join(".lock"));
            if !lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                continue;
            }
            all = all.saturating_sub(bytes);
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// Copies below a directory: when they were asked for, bytes, and where.
fn gather(dir: &Path, deep: usize, runs: &mut Vec<(SystemTime, u64, PathBuf)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if deep > 1 {
            gather(&path, deep - 1, runs);
        } else if let Ok(asked) = fs::metadata(path.join(".lock")).and_then(|meta| meta.modified()) {
            let bytes = fs::metadata(path.join(HISTORY)).map_or(0, |meta| meta.len());
            runs.push((asked, bytes, path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(created: &str, last: i64, rows: u64) -> Node {
        let keys = json!({ "lastStep": last });
        Node::of(json!({"name": "a", "createdAt": created, "historyKeys": keys, "historyLineCount": rows}))
            .unwrap()
    }

    #[test]
    fn only_what_is_new_is_fetched_and_what_went_back_is_fetched_anew() {
        let held = Held { created: "x".into(), next: 10, rows: 5, counted: Some(5), ..Held::default() };
        for (node, expected) in [
            (node("x", 9, 5), Plan::Keep),
            (node("x", 12, 7), Plan::From(10)),
            (node("x", 12, 4), Plan::Anew),
            (node("x", 8, 5), Plan::Anew),
            (node("y", 9, 5), Plan::Anew),
            (node("x", -1, 5), Plan::Anew),
        ] {
            assert_eq!(plan(Some(&held), &node), expected, "{node:?}");
        }
        assert_eq!(plan(None, &node("x", 9, 5)), Plan::Anew);
        let empty = Held { created: "x".into(), ..Held::default() };
        assert_eq!(plan(Some(&empty), &node("x", -1, 0)), Plan::Keep);
        assert_eq!(plan(Some(&empty), &node("x", 0, 1)), Plan::From(0));
    }

    #[tokio::test]
    async fn rows_that_were_not_kept_are_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("run");
        let mut copy = Copy::open(place.clone()).await.unwrap();
        assert_eq!(copy.held, None);
        let mut adding = copy.anew("x").unwrap();
        adding.lines("one\n", 1).unwrap();
        copy.keep(adding).unwrap();
        let mut adding = copy.add(copy.held.clone().unwrap()).unwrap();
        adding.lines("half of a l", 1).unwrap();
        drop((adding, copy));
        let mut copy = Copy::open(place.clone()).await.unwrap();
        let mut adding = copy.add(copy.held.clone().unwrap()).unwrap();
        adding.lines("two\n", 1).unwrap();
        copy.keep(adding).unwrap();
        assert_eq!(fs::read_to_string(place.join(HISTORY)).unwrap(), "one\ntwo\n");
        assert_eq!(copy.held.as_ref().map(|held| (held.rows, held.bytes)), Some((2, 8)));
        // A new one that is not kept leaves the old.
        let mut adding = copy.anew("y").unwrap();
        adding.lines("other\n", 1).unwrap();
        drop((adding, copy));
        assert_eq!(fs::read_to_string(place.join(HISTORY)).unwrap(), "one\ntwo\n");
        // A history that lost bytes is not believed.
        fs::write(place.join(HISTORY), "o").unwrap();
        assert_eq!(Copy::open(place).await.unwrap().held, None);
    }

    #[test]
    fn a_list_names_nothing_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let runs = ["a", "../b", "/etc", "..", ".hidden", "c/d", ""].map(str::to_owned).to_vec();
        Listed { runs, passed: Vec::new() }.write(dir.path()).unwrap();
        assert_eq!(Listed::read(&dir.path().join(PROJECT)).unwrap().runs, ["a"]);
    }

    #[test]
    fn old_copies_go() {
        let dir = tempfile::tempdir().unwrap();
        for (run, age) in [("old", KEPT * 2), ("new", Duration::ZERO)] {
            let place = dir.path().join("h/e/p").join(run);
            fs::create_dir_all(&place).unwrap();
            File::create(place.join(".lock")).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        forget(dir.path());
        assert!(!dir.path().join("h/e/p/old").exists() && dir.path().join("h/e/p/new").exists());
    }
}
