//! A pack: stored chunks end to end, then an index of them, so that a pack
//! tells what it holds even when every manifest is gone.
//!
//! ```text
//! stored chunks | index | BLAKE3 of all before | entries: u32 | magic: 8 bytes
//! index entry: digest 32 | stored length u32 | plain length u32 | codec u8
//! ```
//!
//! Numbers are little-endian. The chunks lie in the order of the index, the
//! first at 0. Packs of format version 1 have no index.

use crate::codec::{Codec, Coder, Effort};
use crate::digest::Digest;
use crate::index::Location;
use crate::key::ObjectKey;

/// The last bytes of every pack that has an index.
pub const MAGIC: &[u8; 8] = b"OLPACK2\n";
const ENTRY: usize = 32 + 4 + 4 + 1;
const FOOT: usize = 32 + 4 + 8;

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
}

impl Held {
    pub(crate) fn within(self, pack: ObjectKey) -> Location {
        let Self { offset, stored, len, codec } = self;
        Location { pack, offset, len, stored, codec }
    }
}

/// Why the end of a pack is no index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// An older pack, or no pack.
    #[error("the pack has no index")]
    NoIndex,
    /// The hash of the pack is another.
    #[error("the pack is damaged: its digest is another")]
    Digest,
    /// The index does not describe the bytes before it.
    #[error("the pack's index is damaged")]
    Index,
}

/// A pack that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    held: Vec<(Digest, Held)>,
    plain: u64,
}

impl Builder {
    /// Whether a chunk of `len` bytes fits, whatever its coding, and the
    /// index after it.
    pub(crate) fn fits(&self, len: usize, limit: usize) -> bool {
        self.bytes.len() + len + (self.held.len() + 1) * ENTRY + FOOT <= limit
    }

    /// Takes the room of a whole pack at once; growing would take it twice.
    pub(crate) fn reserve(&mut self, limit: usize) {
        self.bytes.reserve_exact(limit.saturating_sub(self.bytes.len()));
    }

    pub(crate) fn add(&mut self, coder: &mut Coder, digest: Digest, chunk: &[u8], effort: Effort) {
        let offset = self.bytes.len();
        let codec = coder.encode(chunk, effort, &mut self.bytes);
        let stored = (self.bytes.len() - offset) as u32;
        self.plain += chunk.len() as u64;
        self.held.push((digest, Held { offset: offset as u64, stored, len: chunk.len() as u32, codec }));
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
        for (digest, Held { stored, len, codec, .. }) in &held {
            bytes.extend_from_slice(digest.as_bytes());
            bytes.extend_from_slice(&stored.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.push((*codec).into());
        }
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes.extend_from_slice(&(held.len() as u32).to_le_bytes());
        bytes.extend_from_slice(MAGIC);
        (bytes, held)
    }

    /// Takes the room of a pack that is stored.
    pub(crate) fn reuse(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        self.bytes = bytes;
    }
}

/// What a pack says it holds, once all of it has its digest.
pub fn index(pack: &[u8]) -> Result<Vec<(Digest, Held)>, PackError> {
    let body = pack.len().checked_sub(FOOT).ok_or(PackError::NoIndex)?;
    let (body, foot) = pack.split_at(body);
    let (digest, rest) = foot.split_at(32);
    let (count, magic) = rest.split_at(4);
    if magic != MAGIC {
        return Err(PackError::NoIndex);
    }
    if Digest::of(body).as_bytes() != digest {
        return Err(PackError::Digest);
    }
    let count = u32::from_le_bytes(count.try_into().unwrap_or_default()) as usize;
    let room = count.checked_mul(ENTRY).and_then(|room| body.len().checked_sub(room));
    let (chunks, index) = body.split_at(room.ok_or(PackError::Index)?);
    let mut offset = 0_u64;
    let mut held = Vec::with_capacity(count);
    for entry in index.as_chunks::<ENTRY>().0 {
        let number = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        let digest: [u8; 32] = entry[..32].try_into().unwrap_or_default();
        let codec = Codec::try_from(entry[40]).map_err(|_| PackError::Index)?;
        let (stored, len) = (number(32), number(36));
        held.push((Digest::from_bytes(digest), Held { offset, stored, len, codec }));
        offset += u64::from(stored);
    }
    if offset == chunks.len() as u64 { Ok(held) } else { Err(PackError::Index) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack() -> Vec<u8> {
        let (mut builder, mut coder) = (Builder::default(), Coder::default());
        for chunk in [vec![0; 5000], b"text that repeats itself ".repeat(99), b"plain".to_vec()] {
            builder.add(&mut coder, Digest::of(&chunk), &chunk, Effort::Dense);
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
        for (digest, Held { offset, stored, len, codec }) in held {
            let stored = &bytes[offset as usize..][..stored as usize];
            let mut plain = Vec::new();
            coder.decode(codec, stored, len as usize, &mut plain).unwrap();
            assert_eq!(Digest::of(&plain), digest);
        }
    }

    #[test]
    fn a_damaged_pack_is_found_and_an_old_one_told_apart() {
        let bytes = pack();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(index(&bad).is_err(), "{at}");
        }
        assert_eq!(index(&bytes[..bytes.len() - 1]), Err(PackError::NoIndex));
        assert_eq!(index(b""), Err(PackError::NoIndex));
    }
}
