//! From a choice to what is read and stored: the checkpoint as it lies there,
//! or a copy where its program saves over it. Blocks, so it has a thread of its
//! own; what changed since it was chosen comes to nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use artifacts::glob::escape;
use artifacts::source::Skipped;
use artifacts::{Kind, Selection};

use super::copy::{self, Copy, Taken};
use super::look::{Look, look};
use super::seen::{self, Seen};
use super::{Still, beside, local};
use crate::os;
use crate::world::layout::AttemptDir;
use crate::world::{Candidate, Published};

/// What was chosen.
pub(super) struct Chosen {
    pub(super) relative: String,
    pub(super) token: String,
    /// As it was when it was begun with.
    pub(super) look: Look,
}

/// What is to be sent.
pub(super) struct Prepared {
    pub(super) selection: Selection,
    /// What must still hold; nothing, where a copy was taken.
    pub(super) still: Option<Still>,
    pub(super) chosen: Chosen,
    pub(super) copy: Option<Copy>,
    /// What is left out of it.
    pub(super) left: Skipped,
}

/// Makes it ready to be sent. The other result: what became of it instead.
pub(super) fn prepare(
    seen: &Arc<Mutex<Seen>>,
    dir: &AttemptDir,
    candidate: &Candidate,
) -> Result<Prepared, Published> {
    let (token, relative) = candidate.token.split_once(' ').ok_or(Published::Gone)?;
    let path = local::path_of(dir, relative);
    let look = look(&path).filter(|look| look.token == token).ok_or(Published::Gone)?;
    let (verdicts, is_said, is_rewritten) = {
        let seen = seen::lock(seen);
        let is_said = seen.open.get(relative).is_some_and(|open| open.is_said);
        (seen.verdicts.clone(), is_said, seen.is_rewritten(relative, token))
    };
    let seal = beside::seal_of(&path);
    let mut copy = None;
    if is_rewritten {
        match copy::take(dir, (&path, relative), seal, &look, is_said) {
            Ok(Taken::Copy(taken)) => copy = Some(taken),
            Ok(Taken::Changed) => return Err(Published::Gone),
            Ok(Taken::NoRoom) => {}
            Err(error) => return Err(Published::Local(error.to_string())),
        }
    }
    let from = copy.as_ref().map_or(&path, |copy| &copy.path);
    let now = os::unix_ms();
    let root = copy.as_ref().map_or_else(|| dir.source(), Copy::source_root);
    let mut left = Vec::new();
    let selection = match (relative.strip_prefix("@/"), seal) {
        (Some(_), None) => whole(from, candidate, now, &mut left),
        (Some(_), Some(seal)) => with_seal(from, seal, candidate, now, &mut left),
        (None, seal) => in_source(root, relative, seal, candidate, now, &mut left),
    };
    let selection = match selection {
        Ok(selection) => selection,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Published::Gone),
        Err(error) => return Err(Published::Local(error.to_string())),
    };
    let chosen = Chosen { relative: relative.to_owned(), token: token.to_owned(), look };
    let still = Still { verdicts, path, token: token.to_owned(), is_said };
    Ok(Prepared { selection, still: copy.is_none().then_some(still), chosen, copy, left })
}

/// A checkpoint without what cannot travel, which is `left`.
fn whole(path: &Path, candidate: &Candidate, now: u64, left: &mut Skipped) -> io::Result<Selection> {
    Selection::checkpoint_leaving(path, candidate.step, now, |path, why| {
        left.push((path.to_owned(), why));
        true
    })
}

/// A checkpoint with the file beside it that names it: its framework is given
/// the directory that holds both.
fn with_seal(
    path: &Path,
    seal: &str,
    candidate: &Candidate,
    now: u64,
    left: &mut Skipped,
) -> io::Result<Selection> {
    let mut selection = whole(path, candidate, now, left)?;
    let root = path.parent().ok_or(io::ErrorKind::NotFound)?.to_owned();
    for inside in &mut selection.paths {
        *inside = format!("{}/{inside}", selection.name);
    }
    selection.paths.push(seal.to_owned());
    selection.paths.sort();
    selection.root = root;
    Ok(selection)
}

/// A checkpoint saved inside the source tree: its paths start at the root of
/// that tree, so that it can go back in place.
fn in_source(
    root: PathBuf,
    relative: &str,
    seal: Option<&str>,
    candidate: &Candidate,
    now: u64,
    left: &mut Skipped,
) -> io::Result<Selection> {
    std::fs::symlink_metadata(root.join(relative))?;
    let mut globs = vec![escape(relative)];
    globs.extend(seal.map(|seal| match relative.rsplit_once('/') {
        Some((above, _)) => format!("{}/{seal}", escape(above)),
        None => seal.to_owned(),
    }));
    let (paths, skipped) = artifacts::source::select_results(&root, &globs).map_err(io::Error::other)?;
    left.extend(skipped);
    Ok(Selection {
        root,
        paths,
        kind: Kind::Checkpoint,
        step: candidate.step,
        name: candidate.name.clone(),
        single_file: false,
        created_ms: now,
    })
}
