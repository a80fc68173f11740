//! Tells which files of a directory were renamed into place and not written to
//! since: the word of the system itself, where times are too coarse to tell.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// Names remembered; with more, the times have to tell again.
const MOST: usize = 20_000;

/// Directories under watch.
#[derive(Debug)]
pub struct Renames {
    inotify: Inotify,
    dirs: Vec<(WatchDescriptor, PathBuf)>,
    moved: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
}

impl Renames {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// Where the system has no watches left.
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Self { inotify, dirs: Vec::new(), moved: BTreeMap::new() })
    }

    /// Watches a directory, not what is below it; again is as good as once.
    /// One that cannot be watched has no renames.
    pub fn watch(&mut self, dir: &Path) {
        if self.dirs.iter().any(|(_, known)| known == dir) {
            return;
        }
        let of = AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DONT_FOLLOW;
        if let Ok(watch) = self.inotify.add_watch(dir, of) {
            self.dirs.push((watch, dir.to_owned()));
        }
    }

    /// Whether this file was renamed into place since it is watched, and not
    /// written to after that. A directory's inside is not watched.
    pub fn has(&mut self, path: &Path) -> bool {
        self.hear();
        path.parent().and_then(|dir| self.moved.get(dir)).is_some_and(|moved| moved.contains(path))
    }

    /// Stops watching whatever is not there any more.
    pub fn keep(&mut self, is_there: impl Fn(&Path) -> bool) {
        let (inotify, moved) = (&self.inotify, &mut self.moved);
        self.dirs.retain(|(watch, dir)| {
            let stays = is_there(dir);
            if !stays {
                // It may have ended with its directory.
                let _ = inotify.rm_watch(*watch);
                moved.remove(dir);
            }
            stays
        });
    }

    fn hear(&mut self) {
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    // A write may be among what was dropped.
                    self.moved.clear();
                    continue;
                }
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    // It ended with its directory; a new one may take the name.
                    self.dirs.retain(|(watch, _)| *watch != event.wd);
                    continue;
                }
                let dir = self.dirs.iter().find(|(watch, _)| *watch == event.wd).map(|(_, dir)| dir);
                let (Some(dir), Some(name)) = (dir, event.name) else { continue };
                let moved = self.moved.entry(dir.clone()).or_default();
                if event.mask.contains(AddWatchFlags::IN_MOVED_TO) && moved.len() < MOST {
                    moved.insert(dir.join(name));
                } else {
                    moved.remove(&dir.join(name));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_rename_counts_until_the_file_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut renames = Renames::new().unwrap();
        fs::write(path("before.tmp"), "x").unwrap();
        fs::rename(path("before.tmp"), path("before")).unwrap();
        renames.watch(dir.path());
        renames.watch(dir.path());
        fs::write(path("in-place"), "x").unwrap();
        fs::write(path("a.tmp"), "x").unwrap();
        fs::rename(path("a.tmp"), path("a")).unwrap();
        assert!(renames.has(&path("a")));
        assert!(
            !renames.has(&path("before")) && !renames.has(&path("in-place")) && !renames.has(&path("a.tmp"))
        );
        OpenOptions::new().append(true).open(path("a")).unwrap().write_all(b"more").unwrap();
        assert!(!renames.has(&path("a")));
        fs::write(path("b.tmp"), "y").unwrap();
        fs::rename(path("b.tmp"), path("a")).unwrap();
        assert!(renames.has(&path("a")), "another file took the name");
        renames.keep(|_| false);
        assert!(!renames.has(&path("a")));
    }
}
