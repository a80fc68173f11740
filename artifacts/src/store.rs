//! Where objects live. A store holds opaque bytes under keys that are written
//! once; it never overwrites, and it tells "not there" from "could not ask",
//! because only the first may lead anybody to give work up as lost.

use std::io;

use async_trait::async_trait;

use crate::key::{ObjectKey, segment_ok};
use booklet::{Booklet, NoBooklet, Plan};

pub mod booklet;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod fs;
pub mod memory;
pub mod own;
#[cfg(feature = "remote")]
pub mod remote;
pub mod share;
pub mod trouble;

pub use fs::FsStore;
pub use memory::MemoryStore;

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The key was free; the object is now there, durably.
    Created,
    /// The key held these very bytes already.
    Same,
    /// The key holds other bytes, and still does.
    Different,
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store answered that there is no such object.
    #[error("object `{0}` is not in the store")]
    Missing(ObjectKey),
    /// The object is shorter than the bytes asked for.
    #[error("object `{key}` has {size} bytes, but bytes up to {end} were asked for")]
    OutOfRange {
        /// The object.
        key: ObjectKey,
        /// The end of the range asked for.
        end: u64,
        /// The size it has.
        size: u64,
    },
    /// No room is left; nothing was stored.
    #[error("the store is full ({0}): free space or raise its quota")]
    Full(String),
    /// The local file system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A prefix that no key can begin with.
    #[error("`{0}` is not a key prefix")]
    BadPrefix(String),
    /// A store across the network failed or could not be reached; the state
    /// of the object is unknown.
    #[error("the store could not be asked: {0}")]
    Remote(String),
}

/// Objects under keys that are written once.
#[async_trait]
pub trait Store: Send + Sync {
    /// Puts an object unless the key is taken; an existing one is never
    /// changed. Durable when it returns.
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError>;

    /// The same for whoever needs the bytes no more; spares a copy of them.
    async fn put_owned(&self, key: &ObjectKey, bytes: Vec<u8>) -> Result<Put, StoreError> {
        self.put_if_absent(key, &bytes).await
    }

    /// Exactly `len` bytes from `offset`, or an error.
    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError>;

    /// The size of an object; `None` if there is none.
    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError>;

    /// Every key that begins with `prefix`, sorted.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError>;

    /// Removes an object; `false` if there was none.
    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError>;

    /// Whether this is the store that it should be and no other in its place:
    /// to be asked before anything counts that others put there.
    async fn is_own(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Signs URLs for the next objects of a generation, for a machine that
    /// holds no credentials.
    async fn sign_ahead(
        &self,
        _scope: &str,
        _generation: u64,
        _plan: &Plan,
        _now_ms: u64,
    ) -> Result<Booklet, NoBooklet> {
        Err(NoBooklet::Never("the store of this installation signs no URLs".into()))
    }
}

/// Accepts what a key can begin with: whole segments, then the beginning of
/// another.
pub fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    let (whole, rest) = prefix.rsplit_once('/').map_or((None, prefix), |(whole, rest)| (Some(whole), rest));
    let whole_ok = whole.is_none_or(|whole| whole.split('/').all(segment_ok));
    if whole_ok && (rest.is_empty() || segment_ok(rest)) {
        Ok(())
    } else {
        Err(StoreError::BadPrefix(prefix.chars().take(80).collect()))
    }
}
