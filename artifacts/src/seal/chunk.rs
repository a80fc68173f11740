//! One chunk, sealed. Its name and its key come of its content and of the
//! project's secret, so that equal chunks of a project are one; its nonce comes
//! of what is sealed, so that the same key never meets the same nonce with
//! other bytes, and the same chunk coded the same way gives the same bytes.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::SealError;
use super::key::{ChunkKey, ProjectSecret};
use crate::codec::Codec;
use crate::digest::Digest;

/// Bytes that sealing adds: the nonce and the tag.
pub const OVERHEAD: u32 = NONCE as u32 + TAG as u32;
const NONCE: usize = 12;
const TAG: usize = 16;

const BROKEN: SealError = SealError::Damaged("a sealed chunk does not open");

/// What a chunk of a sealed tree has beyond others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// What it is called where no key is at hand.
    pub name: Digest,
    /// Hash of its stored bytes.
    pub cipher: Digest,
    /// What opens it.
    pub key: ChunkKey,
}

/// Names chunks and makes their keys.
#[derive(Clone)]
pub(super) struct Namer {
    names: ProjectSecret,
    keys: ProjectSecret,
}

impl Namer {
    pub(super) fn of(secret: &ProjectSecret) -> Self {
        let derive = |context: &str| ProjectSecret::from_bytes(blake3::derive_key(context, secret.expose()));
        Self {
            names: derive("outlast names of chunks, version 3"),
            keys: derive("outlast keys of chunks, version 3"),
        }
    }

    /// The name of the chunk whose plain bytes have this hash.
    pub(super) fn name(&self, plain: &Digest) -> Digest {
        Digest::from_bytes(*blake3::keyed_hash(self.names.expose(), plain.as_bytes()).as_bytes())
    }

    /// Its key.
    pub(super) fn key(&self, plain: &Digest) -> ChunkKey {
        ChunkKey::from_bytes(*blake3::keyed_hash(self.keys.expose(), plain.as_bytes()).as_bytes())
    }
}

/// What is authenticated beside the bytes.
fn bound(name: &Digest, len: u32, codec: Codec) -> [u8; 37] {
    let mut bound = [0; 37];
    bound[..32].copy_from_slice(name.as_bytes());
    bound[32..36].copy_from_slice(&len.to_le_bytes());
    bound[36] = codec.into();
    bound
}

fn aead(key: &ChunkKey) -> Result<LessSafeKey, SealError> {
    UnboundKey::new(&AES_256_GCM, key.expose()).map(LessSafeKey::new).map_err(|_| BROKEN)
}

/// Appends the sealed form of coded bytes.
pub(crate) fn seal(
    (name, key): (&Digest, &ChunkKey),
    (codec, len): (Codec, u32),
    coded: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), SealError> {
    let bound = bound(name, len, codec);
    let nonces = blake3::derive_key("outlast nonces of chunks, version 3", key.expose());
    let hash = blake3::Hasher::new_keyed(&nonces).update(&bound).update(coded).finalize();
    let mut nonce = [0; NONCE];
    nonce.copy_from_slice(&hash.as_bytes()[..NONCE]);
    let start = out.len() + NONCE;
    out.extend_from_slice(&nonce);
    out.extend_from_slice(coded);
    let sealing = aead(key)?;
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = sealing.seal_in_place_separate_tag(nonce, Aad::from(bound), &mut out[start..]);
    out.extend_from_slice(tag.map_err(|_| BROKEN)?.as_ref());
    Ok(())
}

/// The coded bytes of a sealed chunk.
pub(crate) fn open(
    (name, key): (&Digest, &ChunkKey),
    (codec, len): (Codec, u32),
    stored: &[u8],
) -> Result<Vec<u8>, SealError> {
    let (nonce, sealed) = stored.split_at_checked(NONCE).ok_or(BROKEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| BROKEN)?;
    let mut bytes = sealed.to_vec();
    let opened = aead(key)?.open_in_place(nonce, Aad::from(bound(name, len, codec)), &mut bytes);
    let coded = opened.map_err(|_| BROKEN)?.len();
    bytes.truncate(coded);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn namer(byte: u8) -> Namer {
        Namer::of(&ProjectSecret::from_bytes([byte; 32]))
    }

    fn sealed(namer: &Namer, codec: Codec, coded: &[u8], plain: &Digest) -> Vec<u8> {
        let mut out = vec![1, 2, 3];
        let names = (&namer.name(plain), &namer.key(plain));
        seal(names, (codec, 99), coded, &mut out).unwrap();
        out.split_off(3)
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_again_and_nothing_else_does(
            coded in proptest::collection::vec(any::<u8>(), 0..200),
            flip in any::<prop::sample::Index>(),
        ) {
            let (namer, plain) = (namer(1), Digest::of(b"plain"));
            let stored = sealed(&namer, Codec::Zstd, &coded, &plain);
            prop_assert_eq!(stored.len(), coded.len() + OVERHEAD as usize);
            prop_assert_eq!(&stored, &sealed(&namer, Codec::Zstd, &coded, &plain), "the same again");
            let (name, key) = (namer.name(&plain), namer.key(&plain));
            let open = |stored: &[u8], codec, len| open((&name, &key), (codec, len), stored);
            prop_assert_eq!(open(&stored, Codec::Zstd, 99).unwrap(), coded);
            prop_assert!(open(&stored, Codec::Lz4, 99).is_err());
            prop_assert!(open(&stored, Codec::Zstd, 98).is_err());
            let mut bad = stored.clone();
            bad[flip.index(stored.len())] ^= 1;
            prop_assert!(open(&bad, Codec::Zstd, 99).is_err());
            let cut = &stored[..flip.index(stored.len())];
            prop_assert!(open(cut, Codec::Zstd, 99).is_err());
        }
    }

    #[test]
    fn other_bytes_under_the_same_key_have_another_nonce() {
        let (namer, plain) = (namer(1), Digest::of(b"plain"));
        let nonce = |codec, coded: &[u8]| sealed(&namer, codec, coded, &plain)[..NONCE].to_vec();
        let first = nonce(Codec::Zstd, b"coded so");
        assert_ne!(first, nonce(Codec::Zstd, b"coded as"));
        assert_ne!(first, nonce(Codec::Lz4, b"coded so"), "what is bound to it is other, too");
    }

    #[test]
    fn another_project_has_other_names_and_keys() {
        let (one, other, plain) = (namer(1), namer(2), Digest::of(b"plain"));
        assert_ne!(one.name(&plain), other.name(&plain));
        assert!(one.key(&plain) != other.key(&plain));
        assert_ne!(one.name(&plain).as_bytes(), one.key(&plain).expose());
        let stored = sealed(&one, Codec::Raw, b"coded", &plain);
        assert!(open((&one.name(&plain), &other.key(&plain)), (Codec::Raw, 99), &stored).is_err());
    }
}
