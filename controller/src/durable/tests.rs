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
