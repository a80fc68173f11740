//! A sealed manifest, format 3: a part in the clear, which says where sealed
//! chunks lie and what their stored bytes hash to, and a sealed part with the
//! ordinary manifest and the keys of the chunks. The clear part is bound to the
//! sealed one. What is read is hostile: sizes are bounded before room is taken,
//! and the two parts must say the same.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::chunk::Seal;
use super::key::{ChunkKey, KEY_BYTES, KeyId, ManifestKey, PrivateKey, PublicKey};
use super::recipient::{self, WRAPPED_BYTES};
use super::{MOST_RECIPIENTS, SealError, VERSION};
use crate::codec::Codec;
use crate::digest::Digest;
use crate::index::Location;
use crate::key::ObjectKey;
use crate::manifest::{ChunkRef, Kind, MAX_BYTES, Manifest, ManifestError, Node, check_place, ends};

/// What stands between the two parts; it cannot occur in the second.
const BETWEEN: &[u8] = b",\"sealed\":\"";
const END: &[u8] = b"\"}";
/// How every sealed manifest begins.
const BEGIN: &[u8] = b"{\"version\":3,";
/// No chunk takes fewer bytes: name and hash, five numbers and what is between
/// them, and in the sealed part a key and a hash.
pub(crate) const LEAST_PER_CHUNK: u64 = 2 * 66 + 5 * 2 + 2 + (32 + 32) * 4 / 3;
/// One Zstandard frame holds the sealed part.
const LEVEL: i32 = 1;

/// A chunk as it is told to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedChunk {
    /// What it is called.
    pub name: Digest,
    /// Where it lies, and what it hashes to there.
    pub place: Location,
}

/// A manifest that is not opened.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What the tree is.
    pub kind: Kind,
    /// The step a checkpoint was made at, where known.
    pub step: Option<u64>,
    /// When it was published, in milliseconds since 1970.
    pub created_ms: u64,
    /// Every chunk the tree needs, by pack and offset, each once.
    pub chunks: Vec<SealedChunk>,
    commitment: Digest,
    recipients: Vec<(KeyId, [u8; WRAPPED_BYTES])>,
    /// What the sealed part is bound to.
    clear: Vec<u8>,
    cipher: Vec<u8>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({:?}, step {:?}, {} chunks)", self.kind, self.step, self.chunks.len())
    }
}

/// Name, plain length, number in the table of packs, offset, stored length,
/// codec, hash of the stored bytes.
#[derive(Serialize, Deserialize)]
struct Row(Digest, u32, u32, u64, u32, u8, Digest);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object<'a> {
    version: u32,
    kind: Kind,
    step: Option<u64>,
    created_ms: u64,
    commitment: Digest,
    #[serde(borrow)]
    recipients: Vec<(&'a str, &'a str)>,
    packs: Vec<ObjectKey>,
    chunks: Vec<Row>,
    sealed: &'a str,
}

#[derive(Serialize)]
struct Clear<'a> {
    version: u32,
    kind: Kind,
    step: Option<u64>,
    created_ms: u64,
    commitment: Digest,
    recipients: &'a [(String, String)],
    packs: &'a [ObjectKey],
    chunks: &'a [Row],
}

fn malformed(why: &str) -> ManifestError {
    ManifestError::Malformed(why.to_owned())
}

/// Whether these bytes claim to be a sealed manifest.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(BEGIN)
}

fn nonce() -> Nonce {
    // The key is made for this one message.
    Nonce::assume_unique_for_key([0; 12])
}

fn aead(key: &ManifestKey) -> Result<LessSafeKey, SealError> {
    let key = UnboundKey::new(&AES_256_GCM, key.expose());
    key.map(LessSafeKey::new).map_err(|_| SealError::Key("it is no key of a manifest"))
}

/// What everybody is told of the chunks of a tree, and their keys.
fn told(tree: &Manifest, packs: &[ObjectKey]) -> Result<(Vec<Row>, Zeroizing<Vec<u8>>), SealError> {
    let mut needed: Vec<&ChunkRef> = tree.needed().collect();
    needed.sort_unstable_by(|a, b| (&a.pack, a.offset).cmp(&(&b.pack, b.offset)));
    needed.dedup_by(|a, b| (&a.pack, a.offset) == (&b.pack, b.offset));
    let mut keys = Zeroizing::new(Vec::with_capacity(needed.len() * KEY_BYTES));
    let mut rows = Vec::with_capacity(needed.len());
    for chunk in needed {
        let seal =
            chunk.seal.as_deref().ok_or(SealError::Damaged("a chunk of a sealed tree is not sealed"))?;
        let pack = packs.binary_search(&chunk.pack).unwrap_or_default() as u32;
        let ChunkRef { len, offset, stored, codec, .. } = chunk;
        rows.push(Row(seal.name, *len, pack, *offset, *stored, (*codec).into(), seal.cipher));
        keys.extend_from_slice(seal.key.expose());
    }
    Ok((rows, keys))
}

/// The sealed part before it is sealed: its length, then a Zstandard frame of
/// the keys, in the order in which chunks are told, and the manifest.
fn packed(mut plain: Zeroizing<Vec<u8>>, manifest: &[u8]) -> Result<Vec<u8>, SealError> {
    plain.extend_from_slice(manifest);
    let frame = zstd_safe::compress_bound(plain.len());
    let mut bytes = Vec::with_capacity(4 + frame + 16);
    bytes.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    bytes.resize(4 + frame, 0);
    let size = zstd_safe::compress(&mut bytes[4..], &plain, LEVEL);
    bytes.truncate(4 + size.map_err(|_| SealError::Damaged("the manifest cannot be compressed"))?);
    Ok(bytes)
}

/// Seals the manifest of a tree to recipients, under a key of its own.
pub(super) fn encode(tree: &Manifest, recipients: &[PublicKey]) -> Result<Vec<u8>, SealError> {
    let inner = tree.to_bytes();
    // Names compress well: what is sealed may be short, and no reader opens it.
    if inner.len() as u64 > MAX_BYTES {
        return Err(ManifestError::TooLarge(inner.len() as u64).into());
    }
    let packs = tree.packs();
    let (rows, keys) = told(tree, &packs)?;
    let clear = |key: &ManifestKey| clear_text(tree, (&packs, &rows), key, recipients);
    assemble(clear, move || packed(keys, &inner))
}

/// The clear part of a tree whose key this is.
fn clear_text(
    tree: &Manifest,
    (packs, rows): (&[ObjectKey], &[Row]),
    key: &ManifestKey,
    recipients: &[PublicKey],
) -> Result<String, SealError> {
    let mut wrapped = Vec::with_capacity(recipients.len());
    for to in recipients {
        wrapped.push((to.id().to_string(), BASE64.encode(&recipient::wrap(key, to)?)));
    }
    let clear = Clear {
        version: VERSION,
        kind: tree.kind,
        step: tree.step,
        created_ms: tree.created_ms,
        commitment: key.commitment(),
        recipients: &wrapped,
        packs,
        chunks: rows,
    };
    let mut text = serde_json::to_string(&clear).map_err(|_| malformed("it has no text form"))?;
    text.pop();
    Ok(text)
}

/// Both parts under a new key.
fn assemble(
    clear: impl FnOnce(&ManifestKey) -> Result<String, SealError>,
    packed: impl FnOnce() -> Result<Vec<u8>, SealError>,
) -> Result<Vec<u8>, SealError> {
    let key = ManifestKey::fresh()?;
    let mut text = clear(&key)?;
    let mut sealed = packed()?;
    let tag = aead(&key)?.seal_in_place_separate_tag(nonce(), Aad::from(text.as_bytes()), &mut sealed);
    sealed.extend_from_slice(tag.map_err(|_| SealError::Damaged("the manifest cannot be sealed"))?.as_ref());
    text.reserve_exact(sealed.len().div_ceil(3) * 4 + BETWEEN.len() + END.len());
    text.push_str(",\"sealed\":\"");
    BASE64.encode_append(&sealed, &mut text);
    text.push_str("\"}");
    Ok(text.into_bytes())
}

impl Sealed {
    /// Reads and checks what stands in the clear.
    ///
    /// # Errors
    /// Where no honest writer made it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ManifestError::TooLarge(bytes.len() as u64));
        }
        let object: Object<'_> = serde_json::from_slice(bytes)
            .map_err(|error| malformed(&crate::path::harmless(&error.to_string())))?;
        if object.version != VERSION {
            return Err(ManifestError::Version(object.version));
        }
        let tail = object.sealed.len() + END.len();
        let clear = bytes.strip_suffix(END).and_then(|rest| rest.strip_suffix(object.sealed.as_bytes()));
        let clear = clear.and_then(|rest| rest.strip_suffix(BETWEEN));
        let clear = clear.ok_or_else(|| malformed("its sealed part does not come last"))?.to_vec();
        debug_assert_eq!(clear.len() + BETWEEN.len() + tail, bytes.len());
        let cipher = BASE64.decode(object.sealed.as_bytes()).map_err(|_| malformed("it is no Base64"))?;
        if object.recipients.is_empty() || object.recipients.len() > MOST_RECIPIENTS {
            return Err(malformed("it has an impossible number of recipients"));
        }
        let recipients = object.recipients.iter().map(|(id, wrapped)| {
            let wrapped = BASE64.decode(wrapped.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
            Some((id.parse().ok()?, wrapped?))
        });
        let recipients: Option<Vec<_>> = recipients.collect();
        let recipients = recipients.ok_or_else(|| malformed("a recipient is none"))?;
        if !object.packs.is_sorted_by(|a, b| a < b) {
            return Err(malformed("its packs are out of order or named twice"));
        }
        Ok(Self {
            kind: object.kind,
            step: object.step,
            created_ms: object.created_ms,
            chunks: placed(object.chunks, &object.packs)?,
            commitment: object.commitment,
            recipients,
            clear,
            cipher,
        })
    }

    /// The packs it needs, and how long each must be at least.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<ObjectKey, u64> {
        ends(self.chunks.iter().map(|chunk| (&chunk.place.pack, chunk.place.end())))
    }

    /// Whether this is its key.
    #[must_use]
    pub fn is_opened_by(&self, key: &ManifestKey) -> bool {
        key.commitment() == self.commitment
    }

    /// The ids of those that it is sealed to.
    pub fn recipients(&self) -> impl Iterator<Item = KeyId> {
        self.recipients.iter().map(|(id, _)| *id)
    }

    pub(super) fn recipients_text(&self) -> String {
        let mut text = String::new();
        for (id, _) in &self.recipients {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{id}");
        }
        text
    }

    /// Its key, if it was sealed to this one; an error where that is damaged.
    pub(super) fn unwrap(&self, id: KeyId, key: &PrivateKey) -> Option<Result<ManifestKey, SealError>> {
        let (_, wrapped) = self.recipients.iter().find(|(to, _)| *to == id)?;
        let found = recipient::unwrap(wrapped, key);
        Some(found.and_then(|key| match self.is_opened_by(&key) {
            true => Ok(key),
            false => Err(SealError::Damaged("another key was sealed to this recipient")),
        }))
    }

    /// The tree.
    ///
    /// # Errors
    /// Where the key is another's, or no honest writer made it.
    pub fn open(&self, key: &ManifestKey) -> Result<Manifest, SealError> {
        if !self.is_opened_by(key) {
            return Err(SealError::NoKey(self.recipients_text()));
        }
        let mut bytes = Zeroizing::new(self.cipher.clone());
        let opened = aead(key)?.open_in_place(nonce(), Aad::from(self.clear.as_slice()), &mut bytes);
        let opened = opened.map_err(|_| SealError::Damaged("the sealed part does not open"))?;
        let plain = self.unpacked(opened)?;
        let (keys, manifest) = plain.split_at(self.chunks.len() * KEY_BYTES);
        let mut tree = Manifest::parse_inner(manifest)?;
        if tree.version > crate::manifest::VERSION {
            return Err(ManifestError::Version(tree.version).into());
        }
        if (tree.version, tree.kind, tree.step, tree.created_ms)
            != (VERSION, self.kind, self.step, self.created_ms)
        {
            return Err(malformed("its two parts are of two trees").into());
        }
        self.give_keys(&mut tree, keys)?;
        tree.check()?;
        Ok(tree)
    }

    fn unpacked(&self, opened: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let least = self.chunks.len() * KEY_BYTES;
        let (size, frame) = opened.split_at_checked(4).ok_or_else(|| malformed("it is cut"))?;
        let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
        // Whoever has the secret can write anything here.
        if size < least || (size - least) as u64 > MAX_BYTES {
            return Err(malformed("its sealed part has an impossible size").into());
        }
        let mut plain = Zeroizing::new(vec![0; size]);
        match zstd_safe::decompress(plain.as_mut_slice(), frame) {
            Ok(found) if found == size => Ok(plain),
            _ => Err(malformed("a Zstandard frame is damaged").into()),
        }
    }

    /// Gives every chunk what was told of it; the two parts must agree.
    fn give_keys(&self, tree: &mut Manifest, keys: &[u8]) -> Result<(), ManifestError> {
        let mut numbers: HashMap<(&ObjectKey, u64), usize> = HashMap::with_capacity(self.chunks.len());
        for (number, chunk) in self.chunks.iter().enumerate() {
            numbers.insert((&chunk.place.pack, chunk.place.offset), number);
        }
        let mut used = vec![false; self.chunks.len()];
        let mut give = |chunk: &mut ChunkRef| {
            let number = *numbers
                .get(&(&chunk.pack, chunk.offset))
                .ok_or_else(|| malformed("it has a chunk that its clear part does not name"))?;
            let SealedChunk { name, place } = &self.chunks[number];
            if (place.len, place.stored, place.codec) != (chunk.len, chunk.stored, chunk.codec) {
                return Err(malformed("its two parts say different things of a chunk"));
            }
            used[number] = true;
            let key = &keys[number * KEY_BYTES..(number + 1) * KEY_BYTES];
            let key = ChunkKey::try_from(key).map_err(|_| malformed("it lacks a key"))?;
            let cipher = place.cipher.ok_or_else(|| malformed("it lacks a hash"))?;
            chunk.seal = Some(Box::new(Seal { name: *name, cipher, key }));
            Ok(())
        };
        for entry in &mut tree.entries {
            if let Node::File { chunks, .. } = &mut entry.node {
                chunks.iter_mut().try_for_each(&mut give)?;
            }
        }
        tree.bases.iter_mut().try_for_each(&mut give)?;
        // What is told and not needed would keep packs that nobody needs.
        if used.iter().all(|used| *used) { Ok(()) } else { Err(malformed("it names a chunk without use")) }
    }
}

fn placed(rows: Vec<Row>, packs: &[ObjectKey]) -> Result<Vec<SealedChunk>, ManifestError> {
    let mut chunks = Vec::with_capacity(rows.len());
    let mut before = None;
    for Row(name, len, pack, offset, stored, codec, cipher) in rows {
        if before.is_some_and(|before| before >= (pack, offset)) {
            return Err(malformed("its chunks are out of order or named twice"));
        }
        before = Some((pack, offset));
        let pack = packs.get(pack as usize).cloned();
        let pack = pack.ok_or_else(|| malformed("a chunk names no pack"))?;
        let codec = Codec::try_from(codec).map_err(|_| ManifestError::Codec(codec))?;
        let place = Location { pack, offset, len, stored, codec, cipher: Some(cipher) };
        check_place(&place).map_err(ManifestError::Tree)?;
        chunks.push(SealedChunk { name, place });
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests;
