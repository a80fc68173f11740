//! Files that must survive a power cut, and reads that hostile files cannot
//! make unbounded. Never follows a symbolic link for a file that it reads.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// Opens a file for reading; a symbolic link is refused, and a fifo cannot
/// make the caller wait.
///
/// # Errors
/// As `open(2)`, or when it is not a regular file.
pub fn open_nofollow(path: &Path) -> io::Result<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// Opens a file for reading and for adding at its end, made with mode 0600
/// where there is none; a symbolic link is refused.
///
/// # Errors
/// As `open(2)`, or when it is not a regular file.
pub fn append_nofollow(path: &Path) -> io::Result<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// The whole of a small file.
///
/// # Errors
/// As `open_nofollow`; a file longer than `max` is refused.
pub fn read_bounded(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    open_nofollow(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {max} bytes")));
    }
    Ok(bytes)
}

/// Makes the names inside a directory durable.
///
/// # Errors
/// As `open(2)` and `fsync(2)`.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes everything durable that was written to the file system of `path`.
///
/// # Errors
/// As `syncfs(2)`.
pub fn sync_filesystem(path: &Path) -> io::Result<()> {
    nix::unistd::syncfs(File::open(path)?)?;
    Ok(())
}

fn write_temporary(
    path: &Path,
    bytes: &[u8],
    durable: bool,
) -> io::Result<(std::path::PathBuf, std::path::PathBuf)> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let mut temporary = name.to_os_string();
    temporary.push(format!(".{}.{:08x}.tmp", std::process::id(), fastrand::u32(..)));
    let temporary = dir.join(temporary);
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            if durable { file.sync_all() } else { Ok(()) }
        });
    if let Err(e) = written {
        let _ = fs::remove_file(&temporary);
        return Err(e);
    }
    Ok((temporary, dir.to_path_buf()))
}

/// Writes or replaces a file (mode 0600) so that after a power cut either the
/// old or the new content is there, whole.
///
/// # Errors
/// When any step fails; the old content is then untouched.
pub fn write_durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (temporary, dir) = write_temporary(path, bytes, true)?;
    replace(&temporary, path)?;
    sync_dir(&dir)
}

/// Writes or replaces a file (mode 0600) so that whoever reads it sees the old
/// content or the new one, whole. A power cut may take it: for what means
/// nothing after one, and must not wait for a disk that is slow to sync.
///
/// # Errors
/// When any step fails; the old content is then untouched.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (temporary, _) = write_temporary(path, bytes, false)?;
    replace(&temporary, path)
}

fn replace(temporary: &Path, path: &Path) -> io::Result<()> {
    let done = fs::rename(temporary, path);
    if done.is_err() {
        let _ = fs::remove_file(temporary);
    }
    done
}

/// Creates a file durably and with its whole content at once, unless it exists.
///
/// # Errors
/// `AlreadyExists` when it is there; whoever gets `Ok` was the only one.
pub fn create_durable_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (temporary, dir) = write_temporary(path, bytes, true)?;
    let mut linked = fs::hard_link(&temporary, path);
    let _ = fs::remove_file(&temporary);
    // Some file systems know no hard links; the name alone still excludes.
    if linked.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::AlreadyExists) {
        linked =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            });
    }
    linked?;
    sync_dir(&dir)
}

/// Makes a directory and its parents, closed to other users (mode 0700).
///
/// # Errors
/// As `mkdir(2)`.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Bytes of free disk for us at `path`; 0 where it cannot be known.
#[must_use]
pub fn free_disk(path: &Path) -> u64 {
    #[allow(clippy::useless_conversion, reason = "the field types differ between targets")]
    nix::sys::statvfs::statvfs(path)
        .map_or(0, |v| u64::from(v.blocks_available()).saturating_mul(u64::from(v.fragment_size())))
}

/// An exclusive lock on a file that ends with its holder, however it ends.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock, or gives `None` where another process holds it.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlag::O_NOFOLLOW.bits();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_creator_wins_and_replacing_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("started");
        create_durable_once(&path, b"one").unwrap();
        let second = create_durable_once(&path, b"two").unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_durable(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        write_whole(&path, b"four").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"four");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn links_and_long_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::write(&real, b"12345").unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        assert!(read_bounded(&dir.path().join("link"), 10).is_err());
        assert!(read_bounded(&real, 4).is_err());
        assert_eq!(read_bounded(&real, 5).unwrap(), b"12345");
    }

    #[test]
    fn a_lock_excludes_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::try_take(&path).unwrap();
        assert!(held.is_some());
        assert!(FileLock::try_take(&path).unwrap().is_none());
        drop(held);
        assert!(FileLock::try_take(&path).unwrap().is_some());
    }
}
