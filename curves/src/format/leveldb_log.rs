//! The framing of LevelDB's logs, in which W&B and Aim keep theirs: blocks of
//! 32 KiB, counted from the beginning of the file, of chunks with checksums.
//! Format: <https://github.com/google/leveldb/blob/main/doc/log_format.md>.
//!
//! A record is handed on only when every chunk of it has its checksum. Behind a
//! broken chunk reading goes on at the next one if that is sound, else at the
//! next block, as lengths cannot be believed.

use super::MAX_RECORD_BYTES;
use super::pending::gather;
use crate::log::{Counts, Tally};

const BLOCK: u64 = 32_768;
const HEADER: usize = 7;

/// How chunks are checked, over their type and their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// CRC-32 as in zlib: W&B.
    Crc32,
    /// CRC-32C, masked as LevelDB does: RocksDB, and so Aim.
    MaskedCrc32c,
}

/// Chunks into records.
#[derive(Debug)]
pub(super) struct BlockLog {
    check: Check,
    /// Offset of the first byte of `pending`.
    at: u64,
    /// Less than a chunk, or a block with a broken chunk.
    pending: Vec<u8>,
    /// Bytes still to be passed over.
    skip: u64,
    /// Nothing was ever written where they are.
    unwritten: bool,
    /// A record whose last chunk has not come.
    record: Vec<u8>,
    record_at: Option<u64>,
    /// The beginning of what comes next is known to be lost.
    lost: bool,
    /// Space that was never written.
    blank: Tally,
}

#[derive(Debug, Clone, Copy)]
struct Chunk<'a> {
    kind: u8,
    data: &'a [u8],
}

enum Look<'a> {
    Whole(Chunk<'a>),
    Unwritten,
    Short,
    Broken,
}

impl BlockLog {
    /// A log whose first chunk stands at offset `begin` of the file.
    pub(super) fn new(check: Check, begin: u64) -> Self {
        Self {
            check,
            at: begin,
            pending: Vec::new(),
            skip: 0,
            unwritten: false,
            record: Vec::new(),
            record_at: None,
            lost: false,
            blank: Tally::default(),
        }
    }

    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        counts: &mut Counts,
        mut each: impl FnMut(u64, &[u8], &mut Counts),
    ) {
        let mut waits = std::mem::take(&mut self.pending);
        gather(&mut waits, bytes, |data| self.walk(data, false, counts, &mut each));
        self.pending = waits;
    }

    /// Says that nothing more is there for now.
    pub(super) fn finish(&mut self, counts: &mut Counts, mut each: impl FnMut(u64, &[u8], &mut Counts)) {
        let mut data = std::mem::take(&mut self.pending);
        let used = self.walk(&data, true, counts, &mut each);
        data.drain(..used);
        self.pending = data;
        counts.torn = self.blank;
        counts.torn.add(self.record.len() as u64, self.record_at.unwrap_or(self.at));
        counts.torn.add(self.pending.len() as u64, self.at);
    }

    /// Reads chunks while they are whole: bytes used.
    fn walk(
        &mut self,
        data: &[u8],
        last: bool,
        counts: &mut Counts,
        each: &mut impl FnMut(u64, &[u8], &mut Counts),
    ) -> usize {
        let begin = self.at;
        let mut used = 0;
        loop {
            let passed = self.skip.min((data.len() - used) as u64);
            if self.unwritten {
                self.blank.add(passed, begin + used as u64);
            }
            used += passed as usize;
            self.skip -= passed;
            self.unwritten &= self.skip > 0;
            self.at = begin + used as u64;
            if self.skip > 0 {
                return used;
            }
            let left = (BLOCK - self.at % BLOCK) as usize;
            if left < HEADER {
                self.skip = left as u64;
                continue;
            }
            let rest = &data[used..data.len().min(used + left)];
            match self.look(rest, left) {
                Look::Short => return used,
                Look::Unwritten => {
                    self.unwritten = true;
                    self.skip = left as u64;
                }
                Look::Whole(chunk) => {
                    used += HEADER + chunk.data.len();
                    self.take(chunk, counts, each);
                }
                Look::Broken if rest.len() < left && !last => return used,
                Look::Broken => {
                    counts.corrupt.hit(self.at);
                    self.record_at = None;
                    self.record.clear();
                    self.lost = true;
                    self.skip = self.beyond(rest, left) as u64;
                }
            }
        }
    }

    /// How much to pass over behind a broken chunk.
    fn beyond(&self, rest: &[u8], left: usize) -> usize {
        let length = rest.get(4..6).map_or(0, |l| usize::from(l[0]) | usize::from(l[1]) << 8);
        let next = HEADER + length;
        match rest.get(next..) {
            Some(after) if matches!(self.look(after, left - next), Look::Whole(_)) => next,
            _ => left,
        }
    }

    /// What stands at the beginning of `rest`, `left` bytes before the block's end.
    fn look<'a>(&self, rest: &'a [u8], left: usize) -> Look<'a> {
        let Some((header, data)) = rest.split_first_chunk::<HEADER>() else { return Look::Short };
        if *header == [0; HEADER] {
            return Look::Unwritten;
        }
        let [a, b, c, d, low, high, kind] = *header;
        let length = usize::from(low) | usize::from(high) << 8;
        if HEADER + length > left {
            return Look::Broken;
        }
        let Some(data) = data.get(..length) else { return Look::Short };
        let checked = &rest[HEADER - 1..HEADER + length];
        let sum = match self.check {
            Check::Crc32 => crc32fast::hash(checked),
            Check::MaskedCrc32c => crc32c::crc32c(checked).rotate_right(15).wrapping_add(0xa282_ead8),
        };
        if sum != u32::from_le_bytes([a, b, c, d]) {
            return Look::Broken;
        }
        Look::Whole(Chunk { kind, data })
    }

    fn take(
        &mut self,
        chunk: Chunk<'_>,
        counts: &mut Counts,
        each: &mut impl FnMut(u64, &[u8], &mut Counts),
    ) {
        let Chunk { kind, data } = chunk;
        if let (1 | 2, Some(begun)) = (kind, self.record_at) {
            // The writer was killed within a record and another one went on.
            counts.corrupt.hit(begun);
            self.record_at = None;
            self.record.clear();
        }
        match kind {
            1 => {
                self.lost = false;
                each(self.at, data, counts);
            }
            2 => {
                self.lost = false;
                self.record_at = Some(self.at);
                self.record.extend_from_slice(data);
            }
            3 | 4 => match self.record_at {
                Some(begun) if self.record.len() + data.len() > MAX_RECORD_BYTES => {
                    counts.skipped.hit(begun);
                    self.record_at = None;
                    self.record = Vec::new();
                    self.lost = true;
                }
                Some(begun) => {
                    self.record.extend_from_slice(data);
                    if kind == 4 {
                        each(begun, &self.record, counts);
                        self.record_at = None;
                        self.record.clear();
                    }
                }
                None if self.lost => {}
                None => counts.corrupt.hit(self.at),
            },
            _ => counts.unknown.hit(self.at),
        }
        self.at += (HEADER + data.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes records as LevelDB does.
    fn written(records: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records {
            let mut rest = &record[..];
            let mut first = true;
            loop {
                let left = BLOCK as usize - out.len() % BLOCK as usize;
                if left < HEADER {
                    out.resize(out.len() + left, 0);
                    continue;
                }
                let (piece, after) = rest.split_at(rest.len().min(left - HEADER));
                let kind = match (first, after.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                let mut checked = vec![kind];
                checked.extend_from_slice(piece);
                out.extend(crc32fast::hash(&checked).to_le_bytes());
                out.extend((piece.len() as u16).to_le_bytes());
                out.extend(checked);
                (rest, first) = (after, false);
                if rest.is_empty() {
                    break;
                }
            }
        }
        out
    }

    fn read(data: &[u8], piece: usize) -> (Vec<Vec<u8>>, Counts) {
        let mut log = BlockLog::new(Check::Crc32, 0);
        let mut counts = Counts::default();
        let mut out = Vec::new();
        for piece in data.chunks(piece.max(1)) {
            log.feed(piece, &mut counts, |_, record, _| out.push(record.to_vec()));
        }
        log.finish(&mut counts, |_, record, _| out.push(record.to_vec()));
        (out, counts)
    }

    fn records(sizes: &[usize]) -> Vec<Vec<u8>> {
        sizes.iter().enumerate().map(|(n, &size)| vec![n as u8 + 1; size]).collect()
    }

    #[test]
    fn a_broken_chunk_costs_itself_if_the_next_is_sound() {
        let all = records(&[10, 20, 30, 40_000, 50]);
        let mut data = written(&all);
        data[7 + 10 + 7 + 3] ^= 1;
        let (found, counts) = read(&data, 100);
        assert_eq!(found, [all[0].clone(), all[2].clone(), all[3].clone(), all[4].clone()]);
        assert_eq!((counts.corrupt.count, counts.corrupt.first), (1, Some(17)));
    }

    #[test]
    fn a_broken_length_costs_its_block() {
        let all = records(&[10, 20, 30, 40_000, 50]);
        let mut data = written(&all);
        data[17 + 5] = 0xff;
        let (found, counts) = read(&data, 100);
        assert_eq!(found, [all[0].clone(), all[4].clone()], "the long one begins in the broken block");
        assert_eq!(counts.corrupt.count, 1);
    }

    #[test]
    fn unwritten_space_is_no_record_and_no_error() {
        let all = records(&[10, 20]);
        let mut data = written(&all);
        let end = data.len();
        data.resize(BLOCK as usize * 2, 0);
        let (found, counts) = read(&data, 1000);
        assert_eq!(found, all);
        assert_eq!((counts.corrupt.count, counts.torn.first), (0, Some(end as u64)));
        assert_eq!(counts.torn.count, data.len() as u64 - end as u64);
    }

    #[test]
    fn a_record_cut_short_and_followed_by_others_is_counted() {
        let all = records(&[40_000]);
        let mut data = written(&all);
        data.truncate(BLOCK as usize);
        data.extend(written(&records(&[5])));
        let (found, counts) = read(&data, 1 << 20);
        assert_eq!(found, records(&[5]));
        assert_eq!((counts.corrupt.count, counts.corrupt.first), (1, Some(0)));
    }

    #[test]
    fn a_record_without_end_is_not_held_without_end() {
        let mut data = written(&records(&[MAX_RECORD_BYTES + 100_000, 5]));
        let (found, counts) = read(&data, 1 << 16);
        assert_eq!(found, [vec![2; 5]]);
        assert_eq!(counts.skipped.count, 1);
        data.truncate(1 << 20);
        assert_eq!(read(&data, 1 << 16).1.torn.first, Some(0));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(sizes in prop::collection::vec(0_usize..70_000, 0..8), piece in 1_usize..100_000, cut in 0_usize..200_000) {
            let all = records(&sizes);
            let data = written(&all);
            let (found, counts) = read(&data, piece);
            prop_assert_eq!(&found, &all);
            prop_assert_eq!(counts.corrupt.count + counts.torn.count, 0);
            let cut = cut.min(data.len());
            let (some, counts) = read(&data[..cut], piece);
            prop_assert_eq!(counts.corrupt.count, 0);
            prop_assert!(some.len() <= all.len());
            prop_assert_eq!(&some[..], &all[..some.len()]);
            let whole = (0..=all.len()).rev().find(|&n| written(&all[..n]).len() <= cut).unwrap_or(0);
            prop_assert_eq!(some.len(), whole);
        }
    }
}
