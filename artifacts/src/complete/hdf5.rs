//! HDF5: the superblock says where the file ends, and newer ones whether a
//! writer closed it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::structure::unless_hole;
use super::{Judged, Structure, torn};

const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";
/// Where a superblock may stand: at the start, or after a user block.
const STARTS: [u64; 5] = [0, 512, 1024, 2048, 4096];

pub(super) fn begins(head: &[u8]) -> bool {
    head.starts_with(SIGNATURE)
}

pub(super) fn judge(file: &File, size: u64) -> Judged {
    for start in STARTS.into_iter().filter(|start| start + 64 <= size) {
        let mut block = [0; 64];
        file.read_exact_at(&mut block, start)?;
        if block.starts_with(SIGNATURE) {
            return superblock(file, &block, size);
        }
    }
    torn("it has no HDF5 superblock")
}

fn superblock(file: &File, block: &[u8; 64], size: u64) -> Judged {
    let version = block[8];
    let (width, first) = match version {
        0 => (usize::from(block[13]), 24),
        1 => (usize::from(block[13]), 28),
        2 | 3 => (usize::from(block[9]), 12),
        _ => return Ok(Structure::Free),
    };
    if version == 3 && block[11] & 0b101 != 0 {
        return torn("its HDF5 superblock says that it is open for writing");
    }
    if !matches!(width, 4 | 8) {
        return torn("its HDF5 superblock is damaged");
    }
    let address = |at: usize| {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(&block[at..at + width]);
        u64::from_le_bytes(bytes)
    };
    // The end is told from the start of the file, user block included.
    let end = address(first + 2 * width);
    if end == size {
        unless_hole(file, size, "hdf5")
    } else {
        torn(format!("it has {size} bytes where its HDF5 superblock says {end}"))
    }
}
