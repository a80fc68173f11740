//! Zip archives with stored entries, as PyTorch and NumPy write them. Their
//! directory is last; where an entry's data begins, only its own header says.

use std::ops::Range;

use super::outline::{At, piece};
use crate::archive::{self, Directory, END64, End, LOCAL, LOCATOR, LONGEST_END};

/// In memory while a checkpoint is published.
const MAX_DIRECTORY: u64 = 8 << 20;
/// Entries that are smaller are not worth a look at their headers.
const LEAST: u64 = 64 << 10;

/// Where the data of stored entries lie, if this is an archive.
pub(super) fn records(file: &(impl At + ?Sized), size: u64) -> Option<Vec<Range<u64>>> {
    if piece(file, 0, 4)? != b"PK\x03\x04" {
        return None;
    }
    let (offset, length) = directory(file, size)?;
    if length > MAX_DIRECTORY || offset.checked_add(length)? > size {
        return None;
    }
    let bytes = piece(file, offset, length as usize)?;
    let mut records = Vec::new();
    for entry in archive::entries(&bytes) {
        let entry = entry?;
        if entry.is_stored && entry.packed >= LEAST {
            let head = piece(file, entry.local, LOCAL as usize)?;
            let start = entry.local.checked_add(archive::data_after(&head)?)?;
            let end = start.checked_add(entry.packed).filter(|end| *end <= offset)?;
            records.push(start..end);
        }
    }
    Some(records)
}

fn directory(file: &(impl At + ?Sized), size: u64) -> Option<Directory> {
    let start = size.saturating_sub(LONGEST_END);
    let end = End::find(&piece(file, start, (size - start) as usize)?)?;
    if let Some(found) = end.directory() {
        return Some(found);
    }
    let locator = piece(file, (start + end.at as u64).checked_sub(LOCATOR)?, LOCATOR as usize)?;
    match end.far(&locator) {
        Ok(at) => archive::directory64(&piece(file, at, END64 as usize)?),
        Err(short) => short,
    }
}
