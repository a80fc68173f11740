//! Reads the chunks of a tree in large ranges, decodes them and checks every
//! hash. At most two ranges are in memory: the one being written and the one
//! under way.

use super::base::{self, Bases};
use super::{RestoreError, Verified, run, write::Tree};
use crate::codec::Coder;
use crate::digest::Digest;
use crate::key::ObjectKey;
use crate::manifest::{ChunkRef, Manifest, Node};
use crate::offload::aside;
use crate::seal::chunk::open;
use crate::store::Store;

/// Stored bytes of a range, and the plain bytes it may make: a megabyte of
/// zeros is a byte in a pack.
const RANGE_BYTES: u64 = 8 << 20;
const RANGE_PLAIN: u64 = 8 << 20;
const RANGE_PARTS: usize = 4096;

/// Chunks of one pack that are read with one request.
pub(super) struct Range {
    pack: ObjectKey,
    offset: u64,
    len: u64,
    plain: u64,
    parts: Vec<Part>,
}

/// One chunk of a range and the entry it belongs to.
struct Part {
    entry: usize,
    chunk: ChunkRef,
}

impl Range {
    fn begin(entry: usize, chunk: &ChunkRef) -> Self {
        let (offset, len, plain) = (chunk.offset, u64::from(chunk.stored), u64::from(chunk.len));
        Self {
            pack: chunk.pack.clone(),
            offset,
            len,
            plain,
            parts: vec![Part { entry, chunk: chunk.clone() }],
        }
    }

    /// Takes a chunk that lies in the range, or right behind it.
    fn join(&mut self, entry: usize, chunk: &ChunkRef) -> bool {
        let end = self.offset + self.len;
        let behind = chunk.offset == end && self.len + u64::from(chunk.stored) <= RANGE_BYTES;
        let within = chunk.offset >= self.offset && chunk.end() <= end;
        let room = self.plain + u64::from(chunk.len) <= RANGE_PLAIN && self.parts.len() < RANGE_PARTS;
        if chunk.pack != self.pack || !room || !(behind || within) {
            return false;
        }
        self.len = self.len.max(chunk.end() - self.offset);
        self.plain += u64::from(chunk.len);
        self.parts.push(Part { entry, chunk: chunk.clone() });
        true
    }
}

/// Joins chunks in the order given.
pub(super) struct Ranges<I> {
    chunks: I,
    begun: Option<Range>,
}

impl<'a, I: Iterator<Item = (usize, &'a ChunkRef)>> Ranges<I> {
    pub(super) const fn of(chunks: I) -> Self {
        Self { chunks, begun: None }
    }
}

impl<'a, I: Iterator<Item = (usize, &'a ChunkRef)>> Iterator for Ranges<I> {
    type Item = Range;

    fn next(&mut self) -> Option<Range> {
        for (entry, chunk) in self.chunks.by_ref() {
            if self.begun.as_mut().is_some_and(|range| range.join(entry, chunk)) {
                continue;
            }
            if let Some(full) = self.begun.replace(Range::begin(entry, chunk)) {
                return Some(full);
            }
        }
        self.begun.take()
    }
}

/// The chunks in the order in which the tree is written, but for the first
/// `kept` ones of each entry.
fn in_order(manifest: &Manifest, kept: &[usize]) -> impl Iterator<Item = Range> {
    let chunks = manifest.entries.iter().enumerate().flat_map(|(number, entry)| {
        let chunks: &[ChunkRef] = match &entry.node {
            Node::File { chunks, .. } => chunks,
            Node::Dir { .. } | Node::Symlink { .. } => &[],
        };
        let kept = kept.get(number).copied().unwrap_or_default();
        chunks.iter().skip(kept).map(move |chunk| (number, chunk))
    });
    Ranges::of(chunks)
}

pub(super) async fn fetch(
    store: &dyn Store,
    range: Option<Range>,
) -> Result<Option<(Range, Vec<u8>)>, RestoreError> {
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
    /// The numbers of the bases of its chunks.
    pub(super) fn bases(&self) -> impl Iterator<Item = u32> {
        self.parts.iter().filter_map(|part| part.chunk.base)
    }

    pub(super) fn digests(&self) -> impl Iterator<Item = Digest> {
        self.parts.iter().map(|part| part.chunk.digest)
    }

    /// Appends the plain bytes of all chunks, once each has its hash, and
    /// tells which entry gets how many.
    pub(super) fn decode(
        &self,
        coder: &mut Coder,
        bytes: &[u8],
        bases: &Bases,
        plain: &mut Vec<u8>,
    ) -> Result<Vec<(usize, usize)>, RestoreError> {
        let mut shares = Vec::with_capacity(self.parts.len());
        for Part { entry, chunk } in &self.parts {
            let corrupt = |detail| RestoreError::Corrupt { key: self.pack.clone(), detail };
            let (at, stored) = ((chunk.offset - self.offset) as usize, chunk.stored as usize);
            let place = || format!("the {stored} bytes at {}", chunk.offset);
            let stored = bytes.get(at..at + stored).unwrap_or_default();
            let (start, len) = (plain.len(), chunk.len as usize);
            let base = chunk.base.and_then(|number| bases.get(number));
            let coded = chunk.seal.as_ref().map(|seal| {
                open((&seal.name, &seal.key), (chunk.codec, chunk.len), stored)
                    .map_err(|error| corrupt(format!("{}: {error}", place())))
            });
            let coded = coded.transpose()?;
            let stored = coded.as_deref().unwrap_or(stored);
            let decoded = coder.decode(chunk.codec, stored, base, len, plain);
            decoded.map_err(|error| corrupt(format!("{}: {error}", place())))?;
            if Digest::of(&plain[start..]) != chunk.digest {
                return Err(corrupt(format!("{} do not have digest {}", place(), chunk.digest)));
            }
            shares.push((*entry, len));
        }
        Ok(shares)
    }
}

/// Plain bytes that may be written.
struct Plain {
    bytes: Vec<u8>,
    shares: Vec<(usize, usize)>,
}

/// What decodes one range while another is written, and room for the next: taken
/// anew each time, it is not given back by every allocator.
#[derive(Default)]
struct Decoder {
    coder: Coder,
    room: Vec<u8>,
}

/// Fetches a range and decodes it where that may block.
async fn ready(
    store: &dyn Store,
    manifest: &Manifest,
    range: Option<Range>,
    tree: &std::path::Path,
    mut decoder: Decoder,
) -> Result<(Option<Plain>, Decoder), RestoreError> {
    let Some((range, bytes)) = fetch(store, range).await? else { return Ok((None, decoder)) };
    let bases = base::of_range(store, &manifest.bases, &range).await?;
    run(tree, move || {
        let mut plain = std::mem::take(&mut decoder.room);
        plain.clear();
        plain.reserve_exact(range.plain as usize);
        let bases = Bases::decode(&mut decoder.coder, &bases)?;
        let shares = range.decode(&mut decoder.coder, &bytes, &bases, &mut plain)?;
        Ok((Some(Plain { bytes: plain, shares }), decoder))
    })
    .await
}

/// Writes every chunk into `tree`, fetching and decoding the next range
/// meanwhile.
pub(super) async fn pour(
    store: &dyn Store,
    manifest: &Manifest,
    tree: Tree,
    kept: &[usize],
) -> Result<(), RestoreError> {
    let shown = tree.shown().to_owned();
    let mut tree = tree;
    let mut ranges = in_order(manifest, kept);
    let (mut next, mut decoder) = ready(store, manifest, ranges.next(), &shown, Decoder::default()).await?;
    while let Some(Plain { bytes, shares }) = next.take() {
        let writing = run(&shown, move || {
            let mut rest = bytes.as_slice();
            for (entry, len) in shares {
                let (chunk, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
                tree.write(entry, chunk)?;
                rest = after;
            }
            Ok((tree, bytes))
        });
        let (written, fetched) =
            tokio::join!(writing, ready(store, manifest, ranges.next(), &shown, decoder));
        let room;
        (tree, room) = written?;
        (next, decoder) = fetched?;
        decoder.room = room;
    }
    run(&shown, move || tree.finish()).await
}

/// What decodes range after range.
#[derive(Default)]
struct Bench {
    coder: Coder,
    plain: Vec<u8>,
}

impl Bench {
    /// Reads a range into `plain` and checks it, not where others would wait:
    /// 8 MiB take tens of milliseconds.
    async fn read(
        mut self,
        store: &dyn Store,
        manifest: &Manifest,
        range: Range,
    ) -> Result<(Self, Vec<(usize, usize)>), RestoreError> {
        let Some((range, bytes)) = fetch(store, Some(range)).await? else { return Ok((self, Vec::new())) };
        let bases = base::of_range(store, &manifest.bases, &range).await?;
        let work = move || {
            self.plain.clear();
            let bases = Bases::decode(&mut self.coder, &bases)?;
            let shares = range.decode(&mut self.coder, &bytes, &bases, &mut self.plain)?;
            Ok((self, shares))
        };
        aside(work).await.map_err(|e| RestoreError::io(std::path::Path::new("decode"), e))?
    }
}

/// Reads every chunk the tree needs, each once, and checks its hash.
pub async fn verify(store: &dyn Store, manifest: &Manifest) -> Result<Verified, RestoreError> {
    manifest.check()?;
    let mut chunks: Vec<&ChunkRef> = manifest.chunks().collect();
    fn place(c: &ChunkRef) -> (&ObjectKey, u64, u32, u32, crate::codec::Codec, Digest, Option<u32>) {
        (&c.pack, c.offset, c.stored, c.len, c.codec, c.digest, c.base)
    }
    chunks.sort_unstable_by(|a, b| place(a).cmp(&place(b)));
    chunks.dedup();
    let count = chunks.len() as u64;
    let mut bench = Bench::default();
    for range in Ranges::of(chunks.into_iter().map(|chunk| (0, chunk))) {
        (bench, _) = bench.read(store, manifest, range).await?;
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
    let mut bench = Bench::default();
    for range in in_order(manifest, &[]) {
        let shares;
        (bench, shares) = bench.read(store, manifest, range).await?;
        let mut rest = 0;
        for (entry, len) in shares {
            contents[entry].extend_from_slice(&bench.plain[rest..rest + len]);
            rest += len;
        }
    }
    let named = manifest.entries.iter().zip(contents);
    let files = named.filter(|(entry, _)| matches!(entry.node, Node::File { .. }));
    Ok(files.map(|(entry, content)| (entry.path.clone(), content)).collect())
}
