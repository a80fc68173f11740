//! Opens names below one directory without following a symbolic link on the
//! way, component by component: a link swapped in at any moment is an error,
//! never a way out.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, readlinkat};

use crate::path;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory and the descriptors on the way to the last name looked up, so
/// that sorted paths cost one open each.
pub(crate) struct Beneath {
    root: OwnedFd,
    stack: Vec<(String, OwnedFd)>,
}

/// What a name turned out to be.
pub(crate) enum Opened {
    /// A file, a directory or something special, opened for reading.
    Node(File),
    /// A symbolic link and its target.
    Link(String),
}

impl Beneath {
    /// Opens `root`, which the caller trusts: links in it are followed.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { root: openat(CWD, root, DIRECTORY, Mode::empty())?, stack: Vec::new() })
    }

    /// The directory that holds `path`; missing ones are made if `make`.
    pub(crate) fn parent(&mut self, path: &str, make: bool) -> io::Result<BorrowedFd<'_>> {
        self.walk(path::parent(path), make)
    }

    /// The directory at `path` itself (the root if empty).
    pub(crate) fn walk(&mut self, path: &str, make: bool) -> io::Result<BorrowedFd<'_>> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let kept = self.stack.iter().zip(&parts).take_while(|((name, _), part)| name == *part).count();
        self.stack.truncate(kept);
        for part in &parts[kept..] {
            let here = self.stack.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            let flags = DIRECTORY | OFlags::NOFOLLOW;
            let fd = match openat(here, *part, flags, Mode::empty()) {
                Err(rustix::io::Errno::NOENT) if make => {
                    match mkdirat(here, *part, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    openat(here, *part, flags, Mode::empty())?
                }
                other => other?,
            };
            self.stack.push(((*part).to_owned(), fd));
        }
        Ok(self.stack.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }

    /// Opens `path` for reading, whatever it is; never blocks on a FIFO.
    pub(crate) fn node(&mut self, path: &str) -> io::Result<Opened> {
        let parent = self.parent(path, false)?;
        let leaf = path::leaf(path);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(parent, leaf, flags, Mode::empty()) {
            Ok(fd) => Ok(Opened::Node(File::from(fd))),
            Err(rustix::io::Errno::LOOP) => {
                let target = readlinkat(parent, leaf, Vec::new())?;
                let target = target.into_string().map_err(|_| io::ErrorKind::InvalidData)?;
                Ok(Opened::Link(target))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes the names in the directory behind `fd` survive a power cut.
pub(crate) fn sync(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fsync(fd)?)
}

/// Makes the names in `dir` survive a power cut.
pub(crate) fn sync_path(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
