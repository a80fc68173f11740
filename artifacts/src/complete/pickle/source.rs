//! The bytes of a pickle: read forward, long parts passed over unread.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};

const MAX_LINE: u64 = 1 << 20;

pub(super) struct Source<'a> {
    pub(super) reader: BufReader<&'a File>,
    pub(super) at: u64,
    pub(super) size: u64,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a File, size: u64) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 16, file);
        reader.seek(SeekFrom::Start(0))?;
        Ok(Self { reader, at: 0, size })
    }

    pub(super) fn byte(&mut self) -> io::Result<u8> {
        Ok(self.number(1)? as u8)
    }

    /// A little-endian number of at most eight bytes.
    pub(super) fn number(&mut self, width: usize) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.reader.read_exact(&mut bytes[..width])?;
        self.at += width as u64;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(super) fn skip(&mut self, count: u64) -> io::Result<()> {
        if count > self.size.saturating_sub(self.at) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count;
        self.reader.seek_relative(i64::try_from(count).map_err(io::Error::other)?)
    }

    /// A counted text: kept if short, else passed over.
    pub(super) fn text(&mut self, count: u64, longest: usize) -> io::Result<Option<String>> {
        if count > longest as u64 {
            self.skip(count)?;
            return Ok(None);
        }
        let mut bytes = vec![0; count as usize];
        self.reader.read_exact(&mut bytes)?;
        self.at += count;
        Ok(String::from_utf8(bytes).ok())
    }

    /// A line, without its end.
    pub(super) fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let got = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        self.at += got as u64;
        if line.pop() == Some(b'\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
