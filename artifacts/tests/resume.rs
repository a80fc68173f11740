//! What was cut short goes on where it was: neither a publish nor a restore
//! moves the same bytes twice.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use artifacts::codec::Codec;
use artifacts::index::{MemoryIndex, Plain, Resuming, Unfinished};
use artifacts::restore::{RestoreError, restore, restore_over, verify};
use artifacts::store::MemoryStore;
use artifacts::store::memory::Fault;
use artifacts::{
    ChunkIndex, Digest, KeySpace, Location, Manifest, ObjectKey, Put, Selection, Store, StoreError, publish,
};
use tokio::sync::Notify;

const PACK: u64 = 8 << 20;

fn keys() -> KeySpace {
    KeySpace { scope: "run".into(), generation: 1, pack_seq: 0, manifest_seq: 0 }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn whole(path: &Path) -> Selection {
    Selection::checkpoint(path, Some(7), 5).unwrap()
}

/// Counts what is put and what is got.
#[derive(Default)]
struct Counting {
    store: MemoryStore,
    put: AtomicU64,
    got: AtomicU64,
    /// Reads still answered.
    reads: AtomicUsize,
}

#[async_trait::async_trait]
impl Store for Counting {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        self.put.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.store.put_if_absent(key, bytes).await
    }
    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        if self.reads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
        {
            return Err(StoreError::Remote("cut off".into()));
        }
        self.got.fetch_add(len, Ordering::Relaxed);
        self.store.get(key, offset, len).await
    }
    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.store.size(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        self.store.list(prefix).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.store.delete(key).await
    }
}

fn counting() -> Counting {
    Counting { reads: AtomicUsize::new(usize::MAX), ..Counting::default() }
}

#[tokio::test]
async fn a_publish_that_was_cut_short_sends_at_most_one_pack_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("step-7");
    fs::create_dir(&root).unwrap();
    for number in 0..12 {
        fs::write(root.join(format!("shard-{number}")), noise(number, 8 << 20)).unwrap();
    }
    let total = 12 * PACK;
    for (restarted, fault) in [(false, Fault::Remote), (false, Fault::AnswerLost), (true, Fault::AnswerLost)]
    {
        let (store, index) = (counting(), MemoryIndex::default());
        // An earlier checkpoint of the same generation, committed.
        fs::write(dir.path().join("early.bin"), noise(99, 100_000)).unwrap();
        let mut keys = keys();
        let early = publish(&whole(&dir.path().join("early.bin")), &mut keys, &store, &index).await.unwrap();
        store.put.store(0, Ordering::Relaxed);
        store.store.fail_puts(7, 1, fault);
        let mut left = Unfinished::default();
        let cut = publish(&whole(&root), &mut keys, &store, &Resuming { index: &index, left: &left }).await;
        assert!(cut.is_err(), "the eighth pack is not stored");
        let before = store.put.load(Ordering::Relaxed);
        assert!(before >= 7 * (PACK - (2 << 20)) && before < total, "{before}");
        if restarted {
            // The agent is another; the store is asked.
            let read = store.got.load(Ordering::Relaxed);
            left = Unfinished::recall(&store, "run", 1).await.unwrap();
            assert!(store.got.load(Ordering::Relaxed) - read < 1 << 20, "only the ends of packs are read");
            let used = store.list("run/g0000000000000001/p").await.unwrap();
            keys.pack_seq = used.last().unwrap().seq().unwrap().1 + 1;
        }
        assert!(!left.is_empty());
        let index = Resuming { index: &index, left: &left };
        let done = publish(&whole(&root), &mut keys, &store, &index).await.unwrap();
        assert!(left.is_empty(), "the manifest is there");
        // Indexes of packs, and the manifest.
        let beside = 512 << 10;
        let again = store.put.load(Ordering::Relaxed) - total;
        assert!(again <= PACK + beside, "{again} bytes of {total} were sent again ({restarted}, {fault:?})");
        assert_eq!(verify(&store, &done.manifest).await.unwrap().bytes, total);
        assert_eq!(verify(&store, &early.manifest).await.unwrap().bytes, 100_000);
    }
}

#[tokio::test]
async fn a_manifest_that_could_not_be_put_costs_no_pack() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("step-7.bin");
    fs::write(&path, noise(1, 3 << 20)).unwrap();
    let (store, index, left) = (counting(), MemoryIndex::default(), Unfinished::default());
    let index = Resuming { index: &index, left: &left };
    let mut keys = keys();
    store.store.fail_puts(1, 1, Fault::Remote);
    assert!(publish(&whole(&path), &mut keys, &store, &index).await.is_err());
    assert_eq!(publish(&whole(&path), &mut keys, &store, &index).await.unwrap().sent_bytes, 0);
}

/// A store whose first put waits until the index was asked about what is to
/// be coded after it.
struct Slow {
    store: MemoryStore,
    asked: AtomicUsize,
    heard: Notify,
    puts: AtomicUsize,
}

#[async_trait::async_trait]
impl Store for Slow {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        if self.puts.fetch_add(1, Ordering::Relaxed) == 0 {
            let enough = self.asked.load(Ordering::Relaxed) + 1;
            while self.asked.load(Ordering::Relaxed) < enough {
                self.heard.notified().await;
            }
        }
        self.store.put_if_absent(key, bytes).await
    }
    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.store.get(key, offset, len).await
    }
    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.store.size(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        self.store.list(prefix).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.store.delete(key).await
    }
}

#[async_trait::async_trait]
impl ChunkIndex for Slow {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.heard.notify_one();
        Ok(vec![None; digests.len()])
    }
}

#[tokio::test]
async fn a_pack_is_on_its_way_while_the_next_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("step-7.bin");
    fs::write(&path, noise(1, 20 << 20)).unwrap();
    let slow = Slow {
        store: MemoryStore::default(),
        asked: AtomicUsize::new(0),
        heard: Notify::new(),
        puts: AtomicUsize::new(0),
    };
    // One after the other this would wait for ever.
    let (selection, mut keys) = (whole(&path), keys());
    let publishing = publish(&selection, &mut keys, &slow, &slow);
    let done = tokio::time::timeout(std::time::Duration::from_secs(120), publishing).await;
    assert_eq!(done.unwrap().unwrap().total_bytes, 20 << 20);
    assert!(slow.puts.load(Ordering::Relaxed) >= 4);
}

fn codecs(manifest: &Manifest) -> Vec<Codec> {
    let mut found = Vec::new();
    for entry in &manifest.entries {
        if let artifacts::manifest::Node::File { chunks, .. } = &entry.node {
            found.extend(chunks.iter().map(|chunk| chunk.codec));
        }
    }
    found
}

/// Numbers that every codec makes smaller.
fn sparse(len: usize) -> Vec<u8> {
    let mut bytes = noise(3, len);
    for row in bytes.chunks_mut(3072).step_by(2) {
        row.fill(0);
    }
    bytes
}

#[tokio::test]
async fn a_store_faster_than_the_core_gets_lz4_and_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("step-7.bin");
    fs::write(&path, sparse(40 << 20)).unwrap();
    // Memory is faster than any coder; but a put in whose middle others had the
    // core looks like a slow link.
    let mut tries = 0;
    let (store, published) = loop {
        let store = MemoryStore::default();
        let published = publish(&whole(&path), &mut keys(), &store, &MemoryIndex::default()).await.unwrap();
        let used = codecs(&published.manifest);
        if used.contains(&Codec::Lz4) {
            break (store, published);
        }
        tries += 1;
        assert!(tries < 20, "memory is taken for slower than a coder each time: {used:?}");
    };
    restore(&store, &published.manifest, &dir.path().join("back")).await.unwrap();
    assert!(fs::read(dir.path().join("back")).unwrap() == fs::read(&path).unwrap());
}

#[tokio::test]
async fn what_every_version_must_read_is_plain_and_of_version_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent");
    fs::write(&path, sparse(3 << 20)).unwrap();
    let (store, known) = (MemoryStore::default(), MemoryIndex::default());
    let coded = publish(&whole(&path), &mut keys(), &store, &known).await.unwrap();
    assert_eq!(coded.manifest.version, 2);
    known.add(&coded.manifest);
    let mut keys = KeySpace { generation: 2, ..keys() };
    let plain = publish(&whole(&path), &mut keys, &store, &Plain(&known)).await.unwrap();
    assert_eq!(plain.manifest.version, 1);
    assert!(codecs(&plain.manifest).iter().all(|codec| *codec == Codec::Raw), "also what is known");
    assert_eq!(plain.content_digest, coded.content_digest);
    verify(&store, &plain.manifest).await.unwrap();
    // And so is what needs no codec, whoever is to read it.
    fs::write(&path, noise(5, 3 << 20)).unwrap();
    let noise = publish(&whole(&path), &mut keys, &store, &known).await.unwrap();
    assert_eq!(noise.manifest.version, 1);
}

#[tokio::test]
async fn an_interrupted_restore_goes_on_and_fetches_nothing_twice() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("step-7");
    fs::create_dir_all(root.join("sub")).unwrap();
    for number in 0..5 {
        fs::write(root.join(format!("sub/shard-{number}")), noise(number, 6 << 20)).unwrap();
    }
    fs::write(root.join("large"), noise(77, 30 << 20)).unwrap();
    fs::set_permissions(root.join("large"), fs::Permissions::from_mode(0o400)).unwrap();
    symlink("sub/shard-1", root.join("link")).unwrap();
    let store = Arc::new(counting());
    let manifest =
        publish(&whole(&root), &mut keys(), &*store, &MemoryIndex::default()).await.unwrap().manifest;
    let dest = dir.path().join("back/step-7");
    let total = manifest.total_bytes();
    let mut tries = 0;
    loop {
        tries += 1;
        store.reads.store(3, Ordering::Relaxed);
        match restore(&*store, &manifest, &dest).await {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, RestoreError::Remote(_)), "{error}"),
        }
        assert!(!dest.exists(), "whole or not at all");
        assert!(tries < 9, "each try gets further");
    }
    assert!(tries > 2, "it was interrupted");
    let got = store.got.load(Ordering::Relaxed);
    // A range that came and was not written when another one failed.
    assert!(got <= total + (tries - 1) * 2 * PACK && got < total + total / 2, "{got} of {total} in {tries}");
    let same = std::process::Command::new("diff").arg("-r").args([&root, &dest]).status().unwrap();
    assert!(same.success());
    assert_eq!(fs::metadata(dest.join("large")).unwrap().permissions().mode() & 0o777, 0o400);
    assert_eq!(fs::read_dir(dest.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
}

#[tokio::test]
async fn what_was_left_counts_only_if_it_has_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("step-7");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("a"), noise(1, 4 << 20)).unwrap();
    fs::write(root.join("b"), noise(2, 12 << 20)).unwrap();
    let store = counting();
    let manifest =
        publish(&whole(&root), &mut keys(), &store, &MemoryIndex::default()).await.unwrap().manifest;
    let above = dir.path().join("back");
    let dest = above.join("step-7");
    let left = || {
        let mut found = fs::read_dir(&above).unwrap().flatten().map(|entry| entry.path());
        found.next().unwrap()
    };
    // Damaged bytes, a stranger, a link to elsewhere, a second name: all of
    // it is replaced, and nothing outside is touched.
    let outside = dir.path().join("outside");
    let damages: [&dyn Fn(&Path); 4] = [
        &|left| {
            let mut bytes = fs::read(left.join("a")).unwrap();
            bytes[3 << 20] ^= 1;
            fs::write(left.join("a"), bytes).unwrap();
        },
        &|left| fs::write(left.join("stranger"), b"x").unwrap(),
        &|left| {
            fs::remove_file(left.join("a")).unwrap();
            std::os::unix::fs::symlink(&outside, left.join("a")).unwrap();
        },
        &|left| {
            fs::remove_file(left.join("a")).unwrap();
            fs::hard_link(&outside, left.join("a")).unwrap();
        },
    ];
    for damage in damages {
        fs::write(&outside, noise(1, 2 << 20)).unwrap();
        store.reads.store(2, Ordering::Relaxed);
        assert!(restore(&store, &manifest, &dest).await.is_err());
        damage(&left());
        store.reads.store(usize::MAX, Ordering::Relaxed);
        restore(&store, &manifest, &dest).await.unwrap();
        let same = std::process::Command::new("diff").arg("-r").args([&root, &dest]).status().unwrap();
        assert!(same.success());
        assert_eq!(fs::read(&outside).unwrap(), noise(1, 2 << 20));
        fs::remove_dir_all(&above).unwrap();
    }
}

#[tokio::test]
async fn restoring_over_fetches_only_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (root, to) = (dir.path().join("step-7"), dir.path().join("to"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&to).unwrap();
    for name in ["same", "other", "gone"] {
        fs::write(root.join(name), noise(name.len() as u64, 2 << 20)).unwrap();
    }
    let store = counting();
    let manifest =
        publish(&whole(&root), &mut keys(), &store, &MemoryIndex::default()).await.unwrap().manifest;
    restore_over(&store, &manifest, &to).await.unwrap();
    fs::write(to.join("other"), noise(1, 2 << 20)).unwrap();
    fs::remove_file(to.join("gone")).unwrap();
    store.got.store(0, Ordering::Relaxed);
    restore_over(&store, &manifest, &to).await.unwrap();
    let got = store.got.load(Ordering::Relaxed);
    assert!((4 << 20..5 << 20).contains(&got), "{got}");
    let same = std::process::Command::new("diff").arg("-r").args([&root, &to]).status().unwrap();
    assert!(same.success());
}
