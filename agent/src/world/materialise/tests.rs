//! Which checkpoint a program goes on from, and at what price.

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};

use artifacts::index::MemoryIndex;
use artifacts::store::MemoryStore;
use artifacts::{ChunkIndex, KeySpace, Location, Put, Selection, Store, StoreError};
use async_trait::async_trait;

use super::*;
use crate::world::{Commit, Gateway};

/// A store that counts what it gives and stops giving.
#[derive(Default)]
struct Books {
    store: MemoryStore,
    reads: AtomicUsize,
    got: AtomicU64,
    condemned: Mutex<Vec<String>>,
}

#[async_trait]
impl Store for Books {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        self.store.put_if_absent(key, bytes).await
    }
    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let one_less = |left: usize| left.checked_sub(1);
        if self.reads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err() {
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

#[async_trait]
impl ChunkIndex for Books {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        Ok(vec![None; digests.len()])
    }
}

#[async_trait]
impl Gateway for Books {
    async fn commit(&self, _: &v1::Work, _: &str, _: &str) -> Commit {
        Commit::Durable
    }
    async fn tree(
        &self,
        _: &v1::Work,
        key: &ObjectKey,
        digest: artifacts::Digest,
    ) -> Result<artifacts::Manifest, artifacts::restore::RestoreError> {
        artifacts::restore::load_manifest(self, key, Some(digest)).await
    }
    async fn condemn(&self, _: &v1::Work, key: &str, _: &str) {
        self.condemned.lock().unwrap().push(key.to_owned());
    }
}

struct Place {
    root: tempfile::TempDir,
    dir: AttemptDir,
    books: Arc<Books>,
    keys: KeySpace,
    spec: RunSpec,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(root.path(), "a");
        std::fs::create_dir_all(dir.source()).unwrap();
        let spec = serde_json::json!({"project": "p", "name": "n", "command": ["x"], "provider": "local"});
        Self {
            dir,
            books: Arc::new(Books { reads: AtomicUsize::new(usize::MAX), ..Books::default() }),
            keys: KeySpace { scope: "run".into(), generation: 1, pack_seq: 1, manifest_seq: 1 },
            spec: serde_json::from_value(spec).unwrap(),
            root,
        }
    }

    async fn stored(&mut self, name: &str, bytes: &[u8]) -> v1::ManifestRef {
        let path = self.root.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let selection = Selection::checkpoint(&path, Some(1), 1).unwrap();
        let (store, index) = (&self.books.store, MemoryIndex::default());
        let published = artifacts::publish(&selection, &mut self.keys, store, &index).await.unwrap();
        v1::ManifestRef {
            key: published.manifest_key.to_string(),
            digest: published.manifest_digest.to_string(),
            ..v1::ManifestRef::default()
        }
    }

    async fn resume(&self, offers: &[v1::ManifestRef]) -> (Result<Option<PathBuf>, Failed>, Prepared) {
        let work = v1::Work { resume: offers.to_vec(), ..v1::Work::default() };
        let mut prepared =
            Prepared { restored: None, environment_cached: false, condemned: Vec::new(), notes: Vec::new() };
        let gateway: SharedGateway = self.books.clone();
        let path = resume(&self.dir, &work, &self.spec, &gateway, &mut prepared).await;
        (path, prepared)
    }
}

#[tokio::test]
async fn a_checkpoint_of_a_later_version_is_never_passed_over() {
    let mut place = Place::new();
    let good = place.stored("step-1.pt", b"weights").await;
    for later in [
        r#"{"version":99,"shape":"new"}"#.to_owned(),
        // A codec that came later under an old number.
        {
            let key: ObjectKey = good.key.parse().unwrap();
            let size = place.books.store.size(&key).await.unwrap().unwrap();
            let text = String::from_utf8(place.books.store.get(&key, 0, size).await.unwrap()).unwrap();
            text.replace(r#""version":1"#, r#""version":2"#).replace("]]", ",7,99]]")
        },
    ] {
        let key = ObjectKey::manifest("run", 1, 50).unwrap();
        place.books.store.put_if_absent(&key, later.as_bytes()).await.unwrap();
        let digest = Digest::of(later.as_bytes()).to_string();
        let later = v1::ManifestRef { key: key.to_string(), digest, ..v1::ManifestRef::default() };
        let (outcome, prepared) = place.resume(&[later, good.clone()]).await;
        let failed = outcome.unwrap_err();
        assert!(failed.reason.contains("upgrade"), "{}", failed.reason);
        assert!(prepared.restored.is_none() && prepared.condemned.is_empty());
        assert!(place.books.condemned.lock().unwrap().is_empty());
        place.books.store.delete(&key).await.unwrap();
    }
    // One that is damaged is.
    let bad = place.stored("step-2.pt", b"torn").await;
    let tree = restore::load_manifest(&place.books.store, &bad.key.parse().unwrap(), None).await.unwrap();
    assert!(place.books.store.flip(&tree.packs()[0], 0));
    let (outcome, prepared) = place.resume(&[bad.clone(), good]).await;
    assert_eq!(std::fs::read(outcome.unwrap().unwrap()).unwrap(), b"weights");
    assert_eq!(prepared.condemned.len(), 1);
    assert_eq!(*place.books.condemned.lock().unwrap(), [bad.key]);
}

#[tokio::test]
async fn a_resume_that_was_cut_short_goes_on_in_the_next_try() {
    let mut place = Place::new();
    let mut bytes = vec![0; 30 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let offer = place.stored("step-1.pt", &bytes).await;
    let left = || {
        let mut names: Vec<String> = std::fs::read_dir(place.dir.resume())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let offers = [offer];
    // The manifest and two ranges.
    place.books.reads.store(3, Ordering::Relaxed);
    let failed = place.resume(&offers).await.0.unwrap_err();
    assert!(failed.transient, "{}", failed.reason);
    assert!(left().iter().all(|name| restore::is_unfinished(name)) && left().len() == 1);
    std::fs::write(place.dir.resume().join("step-1.pt"), b"not ours").unwrap();
    place.books.reads.store(usize::MAX, Ordering::Relaxed);
    let path = place.resume(&offers).await.0.unwrap().unwrap();
    assert!(std::fs::read(path).unwrap() == bytes);
    assert_eq!(left(), ["step-1.pt"]);
    let got = place.books.got.load(Ordering::Relaxed);
    assert!(got < 40 << 20, "{got}");
}
