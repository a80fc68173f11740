//! The JSON a manifest travels as. Packs are named once in a table, because a
//! large checkpoint has hundreds of thousands of chunks; nothing is checked
//! here beyond the shape.

use std::{fmt, io};

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ChunkRef, Entry, Kind, Manifest, ManifestError, Node, VERSION};
use crate::codec::Codec;
use crate::digest::Digest;
use crate::key::ObjectKey;
use crate::path::harmless;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    version: u32,
    kind: Kind,
    step: Option<u64>,
    name: String,
    single_file: bool,
    created_ms: u64,
    packs: Vec<ObjectKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bases: Vec<Chunk>,
    entries: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    path: String,
    node: Shape,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Shape {
    File { mode: u32, size: u64, mtime_ms: i64, chunks: Vec<Chunk> },
    Dir { mode: u32 },
    Link { target: String },
}

/// Digest, length, number in the table of packs, offset; and, unless it is
/// stored as it is, stored length and codec; and, if it is a difference, the
/// number of its base.
struct Chunk(Digest, u32, u32, u64, u32, u8, Option<u32>);

/// A tree on its way out: nothing of it is copied but into the bytes.
#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    kind: Kind,
    step: Option<u64>,
    name: &'a str,
    single_file: bool,
    created_ms: u64,
    packs: &'a [ObjectKey],
    #[serde(skip_serializing_if = "Chunks::is_empty")]
    bases: Chunks<'a>,
    entries: Entries<'a>,
}

struct Entries<'a>(&'a [&'a Entry], &'a [ObjectKey]);

#[derive(Serialize)]
struct WrittenEntry<'a> {
    path: &'a str,
    node: WrittenNode<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum WrittenNode<'a> {
    File { mode: u32, size: u64, mtime_ms: i64, chunks: Chunks<'a> },
    Dir { mode: u32 },
    Link { target: &'a str },
}

struct Chunks<'a>(&'a [ChunkRef], &'a [ObjectKey]);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|entry| WrittenEntry {
            path: &entry.path,
            node: match &entry.node {
                Node::Dir { mode } => WrittenNode::Dir { mode: *mode },
                Node::Symlink { target } => WrittenNode::Link { target },
                Node::File { mode, size, mtime_ms, chunks } => {
                    let (mode, size, mtime_ms) = (*mode, *size, *mtime_ms);
                    WrittenNode::File { mode, size, mtime_ms, chunks: Chunks(chunks, self.1) }
                }
            },
        }))
    }
}

impl Chunks<'_> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Chunks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(chunks, packs) = self;
        let mut number = 0;
        serializer.collect_seq(chunks.iter().map(|chunk| {
            // Neighbours mostly share a pack, and each is in the table.
            if packs.get(number) != Some(&chunk.pack) {
                number = packs.binary_search(&chunk.pack).unwrap_or_default();
            }
            let ChunkRef { digest, len, offset, stored, codec, base, .. } = chunk;
            Chunk(*digest, *len, number as u32, *offset, *stored, (*codec).into(), *base)
        }))
    }
}

impl Serialize for Chunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(digest, len, pack, offset, stored, codec, base) = self;
        let coded = *codec != 0 || stored != len || base.is_some();
        let count = 4 + 2 * usize::from(coded) + usize::from(base.is_some());
        let mut fields = serializer.serialize_seq(Some(count))?;
        fields.serialize_element(digest)?;
        fields.serialize_element(len)?;
        fields.serialize_element(pack)?;
        fields.serialize_element(offset)?;
        if coded {
            fields.serialize_element(stored)?;
            fields.serialize_element(codec)?;
        }
        if let Some(base) = base {
            fields.serialize_element(base)?;
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
        f.write_str("four, six or seven fields of a chunk")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Chunk, A::Error> {
        fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(fields: &mut A) -> Result<T, A::Error> {
            fields.next_element()?.ok_or_else(|| A::Error::custom("a chunk lacks a field"))
        }
        let (digest, len) = (next(&mut fields)?, next(&mut fields)?);
        let (pack, offset) = (next(&mut fields)?, next(&mut fields)?);
        let (stored, codec, base) = match fields.next_element()? {
            None => (len, 0, None),
            Some(stored) => (stored, next(&mut fields)?, fields.next_element()?),
        };
        Ok(Chunk(digest, len, pack, offset, stored, codec, base))
    }
}

#[derive(Deserialize)]
struct Probe {
    version: u32,
}

/// Counts bytes.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    let (packs, entries) = (manifest.packs(), manifest.sorted());
    let tree = Written {
        version: manifest.version,
        kind: manifest.kind,
        step: manifest.step,
        name: &manifest.name,
        single_file: manifest.single_file,
        created_ms: manifest.created_ms,
        packs: &packs,
        bases: Chunks(&manifest.bases, &packs),
        entries: Entries(&entries, &packs),
    };
    // Strings, numbers and lists only: there is nothing JSON cannot say. Counted
    // first, for a buffer that grows takes twice the room.
    let mut size = Count(0);
    serde_json::to_writer(&mut size, &tree).unwrap_or_default();
    let mut bytes = Vec::with_capacity(size.0);
    serde_json::to_writer(&mut bytes, &tree).unwrap_or_default();
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let tree: Tree = serde_json::from_slice(bytes).map_err(|error| {
        // A newer version may have any shape: say that, not what is odd in it.
        match serde_json::from_slice::<Probe>(bytes) {
            Ok(probe) if !(1..=VERSION).contains(&probe.version) => ManifestError::Version(probe.version),
            _ => ManifestError::Malformed(harmless(&error.to_string())),
        }
    })?;
    let packs = &tree.packs;
    let place = |Chunk(digest, len, pack, offset, stored, codec, base): Chunk| {
        let pack = packs.get(pack as usize).cloned();
        let pack = pack.ok_or_else(|| ManifestError::Malformed("a chunk names no pack".into()))?;
        let codec = Codec::try_from(codec).map_err(|_| ManifestError::Codec(codec))?;
        Ok(ChunkRef { digest, len, pack, offset, stored, codec, base, seal: None })
    };
    let bases = tree.bases.into_iter().map(place).collect::<Result<_, ManifestError>>()?;
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
        bases,
        entries: entries.collect::<Result<_, ManifestError>>()?,
    })
}
