//! What a repository tracks: the names in git's index. Only names are read,
//! and a file that does not hold what it promises is an error, never a guess.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

const MAX_BYTES: u64 = 1 << 30;
const MAX_ENTRIES: u32 = 4_000_000;
const MAX_NAME: usize = 64 << 10;
/// Kinds of files in an index.
const GITLINK: u32 = 0o160_000;
const DIRECTORY: u32 = 0o040_000;

/// Names, sorted, as bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tracked {
    /// Files and links.
    pub(super) files: Vec<Vec<u8>>,
    /// Other repositories in this one, and directories kept out of the work
    /// tree.
    pub(super) others: Vec<Vec<u8>>,
}

impl Tracked {
    pub(super) fn file(&self, path: &str) -> bool {
        self.files.binary_search_by(|name| name.as_slice().cmp(path.as_bytes())).is_ok()
    }

    /// Whether something at or below the directory is tracked.
    pub(super) fn below(&self, dir: &str) -> bool {
        let mut first = dir.as_bytes().to_vec();
        first.push(b'/');
        let within = |names: &[Vec<u8>]| {
            let at = names.partition_point(|name| name < &first);
            names.get(at).is_some_and(|name| name.starts_with(&first))
        };
        within(&self.files)
            || self.others.binary_search_by(|name| name.as_slice().cmp(dir.as_bytes())).is_ok()
            || within(&self.others)
    }
}

/// Reads the index in a git directory; one that is not there tracks nothing.
pub(super) fn read(git_dir: &Path, hash: usize) -> Result<Tracked, String> {
    let mut tracked = Tracked::default();
    let Some(bytes) = load(&git_dir.join("index"))? else { return Ok(tracked) };
    let rest = parse(&bytes, hash, &mut tracked)?;
    if let Some(shared) = shared(rest, hash)
        && let Some(bytes) = load(&git_dir.join(format!("sharedindex.{shared}")))?
    {
        parse(&bytes, hash, &mut tracked)?;
    }
    // A file in conflict is there once for each side.
    tracked.files.sort_unstable();
    tracked.files.dedup();
    tracked.others.sort_unstable();
    Ok(tracked)
}

fn load(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| error.to_string())?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES { Err("is larger than 1 GiB".into()) } else { Ok(Some(bytes)) }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("ends in the middle of an entry")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().unwrap_or_default()))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().unwrap_or_default()))
    }

    /// Up to a NUL, which is taken too.
    fn text(&mut self) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let len =
            rest.iter().take(MAX_NAME).position(|byte| *byte == 0).ok_or("holds a name without an end")?;
        self.take(len + 1).map(|taken| &taken[..len])
    }

    /// The number of bytes that a name does not share with the one before.
    fn offset(&mut self) -> Result<usize, String> {
        let mut byte = self.take(1)?[0];
        let mut value = usize::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = self.take(1)?[0];
            let next = value.checked_add(1).and_then(|value| value.checked_mul(128));
            value = next.filter(|next| *next < MAX_NAME * 128).ok_or("holds an impossible name")?;
            value += usize::from(byte & 0x7f);
        }
        Ok(value)
    }
}

/// Adds the names of one file; what follows them is handed back.
fn parse<'a>(bytes: &'a [u8], hash: usize, tracked: &mut Tracked) -> Result<&'a [u8], String> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(4)? != b"DIRC" {
        return Err("is no index".into());
    }
    let (version, count) = (reader.u32()?, reader.u32()?);
    if !(2..=4).contains(&version) {
        return Err(format!("has version {version}, which is not known"));
    }
    if count > MAX_ENTRIES {
        return Err(format!("has {count} entries"));
    }
    let mut name: Vec<u8> = Vec::new();
    for _ in 0..count {
        let start = reader.at;
        reader.take(24)?;
        let mode = reader.u32()?;
        reader.take(12 + hash)?;
        let flags = reader.u16()?;
        if version >= 3 && flags & 0x4000 != 0 {
            reader.take(2)?;
        }
        if version == 4 {
            let cut = reader.offset()?;
            let kept = name.len().checked_sub(cut).ok_or("holds an impossible name")?;
            name.truncate(kept);
            name.extend_from_slice(reader.text()?);
            if name.len() > MAX_NAME {
                return Err("holds a name that is too long".into());
            }
        } else {
            name = reader.text()?.to_vec();
            // One to eight NULs, to a multiple of eight.
            let taken = reader.at - start;
            reader.take(taken.next_multiple_of(8) - taken)?;
        }
        // A replaced entry of a split index has no name of its own.
        if name.is_empty() {
            continue;
        }
        match mode & 0o170_000 {
            GITLINK | DIRECTORY => {
                tracked.others.push(name.strip_suffix(b"/").unwrap_or(&name).to_vec());
            }
            _ => tracked.files.push(name.clone()),
        }
    }
    Ok(&bytes[reader.at..])
}

/// The name of the index that this one adds to, if it is split.
fn shared(extensions: &[u8], hash: usize) -> Option<String> {
    let mut reader = Reader { bytes: extensions, at: 0 };
    // What is left at the end is the checksum.
    while reader.bytes.len() - reader.at > hash + 8 {
        let (name, len) = (reader.take(4).ok()?, reader.u32().ok()? as usize);
        let body = reader.take(len).ok()?;
        if name == b"link" {
            let id = body.get(..hash).filter(|id| id.iter().any(|byte| *byte != 0))?;
            return Some(data_encoding::HEXLOWER.encode(id));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut bytes = b"DIRC\0\0\0\x02\0\0\0\x02".to_vec();
        for (mode, name) in [(0o100_644_u32, "a/b"), (GITLINK, "sub")] {
            let start = bytes.len();
            bytes.extend([0; 24]);
            bytes.extend(mode.to_be_bytes());
            bytes.extend([0; 32]);
            bytes.extend([0, name.len() as u8]);
            bytes.extend(name.as_bytes());
            bytes.push(0);
            while !(bytes.len() - start).is_multiple_of(8) {
                bytes.push(0);
            }
        }
        bytes.extend([0; 20]);
        bytes
    }

    #[test]
    fn names_are_found_and_kinds_told_apart() {
        let mut tracked = Tracked::default();
        parse(&sample(), 20, &mut tracked).unwrap();
        assert!(tracked.file("a/b") && !tracked.file("a"));
        assert!(tracked.below("a") && tracked.below("sub") && !tracked.below("su"));
    }

    #[test]
    fn no_damaged_index_is_believed_or_ends_the_program() {
        let good = sample();
        for cut in 0..good.len() - 20 {
            assert!(parse(&good[..cut], 20, &mut Tracked::default()).is_err(), "{cut}");
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let mut tracked = Tracked::default();
                if let Ok(rest) = parse(&bad, 20, &mut tracked) {
                    let _ = shared(rest, 20);
                }
            }
        }
    }
}
