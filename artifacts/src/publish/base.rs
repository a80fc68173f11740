//! A checkpoint whose bytes this machine keeps, so that later ones can be
//! stored as their differences to it. The copy is the agent's own: a program
//! rotates its saves away, or writes over them. Nothing here is believed: a
//! chunk is a base only if its bytes still have their hash, and where they lie
//! in the store is the index's to say when it is used.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::beneath::{Beneath, Opened};
use crate::chunk::{WHOLE, outline};
use crate::codec::Codec;
use crate::digest::Digest;
use crate::index::Location;
use crate::manifest::{ChunkRef, Entry, MAX_BYTES, Manifest, Node};
use crate::seal::Sealing;

/// Shorter chunks are not worth another one that must be there to restore them.
const LEAST: u32 = 64 << 10;
/// Chunks of one keyframe, at most: their places are in memory, and a line of
/// each is in every manifest that needs it.
const MOST: usize = 1 << 16;
/// The description of what was copied; it comes to be when all else is there.
const TREE: &str = "tree.json";

/// Where in a file a chunk begins, however long what lies before it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Spot {
    record: u32,
    offset: u64,
}

/// The records of one file.
struct Records {
    records: Vec<Range<u64>>,
    size: u64,
}

impl Records {
    /// What begins `at` bytes in; `None` for what is cut by content, which is
    /// cut elsewhere in the next save.
    fn spot(&self, at: u64) -> Option<Spot> {
        if self.size <= WHOLE as u64 {
            return (at == 0).then_some(Spot { record: 0, offset: 0 });
        }
        let after = self.records.partition_point(|record| record.start <= at);
        let record = after.checked_sub(1).and_then(|number| self.records.get(number))?;
        (at < record.end).then(|| Spot { record: after as u32, offset: at - record.start })
    }
}

/// A chunk that may be a base.
#[derive(Debug, Clone, Copy)]
struct Held {
    digest: Digest,
    at: u64,
    len: u32,
}

/// A file of the keyframe.
#[derive(Debug)]
struct Copied {
    file: File,
    held: HashMap<Spot, Held>,
}

/// Where the keyframe holds a chunk that may be the base of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kin {
    pub(super) digest: Digest,
    file: u32,
    spot: Spot,
}

/// A chunk that is in the store as a difference.
#[derive(Debug, Clone)]
struct Known {
    place: Location,
    /// The base, and where that is.
    base: (Digest, Location),
}

/// An earlier checkpoint, kept on this machine.
#[derive(Debug)]
pub struct Keyframe {
    dir: PathBuf,
    step: Option<u64>,
    /// By path, in the order of paths.
    files: Vec<(String, Copied)>,
    /// Chunks of the last checkpoint that was stored as differences: the same
    /// bytes under another name need not be sent again.
    since: Mutex<HashMap<Digest, Known>>,
}

/// How many bytes a chunk takes, and how it is coded.
pub(super) type Coded = (Codec, u32);

/// What chunks took that had a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Against {
    /// What their bases take in the store: about what they would alone.
    pub alone: u64,
    /// What they take.
    pub stored: u64,
}

/// A path without its numbers, which rise with every save.
fn folded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for letter in path.chars() {
        match letter {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            other => out.push(other),
        }
    }
    out
}

/// For each path of a tree which of the others stands for the same thing: the
/// same one, or the one whose place is the same among as many that differ by
/// numbers alone.
fn kin(paths: &[&str], others: &[&str]) -> Vec<Option<u32>> {
    if paths.len() == 1 && others.len() == 1 {
        return vec![Some(0)];
    }
    let same: HashMap<&str, u32> = others.iter().copied().zip(0..).collect();
    let mut groups: HashMap<String, Vec<u32>> = HashMap::new();
    for (path, number) in others.iter().zip(0..) {
        groups.entry(folded(path)).or_default().push(number);
    }
    let mut counts: HashMap<String, usize> = HashMap::new();
    paths.iter().for_each(|path| *counts.entry(folded(path)).or_default() += 1);
    let mut passed: HashMap<String, usize> = HashMap::new();
    let found = paths.iter().map(|path| {
        let fold = folded(path);
        let group = groups.get(&fold).filter(|group| Some(&group.len()) == counts.get(&fold));
        let place = passed.entry(fold).or_default();
        *place += 1;
        same.get(path).copied().or_else(|| group?.get(*place - 1).copied())
    });
    found.collect()
}

/// The files of a tree that could hold a base.
fn fit(manifest: &Manifest) -> impl Iterator<Item = (&str, u64, &[ChunkRef])> {
    manifest.entries.iter().filter_map(|entry| match &entry.node {
        Node::File { size, chunks, .. } if *size >= u64::from(LEAST) => {
            Some((entry.path.as_str(), *size, chunks.as_slice()))
        }
        _ => None,
    })
}

impl Keyframe {
    /// Bytes that a keyframe of this tree may take on the disk.
    #[must_use]
    pub fn room_for(manifest: &Manifest) -> u64 {
        fit(manifest).map(|(_, size, _)| size).sum()
    }

    /// Copies what may hold bases of a tree that was published from `root` into
    /// `dir`, which must not exist; it shares blocks with the files where the
    /// file system can. A tree without records makes none. Blocks.
    pub fn take(root: &Path, manifest: &Manifest, dir: &Path) -> io::Result<Option<Self>> {
        if manifest.chunks().any(|chunk| chunk.base.is_some()) {
            return Err(io::Error::other("a checkpoint of differences is no base"));
        }
        fs::DirBuilder::new().mode(0o700).create(dir)?;
        let taken = copy(root, manifest, dir);
        if !matches!(taken, Ok(Some(_))) {
            drop(fs::remove_dir_all(dir));
        }
        taken
    }

    /// The keyframe that an earlier process left in `dir`, if it is whole.
    /// Blocks.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(dir.join(TREE))?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        let manifest = Manifest::parse(&bytes).map_err(io::Error::other)?;
        let mut files = Vec::new();
        for (number, (path, size, chunks)) in fit(&manifest).enumerate() {
            let Ok(file) = File::open(dir.join(number.to_string())) else { continue };
            if let Some(copied) = copied(file, size, chunks) {
                files.push((path.to_owned(), copied));
            }
        }
        Ok(Self { dir: dir.to_owned(), step: manifest.step, files, since: Mutex::default() })
    }

    /// Bytes that it takes on the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().filter_map(|(_, copied)| Some(copied.file.metadata().ok()?.len())).sum()
    }

    /// The step it was saved at, where known.
    #[must_use]
    pub const fn step(&self) -> Option<u64> {
        self.step
    }

    /// Removes it from the disk. Blocks.
    pub fn discard(&self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::debug!(dir = %self.dir.display(), %error, "a keyframe could not be removed");
        }
    }

    /// What was stored as differences and is durable, for the next to find.
    pub fn remember(&self, published: &Manifest) {
        let known = published.chunks().filter_map(|chunk| {
            let base = published.bases.get(chunk.base? as usize)?;
            Some((chunk.digest, Known { place: chunk.place(), base: (base.digest, base.place()) }))
        });
        *self.lock() = known.collect();
    }

    /// Nobody knows what became of what was stored.
    pub fn forget(&self) {
        self.lock().clear();
    }

    fn known(&self, digest: &Digest) -> Option<Known> {
        self.lock().get(digest).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Known>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which of its files stand for those of a later tree.
    fn kin(&self, paths: &[&str]) -> Vec<Option<u32>> {
        let others: Vec<&str> = self.files.iter().map(|(path, _)| path.as_str()).collect();
        kin(paths, &others)
    }

    /// The chunk at a spot of one of its files.
    fn find(&self, file: u32, spot: Spot, len: usize) -> Option<Kin> {
        let held = self.files.get(file as usize)?.1.held.get(&spot)?;
        (held.len as usize == len).then_some(Kin { digest: held.digest, file, spot })
    }

    /// Reads a chunk, if it still is what it was. Blocks.
    pub(super) fn read(&self, kin: Kin, bytes: &mut Vec<u8>) -> bool {
        let copied = self.files.get(kin.file as usize).map(|(_, copied)| copied);
        let Some((copied, held)) = copied.and_then(|copied| Some((copied, copied.held.get(&kin.spot)?)))
        else {
            return false;
        };
        bytes.resize(held.len as usize, 0);
        copied.file.read_exact_at(bytes, held.at).is_ok() && Digest::of(bytes) == kin.digest
    }
}

fn copy(root: &Path, manifest: &Manifest, dir: &Path) -> io::Result<Option<Keyframe>> {
    let mut dirs = Beneath::open(root)?;
    let (mut files, mut count) = (Vec::new(), 0);
    for (number, (path, size, chunks)) in fit(manifest).enumerate() {
        let Opened::Node(mut from) = dirs.node(path)? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        // Before it is copied: what holds no base takes no room.
        if copied(from.try_clone()?, size, chunks).is_none() {
            continue;
        }
        let place = dir.join(number.to_string());
        let written = io::copy(&mut from, &mut File::create_new(&place)?)?;
        if written != size {
            return Err(io::Error::other(format!("`{path}` changed while it was copied")));
        }
        if let Some(copied) = copied(File::open(&place)?, size, chunks) {
            count += copied.held.len();
            files.push((path.to_owned(), copied));
        }
        if count > MOST {
            return Ok(None);
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    fs::write(dir.join(TREE), bare(manifest).to_bytes())?;
    Ok(Some(Keyframe { dir: dir.to_owned(), step: manifest.step, files, since: Mutex::default() }))
}

/// The tree without any key, and without what the store knows of it: nothing of
/// a sealed one but what is beside this file anyway may stay on the machine.
fn bare(manifest: &Manifest) -> Manifest {
    let chunk = |chunk: &ChunkRef| ChunkRef {
        stored: chunk.len,
        codec: Codec::Raw,
        offset: 0,
        base: None,
        seal: None,
        ..chunk.clone()
    };
    let entries = manifest.entries.iter().map(|entry| Entry {
        path: entry.path.clone(),
        node: match &entry.node {
            Node::File { mode, size, mtime_ms, chunks } => Node::File {
                mode: *mode,
                size: *size,
                mtime_ms: *mtime_ms,
                chunks: chunks.iter().map(chunk).collect(),
            },
            other => other.clone(),
        },
    });
    Manifest {
        version: 1,
        kind: manifest.kind,
        step: manifest.step,
        name: manifest.name.clone(),
        single_file: manifest.single_file,
        created_ms: manifest.created_ms,
        bases: Vec::new(),
        entries: entries.collect(),
    }
}

fn copied(file: File, size: u64, chunks: &[ChunkRef]) -> Option<Copied> {
    let records = Records { records: outline(&file, size), size };
    let (mut held, mut at) = (HashMap::new(), 0);
    for chunk in chunks {
        if let Some(spot) = records.spot(at).filter(|_| chunk.len >= LEAST) {
            held.insert(spot, Held { digest: chunk.digest, at, len: chunk.len });
        }
        at += u64::from(chunk.len);
    }
    (!held.is_empty()).then_some(Copied { file, held })
}

/// Which files of a keyframe stand for those of a tree that is being read.
#[derive(Default)]
pub(super) struct Relations {
    keyframe: Option<Arc<Keyframe>>,
    files: HashMap<String, u32>,
}

impl Relations {
    pub(super) fn of(keyframe: Arc<Keyframe>, paths: &[&str]) -> Self {
        let kin = keyframe.kin(paths);
        let files = paths.iter().zip(kin).filter_map(|(path, file)| Some(((*path).to_owned(), file?)));
        Self { files: files.collect(), keyframe: Some(keyframe) }
    }

    /// For the chunks of one file, in order.
    pub(super) fn file(&self, path: &str, records: &[Range<u64>], size: u64) -> Option<Related> {
        let (keyframe, file) = (self.keyframe.clone()?, *self.files.get(path)?);
        Some(Related { keyframe, file, records: Records { records: records.to_vec(), size }, at: 0 })
    }
}

/// A file that is being read beside its kin in the keyframe.
pub(super) struct Related {
    keyframe: Arc<Keyframe>,
    file: u32,
    records: Records,
    at: u64,
}

impl Related {
    /// What the next chunk may be a difference to.
    pub(super) fn next(&mut self, len: usize) -> Option<Kin> {
        let spot = self.records.spot(self.at);
        self.at += len as u64;
        self.keyframe.find(self.file, spot?, len)
    }
}

/// What one publish comes to know of bases.
#[derive(Default)]
pub(super) struct Lineage {
    keyframe: Option<Arc<Keyframe>>,
    /// Where bases lie: the index says so, or a manifest that is durable.
    places: HashMap<Digest, Location>,
    /// The base of each difference.
    of: HashMap<Digest, Digest>,
    against: Against,
    /// The table that is being made, and the numbers in it.
    table: Vec<ChunkRef>,
    numbers: HashMap<Digest, u32>,
}

impl Lineage {
    pub(super) fn of(keyframe: Option<Arc<Keyframe>>) -> Self {
        Self { keyframe, ..Self::default() }
    }

    /// Where a chunk lies that was stored as a difference before.
    pub(super) fn known(&mut self, digest: &Digest) -> Option<Location> {
        let Known { place, base: (base, at) } = self.keyframe.as_ref()?.known(digest)?;
        self.places.entry(base).or_insert(at);
        self.of.insert(*digest, base);
        Some(place)
    }

    /// Whether it is known where a base lies.
    pub(super) fn has(&self, base: &Digest) -> bool {
        self.places.contains_key(base)
    }

    /// Takes note of where a base lies. A difference is none.
    pub(super) fn found(&mut self, base: Digest, at: &Location) {
        if at.codec != Codec::Delta {
            self.places.entry(base).or_insert_with(|| at.clone());
        }
    }

    /// Takes note of what was stored beside its base.
    pub(super) fn coded(&mut self, related: impl Iterator<Item = (Digest, Digest, Coded)>) {
        for (digest, base, (codec, stored)) in related {
            self.against.alone += self.places.get(&base).map_or(0, |at| u64::from(at.stored));
            self.against.stored += u64::from(stored);
            if codec == Codec::Delta {
                self.of.insert(digest, base);
            }
        }
    }

    pub(super) const fn against(&self) -> Against {
        self.against
    }

    /// Gives a chunk that is a difference its base.
    pub(super) fn related(&mut self, mut chunk: ChunkRef, sealing: Option<&Sealing>) -> ChunkRef {
        if chunk.codec != Codec::Delta {
            return chunk;
        }
        let base = self.of.get(&chunk.digest);
        let Some((digest, at)) = base.and_then(|base| Some((base, self.places.get(base)?))) else {
            return chunk;
        };
        let next = self.table.len() as u32;
        let number = *self.numbers.entry(*digest).or_insert(next);
        if number == next {
            self.table.push(at.clone().chunk(*digest, sealing));
        }
        chunk.base = Some(number);
        chunk
    }

    /// The bases that chunks were given.
    pub(super) fn into_bases(self) -> Vec<ChunkRef> {
        self.table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_later_save_find_their_kin() {
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [Option<u32>]);
        let cases: [Case<'_>; 6] = [
            (&["step-100.pt"], &["step-20.pt"], &[Some(0)]),
            (&["last.ckpt"], &["epoch=1-step=20.ckpt"], &[Some(0)]),
            (
                &["global_step10/rank_00.pt", "global_step10/rank_01.pt", "rng_1.pth"],
                &["global_step9/rank_00.pt", "global_step9/rank_01.pt", "rng_1.pth"],
                &[Some(0), Some(1), Some(2)],
            ),
            // Another count: nobody knows which is which.
            (&["s10/r0", "s10/r1", "x"], &["s9/r0", "x"], &[None, None, Some(1)]),
            (&["a", "b"], &["c", "d"], &[None, None]),
            (&["a", "b"], &[], &[None, None]),
        ];
        for (paths, others, expected) in cases {
            assert_eq!(kin(paths, others), expected, "{paths:?}");
        }
    }
}
