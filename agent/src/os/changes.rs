//! Waiting for changes of directories instead of looking again and again
//! (inotify(7)). A hint, never a truth: where it cannot be had, or an event is
//! lost, whoever waits must look by itself now and then.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
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

/// Directories of one tree that are watched; a larger one is looked at in full
/// each time.
const DIRECTORIES: usize = 4_096;

/// Whether anything changed in whole trees since it was asked last. Says yes
/// whenever it cannot know: a directory too many, an event lost, a file system
/// that went away. Writes through a mapping, and those of other computers, it
/// never learns of.
#[derive(Debug)]
pub struct TreeChanges {
    inotify: Inotify,
    roots: Vec<PathBuf>,
    watched: HashMap<WatchDescriptor, PathBuf>,
    is_blind: bool,
}

impl TreeChanges {
    /// Watches everything below these directories. What is written from now on
    /// will be told, so whoever looks at them looks after this.
    ///
    /// # Errors
    /// Where the system has no watches left.
    pub fn of(roots: Vec<PathBuf>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let mut tree = Self { inotify, roots, watched: HashMap::new(), is_blind: false };
        tree.cover_all();
        Ok(tree)
    }

    /// Whether anything changed, or may have.
    pub fn changed(&mut self) -> bool {
        let mut changed = self.find_roots() || self.is_blind;
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => break,
                Err(_) => {
                    self.is_blind = true;
                    return true;
                }
            };
            for event in events {
                changed = true;
                let lost = AddWatchFlags::IN_Q_OVERFLOW | AddWatchFlags::IN_UNMOUNT;
                if event.mask.intersects(lost) {
                    self.cover_all();
                } else if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    self.watched.remove(&event.wd);
                } else if event.mask.contains(AddWatchFlags::IN_MOVE_SELF)
                    && self.watched.get(&event.wd).is_some_and(|dir| self.roots.contains(dir))
                {
                    // What stands under its name next is another one.
                    self.watched.remove(&event.wd);
                    let _ = self.inotify.rm_watch(event.wd);
                } else if event.mask.contains(AddWatchFlags::IN_ISDIR)
                    && event.mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)
                    && let (Some(parent), Some(name)) = (self.watched.get(&event.wd), &event.name)
                {
                    let path = parent.join(name);
                    self.cover(path);
                }
            }
        }
        changed
    }

    /// Roots that are not watched: they were not there, or are other
    /// directories now. `true`: one is there.
    fn find_roots(&mut self) -> bool {
        let mut found = false;
        for root in self.roots.clone() {
            if !self.watched.values().any(|dir| *dir == root) {
                self.cover(root.clone());
                found |= self.watched.values().any(|dir| *dir == root);
            }
        }
        found
    }

    fn cover_all(&mut self) {
        self.is_blind = false;
        for root in self.roots.clone() {
            self.cover(root);
        }
    }

    /// Watches a directory, then lists it: what comes in between is told, and
    /// what was there before is found.
    fn cover(&mut self, dir: PathBuf) {
        let mut open = vec![dir];
        while let Some(dir) = open.pop() {
            if !self.watch(&dir) {
                continue;
            }
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(entry.path());
                }
            }
        }
    }

    fn watch(&mut self, dir: &Path) -> bool {
        if self.watched.len() >= DIRECTORIES {
            self.is_blind = true;
            return false;
        }
        let of = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DONT_FOLLOW;
        match self.inotify.add_watch(dir, of) {
            Ok(watch) => {
                self.watched.insert(watch, dir.to_owned());
                true
            }
            // It went away, or is no directory: its parent tells of that.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => false,
            Err(_) => {
                self.is_blind = true;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Nothing here takes as long.
    const PATIENCE: Duration = Duration::from_mins(3);

    #[test]
    fn a_tree_tells_of_changes_at_any_depth_and_of_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let mut tree = TreeChanges::of(vec![dir.path().to_owned()]).unwrap();
        assert!(!tree.changed());
        std::fs::write(dir.path().join("a/b/file"), "x").unwrap();
        assert!(tree.changed() && !tree.changed());
        // Directories that came since, however fast they were filled.
        std::fs::create_dir_all(dir.path().join("c/d/e")).unwrap();
        std::fs::write(dir.path().join("c/d/e/file"), "x").unwrap();
        assert!(tree.changed());
        while tree.changed() {}
        std::fs::write(dir.path().join("c/d/e/file"), "yy").unwrap();
        assert!(tree.changed() && !tree.changed());
        std::fs::rename(dir.path().join("c"), dir.path().join("moved")).unwrap();
        assert!(tree.changed());
        while tree.changed() {}
        std::fs::remove_file(dir.path().join("moved/d/e/file")).unwrap();
        assert!(tree.changed() && !tree.changed());
    }

    #[test]
    fn a_root_that_comes_again_is_watched_with_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let mut tree = TreeChanges::of(vec![root.clone()]).unwrap();
        assert!(!tree.changed());
        let make = || {
            std::fs::create_dir_all(root.join("a")).unwrap();
            std::fs::write(root.join("a/file"), "x").unwrap();
        };
        for again in [0, 1, 2] {
            make();
            assert!(tree.changed(), "{again}");
            while tree.changed() {}
            std::fs::write(root.join("a/file"), "yy").unwrap();
            assert!(tree.changed(), "{again}");
            while tree.changed() {}
            if again == 0 {
                std::fs::remove_dir_all(&root).unwrap();
            } else {
                std::fs::rename(&root, dir.path().join(format!("away{again}"))).unwrap();
            }
            assert!(tree.changed(), "{again}");
            while tree.changed() {}
        }
    }

    #[test]
    fn lost_events_are_a_change_and_nothing_is_missed_after_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = TreeChanges::of(vec![dir.path().to_owned()]).unwrap();
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let limit: usize = limit.trim().parse().unwrap();
        if limit > 100_000 {
            eprintln!("skipped: {limit} events would have to be made");
            return;
        }
        let file = dir.path().join("file");
        for n in 0..limit / 2 + 2 {
            // Neighbours that are alike are one event: these are not.
            std::fs::create_dir(dir.path().join(format!("{}", n % 2))).unwrap();
            std::fs::remove_dir(dir.path().join(format!("{}", n % 2))).unwrap();
        }
        std::fs::create_dir(dir.path().join("late")).unwrap();
        assert!(tree.changed());
        while tree.changed() {}
        std::fs::write(dir.path().join("late/file"), "x").unwrap();
        assert!(tree.changed(), "a directory whose coming was lost");
        while tree.changed() {}
        std::fs::write(file, "x").unwrap();
        assert!(tree.changed());
    }

    #[test]
    fn a_tree_too_large_to_watch_may_always_have_changed() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..=DIRECTORIES {
            std::fs::create_dir(dir.path().join(n.to_string())).unwrap();
        }
        let mut tree = TreeChanges::of(vec![dir.path().to_owned()]).unwrap();
        assert!(tree.changed() && tree.changed());
    }

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
        tokio::time::timeout(PATIENCE, changes.changed()).await.unwrap();
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
        tokio::time::timeout(PATIENCE, changes.changed()).await.unwrap();
    }
}
