//! A copy of what its program saves over again and again: it is taken while
//! nobody writes, found unchanged afterwards, and published in peace while the
//! next save goes over the original. Where there is no room for one, there is
//! none; a copy that may be a mix never stays.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use artifacts::complete::{Completeness, Judge, Reason};

use super::look::{Look, look};
use crate::os;
use crate::world::layout::AttemptDir;

/// As deep as checkpoints are judged.
const DEEPEST: usize = 32;
/// Stays free beside a copy.
const SPARE: u64 = 256 << 20;

/// A copy; removed when it is dropped, which waits for the disk.
pub(super) struct Copy {
    root: PathBuf,
    /// The checkpoint within.
    pub(super) path: PathBuf,
}

impl Copy {
    /// What stands for the root of the source tree.
    pub(super) fn source_root(&self) -> PathBuf {
        self.root.clone()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            tracing::warn!(%error, "a copy of a checkpoint stays until its attempt is forgotten");
        }
    }
}

/// Where copies lie: in the agent's own part, on the disk of the checkpoints.
fn place(dir: &AttemptDir) -> PathBuf {
    dir.path().join("copies")
}

/// Removes copies that an agent before this one left.
pub(super) fn sweep(dir: &AttemptDir) {
    if let Err(error) = fs::remove_dir_all(place(dir))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "copies of checkpoints of an agent before this one stay");
    }
}

/// What came of copying.
pub(super) enum Taken {
    /// The very bytes that were looked at.
    Copy(Copy),
    /// They changed meanwhile, or somebody writes to them.
    Changed,
    /// There is no room.
    NoRoom,
}

/// Copies a checkpoint, `relative` to where such lie, with the files `beside`
/// it that go with it. `before` is what it was when it was chosen.
pub(super) fn take(
    dir: &AttemptDir,
    (path, relative): (&Path, &str),
    beside: Option<&str>,
    before: &Look,
    is_said: bool,
) -> io::Result<Taken> {
    let root = place(dir).join(format!("{:016x}", fastrand::u64(..)));
    let copy = Copy { path: root.join(relative.strip_prefix("@/").unwrap_or(relative)), root };
    fs::create_dir_all(copy.path.parent().unwrap_or(&copy.root))?;
    let room = || os::disk_room(dir.path()).is_some_and(|(_, free)| free / 2 > before.bytes.max(SPARE / 2));
    let mut copier = Copier { can_clone: true, has_room: &room };
    let beside = beside.map(|name| (path.with_file_name(name), copy.path.with_file_name(name)));
    let copied = copier.all(path, &copy.path, 0).and_then(|()| match &beside {
        Some((from, to)) => copier.file(from, to),
        None => Ok(()),
    });
    match copied {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(Taken::NoRoom),
        // Where files cannot be dated no copy can be judged: it is read where it lies.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Taken::NoRoom),
        // What goes away while it is copied is being changed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Taken::Changed),
        copied => copied?,
    }
    let files = Judge::files(path)
        .into_iter()
        .map(|file| if file.as_os_str().is_empty() { path.to_owned() } else { path.join(file) });
    // A writer of now may have written before the last byte was copied.
    let is_written = matches!(os::writers(files.collect()), os::Writers::Writer(_));
    let same = look(path).is_some_and(|now| now.token == before.token);
    let whole = match Judge::default().judge(&copy.path) {
        // The other parts of its set were not copied with it.
        Completeness::Incomplete { why: Reason::WaitsFor { .. } } if before.is_file => true,
        Completeness::Incomplete { .. } => is_said,
        _ => true,
    };
    Ok(if same && whole && !is_written { Taken::Copy(copy) } else { Taken::Changed })
}

struct Copier<'a> {
    /// Until the file system refuses it.
    can_clone: bool,
    has_room: &'a dyn Fn() -> bool,
}

impl Copier<'_> {
    fn all(&mut self, from: &Path, to: &Path, depth: usize) -> io::Result<()> {
        let meta = fs::symlink_metadata(from)?;
        if meta.is_symlink() {
            return symlink(fs::read_link(from)?, to);
        }
        if meta.is_file() {
            return self.file(from, to);
        }
        if !meta.is_dir() || depth > DEEPEST {
            return Ok(());
        }
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            self.all(&from.join(&name), &to.join(&name), depth + 1)?;
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let source = os::open_nofollow(from)?;
        if self.can_clone {
            self.can_clone = artifacts::clone_file(&source, &File::create(to)?).is_ok();
        }
        if !self.can_clone {
            if !(self.has_room)() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            io::copy(&mut &source, &mut File::create(to)?)?;
        }
        let meta = source.metadata()?;
        // Layouts tell a finished save by what was written last, and a directory
        // lists its files in any order: times of copying would tell of neither.
        let dated = meta.modified().and_then(|then| File::options().write(true).open(to)?.set_modified(then));
        dated.map_err(|_| io::ErrorKind::Unsupported)?;
        // The manifest keeps modes.
        fs::set_permissions(to, meta.permissions())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    /// The seal of a save is newer than what it seals, in whatever order a file
    /// system lists them to whoever copies.
    #[test]
    fn a_copy_is_as_old_as_what_it_was_made_of() {
        let root = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(root.path(), "a");
        let last = dir.checkpoints().join("last");
        fs::create_dir_all(&last).unwrap();
        for (name, age) in [
            ("__0_0.distcp", 90),
            ("__1_0.distcp", 80),
            ("__1.metadata", 70),
            ("__0.metadata", 60),
            ("__2_0.distcp", 50),
            ("__2.metadata", 40),
        ] {
            fs::write(last.join(name), name).unwrap();
            let file = File::options().write(true).open(last.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            if age == 60 {
                fs::set_permissions(last.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o400))
                    .unwrap();
            }
        }
        let before = look(&last).unwrap();
        let Taken::Copy(copy) = take(&dir, (&last, "@/last"), None, &before, false).unwrap() else {
            panic!("it did not change")
        };
        let times = |place: &Path| -> Vec<(std::ffi::OsString, SystemTime, fs::Permissions)> {
            let mut all: Vec<_> = fs::read_dir(place)
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| (entry.file_name(), entry.metadata().unwrap()))
                .map(|(name, meta)| (name, meta.modified().unwrap(), meta.permissions()))
                .collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        assert_eq!(times(&copy.path), times(&last));
        assert!(matches!(Judge::default().judge(&copy.path), Completeness::Complete { .. }));
    }
}
