//! Zip archives with stored entries, as PyTorch and NumPy write them. Their
//! directory is last; where an entry's data begins, only its own header says.

use std::ops::Range;

use super::outline::{At, piece};

const END: usize = 22;
const LONGEST_END: u64 = END as u64 + 65_535;
const LOCATOR: u64 = 20;
const CENTRAL: usize = 46;
const LOCAL: u64 = 30;
/// In memory while a checkpoint is published.
const MAX_DIRECTORY: u64 = 8 << 20;
/// A short field with this says that the long one counts.
const FULL: u64 = u32::MAX as u64;
/// Entries that are smaller are not worth a look at their headers.
const LEAST: u64 = 64 << 10;

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(wide))
}

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
    let mut rest = bytes.as_slice();
    let mut records = Vec::new();
    while rest.starts_with(b"PK\x01\x02") {
        let lengths = [number::<2>(rest, 28)?, number::<2>(rest, 30)?, number::<2>(rest, 32)?];
        let [name, extra, comment] = lengths.map(|length| length as usize);
        let extra = rest.get(CENTRAL + name..CENTRAL + name + extra)?;
        let stored = number::<2>(rest, 10)? == 0;
        let [packed, local] = widened(rest, extra)?;
        if stored && packed >= LEAST {
            let head = piece(file, local, LOCAL as usize)?;
            if !head.starts_with(b"PK\x03\x04") {
                return None;
            }
            let start = local + LOCAL + number::<2>(&head, 26)? + number::<2>(&head, 28)?;
            let end = start.checked_add(packed).filter(|end| *end <= offset)?;
            records.push(start..end);
        }
        rest = rest.get(CENTRAL + name + extra.len() + comment..)?;
    }
    Some(records)
}

/// Size and place of an entry, from its extra data where the fields are full.
fn widened(entry: &[u8], mut extra: &[u8]) -> Option<[u64; 2]> {
    let mut fields = [number::<4>(entry, 24)?, number::<4>(entry, 20)?, number::<4>(entry, 42)?];
    while fields.contains(&FULL) {
        let (id, length) = (number::<2>(extra, 0)?, number::<2>(extra, 2)? as usize);
        let data = extra.get(4..4 + length)?;
        extra = &extra[4 + length..];
        if id != 1 {
            continue;
        }
        let mut at = 0;
        for field in fields.iter_mut().filter(|field| **field == FULL) {
            *field = number::<8>(data, at)?;
            at += 8;
        }
        break;
    }
    let [_, packed, local] = fields;
    Some([packed, local])
}

/// Where the directory begins and how long it is.
fn directory(file: &(impl At + ?Sized), size: u64) -> Option<(u64, u64)> {
    let start = size.saturating_sub(LONGEST_END);
    let tail = piece(file, start, (size - start) as usize)?;
    let at = (0..=tail.len().checked_sub(END)?).rev().find(|at| {
        let comment = number::<2>(&tail, at + 20).map(|length| length as usize);
        tail[*at..].starts_with(b"PK\x05\x06") && comment.is_some_and(|n| at + END + n == tail.len())
    })?;
    let (length, offset) = (number::<4>(&tail, at + 12)?, number::<4>(&tail, at + 16)?);
    let entries = number::<2>(&tail, at + 10)?;
    if length != FULL && offset != FULL && entries != 0xffff {
        return Some((offset, length));
    }
    let locator = piece(file, (start + at as u64).checked_sub(LOCATOR)?, LOCATOR as usize)?;
    if !locator.starts_with(b"PK\x06\x07") {
        return (length != FULL && offset != FULL).then_some((offset, length));
    }
    let end = piece(file, number::<8>(&locator, 8)?, 56)?;
    end.starts_with(b"PK\x06\x06").then_some((number::<8>(&end, 48)?, number::<8>(&end, 40)?))
}
