//! What other views need of the search and the readers of `analyze`: the runs
//! below paths, each to be read into any sink, or judged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use curves::format::{Format, Schema};
use curves::judge::Report;
use curves::log::Sink;
use tempfile::TempDir;

use super::find::Found;
use super::read::{self, Said};
use super::source::{Part, Source};
use super::{no_data, unreadable, words};
use crate::exit_code::Failure;

/// One run that was found; it is not read yet.
#[derive(Debug, Clone)]
pub(crate) struct Gathered {
    source: Source,
    /// What was unpacked for it and others; it goes with the last of them.
    _unpacked: Arc<[TempDir]>,
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
    let unpacked: Arc<[TempDir]> = std::mem::take(&mut found.unpacked).into();
    let gathered = |source| Gathered { source, _unpacked: unpacked.clone() };
    let runs = std::mem::take(&mut found.sources).into_iter().map(gathered).collect();
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
        let time = |part: &Part| part.file().metadata().and_then(|meta| meta.modified()).ok();
        let newest = self.source.parts.iter().filter_map(time).max()?;
        newest.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
    }

    /// Reads it into a sink; returns what went wrong with single files.
    pub(crate) fn read(&self, sink: &mut dyn Sink) -> Vec<String> {
        let Said { losses, mut notes } = read::parts(&self.source, &Schema::default(), sink);
        let broken =
            [("corrupt records", losses.corrupt), ("bytes of an unfinished record at the end", losses.torn)];
        let broken = broken.into_iter().filter(|(_, loss)| loss.count > 0);
        notes.extend(broken.map(|(what, loss)| format!("{} {what}", loss.count)));
        notes
    }

    /// Judges it, as `analyze` does.
    pub(crate) fn judge(&self) -> Report {
        read::analyse(&self.source, None).report
    }
}
