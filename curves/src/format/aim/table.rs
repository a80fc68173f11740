//! RocksDB's block-based tables, as Aim has them written: format version 4 or
//! later, a binary index whose block handles are deltas, CRC-32C, and blocks that
//! are plain or Snappy.
//! Layout: <https://github.com/facebook/rocksdb/wiki/Rocksdb-BlockBasedTable-Format>.

use std::borrow::Cow;

use super::super::MAX_RECORD_BYTES;
use super::super::protobuf::{varint, zigzag};
use super::entries::Entries;
use crate::log::Counts;

const FOOTER: usize = 53;
const MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
/// Codec and checksum behind a block.
const TRAILER: usize = 5;

/// Reads a whole table.
pub(super) fn read(table: &[u8], entries: &mut Entries, counts: &mut Counts) {
    let Some((meta, index)) = footer(table) else {
        counts.corrupt.hit(0);
        return;
    };
    match block(table, index).map(|block| handles(&block)) {
        Some(handles) => {
            let mut end = 0;
            for handle in handles {
                // Blocks stand one behind the other: none is named twice.
                if handle.0 < end {
                    counts.corrupt.hit(handle.0);
                    break;
                }
                end = handle.0.saturating_add(handle.1);
                let Some(block) = block(table, handle) else {
                    counts.corrupt.hit(handle.0);
                    continue;
                };
                counts.records += 1;
                each(&block, |key, value| {
                    if let Some((key, sequence, kind)) = internal(key) {
                        match kind {
                            0 | 7 => entries.set(key, sequence, None, handle.0, counts),
                            1 => entries.set(key, sequence, Some(value), handle.0, counts),
                            _ => counts.unknown.hit(handle.0),
                        }
                    }
                });
            }
        }
        None => counts.corrupt.hit(index.0),
    }
    ranges(table, meta, entries, counts);
}

/// Offset and size of a block.
type Handle = (u64, u64);

/// Handles of the meta index and the index.
fn footer(table: &[u8]) -> Option<(Handle, Handle)> {
    let (_, footer) = table.split_last_chunk::<FOOTER>()?;
    let magic = u64::from_le_bytes(*footer.last_chunk()?);
    // The first byte says how blocks are checked: 1 is CRC-32C.
    if magic != MAGIC || footer[0] != 1 {
        return None;
    }
    let mut rest = &footer[1..FOOTER - 12];
    let mut handle = || Some((varint(&mut rest)?, varint(&mut rest)?));
    Some((handle()?, handle()?))
}

/// The content of a block, if its checksum holds.
fn block(table: &[u8], (offset, size): Handle) -> Option<Cow<'_, [u8]>> {
    let offset = usize::try_from(offset).ok()?;
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_RECORD_BYTES)?;
    let whole = table.get(offset..)?.get(..size + TRAILER)?;
    let (checked, sum) = whole.split_at(size + 1);
    let masked = crc32c::crc32c(checked).rotate_right(15).wrapping_add(0xa282_ead8);
    if masked.to_le_bytes() != sum {
        return None;
    }
    let content = &whole[..size];
    match checked[size] {
        0 => Some(content.into()),
        1 => {
            let length = snap::raw::decompress_len(content).ok().filter(|len| *len <= MAX_RECORD_BYTES)?;
            let plain = snap::raw::Decoder::new().decompress_vec(content).ok()?;
            (plain.len() == length).then(|| plain.into())
        }
        _ => None,
    }
}

/// The entries of a block without the places where keys stand whole.
fn body(block: &[u8]) -> &[u8] {
    let Some((rest, count)) = block.split_last_chunk::<4>() else { return &[] };
    // The highest bit tells of a hash index.
    let restarts = (u32::from_le_bytes(*count) & 0x7fff_ffff) as usize;
    restarts.checked_mul(4).and_then(|size| rest.len().checked_sub(size)).map_or(&[], |end| &rest[..end])
}

/// Calls back with each key and value while they are sound.
fn each(block: &[u8], mut take: impl FnMut(&[u8], &[u8])) -> Option<()> {
    let mut rest = body(block);
    let mut key = Vec::new();
    while !rest.is_empty() {
        let shared = usize::try_from(varint(&mut rest)?).ok()?;
        let unshared = usize::try_from(varint(&mut rest)?).ok()?;
        let length = usize::try_from(varint(&mut rest)?).ok()?;
        let (own, after) = rest.split_at_checked(unshared)?;
        let (value, after) = after.split_at_checked(length)?;
        rest = after;
        (shared <= key.len()).then(|| key.truncate(shared))?;
        key.extend_from_slice(own);
        take(&key, value);
    }
    Some(())
}

/// The blocks that an index names. A handle stands whole where its key does, and
/// where a key shares nothing with the one before; elsewhere only the change of
/// its size does, as blocks follow each other.
fn handles(index: &[u8]) -> Vec<Handle> {
    let mut out: Vec<Handle> = Vec::new();
    let mut rest = body(index);
    while !rest.is_empty() {
        let last = out.last().copied();
        let Some(handle) = next_handle(&mut rest, last) else { break };
        out.push(handle);
    }
    out
}

fn next_handle(rest: &mut &[u8], last: Option<Handle>) -> Option<Handle> {
    let shared = varint(rest)?;
    let unshared = usize::try_from(varint(rest)?).ok()?;
    *rest = rest.split_at_checked(unshared)?.1;
    match last {
        Some((offset, size)) if shared > 0 => {
            let offset = offset.checked_add(size)?.checked_add(TRAILER as u64)?;
            Some((offset, size.checked_add_signed(zigzag(varint(rest)?))?))
        }
        _ => Some((varint(rest)?, varint(rest)?)),
    }
}

/// A key of the user, its sequence number and what was done.
fn internal(key: &[u8]) -> Option<(&[u8], u64, u8)> {
    let (key, mark) = key.split_last_chunk::<8>()?;
    let mark = u64::from_le_bytes(*mark);
    Some((key, mark >> 8, mark as u8))
}

/// Applies the table's deletions of ranges to what was read so far.
fn ranges(table: &[u8], meta: Handle, entries: &mut Entries, counts: &mut Counts) {
    let mut found = None;
    if let Some(meta) = block(table, meta) {
        each(&meta, |key, mut value| {
            if key == b"rocksdb.range_del" {
                found = varint(&mut value).zip(varint(&mut value));
            }
        });
    }
    if let Some((handle, ranges)) = found.and_then(|handle| Some((handle, block(table, handle)?))) {
        each(&ranges, |begin, end| {
            if let Some((begin, sequence, 15)) = internal(begin) {
                entries.delete_range(begin, end, sequence, handle.0, counts);
            }
        });
    }
}
