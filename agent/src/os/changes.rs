//! Waiting for changes of directories instead of looking again and again
//! (inotify(7)). A hint, never a truth: where it cannot be had, or an event is
//! lost, whoever waits must look by itself now and then.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Tells that something in the watched directories was written, made or moved.
#[derive(Debug)]
pub struct Changes {
    inotify: Inotify,
    ready: AsyncFd<File>,
    of: AddWatchFlags,
}

impl Changes {
    /// Watches nothing yet. Needs a running runtime.
    ///
    /// # Errors
    /// Where the system has no watches left.
    pub fn new() -> io::Result<Self> {
        Self::of(AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)
    }

    /// As [`Changes::new`], of files that are renamed into place only: what is
    /// written durably appears so, and nothing else wakes the waiting.
    ///
    /// # Errors
    /// Where the system has no watches left.
    pub fn renames() -> io::Result<Self> {
        Self::of(AddWatchFlags::IN_MOVED_TO)
    }

    fn of(of: AddWatchFlags) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // Its successor is unsafe code; a `File` owns its descriptor and never
        // gives it away here.
        #[expect(deprecated, reason = "the safe constructor")]
        let ready = AsyncFd::new(File::from(inotify.as_fd().try_clone_to_owned()?))?;
        Ok(Self { inotify, ready, of })
    }

    /// Watches a directory, not what is below it; again is as good as once. It
    /// ends with the directory. `false`: it cannot be watched.
    pub fn watch(&self, dir: &Path) -> bool {
        let of = self.of | AddWatchFlags::IN_ONLYDIR | AddWatchFlags::IN_DONT_FOLLOW;
        self.inotify.add_watch(dir, of).is_ok()
    }

    /// Waits until something changed since the last time. May be dropped at
    /// any moment.
    pub async fn changed(&self) {
        loop {
            let Ok(mut ready) = self.ready.readable().await else { return std::future::pending().await };
            let mut events = [0_u8; 4096];
            let mut seen = false;
            loop {
                match self.ready.get_ref().read(&mut events) {
                    Ok(n) if n > 0 => seen = true,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => break,
                }
            }
            ready.clear_ready();
            if seen {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_write_is_told_once_and_silence_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let changes = Changes::new().unwrap();
        assert!(!changes.watch(&dir.path().join("none")));
        assert!(changes.watch(dir.path()) && changes.watch(dir.path()));
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, changes.changed()).await.is_err());
        for _ in 0..3 {
            std::fs::write(dir.path().join("file"), "more").unwrap();
        }
        tokio::time::timeout(Duration::from_secs(10), changes.changed()).await.unwrap();
        assert!(tokio::time::timeout(soon, changes.changed()).await.is_err(), "it was told already");
    }

    #[tokio::test]
    async fn who_waits_for_renames_is_not_woken_by_writes() {
        let dir = tempfile::tempdir().unwrap();
        let changes = Changes::renames().unwrap();
        assert!(changes.watch(dir.path()));
        std::fs::write(dir.path().join("file"), "more").unwrap();
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, changes.changed()).await.is_err());
        std::fs::rename(dir.path().join("file"), dir.path().join("exit.json")).unwrap();
        tokio::time::timeout(Duration::from_secs(10), changes.changed()).await.unwrap();
    }
}
