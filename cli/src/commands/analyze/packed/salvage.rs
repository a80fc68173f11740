//! Zip archives whose list of entries is gone, because they were cut short or are
//! damaged there: each entry says itself, before its bytes, what it is called and
//! how it is packed. It finds them one after the other and trusts none of them:
//! names are checked and sizes bounded by the caller.
//!
//! Local file headers: APPNOTE.TXT 4.3.7,
//! <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use flate2::read::DeflateDecoder;

/// Begins an entry.
const MARK: &[u8; 4] = b"PK\x03\x04";
/// Bytes of what stands before a name.
const HEAD: usize = 30;
/// Bytes that are looked through at a time.
const PIECE: usize = 1 << 20;

/// One entry that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name as it stands there.
    pub(super) name: Vec<u8>,
    /// Where its packed bytes begin.
    at: u64,
    /// They are as they were, so many of them.
    stored: Option<u64>,
}

/// Finds up to `most` entries.
///
/// # Errors
/// Where the file cannot be read.
pub(super) fn entries(file: &mut File, most: usize) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    // Offset of the first of the bytes.
    let mut base = 0;
    file.seek(SeekFrom::Start(0))?;
    loop {
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut bytes)?;
        let mut from = 0;
        while let Some(at) = memchr::memmem::find(&bytes[from..], MARK).map(|at| from + at) {
            let Some(head) = bytes.get(at..at + HEAD + usize::from(u16::MAX)).or_else(|| {
                // What follows the mark is not here yet, unless there is no more.
                (read == 0).then(|| &bytes[at..])
            }) else {
                from = at;
                break;
            };
            if let Some(entry) = entry(head, base + at as u64) {
                found.push(entry);
            }
            if found.len() >= most {
                return Ok(found);
            }
            from = at + MARK.len();
        }
        if read == 0 {
            return Ok(found);
        }
        let keep =
            if bytes[from..].starts_with(MARK) { from } else { from.max(bytes.len().saturating_sub(3)) };
        bytes.drain(..keep);
        base += keep as u64;
    }
}

/// What stands before an entry's bytes, if it can be understood.
fn entry(head: &[u8], at: u64) -> Option<Entry> {
    let two = |from: usize| Some(u16::from_le_bytes(head.get(from..from + 2)?.try_into().ok()?));
    let four = |from: usize| Some(u32::from_le_bytes(head.get(from..from + 4)?.try_into().ok()?));
    let (flags, method, size) = (two(6)?, two(8)?, four(18)?);
    let (name, extra) = (usize::from(two(26)?), usize::from(two(28)?));
    let sealed = flags & 1 != 0;
    let stored = match method {
        0 => Some(u64::from(size)),
        8 => None,
        _ => return None,
    };
    let name = head.get(HEAD..HEAD + name).filter(|name| !sealed && !name.is_empty())?.to_vec();
    let at = at + (HEAD + name.len() + extra) as u64;
    Some(Entry { name, at, stored })
}

impl Entry {
    /// Its bytes, as far as they can be had.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn open(&self, file: &mut File) -> io::Result<Box<dyn Read>> {
        file.seek(SeekFrom::Start(self.at))?;
        let same = file.try_clone()?;
        Ok(match self.stored {
            Some(size) => Box::new(same.take(size)),
            None => Box::new(DeflateDecoder::new(same)),
        })
    }
}
