//! Which of the runs in a tree are one: W&B's parts of a resumed run, and the
//! states that a Trainer leaves in every checkpoint.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use curves::format::{Format, Wandb};
use curves::log::{Collected, Fact, Reader as _};

use super::find::{self, Found, Inside, Source};

/// Bytes of a W&B file, at the beginning of which stands whose it is.
const HEAD: u64 = 256 * 1024;

/// Joins what was found from the `from`th run on.
pub(super) fn join(found: &mut Found, from: usize) {
    let tail = found.sources.split_off(from.min(found.sources.len()));
    let mut wandb: BTreeMap<(PathBuf, OsString), Vec<Source>> = BTreeMap::new();
    let mut trainer: BTreeMap<PathBuf, Vec<Source>> = BTreeMap::new();
    let mut rest = Vec::new();
    for source in tail {
        match source.format {
            Format::Wandb => wandb.entry(wandb_key(&source.path)).or_default().push(source),
            Format::TrainerState => trainer.entry(training(&source.path).0).or_default().push(source),
            _ => rest.push(source),
        }
    }
    for mut parts in wandb.into_values().flat_map(by_project) {
        parts.sort_by_key(|part| began(&part.path));
        let mut parts = parts.into_iter();
        let Some(mut first) = parts.next() else { continue };
        for mut part in parts {
            part.parts.iter_mut().for_each(|part| part.resumed = true);
            first.parts.append(&mut part.parts);
        }
        rest.push(first);
    }
    for (_, mut states) in trainer {
        states.sort_by_key(|state| training(&state.path).1);
        if let Some(newest) = states.pop() {
            rest.push(newest);
        }
        for state in states {
            found.skip(&state.path, "an earlier state of the same training");
        }
    }
    rest.sort_by(|a, b| a.path.cmp(&b.path));
    found.sources.extend(rest);
}

/// The folder of W&B's runs and the file's name, which holds the run's id.
fn wandb_key(path: &Path) -> (PathBuf, OsString) {
    let folder = path.parent().and_then(Path::parent).unwrap_or(Path::new(""));
    (folder.to_owned(), path.file_name().unwrap_or_default().to_owned())
}

/// Runs of one id apart by their projects: an id is one run's only within a project.
fn by_project(parts: Vec<Source>) -> Vec<Vec<Source>> {
    if parts.len() < 2 {
        return vec![parts];
    }
    let mut projects: BTreeMap<Option<String>, Vec<Source>> = BTreeMap::new();
    for part in parts {
        projects.entry(project(&part)).or_default().push(part);
    }
    projects.into_values().collect()
}

/// The project that a file of W&B's names at its beginning.
fn project(source: &Source) -> Option<String> {
    let part = source.parts.first().filter(|part| part.inside == Inside::Bytes)?;
    let mut head = Vec::new();
    find::open(part.file()).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
    let (mut reader, mut log) = (Wandb::new(), Collected::default());
    reader.feed(&head, &mut log);
    log.fact(Fact::Project).map(str::to_owned)
}

/// `20261121_084926` of `offline-run-20261121_084926-id`.
fn began(path: &Path) -> String {
    let name = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    name.split_once("run-").map_or_else(|| name.to_string(), |(_, rest)| rest.to_owned())
}

/// The training's folder and how far its state is: the one in the folder itself
/// is the last.
fn training(path: &Path) -> (PathBuf, u64) {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    match name.strip_prefix("checkpoint-").and_then(|step| step.parse().ok()) {
        Some(step) => (folder.parent().unwrap_or(Path::new("")).to_owned(), step),
        None => (folder.to_owned(), u64::MAX),
    }
}
