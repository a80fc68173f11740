//! Small files that no disk ever holds: in a file system of memory, for this
//! user alone, for the moment between two processes. Where there is none,
//! nothing is written anywhere.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::read_bounded;

/// Where systems have one, besides `XDG_RUNTIME_DIR`.
const PLACES: [&str; 3] = ["/dev/shm", "/run/shm", "/run"];
/// What such a file's name begins with.
const NAME: &str = "outlast-";

fn is_memory(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

fn places() -> Vec<PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    own.into_iter().chain(PLACES.map(PathBuf::from)).filter(|dir| is_memory(dir)).collect()
}

fn begins(owner: &str) -> String {
    format!("{NAME}{owner}.")
}

/// Writes a file that only this user can read, under a name that nobody could
/// make before. `owner` holds letters, digits and `-`.
///
/// # Errors
/// Where no file system of memory can be written to.
pub fn write_in_memory(owner: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut last = io::Error::new(
        io::ErrorKind::NotFound,
        "no file system in memory (tmpfs) at XDG_RUNTIME_DIR, /dev/shm, /run/shm or /run",
    );
    for dir in places() {
        let path = dir.join(format!("{}{:016x}{:016x}", begins(owner), fastrand::u64(..), fastrand::u64(..)));
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match made.and_then(|mut file| file.write_all(bytes)) {
            Ok(()) => return Ok(path),
            Err(error) => {
                let _ = fs::remove_file(&path);
                last = error;
            }
        }
    }
    Err(last)
}

/// What such a file holds; it is gone afterwards.
///
/// # Errors
/// Where it is not there, lies on a disk or is longer than `max`.
pub fn take_from_memory(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    if !path.parent().is_some_and(is_memory) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not lie in memory"));
    }
    let bytes = read_bounded(path, max);
    fs::remove_file(path)?;
    bytes
}

/// Removes what is left of an owner's files.
pub fn clear_memory(owner: &str) {
    let begins = begins(owner);
    for dir in places() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.filter_map(Result::ok) {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&begins)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_in_memory_is_its_owners_and_is_taken_once() {
        let owner = format!("test-{}", std::process::id());
        let path = write_in_memory(&owner, b"canary").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(take_from_memory(&path, 10).unwrap(), b"canary");
        assert!(!path.exists() && take_from_memory(&path, 10).is_err());
        let left = write_in_memory(&owner, b"canary").unwrap();
        let other = write_in_memory(&format!("{owner}1"), b"canary").unwrap();
        clear_memory(&owner);
        assert!(!left.exists() && other.exists(), "only its own");
        assert!(take_from_memory(&other, 3).is_err(), "too long");
        assert!(!other.exists(), "gone all the same");
    }

    #[test]
    fn what_lies_on_a_disk_is_not_taken() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "x").unwrap();
        assert!(take_from_memory(&path, 10).is_err());
    }
}
