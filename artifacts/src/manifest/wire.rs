//! The JSON a manifest travels as. Packs are named once in a table, because a
//! large checkpoint has hundreds of thousands of chunks; nothing is checked
//! here beyond the shape.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ChunkRef, Entry, Kind, Manifest, ManifestError, Node, VERSION};
use crate::codec::Codec;
use crate::digest::Digest;
use crate::key::ObjectKey;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    version: u32,
    kind: Kind,
    step: Option<u64>,
    name: String,
    single_file: bool,
    created_ms: u64,
    packs: Vec<ObjectKey>,
    entries: Vec<Named>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    path: String,
    node: Shape,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Shape {
    File { mode: u32, size: u64, mtime_ms: i64, chunks: Vec<Chunk> },
    Dir { mode: u32 },
    Link { target: String },
}

/// Digest, length, number in the table of packs, offset; and, unless it is
/// stored as it is, stored length and codec.
struct Chunk(Digest, u32, u32, u64, u32, Codec);

impl Serialize for Chunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(digest, len, pack, offset, stored, codec) = self;
        let coded = *codec != Codec::Raw || stored != len;
        let mut fields = serializer.serialize_seq(Some(if coded { 6 } else { 4 }))?;
        fields.serialize_element(digest)?;
        fields.serialize_element(len)?;
        fields.serialize_element(pack)?;
        fields.serialize_element(offset)?;
        if coded {
            fields.serialize_element(stored)?;
            fields.serialize_element(codec)?;
        }
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Chunk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Chunk;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("four or six fields of a chunk")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Chunk, A::Error> {
        fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(fields: &mut A) -> Result<T, A::Error> {
            fields.next_element()?.ok_or_else(|| A::Error::custom("a chunk lacks a field"))
        }
        let (digest, len) = (next(&mut fields)?, next(&mut fields)?);
        let (pack, offset) = (next(&mut fields)?, next(&mut fields)?);
        let (stored, codec) = match fields.next_element()? {
            None => (len, Codec::Raw),
            Some(stored) => (stored, next(&mut fields)?),
        };
        Ok(Chunk(digest, len, pack, offset, stored, codec))
    }
}

#[derive(Deserialize)]
struct Probe {
    version: u32,
}

pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    let packs = manifest.packs();
    // Every chunk's pack is in the table that was made from the chunks.
    let number = |pack: &ObjectKey| packs.binary_search(pack).unwrap_or_default() as u32;
    let entries = manifest.sorted().into_iter().map(|entry| Named {
        path: entry.path.clone(),
        node: match &entry.node {
            Node::Dir { mode } => Shape::Dir { mode: *mode },
            Node::Symlink { target } => Shape::Link { target: target.clone() },
            Node::File { mode, size, mtime_ms, chunks } => Shape::File {
                mode: *mode,
                size: *size,
                mtime_ms: *mtime_ms,
                chunks: chunks
                    .iter()
                    .map(|c| Chunk(c.digest, c.len, number(&c.pack), c.offset, c.stored, c.codec))
                    .collect(),
            },
        },
    });
    let tree = Tree {
        version: manifest.version,
        kind: manifest.kind,
        step: manifest.step,
        name: manifest.name.clone(),
        single_file: manifest.single_file,
        created_ms: manifest.created_ms,
        entries: entries.collect(),
        packs: packs.clone(),
    };
    // Strings, numbers and lists only: there is nothing JSON cannot say.
    serde_json::to_vec(&tree).unwrap_or_default()
}

pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let tree: Tree = serde_json::from_slice(bytes).map_err(|error| {
        // A newer version may have any shape: say that, not what is odd in it.
        match serde_json::from_slice::<Probe>(bytes) {
            Ok(probe) if !(1..=VERSION).contains(&probe.version) => ManifestError::Version(probe.version),
            _ => ManifestError::Malformed(error.to_string()),
        }
    })?;
    let packs = &tree.packs;
    let place = |Chunk(digest, len, pack, offset, stored, codec): Chunk| {
        let pack = packs.get(pack as usize).cloned();
        let pack = pack.ok_or_else(|| ManifestError::Malformed("a chunk names no pack".into()))?;
        Ok(ChunkRef { digest, len, pack, offset, stored, codec })
    };
    let entries = tree.entries.into_iter().map(|named| {
        let node = match named.node {
            Shape::Dir { mode } => Node::Dir { mode },
            Shape::Link { target } => Node::Symlink { target },
            Shape::File { mode, size, mtime_ms, chunks } => {
                let chunks = chunks.into_iter().map(place).collect::<Result<_, ManifestError>>()?;
                Node::File { mode, size, mtime_ms, chunks }
            }
        };
        Ok(Entry { path: named.path, node })
    });
    Ok(Manifest {
        version: tree.version,
        kind: tree.kind,
        step: tree.step,
        name: tree.name,
        single_file: tree.single_file,
        created_ms: tree.created_ms,
        entries: entries.collect::<Result<_, ManifestError>>()?,
    })
}
