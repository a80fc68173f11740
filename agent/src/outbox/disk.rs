//! The files of outboxes, as bytes: what is added, made durable, replaced. It
//! knows nothing of facts. A file that lacks something takes nothing more
//! until it is replaced, since numbers follow from the order in it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// Where outboxes are written. Every call may block for as long as a disk does.
pub trait Disk: Send {
    /// Adds bytes at the end of a file that exists; where this fails, nothing
    /// of them is left, and every later `append` fails until a `replace`.
    ///
    /// # Errors
    /// Where the disk refuses, or refused before.
    fn append(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Makes durable what was added.
    ///
    /// # Errors
    /// Where the disk refuses; what of it is durable is unknown then.
    fn sync(&mut self, path: &Path) -> io::Result<()>;
    /// Puts other bytes in the place of all of a file, durably. Where this
    /// fails, every later `append` fails until another `replace`: what follows
    /// counts on the bytes that are not there.
    ///
    /// # Errors
    /// Where the disk refuses; which of both the file has is unknown then.
    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Nothing more is written to a file.
    fn close(&mut self, path: &Path);
}

/// The real files.
#[derive(Debug, Default)]
pub struct Files {
    open: BTreeMap<PathBuf, Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
    lacks: bool,
}

impl Files {
    fn open(&mut self, path: &Path) -> io::Result<&mut Open> {
        if !self.open.contains_key(path) {
            let mut file = OpenOptions::new().read(true).write(true).open(path)?;
            let len = file.seek(SeekFrom::End(0))?;
            self.open.insert(path.to_owned(), Open { file, len, lacks: false });
        }
        self.open.get_mut(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Files {
    fn append(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let open = self.open(path)?;
        if open.lacks {
            return Err(io::Error::other("an earlier record could not be written"));
        }
        if let Err(error) = open.file.write_all(bytes) {
            open.lacks = true;
            // A half-written frame must not hide the ones after it.
            open.file.set_len(open.len)?;
            open.file.seek(SeekFrom::End(0))?;
            return Err(error);
        }
        open.len += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        let open = self.open(path)?;
        let synced = open.file.sync_data();
        // After a failure the kernel may have dropped what was not written.
        open.lacks |= synced.is_err();
        synced
    }

    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Ok(open) = self.open(path) {
            open.lacks = true;
        }
        let temporary = path.with_extension("tmp");
        let file = write_new(&temporary, bytes).inspect_err(|_| {
            // What is there of it would take a full disk's last room.
            let _ = std::fs::remove_file(&temporary);
        })?;
        std::fs::rename(&temporary, path)?;
        let open = Open { file, len: bytes.len() as u64, lacks: true };
        let open = self.open.entry(path.to_owned()).insert_entry(open).into_mut();
        crate::os::sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        open.lacks = false;
        Ok(())
    }

    fn close(&mut self, path: &Path) {
        self.open.remove(path);
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_lacks_something_takes_nothing_until_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        std::fs::write(&path, "one ").unwrap();
        let mut files = Files::default();
        files.append(&path, b"two ").unwrap();
        files.sync(&path).unwrap();
        // A file that refuses every write, as a full disk does.
        let refusing = OpenOptions::new().read(true).open(&path).unwrap();
        files.open.get_mut(&path).unwrap().file = refusing;
        assert!(files.append(&path, b"three ").is_err());
        files.open.get_mut(&path).unwrap().file = OpenOptions::new().append(true).open(&path).unwrap();
        assert!(files.append(&path, b"four ").is_err(), "the fourth came before the third");
        files.replace(&path, b"one two three four ").unwrap();
        files.append(&path, b"five").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one two three four five");
        files.close(&path);
        files.append(&path, b"!").unwrap();
        assert_eq!(std::fs::read(&path).unwrap().last(), Some(&b'!'));
    }

    #[test]
    fn what_follows_a_replace_that_failed_is_not_added_to_what_was_to_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        std::fs::write(&path, "one ").unwrap();
        let mut files = Files::default();
        // The queue was full: the second is in memory alone, and then the disk.
        std::fs::create_dir(path.with_extension("tmp")).unwrap();
        assert!(files.replace(&path, b"one two ").is_err());
        assert!(files.append(&path, b"three ").is_err(), "the third came before the second");
        assert_eq!(std::fs::read(&path).unwrap(), b"one ");
        std::fs::remove_dir(path.with_extension("tmp")).unwrap();
        files.replace(&path, b"one two three ").unwrap();
        files.append(&path, b"four").unwrap();
        files.sync(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one two three four");
    }
}
