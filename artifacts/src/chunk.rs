//! Where content is cut: FastCDC with 64 KiB, 256 KiB and 1 MiB. The cut never
//! depends on how the bytes arrived, so a file and a slice give the same chunks.

use std::io::{self, Read};

use fastcdc::v2020::FastCDC;

const MIN: u32 = 64 << 10;
const AVERAGE: u32 = 256 << 10;
/// No chunk is larger.
pub(crate) const MAX: usize = 1 << 20;
const BUFFER: usize = 2 * MAX;

/// Length of the chunk that begins `window`, which holds `MAX` bytes or all
/// that are left.
pub(crate) fn cut(window: &[u8]) -> usize {
    if window.len() <= MIN as usize {
        return window.len();
    }
    let window = &window[..window.len().min(MAX)];
    FastCDC::new(window, MIN, AVERAGE, MAX as u32).next().map_or(window.len(), |chunk| chunk.length)
}

/// Cuts exactly `size` bytes of a reader, holding two chunks of it at most.
pub(crate) struct Chunker<R> {
    reader: R,
    left: u64,
    buffer: Vec<u8>,
    start: usize,
}

impl<R: Read> Chunker<R> {
    pub(crate) fn new(reader: R, size: u64) -> Self {
        Self { reader, left: size, buffer: Vec::new(), start: 0 }
    }

    /// The next chunk; `None` after `size` bytes; `UnexpectedEof` if the
    /// reader ends before.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.buffer.len() - self.start < MAX && self.left > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
            let want = (BUFFER - self.buffer.len()) as u64;
            let want = want.min(self.left);
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
        let length = cut(window);
        self.start += length;
        Ok(Some(&self.buffer[self.start - length..self.start]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    fn lengths(bytes: &[u8]) -> Vec<usize> {
        let mut chunker = Chunker::new(bytes, bytes.len() as u64);
        let mut out = Vec::new();
        while let Some(chunk) = chunker.next().unwrap() {
            out.push(chunk.len());
        }
        out
    }

    #[test]
    fn a_stream_is_cut_like_a_slice() {
        let bytes = noise(7_654_321);
        let mut expected = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let n = cut(rest);
            expected.push(n);
            rest = &rest[n..];
        }
        assert_eq!(lengths(&bytes), expected);
        assert!(expected.len() > 7 && expected.iter().all(|&n| n <= MAX));
        let whole: Vec<usize> = FastCDC::new(&bytes, MIN, AVERAGE, MAX as u32).map(|c| c.length).collect();
        assert_eq!(expected, whole);
    }

    #[test]
    fn an_insertion_moves_few_cuts() {
        let bytes = noise(8 << 20);
        let moved = [b"inserted", &bytes[..]].concat();
        let digests = |bytes: &[u8]| {
            let mut out = std::collections::HashSet::new();
            let mut chunker = Chunker::new(bytes, bytes.len() as u64);
            while let Some(chunk) = chunker.next().unwrap() {
                out.insert(crate::Digest::of(chunk));
            }
            out
        };
        assert!(digests(&moved).difference(&digests(&bytes)).count() <= 2);
    }

    #[test]
    fn a_reader_that_ends_early_is_an_error() {
        let bytes = [1_u8; 100];
        let mut chunker = Chunker::new(&bytes[..], 101);
        assert_eq!(chunker.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(lengths(&[]).is_empty());
    }
}
