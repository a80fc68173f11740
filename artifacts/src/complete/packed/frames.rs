//! Formats that are walked by what says where each part ends, and not unpacked:
//! bzip2, the frames of LZ4 and of Zstandard, and tar. One that was cut off does
//! not come to its end. Lengths come from the file: each step goes forward, and
//! none reads more than a few bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::super::structure::NO_CHECKSUM;
use super::super::{Judged, Structure, torn};

const BZIP2: &[u8] = b"BZh";
/// The number that begins a block of bzip2, and the one that ends all.
const BLOCK: &[u8] = b"1AY&SY";
const LAST: u64 = 0x1772_4538_5090;
const LZ4: u32 = 0x184d_2204;
const ZSTD: u32 = 0xfd2f_b528;
/// Frames of either that hold no data; the last digit is free.
const SKIPPED: u32 = 0x184d_2a50;
const USTAR: (usize, &[u8]) = (257, b"ustar");
const RECORD: u64 = 512;
const CUT: &str = "it ends in the middle of its data";
const DAMAGED: &str = "its parts do not follow each other";

/// Whether these are the first bytes of such a file.
pub(super) fn begins(head: &[u8]) -> bool {
    let magic = head.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    head.starts_with(BZIP2) && head.get(4..).is_some_and(|rest| rest.starts_with(BLOCK))
        || matches!(magic, Some(LZ4 | ZSTD))
        || is_tar(head)
}

fn is_tar(head: &[u8]) -> bool {
    head.get(USTAR.0..).is_some_and(|rest| rest.starts_with(USTAR.1))
}

pub(super) fn judge(file: &File, size: u64, head: &[u8]) -> Judged {
    let mut walk = Walk { file, size, at: 0 };
    let judged = match head {
        _ if is_tar(head) => return answer(walk.tar(), Structure::Doubtful(NO_CHECKSUM)),
        _ if head.starts_with(BZIP2) => return bzip2(file, size),
        [0x04, ..] => (walk.frames(), "lz4"),
        _ => (walk.frames(), "zstd"),
    };
    answer(judged.0, Structure::Sound(judged.1))
}

/// Whether its walk came to an end; `None` within: the file ends before it.
fn answer(walked: io::Result<Option<bool>>, whole: Structure) -> Judged {
    match walked? {
        Some(true) => Ok(whole),
        Some(false) => torn(DAMAGED),
        None => torn(CUT),
    }
}

/// The last number, a checksum of 32 bits, and less than a byte of nothing.
fn bzip2(file: &File, size: u64) -> Judged {
    let mut end = [0; 11];
    if size < 14 {
        return torn(CUT);
    }
    file.read_exact_at(&mut end, size - 11)?;
    let bits = end.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let is_last = |pad: u32| (bits >> (pad + 32)) & 0xffff_ffff_ffff == u128::from(LAST);
    if (0..8).any(is_last) { Ok(Structure::Sound("bzip2")) } else { torn(CUT) }
}

struct Walk<'a> {
    file: &'a File,
    size: u64,
    at: u64,
}

impl Walk<'_> {
    /// The next bytes; `None`: the file ends before.
    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        if !self.skip(N as u64) {
            return Ok(None);
        }
        self.file.read_exact_at(&mut bytes, self.at - N as u64)?;
        Ok(Some(bytes))
    }

    /// Whether so many bytes are there.
    fn skip(&mut self, bytes: u64) -> bool {
        let to = self.at.checked_add(bytes).filter(|to| *to <= self.size);
        self.at = to.unwrap_or(self.at);
        to.is_some()
    }

    /// Frames up to the end of the file, as both formats have them one after
    /// another.
    fn frames(&mut self) -> io::Result<Option<bool>> {
        while self.at < self.size {
            let Some(magic) = self.take()? else { return Ok(None) };
            let went = match u32::from_le_bytes(magic) {
                LZ4 => self.lz4()?,
                ZSTD => self.zstd()?,
                skipped if skipped & 0xffff_fff0 == SKIPPED => match self.take()? {
                    Some(length) => self.skip(u32::from_le_bytes(length).into()).then_some(true),
                    None => None,
                },
                _ => Some(false),
            };
            if went != Some(true) {
                return Ok(went);
            }
        }
        Ok(Some(true))
    }

    /// <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>
    fn lz4(&mut self) -> io::Result<Option<bool>> {
        let Some([flags, _]) = self.take()? else { return Ok(None) };
        if flags >> 6 != 1 {
            return Ok(Some(false));
        }
        let has = |bit: u8| u64::from(flags >> bit & 1);
        // Content size, dictionary, and the sum of the header.
        if !self.skip(8 * has(3) + 4 * has(0) + 1) {
            return Ok(None);
        }
        loop {
            let Some(length) = self.take()? else { return Ok(None) };
            let length = u32::from_le_bytes(length) & 0x7fff_ffff;
            if length == 0 {
                return Ok(self.skip(4 * has(2)).then_some(true));
            }
            if !self.skip(u64::from(length) + 4 * has(4)) {
                return Ok(None);
            }
        }
    }

    /// RFC 8878, section 3.1.1.
    fn zstd(&mut self) -> io::Result<Option<bool>> {
        let Some([descriptor]) = self.take()? else { return Ok(None) };
        let is_single = descriptor >> 5 & 1;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content = match descriptor >> 6 {
            0 => u64::from(is_single),
            flag => 1 << flag,
        };
        if !self.skip(u64::from(1 - is_single) + dictionary + content) {
            return Ok(None);
        }
        loop {
            let Some([a, b, c]) = self.take()? else { return Ok(None) };
            let header = u32::from_le_bytes([a, b, c, 0]);
            let stored = match header >> 1 & 3 {
                1 => 1,
                3 => return Ok(Some(false)),
                _ => header >> 3,
            };
            if !self.skip(stored.into()) {
                return Ok(None);
            }
            if header & 1 == 1 {
                return Ok(self.skip(4 * u64::from(descriptor >> 2 & 1)).then_some(true));
            }
        }
    }

    /// Headers, each with its sum, until one of zeros.
    fn tar(&mut self) -> io::Result<Option<bool>> {
        loop {
            let Some(header) = self.take::<512>()? else { return Ok(None) };
            if header.iter().all(|byte| *byte == 0) {
                return Ok(Some(true));
            }
            let blank =
                |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) };
            let sum: u64 = header.iter().enumerate().map(blank).sum();
            let Some(length) = number(&header[124..136]).filter(|_| number(&header[148..156]) == Some(sum))
            else {
                return Ok(Some(false));
            };
            // Links and directories have a size and no data.
            let length = if matches!(header[156], b'1'..=b'6') { 0 } else { length };
            let Some(data) = length.checked_next_multiple_of(RECORD) else { return Ok(Some(false)) };
            if !self.skip(data) {
                return Ok(None);
            }
        }
    }
}

/// A number of a header: octal digits, or bytes where the first says so.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        let zero = high.iter().all(|byte| *byte == 0);
        return zero.then(|| low.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches(|c: char| c == ' ' || c == '\0');
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}
