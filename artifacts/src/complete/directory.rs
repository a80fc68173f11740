//! A directory is judged by its names, by every layout that knows it, and by
//! the structure of all its files. Any layout's "not yet" wins; a directory
//! that no layout knows is only ever "nothing is wrong", which the caller
//! completes with a quiet period.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::example::Examples;
use super::{
    Completeness, Judge, Reason, Structure, accelerate, dcp, deepspeed, huggingface, incomplete,
    is_temporary, lightning, megatron, orbax, reason, shards, tensorflow,
};
use crate::path::{leaf, parent};

const MAX_FILES: usize = 200_000;
const MAX_DEPTH: usize = 32;
const MAX_TEXT: u64 = 1 << 20;

/// Every layout known; each says nothing of directories it does not know.
type Layout = fn(&Listing, &Examples) -> Option<Completeness>;
const LAYOUTS: [Layout; 9] = [
    huggingface::judge,
    accelerate::judge,
    deepspeed::judge,
    |dir, _| lightning::judge(dir),
    |dir, _| megatron::judge(dir),
    |dir, _| orbax::judge(dir),
    |dir, _| tensorflow::judge(dir),
    |dir, _| dcp::judge(dir),
    |dir, _| shards::judge(dir),
];

/// One file of a directory.
pub(super) struct Member {
    /// Relative to the directory.
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) changed: SystemTime,
}

/// Everything in a directory, links left out.
pub(super) struct Listing {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) files: Vec<Member>,
}

impl Listing {
    pub(super) fn has(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    pub(super) fn get(&self, path: &str) -> Option<&Member> {
        let found = self.files.binary_search_by(|member| member.path.as_str().cmp(path)).ok()?;
        self.files.get(found)
    }

    /// Names of files directly in the subdirectory `dir` (empty: the top).
    pub(super) fn names_in<'a>(&'a self, dir: &'a str) -> impl Iterator<Item = &'a str> {
        self.files.iter().map(|member| member.path.as_str()).filter(move |path| parent(path) == dir).map(leaf)
    }

    /// A small text file, trimmed.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        text(&self.path.join(path))
    }
}

/// A small text file, trimmed.
pub(super) fn text(path: &Path) -> Option<String> {
    let small = path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_TEXT);
    let text = small.then(|| fs::read_to_string(path).ok())??;
    Some(text.trim().to_owned())
}

/// The digits between `before` and `after`.
pub(super) fn number(name: &str, before: &str, after: &str) -> Option<u64> {
    let digits = name.strip_prefix(before)?.strip_suffix(after)?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

pub(super) fn judge(judge: &mut Judge, path: &Path, name: &str) -> io::Result<Completeness> {
    let no = |why: Reason| Ok(Completeness::Incomplete { why });
    let Some(listing) = list(path, name)? else {
        return Ok(Completeness::Unknown { why: Reason::TooLarge { most: MAX_FILES } });
    };
    let temporary = listing.files.iter().find(|member| member.path.split('/').any(is_temporary));
    if listing.files.is_empty() {
        return no(Reason::NoFile);
    }
    let verdict = match (by_layouts(&listing, &judge.examples), temporary) {
        // Left over from a save that was killed, if all is newer that seals it.
        (Some(Completeness::Complete { .. }), Some(member)) if is_stale(&listing, member) => {
            Some(Completeness::Unknown { why: Reason::temporary(&member.path) })
        }
        (_, Some(member)) => return no(Reason::temporary(&member.path)),
        (verdict, None) => verdict,
    };
    let verdict = match verdict {
        Some(no @ Completeness::Incomplete { .. }) => return Ok(no),
        Some(verdict) => verdict,
        None => Completeness::Unknown { why: Reason::NoStructure },
    };
    let (mut doubt, mut odd) = (None, None);
    let is_side = listing.files.iter().any(|member| !member.path.ends_with(".json"));
    for member in &listing.files {
        match judge.cache.structure(&listing.path.join(&member.path), leaf(&member.path))? {
            // What describes weights may be written by hand: that alone does not
            // keep them from ever being taken.
            Structure::Odd(why) if is_side => odd = Some(Reason::odd(&member.path, &why)),
            Structure::Torn(why) | Structure::Odd(why) => return no(Reason::torn(&member.path, &why)),
            Structure::Changed => return no(Reason::Changed { file: reason::cut(&member.path) }),
            Structure::Doubtful(what) => doubt = Some(Reason::doubtful(&member.path, what)),
            Structure::Sound(_) | Structure::Free => {}
        }
    }
    // Orbax names a directory at the very end: nothing of it is late.
    let may_be_late = verdict != Completeness::Complete { format: orbax::FORMAT } && !is_grave(&verdict);
    let late = if may_be_late { judge.examples.late(&listing) } else { None };
    let odd = odd.filter(|_| !is_grave(&verdict));
    let verdict = match (late.or(odd), doubt, verdict) {
        (Some(why), ..) => Completeness::Unknown { why },
        (None, Some(why), Completeness::Complete { .. }) => Completeness::Unknown { why },
        (.., verdict) => verdict,
    };
    if matches!(verdict, Completeness::Complete { .. }) {
        judge.examples.learn(&listing);
    }
    Ok(verdict)
}

/// Whether a temporary file is older than everything else. Markers that are
/// taken away at the end are older, too, and mean what they say.
fn is_stale(listing: &Listing, temporary: &Member) -> bool {
    let is_marker = |name: &str| name.ends_with(".incomplete") || name.ends_with("-unfinished");
    let others = listing.files.iter().filter(|member| !member.path.split('/').any(is_temporary));
    !temporary.path.split('/').any(is_marker)
        && others.map(|member| member.changed).min() > Some(temporary.changed)
}

/// What the layouts say together: any "not yet" outweighs all, any doubt
/// another's certainty, and the graver doubt the other.
fn by_layouts(listing: &Listing, examples: &Examples) -> Option<Completeness> {
    let mut verdict = None;
    for layout in LAYOUTS {
        let now = layout(listing, examples);
        match now {
            Some(Completeness::Incomplete { .. }) => return now,
            Some(Completeness::Unknown { .. }) if !verdict.as_ref().is_some_and(is_grave) => verdict = now,
            Some(Completeness::Complete { .. }) if verdict.is_none() => verdict = now,
            _ => {}
        }
    }
    verdict
}

fn is_grave(verdict: &Completeness) -> bool {
    matches!(verdict, Completeness::Unknown { why } if why.is_grave())
}

/// `None` for a directory too large to judge.
pub(super) fn list(path: &Path, name: &str) -> io::Result<Option<Listing>> {
    let mut files = Vec::new();
    let mut open = vec![(String::new(), 0)];
    while let Some((dir, depth)) = open.pop() {
        for entry in fs::read_dir(path.join(&dir))? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let member = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < MAX_DEPTH {
                open.push((member, depth + 1));
            } else if kind.is_file() {
                let meta = entry.metadata()?;
                files.push(Member { path: member, size: meta.len(), changed: meta.modified()? });
            }
            if files.len() > MAX_FILES {
                return Ok(None);
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Some(Listing { path: path.to_owned(), name: name.to_owned(), files }))
}

/// The layout is right so far; `missing` names what is not there.
pub(super) fn unless_missing(missing: Option<String>, format: &'static str) -> Option<Completeness> {
    match missing {
        Some(what) => incomplete(Reason::waits_for(&what)),
        None => Some(Completeness::Complete { format }),
    }
}
