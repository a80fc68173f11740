//! The JSON a manifest travels as. Packs are named once in a table, because a
//! large checkpoint has hundreds of thousands of chunks; nothing is checked
//! here beyond the shape.

use serde::{Deserialize, Serialize};

use super::{ChunkRef, Entry, Kind, Manifest, ManifestError, Node, VERSION};
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

/// Digest, length, number in the table of packs, offset.
#[derive(Serialize, Deserialize)]
struct Chunk(Digest, u32, u32, u64);

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
                chunks: chunks.iter().map(|c| Chunk(c.digest, c.len, number(&c.pack), c.offset)).collect(),
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
            Ok(probe) if probe.version != VERSION => ManifestError::Version(probe.version),
            _ => ManifestError::Malformed(error.to_string()),
        }
    })?;
    let packs = &tree.packs;
    let place = |Chunk(digest, len, pack, offset): Chunk| {
        let pack = packs.get(pack as usize).cloned();
        let pack = pack.ok_or_else(|| ManifestError::Malformed("a chunk names no pack".into()))?;
        Ok(ChunkRef { digest, len, pack, offset })
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
