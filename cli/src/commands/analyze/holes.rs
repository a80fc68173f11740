//! Where a file goes on behind a hole: a sparse file may be as long as somebody
//! likes, and reading its zeros would take as long as it is.

use std::fs::File;

/// Where the next bytes are that were ever written, from `from` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// From this byte on.
    At(u64),
    /// Nowhere.
    End,
    /// The file system does not say.
    Unknown,
}

/// Asks the file system; it moves where the file is read.
#[cfg(target_os = "linux")]
pub(super) fn next(file: &File, from: u64) -> Next {
    use nix::errno::Errno;
    use nix::unistd::{Whence, lseek};
    let Ok(from) = i64::try_from(from) else { return Next::Unknown };
    match lseek(file, from, Whence::SeekData) {
        Ok(at) => u64::try_from(at).map_or(Next::Unknown, Next::At),
        Err(Errno::ENXIO) => Next::End,
        Err(_) => Next::Unknown,
    }
}

/// Other systems are read through.
#[cfg(not(target_os = "linux"))]
pub(super) fn next(_file: &File, _from: u64) -> Next {
    Next::Unknown
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn what_lies_behind_a_hole_is_found() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"a", 0).unwrap();
        file.write_all_at(b"b", 64 << 20).unwrap();
        file.set_len(128 << 20).unwrap();
        // A file system without holes calls everything data.
        let found = next(&file, 32 << 20);
        assert!(matches!(found, Next::At(at) if (32 << 20..=64 << 20).contains(&at)), "{found:?}");
        assert!(matches!(next(&file, 96 << 20), Next::End | Next::At(_)));
    }
}
