//! What other views need of the search and the readers of `analyze`: the runs
//! below paths, each to be read into any sink, or judged.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use curves::format::{Format, Schema, Wandb};
use curves::judge::Report;
use curves::log::{Reader, Sink};

use super::find::{self, Found, Part, Source};
use super::{no_data, read, unreadable, words};
use crate::exit_code::Failure;

/// Bytes taken from a file at a time.
const PIECE: usize = 256 * 1024;
/// Bytes of one file that are read.
const MAX_FILE_BYTES: u64 = 16 << 30;

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

    /// Reads it into a sink; returns what went wrong with single files.
    pub(crate) fn read(&self, sink: &mut dyn Sink) -> Vec<String> {
        let mut notes = Vec::new();
        for part in &self.source.parts {
            if let Err(error) = feed(part, sink, &mut notes) {
                let name = part.path.file_name().unwrap_or_default().to_string_lossy();
                notes.push(format!("{}: {error}", words::quoted(&name)));
            }
        }
        notes
    }

    /// Judges it, as `analyze` does.
    pub(crate) fn judge(&self) -> Report {
        read::analyse(&self.source).report
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
