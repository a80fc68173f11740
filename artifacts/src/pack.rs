//! A pack: stored chunks end to end, then an index of them, so that a pack
//! tells what it holds even when every manifest is gone.
//!
//! ```text
//! stored chunks | index | BLAKE3 of the index | entries: u32 | magic: 8 bytes
//! index entry: digest 32 | stored length u32 | plain length u32 | codec u8
//! ```
//!
//! The chunks are under no hash of the pack's: each is known by its own, and
//! hashing all of them twice took a third of what it takes to store them plain.
//! Sealed chunks go by their names instead of digests, and have the hash of
//! their stored bytes behind each entry; there the hash at the end is that of all
//! before it, as in packs of earlier programs, and the magics are others.
//!
//! Numbers are little-endian. The chunks lie in the order of the index, the
//! first at 0. Packs of format version 1 have no index.

use std::sync::Arc;

use crate::codec::{Base, Codec, Coder, Effort};
use crate::digest::Digest;
use crate::index::Location;
use crate::key::ObjectKey;
use crate::manifest::MAX_CHUNK;
use crate::seal::chunk::{open, seal};
use crate::seal::{OVERHEAD, Sealing};

/// The last bytes of every pack whose index is hashed by itself.
pub const MAGIC: &[u8; 8] = b"OLPACK4\n";
/// The same where all of the pack is.
const WHOLE_MAGIC: &[u8; 8] = b"OLPACK2\n";
/// The same where the chunks are sealed, too.
pub const SEALED_MAGIC: &[u8; 8] = b"OLPACK3\n";
/// A codec may take an eighth more than a chunk before it is given up.
const SLACK: usize = 1 << 20;
const ENTRY: usize = 32 + 4 + 4 + 1;
const SEALED_ENTRY: usize = ENTRY + 32;
pub(crate) const FOOT: usize = 32 + 4 + 8;

/// Where a chunk lies in a pack that has no name yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The first stored byte.
    pub offset: u64,
    /// How many stored bytes.
    pub stored: u32,
    /// How many plain bytes they make.
    pub len: u32,
    /// What makes them.
    pub codec: Codec,
    /// Hash of the stored bytes, where they are sealed.
    pub cipher: Option<Digest>,
}

impl Held {
    pub(crate) fn within(self, pack: ObjectKey) -> Location {
        let Self { offset, stored, len, codec, cipher } = self;
        Location { pack, offset, len, stored, codec, cipher }
    }
}

/// Why the end of a pack is no index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// An older pack, or no pack.
    #[error("the pack has no index")]
    NoIndex,
    /// The hash of the pack, or of its index, is another.
    #[error("the pack is damaged: its digest is another")]
    Digest,
    /// The index does not describe the bytes before it.
    #[error("the pack's index is damaged")]
    Index,
    /// A chunk is coded as this program does not know.
    #[error("the pack has a chunk with codec {0}, which this program does not know: upgrade it")]
    Codec(u8),
    /// The index is longer than the bytes that were read of the end.
    #[error("the pack's index takes the last {0} bytes")]
    More(u64),
}

/// A chunk that could not be sealed so that it opens again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsealed;

/// A pack that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    sealing: Option<Arc<Sealing>>,
    /// What is to be sealed.
    coded: Vec<u8>,
    bytes: Vec<u8>,
    held: Vec<(Digest, Held)>,
    plain: u64,
}

impl Builder {
    /// One whose chunks are sealed, or not.
    pub(crate) fn new(sealing: Option<Arc<Sealing>>) -> Self {
        Self { sealing, ..Self::default() }
    }

    /// Whether a chunk of `len` bytes fits, whatever its coding, and the
    /// index after it.
    pub(crate) fn fits(&self, len: usize, limit: usize) -> bool {
        let (entry, more) = match self.sealing {
            Some(_) => (SEALED_ENTRY, OVERHEAD as usize),
            None => (ENTRY, 0),
        };
        self.bytes.len() + len + more + (self.held.len() + 1) * entry + FOOT <= limit
    }

    /// Takes the room of a whole pack at once, and what coding its last chunk
    /// may need beyond it for a moment; growing would take it twice.
    pub(crate) fn reserve(&mut self, limit: usize) {
        let limit = limit + SLACK;
        self.bytes.reserve_exact(limit.saturating_sub(self.bytes.len()));
    }

    /// Codes a chunk; tells how, and how many bytes it takes.
    pub(crate) fn add(
        &mut self,
        coder: &mut Coder,
        digest: Digest,
        chunk: &[u8],
        base: Option<Base<'_>>,
        effort: Effort,
    ) -> Result<(Codec, u32), Unsealed> {
        let (offset, len) = (self.bytes.len(), chunk.len() as u32);
        let (codec, cipher) = match self.sealing.clone() {
            None => (coder.encode(chunk, base, effort, &mut self.bytes), None),
            Some(sealing) => {
                self.coded.clear();
                let codec = coder.encode(chunk, base, effort, &mut self.coded);
                (codec, Some(self.seal(&sealing, &digest, (codec, len))?))
            }
        };
        let stored = (self.bytes.len() - offset) as u32;
        self.plain += u64::from(len);
        self.held.push((digest, Held { offset: offset as u64, stored, len, codec, cipher }));
        Ok((codec, stored))
    }

    /// Seals what was coded, and believes it only once it was opened again:
    /// there is no other copy when it is needed.
    fn seal(&mut self, sealing: &Sealing, digest: &Digest, coding: (Codec, u32)) -> Result<Digest, Unsealed> {
        let (name, key, start) = (sealing.name(digest), sealing.key(digest), self.bytes.len());
        seal((&name, &key), coding, &self.coded, &mut self.bytes).map_err(|_| Unsealed)?;
        let stored = &self.bytes[start..];
        let cipher = Digest::of(stored);
        let opened = open((&name, &key), coding, stored);
        if opened.is_ok_and(|opened| opened == self.coded) {
            return Ok(cipher);
        }
        self.bytes.truncate(start);
        Err(Unsealed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Stored bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Plain bytes of all packs so far.
    pub(crate) fn plain_bytes(&self) -> u64 {
        self.plain
    }

    /// The whole pack and what lies in it; the next one begins.
    pub(crate) fn finish(&mut self) -> (Vec<u8>, Vec<(Digest, Held)>) {
        let mut bytes = std::mem::take(&mut self.bytes);
        let held = std::mem::take(&mut self.held);
        let chunks = bytes.len();
        let name = |digest: &Digest| self.sealing.as_ref().map_or(*digest, |sealing| sealing.name(digest));
        for (digest, Held { stored, len, codec, cipher, .. }) in &held {
            bytes.extend_from_slice(name(digest).as_bytes());
            bytes.extend_from_slice(&stored.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.push((*codec).into());
            bytes.extend_from_slice(cipher.as_ref().map_or(&[], |cipher| cipher.as_bytes().as_slice()));
        }
        let hashed = if self.sealing.is_some() { 0 } else { chunks };
        let digest = Digest::of(&bytes[hashed..]);
        bytes.extend_from_slice(digest.as_bytes());
        bytes.extend_from_slice(&(held.len() as u32).to_le_bytes());
        bytes.extend_from_slice(if self.sealing.is_some() { SEALED_MAGIC } else { MAGIC });
        (bytes, held)
    }

    /// Takes the room of a pack that is stored.
    pub(crate) fn reuse(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        self.bytes = bytes;
    }
}

/// What a pack says it holds: digests of chunks, or names of sealed ones. Only
/// its own digest says that a chunk is whole.
pub fn index(pack: &[u8]) -> Result<Vec<(Digest, Held)>, PackError> {
    let held = tail(pack, pack.len() as u64)?;
    let (body, foot) = pack.split_at(pack.len() - FOOT);
    let chunks: u64 = held.iter().map(|(_, held)| u64::from(held.stored)).sum();
    let hashed = if foot.ends_with(MAGIC) { &body[chunks as usize..] } else { body };
    if Digest::of(hashed).as_bytes() == &foot[..32] { Ok(held) } else { Err(PackError::Digest) }
}

/// What a pack of `size` bytes says it holds, by its end alone: a hint, for
/// no digest was compared.
pub(crate) fn tail(end: &[u8], size: u64) -> Result<Vec<(Digest, Held)>, PackError> {
    let (body, foot) = end.split_at(end.len().checked_sub(FOOT).ok_or(PackError::NoIndex)?);
    let (count, magic) = foot[32..].split_at(4);
    let sealed = magic == SEALED_MAGIC;
    if !sealed && magic != MAGIC && magic != WHOLE_MAGIC {
        return Err(PackError::NoIndex);
    }
    let (width, more) = if sealed { (SEALED_ENTRY, OVERHEAD) } else { (ENTRY, 0) };
    let count = u32::from_le_bytes(count.try_into().unwrap_or_default());
    let needed = u64::from(count) * width as u64;
    let chunks = size.checked_sub(needed + FOOT as u64).ok_or(PackError::Index)?;
    let Some(start) = body.len().checked_sub(needed as usize) else {
        return Err(PackError::More(needed + FOOT as u64));
    };
    let mut offset = 0_u64;
    let mut held = Vec::with_capacity(count as usize);
    for entry in body[start..].chunks_exact(width) {
        let number = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        let digest: [u8; 32] = entry[..32].try_into().unwrap_or_default();
        let codec = Codec::try_from(entry[40]).map_err(|_| PackError::Codec(entry[40]))?;
        let (stored, len) = (number(32), number(36));
        let raw = codec == Codec::Raw;
        if len > MAX_CHUNK || stored <= more || stored > len + more || raw && stored != len + more {
            return Err(PackError::Index);
        }
        let cipher = entry.get(ENTRY..).and_then(|cipher| cipher.try_into().ok()).map(Digest::from_bytes);
        held.push((Digest::from_bytes(digest), Held { offset, stored, len, codec, cipher }));
        offset += u64::from(stored);
    }
    if offset == chunks { Ok(held) } else { Err(PackError::Index) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack() -> Vec<u8> {
        let (mut builder, mut coder) = (Builder::default(), Coder::default());
        for chunk in [vec![0; 5000], b"text that repeats itself ".repeat(99), b"plain".to_vec()] {
            builder.add(&mut coder, Digest::of(&chunk), &chunk, None, Effort::Dense).unwrap();
        }
        assert_eq!(builder.plain_bytes(), 5000 + 25 * 99 + 5);
        let room = builder.len() + 3 * ENTRY + FOOT;
        assert!(!builder.fits(1, room) && builder.fits(1, room + ENTRY + 1));
        let bytes = builder.finish().0;
        assert_eq!(bytes.len(), room);
        bytes
    }

    #[test]
    fn a_pack_tells_what_it_holds() {
        let bytes = pack();
        let held = index(&bytes).unwrap();
        assert_eq!(
            held.iter().map(|(_, h)| h.codec).collect::<Vec<_>>(),
            [Codec::Fill, Codec::Zstd, Codec::Raw]
        );
        let mut coder = Coder::default();
        for (digest, Held { offset, stored, len, codec, .. }) in held {
            let stored = &bytes[offset as usize..][..stored as usize];
            let mut plain = Vec::new();
            coder.decode(codec, stored, None, len as usize, &mut plain).unwrap();
            assert_eq!(Digest::of(&plain), digest);
        }
    }

    #[test]
    fn an_index_that_lies_is_refused() {
        let foot = |index: &[u8], chunks: usize| {
            let mut bytes = [&vec![b'x'; chunks][..], index].concat();
            bytes.extend_from_slice(Digest::of(index).as_bytes());
            bytes.extend_from_slice(&((index.len() / ENTRY) as u32).to_le_bytes());
            [&bytes[..], MAGIC].concat()
        };
        let entry = |stored: u32, len: u32, codec: u8| {
            [&[7; 32][..], &stored.to_le_bytes(), &len.to_le_bytes(), &[codec]].concat()
        };
        assert_eq!(index(&foot(&entry(5, 5, 0), 5)).unwrap().len(), 1);
        assert_eq!(index(&foot(&entry(5, 8 << 20, 3), 5)).unwrap().len(), 1);
        for (stored, len, codec, wrong) in [
            (5, (8 << 20) + 1, 3, PackError::Index),
            (5, u32::MAX, 3, PackError::Index),
            (0, 5, 3, PackError::Index),
            (5, 4, 3, PackError::Index),
            (5, 6, 0, PackError::Index),
            (5, 6, 200, PackError::Codec(200)),
        ] {
            assert_eq!(index(&foot(&entry(stored, len, codec), stored as usize)), Err(wrong));
        }
        assert_eq!(index(&foot(&entry(5, 5, 0), 6)), Err(PackError::Index));
        let mut huge = foot(&[], 100);
        let at = huge.len() - 12;
        huge[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(index(&huge), Err(PackError::Index), "and nothing is reserved for it");
    }

    #[test]
    fn the_end_alone_tells_what_it_holds() {
        let bytes = pack();
        let size = bytes.len() as u64;
        let all = index(&bytes).unwrap();
        let needed = 3 * ENTRY + FOOT;
        assert_eq!(tail(&bytes[bytes.len() - needed..], size), Ok(all));
        let short = tail(&bytes[bytes.len() - needed + 1..], size);
        assert_eq!(short, Err(PackError::More(needed as u64)));
    }

    #[test]
    fn a_damaged_pack_is_found_and_an_old_one_told_apart() {
        let bytes = pack();
        let chunks = bytes.len() - 3 * ENTRY - FOOT;
        let mut whole = bytes.clone();
        let foot = whole.len() - FOOT;
        let digest = *Digest::of(&whole[..foot]).as_bytes();
        whole[foot..foot + 32].copy_from_slice(&digest);
        whole[foot + 36..].copy_from_slice(WHOLE_MAGIC);
        assert_eq!(index(&whole), index(&bytes));
        for at in 0..bytes.len() {
            for (pack, hashed) in [(&bytes, chunks), (&whole, 0)] {
                let mut bad = pack.clone();
                bad[at] ^= 1;
                assert_eq!(index(&bad).is_ok(), at < hashed, "{at}");
            }
        }
        assert_eq!(index(&bytes[..bytes.len() - 1]), Err(PackError::NoIndex));
        assert_eq!(index(b""), Err(PackError::NoIndex));
    }
}
