//! Bytes that nobody ever wrote. A writer that sets the full size first and is
//! killed leaves them; they read as zeros, and where the file system keeps
//! them apart from written zeros it can be asked.

use std::fs::File;
use std::io;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Where the first hole of a file begins, if it has one that the file system
/// tells of. Moves the cursor of `file`.
pub(super) fn first(file: &File, size: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Hole(0)) {
        // Every file ends in a hole that has no bytes.
        Ok(at) => Ok(Some(at).filter(|at| *at < size)),
        // It does not tell, or the file was emptied meanwhile.
        Err(Errno::INVAL | Errno::NXIO | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the file system of a file keeps holes apart from written zeros:
/// ext4, XFS, btrfs, tmpfs, F2FS, and overlays of such.
pub(super) fn are_told(file: &File) -> bool {
    const TELL: [u64; 6] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0x794c_7630];
    rustix::fs::fstatfs(file).is_ok_and(|fs| TELL.contains(&(fs.f_type as u64 & 0xffff_ffff)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn written_zeros_are_no_hole() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        if !are_told(&file) {
            eprintln!("skipped: the file system here tells of no holes");
            return;
        }
        assert_eq!(first(&file, 1 << 20).unwrap(), Some(0));
        file.write_all_at(&vec![0; 1 << 20], 0).unwrap();
        assert_eq!(first(&file, 1 << 20).unwrap(), None);
        file.set_len(2 << 20).unwrap();
        assert_eq!(first(&file, 2 << 20).unwrap(), Some(1 << 20));
    }
}
