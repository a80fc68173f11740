//! The records of a zip archive (PyTorch, NumPy, Keras), by its directory. The
//! checksums there say which are the same; NumPy arrays tell type and shape.

use super::{LONGEST_HEADER, MOST, Piece, Stored};
use crate::restore::RestoreError;

const END: usize = 22;
const LONGEST_END: u64 = END as u64 + 65_535;
const LOCATOR: u64 = 20;
const CENTRAL: usize = 46;
const LOCAL: u64 = 30;
/// A short field with this says that the long one counts.
const FULL: u64 = u32::MAX as u64;
/// A NumPy header.
const HEADER: u64 = 4 << 10;
/// Arrays whose headers are looked at.
const ARRAYS: usize = 2_000;

struct Record {
    name: String,
    stored: bool,
    crc: u32,
    packed: u64,
    bytes: u64,
    local: u64,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(wide))
}

pub(super) async fn pieces(file: &Stored<'_>) -> Result<Option<Vec<Piece>>, RestoreError> {
    let Some((offset, length)) = directory(file).await? else { return Ok(None) };
    if length > LONGEST_HEADER || offset.checked_add(length).is_none_or(|end| end > file.size()) {
        return Ok(None);
    }
    let Some(records) = records(&file.read(offset..offset + length).await?) else { return Ok(None) };
    let mut pieces = Vec::with_capacity(records.len());
    for (number, record) in records.into_iter().enumerate() {
        let array = record.stored && record.name.ends_with(".npy") && number < ARRAYS;
        let told = if array { array_of(file, &record).await? } else { None };
        let (dtype, shape) = told.unzip();
        pieces.push(Piece {
            name: record.name,
            dtype,
            shape,
            bytes: record.bytes,
            at: record.local..record.local.saturating_add(record.packed),
            crc: Some(record.crc),
        });
    }
    Ok(Some(pieces))
}

/// Where the directory begins and how long it is.
async fn directory(file: &Stored<'_>) -> Result<Option<(u64, u64)>, RestoreError> {
    let start = file.size().saturating_sub(LONGEST_END);
    let tail = file.read(start..file.size()).await?;
    let found = || {
        let at = (0..=tail.len().checked_sub(END)?).rev().find(|at| {
            let comment = number::<2>(&tail, at + 20).map(|length| length as usize);
            tail[*at..].starts_with(b"PK\x05\x06") && comment.is_some_and(|n| at + END + n == tail.len())
        })?;
        Some((at, number::<2>(&tail, at + 10)?, number::<4>(&tail, at + 12)?, number::<4>(&tail, at + 16)?))
    };
    let Some((at, entries, length, offset)) = found() else { return Ok(None) };
    if length != FULL && offset != FULL && entries != 0xffff {
        return Ok(Some((offset, length)));
    }
    let Some(locator_at) = (start + at as u64).checked_sub(LOCATOR) else { return Ok(None) };
    let locator = file.read(locator_at..locator_at + LOCATOR).await?;
    if !locator.starts_with(b"PK\x06\x07") {
        return Ok((length != FULL && offset != FULL).then_some((offset, length)));
    }
    let Some(at64) = number::<8>(&locator, 8).filter(|at| *at < locator_at) else { return Ok(None) };
    let end = file.read(at64..at64.saturating_add(56)).await?;
    Ok(end.starts_with(b"PK\x06\x06").then(|| number::<8>(&end, 48).zip(number::<8>(&end, 40))).flatten())
}

fn records(bytes: &[u8]) -> Option<Vec<Record>> {
    let mut rest = bytes;
    let mut records = Vec::new();
    while rest.starts_with(b"PK\x01\x02") {
        let lengths = [number::<2>(rest, 28)?, number::<2>(rest, 30)?, number::<2>(rest, 32)?];
        let [name, extra, comment] = lengths.map(|length| length as usize);
        let extra = rest.get(CENTRAL + name..CENTRAL + name + extra)?;
        let [unpacked, packed, local] = widened(rest, extra)?;
        records.push(Record {
            name: String::from_utf8_lossy(rest.get(CENTRAL..CENTRAL + name)?).into_owned(),
            stored: number::<2>(rest, 10)? == 0,
            crc: u32::try_from(number::<4>(rest, 16)?).ok()?,
            packed,
            bytes: unpacked,
            local,
        });
        if records.len() > MOST {
            return None;
        }
        rest = rest.get(CENTRAL + name + extra.len() + comment..)?;
    }
    Some(records)
}

/// Sizes and place of a record, from its extra data where the fields are full.
fn widened(entry: &[u8], mut extra: &[u8]) -> Option<[u64; 3]> {
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
    Some(fields)
}

/// Type and shape of a NumPy array in a record.
async fn array_of(file: &Stored<'_>, record: &Record) -> Result<Option<(String, Vec<u64>)>, RestoreError> {
    let local = file.read(record.local..record.local.saturating_add(LOCAL)).await?;
    let lengths = number::<2>(&local, 26).zip(number::<2>(&local, 28));
    let Some((name, extra)) = lengths.filter(|_| local.starts_with(b"PK\x03\x04")) else { return Ok(None) };
    let start = record.local.saturating_add(LOCAL + name + extra);
    let head = file.read(start..start.saturating_add(HEADER.min(record.packed))).await?;
    Ok(array(&head))
}

fn array(head: &[u8]) -> Option<(String, Vec<u64>)> {
    let head = head.strip_prefix(b"\x93NUMPY")?;
    let (length, at): (u64, usize) = match head.first()? {
        1 => (number::<2>(head, 2)?, 4),
        _ => (number::<4>(head, 2)?, 6),
    };
    let text =
        String::from_utf8_lossy(head.get(at..at.checked_add(usize::try_from(length).ok()?)?)?).into_owned();
    let after = |key: &str| Some(text.split_once(key)?.1.trim_start());
    let dtype = after("'descr':")?.strip_prefix('\'')?;
    let shape = after("'shape':")?.strip_prefix('(')?;
    let dims = shape[..shape.find(')')?].split(',').map(str::trim).filter(|dim| !dim.is_empty());
    Some((dtype[..dtype.find('\'')?].to_owned(), dims.map(|dim| dim.parse().ok()).collect::<Option<_>>()?))
}
