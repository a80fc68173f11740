//! What people say of runs: notes, tags, favourites, hypotheses, decisions.
//!
//! They stand in `.outlast-notes.jsonl`: the nearest one upwards from the run, else
//! in the nearest directory upwards with `outlast.toml` or `.git`, else beside the
//! run; it is looked for up to the first directory that anybody may write to. The file only grows, one line at a time, under a lock and written through;
//! paths in it are relative to it, so that it moves with the runs. Lines that
//! cannot be read are counted and kept.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// The file's name.
pub(super) const FILE: &str = ".outlast-notes.jsonl";
/// Bytes of it that are read.
const MAX_BYTES: u64 = 16 << 20;
/// Bytes of one text.
const MAX_TEXT: usize = 8 * 1024;
/// Directories upwards that are looked into.
const MAX_UP: usize = 24;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Note,
    Tag,
    Untag,
    Hypothesis,
    Confirmed,
    Refuted,
    Decision,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Told apart by it; the beginning is enough.
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) time: u64,
    pub(super) kind: Kind,
    /// Relative to the file's directory; `.` is that directory.
    pub(super) run: String,
    pub(super) text: String,
    /// The entry that it is about, or the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) about: Option<String>,
}

/// The file of a run, read.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) file: PathBuf,
    /// The run, as the file names it.
    pub(super) run: String,
    pub(super) entries: Vec<Entry>,
    pub(super) unreadable: usize,
}

impl Notes {
    /// The notes that are kept where the run is.
    ///
    /// # Errors
    /// The path is not there, or the file cannot be read.
    pub(super) fn of(path: &Path) -> Result<Self, Failure> {
        let whole = path.canonicalize().map_err(|error| {
            let code = if error.kind() == std::io::ErrorKind::NotFound {
                ExitCode::NotFound
            } else {
                ExitCode::Denied
            };
            Failure::new(code, format!("{}: {error}", words::path(path)))
        })?;
        let file = place(&whole);
        let base = file.parent().unwrap_or(Path::new("/"));
        let run = whole.strip_prefix(base).unwrap_or(&whole).to_string_lossy().into_owned();
        let run = if run.is_empty() { ".".to_owned() } else { run };
        let mut bytes = Vec::new();
        match File::open(&file).and_then(|opened| opened.take(MAX_BYTES).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::new(ExitCode::Denied, format!("{}: {error}", words::path(&file))));
            }
        }
        let (entries, unreadable) = parse(&String::from_utf8_lossy(&bytes));
        Ok(Self { file, run, entries, unreadable })
    }

    /// Those of this run, or of all runs below a directory.
    pub(super) fn mine(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| self.run == "." || Path::new(&entry.run).starts_with(&self.run))
    }

    /// Tags of exactly this run as they stand now.
    pub(super) fn tags(&self) -> BTreeSet<String> {
        let mut tags = BTreeSet::new();
        for entry in self.entries.iter().filter(|entry| entry.run == self.run) {
            match entry.kind {
                Kind::Tag => tags.insert(entry.text.clone()),
                Kind::Untag => tags.remove(&entry.text),
                _ => false,
            };
        }
        tags
    }

    /// Texts of a kind of exactly this run.
    pub(super) fn texts(&self) -> Vec<String> {
        let said = |entry: &&Entry| entry.run == self.run && !matches!(entry.kind, Kind::Tag | Kind::Untag);
        self.entries.iter().filter(said).map(|entry| entry.text.clone()).collect()
    }

    /// The hypothesis that an id, or the beginning of one, means.
    ///
    /// # Errors
    /// None or several are meant.
    pub(super) fn hypothesis(&self, id: &str) -> Result<Entry, Failure> {
        let found: Vec<&Entry> =
            self.mine().filter(|entry| entry.kind == Kind::Hypothesis && entry.id.starts_with(id)).collect();
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(Failure::new(ExitCode::NotFound, format!("no hypothesis {}", words::quoted(id)))
                .help("`outlast hypothesis PATH` lists them with their ids")),
            _ => {
                let all: Vec<&str> = found.iter().take(10).map(|entry| entry.id.as_str()).collect();
                let message = format!("{} means several: {}", words::quoted(id), all.join(", "));
                Err(Failure::new(ExitCode::NotFound, message).help("write more of the id"))
            }
        }
    }

    /// Appends a line; it is on the disk when this returns.
    ///
    /// # Errors
    /// The text is empty or too long, or the file cannot be written.
    pub(super) fn append(&self, kind: Kind, text: &str, about: Option<String>) -> Result<Entry, Failure> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_TEXT {
            let message = format!("a text of {} bytes; it has 1 to {MAX_TEXT}", text.len());
            return Err(Failure::new(ExitCode::BadInput, message));
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let hash =
            blake3::hash(format!("{}{}{text}{}", time.as_nanos(), self.run, std::process::id()).as_bytes());
        let id = hash.to_hex().chars().take(8).collect();
        let entry =
            Entry { id, time: time.as_secs(), kind, run: self.run.clone(), text: text.to_owned(), about };
        write(&self.file, &entry).map_err(|error| {
            Failure::new(ExitCode::CannotWrite, format!("{}: {error}", words::path(&self.file)))
                .help("notes stand beside the runs or in the project: make that directory writable")
        })?;
        Ok(entry)
    }
}

/// Where the notes of a run stand; see the module.
fn place(run: &Path) -> PathBuf {
    let from = if run.is_dir() { run } else { run.parent().unwrap_or(run) };
    // In a directory that anybody may write to, such as /tmp, notes are nobody's.
    let shared = |dir: &Path| dir.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o002 != 0);
    let upwards = || from.ancestors().take(MAX_UP).take_while(|dir| !shared(dir));
    let existing = upwards().map(|dir| dir.join(FILE)).find(|file| file.is_file());
    let project = || upwards().find(|dir| dir.join("outlast.toml").is_file() || dir.join(".git").exists());
    let beside = run.parent().filter(|parent| !shared(parent)).unwrap_or(from);
    existing.unwrap_or_else(|| project().unwrap_or(beside).join(FILE))
}

/// Entries and how many lines are none.
fn parse(text: &str) -> (Vec<Entry>, usize) {
    let mut unreadable = 0;
    let entries = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .filter_map(|line| serde_json::from_str(line).map_err(|_| unreadable += 1).ok())
        .collect();
    (entries, unreadable)
}

fn write(path: &Path, entry: &Entry) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    file.lock()?;
    let mut line = serde_json::to_string(entry)?;
    line.push('\n');
    // A line that a killed process left unfinished is ended first.
    let length = file.seek(SeekFrom::End(0))?;
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            line.insert(0, '\n');
        }
    }
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    if length == 0
        && let Some(dir) = path.parent()
    {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_appended_behind_what_a_killed_process_left() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("runs/a.csv");
        std::fs::create_dir_all(run.parent().unwrap()).unwrap();
        std::fs::write(&run, "step,loss\n").unwrap();
        std::fs::write(dir.path().join("outlast.toml"), "").unwrap();
        let notes = Notes::of(&run).unwrap();
        assert_eq!(
            (notes.file.parent(), notes.run.as_str()),
            (Some(dir.path().canonicalize().unwrap().as_path()), "runs/a.csv")
        );
        notes.append(Kind::Tag, "base", None).unwrap();
        notes.append(Kind::Note, "a \"note\"\nof two lines", None).unwrap();
        let mut file = OpenOptions::new().append(true).open(&notes.file).unwrap();
        file.write_all(b"{\"id\":\"torn").unwrap();
        Notes::of(&run).unwrap().append(Kind::Untag, "base", None).unwrap();
        let read = Notes::of(&run).unwrap();
        assert_eq!((read.entries.len(), read.unreadable), (3, 1));
        assert!(read.tags().is_empty());
        assert_eq!(read.texts(), ["a \"note\"\nof two lines"]);
        assert_eq!(Notes::of(run.parent().unwrap()).unwrap().mine().count(), 3);
        assert!(notes.append(Kind::Note, "  ", None).is_err());
    }

    #[test]
    fn many_processes_lose_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let threads: Vec<_> = (0..8)
            .map(|index| {
                let path = dir.path().to_owned();
                std::thread::spawn(move || {
                    let notes = Notes::of(&path).unwrap();
                    (0..20)
                        .for_each(|n| drop(notes.append(Kind::Note, &format!("{index} {n}"), None).unwrap()));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let read = Notes::of(dir.path()).unwrap();
        assert_eq!((read.entries.len(), read.unreadable), (160, 0));
    }

    proptest! {
        #[test]
        fn any_file_is_read(text in "(\\{\"id\":\"a\",\"time\":1|[{}\":,a-z\n]{0,9}|\\PC){0,30}") {
            let (entries, unreadable) = parse(&text);
            prop_assert!(entries.len() + unreadable <= text.lines().count());
        }
    }
}
