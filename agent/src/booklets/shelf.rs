//! Where the few small files of an attempt's booklet are kept. A write is
//! durable when it returns, and is never done on the thread that heartbeats
//! run on.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::os;

/// A booklet of the most URLs there can be is a quarter of this.
const LONGEST: usize = 48 << 20;

/// Files by name.
#[async_trait]
pub trait Shelf: Send + Sync {
    /// What a file holds; `None` where it cannot be had.
    async fn read(&self, name: &'static str) -> Option<Vec<u8>>;

    /// Writes or replaces a file, for its owner alone.
    ///
    /// # Errors
    /// Where it is not durable: the file of before may be there.
    async fn write(&self, name: &'static str, bytes: Vec<u8>) -> io::Result<()>;

    /// Removes a file; there may be none.
    async fn remove(&self, name: &'static str);
}

/// Files in a directory of the machine.
#[derive(Debug, Clone)]
pub struct DirShelf(pub PathBuf);

#[async_trait]
impl Shelf for DirShelf {
    async fn read(&self, name: &'static str) -> Option<Vec<u8>> {
        let path = self.0.join(name);
        tokio::task::spawn_blocking(move || os::read_bounded(&path, LONGEST).ok()).await.ok().flatten()
    }

    async fn write(&self, name: &'static str, bytes: Vec<u8>) -> io::Result<()> {
        let path = self.0.join(name);
        tokio::task::spawn_blocking(move || os::write_durable(&path, &bytes))
            .await
            .map_err(io::Error::other)?
    }

    async fn remove(&self, name: &'static str) {
        let path = self.0.join(name);
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_file(&path)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(name, %error, "a file of the booklet could not be removed");
        }
    }
}
