//! What other views need of the search and the readers of `analyze`: the runs
//! below paths, each to be read into any sink, or judged.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use curves::format::{Format, Schema, Wandb, mlflow_param, mlflow_tag};
use curves::judge::Report;
use curves::log::{Reader, Sink};

use super::find::{self, Found, Part, Source};
use super::{no_data, read, unreadable, words};
use crate::exit_code::Failure;

/// Bytes taken from a file at a time.
const PIECE: usize = 256 * 1024;
/// Bytes of one file that are read.
const MAX_FILE_BYTES: u64 = 16 << 30;

/// Parameters and tags of a run of MLflow that are read, and bytes of each.
const MAX_BESIDE: usize = 2000;
const MAX_SMALL_BYTES: u64 = 64 * 1024;

/// One run that was found; it is not read yet.
#[derive(Debug, Clone)]
pub(crate) struct Gathered {
    source: Source,
}

/// The runs below some paths.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// In the order of the paths.
    pub(crate) runs: Vec<Gathered>,
    /// How many entries were passed over.
    pub(crate) skipped_count: u64,
}

/// Finds the runs below paths.
///
/// # Errors
/// The first path that cannot be read, or has no run below it.
pub(crate) fn gather(paths: &[PathBuf], only: Option<Format>) -> Result<Runs, Failure> {
    let mut found = Found::new(only);
    for path in paths {
        let (before, skipped) = (found.sources.len(), found.skipped.len());
        found.add(path).map_err(|error| unreadable(path, &error))?;
        if found.sources.len() == before {
            return Err(no_data(path, found.skipped.get(skipped..).unwrap_or_default()));
        }
    }
    let runs = found.sources.into_iter().map(|source| Gathered { source }).collect();
    Ok(Runs { runs, skipped_count: found.skipped_count })
}

impl Gathered {
    /// The file or directory that it is.
    pub(crate) fn path(&self) -> &Path {
        &self.source.path
    }

    /// The name that the command line has for its format.
    pub(crate) fn format(&self) -> &'static str {
        words::format(self.source.format)
    }

    /// Whether its format is one that files of other programs have too.
    pub(crate) fn loose(&self) -> bool {
        let loose = matches!(self.source.format, Format::Delimited | Format::Console | Format::JsonLines);
        loose && !self.source.named
    }

    /// When its newest file was written last, in seconds since 1970.
    pub(crate) fn written(&self) -> Option<f64> {
        let time = |part: &Part| part.path.metadata().and_then(|meta| meta.modified()).ok();
        let newest = self.source.parts.iter().filter_map(time).max()?;
        newest.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
    }

    /// Reads it into a sink; returns what went wrong with single files.
    pub(crate) fn read(&self, sink: &mut dyn Sink) -> Vec<String> {
        let mut notes = Vec::new();
        for part in &self.source.parts {
            if let Err(error) = feed(part, sink, &mut notes) {
                let name = part.path.file_name().unwrap_or_default().to_string_lossy();
                notes.push(format!("{}: {error}", words::quoted(&name)));
            }
        }
        if self.source.format == Format::MlflowMetric {
            beside(&self.source.path.join("params"), |name, bytes| mlflow_param(name, bytes, sink));
            beside(&self.source.path.join("tags"), |name, bytes| mlflow_tag(name, bytes, sink));
        }
        notes
    }

    /// Judges it, as `analyze` does.
    pub(crate) fn judge(&self) -> Report {
        read::analyse(&self.source).report
    }
}

/// The small files of a directory, by name; what is no regular file is left out,
/// as are links.
fn beside(dir: &Path, mut take: impl FnMut(&str, &[u8])) {
    let Ok(listed) = std::fs::read_dir(dir) else { return };
    let mut files: Vec<PathBuf> = listed
        .take(MAX_BESIDE)
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    for path in files {
        let mut bytes = Vec::new();
        let read = find::open(&path).and_then(|file| file.take(MAX_SMALL_BYTES).read_to_end(&mut bytes));
        if let (Ok(_), Some(name)) = (read, path.file_name().and_then(|name| name.to_str())) {
            take(name, &bytes);
        }
    }
}

fn feed(part: &Part, sink: &mut dyn Sink, notes: &mut Vec<String>) -> io::Result<()> {
    let path = part.path.to_string_lossy().replace('\\', "/");
    let reader: Option<Box<dyn Reader>> = match part.format {
        Format::Wandb if part.resumed => Some(Box::new(Wandb::resumed())),
        format => format.reader(&path, Schema::default()),
    };
    let mut reader = reader.ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = find::open(&part.path)?.take(MAX_FILE_BYTES);
    let mut piece = vec![0; PIECE];
    let read = loop {
        match file.read(&mut piece) {
            Ok(0) => break Ok(()),
            Ok(length) => reader.feed(piece.get(..length).unwrap_or_default(), sink),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    // What was read before a failure counts all the same.
    reader.finish(sink);
    let counts = reader.counts();
    for (what, tally) in
        [("corrupt records", counts.corrupt), ("bytes of an unfinished record at the end", counts.torn)]
    {
        if tally.count > 0 {
            let name = part.path.file_name().unwrap_or_default().to_string_lossy();
            notes.push(format!("{}: {} {what}", words::quoted(&name), tally.count));
        }
    }
    if read.is_ok() && file.limit() == 0 {
        notes.push(format!("only the first {} GiB were read", MAX_FILE_BYTES >> 30));
    }
    read
}
