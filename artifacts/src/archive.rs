//! The directory of a zip archive, read out of bytes that somebody else
//! fetched: whoever cuts a file and whoever looks into a stored one need the
//! same of it. Hostile ground: everything is checked, nothing allocated by
//! what the bytes say, and what does not add up is no archive.
//!
//! Source: PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5.3 (zip64).

const END: usize = 22;
/// The end of an archive with the longest comment.
pub(crate) const LONGEST_END: u64 = END as u64 + 65_535;
/// The locator of a zip64 end, which lies right before the end.
pub(crate) const LOCATOR: u64 = 20;
/// A zip64 end, as far as it is read.
pub(crate) const END64: u64 = 56;
/// The header right before an entry's data, without its name.
pub(crate) const LOCAL: u64 = 30;
const CENTRAL: usize = 46;
/// A short field with this says that the long one counts.
const FULL: u64 = u32::MAX as u64;

/// A little-endian number of `N` bytes.
pub(crate) fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(wide))
}

/// Offset and length of a directory.
pub(crate) type Directory = (u64, u64);

/// What the end of an archive says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Where it begins among the bytes that were looked at.
    pub(crate) at: usize,
    directory: Directory,
    is_short: bool,
}

impl End {
    /// Finds it in the last bytes of a file.
    pub(crate) fn find(tail: &[u8]) -> Option<Self> {
        let at = (0..=tail.len().checked_sub(END)?).rev().find(|at| {
            let comment = number::<2>(tail, at + 20).map(|length| length as usize);
            tail[*at..].starts_with(b"PK\x05\x06") && comment.is_some_and(|n| at + END + n == tail.len())
        })?;
        let directory = (number::<4>(tail, at + 16)?, number::<4>(tail, at + 12)?);
        let is_short = directory.0 != FULL && directory.1 != FULL;
        Some(Self { at, directory, is_short: is_short && number::<2>(tail, at + 10)? != 0xffff })
    }

    /// The directory, where no zip64 end need be asked.
    pub(crate) fn directory(&self) -> Option<Directory> {
        self.is_short.then_some(self.directory)
    }

    /// Where the zip64 end is by its locator; the other result: there is none,
    /// and the directory is what the short fields say, if they do.
    pub(crate) fn far(&self, locator: &[u8]) -> Result<u64, Option<Directory>> {
        if !locator.starts_with(b"PK\x06\x07") {
            let (offset, length) = self.directory;
            return Err((offset != FULL && length != FULL).then_some(self.directory));
        }
        number::<8>(locator, 8).ok_or(None)
    }
}

/// The directory as a zip64 end says it.
pub(crate) fn directory64(end: &[u8]) -> Option<Directory> {
    end.starts_with(b"PK\x06\x06").then_some((number::<8>(end, 48)?, number::<8>(end, 40)?))
}

/// One entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// In whatever encoding.
    pub(crate) name: &'a [u8],
    /// Its data are as they were, not compressed.
    pub(crate) is_stored: bool,
    pub(crate) crc: u32,
    /// Bytes in the archive, and without compression.
    pub(crate) packed: u64,
    pub(crate) plain: u64,
    /// Where its local header begins.
    pub(crate) local: u64,
}

/// The entries of a directory, one after another; `None` for one that makes no
/// sense, after which nothing follows.
pub(crate) fn entries(directory: &[u8]) -> impl Iterator<Item = Option<Entry<'_>>> {
    let mut rest = Some(directory);
    std::iter::from_fn(move || {
        let bytes = rest.filter(|rest| rest.starts_with(b"PK\x01\x02"))?;
        let read = entry(bytes);
        rest = read.map(|(_, after)| after);
        Some(read.map(|(entry, _)| entry))
    })
}

fn entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let lengths = [number::<2>(bytes, 28)?, number::<2>(bytes, 30)?, number::<2>(bytes, 32)?];
    let [name, extra, comment] = lengths.map(|length| length as usize);
    let (name, after) = bytes.get(CENTRAL..)?.split_at_checked(name)?;
    let (extra, after) = after.split_at_checked(extra)?;
    let [plain, packed, local] = widened(bytes, extra)?;
    let is_stored = number::<2>(bytes, 10)? == 0;
    let crc = u32::try_from(number::<4>(bytes, 16)?).ok()?;
    Some((Entry { name, is_stored, crc, packed, plain, local }, after.get(comment..)?))
}

/// Sizes and place, from the extra data where the short fields are full.
fn widened(entry: &[u8], mut extra: &[u8]) -> Option<[u64; 3]> {
    let mut fields = [number::<4>(entry, 24)?, number::<4>(entry, 20)?, number::<4>(entry, 42)?];
    while fields.contains(&FULL) {
        let (id, length) = (number::<2>(extra, 0)?, number::<2>(extra, 2)? as usize);
        let data = extra.get(4..4 + length)?;
        extra = &extra[4 + length..];
        if id != 1 {
            continue;
        }
        let mut at = 0;
        for field in fields.iter_mut().filter(|field| **field == FULL) {
            *field = number::<8>(data, at)?;
            at += 8;
        }
        break;
    }
    Some(fields)
}

/// How far behind its local header an entry's data begin.
pub(crate) fn data_after(local: &[u8]) -> Option<u64> {
    local.starts_with(b"PK\x03\x04").then_some(LOCAL + number::<2>(local, 26)? + number::<2>(local, 28)?)
}
