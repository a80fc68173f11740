//! What can be read below a path, and as what: directories of tools are told by
//! the files in them, files by their first bytes.
//!
//! Trees are hostile: links are not followed, what is no regular file is never
//! opened, and depth, entries and runs have bounds. Nothing that is passed over
//! goes uncounted.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use curves::format::{Format, HEAD_BYTES, detect};

use super::history;

/// Directories below a path that are looked into.
const MAX_DEPTH: usize = 12;
/// Entries of directories that are looked at, all together.
const MAX_ENTRIES: u64 = 100_000;
/// Runs that are taken.
pub(super) const MAX_RUNS: usize = 200;
/// Files of one run.
const MAX_PARTS: usize = 4096;
/// Passed-over entries that are kept by name; further ones are counted.
const MAX_SKIPPED: usize = 200;

/// How files that are worth opening in a directory end.
const ENDINGS: [&str; 9] = ["wandb", "jsonl", "ndjson", "csv", "tsv", "log", "out", "txt", "err"];

/// One file of a run.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    /// It goes on from the part before it.
    pub(super) resumed: bool,
}

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The file or directory that it is.
    pub(super) path: PathBuf,
    pub(super) parts: Vec<Part>,
    pub(super) format: Format,
    pub(super) why: String,
    /// A person named this very file: it is shown even if it says nothing.
    pub(super) named: bool,
}

/// Something that was passed over.
#[derive(Debug, Clone)]
pub(super) struct Skipped {
    pub(super) path: PathBuf,
    pub(super) why: String,
}

/// All that was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) sources: Vec<Source>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) skipped_count: u64,
    entries: u64,
    only: Option<Format>,
}

impl Found {
    pub(super) fn new(only: Option<Format>) -> Self {
        Self { only, ..Self::default() }
    }

    pub(super) fn skip(&mut self, path: &Path, why: impl Into<String>) {
        self.skipped_count += 1;
        if self.skipped.len() < MAX_SKIPPED {
            self.skipped.push(Skipped { path: path.to_owned(), why: why.into() });
        }
    }

    /// Takes in a path that a person named; links to it are followed.
    ///
    /// # Errors
    /// Where it is not there or cannot be read.
    pub(super) fn add(&mut self, path: &Path) -> io::Result<()> {
        let meta = fs::metadata(path)?;
        if meta.is_dir() {
            fs::read_dir(path)?;
            let from = self.sources.len();
            self.walk(path, 0);
            history::join(self, from);
        } else if meta.is_file() {
            self.file(path, true)?;
        } else {
            self.skip(path, "no regular file: pipes, sockets and devices are not read");
        }
        Ok(())
    }

    fn walk(&mut self, dir: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            self.skip(dir, format!("more than {MAX_DEPTH} directories deep"));
            return;
        }
        let Some((files, dirs)) = self.entries(dir) else { return };
        if self.outlast(dir, &files) || self.mlflow(dir, &files, &dirs) {
            return;
        }
        let wandb = |path: &&PathBuf| path.extension().is_some_and(|end| end == "wandb");
        if let Some(file) = files.iter().find(wandb) {
            // What lies beside it says the same again, or less.
            if let Err(error) = self.file(file, false) {
                self.skip(file, error.to_string());
            }
            return;
        }
        let (events, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|path| is_events(path));
        if !events.is_empty() && self.wants(Format::TensorBoard) {
            let count = events.len();
            let why = format!("a directory with {count} event file{}", if count == 1 { "" } else { "s" });
            self.run(dir, events, Format::TensorBoard, why);
        }
        for path in others {
            let name = path.file_name().unwrap_or_default();
            let end = path.extension().unwrap_or_default().to_ascii_lowercase();
            let known = name == "trainer_state.json" || ENDINGS.iter().any(|known| end == *known);
            if known && let Err(error) = self.file(&path, false) {
                self.skip(&path, error.to_string());
            }
        }
        for path in dirs {
            self.walk(&path, depth + 1);
        }
    }

    fn wants(&self, format: Format) -> bool {
        self.only.is_none_or(|only| only == format)
    }

    /// A directory's files and directories in order of their names.
    fn entries(&mut self, dir: &Path) -> Option<(Vec<PathBuf>, Vec<PathBuf>)> {
        let listed = match fs::read_dir(dir) {
            Ok(listed) => listed,
            Err(error) => {
                self.skip(dir, error.to_string());
                return None;
            }
        };
        let (mut files, mut dirs) = (Vec::new(), Vec::new());
        for entry in listed {
            if self.entries >= MAX_ENTRIES {
                self.skip(dir, format!("more than {MAX_ENTRIES} entries below the path"));
                break;
            }
            self.entries += 1;
            let Ok(entry) = entry else { continue };
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(path),
                Ok(kind) if kind.is_file() => files.push(path),
                Ok(kind) if kind.is_symlink() => {
                    self.skip(&path, "a link: links in directories are not followed");
                }
                Ok(_) => self.skip(&path, "no regular file"),
                Err(error) => self.skip(&path, error.to_string()),
            }
        }
        files.sort();
        dirs.sort();
        Some((files, dirs))
    }

    /// Whether the directory is a run of a controller, as [`super::live`] lays it.
    fn outlast(&mut self, dir: &Path, files: &[PathBuf]) -> bool {
        let about = |path: &&PathBuf| path.file_name().is_some_and(|name| name == super::live::ABOUT);
        let Some(about) = files.iter().find(about) else { return false };
        if self.wants(Format::Outlast) {
            let part = |path: &PathBuf| Part { path: path.clone(), format: Format::Outlast, resumed: false };
            let points = files.iter().filter(|path| *path != about);
            let points = points.filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
            let parts = std::iter::once(about).chain(points).take(MAX_PARTS).map(part).collect();
            let path = dir.file_name().map_or_else(|| dir.to_owned(), PathBuf::from);
            let why = "a run of Outlast's".to_owned();
            self.push(Source { path, parts, format: Format::Outlast, why, named: true });
        }
        true
    }

    /// Whether the directory is a run of MLflow's file store.
    fn mlflow(&mut self, dir: &Path, files: &[PathBuf], dirs: &[PathBuf]) -> bool {
        let meta = files.iter().find(|path| path.file_name().is_some_and(|name| name == "meta.yaml"));
        let metrics = dirs.iter().find(|path| path.file_name().is_some_and(|name| name == "metrics"));
        let (Some(meta), Some(metrics)) = (meta, metrics) else { return false };
        if !self.wants(Format::MlflowMetric) {
            return true;
        }
        let mut below = Vec::new();
        self.all(metrics, 0, &mut below);
        self.run(
            dir,
            below,
            Format::MlflowMetric,
            "a run of MLflow's file store: meta.yaml and metrics/".into(),
        );
        if let Some(source) = self.sources.last_mut().filter(|source| source.path == dir) {
            source.parts.insert(0, Part { path: meta.clone(), format: Format::MlflowMeta, resumed: false });
        }
        true
    }

    fn all(&mut self, dir: &Path, depth: usize, below: &mut Vec<PathBuf>) {
        let Some((files, dirs)) = self.entries(dir).filter(|_| depth <= MAX_DEPTH) else { return };
        below.extend(files);
        for path in dirs {
            self.all(&path, depth + 1, below);
        }
    }

    fn run(&mut self, path: &Path, mut files: Vec<PathBuf>, format: Format, why: String) {
        for file in files.drain(files.len().min(MAX_PARTS)..).collect::<Vec<_>>() {
            self.skip(&file, format!("more than {MAX_PARTS} files of one run"));
        }
        let parts = files.into_iter().map(|path| Part { path, format, resumed: false }).collect();
        self.push(Source { path: path.to_owned(), parts, format, why, named: false });
    }

    fn push(&mut self, source: Source) {
        if self.sources.len() < MAX_RUNS {
            self.sources.push(source);
        } else {
            self.skip(&source.path, format!("more than {MAX_RUNS} runs: name fewer paths at once"));
        }
    }

    fn file(&mut self, path: &Path, named: bool) -> io::Result<()> {
        let mut head = Vec::new();
        let file = open(path)?;
        file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        let guesses = detect(&path.to_string_lossy(), &head);
        let likely = guesses.first().filter(|guess| named || self.wants(guess.format));
        let (format, why) = match (self.only, likely) {
            (Some(format), _) if named => (format, "as --format says".to_owned()),
            (_, Some(guess)) => (guess.format, guess.reason.to_owned()),
            (None, None) => {
                self.skip(path, if head.is_empty() { "is empty" } else { "of no known format" });
                return Ok(());
            }
            (Some(_), _) => return Ok(()),
        };
        let unread = match format {
            Format::Sqlite => "an SQLite database: export its metrics as CSV",
            Format::Zip => "a zip archive: unpack it first",
            Format::Gzip => "a gzip stream: unpack it first",
            _ => {
                let parts = vec![Part { path: path.to_owned(), format, resumed: false }];
                self.push(Source { path: path.to_owned(), parts, format, why, named });
                return Ok(());
            }
        };
        self.skip(path, unread);
        Ok(())
    }
}

/// Opens a regular file and nothing else: opening a pipe would wait for ever.
///
/// # Errors
/// Where it is none or cannot be opened.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let refuse = || io::Error::new(io::ErrorKind::InvalidInput, "no regular file");
    if !fs::metadata(path)?.is_file() {
        return Err(refuse());
    }
    let file = File::open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(refuse()) }
}

fn is_events(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains("tfevents"))
}
