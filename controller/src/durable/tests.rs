//! What a bad pack and a later version's manifest lead to.

use std::sync::Arc;

use artifacts::restore::{load_manifest, restore, verify};
use artifacts::store::MemoryStore;
use artifacts::{KeySpace, Manifest, Selection, Store as _};

use super::*;
use crate::bench::{Index, at_work_with, named, noise, parts};
use crate::core::Parts;

/// A controller without machines and one run at work.
pub(crate) struct Bench {
    pub(crate) core: Arc<Core>,
    objects: MemoryStore,
    pub(crate) run: RunId,
    pub(crate) attempt: AttemptId,
    keys: KeySpace,
    dir: tempfile::TempDir,
}

mod sealed;

impl Bench {
    async fn new() -> Self {
        Self::of(|_| Arc::default(), "auto").await
    }

    /// One with these keys.
    async fn of(keys: impl FnOnce(&std::path::Path) -> Arc<crate::keys::Keys>, encrypt: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(dir.path());
        let objects = MemoryStore::default();
        let core = Core::new(Parts { keys, ..parts(dir.path(), Arc::new(objects.clone())) });
        let (run, attempt, rows) = at_work_with("local", encrypt);
        assert!(core.commit(rows).await.unwrap());
        let keys = KeySpace { scope: run.to_string(), generation: 1, pack_seq: 1, manifest_seq: 1 };
        Self { core, objects, run, attempt, keys, dir }
    }

    /// Publishes and commits a save: what all saves share and what is its own.
    async fn save(&mut self, step: u64) -> ManifestRef {
        let path = self.dir.path().join(format!("step-{step}"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("base"), noise(0, 900_000)).unwrap();
        std::fs::write(path.join("own"), noise(step, 100_000)).unwrap();
        let selection = Selection::checkpoint(&path, Some(step), 1).unwrap();
        let index = Index(&self.core);
        let published = artifacts::publish(&selection, &mut self.keys, &self.objects, &index).await.unwrap();
        let manifest = named(&published);
        assert_eq!(self.commit(&manifest).await.unwrap(), Outcome::Durable);
        manifest
    }

    async fn commit(&self, manifest: &ManifestRef) -> Result<Outcome, CoreError> {
        commit(&self.core, self.attempt, Generation::from_u64(1), manifest).await
    }

    async fn tree(&self, manifest: &ManifestRef) -> Manifest {
        load_manifest(&self.objects, &manifest.key.parse().unwrap(), None).await.unwrap()
    }

    async fn run(&self) -> Run {
        self.core.need::<Run>(&self.run.to_string()).await.unwrap().body
    }
}

#[tokio::test]
async fn what_a_condemned_checkpoint_had_in_a_bad_pack_is_stored_anew() {
    for is_lost in [false, true] {
        let mut bench = Bench::new().await;
        let first = bench.save(1).await;
        let bad = bench.tree(&first).await.packs().remove(0);
        let second = bench.save(2).await;
        let tree = bench.tree(&second).await;
        assert!(tree.packs().contains(&bad), "it refers to what was stored");
        if is_lost {
            bench.objects.delete(&bad).await.unwrap();
        } else {
            assert!(bench.objects.flip(&bad, 5));
        }
        let error = verify(&bench.objects, &tree).await.unwrap_err();
        assert!(!is_passing(&error), "{error}");
        condemn(&bench.core, "test", &second.key, "does not verify", blamed(&error)).await.unwrap();
        assert_eq!(bench.run().await.head.unwrap().key, first.key);
        let third = bench.save(3).await;
        let tree = bench.tree(&third).await;
        assert!(!tree.packs().contains(&bad), "nobody is told of it any more");
        let back = bench.dir.path().join("back");
        restore(&bench.objects, &tree, &back).await.unwrap();
        assert_eq!(std::fs::read(back.join("base")).unwrap(), noise(0, 900_000));
        assert_eq!(bench.run().await.head.unwrap().key, third.key);
    }
}

#[tokio::test]
async fn nothing_new_rests_on_a_pack_that_is_lost_cut_or_damaged() {
    for way in ["lost", "cut", "damaged"] {
        let mut bench = Bench::new().await;
        let first = bench.save(1).await;
        let bad = bench.tree(&first).await.packs().remove(0);
        match way {
            "lost" => assert!(bench.objects.delete(&bad).await.unwrap()),
            "cut" => {
                let bytes = bench.objects.get(&bad, 0, 700_000).await.unwrap();
                bench.objects.delete(&bad).await.unwrap();
                bench.objects.put_if_absent(&bad, &bytes).await.unwrap();
                // The answer of a moment ago.
                bench.core.known.forget(&bad);
            }
            _ => assert!(bench.objects.flip(&bad, 5)),
        }
        if way == "lost" {
            bench.core.known.forget(&bad);
        }
        // Nobody looked at the first one, and nobody condemned it.
        let second = bench.save(2).await;
        let tree = bench.tree(&second).await;
        assert!(!tree.packs().contains(&bad), "{way}");
        verify(&bench.objects, &tree).await.unwrap();
        let third = bench.save(3).await;
        let tree = bench.tree(&third).await;
        verify(&bench.objects, &tree).await.unwrap();
        let own: u64 =
            chunks(&tree).filter(|chunk| chunk.pack.seq() > Some((ObjectClass::Pack, 2))).count() as u64;
        assert!(own < chunks(&tree).count() as u64, "{way}: what was stored anew is known from then on");
    }
}

#[tokio::test]
async fn a_commit_whose_pack_is_lost_meanwhile_is_asked_for_again_and_not_refused() {
    let mut bench = Bench::new().await;
    let first = bench.save(1).await;
    let bad = bench.tree(&first).await.packs().remove(0);
    // Stored as the store was, and lost before the commit: whatever is remembered.
    let path = bench.dir.path().join("step-1");
    let selection = Selection::checkpoint(&path, Some(2), 1).unwrap();
    let index = Index(&bench.core);
    let published = artifacts::publish(&selection, &mut bench.keys, &bench.objects, &index).await.unwrap();
    assert!(published.manifest.packs().contains(&bad));
    bench.objects.delete(&bad).await.unwrap();
    let outcome = bench.commit(&named(&published)).await.unwrap();
    assert!(matches!(&outcome, Outcome::Again(why) if why.contains("is missing")), "{outcome:?}");
    assert_eq!(bench.run().await.head.unwrap().key, first.key);
    let again =
        artifacts::publish(&selection, &mut bench.keys, &bench.objects, &Index(&bench.core)).await.unwrap();
    assert!(!again.manifest.packs().contains(&bad), "the index has forgotten it");
    assert_eq!(bench.commit(&named(&again)).await.unwrap(), Outcome::Durable);
    verify(&bench.objects, &again.manifest).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_silent_holds_no_publisher_up() {
    struct Silent;
    #[async_trait::async_trait]
    impl artifacts::Store for Silent {
        async fn put_if_absent(
            &self,
            _: &ObjectKey,
            _: &[u8],
        ) -> Result<artifacts::Put, artifacts::StoreError> {
            std::future::pending().await
        }
        async fn get(&self, _: &ObjectKey, _: u64, _: u64) -> Result<Vec<u8>, artifacts::StoreError> {
            std::future::pending().await
        }
        async fn size(&self, _: &ObjectKey) -> Result<Option<u64>, artifacts::StoreError> {
            std::future::pending().await
        }
        async fn list(&self, _: &str) -> Result<Vec<ObjectKey>, artifacts::StoreError> {
            std::future::pending().await
        }
        async fn delete(&self, _: &ObjectKey) -> Result<bool, artifacts::StoreError> {
            std::future::pending().await
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let core = Core::new(parts(dir.path(), Arc::new(Silent)));
    let pack = ObjectKey::pack("run", 1, 1).unwrap().to_string();
    let chunk = crate::store::ChunkPut {
        digest: [1; 32],
        pack,
        offset: 0,
        len: 9,
        stored: 9,
        codec: 0,
        cipher: None,
    };
    let waited = async || {
        let began = tokio::time::Instant::now();
        let found = reliable(&core, vec![Some(chunk.clone()), None], |_| false).await.unwrap();
        assert!(found[0].is_some() && found[1].is_none(), "the commit asks again");
        began.elapsed().as_secs()
    };
    assert_eq!((waited().await, waited().await), (4, 0), "asked once, and then left alone");
    tokio::time::advance(std::time::Duration::from_mins(2)).await;
    assert_eq!(waited().await, 4);
}

#[tokio::test]
async fn what_a_checkpoint_took_in_the_store_is_kept() {
    let mut bench = Bench::new().await;
    let mut stored = Vec::new();
    for step in 1..=3 {
        let before = bench.objects.total_bytes();
        let manifest = bench.save(step).await;
        let row = bench.core.need::<Checkpoint>(&manifest.key).await.unwrap().body;
        let manifest = bench.objects.size(&manifest.key.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(row.new_bytes, bench.objects.total_bytes() - before - manifest, "{step}");
        stored.push((row.new_bytes, row.bytes));
    }
    assert!(stored[0].0 > 1_000_000 && stored[1].0 < 110_000 && stored[2].0 < 110_000, "{stored:?}");
}

#[tokio::test]
async fn nothing_counts_that_was_put_into_another_store() {
    use artifacts::store::own::{OwnStore, mark, new_id};
    let dir = tempfile::tempdir().unwrap();
    let objects = MemoryStore::default();
    let mark = mark(&new_id()).unwrap();
    let own = OwnStore::new(Arc::new(objects.clone()), mark.clone(), "the bucket");
    let core = Core::new(parts(dir.path(), Arc::new(own)));
    let (run, attempt, rows) = at_work_with("local", "auto");
    assert!(core.commit(rows).await.unwrap());
    std::fs::write(dir.path().join("step-1"), noise(1, 1_000)).unwrap();
    let selection = Selection::checkpoint(&dir.path().join("step-1"), Some(1), 1).unwrap();
    let mut keys = KeySpace { scope: run.to_string(), generation: 1, pack_seq: 1, manifest_seq: 1 };
    // As under a signed URL, which any bucket of that name takes.
    let index = artifacts::index::MemoryIndex::default();
    let published = artifacts::publish(&selection, &mut keys, &objects, &index).await.unwrap();
    let manifest = named(&published);
    let commit = || commit(&core, attempt, Generation::from_u64(1), &manifest);
    let error = crate::reconcile::chain(&commit().await.unwrap_err());
    assert!(error.contains("not the store of this installation"), "{error}");
    objects.put_if_absent(&mark, b"x").await.unwrap();
    assert_eq!(commit().await.unwrap(), Outcome::Durable);
}

#[tokio::test]
async fn what_a_later_version_stored_is_waited_for() {
    let mut bench = Bench::new().await;
    let first = bench.save(1).await;
    let bytes = String::from_utf8(bench.tree(&first).await.to_bytes()).unwrap();
    let coded = bytes.replacen(r#""version":1"#, r#""version":2"#, 1);
    // The first chunk of the file, with stored length and codec.
    let end = coded.find("]]").unwrap();
    let coded = format!("{},7,99{}", &coded[..end], &coded[end..]);
    for text in [r#"{"version":99,"shape":"new"}"#.to_owned(), coded] {
        let key = ObjectKey::manifest(&bench.run.to_string(), 1, 50).unwrap();
        bench.objects.put_if_absent(&key, text.as_bytes()).await.unwrap();
        let run = bench.run().await;
        let waits = adopt_stored(&bench.core, &run, bench.attempt).await.unwrap_err().to_string();
        assert!(waits.contains("upgrade") && waits.contains(key.as_str()), "{waits}");
        let digest = Digest::of(text.as_bytes()).to_string();
        let manifest = ManifestRef { key: key.to_string(), digest, step: None };
        // Refused would be for good.
        assert!(bench.commit(&manifest).await.unwrap_err().to_string().contains("upgrade"));
        let error = load_manifest(&bench.objects, &key, None).await.unwrap_err();
        assert!(is_passing(&error), "{error}");
        bench.objects.delete(&key).await.unwrap();
        assert_eq!(adopt_stored(&bench.core, &run, bench.attempt).await.unwrap(), 0);
    }
}
