//! Later saves as differences to one that is kept: small, the same bytes when
//! they come back, and nothing but a service: whatever becomes of the copy or
//! of the index, a checkpoint is stored whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifacts::codec::Codec;
use artifacts::index::MemoryIndex;
use artifacts::inspect::Stored;
use artifacts::manifest::Node;
use artifacts::publish::Keyframe;
use artifacts::restore::{RestoreError, load_manifest, read_tree, restore, verify};
use artifacts::store::MemoryStore;
use artifacts::{KeySpace, Manifest, ObjectKey, Published, Selection, publish_against};

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Two tensors of 1.2 MB after `step` steps, in a file whose header grows.
fn state(step: u64) -> Vec<u8> {
    let size = 1_200_000;
    let tensors: Vec<u8> = (0..2)
        .flat_map(|tensor| {
            let by = noise(100 + step, size / 4);
            let numbers = noise(tensor, size);
            let whole = numbers.as_chunks::<4>().0.iter().zip(by);
            let moved = whole.flat_map(|(number, by)| {
                // Weights, then a walk of some last places a step.
                let weight = f32::from_bits(u32::from_le_bytes(*number) >> 6 | 0x3c00_0000);
                (weight.to_bits() + u32::from(by) * u32::try_from(step).unwrap_or_default()).to_le_bytes()
            });
            moved.collect::<Vec<u8>>()
        })
        .collect();
    let tensor = |n: usize| {
        format!(
            r#""t{n}":{{"dtype":"F32","shape":[300000],"data_offsets":[{},{}]}}"#,
            n * size,
            (n + 1) * size
        )
    };
    let header = format!(
        r#"{{"__metadata__":{{"m":"{}"}},{},{}}}"#,
        "x".repeat(usize::try_from(step).unwrap() * 7),
        tensor(0),
        tensor(1)
    );
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &tensors].concat()
}

struct Place {
    dir: tempfile::TempDir,
    store: MemoryStore,
    index: MemoryIndex,
    keys: KeySpace,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            store: MemoryStore::default(),
            index: MemoryIndex::default(),
            keys: KeySpace { scope: "run".into(), generation: 1, pack_seq: 0, manifest_seq: 0 },
        }
    }

    /// A checkpoint directory of that step.
    fn save(&self, step: u64) -> PathBuf {
        let path = self.dir.path().join(format!("checkpoint-{step}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("model.safetensors"), state(step)).unwrap();
        fs::write(path.join("trainer_state.json"), format!("{{\"step\":{step}}}")).unwrap();
        path
    }

    async fn publish(&mut self, path: &Path, base: Option<&Arc<Keyframe>>) -> Published {
        let selection = Selection::checkpoint(path, Some(1), 5).unwrap();
        let published =
            publish_against(base.cloned(), &selection, &mut self.keys, &self.store, &self.index, || true);
        let published = published.await.unwrap();
        self.index.add(&published.manifest);
        published
    }

    fn keep(&self, path: &Path, manifest: &Manifest) -> Arc<Keyframe> {
        let root = if path.is_dir() { path } else { self.dir.path() };
        let kept = Keyframe::take(root, manifest, &self.dir.path().join("keyframe")).unwrap();
        Arc::new(kept.unwrap())
    }

    /// It verifies and comes back as it was.
    async fn comes_back(&self, published: &Published, path: &Path) {
        let manifest = load_manifest(&self.store, &published.manifest_key, None).await.unwrap();
        assert_eq!(manifest, published.manifest);
        verify(&self.store, &manifest).await.unwrap();
        let back = self.dir.path().join("back");
        restore(&self.store, &manifest, &back).await.unwrap();
        let files = read_tree(&self.store, &manifest, 1 << 30).await.unwrap();
        for (name, bytes) in files {
            let whole = if path.is_dir() { path.join(&name) } else { path.to_owned() };
            assert!(fs::read(&whole).unwrap() == bytes, "{name}");
            let back = if path.is_dir() { back.join(&name) } else { back.clone() };
            assert!(fs::read(back).unwrap() == bytes, "{name}");
        }
        if path.is_dir() { fs::remove_dir_all(back).unwrap() } else { fs::remove_file(back).unwrap() }
    }
}

fn differences(manifest: &Manifest) -> usize {
    let chunks = manifest.entries.iter().filter_map(|entry| match &entry.node {
        Node::File { chunks, .. } => Some(chunks),
        _ => None,
    });
    chunks.flatten().filter(|chunk| chunk.codec == Codec::Delta).count()
}

/// Each chunk verifies alone, and any range of the file is read as it is: of
/// the bases only those count that the part needs.
async fn parts_come_back(store: &MemoryStore, manifest: &Manifest, step: u64) {
    for chunks in manifest.entries.iter().filter_map(|entry| match &entry.node {
        Node::File { chunks, .. } => Some(chunks),
        _ => None,
    }) {
        for chunk in chunks {
            let part = manifest.part(vec![chunk.clone(), chunk.clone()]);
            assert_eq!(part.bases.len(), usize::from(chunk.base.is_some()));
            assert_eq!(verify(store, &part).await.unwrap().bytes, u64::from(chunk.len) * 2);
        }
    }
    let (file, whole) = (Stored::open(store, manifest, "model.safetensors").unwrap(), state(step));
    for range in [0..16, 1_100_000..1_300_000, 2_399_000..2_400_000] {
        let asked = range.start as u64..range.end as u64;
        assert!(file.read(asked).await.unwrap() == whole[range.clone()], "{range:?}");
    }
}

#[tokio::test]
async fn later_saves_take_what_they_differ_by_and_come_back() {
    let mut place = Place::new();
    let first = place.save(1);
    let whole = place.publish(&first, None).await;
    assert_eq!((differences(&whole.manifest), whole.against.stored), (0, 0));
    let kept = place.keep(&first, &whole.manifest);
    assert!(kept.bytes() >= 2_400_000 && kept.bytes() <= Keyframe::room_for(&whole.manifest));
    // The program rotates its save away.
    fs::remove_dir_all(&first).unwrap();
    for step in [2, 20] {
        let path = place.save(step);
        let later = place.publish(&path, Some(&kept)).await;
        assert_eq!(differences(&later.manifest), 4, "two chunks for each tensor");
        assert_eq!(later.manifest.bases.len(), 4);
        assert!(later.sent_bytes * 2 < whole.sent_bytes, "{} of {}", later.sent_bytes, whole.sent_bytes);
        let Published { against, .. } = later;
        assert!(against.alone > 1_500_000 && against.stored < later.sent_bytes, "{against:?}");
        assert!(later.manifest.packs().len() > 1, "the packs of bases are needed");
        place.comes_back(&later, &path).await;
        parts_come_back(&place.store, &later.manifest, step).await;
        // Depth one: what is a difference itself is no keyframe.
        let again = Keyframe::take(&path, &later.manifest, &place.dir.path().join("other"));
        assert!(again.is_err() && !place.dir.path().join("other").exists());
    }
    // After a restart of the agent.
    let found = Arc::new(Keyframe::open(&place.dir.path().join("keyframe")).unwrap());
    let path = place.save(3);
    assert_eq!(differences(&place.publish(&path, Some(&found)).await.manifest), 4);
    found.discard();
    assert!(Keyframe::open(&place.dir.path().join("keyframe")).is_err());
}

#[tokio::test]
async fn a_save_under_two_names_is_sent_once() {
    let mut place = Place::new();
    let first = place.dir.path().join("step-1.safetensors");
    fs::write(&first, state(1)).unwrap();
    let whole = place.publish(&first, None).await;
    let kept = place.keep(&first, &whole.manifest);
    let [second, last] = ["step-2.safetensors", "last.safetensors"].map(|name| place.dir.path().join(name));
    for path in [&second, &last] {
        fs::write(path, state(2)).unwrap();
    }
    let later = place.publish(&second, Some(&kept)).await;
    assert_eq!(differences(&later.manifest), 4);
    let unknown = place.publish(&last, Some(&kept)).await;
    assert!(unknown.sent_bytes + 1000 > later.sent_bytes, "nobody told that it is durable");
    kept.remember(&later.manifest);
    let same = place.publish(&last, Some(&kept)).await;
    assert_eq!((same.new_chunks, same.sent_bytes, differences(&same.manifest)), (0, 0, 4));
    assert_eq!(same.manifest.bases, later.manifest.bases);
    place.comes_back(&same, &last).await;
    kept.forget();
    assert_ne!(place.publish(&last, Some(&kept)).await.new_chunks, 0);
}

#[tokio::test]
async fn a_base_that_cannot_be_relied_on_is_none() {
    let mut place = Place::new();
    let first = place.save(1);
    let whole = place.publish(&first, None).await;
    let kept = place.keep(&first, &whole.manifest);
    let path = place.save(2);
    // The copy lost a byte of its second tensor; no other chunk suffers.
    let copy = place.dir.path().join("keyframe/0");
    let mut bytes = fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&copy, &bytes).unwrap();
    let later = place.publish(&path, Some(&kept)).await;
    assert_eq!(differences(&later.manifest), 3);
    place.comes_back(&later, &path).await;
    fs::write(&copy, b"").unwrap();
    assert_eq!(differences(&place.publish(&path, Some(&kept)).await.manifest), 0);
    // Where the bases lie is the index's to say: it may have let them go.
    bytes[middle] ^= 1;
    fs::write(&copy, &bytes).unwrap();
    place.index = MemoryIndex::default();
    let alone = place.publish(&path, Some(&kept)).await;
    assert_eq!((differences(&alone.manifest), alone.manifest.bases.len()), (0, 0));
    place.comes_back(&alone, &path).await;
}

#[tokio::test]
async fn damage_to_a_base_is_told_as_that_of_its_pack() {
    let mut place = Place::new();
    let first = place.save(1);
    let whole = place.publish(&first, None).await;
    let kept = place.keep(&first, &whole.manifest);
    let path = place.save(2);
    let later = place.publish(&path, Some(&kept)).await;
    let base = &later.manifest.bases[3];
    let own = later.manifest.packs().into_iter().find(|pack| *pack != base.pack).unwrap();
    let dest = place.dir.path().join("back");
    let blamed = |outcome: Result<(), RestoreError>, pack: &ObjectKey| match outcome {
        Err(RestoreError::Corrupt { key, .. } | RestoreError::Missing { key }) => assert_eq!(key, *pack),
        other => panic!("{other:?}"),
    };
    for (pack, at) in [(&base.pack, base.offset + 9), (&own, 40_000)] {
        place.store.flip(pack, usize::try_from(at).unwrap());
        blamed(verify(&place.store, &later.manifest).await.map(drop), pack);
        blamed(restore(&place.store, &later.manifest, &dest).await.map(drop), pack);
        blamed(read_tree(&place.store, &later.manifest, 1 << 30).await.map(drop), pack);
        assert!(!dest.exists());
        place.store.flip(pack, usize::try_from(at).unwrap());
    }
    artifacts::Store::delete(&place.store, &base.pack).await.unwrap();
    blamed(verify(&place.store, &later.manifest).await.map(drop), &base.pack);
}
