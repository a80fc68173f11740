//! The files that this machine has fetched, by their digests, for all its runs.
//! A file gets its name only when it hashes to it; one that was written to since
//! is hashed again before it is used. What broke off lies beside it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::sum::Sum;
use crate::os::{self, FileLock};

/// The store; clones are of the same one.
#[derive(Debug, Clone)]
pub(super) struct Cache(PathBuf);

impl Cache {
    /// The one in this directory of the machine.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let dir = dir.join("data");
        os::make_private_dir(&dir)?;
        Ok(Self(dir))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    /// Where the file with a digest is, or will be.
    pub(super) fn file(&self, sum: &Sum) -> PathBuf {
        self.0.join(sum.hex())
    }

    fn beside(&self, sum: &Sum, end: &str) -> PathBuf {
        self.0.join(format!("{}.{end}", sum.hex()))
    }

    /// Where it is while it comes.
    pub(super) fn part(&self, sum: &Sum) -> PathBuf {
        self.beside(sum, "part")
    }

    /// Keeps others from fetching the same; `None`: somebody does.
    pub(super) fn lock(&self, sum: &Sum) -> io::Result<Option<FileLock>> {
        FileLock::try_take(&self.beside(sum, "lock"))
    }

    /// Bytes that are to come.
    pub(super) fn missing(&self, sum: &Sum, size: u64) -> u64 {
        if self.is_as_it_was(sum) {
            return 0;
        }
        size.saturating_sub(fs::metadata(self.part(sum)).map_or(0, |meta| meta.len()))
    }

    /// Whether it is here and nobody wrote to it since it was hashed.
    fn is_as_it_was(&self, sum: &Sum) -> bool {
        let kept = os::read_bounded(&self.beside(sum, "ok"), 200).unwrap_or_default();
        looks(&self.file(sum)).is_some_and(|looks| looks.as_bytes() == kept)
    }

    /// Whether it is here and what it is to be. Blocks where it must be hashed.
    pub(super) fn has(&self, sum: &Sum) -> io::Result<bool> {
        if self.is_as_it_was(sum) {
            return Ok(true);
        }
        let path = self.file(sum);
        if looks(&path).is_none() {
            return Ok(false);
        }
        if sum.is_of(&path)? {
            self.note(sum)?;
            return Ok(true);
        }
        fs::remove_file(&path)?;
        Ok(false)
    }

    fn note(&self, sum: &Sum) -> io::Result<()> {
        let looks = looks(&self.file(sum)).unwrap_or_default();
        os::write_durable(&self.beside(sum, "ok"), looks.as_bytes())
    }

    /// Gives what came its name, if it hashes to it; else it is removed. Blocks.
    pub(super) fn finish(&self, sum: &Sum) -> io::Result<bool> {
        let part = self.part(sum);
        if !sum.is_of(&part)? {
            fs::remove_file(&part)?;
            return Ok(false);
        }
        File::open(&part)?.sync_all()?;
        fs::set_permissions(&part, Permissions::from_mode(0o444))?;
        fs::rename(&part, self.file(sum))?;
        os::sync_dir(&self.0)?;
        self.note(sum)?;
        Ok(true)
    }
}

/// What changes when a file is written to; `None`: it is no file.
fn looks(path: &Path) -> Option<String> {
    let meta = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(format!("{} {} {} {}", meta.len(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hashes_to_its_name_is_kept_and_what_was_written_to_is_looked_at_again() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).unwrap();
        let sum = Sum::Git("ce013625030ba8dba906f756967f9e9ca394464a".into());
        assert_eq!((cache.has(&sum).unwrap(), cache.missing(&sum, 6)), (false, 6));
        fs::write(cache.part(&sum), "hell").unwrap();
        assert_eq!(cache.missing(&sum, 6), 2);
        assert!(!cache.finish(&sum).unwrap());
        assert!(!cache.part(&sum).exists(), "nothing wrong is gone on from");
        fs::write(cache.part(&sum), "hello\n").unwrap();
        assert!(cache.finish(&sum).unwrap());
        assert!(cache.has(&sum).unwrap() && cache.missing(&sum, 6) == 0);
        // Somebody writes to it, though it is read-only.
        let path = cache.file(&sum);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, "other\n").unwrap();
        File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(!cache.has(&sum).unwrap() && !path.exists());
        fs::write(&path, "hello\n").unwrap();
        assert!(cache.has(&sum).unwrap(), "whole, whoever wrote it");
        let held = cache.lock(&sum).unwrap();
        assert!(held.is_some() && cache.lock(&sum).unwrap().is_none());
    }
}
