//! Bytes cut into lines, of which only an unfinished one is held.
//!
//! Where power went while a file grew, zeros stand for what was never written:
//! the line that begins behind them is whole.

use super::MAX_RECORD_BYTES;
use crate::log::Counts;

/// Cuts at line feeds. Lines reach the callback with their offset, without
/// the line feed and a carriage return before it.
#[derive(Debug, Default)]
pub(super) struct Lines {
    tail: Vec<u8>,
    /// Inside a line that was given up as too long.
    skipping: bool,
    /// Offset of the line that is being gathered.
    start: u64,
    fed: u64,
}

impl Lines {
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        counts: &mut Counts,
        mut each: impl FnMut(u64, &[u8], &mut Counts),
    ) {
        let base = self.fed;
        self.fed += bytes.len() as u64;
        counts.bytes = self.fed;
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let piece = &bytes[from..end];
            from = end + 1;
            if std::mem::take(&mut self.skipping) {
                self.tail.clear();
            } else if self.tail.len() + piece.len() > MAX_RECORD_BYTES {
                self.tail = Vec::new();
                counts.skipped.hit(self.start);
            } else if self.tail.is_empty() {
                line(self.start, piece, counts, &mut each);
            } else {
                self.tail.extend_from_slice(piece);
                line(self.start, &self.tail, counts, &mut each);
                self.tail.clear();
            }
            self.start = base + from as u64;
        }
        let rest = &bytes[from..];
        if self.skipping {
            return;
        }
        if self.tail.len() + rest.len() > MAX_RECORD_BYTES {
            self.skipping = true;
            self.tail = Vec::new();
            counts.skipped.hit(self.start);
        } else {
            self.tail.extend_from_slice(rest);
        }
    }

    /// The unfinished line and its offset.
    pub(super) fn tail(&self) -> (u64, &[u8]) {
        let zeros = zeros(&self.tail);
        (self.start + zeros as u64, &self.tail[zeros..])
    }

    /// Takes the unfinished line as read, although its end has not come.
    pub(super) fn accept_tail(&mut self, counts: &mut Counts) {
        if zeros(&self.tail) > 0 {
            counts.corrupt.hit(self.start);
        }
        self.start = self.fed;
        self.tail.clear();
    }

    /// Counts the unfinished line as torn.
    pub(super) fn count_torn(&self, counts: &mut Counts) {
        counts.torn = crate::log::Tally::default();
        counts.torn.add(self.tail.len() as u64, self.start);
    }
}

/// Hands on a line; zeros before it are counted, and are no part of it.
#[inline]
fn line(start: u64, line: &[u8], counts: &mut Counts, each: &mut impl FnMut(u64, &[u8], &mut Counts)) {
    let zeros = zeros(line);
    if zeros > 0 {
        counts.corrupt.hit(start);
        if zeros == line.len() {
            return;
        }
    }
    each(start + zeros as u64, without_return(&line[zeros..]), counts);
}

/// How many bytes at the beginning are zeros.
#[inline]
fn zeros(line: &[u8]) -> usize {
    // Nearly every line ends this at its first byte.
    line.iter().take_while(|byte| **byte == 0).count()
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
