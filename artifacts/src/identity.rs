//! Which file this is and as of when, as far as its file system tells: equal
//! identities are the reason to take bytes for the same without reading them,
//! and nothing else is.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// Names the very bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    dev: u64,
    ino: u64,
    pub(crate) mode: u32,
    pub(crate) size: u64,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, i64),
    pub(crate) ctime: (i64, i64),
}

impl Identity {
    pub(crate) fn of(meta: &Metadata) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            mode: meta.mode(),
            size: meta.len(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// A directory gains and loses names without being another one.
    pub(crate) fn same_directory(&self, other: &Self) -> bool {
        (self.dev, self.ino, self.mode) == (other.dev, other.ino, other.mode)
    }
}
