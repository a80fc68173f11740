//! Sealed trees: they come back with their keys and with none but theirs,
//! equal data is stored once within a project and never across two, every
//! change is found, and nothing of what was stored can be read from the store.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifacts::index::{MemoryIndex, Resuming, Unfinished};
use artifacts::manifest::{Description, Node};
use artifacts::publish::{Keyframe, PublishError, With};
use artifacts::restore::{
    RestoreError, load_description, load_manifest, open_manifest, read_tree, restore, verify, verify_stored,
};
use artifacts::seal::{Keyring, PrivateKey, ProjectSecret, PublicKey, Sealed, Sealing, has_sealed_shape};
use artifacts::store::MemoryStore;
use artifacts::{
    ChunkIndex, Digest, KeySpace, Location, Manifest, ObjectKey, Published, Selection, Store, StoreError,
    publish_against,
};
use proptest::prelude::*;

#[path = "sealed/lies.rs"]
mod lies;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn private(byte: u8) -> PrivateKey {
    PrivateKey::from_bytes([byte; 32])
}

fn public(byte: u8) -> PublicKey {
    private(byte).public().unwrap()
}

fn ring(byte: u8) -> Keyring {
    let mut keys = Keyring::default();
    keys.add_private(private(byte)).unwrap();
    keys
}

/// Seals for a project to the controller (7) and to the recovery key (8).
fn sealing(project: &str) -> Arc<Sealing> {
    let secret = ProjectSecret::of_project(&[5; 32], project);
    Arc::new(Sealing::new(&secret, &[public(7), public(8)]).unwrap())
}

struct Place {
    dir: tempfile::TempDir,
    store: MemoryStore,
    index: MemoryIndex,
    keys: KeySpace,
    sealing: Arc<Sealing>,
}

impl Place {
    fn new(project: &str) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            store: MemoryStore::default(),
            index: MemoryIndex::default(),
            keys: KeySpace { scope: "run".into(), generation: 1, pack_seq: 0, manifest_seq: 0 },
            sealing: sealing(project),
        }
    }

    fn save(&self, name: &str, files: &BTreeMap<&str, Vec<u8>>) -> PathBuf {
        let path = self.dir.path().join(name);
        for (name, bytes) in files {
            let file = path.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
        path
    }

    async fn try_publish(
        &mut self,
        path: &Path,
        index: Option<&dyn ChunkIndex>,
    ) -> Result<Published, PublishError> {
        let selection = Selection::checkpoint(path, Some(1), 5).unwrap();
        let with = With { keyframe: None, sealing: Some(self.sealing.clone()) };
        let index = index.unwrap_or(&self.index);
        let done = publish_against(with, &selection, &mut self.keys, &self.store, index, || true).await?;
        self.index.add(&done.manifest);
        Ok(done)
    }

    async fn publish(&mut self, path: &Path) -> Published {
        self.try_publish(path, None).await.unwrap()
    }

    async fn sealed(&self, published: &Published) -> Sealed {
        let found = load_description(&self.store, &published.manifest_key, None).await.unwrap();
        let Description::Sealed(sealed) = found else { panic!("it is not sealed") };
        sealed
    }

    async fn objects(&self) -> Vec<(ObjectKey, Vec<u8>)> {
        let mut all = Vec::new();
        for key in self.store.list("").await.unwrap() {
            let size = self.store.size(&key).await.unwrap().unwrap();
            let bytes = self.store.get(&key, 0, size).await.unwrap();
            all.push((key, bytes));
        }
        all
    }
}

async fn store_of(objects: &[(ObjectKey, Vec<u8>)]) -> MemoryStore {
    let store = MemoryStore::default();
    for (key, bytes) in objects {
        store.put_if_absent(key, bytes).await.unwrap();
    }
    store
}

/// Files of every codec but differences.
fn files() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("secret-model/weights.bin", noise(1, 300_000)),
        ("secret-model/zeros.bin", vec![0; 70_000]),
        ("trainer-state.json", b"{\"learning_rate\":0.123456789,\"dataset\":\"patients\"}".repeat(300)),
        ("tiny", b"quite-short".to_vec()),
        ("empty", Vec::new()),
    ])
}

#[tokio::test]
async fn it_comes_back_with_the_key_of_either_recipient_and_with_no_other() {
    let mut place = Place::new("p");
    let path = place.save("checkpoint-1", &files());
    let published = place.publish(&path).await;
    let at = &published.manifest_key;
    for key in [7, 8] {
        let tree =
            open_manifest(&place.store, at, Some(published.manifest_digest), &ring(key)).await.unwrap();
        assert_eq!(tree, published.manifest);
        assert_eq!(tree.version, 3);
        verify(&place.store, &tree).await.unwrap();
        let back = place.dir.path().join("back");
        restore(&place.store, &tree, &back).await.unwrap();
        for (name, bytes) in files() {
            assert!(fs::read(back.join(name)).unwrap() == bytes, "{name}");
        }
        fs::remove_dir_all(back).unwrap();
    }
    for keys in [Keyring::default(), ring(9)] {
        let error = open_manifest(&place.store, at, None, &keys).await.unwrap_err();
        assert!(matches!(error, RestoreError::Sealed { .. }), "{error}");
        assert!(error.to_string().contains(&public(7).id().to_string()), "{error}");
    }
    // Programs and callers that know nothing of keys are told, not given damage.
    let error = load_manifest(&place.store, at, None).await.unwrap_err();
    assert!(matches!(error, RestoreError::Sealed { .. }), "{error}");
    // The key of this one manifest opens it, and it alone.
    let sealed = place.sealed(&published).await;
    let own = ring(7).key_of(at, &sealed).unwrap();
    let second = place.save("checkpoint-2", &BTreeMap::from([("x", noise(9, 5000))]));
    let second = place.publish(&second).await;
    let mut keys = Keyring::default();
    keys.add_manifest(at.clone(), own.clone());
    keys.add_manifest(second.manifest_key.clone(), own);
    open_manifest(&place.store, at, None, &keys).await.unwrap();
    let error = open_manifest(&place.store, &second.manifest_key, None, &keys).await.unwrap_err();
    assert!(matches!(error, RestoreError::Sealed { .. }), "{error}");
}

#[tokio::test]
async fn equal_data_is_stored_once_in_a_project_and_never_shared_between_two() {
    let mut place = Place::new("p");
    let path = place.save("checkpoint-1", &files());
    let first = place.publish(&path).await;
    assert!(first.new_chunks >= 4);
    let again = place.publish(&path).await;
    assert_eq!((again.new_chunks, again.sent_bytes), (0, 0));
    let tree = open_manifest(&place.store, &again.manifest_key, None, &ring(8)).await.unwrap();
    verify(&place.store, &tree).await.unwrap();
    place.sealing = sealing("q");
    let other = place.publish(&path).await;
    assert_eq!(other.new_chunks, first.new_chunks, "another project has names of its own");
    assert_ne!(other.manifest.packs(), first.manifest.packs());
    // What is sealed is found by nobody who does not seal, and the other way.
    let selection = Selection::checkpoint(&path, Some(1), 5).unwrap();
    let plain = artifacts::publish(&selection, &mut place.keys, &place.store, &place.index).await.unwrap();
    assert_eq!(plain.new_chunks, first.new_chunks);
    place.index.add(&plain.manifest);
    place.sealing = sealing("r");
    assert_eq!(place.publish(&path).await.new_chunks, first.new_chunks);
    for (key, bytes) in place.objects().await {
        let is_plain = key == plain.manifest_key || plain.manifest.packs().contains(&key);
        assert_eq!(has_sealed_shape(&key, &bytes), !is_plain, "{key}");
    }
    // The same writer, the same data: the very same packs.
    let mut twin = Place::new("p");
    twin.publish(&path).await;
    let packs =
        |objects: Vec<(ObjectKey, Vec<u8>)>| objects.into_iter().find(|(key, _)| key.as_str().contains("/p"));
    assert_eq!(packs(place.objects().await), packs(twin.objects().await));
}

#[tokio::test]
async fn nothing_of_what_was_stored_can_be_read_from_the_store() {
    let mut place = Place::new("p");
    let path = place.save("checkpoint-1", &files());
    let published = place.publish(&path).await;
    let objects = place.objects().await;
    assert!(objects.len() >= 2);
    let shows =
        |what: &[u8]| objects.iter().any(|(_, bytes)| bytes.windows(what.len()).any(|window| window == what));
    for name in ["secret", "weights", "checkpoint", "trainer", "tiny", "learning_rate", "patients"] {
        // The kind of the tree stands in the clear and is a word.
        assert!(name == "checkpoint" || !shows(name.as_bytes()), "{name} can be read");
    }
    assert!(!shows(b"checkpoint-1"), "its name can be read");
    let all: std::collections::HashSet<&[u8]> =
        objects.iter().flat_map(|(_, bytes)| bytes.windows(16)).collect();
    for (name, bytes) in files() {
        for window in bytes.chunks_exact(16) {
            assert!(!all.contains(window), "16 bytes of {name} can be read");
        }
        assert!(!shows(Digest::of(&bytes).to_string().as_bytes()), "the hash of {name} can be read");
        assert!(bytes.is_empty() || !shows(Digest::of(&bytes).as_bytes()), "the hash of {name} can be read");
    }
    let own = ring(7).key_of(&published.manifest_key, &place.sealed(&published).await).unwrap();
    assert!(!shows(own.expose()));
}

/// Every byte of a small store, flipped: found with keys, and, but for the
/// sealed part of a manifest, which its digest covers, without any.
#[tokio::test]
async fn every_changed_byte_is_found() {
    let mut place = Place::new("p");
    let files = BTreeMap::from([("a", noise(1, 400)), ("b", b"text text ".repeat(40)), ("z", vec![0; 300])]);
    let path = place.save("checkpoint-1", &files);
    let published = place.publish(&path).await;
    let objects = place.objects().await;
    let (at, digest) = (&published.manifest_key, Some(published.manifest_digest));
    let mut counted = 0;
    for number in 0..objects.len() {
        let is_manifest = objects[number].0 == *at;
        let used = if is_manifest { objects[number].1.len() } else { end(&published.manifest) };
        for byte in 0..used {
            let mut bad = objects.clone();
            bad[number].1[byte] ^= 1;
            let store = store_of(&bad).await;
            if is_manifest {
                assert!(load_description(&store, at, digest).await.is_err(), "its digest is another");
            }
            // Without what the controller knows of it, too.
            let opened = open_manifest(&store, at, None, &ring(8)).await;
            let read = match opened {
                Ok(tree) => read_tree(&store, &tree, 1 << 20).await.map(drop),
                Err(error) => Err(error),
            };
            let stored = match load_description(&store, at, None).await {
                Ok(Description::Sealed(sealed)) => verify_stored(&store, &sealed).await.map(drop),
                _ => Err(RestoreError::Remote("no manifest".into())),
            };
            if is_manifest {
                // One box of a recipient more or less does not matter to the other.
                counted += usize::from(read.is_err());
            } else {
                assert!(read.is_err() && stored.is_err(), "byte {byte} of {}", objects[number].0);
            }
        }
        if is_manifest {
            // All but the keys of the recipient that was not asked.
            assert!(used - counted < 16, "{counted} of {used}");
        }
    }
}

fn end(manifest: &Manifest) -> usize {
    usize::try_from(manifest.needed().map(artifacts::manifest::ChunkRef::end).max().unwrap()).unwrap()
}

#[tokio::test]
async fn chunks_that_change_places_are_found_with_and_without_keys() {
    let mut place = Place::new("p");
    let (a, b) = (noise(1, 400), noise(2, 400));
    let path = place.save("checkpoint-1", &BTreeMap::from([("a", a), ("b", b)]));
    let published = place.publish(&path).await;
    let mut objects = place.objects().await;
    let (pack, bytes) = objects.iter_mut().find(|(key, _)| key.as_str().contains("/p")).unwrap();
    let pack = pack.clone();
    let (one, other) = bytes[..856].split_at_mut(428);
    one.swap_with_slice(other);
    let store = store_of(&objects).await;
    let tree = open_manifest(&store, &published.manifest_key, None, &ring(7)).await.unwrap();
    let error = read_tree(&store, &tree, 1 << 20).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Corrupt { key, .. } if *key == pack), "{error}");
    let error = verify_stored(&store, &place.sealed(&published).await).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Corrupt { key, .. } if *key == pack), "{error}");
}

#[tokio::test]
async fn what_an_earlier_process_stored_is_not_sent_again() {
    let mut place = Place::new("p");
    let path = place.save("checkpoint-1", &files());
    place.publish(&path).await;
    let manifest = place.store.list("").await.unwrap().into_iter().find(|key| key.as_str().contains("/m"));
    place.store.delete(&manifest.unwrap()).await.unwrap();
    place.index = MemoryIndex::default();
    let left = Unfinished::recall(&place.store, "run", 1).await.unwrap();
    assert!(left.len() >= 4);
    let nothing = MemoryIndex::default();
    let index = Resuming { index: &nothing, left: &left };
    let again = place.try_publish(&path, Some(&index)).await.unwrap();
    assert_eq!(again.sent_bytes, 0);
    let tree = open_manifest(&place.store, &again.manifest_key, None, &ring(8)).await.unwrap();
    verify(&place.store, &tree).await.unwrap();
}

/// What a manifest names is the index's to tell: after a restart it is not read
/// again, pack by pack.
#[tokio::test]
async fn what_a_sealed_manifest_names_was_not_left_unfinished() {
    let mut place = Place::new("p");
    let path = place.save("checkpoint-1", &files());
    place.publish(&path).await;
    assert!(Unfinished::recall(&place.store, "run", 1).await.unwrap().is_empty());
}

/// The index of a controller that knows nothing of sealed trees.
struct Older;

#[async_trait::async_trait]
impl ChunkIndex for Older {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        Ok(vec![None; digests.len()])
    }
    fn format(&self) -> u32 {
        2
    }
}

#[tokio::test]
async fn for_an_older_controller_nothing_is_stored_in_the_clear() {
    let mut place = Place::new("p");
    let path = place.save("checkpoint-1", &files());
    let error = place.try_publish(&path, Some(&Older)).await.unwrap_err();
    assert!(error.to_string().contains("upgrade"), "{error}");
    let objects = place.objects().await;
    assert!(objects.iter().all(|(key, _)| !key.as_str().contains("/m")), "no manifest");
    assert!(!objects.iter().any(|(_, bytes)| bytes.windows(8).any(|window| window == b"patients")));
}

#[tokio::test]
async fn differences_to_a_kept_save_are_sealed_too() {
    let mut place = Place::new("p");
    let floats = |step: u32| -> Vec<u8> {
        let numbers = noise(1, 1_200_000);
        let numbers = numbers.as_chunks::<4>().0.iter();
        let moved =
            numbers.map(|n| f32::from_bits(u32::from_le_bytes(*n) >> 6 | 0x3c00_0000).to_bits() + step);
        let data: Vec<u8> = moved.flat_map(u32::to_le_bytes).collect();
        let header = r#"{"t":{"dtype":"F32","shape":[300000],"data_offsets":[0,1200000]}}"#;
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
    };
    let path = place.save("checkpoint-1", &BTreeMap::from([("model.safetensors", floats(0))]));
    let first = place.publish(&path).await;
    let dir = place.dir.path().join("keyframe");
    drop(Keyframe::take(&path, &first.manifest, &dir).unwrap().unwrap());
    // What stays on the machine's disk holds no key, and serves the next process.
    let kept = fs::read(dir.join("tree.json")).unwrap();
    let seal = first.manifest.needed().next().unwrap().seal.clone().unwrap();
    let hex = data_encoding::HEXLOWER.encode(seal.key.expose());
    assert!(!String::from_utf8_lossy(&kept).contains(&hex));
    assert!(!kept.windows(32).any(|window| window == seal.key.expose()));
    let keyframe = Arc::new(Keyframe::open(&dir).unwrap());
    let path = place.save("checkpoint-2", &BTreeMap::from([("model.safetensors", floats(3))]));
    for sent in [true, false] {
        let selection = Selection::checkpoint(&path, Some(2), 5).unwrap();
        let with = With { keyframe: Some(keyframe.clone()), sealing: Some(place.sealing.clone()) };
        let index = &place.index;
        let done = publish_against(with, &selection, &mut place.keys, &place.store, index, || true);
        let second = done.await.unwrap();
        assert!(!second.manifest.bases.is_empty(), "it is stored as differences");
        assert!(second.manifest.bases.iter().all(|base| base.seal.is_some()));
        assert_eq!(second.sent_bytes > 0, sent, "the second time nothing is sent");
        assert!(second.sent_bytes < first.sent_bytes / 2);
        keyframe.remember(&second.manifest);
        let tree = open_manifest(&place.store, &second.manifest_key, None, &ring(8)).await.unwrap();
        let files = read_tree(&place.store, &tree, 1 << 30).await.unwrap();
        assert!(files[0].1 == floats(3));
        verify_stored(&place.store, &place.sealed(&second).await).await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back(
        contents in proptest::collection::vec((0_u64..6, 0_usize..200_000, any::<bool>()), 0..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut place = Place::new("p");
        let path = place.dir.path().join("checkpoint");
        fs::create_dir(&path).unwrap();
        for (number, (seed, len, zeros)) in contents.iter().enumerate() {
            let bytes = if *zeros { vec![u8::try_from(*seed).unwrap(); *len] } else { noise(*seed, *len) };
            fs::write(path.join(format!("file-{number}")), bytes).unwrap();
        }
        let published = runtime.block_on(place.publish(&path));
        let tree = runtime
            .block_on(open_manifest(&place.store, &published.manifest_key, None, &ring(8)))
            .unwrap();
        prop_assert_eq!(&tree, &published.manifest);
        for (name, bytes) in runtime.block_on(read_tree(&place.store, &tree, 1 << 30)).unwrap() {
            prop_assert!(fs::read(path.join(name)).unwrap() == bytes);
        }
        let files = tree.entries.iter().filter(|entry| matches!(entry.node, Node::File { .. })).count();
        prop_assert_eq!(files, contents.len());
        let sealed = runtime.block_on(place.sealed(&published));
        runtime.block_on(verify_stored(&place.store, &sealed)).unwrap();
    }
}
