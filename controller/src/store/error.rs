//! What can go wrong in a store, told apart by what the caller should do.

use std::path::{Path, PathBuf};

/// Why a store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room on the disk. Nothing was changed.
    #[error("the database's disk is full: nothing was changed; free space, then repeat")]
    Full,
    /// The database was written by a later version.
    #[error("the database has schema {found}, this program knows up to {known}: install a newer version")]
    Newer {
        /// The schema number in the file.
        found: u32,
        /// The newest schema number this program knows.
        known: u32,
    },
    /// What is stored contradicts itself.
    #[error("the database is damaged ({0}): restore a backup")]
    Corrupt(String),
    /// Another process held the database for too long.
    #[error("the database is locked by another process: stop that one, then repeat")]
    Locked,
    /// The request cannot be stored as it is.
    #[error("refused by the store: {0}")]
    Invalid(String),
    /// This kind of store cannot do that.
    #[error("{0} is not possible with this store")]
    Unsupported(&'static str),
    /// A file beside the database could not be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Any other failure of the database.
    #[error("the database failed: {0}")]
    Sqlite(rusqlite::Error),
    /// The store was shut down.
    #[error("the store is closed")]
    Closed,
}

/// The extended code of a shared-memory file that could not grow: a full disk
/// under another name.
const IOERR_SHMSIZE: i32 = 10 | (19 << 8);

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        if error.sqlite_error().is_some_and(|e| e.extended_code == IOERR_SHMSIZE) {
            return Self::Full;
        }
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full,
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Locked,
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::Corrupt(error.to_string()),
            _ => Self::Sqlite(error),
        }
    }
}

impl StoreError {
    /// An I/O failure at a path; a full disk keeps its own name.
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::StorageFull {
            return Self::Full;
        }
        Self::Io { path: path.to_owned(), source }
    }
}
