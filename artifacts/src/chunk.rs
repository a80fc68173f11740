//! Where content is cut. A file that says itself where its tensors lie is cut
//! there, so that one that grew leaves the others as they were; every other
//! file is cut by content. The cut depends on the bytes alone, never on a name
//! or on how they arrived.
//!
//! - up to 1 MiB: one chunk;
//! - within a record of an [`outline`], a tensor as a rule: every 1 MiB from
//!   its beginning;
//! - elsewhere: FastCDC with 16, 64 and 256 KiB, with four times as much from
//!   64 MiB on and sixteen times as much from 512 MiB on, so that the manifest
//!   of large files stays small: half a terabyte must fit into one.
//!
//! The parameters are frozen: other ones would find nothing of what is stored.

use std::io::{self, Read};
use std::ops::Range;

use fastcdc::v2020::FastCDC;

mod outline;
mod safetensors;
mod zip;

pub(crate) use outline::outline;

/// A file that is no larger is one chunk, and so is a part of a record.
pub(crate) const WHOLE: usize = 1 << 20;
/// No chunk is larger.
pub(crate) const MAX: usize = 4 << 20;
/// Least, average and largest size of what is cut by content, in files below
/// so many bytes.
const SIZES: [(u64, (u32, u32, u32)); 3] = [
    (64 << 20, (16 << 10, 64 << 10, 256 << 10)),
    (512 << 20, (64 << 10, 256 << 10, 1 << 20)),
    (u64::MAX, (256 << 10, 1 << 20, 4 << 20)),
];
/// What is read at a time beyond the chunk that is being cut.
const AHEAD: usize = 1 << 20;

fn sizes(size: u64) -> (u32, u32, u32) {
    let found = SIZES.iter().find(|(below, _)| size < *below);
    found.map_or(SIZES[SIZES.len() - 1].1, |(_, sizes)| *sizes)
}

/// How many chunks a file of this size has at least, if not for an accident:
/// cut by content they are a quarter longer than what is aimed at.
pub(crate) fn few(size: u64) -> u64 {
    let (_, average, _) = sizes(size);
    if size <= WHOLE as u64 { size.min(1) } else { size / (u64::from(average) * 5 / 4).max(WHOLE as u64) }
}

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

    /// Bytes that `next` wants to see, unless fewer are left.
    fn window(&self) -> usize {
        if self.size <= WHOLE as u64 { WHOLE } else { (sizes(self.size).2 as usize).max(WHOLE) }
    }

    /// Length of the chunk that begins `window`, which holds `MAX` bytes or
    /// all that are left.
    pub(crate) fn next(&mut self, window: &[u8]) -> usize {
        let length = if self.size <= WHOLE as u64 { window.len() } else { self.cut(window) };
        self.at += length as u64;
        length
    }

    /// The same, where it needs no look at the content; at least one byte.
    fn known(&mut self) -> Option<usize> {
        let left = self.size - self.at;
        let length = if self.size <= WHOLE as u64 {
            left
        } else {
            self.pass();
            let record = self.records.peek().filter(|record| record.start <= self.at)?;
            (record.end - self.at).min(left).min(WHOLE as u64)
        };
        self.at += length;
        usize::try_from(length).ok().filter(|length| *length > 0)
    }

    /// Leaves records behind that are over.
    fn pass(&mut self) {
        while self.records.next_if(|record| record.end <= self.at).is_some() {}
    }

    fn cut(&mut self, window: &[u8]) -> usize {
        self.pass();
        let whole = window.len().min(MAX);
        let bounded = |end: u64| usize::try_from(end - self.at).unwrap_or(MAX).min(whole);
        let end = match self.records.peek() {
            Some(record) if record.start <= self.at => return bounded(record.end).min(WHOLE),
            Some(record) => record.start,
            None => self.size,
        };
        let window = &window[..bounded(end.max(self.at))];
        let (least, average, most) = sizes(self.size);
        if window.len() <= least as usize {
            return window.len();
        }
        FastCDC::new(window, least, average, most).next().map_or(window.len(), |chunk| chunk.length)
    }
}

/// Cuts exactly as many bytes of a reader as its cuts are for, holding little
/// more of it than its largest chunk.
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
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(length) = self.cuts.known() {
            return self.take(length).map(Some);
        }
        let window = self.cuts.window();
        if self.buffer.len() - self.start < window && self.left > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
            let want = (window + AHEAD - self.buffer.len()) as u64;
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
        self.take(length).map(Some)
    }

    /// So many bytes: first those that were read already, and the others straight
    /// to where they are needed.
    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut chunk = Vec::with_capacity(length);
        let ready = (self.buffer.len() - self.start).min(length);
        chunk.extend_from_slice(&self.buffer[self.start..self.start + ready]);
        self.start += ready;
        chunk.resize(length, 0);
        self.reader.read_exact(&mut chunk[ready..])?;
        self.left -= (length - ready) as u64;
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests;
