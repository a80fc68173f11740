//! The newest entry of every key of a RocksDB database.

use std::collections::BTreeMap;

use super::super::MAX_RECORD_BYTES;
use super::super::protobuf::varint;
use crate::log::Counts;

/// The most bytes that keys and values of a run may have.
const MAX_BYTES: usize = 512 << 20;

/// Deletions of ranges look at so many entries in all: in real databases each
/// covers few, and in a made-up one every one could cover all.
const MAX_VISITED: usize = 64 << 20;

/// A sequence number and the value, which deleted keys have not.
type Entry = (u64, Option<Box<[u8]>>);

/// Keys with their newest entry.
#[derive(Debug, Default)]
pub(super) struct Entries {
    map: BTreeMap<Box<[u8]>, Entry>,
    bytes: usize,
    /// Entries that deletions of ranges looked at.
    visited: usize,
}

impl Entries {
    /// Keys that have a value, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.map.iter().filter_map(|(key, (_, value))| Some((&**key, &**value.as_ref()?)))
    }

    /// Puts or deletes a key, unless a newer entry did.
    pub(super) fn set(
        &mut self,
        key: &[u8],
        sequence: u64,
        value: Option<&[u8]>,
        at: u64,
        counts: &mut Counts,
    ) {
        // Partners of values that are not kept, all empty.
        if key.starts_with(b"BLOBS") {
            return;
        }
        if let Some(old) = self.map.get_mut(key) {
            if old.0 <= sequence {
                *old = (sequence, value.map(Into::into));
            }
            return;
        }
        let size = key.len() + value.map_or(0, <[u8]>::len) + 64;
        if self.bytes + size > MAX_BYTES || size > MAX_RECORD_BYTES {
            counts.dropped.hit(at);
            return;
        }
        self.bytes += size;
        self.map.insert(key.into(), (sequence, value.map(Into::into)));
    }

    /// Deletes what older entries put between two keys.
    pub(super) fn delete_range(
        &mut self,
        begin: &[u8],
        end: &[u8],
        sequence: u64,
        at: u64,
        counts: &mut Counts,
    ) {
        if begin >= end {
            return;
        }
        if self.visited > MAX_VISITED {
            counts.dropped.hit(at);
            return;
        }
        use std::ops::Bound::{Excluded, Included};
        for (_, entry) in self.map.range_mut::<[u8], _>((Included(begin), Excluded(end))) {
            self.visited += 1;
            if entry.0 < sequence {
                *entry = (sequence, None);
            }
        }
    }

    /// Takes a batch of writes out of a log: `None` when it is broken.
    /// Layout: <https://github.com/facebook/rocksdb/blob/main/db/write_batch.cc>.
    pub(super) fn batch(&mut self, batch: &[u8], at: u64, counts: &mut Counts) -> Option<()> {
        let (sequence, rest) = batch.split_first_chunk::<8>()?;
        let (_, mut rest) = rest.split_first_chunk::<4>()?;
        let mut sequence = u64::from_le_bytes(*sequence);
        while let Some((kind, after)) = rest.split_first() {
            rest = after;
            match kind {
                0 => {
                    let key = slice(&mut rest)?;
                    self.set(key, sequence, None, at, counts);
                }
                1 => {
                    let key = slice(&mut rest)?;
                    let value = slice(&mut rest)?;
                    self.set(key, sequence, Some(value), at, counts);
                }
                15 => {
                    let begin = slice(&mut rest)?;
                    let end = slice(&mut rest)?;
                    self.delete_range(begin, end, sequence, at, counts);
                }
                // A mark without content, such as the end of a prepared batch.
                13 => continue,
                _ => {
                    counts.unknown.hit(at);
                    return Some(());
                }
            }
            sequence = sequence.wrapping_add(1);
        }
        Some(())
    }
}

/// Bytes behind their length.
pub(super) fn slice<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(rest)?).ok()?;
    let (slice, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(slice)
}
