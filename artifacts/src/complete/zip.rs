//! Zip archives, which PyTorch, NumPy and Keras write: the central directory
//! is last, and every record has a CRC-32. A truncation breaks the directory;
//! a hole in the middle breaks only a CRC, so every record is read.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use super::packed::most;
use super::structure::{NO_CHECKSUM, TOO_LARGE};
use super::{Judged, Structure, torn};

const END: usize = 22;
const LONGEST_END: u64 = END as u64 + 65_535;
const LOCATOR: u64 = 20;
const END64: usize = 56;
const CENTRAL: usize = 46;
const LOCAL: u64 = 30;
/// Read into memory, with all its records.
const MAX_DIRECTORY: u64 = 16 << 20;

struct Directory {
    entries: u64,
    offset: u64,
    size: u64,
}

struct Entry {
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    unpacked: u64,
    local: u64,
    name: Vec<u8>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn read(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

pub(super) fn judge(file: &File, size: u64, format: &'static str) -> Judged {
    match check(file, size) {
        Ok(Checked::Whole) => Ok(Structure::Sound(format)),
        Ok(Checked::Doubtful(what)) => Ok(Structure::Doubtful(what)),
        Ok(Checked::Wrong(why)) => torn(why),
        // The file became shorter meanwhile.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            torn("it ends in the middle of a record")
        }
        Err(error) => Err(error),
    }
}

enum Checked {
    Whole,
    Doubtful(&'static str),
    Wrong(String),
}

fn check(file: &File, size: u64) -> io::Result<Checked> {
    let wrong = |why: &str| Ok(Checked::Wrong(why.to_owned()));
    let Some((at, end)) = find_end(file, size)? else {
        return wrong("it has no end of the zip directory");
    };
    let Some(directory) = directory(file, at, &end)? else {
        return wrong("the end of its zip directory is damaged");
    };
    if directory.offset.checked_add(directory.size).is_none_or(|end| end > at) {
        return wrong("its zip directory lies out of range");
    }
    if directory.entries == 0 {
        return wrong("it is a zip archive without entries");
    }
    if directory.size > MAX_DIRECTORY {
        return Ok(Checked::Doubtful(TOO_LARGE));
    }
    let bytes = read(file, directory.offset, directory.size as usize)?;
    let Some(entries) = entries(&bytes, directory.entries) else {
        return wrong("its zip directory is damaged");
    };
    // Overlapping records would let a small file take forever.
    if entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.packed)) > size {
        return wrong("its records overlap");
    }
    if entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.unpacked)) > most(size) {
        return Ok(Checked::Doubtful(TOO_LARGE));
    }
    // PyTorch can be told to leave them out; then a hole is all that shows.
    let has_sums =
        entries.iter().any(|entry| entry.crc != 0) || entries.iter().all(|entry| entry.unpacked == 0);
    for entry in &entries {
        if let Some(why) = check_entry(file, directory.offset, entry, has_sums)? {
            return Ok(Checked::Wrong(format!("record `{}` {why}", String::from_utf8_lossy(&entry.name))));
        }
    }
    Ok(if has_sums { Checked::Whole } else { Checked::Doubtful(NO_CHECKSUM) })
}

/// The last record of the file, which must end exactly where the file does.
fn find_end(file: &File, size: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let start = size.saturating_sub(LONGEST_END);
    let tail = read(file, start, (size - start) as usize)?;
    let last = tail.len().checked_sub(END);
    let at = last.and_then(|last| {
        (0..=last).rev().find(|&at| {
            let comment = u16_at(&tail, at + 20).map(usize::from);
            tail[at..].starts_with(b"PK\x05\x06") && comment.is_some_and(|n| at + END + n == tail.len())
        })
    });
    Ok(at.map(|at| (start + at as u64, tail[at..].to_vec())))
}

fn directory(file: &File, at: u64, end: &[u8]) -> io::Result<Option<Directory>> {
    let short = || {
        let entries = u64::from(u16_at(end, 10)?);
        let (size, offset) = (u64::from(u32_at(end, 12)?), u64::from(u32_at(end, 16)?));
        Some(Directory { entries, offset, size })
    };
    let Some(found) = short() else { return Ok(None) };
    let large = found.entries == 0xffff || found.offset == 0xffff_ffff || found.size == 0xffff_ffff;
    let Some(locator_at) = at.checked_sub(LOCATOR).filter(|_| large) else { return Ok(Some(found)) };
    let locator = read(file, locator_at, LOCATOR as usize)?;
    if !locator.starts_with(b"PK\x06\x07") {
        return Ok(Some(found).filter(|found| found.offset != 0xffff_ffff));
    }
    let Some(at64) = u64_at(&locator, 8).filter(|&at| at.saturating_add(END64 as u64) <= locator_at) else {
        return Ok(None);
    };
    let end = read(file, at64, END64)?;
    let long = || {
        let (entries, size, offset) = (u64_at(&end, 32)?, u64_at(&end, 40)?, u64_at(&end, 48)?);
        Some(Directory { entries, offset, size })
    };
    Ok(if end.starts_with(b"PK\x06\x06") { long() } else { None })
}

fn entries(bytes: &[u8], expected: u64) -> Option<Vec<Entry>> {
    if expected > (bytes.len() / CENTRAL) as u64 {
        return None;
    }
    let mut entries = Vec::new();
    let mut rest = bytes;
    for _ in 0..expected {
        if !rest.starts_with(b"PK\x01\x02") {
            return None;
        }
        let lengths = [u16_at(rest, 28)?, u16_at(rest, 30)?, u16_at(rest, 32)?].map(usize::from);
        let [name, extra, comment] = lengths;
        let extra_at = CENTRAL + name;
        let mut entry = Entry {
            flags: u16_at(rest, 8)?,
            method: u16_at(rest, 10)?,
            crc: u32_at(rest, 16)?,
            packed: u64::from(u32_at(rest, 20)?),
            unpacked: u64::from(u32_at(rest, 24)?),
            local: u64::from(u32_at(rest, 42)?),
            name: rest.get(CENTRAL..extra_at)?.to_vec(),
        };
        widen(&mut entry, rest.get(extra_at..extra_at + extra)?)?;
        rest = rest.get(extra_at + extra + comment..)?;
        entries.push(entry);
    }
    Some(entries)
}

/// Takes 64-bit fields from the extra data where the short ones are full.
fn widen(entry: &mut Entry, mut extra: &[u8]) -> Option<()> {
    let short = u64::from(u32::MAX);
    if [entry.packed, entry.unpacked, entry.local].iter().all(|&field| field != short) {
        return Some(());
    }
    while extra.len() >= 4 {
        let (id, len) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let data = extra.get(4..4 + len)?;
        extra = &extra[4 + len..];
        if id != 1 {
            continue;
        }
        let mut at = 0;
        for field in [&mut entry.unpacked, &mut entry.packed, &mut entry.local] {
            if *field == short {
                *field = u64_at(data, at)?;
                at += 8;
            }
        }
        return Some(());
    }
    None
}

fn check_entry(file: &File, limit: u64, entry: &Entry, has_sums: bool) -> io::Result<Option<&'static str>> {
    if entry.local.checked_add(LOCAL).is_none_or(|end| end > limit) {
        return Ok(Some("lies out of range"));
    }
    let local = read(file, entry.local, LOCAL as usize)?;
    let (Some(name), Some(extra)) = (u16_at(&local, 26), u16_at(&local, 28)) else {
        return Ok(Some("has no header"));
    };
    if !local.starts_with(b"PK\x03\x04") || u16_at(&local, 8) != Some(entry.method) {
        return Ok(Some("has a header unlike the directory's"));
    }
    let named = read(file, entry.local + LOCAL, usize::from(name))?;
    if named != entry.name {
        return Ok(Some("has another name in its own header"));
    }
    // Bit 3: size and checksum come after the data instead.
    if entry.flags & 8 == 0 && u32_at(&local, 14) != Some(entry.crc) {
        return Ok(Some("has another checksum in its own header"));
    }
    let start = entry.local + LOCAL + u64::from(name) + u64::from(extra);
    if start.checked_add(entry.packed).is_none_or(|end| end > limit) {
        return Ok(Some("ends out of range"));
    }
    let data = BufReader::with_capacity(1 << 18, Window { file, at: start, left: entry.packed });
    let right = match entry.method {
        // Encrypted: what the checksum is of cannot be known.
        _ if entry.flags & 1 != 0 => true,
        0 if !has_sums => entry.packed == entry.unpacked,
        0 => entry.packed == entry.unpacked && crc(data, entry)?,
        8 => crc(flate2::read::DeflateDecoder::new(data), entry)?,
        _ => true,
    };
    Ok((!right).then_some("does not have its checksum"))
}

fn crc(mut data: impl Read, entry: &Entry) -> io::Result<bool> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    let mut left = entry.unpacked;
    loop {
        let got = match data.read(&mut buffer) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(false),
            Err(error) => return Err(error),
        };
        if got == 0 {
            return Ok(left == 0 && hasher.finalize() == entry.crc);
        }
        let Some(rest) = left.checked_sub(got as u64) else { return Ok(false) };
        left = rest;
        hasher.update(&buffer[..got]);
    }
}

/// A part of a file, read without moving its cursor.
struct Window<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = (buffer.len() as u64).min(self.left) as usize;
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        if got == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}
