//! Records with checksums, as TensorFlow frames them: a length, its CRC, the
//! payload, its CRC.
//! Format: <https://www.tensorflow.org/tutorials/load_data/tfrecord>.
//!
//! Nothing in the format marks where a record begins. When a length is broken
//! the next one is looked for byte by byte: a length that has its checksum is
//! not there by chance.

use super::super::MAX_RECORD_BYTES;
use super::super::pending::gather;
use crate::log::{Counts, Tally};

/// Length and its checksum.
const HEADER: usize = 12;
const FOOTER: usize = 4;

/// Records out of bytes.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Less than a record.
    pending: Vec<u8>,
    /// Offset of the first byte of `pending`.
    at: u64,
    /// Bytes still to be passed over.
    skip: u64,
    /// Behind a broken record, before the next sound one.
    seeking: bool,
    /// Space that was never written.
    blank: Tally,
}

/// Whether bytes begin with a length that has its checksum.
pub(in super::super) fn has_header(bytes: &[u8]) -> bool {
    length(bytes).is_some()
}

/// The length at the beginning, if it has its checksum.
#[inline]
fn length(bytes: &[u8]) -> Option<u64> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (sum, _) = rest.split_first_chunk::<4>()?;
    (masked(length) == u32::from_le_bytes(*sum)).then(|| u64::from_le_bytes(*length))
}

/// CRC-32C, masked because sums of data that hold their own sums are weak.
#[inline]
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

impl Frames {
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        counts: &mut Counts,
        mut each: impl FnMut(u64, &[u8], &mut Counts),
    ) {
        counts.bytes += bytes.len() as u64;
        let mut waits = std::mem::take(&mut self.pending);
        gather(&mut waits, bytes, |data| self.walk(data, counts, &mut each));
        self.pending = waits;
    }

    pub(super) fn count_torn(&self, counts: &mut Counts) {
        counts.torn = self.blank;
        counts.torn.add(self.pending.len() as u64, self.at);
    }

    /// Reads records while they are whole: bytes used.
    fn walk(
        &mut self,
        data: &[u8],
        counts: &mut Counts,
        each: &mut impl FnMut(u64, &[u8], &mut Counts),
    ) -> usize {
        let begin = self.at;
        let mut used = 0;
        loop {
            let passed = self.skip.min((data.len() - used) as u64);
            used += passed as usize;
            self.skip -= passed;
            self.at = begin + used as u64;
            let rest = &data[used..];
            if self.skip > 0 || rest.len() < HEADER {
                return used;
            }
            let Some(length) = self.length(rest) else {
                self.skip = self.seek(rest, counts);
                continue;
            };
            if length > MAX_RECORD_BYTES as u64 {
                counts.skipped.hit(self.at);
                self.skip = length.saturating_add((HEADER + FOOTER) as u64);
                continue;
            }
            let end = HEADER + length as usize;
            let Some(sum) = rest.get(end..end + FOOTER) else { return used };
            let payload = &rest[HEADER..end];
            if masked(payload).to_le_bytes() != sum {
                // Perhaps the rest of it was never written: others may follow.
                counts.corrupt.hit(self.at);
                self.seeking = true;
                self.skip = HEADER as u64;
                continue;
            }
            self.seeking = false;
            each(self.at, payload, counts);
            used += end + FOOTER;
            self.at = begin + used as u64;
        }
    }

    /// The length at the beginning, if it is to be believed. Eight bytes of
    /// payload and their checksum look like one: a huge one, when it is sought.
    fn length(&self, rest: &[u8]) -> Option<u64> {
        length(rest).filter(|length| !self.seeking || *length <= MAX_RECORD_BYTES as u64)
    }

    /// How far to go to the next length that has its checksum, or to where the
    /// bytes do not suffice to tell.
    fn seek(&mut self, rest: &[u8], counts: &mut Counts) -> u64 {
        if rest.starts_with(&[0; HEADER]) && !self.seeking {
            // As far as nothing but zeros stands in the place of a header.
            let zeros = rest.iter().position(|&b| b != 0).unwrap_or(rest.len());
            let blank = zeros - (HEADER - 1);
            self.blank.add(blank as u64, self.at);
            return blank as u64;
        }
        if !std::mem::replace(&mut self.seeking, true) {
            counts.corrupt.hit(self.at);
        }
        let last = rest.len() - HEADER;
        let found = (1..=last).find(|&at| self.length(&rest[at..]).is_some());
        found.unwrap_or(last + 1) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u64).to_le_bytes();
        let mut out = length.to_vec();
        out.extend(masked(&length).to_le_bytes());
        out.extend(payload);
        out.extend(masked(payload).to_le_bytes());
        out
    }

    fn read(data: &[u8], piece: usize) -> (Vec<Vec<u8>>, Counts) {
        let (mut frames, mut counts, mut out) = (Frames::default(), Counts::default(), Vec::new());
        for piece in data.chunks(piece.max(1)) {
            frames.feed(piece, &mut counts, |_, record, _| out.push(record.to_vec()));
        }
        frames.count_torn(&mut counts);
        (out, counts)
    }

    #[test]
    fn the_sum_is_the_one_of_the_format() {
        // Check value of CRC-32C; the mask was worked out by other means.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn a_huge_length_is_passed_over_and_not_believed_with_memory() {
        for huge in [1_u64 << 63, u64::MAX, MAX_RECORD_BYTES as u64 + 1] {
            let mut data = framed(b"one");
            data.extend(huge.to_le_bytes());
            data.extend(masked(&huge.to_le_bytes()).to_le_bytes());
            data.extend([7; 1000]);
            let (found, counts) = read(&data, 64);
            assert_eq!(found, [b"one"]);
            assert_eq!((counts.skipped.count, counts.skipped.first), (1, Some(19)));
        }
    }

    #[test]
    fn a_record_that_lost_its_end_costs_itself() {
        let mut data = framed(b"first");
        let cut = data.len();
        data.extend(&framed(&[9; 500])[..300]);
        data.extend(framed(b"second"));
        data.extend(framed(&[8; 900]));
        let (found, counts) = read(&data, 50);
        assert_eq!(found, [b"first".to_vec(), b"second".to_vec(), vec![8; 900]]);
        assert_eq!((counts.corrupt.count, counts.corrupt.first), (1, Some(cut as u64)));
    }

    #[test]
    fn unwritten_space_is_torn() {
        let mut data = framed(b"first");
        data.resize(5000, 0);
        let (found, counts) = read(&data, 64);
        assert_eq!((found.len(), counts.corrupt.count, counts.torn.first), (1, 0, Some(21)));
        assert_eq!(counts.torn.count, 5000 - 21);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_costs_one_record(
            sizes in prop::collection::vec(0_usize..60, 1..30),
            flip: prop::sample::Index, bit in 0_u8..8, piece in 1_usize..200,
        ) {
            let all: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, &size)| vec![n as u8 + 1; size]).collect();
            let mut data: Vec<u8> = all.iter().flat_map(|record| framed(record)).collect();
            prop_assert_eq!(&read(&data, piece).0, &all);
            let flip = flip.index(data.len());
            data[flip] ^= 1 << bit;
            let mut end = 0;
            let hit = all.iter().position(|record| { end += record.len() + 16; flip < end }).unwrap_or(0);
            let (found, counts) = read(&data, piece);
            let mut expected = all.clone();
            expected.remove(hit);
            prop_assert_eq!(found, expected);
            prop_assert_eq!(counts.corrupt.count, 1);
        }
    }
}
