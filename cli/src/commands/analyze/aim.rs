//! A run in a repository of Aim: the files of its two databases, read as a whole
//! because the newest entry of a key may stand in any of them.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use curves::format::Aim;
use curves::log::{Counts, Sink};

use super::find::{self, Part};

/// Bytes of one file.
const MAX_FILE: u64 = 256 << 20;
/// Files of one run.
const MAX_FILES: usize = 4096;
/// Runs of one repository that are looked at.
const MAX_RUNS: usize = 10_000;

/// The runs of a repository with their files, the older before the newer;
/// `None` where the directory is none.
pub(super) fn runs(dir: &Path) -> Option<Vec<(String, Vec<PathBuf>)>> {
    let (meta, values) = (dir.join("meta/chunks"), dir.join("seqs/chunks"));
    let is_dir = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    if !(is_dir(&meta) && is_dir(&values)) {
        return None;
    }
    let mut names: Vec<String> = fs::read_dir(&values)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .take(MAX_RUNS)
        .filter(|name| is_dir(&values.join(name)))
        .collect();
    names.sort();
    let all = names.into_iter().map(|run| {
        let mut files: Vec<PathBuf> =
            [&meta, &values].iter().flat_map(|chunks| database_files(&chunks.join(&run))).collect();
        files.truncate(MAX_FILES);
        (run, files)
    });
    Some(all.collect())
}

/// Tables and logs by their numbers.
fn database_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<(u64, PathBuf)> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))?;
            let path = entry.path();
            let kept = path.extension().is_some_and(|end| end == "sst" || end == "log");
            let number = path.file_stem()?.to_str()?.parse().ok()?;
            kept.then_some((number, path))
        })
        .collect();
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}

/// Reads the files and pushes the run.
pub(super) fn feed(run: &str, parts: &[Part], sink: &mut dyn Sink) -> (Counts, Vec<String>) {
    let mut aim = Aim::new();
    let mut notes = Vec::new();
    let list = parts
        .first()
        .and_then(|part| part.file().ancestors().nth(4).map(|dir| dir.join("run_metadata.sqlite")));
    // Names are worth having and not worth failing for.
    if let Some(list) = list.filter(|list| list.is_file()) {
        let _ = super::database::aim_names(&list, run, sink);
    }
    for part in parts {
        match whole(part.file()) {
            Ok(bytes) if part.path.extension().is_some_and(|end| end == "sst") => aim.table(&bytes),
            Ok(bytes) => aim.log(&bytes),
            // A live run replaces its logs by tables.
            Err(error) => notes.push(super::read::note(part, &error)),
        }
    }
    aim.push(run, sink);
    (*aim.counts(), notes)
}

fn whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    find::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than Aim's tables are"));
    }
    Ok(bytes)
}
