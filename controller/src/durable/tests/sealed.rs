//! Commits of sealed trees: by their keys where those are at hand, by the clear
//! part where not, and never of an open tree where it should be sealed.

use artifacts::publish::With;
use artifacts::seal::{PrivateKey, ProjectSecret, PublicKey, Sealing};

use super::*;
use crate::keys::{Keys, sealing};

impl Bench {
    /// One with keys, whose run is to be sealed.
    pub(crate) async fn sealed() -> Self {
        Self::of(|dir| Arc::new(Keys::open(dir).unwrap()), "always").await
    }

    /// What its machine seals with.
    async fn sealing(&self) -> Arc<Sealing> {
        let given = sealing(&self.core, &self.run().await.spec).unwrap().unwrap();
        let secret = ProjectSecret::try_from(given.secret.as_slice()).unwrap();
        let key = |bytes: &Vec<u8>| PublicKey::from_bytes(bytes.as_slice().try_into().unwrap());
        let recipients: Vec<PublicKey> = given.recipients.iter().map(key).collect();
        Arc::new(Sealing::new(&secret, &recipients).unwrap())
    }

    /// Stores a save; tells its manifest and what was sent.
    pub(crate) async fn store(&mut self, step: u64, sealing: Option<Arc<Sealing>>) -> (ManifestRef, u64) {
        let path = self.dir.path().join(format!("step-{step}"));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("base"), noise(0, 900_000)).unwrap();
        std::fs::write(path.join("own"), noise(step, 100_000)).unwrap();
        let selection = Selection::checkpoint(&path, Some(step), 1).unwrap();
        let (index, with) = (Index(&self.core), With { keyframe: None, sealing });
        let done =
            artifacts::publish_against(with, &selection, &mut self.keys, &self.objects, &index, || true);
        let done = done.await.unwrap();
        let (key, digest) = (done.manifest_key.to_string(), done.manifest_digest.to_string());
        (ManifestRef { key, digest, step: Some(step) }, done.sent_bytes)
    }

    /// A sealed save that is durable.
    pub(crate) async fn save_sealed(&mut self, step: u64) -> ManifestRef {
        let sealing = self.sealing().await;
        let (manifest, _) = self.store(step, Some(sealing)).await;
        assert_eq!(self.commit(&manifest).await.unwrap(), Outcome::Durable);
        manifest
    }

    async fn row(&self, manifest: &ManifestRef) -> Checkpoint {
        self.core.need::<Checkpoint>(&manifest.key).await.unwrap().body
    }

    async fn description(&self, manifest: &ManifestRef) -> Description {
        let key = manifest.key.parse().unwrap();
        artifacts::restore::load_description(&self.objects, &key, None).await.unwrap()
    }
}

#[tokio::test]
async fn a_sealed_tree_becomes_durable_and_what_it_holds_is_not_sent_again() {
    let mut bench = Bench::sealed().await;
    let first = bench.save_sealed(1).await;
    let row = bench.row(&first).await;
    assert_eq!((row.name.as_str(), row.bytes, row.kind.as_str()), ("step-1", 1_000_000, "directory"));
    assert!(!row.packs.is_empty());
    let sealing = bench.sealing().await;
    let (second, sent) = bench.store(2, Some(sealing)).await;
    assert!((100_000..110_000).contains(&sent), "{sent}");
    assert_eq!(bench.commit(&second).await.unwrap(), Outcome::Durable);
    let key = second.key.parse().unwrap();
    verified(&bench.core, &key, bench.description(&second).await).await.unwrap();
    assert_eq!(bench.run().await.head.unwrap().key, second.key);
}

#[tokio::test]
async fn what_is_to_be_sealed_and_is_not_never_counts() {
    let mut bench = Bench::sealed().await;
    let (open, _) = bench.store(1, None).await;
    let Outcome::Refused(why) = bench.commit(&open).await.unwrap() else { panic!("it was taken") };
    assert!(why.contains("sealed"), "{why}");
    assert_eq!(adopt_stored(&bench.core, &bench.run().await, bench.attempt).await.unwrap(), 0);
    assert!(bench.run().await.head.is_none());
}

#[tokio::test]
async fn without_a_key_the_clear_part_is_enough_to_keep_and_to_check_it() {
    let mut bench = Bench::sealed().await;
    let other = PrivateKey::generate().unwrap().public().unwrap();
    let sealing = Arc::new(Sealing::new(&ProjectSecret::from_bytes([1; 32]), &[other]).unwrap());
    let (manifest, _) = bench.store(1, Some(sealing.clone())).await;
    assert_eq!(adopt_stored(&bench.core, &bench.run().await, bench.attempt).await.unwrap(), 1);
    let row = bench.row(&manifest).await;
    assert_eq!((row.name.as_str(), row.bytes, row.kind.as_str()), ("", 1_000_000, "sealed"));
    // The next save finds what it stored.
    let (_, sent) = bench.store(2, Some(sealing)).await;
    assert!((100_000..110_000).contains(&sent), "{sent}");
    let key: ObjectKey = manifest.key.parse().unwrap();
    verified(&bench.core, &key, bench.description(&manifest).await).await.unwrap();
    let pack = row.packs[0].parse().unwrap();
    assert!(bench.objects.flip(&pack, 40));
    let error = verified(&bench.core, &key, bench.description(&manifest).await).await.unwrap_err();
    assert!(!is_passing(&error) && blamed(&error) == Some(&pack), "{error}");
    // That no key opens it is no reason to give it up.
    let error = load_manifest(&bench.objects, &key, None).await.unwrap_err();
    assert!(is_passing(&error), "{error}");
}

#[tokio::test]
async fn a_sealed_part_that_does_not_open_is_refused() {
    let mut bench = Bench::sealed().await;
    let sealing = bench.sealing().await;
    let (manifest, _) = bench.store(1, Some(sealing)).await;
    let key: ObjectKey = manifest.key.parse().unwrap();
    let size = bench.objects.size(&key).await.unwrap().unwrap();
    let bytes = bench.objects.get(&key, 0, size).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    for lie in
        [text.replacen("\"step\":1", "\"step\":9", 1), text.replace("A\"}", "B\"}").replace("=\"}", "A\"}")]
    {
        let at = ObjectKey::manifest(&bench.run.to_string(), 1, 60).unwrap();
        bench.objects.put_if_absent(&at, lie.as_bytes()).await.unwrap();
        let digest = Digest::of(lie.as_bytes()).to_string();
        let lying = ManifestRef { key: at.to_string(), digest, step: None };
        if lie != text {
            let outcome = bench.commit(&lying).await.unwrap();
            assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }
        bench.objects.delete(&at).await.unwrap();
    }
}

/// What it seals is `{"version":99,"shape":"new"}`, to the key of 32 sevens.
const LATER: &str = include_str!("later-sealed.json");

#[tokio::test]
async fn what_a_later_version_sealed_waits_until_this_program_is_upgraded() {
    let keys = |dir: &std::path::Path| {
        let recovery = PrivateKey::from_bytes([7; 32]).to_text();
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("recovery.key"), recovery.as_bytes()).unwrap();
        Arc::new(Keys::open(dir).unwrap())
    };
    let bench = Bench::of(keys, "always").await;
    let key = ObjectKey::manifest(&bench.run.to_string(), 1, 50).unwrap();
    bench.objects.put_if_absent(&key, LATER.as_bytes()).await.unwrap();
    let digest = Digest::of(LATER.as_bytes()).to_string();
    let manifest = ManifestRef { key: key.to_string(), digest, step: None };
    // Refused would be for good.
    let waits = bench.commit(&manifest).await.unwrap_err().to_string();
    assert!(waits.contains("upgrade") && waits.contains(key.as_str()), "{waits}");
    // And binding now would lose it.
    let waits = adopt_stored(&bench.core, &bench.run().await, bench.attempt).await.unwrap_err().to_string();
    assert!(waits.contains("upgrade") && waits.contains(key.as_str()), "{waits}");
}
