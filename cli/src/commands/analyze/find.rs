//! What can be read below a path, and as what: directories of tools are told by
//! the files in them, files by their first bytes.
//!
//! Trees are hostile: links are not followed, what is no regular file is never
//! opened, and depth, entries and runs have bounds. Nothing that is passed over
//! goes uncounted.

mod tools;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use curves::format::{Format, Guess, HEAD_BYTES, detect};
use tempfile::TempDir;

use super::{database, history, hparams, packed, why};

pub(super) use super::source::{Explained, Inside, Part, Skipped, Source};

/// Directories below a path that are looked into.
const MAX_DEPTH: usize = 12;
/// Entries of directories that are looked at, all together.
const MAX_ENTRIES: u64 = 100_000;
/// Runs that are judged for one answer, or asked of a server.
pub(super) const MAX_RUNS: usize = 200;
/// Runs that are taken.
const MAX_FOUND: usize = 5_000;
/// Files of one run.
const MAX_PARTS: usize = 4096;
/// Passed-over entries that are kept by name; further ones are counted.
const MAX_SKIPPED: usize = 200;
/// Files whose format is explained.
const MAX_EXPLAINED: usize = 1000;

/// How files that are worth opening in a directory end.
const ENDINGS: [&str; 12] =
    ["wandb", "jsonl", "ndjson", "csv", "tsv", "log", "out", "txt", "err", "db", "sqlite", "sqlite3"];

/// Links in W&B's directories.
const WANDB_LINKS: [&str; 3] = ["latest-run", "debug.log", "debug-internal.log"];

/// All that was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) sources: Vec<Source>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) skipped_count: u64,
    pub(super) explained: Vec<Explained>,
    /// Runs beyond the bound.
    pub(super) beyond: u64,
    entries: u64,
    only: Option<Format>,
    /// Where archives were unpacked; removed with this.
    pub(super) unpacked: Vec<TempDir>,
}

impl Found {
    pub(super) fn new(only: Option<Format>) -> Self {
        Self { only, ..Self::default() }
    }

    pub(super) fn skip(&mut self, path: &Path, why: impl Into<String>) {
        let why = why.into();
        self.explain(path, None, &why, Vec::new());
        self.skipped_count += 1;
        if self.skipped.len() < MAX_SKIPPED {
            self.skipped.push(Skipped { path: path.to_owned(), why });
        }
    }

    fn explain(&mut self, path: &Path, format: Option<Format>, why: &str, others: Vec<Guess>) {
        if self.explained.len() < MAX_EXPLAINED {
            self.explained.push(Explained { path: path.to_owned(), format, why: why.to_owned(), others });
        }
    }

    /// Takes in a path that a person named; links to it are followed.
    ///
    /// # Errors
    /// Where it is not there or cannot be read.
    pub(super) fn add(&mut self, path: &Path) -> io::Result<()> {
        let meta = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.one_of(path, error),
            meta => meta?,
        };
        if meta.is_dir() {
            fs::read_dir(path)?;
            let from = self.sources.len();
            self.walk(path, 0);
            history::join(self, from);
            hparams::join(self, from);
        } else if meta.is_file() {
            self.file(path, true)?;
        } else {
            self.skip(path, "no regular file: pipes, sockets and devices are not read");
        }
        Ok(())
    }

    /// Takes in one run of a file that holds several: `mlflow.db#NAME`.
    fn one_of(&mut self, path: &Path, missing: io::Error) -> io::Result<()> {
        let text = path.to_string_lossy();
        let there = |file: &str| Path::new(file).is_file() || Path::new(file).is_dir();
        let Some((file, wanted)) = text.rsplit_once('#').filter(|(file, _)| there(file)) else {
            return Err(missing);
        };
        let from = self.sources.len();
        if Path::new(file).is_file() {
            self.file(Path::new(file), true)?;
        } else if !self.aim(Path::new(file)) {
            return Err(missing);
        }
        let all = self.sources.split_off(from);
        let names = |source: &Source| match source.parts.first().map(|part| &part.inside) {
            Some(Inside::Stored(run)) => Some((run.run.clone(), run.name.clone())),
            Some(Inside::Aim(run)) => Some((run.clone(), run.clone())),
            _ => None,
        };
        let of = |test: &dyn Fn(&str, &str) -> bool| -> Vec<Source> {
            all.iter()
                .filter(|source| names(source).is_some_and(|(id, name)| test(&id, &name)))
                .cloned()
                .collect()
        };
        let exact = of(&|id, name| id == wanted || name == wanted);
        let found = if exact.is_empty() { of(&|id, _| id.starts_with(wanted)) } else { exact };
        if found.len() == 1 {
            self.sources.extend(found);
            return Ok(());
        }
        let listed = if found.is_empty() { &all } else { &found };
        let listed: Vec<String> = listed
            .iter()
            .filter_map(names)
            .take(8)
            .map(|(id, name)| format!("{} ({})", super::words::name(&name), super::words::name(&id)))
            .collect();
        let what = if found.is_empty() { "no run of that name; there are" } else { "could be any of" };
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{what} {}", listed.join(", "))))
    }

    fn walk(&mut self, dir: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            self.skip(dir, format!("more than {MAX_DEPTH} directories deep"));
            return;
        }
        let Some((files, dirs)) = self.entries(dir) else { return };
        if self.outlast(dir, &files)
            || self.wandb(dir, &files, depth)
            || self.mlflow(dir, &files, &dirs)
            || self.aim(dir)
            || self.clearml(dir, &files)
        {
            return;
        }
        let (events, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|path| is_events(path));
        if !events.is_empty() && self.wants(Format::TensorBoard) {
            let count = events.len();
            let why = format!("a directory with {count} event file{}", if count == 1 { "" } else { "s" });
            let settings = tools::settings(&others, Format::TensorBoard);
            let parts = events.iter().map(|path| Part::new(path, Format::TensorBoard, packing(path)));
            self.run(dir, settings.into_iter().chain(parts).collect(), Format::TensorBoard, why);
        }
        let dirs = self.dvclive(dir, &others, dirs);
        let settings = tools::settings(&others, Format::Delimited);
        let wandb = others.iter().any(|path| path.extension().is_some_and(|end| end == "wandb"));
        for path in others {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = packed::inner_name(&name);
            if crate::commands::views::holds_notes(name) {
                continue;
            }
            let end = Path::new(name).extension().unwrap_or_default().to_ascii_lowercase();
            if name == "trainer_state.json" || ENDINGS.iter().any(|known| end == *known) {
                let before = self.sources.len();
                self.try_file(&path);
                if let Some(source) = self.sources.get_mut(before).filter(|_| name == "metrics.csv") {
                    // Lightning's; they stand before what they belong to.
                    source.parts.splice(0..0, settings.clone());
                }
            } else if end == "zip" && name.starts_with("offline-") {
                // What ClearML leaves of a task that ran offline.
                self.try_file(&path);
            } else if end == "zip" {
                self.skip(&path, "a zip archive: name it to have it unpacked");
            }
        }
        for path in dirs {
            // These folders of W&B's say the same again, or less.
            let again = ["files", "logs", "tmp"].iter().any(|name| path.ends_with(name));
            if !(wandb && again) {
                self.walk(&path, depth + 1);
            }
        }
    }

    fn try_file(&mut self, path: &Path) {
        if let Err(error) = self.file(path, false) {
            self.skip(path, error.to_string());
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
                // W&B lays these beside what they lead to.
                Ok(kind) if kind.is_symlink() && WANDB_LINKS.iter().any(|name| path.ends_with(name)) => {}
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

    fn run(&mut self, path: &Path, mut parts: Vec<Part>, format: Format, why: String) {
        for part in parts.drain(parts.len().min(MAX_PARTS)..).collect::<Vec<_>>() {
            self.skip(&part.path, format!("more than {MAX_PARTS} files of one run"));
        }
        self.explain(path, Some(format), &why, Vec::new());
        self.push(Source { path: path.to_owned(), parts, format, why, named: false, output: None });
    }

    fn push(&mut self, source: Source) {
        if self.sources.len() < MAX_FOUND {
            self.sources.push(source);
        } else {
            self.beyond += 1;
            self.skip(&source.path, format!("more than {MAX_FOUND} runs: name fewer paths at once"));
        }
    }

    /// Takes in records that were written to another place.
    pub(super) fn push_elsewhere(
        &mut self,
        path: &Path,
        at: PathBuf,
        dir: TempDir,
        (format, why): (Format, String),
    ) {
        let part = Part { at: Some(at), ..Part::new(path, Format::Plugin, Inside::Bytes) };
        self.unpacked.push(dir);
        self.explain(path, Some(format), &why, Vec::new());
        self.push(Source {
            path: path.to_owned(),
            parts: vec![part],
            format,
            why,
            named: true,
            output: None,
        });
    }

    fn file(&mut self, path: &Path, named: bool) -> io::Result<()> {
        let mut head = Vec::new();
        open(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        let whole = path.to_string_lossy().into_owned();
        let mut guesses = detect(&whole, &head);
        let mut inside = Inside::Bytes;
        if guesses.first().is_some_and(|guess| guess.format == Format::Gzip) {
            head = packed::gzip_head(path)?;
            guesses = detect(packed::inner_name(&whole), &head);
            inside = Inside::Gzip;
            match guesses.first().map(|guess| guess.format) {
                _ if packed::is_tar(&head) => return self.pass(path, "a tar archive: unpack it first"),
                Some(Format::Gzip | Format::Zip) => {
                    return self.pass(path, "an archive within an archive: unpack it first");
                }
                Some(Format::Sqlite) => {
                    let (dir, at) = packed::gunzip_file(path)?;
                    self.unpacked.push(dir);
                    return self.stored(path, &at, named);
                }
                _ => {}
            }
        }
        let likely = guesses.first().copied();
        match likely.map(|guess| guess.format) {
            Some(Format::Sqlite) => return self.stored(path, path, named),
            Some(Format::Zip) => return self.archive(path),
            _ => {}
        }
        let likely = likely.filter(|guess| named || self.wants(guess.format));
        let (format, why) = match (self.only, likely) {
            (Some(format), _) if named => (format, "as --format says".to_owned()),
            (_, Some(guess)) => (guess.format, guess.reason.to_owned()),
            (None, None) => {
                let why = why::of_head(&head, Format::Console);
                return self.pass(path, why.as_deref().unwrap_or("of no known format"));
            }
            (Some(_), _) => return Ok(()),
        };
        let why = if inside == Inside::Gzip { format!("packed by gzip; {why}") } else { why };
        guesses.retain(|guess| guess.format != format);
        self.explain(path, Some(format), &why, guesses);
        let output = path.parent().map(|dir| dir.join("files/output.log"));
        let output = output.filter(|output| format == Format::Wandb && open(output).is_ok());
        let parts = vec![Part::new(path, format, inside)];
        self.push(Source { path: path.to_owned(), parts, format, why, named, output });
        Ok(())
    }

    fn pass(&mut self, path: &Path, why: &str) -> io::Result<()> {
        self.skip(path, why);
        Ok(())
    }

    /// Takes in the runs of a database, whose bytes lie at another place if it
    /// was packed.
    fn stored(&mut self, path: &Path, at: &Path, named: bool) -> io::Result<()> {
        let listing = match database::list(at)? {
            Ok(listing) => listing,
            Err(why) => return self.pass(path, why),
        };
        if !self.wants(listing.format) {
            return if named {
                self.pass(path, "holds runs of another format than --format says")
            } else {
                Ok(())
            };
        }
        let below = |name: &str| PathBuf::from(format!("{}#{name}", path.to_string_lossy()));
        for (name, why) in listing.left_out {
            self.skip(&below(&name), why);
        }
        if listing.runs.is_empty() {
            self.skip(path, "no run with values of metrics in it");
        }
        self.explain(path, Some(listing.format), listing.why, Vec::new());
        let twice = |name: &str| listing.runs.iter().filter(|run| run.name == name).count() > 1;
        let sources: Vec<Source> = listing
            .runs
            .iter()
            .map(|run| {
                let shown = below(if twice(&run.name) { &run.run } else { &run.name });
                let part = Part {
                    at: Some(at.to_owned()),
                    ..Part::new(path, listing.format, Inside::Stored(run.clone()))
                };
                let (format, why) = (listing.format, listing.why.to_owned());
                Source { path: shown, parts: vec![part], format, why, named: true, output: None }
            })
            .collect();
        sources.into_iter().for_each(|source| self.push(source));
        Ok(())
    }

    /// Takes in what lies in an archive, as if it were a directory.
    fn archive(&mut self, path: &Path) -> io::Result<()> {
        let unpacked = packed::unzip(path)?;
        let root = unpacked.dir.path().to_owned();
        self.unpacked.push(unpacked.dir);
        let (from, skipped, explained) = (self.sources.len(), self.skipped.len(), self.explained.len());
        self.walk(&root, 0);
        history::join(self, from);
        hparams::join(self, from);
        let shown = |inner: &Path| inner.strip_prefix(&root).ok().map(|inner| path.join(inner));
        for source in &mut self.sources[from..] {
            for part in &mut source.parts {
                if let Some(shown) = shown(&part.path) {
                    part.at.get_or_insert(std::mem::replace(&mut part.path, shown));
                }
            }
            source.path = shown(&source.path).unwrap_or_else(|| source.path.clone());
            source.why = format!("in a zip archive; {}", source.why);
        }
        let names = self.skipped[skipped..].iter_mut().map(|skipped| &mut skipped.path);
        for name in names.chain(self.explained[explained..].iter_mut().map(|explained| &mut explained.path)) {
            *name = shown(name).unwrap_or_else(|| name.clone());
        }
        for (inner, why) in unpacked.left_out {
            self.skip(&path.join(inner), why);
        }
        if self.sources.len() == from && self.skipped.len() == skipped {
            self.skip(path, "a zip archive without a file of a known tool");
        }
        Ok(())
    }
}

/// How a file is read that is known by its name.
fn packing(path: &Path) -> Inside {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if packed::inner_name(&name).len() < name.len() { Inside::Gzip } else { Inside::Bytes }
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

#[cfg(test)]
mod tests;
