//! What other views need of the search and the readers of `analyze`: the runs
//! below paths, each to be read into any sink, or judged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use curves::format::Format;
use curves::judge::Report;
use curves::judge::schema::Stage;
use curves::log::Sink;
use tempfile::TempDir;

use super::ending::Ending;
use super::find::Found;
use super::follow::Followers;
use super::read::{self, Said};
use super::source::{Part, Skipped, Source};
use super::{live, no_data, plugin, schema, server, unreadable, why, words};
use crate::args::ReadAs;
use crate::config::Metrics;

/// One run that was found; it is not read yet.
#[derive(Debug, Clone)]
pub(crate) struct Gathered {
    source: Source,
    /// What somebody said of the metrics there.
    metrics: Option<Arc<Metrics>>,
    /// What was unpacked for it and others; it goes with the last of them.
    _unpacked: Arc<[TempDir]>,
}

/// What is known of a run that is looked at again and again.
#[derive(Debug)]
pub(crate) struct Watched {
    /// The file or directory that it is, as it is shown.
    pub(crate) name: String,
    pub(crate) report: Report,
    /// How it ended, if anything says that it did.
    pub(crate) ending: Option<Ending>,
    /// The newest time in it, and when its newest file was written last, in
    /// seconds since 1970.
    pub(crate) newest: Option<f64>,
    pub(crate) written: Option<f64>,
}

/// The runs below some paths.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// In the order of the paths.
    pub(crate) runs: Vec<Gathered>,
    /// How many entries were passed over.
    pub(crate) skipped_count: u64,
    /// The first of them.
    pub(crate) skipped: Vec<Skipped>,
}

/// Finds the runs below paths, or at a tracking server that is named.
///
/// # Errors
/// The first path that cannot be read, or has no run below it; all that is wrong
/// in a file that says what metrics mean.
pub(crate) fn gather(paths: &[PathBuf], only: Option<&ReadAs>) -> anyhow::Result<Runs> {
    let mut found = Found::new(match only {
        Some(ReadAs::Format(format)) => Some(*format),
        _ => None,
    });
    let limit = std::env::var(plugin::LIMIT).ok().map(|limit| (plugin::LIMIT.to_owned(), limit));
    let limit: BTreeMap<String, String> = limit.into_iter().collect();
    let mut sources = Vec::new();
    let home = std::env::home_dir();
    for path in paths {
        let skipped = found.skipped.len();
        let metrics = super::metrics(path, None, home.as_deref())?.map(Arc::new);
        let added = match (only, server::Address::of(path)) {
            (Some(ReadAs::Plugin(program)), _) => plugin::add(&mut found, program, path, &limit),
            (_, Some(address)) => address.and_then(|address| server::add_now(&mut found, &address)),
            (_, None) => found.add(path),
        };
        added.map_err(|error| unreadable(path, &error))?;
        if found.sources.is_empty() {
            return Err(no_data(path, found.skipped.get(skipped..).unwrap_or_default()).into());
        }
        sources
            .extend(std::mem::take(&mut found.sources).into_iter().map(|source| (source, metrics.clone())));
    }
    if found.beyond > 0 {
        // Before all others: an answer about the best of them is none then.
        let path = paths.first().cloned().unwrap_or_default();
        let why =
            format!("{} runs were not looked at, as there are too many: name fewer paths", found.beyond);
        found.skipped.insert(0, Skipped { path, why });
    }
    let unpacked: Arc<[TempDir]> = std::mem::take(&mut found.unpacked).into();
    let gathered = |(source, metrics)| Gathered { source, metrics, _unpacked: unpacked.clone() };
    let runs = sources.into_iter().map(gathered).collect();
    Ok(Runs { runs, skipped_count: found.skipped_count, skipped: found.skipped })
}

impl Gathered {
    /// The file or directory that it is.
    pub(crate) fn path(&self) -> &Path {
        &self.source.path
    }

    /// Where what people say of it belongs to.
    pub(crate) fn place(&self) -> &Path {
        let copy = self.source.parts.first().and_then(|part| part.path.parent());
        copy.filter(|_| self.is_own()).unwrap_or(&self.source.path)
    }

    /// Whether it is a run of the controller's.
    pub(crate) fn is_own(&self) -> bool {
        let beside = || self.source.parts.first().and_then(|part| part.path.parent());
        self.source.format == Format::Outlast && beside().is_some_and(live::is_copy)
    }

    /// It, passed over since it has no values or none to be judged by; `noted` when
    /// it was read.
    pub(crate) fn nothing(&self, values: bool, noted: &[String]) -> Skipped {
        let noted = noted.first().map(|note| format!(" ({note})")).unwrap_or_default();
        let why = if values {
            "no metric in it that a training could be judged by".to_owned()
        } else {
            why::nothing(&self.source).unwrap_or_else(|| format!("no values of metrics in it{noted}"))
        };
        Skipped { path: self.source.path.clone(), why }
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
        let keys = schema::keys(self.metrics.as_deref());
        let Said { losses, mut notes } = read::parts(&self.source, &keys, sink);
        let broken =
            [("corrupt records", losses.corrupt), ("bytes of an unfinished record at the end", losses.torn)];
        let broken = broken.into_iter().filter(|(_, loss)| loss.count > 0);
        notes.extend(broken.map(|(what, loss)| format!("{} {what}", loss.count)));
        notes
    }

    /// Judges it, as `analyze` does.
    pub(crate) fn judge(&self) -> Report {
        read::analyse(&self.source, self.metrics.as_deref()).report
    }

    /// The same, with how it ended and when something came last.
    pub(crate) fn watched(&self, followers: &Mutex<Followers>) -> Watched {
        let mut followers = followers.lock().unwrap_or_else(PoisonError::into_inner);
        let read::Run { report, ending, newest, .. } =
            followers.analyse(&self.source, self.metrics.as_deref());
        Watched { name: words::path(self.path()), report, ending, newest, written: self.written() }
    }

    /// The parts of a run that somebody named, in order of their steps.
    pub(crate) fn stages(&self) -> &[Stage] {
        self.metrics.as_ref().map_or(&[], |metrics| &metrics.stages)
    }
}
