//! What the loop still does while the store of objects does not answer, and
//! how few questions it is asked.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::SystemTime;

use artifacts::publish::About;
use artifacts::store::MemoryStore;
use artifacts::{Digest, KeySpace, Kind, ObjectKey, Put, StoreError};
use async_trait::async_trait;
use lifecycle::{AttemptId, Generation, MachineId, RunState};
use tokio::time::{sleep, timeout};

use super::*;
use crate::bench::{MACHINE, at_work, parts};
use crate::clock::Clock;
use crate::core::Parts;
use crate::model::{Checkpoint, Versioned};
use crate::provider::{CreateOutcome, Provider, SimulatedConfig, SimulatedProvider};

/// How the store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Good,
    /// It takes the question and never answers.
    Silent,
    Away,
    /// The next manifest is read, and the one after that is not.
    AwayAfterOneManifest,
    /// It says the size of a pack once it was asked for two.
    Together,
}

struct Moody {
    inner: MemoryStore,
    mood: Mutex<Mood>,
    asked: Mutex<Vec<String>>,
    pair: tokio::sync::Barrier,
}

impl Moody {
    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn asked(&self, word: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.starts_with(word)).count()
    }

    async fn answer(&self, question: String) -> Result<(), StoreError> {
        let manifest = question.starts_with("get") && question.contains("/m");
        let pack = question.starts_with("size") && question.contains("/p");
        self.asked.lock().unwrap().push(question);
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Together if pack => {
                self.pair.wait().await;
                Ok(())
            }
            Mood::Together => Ok(()),
            Mood::Good => Ok(()),
            Mood::Silent => std::future::pending().await,
            Mood::Away => Err(StoreError::Remote("connection refused".into())),
            Mood::AwayAfterOneManifest if manifest && self.asked("get") > 1 => {
                self.set(Mood::Good);
                Err(StoreError::Remote("connection refused".into()))
            }
            Mood::AwayAfterOneManifest => Ok(()),
        }
    }
}

#[async_trait]
impl artifacts::Store for Moody {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        self.inner.put_if_absent(key, bytes).await
    }
    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.answer(format!("get {key}")).await?;
        self.inner.get(key, offset, len).await
    }
    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.answer(format!("size {key}")).await?;
        self.inner.size(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        self.answer(format!("list {prefix}")).await?;
        self.inner.list(prefix).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.inner.delete(key).await
    }
}

/// A controller whose one run was bound to a machine that is gone.
struct Bench {
    core: Arc<Core>,
    store: Arc<Moody>,
    provider: Arc<SimulatedProvider>,
    run: RunId,
    attempt: AttemptId,
    _dir: tempfile::TempDir,
}

fn machine(
    id: MachineId,
    run: RunId,
    state: &MachineState,
    label: &str,
    instance: &str,
) -> Versioned<Machine> {
    let row = json!({
        "id": id, "provider": "simulated", "label": label, "run": run, "status": state, "instance": instance,
        "created_ms": 1, "usd_per_hour": 0.0,
    });
    Versioned::new(serde_json::from_value(row).unwrap())
}

impl Bench {
    async fn new(mood: Mood) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::following_runtime(SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 20_000));
        let of_provider = clock.clone();
        let provider =
            Arc::new(SimulatedProvider::new(SimulatedConfig::new(1, move || of_provider.mono_ms())));
        let store = Arc::new(Moody {
            inner: MemoryStore::default(),
            mood: mood.into(),
            asked: Mutex::default(),
            pair: tokio::sync::Barrier::new(2),
        });
        let core = Core::new(Parts {
            providers: BTreeMap::from([("simulated".to_owned(), provider.clone() as Arc<dyn Provider>)]),
            clock,
            ..parts(dir.path(), store.clone())
        });
        let (run, attempt, rows) = at_work("simulated");
        let changes = rows.put(&machine(MACHINE, run, &MachineState::Destroyed, "l", "i"));
        assert!(core.commit(changes).await.unwrap());
        Self { core, store, provider, run, attempt, _dir: dir }
    }

    /// Runs the loop beside a script that ends within an hour of its time.
    async fn beside(&self, script: impl Future<Output = ()>) {
        let looping = run(self.core.clone(), CancellationToken::new());
        tokio::select! {
            done = timeout(Duration::from_hours(1), script) => done.expect("the script ends"),
            () = looping => panic!("the loop ended"),
        }
    }

    async fn until(&self, what: impl Fn(&Run) -> bool) {
        loop {
            let row: Versioned<Run> = self.core.need(&self.run.to_string()).await.unwrap();
            if what(&row.body) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn told(&self, word: &str) -> bool {
        self.core.alerts().iter().any(|alert| alert.contains(word))
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_holds_up_nobody_elses_run() {
    let bench = Bench::new(Mood::Silent).await;
    let Bench { core, store, provider, .. } = &bench;
    bench
        .beside(async {
            while store.asked("list") == 0 {
                sleep(Duration::from_millis(50)).await;
            }
            // Only now, so that no order of actions can have done it before.
            let (other, id) = (RunId::from_bytes([17; 16]), MachineId::from_bytes([19; 16]));
            let label = crate::label::write(core.hub, id, &core.label_key);
            let request = crate::provider::contract::request(&"m".repeat(26), &label, "");
            let CreateOutcome::Created { instance } = provider.create(&request).await else {
                panic!("no machine was made");
            };
            let row = machine(id, other, &MachineState::Destroying, &label, &instance);
            assert!(core.commit(Changes::default().put(&row)).await.unwrap());
            while core.need::<Machine>(&id.to_string()).await.unwrap().body.status != MachineState::Destroyed
            {
                sleep(Duration::from_millis(50)).await;
            }
            while !bench.told("has not answered yet") {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    assert_eq!(store.asked("list"), 1, "one question at a time");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_asked_ever_more_rarely_and_it_is_told() {
    let bench = Bench::new(Mood::Away).await;
    bench
        .beside(async {
            sleep(Duration::from_secs(120)).await;
            let asked = bench.store.asked("list");
            assert!((5..15).contains(&asked), "asked {asked} times in two minutes");
            assert!(bench.told("connection refused"), "{:?}", bench.core.alerts());
            bench.until(|run| run.status == RunState::Running).await;
            bench.store.set(Mood::Good);
            bench.until(|run| run.status != RunState::Running).await;
            while bench.told("connection refused") {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
}

fn about(step: u64) -> About {
    About {
        kind: Kind::Checkpoint,
        step: Some(step),
        name: format!("step-{step}"),
        single_file: false,
        created_ms: 1,
    }
}

struct Nowhere;

#[async_trait]
impl artifacts::ChunkIndex for Nowhere {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<artifacts::Location>>, StoreError> {
        Ok(vec![None; digests.len()])
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_verified_is_not_read_again() {
    let bench = Bench::new(Mood::AwayAfterOneManifest).await;
    let about = about(3);
    let mut keys = KeySpace { scope: bench.run.to_string(), generation: 1, pack_seq: 1, manifest_seq: 1 };
    let files = [("weights".to_owned(), b"what was learnt".to_vec())];
    artifacts::publish_bytes(&files, &about, &mut keys, &*bench.store, &Nowhere).await.unwrap();
    let run: Versioned<Run> = bench.core.need(&bench.run.to_string()).await.unwrap();
    let adopt = || crate::durable::adopt_stored(&bench.core, &run.body, bench.attempt);
    adopt().await.expect_err("the commit cannot read the manifest");
    let pack = format!("get {}", ObjectKey::pack(&bench.run.to_string(), 1, 1).unwrap());
    assert_eq!(bench.store.asked(&pack), 1);
    assert_eq!(adopt().await.unwrap(), 1);
    assert_eq!(bench.store.asked(&pack), 1, "verified once");
    let saved = bench.core.of_run::<Checkpoint>(bench.run).await.unwrap();
    assert_eq!(saved[0].body.manifest.step, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_commit_asks_for_all_of_a_few_packs_at_once_and_each_time() {
    let bench = Bench::new(Mood::Together).await;
    let mut weights = vec![0; 9 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut weights);
    let files = [("weights".to_owned(), weights)];
    let mut keys = KeySpace { scope: bench.run.to_string(), generation: 1, pack_seq: 1, manifest_seq: 1 };
    let index = artifacts::index::MemoryIndex::default();
    for step in [3, 4] {
        let saved = artifacts::publish_bytes(&files, &about(step), &mut keys, &*bench.store, &index).await;
        let saved = saved.unwrap();
        assert_eq!(saved.manifest.packs().len(), 2);
        index.add(&saved.manifest);
        let reference = crate::model::ManifestRef {
            key: saved.manifest_key.to_string(),
            digest: saved.manifest_digest.to_string(),
            step: None,
        };
        let generation = Generation::from_u64(1);
        let committed = crate::durable::commit(&bench.core, bench.attempt, generation, &reference);
        let outcome = timeout(Duration::from_hours(1), committed).await.expect("both are asked for");
        assert_eq!(outcome.unwrap(), crate::durable::Outcome::Durable);
    }
    // They may be gone since the commit before.
    assert_eq!(bench.store.asked(&format!("size {}/g0000000000000001/p", bench.run)), 4);
}
