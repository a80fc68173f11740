//! Nobody answers: what is complete is stored all the same under signed URLs,
//! told as no more than that, and durable once somebody does.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::AtomicU8;

use artifacts::store::MemoryStore;
use artifacts::store::booklet::plan::{OFFLINE_COVER, plan};
use artifacts::store::booklet::simulated::SimulatedBucket;
use artifacts::{ChunkIndex, Digest, Location, Put, Store, StoreError};

use super::*;
use crate::world::{BookletAsk, Gateway, Handed, Settlement};

const ANSWERS: u8 = 0;
const NOT_CONNECTED: u8 = 1;
/// Connected, and no answer ever comes.
const SILENT: u8 = 2;
/// Commits are answered with what passes.
const CONTENDED: u8 = 3;
const SUPERSEDES: u8 = 4;
/// The first commit takes ten minutes; all else is answered.
const SLOW: u8 = 5;
/// Takes nothing in the clear.
const SEALS: u8 = 6;

/// A controller in one of these moods, and the bucket behind it.
struct Hub {
    bucket: SimulatedBucket,
    objects: MemoryStore,
    mood: AtomicU8,
    committed: Mutex<Vec<String>>,
    through: Mutex<Vec<String>>,
    slow: Mutex<Option<String>>,
}

impl Hub {
    fn new() -> Arc<Self> {
        let objects = MemoryStore::default();
        let bucket = SimulatedBucket::new(objects.clone(), [3; 32], os::unix_ms);
        let (committed, through) = (Mutex::default(), Mutex::default());
        let slow = Mutex::default();
        Arc::new(Self { bucket, objects, mood: AtomicU8::new(ANSWERS), committed, through, slow })
    }

    async fn is_sealed(&self, key: &str) -> bool {
        let key: ObjectKey = key.parse().unwrap();
        let size = self.objects.size(&key).await.unwrap().unwrap();
        artifacts::seal::has_sealed_shape(&key, &self.objects.get(&key, 0, size).await.unwrap())
    }

    fn is(&self, mood: u8) {
        self.mood.store(mood, Ordering::Relaxed);
    }

    async fn ask(&self) -> Result<u8, StoreError> {
        match self.mood.load(Ordering::Relaxed) {
            NOT_CONNECTED => Err(StoreError::Remote("nobody is there".into())),
            SILENT => std::future::pending().await,
            mood => Ok(mood),
        }
    }

    fn committed(&self) -> Vec<String> {
        self.committed.lock().unwrap().clone()
    }
}

#[async_trait::async_trait]
impl Store for Hub {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        self.ask().await?;
        self.through.lock().unwrap().push(key.to_string());
        self.objects.put_if_absent(key, bytes).await
    }
    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.ask().await?;
        self.objects.get(key, offset, len).await
    }
    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.ask().await?;
        self.objects.size(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        self.ask().await?;
        self.objects.list(prefix).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.objects.delete(key).await
    }
}

#[async_trait::async_trait]
impl ChunkIndex for Hub {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        self.ask().await?;
        Ok(vec![None; digests.len()])
    }
}

#[async_trait::async_trait]
impl Gateway for Hub {
    async fn commit(&self, _: &v1::Work, key: &str, _: &str) -> Commit {
        match self.ask().await {
            Err(error) => Commit::Unknown(error.to_string()),
            Ok(CONTENDED) => Commit::Again("the rows kept changing".into()),
            Ok(SUPERSEDES) => Commit::Superseded,
            Ok(SEALS) if !self.is_sealed(key).await => {
                Commit::Refused("the run's trees are to be sealed, and this one is not".into())
            }
            Ok(SLOW) if self.slow.lock().unwrap().get_or_insert_with(|| key.to_owned()) == key => {
                tokio::time::sleep(Duration::from_mins(10)).await;
                self.committed.lock().unwrap().push(key.to_owned());
                Commit::Durable
            }
            Ok(_) => {
                self.committed.lock().unwrap().push(key.to_owned());
                Commit::Durable
            }
        }
    }
    async fn tree(
        &self,
        _: &v1::Work,
        key: &ObjectKey,
        digest: Digest,
    ) -> Result<artifacts::Manifest, artifacts::restore::RestoreError> {
        artifacts::restore::load_manifest(self, key, Some(digest)).await
    }
    async fn condemn(&self, _: &v1::Work, _: &str, _: &str) {}
    fn reachable(&self) -> bool {
        self.mood.load(Ordering::Relaxed) != NOT_CONNECTED
    }
    async fn booklet(&self, work: &v1::Work, ask: &BookletAsk) -> Handed {
        if self.ask().await.is_err() {
            return Handed::Unknown("nobody is there".into());
        }
        let plan = plan(ask.measured, OFFLINE_COVER, ask.next);
        let signed = self.bucket.sign_ahead(&work.run_id, work.generation, &plan, os::unix_ms()).await;
        let valid_ms = plan.valid.as_millis() as u64;
        Handed::Booklet { booklet: Box::new(signed.unwrap()), valid_ms, covers_ms: 1 }
    }
}

/// One attempt under a hub.
struct Night {
    place: Place,
    hub: Arc<Hub>,
    gateway: SharedGateway,
    work: v1::Work,
}

impl Night {
    fn new() -> Self {
        let hub = Hub::new();
        let mut night = Self {
            place: Place::new(),
            gateway: hub.clone(),
            hub,
            work: v1::Work {
                run_id: "run".into(),
                attempt_id: "a".into(),
                generation: 1,
                ..v1::Work::default()
            },
        };
        night.place.spec.checkpoints.keep_local = 1;
        night.work.spec_json = serde_json::to_string(&night.place.spec).unwrap();
        night.begin();
        night
    }

    /// Another process of the agent: it knows what is on the disk.
    fn begin(&mut self) {
        let bucket = self.hub.bucket.clone();
        let connect: Connect = Arc::new(move |_| Arc::new(bucket.clone()));
        self.place.publishing = Publishing { share: 0, connect, ..Publishing::default() };
    }

    async fn save(&self, name: &str, text: &str) -> Published {
        self.place.put(name, text);
        self.place.until_ready(name);
        self.publish(name).await
    }

    async fn publish(&self, name: &str) -> Published {
        let Place { dir, publishing, spec, .. } = &self.place;
        let found = publishing.candidates(dir, "a", spec, false);
        let candidate = found.into_iter().find(|candidate| candidate.name == name).expect(name);
        publishing.checkpoint(dir, &self.work, spec, &candidate, &self.gateway).await
    }

    async fn settle(&self) -> Settlement {
        self.place.publishing.settle(&self.place.dir, &self.work, &self.gateway, false).await
    }

    fn state(&self, name: &str) -> String {
        self.place.ready(false);
        self.place.said(name).0
    }

    fn has(&self, file: &str) -> bool {
        self.place.dir.path().join(file).exists()
    }
}

fn steps(settlement: &Settlement) -> Vec<Option<u64>> {
    let step = |outcome: &Published| match outcome {
        Published::Durable { step, .. } => Some(*step),
        _ => None,
    };
    settlement.outcomes.iter().filter_map(step).collect()
}

#[tokio::test]
async fn it_is_told_as_stored_outlives_the_agent_and_is_durable_in_order_later() {
    let mut night = Night::new();
    assert!(matches!(night.save("step-1.json", "{}").await, Published::Durable { .. }));
    assert!(night.hub.through.lock().unwrap().is_empty(), "straight to the store");
    let booklet = night.place.dir.path().join("booklet.json");
    assert_eq!(booklet.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    night.hub.is(NOT_CONNECTED);
    for (name, text) in [("step-2.json", "[2]"), ("step-3.json", "[3]")] {
        assert!(matches!(night.save(name, text).await, Published::Stored { .. }));
        assert_eq!(night.state(name), "stored");
    }
    assert!(night.place.dir.checkpoints().join("step-1.json").exists(), "the only durable one");
    // The agent dies; the next one knows, and goes on above every number.
    night.begin();
    assert_eq!(night.place.ready(false), [""; 0], "neither is published again");
    assert!(matches!(night.save("step-4.json", "[4]").await, Published::Stored { .. }));
    assert_eq!(night.state("step-2.json"), "stored");
    assert_eq!(night.settle().await, Settlement { outcomes: Vec::new(), left: 3 });
    let before: Vec<_> = night.hub.objects.list("").await.unwrap();
    assert_eq!(before.len(), 8, "a pack and a manifest each: {before:?}");
    assert_eq!(night.hub.committed().len(), 1);
    // Somebody is there again.
    night.hub.is(ANSWERS);
    let settled = night.settle().await;
    assert_eq!((steps(&settled), settled.left), (vec![Some(2), Some(3), Some(4)], 0));
    let committed = night.hub.committed();
    assert!(committed.is_sorted() && committed.len() == 4, "in order, each once: {committed:?}");
    assert_eq!(night.hub.objects.list("").await.unwrap(), before, "nothing was sent again");
    assert_eq!(night.state("step-4.json"), "published");
    assert!(!night.has("stored.json") && night.has("keys.json"));
    // And only now do older copies go: one is kept.
    assert!(!night.place.dir.checkpoints().join("step-2.json").exists());
    assert!(night.place.dir.checkpoints().join("step-4.json").exists());
    night.place.publishing.close(&night.place.dir, &night.work, &night.gateway).await;
    assert!(!night.has("booklet.json"), "a permission goes with what it was for");
}

#[tokio::test]
async fn what_waits_is_committed_before_what_comes_after_it() {
    let night = Night::new();
    assert!(matches!(night.save("step-1.json", "{}").await, Published::Durable { .. }));
    night.hub.is(NOT_CONNECTED);
    assert!(matches!(night.save("step-2.json", "[2]").await, Published::Stored { .. }));
    night.hub.is(ANSWERS);
    assert!(matches!(night.save("step-3.json", "[3]").await, Published::Durable { step: Some(3), .. }));
    assert!(night.hub.committed().is_sorted() && night.hub.committed().len() == 3);
    assert_eq!(steps(&night.settle().await), [Some(2)], "it is told, too");
}

#[tokio::test]
async fn without_a_booklet_nothing_is_stored_and_nothing_is_lost() {
    let night = Night::new();
    night.hub.is(NOT_CONNECTED);
    assert!(matches!(night.save("step-1.json", "{}").await, Published::Later(_)));
    night.hub.is(ANSWERS);
    assert!(matches!(night.publish("step-1.json").await, Published::Durable { .. }));
}

#[tokio::test]
async fn an_answer_that_passes_has_it_published_again_and_a_superseded_one_is_known_as_stray() {
    let night = Night::new();
    assert!(matches!(night.save("step-1.json", "{}").await, Published::Durable { .. }));
    night.hub.is(NOT_CONNECTED);
    assert!(matches!(night.save("step-2.json", "[2]").await, Published::Stored { .. }));
    night.hub.is(CONTENDED);
    let settled = night.settle().await;
    assert!(matches!(settled.outcomes[..], [Published::Later(_)]) && settled.left == 0, "{settled:?}");
    night.place.until_ready("step-2.json");
    night.hub.is(NOT_CONNECTED);
    assert!(matches!(night.publish("step-2.json").await, Published::Stored { .. }));
    assert!(matches!(night.save("step-3.json", "[3]").await, Published::Stored { .. }));
    night.hub.is(SUPERSEDES);
    let settled = night.settle().await;
    assert_eq!(
        settled.outcomes,
        [Published::Superseded, Published::Superseded],
        "each is told to the controller"
    );
}

/// The results too: whoever finishes must know that they are not durable.
#[tokio::test]
async fn results_whose_commit_comes_to_nothing_are_told_and_published_again() {
    let night = Night::new();
    assert!(matches!(night.save("step-1.json", "{}").await, Published::Durable { .. }));
    night.hub.is(NOT_CONNECTED);
    std::fs::create_dir_all(night.place.dir.outputs()).unwrap();
    std::fs::write(night.place.dir.outputs().join("r.txt"), "7").unwrap();
    let Place { dir, publishing, spec, .. } = &night.place;
    let outputs = || publishing.outputs(dir, &night.work, spec, &night.gateway);
    assert!(matches!(outputs().await, Published::Stored { .. }));
    assert_eq!(outputs().await, Published::Gone, "the store has these very ones");
    night.hub.is(CONTENDED);
    let settled = night.settle().await;
    assert!(matches!(settled.outcomes[..], [Published::Later(_)]) && settled.left == 0, "{settled:?}");
    night.hub.is(ANSWERS);
    assert!(matches!(outputs().await, Published::Durable { .. }));
}

/// Bytes in packs of the run.
async fn packed(night: &Night) -> u64 {
    let mut bytes = 0;
    for key in night.hub.objects.list("run/g0000000000000001/p").await.unwrap() {
        bytes += night.hub.objects.size(&key).await.unwrap().unwrap();
    }
    bytes
}

#[tokio::test]
async fn results_that_are_stored_between_two_saves_have_neither_sent_anew() {
    let night = Night::new();
    assert!(matches!(night.save("step-1.json", "{}").await, Published::Durable { .. }));
    night.hub.is(NOT_CONNECTED);
    let mut noise = vec![0; 3 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let text = artifacts::Digest::of(&noise).to_string();
    let big = format!("[\"{}\"", noise.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    // A checkpoint with results of its own, twice, without anybody's answer.
    std::fs::create_dir_all(night.place.dir.outputs()).unwrap();
    let mut before = 0;
    for step in 2..5 {
        std::fs::write(night.place.dir.outputs().join("r.txt"), format!("{step} {text}")).unwrap();
        let saved = night.save(&format!("step-{step}.json"), &format!("{big}, {step}]")).await;
        assert!(matches!(saved, Published::Stored { .. }), "{saved:?}");
        let after = packed(&night).await;
        assert!(step == 2 || after - before < 1 << 20, "step {step}: {} bytes were sent", after - before);
        before = after;
    }
    // Somebody answers, and is away again: the newest is known still.
    night.hub.is(ANSWERS);
    assert_eq!(night.settle().await.left, 0);
    night.hub.is(NOT_CONNECTED);
    assert!(matches!(night.save("step-5.json", &format!("{big}, 5]")).await, Published::Stored { .. }));
    assert!(packed(&night).await - before < 1 << 20);
    night.hub.is(ANSWERS);
    assert_eq!(night.settle().await.left, 0);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_says_nothing_costs_seconds_and_not_minutes() {
    let night = Night::new();
    assert!(matches!(night.save("step-1.json", "{}").await, Published::Durable { .. }));
    night.hub.is(SILENT);
    let began = tokio::time::Instant::now();
    assert!(matches!(night.save("step-2.json", "[2]").await, Published::Stored { .. }));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[tokio::test]
async fn a_disk_that_takes_no_more_numbers_keeps_nobody_from_storing() {
    let night = Night::new();
    // What cannot be written over is no file.
    std::fs::create_dir_all(night.place.dir.path().join("keys.json/x")).unwrap();
    assert!(matches!(night.save("step-1.json", "{}").await, Published::Durable { .. }));
    assert!(matches!(night.save("step-2.json", "[2]").await, Published::Durable { .. }));
    assert_eq!(night.hub.committed().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_takes_long_holds_up_no_other() {
    let night = Night::new();
    night.hub.is(SLOW);
    assert!(matches!(night.save("step-1.json", "[1]").await, Published::Stored { .. }));
    let began = tokio::time::Instant::now();
    assert!(matches!(night.save("step-2.json", "[2]").await, Published::Durable { .. }));
    assert!(matches!(night.save("step-3.json", "[3]").await, Published::Durable { .. }));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!((night.settle().await.left, night.hub.committed().len()), (1, 2));
    // It is asked for once, and its answer counts whenever it comes.
    tokio::time::sleep(Duration::from_mins(10)).await;
    let settled = night.settle().await;
    assert_eq!((steps(&settled), settled.left), (vec![Some(1)], 0));
    assert_eq!(night.hub.committed().len(), 3);
    assert_eq!(night.state("step-1.json"), "published");
}

#[tokio::test]
async fn a_run_that_is_to_be_sealed_from_now_on_loses_no_save_in_the_clear() {
    let night = Night::new();
    assert!(matches!(night.save("step-1.json", "[1]").await, Published::Durable { .. }));
    night.hub.is(NOT_CONNECTED);
    assert!(matches!(night.save("step-2.json", "[2]").await, Published::Stored { .. }));
    night.hub.is(SEALS);
    let settled = night.settle().await;
    assert!(matches!(settled.outcomes[..], [Published::Later(_)]) && settled.left == 0, "{settled:?}");
    let later = night.save("step-3.json", "[3]").await;
    assert!(matches!(&later, Published::Later(why) if why.contains("keys come")), "{later:?}");
    // The keys come with the next assignment.
    let sealing = v1::Sealing { secret: vec![1; 32], recipients: vec![public(), public()] };
    night.place.publishing.entrust(&v1::Work { sealing: Some(sealing), ..night.work.clone() });
    for name in ["step-2.json", "step-3.json"] {
        let saved = night.publish(name).await;
        assert!(matches!(saved, Published::Durable { .. }), "{saved:?}");
    }
    assert_eq!(night.hub.committed().len(), 3);
}

fn public() -> Vec<u8> {
    artifacts::seal::PrivateKey::generate().unwrap().public().unwrap().as_bytes().to_vec()
}
