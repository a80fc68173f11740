//! Blocking file work leaves the runtime's thread here, so that a large file
//! never holds up a heartbeat. In-memory trees never come this way.

use std::io;

/// Runs `work` where it may block. Fails only if the runtime is going down or
/// `work` panicked.
pub(crate) async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Work that goes on whether anybody waits for it or not.
pub(crate) struct Started<T>(tokio::task::JoinHandle<T>);

impl<T> Started<T> {
    pub(crate) async fn done(&mut self) -> io::Result<T> {
        (&mut self.0).await.map_err(io::Error::other)
    }
}

/// Starts `work` where it may block.
pub(crate) fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Started<T> {
    Started(tokio::task::spawn_blocking(work))
}

/// Runs `work` here, or where it may block if this thread has others to serve:
/// a runtime with one thread may be a simulation, which must replay.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => offload(work).await,
        _ => Ok(work()),
    }
}

/// Eight random bytes as text, for names of temporary files only.
pub(crate) fn random_name() -> String {
    use std::hash::{BuildHasher, Hasher};
    let word = std::hash::RandomState::new().build_hasher().finish();
    format!("{word:016x}")
}

/// True for the errors that mean "no room left".
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
