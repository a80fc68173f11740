//! Pickles are walked opcode by opcode and never executed: whole if a STOP is
//! the last byte. PyTorch's old format and joblib put raw data after or between
//! pickles, so outside plain pickle files a walk that fails proves nothing.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use super::{Judged, Structure, torn};

/// The first pickle of a file by `torch.save` before 1.6.
const OLD_TORCH: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const MAX_LINE: u64 = 1 << 20;

/// `strict`: the file claims to be pickles and nothing else.
pub(super) fn judge(file: &File, size: u64, strict: bool) -> Judged {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    reader.seek(SeekFrom::Start(0))?;
    let mut walk = Walk { reader, at: 0, size };
    if walk.reader.fill_buf()?.starts_with(OLD_TORCH) {
        return Ok(Structure::Free);
    }
    while walk.at < size {
        match walk.one() {
            Ok(true) => {}
            Ok(false) if strict => return torn("it holds something that is no pickle"),
            Err(error) if strict && error.kind() == io::ErrorKind::UnexpectedEof => {
                return torn("it ends in the middle of a pickle");
            }
            Ok(false) => return Ok(Structure::Free),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Structure::Free),
            Err(error) => return Err(error),
        }
    }
    Ok(Structure::Sound("pickle"))
}

struct Walk<'a> {
    reader: BufReader<&'a File>,
    at: u64,
    size: u64,
}

impl Walk<'_> {
    /// Walks one pickle through its STOP; `false` at an unknown opcode.
    fn one(&mut self) -> io::Result<bool> {
        loop {
            match self.number(1)? as u8 {
                b'.' => return Ok(true),
                // No argument.
                b'('
                | b'0'
                | b'1'
                | b'2'
                | b'N'
                | b'Q'
                | b'R'
                | b'a'
                | b'b'
                | b'd'
                | b'}'
                | b'e'
                | b'l'
                | b']'
                | b'o'
                | b's'
                | b't'
                | b')'
                | b'u'
                | 0x81
                | 0x85..=0x89
                | 0x8f..=0x94
                | 0x97
                | 0x98 => {}
                // One, two, four or eight bytes.
                b'K' | b'h' | b'q' | 0x80 | 0x82 => self.skip(1)?,
                b'M' | 0x83 => self.skip(2)?,
                b'J' | b'j' | b'r' | 0x84 => self.skip(4)?,
                b'G' | 0x95 => self.skip(8)?,
                // A length, then as many bytes.
                b'U' | b'C' | 0x8a | 0x8c => self.counted(1)?,
                b'T' | b'B' | b'X' | 0x8b => self.counted(4)?,
                0x8d | 0x8e | 0x96 => self.counted(8)?,
                // Lines of text.
                b'F' | b'I' | b'L' | b'P' | b'S' | b'V' | b'g' | b'p' => self.line()?,
                b'c' | b'i' => {
                    self.line()?;
                    self.line()?;
                }
                _ => return Ok(false),
            }
        }
    }

    fn number(&mut self, width: usize) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.reader.read_exact(&mut bytes[..width])?;
        self.at += width as u64;
        Ok(u64::from_le_bytes(bytes))
    }

    fn counted(&mut self, width: usize) -> io::Result<()> {
        let count = self.number(width)?;
        self.skip(count)
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        if count > self.size.saturating_sub(self.at) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count;
        self.reader.seek_relative(i64::try_from(count).map_err(io::Error::other)?)
    }

    fn line(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        let got = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        self.at += got as u64;
        if line.ends_with(b"\n") { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
