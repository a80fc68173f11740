//! When a checkpoint is finished. Judged from names, from the structure of
//! every file and from the layout of known frameworks; never from unpickling,
//! and never from silence alone where there is a structure to judge. Whether
//! somebody still writes is the caller's to find out: only it may look at
//! other processes ([`Judge::files`] names what to look for).
//!
//! Modules: what a judgement says ([`reason`](Reason)), names, the cache of
//! judged files, directories with their layouts (one file each), and the
//! formats of files (one file each).

use std::path::{Path, PathBuf};

mod accelerate;
mod cache;
mod dcp;
mod deepspeed;
mod directory;
mod example;
mod hdf5;
mod hole;
mod huggingface;
mod json;
mod lightning;
mod megatron;
mod name;
mod npy;
mod orbax;
mod packed;
mod pickle;
mod reason;
mod safetensors;
mod shards;
mod structure;
mod tensorflow;
mod zip;

pub use name::{is_temporary, step_of};
pub use reason::Reason;

use cache::Cache;
use example::Examples;
use structure::{Judged, Structure, torn};

/// What can be said of a file or directory as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completeness {
    /// Its own structure, or its framework's marker, says it is whole.
    Complete {
        /// The format or layout that says so.
        format: &'static str,
    },
    /// Something is missing, torn or still has a temporary name.
    Incomplete {
        /// What.
        why: Reason,
    },
    /// Nothing is wrong, and nothing says that it is all: a rename into place
    /// or a quiet period must tell.
    Unknown {
        /// What leaves the question open.
        why: Reason,
    },
}

/// Judges checkpoints and remembers what it read, so that looking again costs
/// no more than looking: files by their identity, and what a complete
/// checkpoint of each place was made of.
#[derive(Debug, Default)]
pub struct Judge {
    cache: Cache,
    examples: Examples,
}

impl Judge {
    /// Judges a checkpoint: a file, or a directory with all it holds. Reads
    /// every byte of formats with checksums, so it blocks. A link is followed
    /// to what it names.
    #[must_use]
    pub fn judge(&mut self, path: &Path) -> Completeness {
        let no = |why: Reason| Completeness::Incomplete { why };
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return no(Reason::Unreadable { what: "its name is not UTF-8".into() });
        };
        if is_temporary(name) {
            return no(Reason::temporary(name));
        }
        for ending in ["-unfinished", ".incomplete"] {
            let marker = format!("{name}{ending}");
            if path.with_file_name(&marker).symlink_metadata().is_ok() {
                return no(Reason::Marked { marker: reason::cut(&marker) });
            }
        }
        let judged = path.metadata().and_then(|meta| {
            if meta.is_dir() {
                return directory::judge(self, path, name);
            }
            if !meta.is_file() {
                return Ok(no(Reason::Unreadable { what: "it is neither a file nor a directory".into() }));
            }
            if let Some(why) = shards::beside(path, name) {
                return Ok(no(why));
            }
            Ok(match self.cache.structure(path, name)? {
                Structure::Sound(format) => Completeness::Complete { format },
                Structure::Torn(why) | Structure::Odd(why) => no(Reason::torn(name, &why)),
                Structure::Changed => no(Reason::Changed { file: reason::cut(name) }),
                Structure::Doubtful(what) => Completeness::Unknown { why: Reason::doubtful(name, what) },
                Structure::Free => Completeness::Unknown { why: Reason::NoStructure },
            })
        });
        judged.unwrap_or_else(|error| no(Reason::Unreadable { what: reason::cut(&error.to_string()) }))
    }

    /// Remembers what a checkpoint is made of that counts as complete: the
    /// next one of the same place is compared with it.
    pub fn learn(&mut self, path: &Path) {
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && let Ok(Some(listing)) = directory::list(path, name)
        {
            self.examples.learn(&listing);
        }
    }

    /// The files of a checkpoint, relative to it; the empty path is the
    /// checkpoint itself where it is one file. Empty where it cannot be listed.
    #[must_use]
    pub fn files(path: &Path) -> Vec<PathBuf> {
        if !path.is_dir() {
            return vec![PathBuf::new()];
        }
        let listed = directory::list(path, "").ok().flatten();
        let files = listed.map(|listing| listing.files).unwrap_or_default();
        files.into_iter().map(|member| PathBuf::from(member.path)).collect()
    }
}

/// Judges a checkpoint once, remembering nothing.
#[must_use]
pub fn judge(path: &Path) -> Completeness {
    Judge::default().judge(path)
}

fn incomplete(why: Reason) -> Option<Completeness> {
    Some(Completeness::Incomplete { why })
}

fn unknown(why: Reason) -> Option<Completeness> {
    Some(Completeness::Unknown { why })
}

#[cfg(test)]
mod tests;
