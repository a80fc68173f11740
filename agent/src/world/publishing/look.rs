//! Where checkpoints appear, and what a look at one tells without reading it.

use std::cell::OnceCell;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use artifacts::complete;
use lifecycle::RunSpec;

use super::{FILES, NAMES, beside, places, word};
use crate::world::layout::AttemptDir;

/// A place where checkpoints appear: a path and how it is told to the store.
pub(super) struct Spot {
    /// Path, for keys and for people.
    pub(super) path: PathBuf,
    pub(super) relative: String,
}

/// What a look at a checkpoint tells without reading it.
pub(super) struct Look {
    /// Names these very bytes.
    pub(super) token: String,
    /// The size of all its files.
    pub(super) bytes: u64,
    /// How many there are, and when one of them was last written; without
    /// temporary ones and locks, which go away when all is well.
    pub(super) files: (usize, (i64, i64)),
    /// Device and inode of the checkpoint itself.
    pub(super) inode: (u64, u64),
    /// When anything in it was last written: seconds and nanoseconds.
    pub(super) written: (i64, i64),
    /// When anything in it was last written, renamed, or given another stamp.
    pub(super) touched: (i64, i64),
    /// One file, not a directory of them.
    pub(super) is_file: bool,
    /// It was renamed into place after its last byte was written: a rename
    /// changes the inode's own time and not the content's.
    pub(super) moved: bool,
}

pub(super) fn look(path: &Path) -> Option<Look> {
    let mut hasher = blake3::Hasher::new();
    let (mut written, mut touched) = ((i64::MIN, 0), (i64::MIN, 0));
    let top = std::fs::symlink_metadata(path).ok()?;
    let (mut names, mut bytes) = (0, 0_u64);
    let mut files = (0, (i64::MIN, 0));
    let mut stack = vec![path.to_owned()];
    while let Some(at) = stack.pop() {
        let meta = std::fs::symlink_metadata(&at).ok()?;
        names += 1;
        if names > FILES {
            return None;
        }
        hasher.update(at.as_os_str().as_encoded_bytes());
        for part in [meta.ino(), meta.size(), meta.mtime().cast_unsigned(), meta.mtime_nsec().cast_unsigned()]
        {
            hasher.update(&part.to_le_bytes());
        }
        written = written.max((meta.mtime(), meta.mtime_nsec()));
        touched = touched.max(written).max((meta.ctime(), meta.ctime_nsec()));
        if meta.is_file() {
            bytes = bytes.saturating_add(meta.size());
        }
        if meta.is_file() && !goes_away(&at) {
            files = (files.0 + 1, files.1.max((meta.mtime(), meta.mtime_nsec())));
        }
        if meta.is_dir() {
            let mut below: Vec<_> =
                std::fs::read_dir(&at).ok()?.filter_map(Result::ok).map(|e| e.path()).collect();
            below.sort();
            stack.extend(below);
        }
    }
    let token = hasher.finalize().to_hex()[..32].to_owned();
    let (inode, moved) = ((top.dev(), top.ino()), (top.ctime(), top.ctime_nsec()) > written);
    Some(Look { token, bytes, files, inode, written, touched, moved, is_file: top.is_file() })
}

fn goes_away(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    complete::is_temporary(name) || name.ends_with(".lock")
}

/// What lies where checkpoints appear.
#[derive(Default)]
pub(super) struct Spots {
    /// At most [`NAMES`] of each place.
    pub(super) found: Vec<Spot>,
    /// The checkpoint directory is gone: the program removed it.
    pub(super) gone: bool,
    /// More entries than any training saves: only the newest were taken, and
    /// only what a name or a format says to be a checkpoint counts.
    pub(super) flood: Option<usize>,
    /// Links and what they name, and whether that is judged where it lies.
    pub(super) links: Vec<(String, String, bool)>,
    /// Two files that belong to one checkpoint and lie where each is one.
    pub(super) flat: Option<(String, String)>,
    /// Names that are not UTF-8, as they can be read.
    pub(super) unreadable: Vec<String>,
    /// Names that writers give to what is not finished.
    pub(super) temporary: Vec<String>,
}

/// Of what is no candidate, so many are shown.
const SHOWN: usize = 50;
/// Places that a link may lead to.
const LINKED: usize = 1_000;

/// Entries counted in one directory.
const ENTRIES: usize = 2_000_000;

/// The newest [`NAMES`] entries; a directory with more is read in full, or a
/// flood would hide what was saved last.
fn newest(mut names: Vec<(std::ffi::OsString, (i64, i64))>) -> Vec<std::ffi::OsString> {
    names.sort_by_key(|(_, written)| std::cmp::Reverse(*written));
    names.into_iter().take(NAMES).map(|(name, _)| name).collect()
}

fn contract_directory(dir: &AttemptDir) -> Spots {
    let place = dir.checkpoints();
    let entries = match std::fs::read_dir(&place) {
        Ok(entries) => entries,
        Err(error) => {
            return Spots { gone: error.kind() == std::io::ErrorKind::NotFound, ..Spots::default() };
        }
    };
    let mut names: Vec<_> = entries.filter_map(Result::ok).take(ENTRIES).map(|e| e.file_name()).collect();
    let flood = (names.len() > NAMES).then_some(names.len());
    if flood.is_some() {
        let dated = names.into_iter().filter_map(|name| {
            let meta = std::fs::symlink_metadata(place.join(&name)).ok()?;
            Some((name, (meta.mtime(), meta.mtime_nsec())))
        });
        names = newest(dated.collect());
    }
    let flat = beside::parts_of_one(&names);
    let mut unreadable = Vec::new();
    let names = names.into_iter().filter_map(|name| {
        name.into_string().map_err(|name| unreadable.push(name.to_string_lossy().into_owned())).ok()
    });
    let spots = names.map(|name| Spot { path: place.join(&name), relative: format!("@/{name}") });
    let found = spots.flat_map(places::within).take(NAMES).collect();
    Spots { found, flood, flat, unreadable, ..Spots::default() }
}

/// Where something is judged: below the contract's directory, and each of what
/// is looked at elsewhere.
fn real_places(dir: &AttemptDir, elsewhere: &[PathBuf]) -> (Option<PathBuf>, Vec<PathBuf>) {
    let real = |path: &PathBuf| {
        let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        (!is_link).then(|| std::fs::canonicalize(path).ok())?
    };
    (std::fs::canonicalize(dir.checkpoints()).ok(), elsewhere.iter().filter_map(real).collect())
}

/// Whether what a link leads to is looked at by itself. What is not there is
/// nothing to miss.
fn is_judged(link: &Path, (contract, elsewhere): &(Option<PathBuf>, Vec<PathBuf>)) -> bool {
    let Ok(to) = std::fs::canonicalize(link) else { return true };
    contract.as_ref().is_some_and(|contract| to.starts_with(contract) && to != *contract)
        || elsewhere.iter().any(|place| to.starts_with(place))
}

pub(super) fn spots(dir: &AttemptDir, spec: &RunSpec) -> Spots {
    let mut spots = contract_directory(dir);
    let found = &mut spots.found;
    let in_contract = found.len();
    if !spec.checkpoints.paths.is_empty()
        && let Ok(paths) = artifacts::source::select_entries(&dir.source(), &spec.checkpoints.paths)
    {
        found
            .extend(paths.into_iter().take(NAMES).map(|p| Spot { path: dir.source().join(&p), relative: p }));
    }
    let (links, temporary) = (&mut spots.links, &mut spots.temporary);
    let places = OnceCell::new();
    let elsewhere: Vec<PathBuf> =
        found.iter().skip(in_contract).take(LINKED).map(|spot| spot.path.clone()).collect();
    let is_judged = |path: &Path| is_judged(path, places.get_or_init(|| real_places(dir, &elsewhere)));
    found.retain(|s| {
        let name = s.path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name == word::DIRECTORY {
            return false;
        }
        if complete::is_temporary(name) {
            temporary.push(s.relative.clone());
            return false;
        }
        let kind = std::fs::symlink_metadata(&s.path).map(|meta| meta.file_type());
        if kind.as_ref().is_ok_and(std::fs::FileType::is_symlink)
            && let Ok(to) = std::fs::read_link(&s.path)
        {
            let shown = to.to_string_lossy().chars().take(200).collect();
            let judged = links.len() >= SHOWN || is_judged(&s.path);
            links.push((s.relative.clone(), shown, judged));
        }
        kind.is_ok_and(|kind| kind.is_file() || kind.is_dir())
    });
    links.truncate(SHOWN);
    temporary.truncate(SHOWN);
    spots
}
