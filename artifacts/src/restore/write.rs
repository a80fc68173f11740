//! Writes the names and bytes of one tree below one directory. No link is ever
//! followed, no name outside is ever touched, and in a directory that holds
//! other things a file is replaced in one step or left alone.

use std::collections::BTreeSet;
use std::fs::{File, FileTimes, Permissions};
use std::io::{self, Seek, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, symlinkat, unlinkat};

use super::{RestoreError, SCRATCH};
use crate::beneath::{Beneath, Opened, sync};
use crate::codec::Codec;
use crate::manifest::{ChunkRef, Kind, Manifest, Node};
use crate::offload::random_name;
use crate::path::{leaf, parent};

/// Above this many files one sync of the whole file system is cheaper than
/// one per file.
const MANY: u64 = 64;
/// Smaller files are not worth a system call to reserve their room.
#[cfg(target_os = "linux")]
const RESERVE: u64 = 1 << 20;

/// How names come to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// The directory is ours and empty: names are new.
    Fresh,
    /// The directory is in use: names are replaced by rename.
    Over,
}

/// Zeros in a row that become a hole.
const HOLE: usize = 64 << 10;
/// Directories of a source tree that it does not name itself: whoever the
/// program becomes, it reads its own source.
const SOURCE_DIR: u32 = 0o755;

/// An entry without its chunks.
enum Head {
    File { path: String, mode: u32, size: u64, mtime_ms: i64, kept: u64, dense: Vec<Range<u64>> },
    Dir { path: String, mode: u32 },
    Link { path: String, target: String },
}

impl Head {
    fn path(&self) -> &str {
        match self {
            Self::File { path, .. } | Self::Dir { path, .. } | Self::Link { path, .. } => path,
        }
    }

    fn directory(&self) -> Option<&str> {
        if let Self::Dir { path, .. } = self { Some(path) } else { None }
    }
}

/// The file being written.
struct Current {
    entry: usize,
    file: File,
    /// The name it has until it is whole.
    name: String,
    /// Zeros are left out.
    sparse: bool,
}

impl Current {
    /// Appends bytes, and leaves holes for zeros where the file may have some.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.sparse {
            return self.file.write_all(bytes);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let blocks = rest.chunks(HOLE);
            let zeros = blocks.take_while(|block| block.len() == HOLE && block.iter().all(|byte| *byte == 0));
            let hole = zeros.count() * HOLE;
            if hole > 0 {
                self.file.seek_relative(i64::try_from(hole).map_err(io::Error::other)?)?;
            } else {
                self.file.write_all(&rest[..rest.len().min(HOLE)])?;
            }
            rest = &rest[hole.max(rest.len().min(HOLE))..];
        }
        Ok(())
    }
}

/// Where a file certainly holds something: all of it but long chunks of bytes
/// that repeat, most of which are zeros.
fn dense(chunks: &[ChunkRef]) -> Vec<Range<u64>> {
    let (mut dense, mut at) = (Vec::<Range<u64>>::new(), 0);
    for chunk in chunks {
        let end = at + u64::from(chunk.len);
        if chunk.codec != Codec::Fill || (chunk.len as usize) < HOLE {
            match dense.last_mut().filter(|last| last.end == at) {
                Some(last) => last.end = end,
                None => dense.push(at..end),
            }
        }
        at = end;
    }
    dense
}

pub(super) struct Tree {
    shown: PathBuf,
    dirs: Beneath,
    heads: Vec<Head>,
    /// The first entry not begun yet.
    next: usize,
    current: Option<Current>,
    style: Style,
    /// Sync once at the end instead of per file.
    bulk: bool,
    /// Directories whose names changed.
    touched: BTreeSet<String>,
    /// It is a source tree in a directory of its own.
    opens: bool,
}

impl Tree {
    /// Prepares to write `manifest`, which is checked, below `dir`; the first
    /// `kept` chunks of each entry are there.
    pub(super) fn new(
        manifest: &Manifest,
        dir: &Path,
        style: Style,
        kept: &[usize],
    ) -> Result<Self, RestoreError> {
        let heads = manifest.entries.iter().enumerate().map(|(number, entry)| {
            let path = entry.path.clone();
            match &entry.node {
                Node::File { mode, size, mtime_ms, chunks } => {
                    let dense = dense(chunks);
                    let kept = chunks.iter().take(kept.get(number).copied().unwrap_or_default());
                    let kept = kept.map(|chunk| u64::from(chunk.len)).sum();
                    Head::File { path, mode: *mode, size: *size, mtime_ms: *mtime_ms, kept, dense }
                }
                Node::Dir { mode } => Head::Dir { path, mode: *mode },
                Node::Symlink { target } => Head::Link { path, target: target.clone() },
            }
        });
        Ok(Self {
            shown: dir.to_owned(),
            dirs: Beneath::open(dir).map_err(|e| RestoreError::io(dir, e))?,
            heads: heads.collect(),
            next: 0,
            current: None,
            style,
            bulk: style == Style::Fresh && manifest.files() > MANY && cfg!(target_os = "linux"),
            touched: BTreeSet::from([String::new()]),
            opens: style == Style::Fresh && manifest.kind == Kind::Source,
        })
    }

    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    /// Appends to the file of `entry`; entries come in order.
    pub(super) fn write(&mut self, entry: usize, bytes: &[u8]) -> Result<(), RestoreError> {
        while self.current.as_ref().is_none_or(|current| current.entry != entry) {
            self.advance()?;
        }
        if let Some(current) = &mut self.current {
            let written = current.append(bytes);
            written.map_err(|e| self.failed(entry, e))?;
        }
        Ok(())
    }

    /// Ends the current file and begins the next entry.
    fn advance(&mut self) -> Result<(), RestoreError> {
        self.close()?;
        let entry = self.next;
        self.next += 1;
        match self.heads.get(entry) {
            None => return Err(self.failed(entry, io::Error::other("chunks came out of order"))),
            // Later, when nothing is left that could be written through it.
            Some(Head::Link { .. }) => {}
            Some(Head::Dir { path, .. }) => {
                let made = self.dirs.walk(path, true).map(drop);
                if !self.bulk {
                    self.touched.extend(above(path).map(str::to_owned).chain([path.clone()]));
                }
                made.map_err(|e| self.failed(entry, e))?;
            }
            // It has its bytes: only what is beside them may be another.
            Some(Head::File { path, mode, mtime_ms, kept, .. }) if self.style == Style::Over && *kept > 0 => {
                let touched = touch(&mut self.dirs, path, *mode, *mtime_ms);
                touched.map_err(|e| self.failed(entry, e))?;
            }
            Some(Head::File { path, size, kept, dense, .. }) => {
                let sparse = dense.iter().map(|run| run.end - run.start).sum::<u64>() < *size;
                let begun = match kept {
                    0 => begin(&mut self.dirs, path, dense, self.style),
                    kept => go_on(&mut self.dirs, path, *kept),
                };
                // Mostly they are there from the file before.
                if !self.bulk && !self.touched.contains(parent(path)) {
                    self.touched.extend(above(path).map(str::to_owned));
                }
                let (file, name) = begun.map_err(|e| self.failed(entry, e))?;
                self.current = Some(Current { entry, file, name, sparse });
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), RestoreError> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let Some(Head::File { path, mode, mtime_ms, size, .. }) = self.heads.get(current.entry) else {
            return Ok(());
        };
        let mut end = || -> io::Result<()> {
            if current.sparse {
                current.file.set_len(*size)?;
            }
            current.file.set_permissions(Permissions::from_mode(mode & 0o777))?;
            if let Some(time) = time(*mtime_ms) {
                current.file.set_times(FileTimes::new().set_modified(time))?;
            }
            if !self.bulk {
                current.file.sync_all()?;
            }
            if self.style == Style::Over {
                let parent = self.dirs.parent(path, false)?;
                renameat(parent, &current.name, parent, leaf(path))?;
            }
            Ok(())
        };
        let ended = end();
        ended.map_err(|error| {
            let entry = current.entry;
            self.current = Some(current);
            self.failed(entry, error)
        })
    }

    /// Writes what is left: empty files, links, modes of directories; then
    /// makes everything durable.
    pub(super) fn finish(mut self) -> Result<(), RestoreError> {
        while self.next < self.heads.len() {
            self.advance()?;
        }
        self.close()?;
        for entry in 0..self.heads.len() {
            self.link(entry).map_err(|e| self.failed(entry, e))?;
        }
        for entry in (0..self.heads.len()).rev() {
            self.settle(entry).map_err(|e| self.failed(entry, e))?;
        }
        let shown = self.shown.clone();
        self.open_up().map_err(|e| RestoreError::io(&shown, e))?;
        self.sync().map_err(|e| RestoreError::io(&shown, e))
    }

    fn link(&mut self, entry: usize) -> io::Result<()> {
        let Some(Head::Link { path, target }) = self.heads.get(entry) else { return Ok(()) };
        let dir = self.dirs.parent(path, true)?;
        match self.style {
            Style::Fresh => {
                // One that an earlier try made.
                let _ = unlinkat(dir, leaf(path), AtFlags::empty());
                symlinkat(target.as_str(), dir, leaf(path))?;
            }
            Style::Over => {
                let name = temporary();
                symlinkat(target.as_str(), dir, &name)?;
                if let Err(error) = renameat(dir, &name, dir, leaf(path)) {
                    let _ = unlinkat(dir, &name, AtFlags::empty());
                    return Err(error.into());
                }
            }
        }
        self.touched.insert(parent(path).to_owned());
        Ok(())
    }

    /// Gives a directory its mode, children before parents, so that one
    /// without write permission can still be filled. One that is in use by
    /// others keeps the mode it has.
    fn settle(&mut self, entry: usize) -> io::Result<()> {
        let Some(Head::Dir { path, mode }) = self.heads.get(entry).filter(|_| self.style == Style::Fresh)
        else {
            return Ok(());
        };
        let dir = self.dirs.walk(path, false)?;
        // Names first: afterwards the directory may not be ours to open.
        if !self.bulk {
            sync(dir)?;
        }
        self.touched.remove(path);
        let dir = File::from(dir.try_clone_to_owned()?);
        dir.set_permissions(Permissions::from_mode(mode & 0o777))?;
        if self.bulk { Ok(()) } else { dir.sync_all() }
    }

    /// Lets everybody read the directories of a source tree that was made here:
    /// what may be read of it its files say.
    fn open_up(&mut self) -> io::Result<()> {
        if !self.opens {
            return Ok(());
        }
        let named: BTreeSet<&str> = self.heads.iter().filter_map(Head::directory).collect();
        let files = self.heads.iter().map(Head::path);
        let implied: BTreeSet<&str> =
            files.flat_map(above).chain([""]).filter(|dir| !named.contains(dir)).collect();
        for dir in implied {
            let dir = self.dirs.walk(dir, false)?;
            rustix::fs::fchmod(dir, Mode::from_raw_mode(SOURCE_DIR))?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.bulk {
            let root = self.dirs.walk("", false)?;
            return Ok(rustix::fs::syncfs(root)?);
        }
        while let Some(path) = self.touched.pop_last() {
            sync(self.dirs.walk(&path, false)?)?;
        }
        Ok(())
    }

    fn failed(&self, entry: usize, error: io::Error) -> RestoreError {
        let path = self.shown.join(self.heads.get(entry).map_or("", Head::path));
        // ELOOP has no stable kind; it is what opening through a link gives.
        let looped = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
        match error.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::DirectoryNotEmpty => {
                RestoreError::Blocked { path, detail: error.to_string() }
            }
            _ if looped => RestoreError::Blocked { path, detail: error.to_string() },
            _ => RestoreError::io(&path, error),
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let Some(current) = self.current.take().filter(|_| self.style == Style::Over) else { return };
        let Some(Head::File { path, .. }) = self.heads.get(current.entry) else { return };
        if let Ok(dir) = self.dirs.parent(path, false) {
            let _ = unlinkat(dir, &current.name, AtFlags::empty());
        }
    }
}

/// The directories above a path, from the outermost on.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

fn temporary() -> String {
    format!("{SCRATCH}{}", random_name())
}

fn begin(dirs: &mut Beneath, path: &str, dense: &[Range<u64>], style: Style) -> io::Result<(File, String)> {
    let parent = dirs.parent(path, true)?;
    let name = if style == Style::Over { temporary() } else { leaf(path).to_owned() };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if style == Style::Fresh {
        // What an earlier try left of it does not verify.
        let _ = unlinkat(parent, &name, AtFlags::empty());
    }
    let file = File::from(openat(parent, &name, flags, Mode::from_raw_mode(0o600))?);
    if let Err(error) = dense.iter().try_for_each(|run| reserve(&file, run)) {
        let _ = unlinkat(parent, &name, AtFlags::empty());
        return Err(error);
    }
    Ok((file, name))
}

/// Opens a file whose first `kept` bytes are verified, to append the others.
fn go_on(dirs: &mut Beneath, path: &str, kept: u64) -> io::Result<(File, String)> {
    let parent = dirs.parent(path, false)?;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(parent, leaf(path), flags, Mode::empty())?);
    file.set_len(kept)?;
    file.seek(io::SeekFrom::Start(kept))?;
    Ok((file, leaf(path).to_owned()))
}

/// Gives a file in use that has its bytes its mode and its time.
fn touch(dirs: &mut Beneath, path: &str, mode: u32, mtime_ms: i64) -> io::Result<()> {
    let Opened::Node(file) = dirs.node(path)? else { return Err(io::ErrorKind::NotFound.into()) };
    let meta = file.metadata()?;
    if meta.permissions().mode() & 0o777 != mode & 0o777 {
        file.set_permissions(Permissions::from_mode(mode & 0o777))?;
    }
    match time(mtime_ms).filter(|time| meta.modified().ok() != Some(*time)) {
        Some(time) => file.set_times(FileTimes::new().set_modified(time)),
        None => Ok(()),
    }
}

/// Learns before a large file is written whether there is room for it.
#[cfg(target_os = "linux")]
fn reserve(file: &File, run: &Range<u64>) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    let size = run.end - run.start;
    if size < RESERVE {
        return Ok(());
    }
    match fallocate(file.as_fd(), FallocateFlags::KEEP_SIZE, run.start, size) {
        Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => Err(error.into()),
        // Many file systems cannot reserve; writing will tell.
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(file: &File, _run: &Range<u64>) -> io::Result<()> {
    let _ = file.as_fd();
    Ok(())
}

fn time(ms: i64) -> Option<SystemTime> {
    let span = Duration::from_millis(ms.unsigned_abs());
    if ms < 0 { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) }
}
