//! Where content is cut. A file that says itself where its tensors lie is cut
//! there, so that one that grew leaves the others as they were; every other
//! file is cut by content. The cut depends on the bytes alone, never on a name
//! or on how they arrived.
//!
//! - up to 1 MiB: one chunk;
//! - within a record of an [`outline`], a tensor as a rule: every 1 MiB from
//!   its beginning;
//! - elsewhere: FastCDC with 16, 64 and 256 KiB, and with four times as much
//!   from 4 GiB on, so that the manifest of a large file stays small.
//!
//! The parameters are frozen: other ones would find nothing of what is stored.

use std::io::{self, Read};
use std::ops::Range;

use fastcdc::v2020::FastCDC;

mod outline;
mod safetensors;
mod zip;

pub(crate) use outline::outline;

/// No chunk is larger, and a file that is not is one chunk.
pub(crate) const MAX: usize = 1 << 20;
/// Least, average and largest size of what is cut by content.
const SMALL: (u32, u32, u32) = (16 << 10, 64 << 10, 256 << 10);
const LARGE: (u32, u32, u32) = (64 << 10, 256 << 10, 1 << 20);
/// Files from here on are cut more coarsely by content.
const HUGE: u64 = 4 << 30;
const BUFFER: usize = 2 * MAX;

/// The cuts of one file, one after another.
pub(crate) struct Cuts {
    /// The records still ahead, in order.
    records: std::iter::Peekable<std::vec::IntoIter<Range<u64>>>,
    size: u64,
    at: u64,
}

impl Cuts {
    /// For a file of `size` bytes with these records: disjoint and in order.
    pub(crate) fn new(records: Vec<Range<u64>>, size: u64) -> Self {
        Self { records: records.into_iter().peekable(), size, at: 0 }
    }

    /// Length of the chunk that begins `window`, which holds `MAX` bytes or
    /// all that are left.
    pub(crate) fn next(&mut self, window: &[u8]) -> usize {
        let length = if self.size <= MAX as u64 { window.len() } else { self.cut(window) };
        self.at += length as u64;
        length
    }

    fn cut(&mut self, window: &[u8]) -> usize {
        while self.records.next_if(|record| record.end <= self.at).is_some() {}
        let whole = window.len().min(MAX);
        let bounded = |end: u64| usize::try_from(end - self.at).unwrap_or(MAX).min(whole);
        let end = match self.records.peek() {
            Some(record) if record.start <= self.at => return bounded(record.end),
            Some(record) => record.start,
            None => self.size,
        };
        let window = &window[..bounded(end.max(self.at))];
        let (least, average, most) = if self.size < HUGE { SMALL } else { LARGE };
        if window.len() <= least as usize {
            return window.len();
        }
        FastCDC::new(window, least, average, most).next().map_or(window.len(), |chunk| chunk.length)
    }
}

/// Cuts exactly as many bytes of a reader as its cuts are for, holding two
/// chunks of it at most.
pub(crate) struct Chunker<R> {
    reader: R,
    cuts: Cuts,
    left: u64,
    buffer: Vec<u8>,
    start: usize,
}

impl<R: Read> Chunker<R> {
    pub(crate) fn new(reader: R, cuts: Cuts) -> Self {
        let left = cuts.size;
        Self { reader, cuts, left, buffer: Vec::new(), start: 0 }
    }

    /// The next chunk; `None` after the last; `UnexpectedEof` if the reader
    /// ends before.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.buffer.len() - self.start < MAX && self.left > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
            let want = (BUFFER - self.buffer.len()) as u64;
            let want = want.min(self.left);
            self.buffer.reserve_exact(want as usize);
            let got = self.reader.by_ref().take(want).read_to_end(&mut self.buffer)?;
            if (got as u64) < want {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.left -= want;
        }
        let window = &self.buffer[self.start..];
        if window.is_empty() {
            return Ok(None);
        }
        let length = self.cuts.next(window);
        self.start += length;
        Ok(Some(&self.buffer[self.start - length..self.start]))
    }
}

#[cfg(test)]
mod tests;
