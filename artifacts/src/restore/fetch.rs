//! Reads the chunks of a tree in large ranges and checks every hash. At most
//! two ranges are in memory: the one being written and the one under way.

use super::{RestoreError, Verified, run, write::Tree};
use crate::digest::Digest;
use crate::key::ObjectKey;
use crate::manifest::{ChunkRef, Manifest, Node};
use crate::store::Store;

const RANGE_BYTES: u64 = 8 << 20;

/// Neighbouring chunks of one pack, read with one request.
pub(super) struct Range {
    pub(super) pack: ObjectKey,
    offset: u64,
    len: u64,
    pub(super) parts: Vec<Part>,
}

/// One chunk of a range and the entry it belongs to.
pub(super) struct Part {
    pub(super) entry: usize,
    pub(super) digest: Digest,
    pub(super) len: u32,
}

/// Joins chunks, in the order given, as long as they lie end to end.
struct Ranges<I> {
    chunks: I,
    begun: Option<Range>,
}

impl<'a, I: Iterator<Item = (usize, &'a ChunkRef)>> Iterator for Ranges<I> {
    type Item = Range;

    fn next(&mut self) -> Option<Range> {
        for (entry, chunk) in self.chunks.by_ref() {
            let part = Part { entry, digest: chunk.digest, len: chunk.len };
            if let Some(range) = &mut self.begun
                && range.pack == chunk.pack
                && range.offset + range.len == chunk.offset
                && range.len + u64::from(chunk.len) <= RANGE_BYTES
            {
                range.len += u64::from(chunk.len);
                range.parts.push(part);
                continue;
            }
            let pack = chunk.pack.clone();
            let fresh = Range { pack, offset: chunk.offset, len: u64::from(chunk.len), parts: vec![part] };
            if let Some(full) = self.begun.replace(fresh) {
                return Some(full);
            }
        }
        self.begun.take()
    }
}

/// The chunks in the order in which the tree is written.
fn in_order(manifest: &Manifest) -> impl Iterator<Item = Range> {
    let chunks = manifest.entries.iter().enumerate().flat_map(|(number, entry)| {
        let chunks: &[ChunkRef] = match &entry.node {
            Node::File { chunks, .. } => chunks,
            Node::Dir { .. } | Node::Symlink { .. } => &[],
        };
        chunks.iter().map(move |chunk| (number, chunk))
    });
    Ranges { chunks, begun: None }
}

async fn fetch(store: &dyn Store, range: Option<Range>) -> Result<Option<(Range, Vec<u8>)>, RestoreError> {
    let Some(range) = range else { return Ok(None) };
    let bytes = store.get(&range.pack, range.offset, range.len).await?;
    if bytes.len() as u64 != range.len {
        // The promise of `Store::get` is broken; the object may be whole.
        let detail = format!("{} of {} bytes came of `{}`", bytes.len(), range.len, range.pack);
        return Err(RestoreError::Remote(detail));
    }
    Ok(Some((range, bytes)))
}

impl Range {
    /// Hands each chunk to `each`, once its hash is right.
    pub(super) fn check(
        &self,
        bytes: &[u8],
        mut each: impl FnMut(&Part, &[u8]) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        let mut rest = bytes;
        for part in &self.parts {
            let (chunk, after) = rest.split_at_checked(part.len as usize).unwrap_or((rest, &[]));
            if Digest::of(chunk) != part.digest {
                let at = self.offset + (bytes.len() - rest.len()) as u64;
                let detail = format!("the {} bytes at {at} do not have digest {}", part.len, part.digest);
                return Err(RestoreError::Corrupt { key: self.pack.clone(), detail });
            }
            each(part, chunk)?;
            rest = after;
        }
        Ok(())
    }
}

/// Writes every chunk into `tree`, fetching the next range meanwhile.
pub(super) async fn pour(store: &dyn Store, manifest: &Manifest, tree: Tree) -> Result<(), RestoreError> {
    let shown = tree.shown().to_owned();
    let mut tree = tree;
    let mut ranges = in_order(manifest);
    let mut ready = fetch(store, ranges.next()).await?;
    while let Some((range, bytes)) = ready.take() {
        let writing = run(&shown, move || {
            range.check(&bytes, |part, chunk| tree.write(part.entry, chunk))?;
            Ok(tree)
        });
        let (written, fetched) = tokio::join!(writing, fetch(store, ranges.next()));
        // A damaged chunk outweighs a network that failed after it.
        tree = written?;
        ready = fetched?;
    }
    run(&shown, move || tree.finish()).await
}

/// Reads every chunk the tree needs, each once, and checks its hash.
pub async fn verify(store: &dyn Store, manifest: &Manifest) -> Result<Verified, RestoreError> {
    manifest.check()?;
    let mut chunks: Vec<&ChunkRef> = manifest.chunks().collect();
    chunks.sort_unstable_by(|a, b| (&a.pack, a.offset, a.len).cmp(&(&b.pack, b.offset, b.len)));
    chunks.dedup();
    let count = chunks.len() as u64;
    for range in (Ranges { chunks: chunks.into_iter().map(|chunk| (0, chunk)), begun: None }) {
        if let Some((range, bytes)) = fetch(store, Some(range)).await? {
            range.check(&bytes, |_, _| Ok(()))?;
        }
    }
    Ok(Verified {
        files: manifest.files(),
        bytes: manifest.total_bytes(),
        chunks: count,
        content_digest: manifest.content_digest(),
    })
}

/// Reads the files of a tree into memory, if together they have at most
/// `limit` bytes; no file system is touched.
pub async fn read_tree(
    store: &dyn Store,
    manifest: &Manifest,
    limit: u64,
) -> Result<Vec<(String, Vec<u8>)>, RestoreError> {
    manifest.check()?;
    let bytes = manifest.total_bytes();
    if bytes > limit {
        return Err(RestoreError::TooLarge { bytes, limit });
    }
    let mut contents = vec![Vec::new(); manifest.entries.len()];
    for range in in_order(manifest) {
        if let Some((range, bytes)) = fetch(store, Some(range)).await? {
            range.check(&bytes, |part, chunk| {
                contents[part.entry].extend_from_slice(chunk);
                Ok(())
            })?;
        }
    }
    let named = manifest.entries.iter().zip(contents);
    let files = named.filter(|(entry, _)| matches!(entry.node, Node::File { .. }));
    Ok(files.map(|(entry, content)| (entry.path.clone(), content)).collect())
}
