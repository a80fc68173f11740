//! What a publish takes of the machine's memory, whatever the tree.

use super::flight::Flight;
use super::pack::Batch;
use super::*;
use crate::chunk::few;
use crate::index::MemoryIndex;
use crate::store::{MemoryStore, StoreError};

/// The most memory this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// As many chunks as a quarter of a terabyte of opaque files has, and a few large
/// ones among them: what counts is how many there are.
struct Many {
    left: u64,
}

#[async_trait]
impl Pieces for Many {
    async fn next(&mut self) -> Result<Vec<Piece>, PublishError> {
        let mut batch = Batch::default();
        while self.left > 0 && !batch.full() {
            self.left -= 1;
            if self.left.is_multiple_of(50_000) {
                batch.add(0, vec![self.left as u8; MAX], None);
            } else {
                batch.add(0, (self.left | 1 << 40).to_le_bytes().to_vec(), None);
            }
        }
        Ok(batch.into_pieces())
    }
}

/// Takes whatever it is given.
struct Hole;

#[async_trait]
impl Store for Hole {
    async fn put_if_absent(&self, _: &ObjectKey, _: &[u8]) -> Result<Put, StoreError> {
        Ok(Put::Created)
    }
    async fn get(&self, key: &ObjectKey, _: u64, _: u64) -> Result<Vec<u8>, StoreError> {
        Err(StoreError::Missing(key.clone()))
    }
    async fn size(&self, _: &ObjectKey) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }
    async fn list(&self, _: &str) -> Result<Vec<ObjectKey>, StoreError> {
        Ok(Vec::new())
    }
    async fn delete(&self, _: &ObjectKey) -> Result<bool, StoreError> {
        Ok(false)
    }
}

/// Publishes what was packed as one file.
async fn one_file(packer: Packer<'_>, size: u64) -> Published {
    let about = About {
        kind: Kind::Checkpoint,
        step: Some(1),
        name: String::new(),
        single_file: false,
        created_ms: 1,
    };
    let found = vec![("state.bin".to_owned(), Found::File { mode: 0o644, size, mtime_ms: 1 })];
    finish(packer, about, found).await.unwrap()
}

#[tokio::test]
async fn a_quarter_of_a_terabyte_is_published_in_96_mib() {
    let before = peak_kib();
    let mut keys = KeySpace { scope: "run".into(), generation: 1, pack_seq: 0, manifest_seq: 0 };
    let count = few(256 << 30);
    let index = MemoryIndex::default();
    let mut packer = Packer::new(&mut keys, &Hole, &index, Where::Aside);
    packer.drain(&mut Many { left: count }).await.unwrap();
    let large = count.div_ceil(50_000);
    let size = (count - large) * 8 + large * MAX as u64;
    let published = one_file(packer, size).await;
    assert_eq!(published.total_bytes, size);
    let took = peak_kib() - before;
    println!("{count} chunks: {took} KiB");
    assert!(took < 96 << 10, "{took} KiB for {count} chunks");
}

/// A number that was taken and bytes that were there cost a round trip and
/// say nothing of how fast bytes travel.
#[tokio::test]
async fn only_bytes_that_travelled_tell_how_fast_the_link_is() {
    let store = MemoryStore::default();
    for (pack, counts) in [(b"one", true), (b"one", false), (b"two", false)] {
        let next = ("run".to_owned(), 1, 0);
        let mut flight = Flight::begin(&store, next, (pack.to_vec(), Vec::new()), true);
        let landed = flight.land().await.unwrap();
        assert_eq!(landed.took.is_some(), counts);
        let number = if pack == b"two" { 1 } else { 0 };
        assert_eq!(landed.outcome.unwrap(), ObjectKey::pack("run", 1, number).unwrap());
        assert_eq!(landed.next, number + 1);
    }
}

/// The same chunk, over and over, as the holes of a file have it.
struct Same(usize);

#[async_trait]
impl Pieces for Same {
    async fn next(&mut self) -> Result<Vec<Piece>, PublishError> {
        let mut batch = Batch::default();
        while !batch.full() && self.0 > 0 {
            self.0 -= 1;
            batch.add(0, b"the same".to_vec(), None);
        }
        Ok(batch.into_pieces())
    }
}

#[tokio::test]
async fn a_chunk_that_occurs_often_is_charged_as_it_is_written_down() {
    use crate::seal::{Keyring, PrivateKey, ProjectSecret, Sealed, Sealing};
    let (store, index) = (MemoryStore::default(), MemoryIndex::default());
    let own = PrivateKey::generate().unwrap();
    let to = [own.public().unwrap()];
    let sealing = Arc::new(Sealing::new(&ProjectSecret::from_bytes([1; 32]), &to).unwrap());
    let mut keys = KeySpace { scope: "run".into(), generation: 1, pack_seq: 0, manifest_seq: 0 };
    // As distinct chunks they would take more than a manifest may.
    let count = MAX_BYTES as usize / seal::LEAST_PER_CHUNK as usize + 50_000;
    let mut packer = Packer::new(&mut keys, &store, &index, Where::Here).with(None, Some(sealing.clone()));
    packer.drain(&mut Same(count)).await.unwrap();
    let size = count as u64 * 8;
    let published = one_file(packer, size).await;
    let key = published.manifest_key;
    let length = store.size(&key).await.unwrap().unwrap();
    assert!(length < 4 << 20, "{length}");
    let sealed = Sealed::parse(&store.get(&key, 0, length).await.unwrap()).unwrap();
    let mut ring = Keyring::default();
    ring.add_private(own).unwrap();
    assert_eq!(ring.open(&key, &sealed).unwrap().total_bytes(), size);
    // And what no reader would take is refused before all of it was read.
    let mut packer = Packer::new(&mut keys, &store, &index, Where::Here).with(None, Some(sealing));
    let refused = packer.drain(&mut Same(MAX_BYTES as usize)).await.unwrap_err();
    assert!(matches!(refused, PublishError::Manifest(ManifestError::TooLarge(_))), "{refused}");
}

#[test]
fn holes_are_not_charged_as_chunks_of_their_own_before_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.bin");
    let size = 400 << 30;
    assert!(few(size) * seal::LEAST_PER_CHUNK > MAX_BYTES);
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    let selection = Selection::checkpoint(&path, Some(1), 1).unwrap();
    assert!(Scan::open(&selection, seal::LEAST_PER_CHUNK).is_ok());
}
