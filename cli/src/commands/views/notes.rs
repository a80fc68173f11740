//! What people say of runs: notes, tags, favourites, hypotheses, decisions.
//!
//! They stand in `.outlast-notes.jsonl`: the nearest one upwards from the run, else
//! in the nearest directory upwards with `outlast.toml` or `.git`, else beside the
//! run; it is looked for up to the first directory that anybody may write to. Those of
//! a run of the controller's stand in `notes/` of the data directory, as its points here
//! are only a copy. The file only grows, one line at a time, under a lock and written
//! through; paths in it are relative to it, so that it moves with the runs. Lines that
//! cannot be read are counted and kept.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::commands::analyze::gather::gather;
use crate::commands::analyze::{live, words};
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
    /// A commit, by its whole hash.
    Commit,
    /// The address of a pull or merge request.
    PullRequest,
    /// The group that it belongs to, whatever its log says.
    Group,
    /// It belongs to none that was said here.
    Ungroup,
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
    copied: bool,
}

impl Notes {
    /// The notes that are kept where the run is.
    ///
    /// # Errors
    /// The path is not there, or the file cannot be read.
    pub(super) fn of(path: &Path) -> Result<Self, Failure> {
        // `FILE#RUN`: one of several runs in a file.
        let text = path.to_string_lossy();
        if !path.exists()
            && let Some((file, run)) = text.rsplit_once('#')
        {
            let mut kept = Self::of(Path::new(file))?;
            let own = if kept.run == "." { file.rsplit('/').next().unwrap_or(file) } else { &kept.run };
            kept.run = format!("{own}#{run}");
            return Ok(kept);
        }
        Self::kept(path)
    }

    /// Those of a run that somebody named, or of all runs below what was named.
    ///
    /// # Errors
    /// As [`Self::of`], and where a file has no run of that name.
    pub(super) fn of_named(path: &Path) -> anyhow::Result<Self> {
        if path.exists() { Ok(Self::of(path)?) } else { Self::of_run(path) }
    }

    /// Those of one run; one of several in a file has to be named with it,
    /// `FILE#RUN`, as a list shows it.
    ///
    /// # Errors
    /// As [`Self::of`], and where the file holds several runs or none of that name.
    pub(super) fn of_run(path: &Path) -> anyhow::Result<Self> {
        let within = !path.exists() && path.to_string_lossy().contains('#');
        if !within && !path.is_file() {
            return Ok(Self::of(path)?);
        }
        let runs = match gather(&[path.to_owned()], None) {
            Ok(found) => found.runs,
            // Whatever it is, it may be spoken of.
            Err(_) if !within => return Ok(Self::of(path)?),
            Err(error) => return Err(error),
        };
        match runs.as_slice() {
            // What lies in an archive has no place of its own.
            [run] => Ok(Self::of(run.path()).or_else(|_| Self::of(path))?),
            runs => {
                let named: Vec<String> = runs.iter().take(10).map(|run| words::typed(run.path())).collect();
                let message =
                    format!("{} holds {} runs: {}", words::path(path), runs.len(), named.join(", "));
                Err(Failure::new(ExitCode::NotFound, message).help("name one of them").into())
            }
        }
    }

    fn kept(path: &Path) -> Result<Self, Failure> {
        let whole = path.canonicalize().map_err(|error| {
            let code = if error.kind() == std::io::ErrorKind::NotFound {
                ExitCode::NotFound
            } else {
                ExitCode::Denied
            };
            Failure::new(code, format!("{}: {error}", words::path(path)))
        })?;
        let copy = of_controller(&whole);
        let copied = copy.is_some();
        let file = copy.unwrap_or_else(|| place(&whole));
        let base = file.parent().unwrap_or(Path::new("/"));
        let run = match whole.strip_prefix(base) {
            Ok(inside) => inside.to_string_lossy().into_owned(),
            // A run of the controller's is known by its name.
            Err(_) => whole.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let run = if run.is_empty() { ".".to_owned() } else { run };
        let mut bytes = Vec::new();
        let opened = known(&file).and_then(|_| File::open(&file));
        match opened.and_then(|opened| opened.take(MAX_BYTES).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::new(ExitCode::Denied, format!("{}: {error}", words::path(&file))));
            }
        }
        let (entries, unreadable) = parse(&String::from_utf8_lossy(&bytes));
        Ok(Self { file, run, entries, unreadable, copied })
    }

    /// Whether they are of a run of the controller's, which lies nowhere here.
    pub(super) fn is_of_controller(&self) -> bool {
        self.copied
    }

    /// Those of this run, or of all runs below a directory or in a file.
    pub(super) fn mine(&self) -> impl Iterator<Item = &Entry> {
        let within = format!("{}#", self.run);
        self.entries.iter().filter(move |entry| {
            let below = self.run == "." || Path::new(&entry.run).starts_with(&self.run);
            below || entry.run.starts_with(&within)
        })
    }

    /// The group that people put exactly this run into.
    pub(super) fn group(&self) -> Option<&str> {
        let said =
            |entry: &&Entry| entry.run == self.run && matches!(entry.kind, Kind::Group | Kind::Ungroup);
        let newest = self.entries.iter().rfind(said)?;
        (newest.kind == Kind::Group).then_some(newest.text.as_str())
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

    /// The newest of a kind of exactly this run.
    pub(super) fn newest(&self, kind: Kind) -> Option<&Entry> {
        self.entries.iter().rfind(|entry| entry.run == self.run && entry.kind == kind)
    }

    /// What people said of exactly this run in sentences.
    pub(super) fn texts(&self) -> Vec<String> {
        let other = [Kind::Tag, Kind::Untag, Kind::Commit, Kind::PullRequest, Kind::Group, Kind::Ungroup];
        let said = |entry: &&Entry| entry.run == self.run && !other.contains(&entry.kind);
        self.entries.iter().filter(said).map(|entry| entry.text.clone()).collect()
    }

    /// What was said last of whether a hypothesis is true, if anything was.
    pub(super) fn verdict(&self, hypothesis: &Entry) -> Option<&Entry> {
        let said = |entry: &&Entry| {
            matches!(entry.kind, Kind::Confirmed | Kind::Refuted)
                && entry.about.as_ref() == Some(&hypothesis.id)
        };
        self.entries.iter().rfind(said)
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
        let made = self.file.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| write(&self.file, &entry)).map_err(|error| {
            Failure::new(ExitCode::CannotWrite, format!("{}: {error}", words::path(&self.file)))
                .help("notes stand beside the runs or in the project: make that directory writable")
        })?;
        Ok(entry)
    }
}

/// Where those of a run of the controller's stand, if it is a copy of one.
fn of_controller(copy: &Path) -> Option<PathBuf> {
    let copies = copy.parent().filter(|_| live::is_copy(copy))?;
    let cache = copies.parent().filter(|cache| copies.ends_with("curves") && cache.ends_with("cache"))?;
    Some(cache.parent()?.join("notes").join(FILE))
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

/// Which file it is. A link in a directory of somebody else's could lead into any
/// file of whoever writes, and a pipe holds up who reads: both are refused.
fn known(path: &Path) -> std::io::Result<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.is_file() {
        let why = "notes are kept in a plain file, and this is none: take it away";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
    }
    Ok((meta.dev(), meta.ino()))
}

/// Opens it to be added to; made where it is not there.
fn opened(path: &Path) -> std::io::Result<File> {
    let mut open = OpenOptions::new();
    open.read(true).append(true);
    let before = match known(path) {
        // Where a link appears meanwhile, it is not followed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            match open.clone().create_new(true).open(path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => known(path)?,
                made => return made,
            }
        }
        before => before?,
    };
    let file = open.open(path)?;
    let meta = file.metadata()?;
    if (meta.dev(), meta.ino()) == before { Ok(file) } else { Err(std::io::ErrorKind::InvalidInput.into()) }
}

fn write(path: &Path, entry: &Entry) -> std::io::Result<()> {
    let mut file = opened(path)?;
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

    #[test]
    fn nothing_is_written_through_a_link_and_no_pipe_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("runs");
        std::fs::create_dir(&run).unwrap();
        let (notes, other) = (run.join(FILE), dir.path().join("other"));
        std::fs::write(run.join("a.csv"), "step,loss\n").unwrap();
        for made in [true, false] {
            if made {
                std::fs::write(&other, "mine\n").unwrap();
            } else {
                std::fs::remove_file(&other).unwrap();
            }
            std::os::unix::fs::symlink(&other, &notes).unwrap();
            let refused = Notes::of(&run.join("a.csv")).and_then(|notes| notes.append(Kind::Note, "x", None));
            assert!(refused.is_err() || !notes.is_symlink(), "{refused:?}");
            let kept = std::fs::read_to_string(&other).ok();
            assert_eq!(kept.as_deref(), made.then_some("mine\n"), "what the link leads to is untouched");
            std::fs::remove_file(&notes).unwrap();
        }
        let status = std::process::Command::new("mkfifo").arg(&notes).status().unwrap();
        assert!(status.success());
        assert!(Notes::of(&run.join("a.csv")).is_err(), "and that at once");
    }

    proptest! {
        #[test]
        fn any_file_is_read(text in "(\\{\"id\":\"a\",\"time\":1|[{}\":,a-z\n]{0,9}|\\PC){0,30}") {
            let (entries, unreadable) = parse(&text);
            prop_assert!(entries.len() + unreadable <= text.lines().count());
        }
    }
}
