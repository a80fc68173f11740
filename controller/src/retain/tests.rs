//! What goes, what stays and what a late commit may still name.

use std::path::Path;
use std::sync::Arc;

use artifacts::publish::Keyframe;
use artifacts::store::MemoryStore;
use artifacts::{KeySpace, Put, Selection};
use lifecycle::{AttemptId, Generation, RunState};
use tokio::time::advance;

use super::*;
use crate::bench::{Index, at_work, named, noise, parts};
use crate::core::Parts;
use crate::durable::{Outcome, commit};
use crate::model::Attempt;
use crate::provider::{LocalConfig, LocalProvider, Provider};

const DAY: Duration = Duration::from_hours(24);
const NOW: Grace = Grace { unlinked_ms: 0, leaked_ms: 0 };

/// A controller without machines, one run at work, and its disk.
pub(crate) struct Bench {
    pub(crate) core: Arc<Core>,
    pub(crate) run: RunId,
    attempt: AttemptId,
    keys: KeySpace,
    keeper: Keeper,
    pub(crate) dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn new(restore_count: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalConfig { root: dir.path().join("machines"), usd_per_hour: 0.0 };
        let provider: Arc<dyn Provider> = Arc::new(LocalProvider::new(local));
        let core = Core::new(Parts {
            providers: BTreeMap::from([("local".to_owned(), provider)]),
            restore_count,
            ..parts(dir.path(), Arc::new(MemoryStore::default()))
        });
        let (run, attempt, rows) = at_work("local");
        assert!(core.commit(rows).await.unwrap());
        let keys = KeySpace { scope: run.to_string(), generation: 1, pack_seq: 1, manifest_seq: 1 };
        Self { core, run, attempt, keys, keeper: Keeper::default(), dir }
    }

    /// Publishes a save: what all saves share and what is its own.
    async fn publish(&mut self, step: u64) -> ManifestRef {
        let path = self.dir.path().join(format!("step-{step}"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("base"), noise(0, 3 << 20)).unwrap();
        std::fs::write(path.join("own"), noise(step, 100_000)).unwrap();
        named(&self.publish_from(&path, step, None).await)
    }

    /// Publishes a directory, as differences to a keyframe if there is one.
    pub(crate) async fn publish_from(
        &mut self,
        path: &Path,
        step: u64,
        base: Option<Arc<Keyframe>>,
    ) -> artifacts::Published {
        let selection = Selection::checkpoint(path, Some(step), 1).unwrap();
        let (index, objects) = (Index(&self.core), self.core.objects.clone());
        artifacts::publish_against(base, &selection, &mut self.keys, &*objects, &index, || true)
            .await
            .unwrap()
    }

    pub(crate) async fn commit(&self, manifest: &ManifestRef) -> Result<Outcome, CoreError> {
        commit(&self.core, self.attempt, Generation::from_u64(1), manifest).await
    }

    pub(crate) async fn saves(&mut self, steps: std::ops::RangeInclusive<u64>) {
        for step in steps {
            let manifest = self.publish(step).await;
            assert_eq!(self.commit(&manifest).await.unwrap(), Outcome::Durable);
        }
    }

    pub(crate) async fn change(&self, change: impl Fn(&mut Run)) {
        let mut row: Versioned<Run> = self.core.need(&self.run.to_string()).await.unwrap();
        change(&mut row.body);
        assert!(self.core.commit(Changes::default().put(&row)).await.unwrap());
    }

    pub(crate) async fn turn(&mut self, grace: Grace) -> Report {
        self.keeper.turn(&self.core, grace).await.unwrap()
    }

    pub(crate) async fn states(&self) -> Vec<(u64, CheckpointState)> {
        let rows = self.core.of_run::<Checkpoint>(self.run).await.unwrap();
        rows.iter().map(|row| (row.body.manifest.step.unwrap(), row.body.status)).collect()
    }

    /// Steps that are durable; each restores in full.
    pub(crate) async fn durable(&self) -> Vec<u64> {
        let mut steps = Vec::new();
        for row in self.core.of_run::<Checkpoint>(self.run).await.unwrap() {
            if row.body.status.is_durable() {
                let key = row.body.manifest.key.parse().unwrap();
                let tree = artifacts::restore::load_manifest(&*self.core.objects, &key, None).await.unwrap();
                artifacts::restore::verify(&*self.core.objects, &tree).await.unwrap();
                steps.push(row.body.manifest.step.unwrap());
            }
        }
        steps
    }

    async fn objects(&self) -> usize {
        self.core.objects.list("").await.unwrap().len()
    }
}

fn succeeded(run: &mut Run) {
    run.status = RunState::Succeeded;
}

#[tokio::test(start_paused = true)]
async fn an_old_run_keeps_its_newest_and_what_they_share_with_the_gone() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=12).await;
    assert_eq!(bench.objects().await, 24, "a pack and a manifest each");
    bench.change(succeeded).await;
    // The usual rule keeps all of a week.
    assert_eq!(bench.turn(Grace::default()).await, Report::default());
    advance(400 * DAY).await;
    let report = bench.turn(Grace::default()).await;
    // The first pack has what all of them share; the others have to wait.
    assert_eq!(report, Report { unlinked: 9, waiting: 17, deleted: 0 });
    assert_eq!(bench.objects().await, 24);
    advance(Duration::from_hours(23)).await;
    assert_eq!(bench.turn(Grace::default()).await.deleted, 0);
    advance(Duration::from_hours(1)).await;
    assert_eq!(bench.turn(Grace::default()).await.deleted, 17);
    assert_eq!(bench.turn(Grace::default()).await, Report::default());
    assert_eq!(bench.objects().await, 7);
    assert_eq!(bench.durable().await, [10, 11, 12]);
    let gone = bench.states().await.iter().filter(|(_, s)| *s == CheckpointState::Deleted).count();
    assert_eq!(gone, 9);
    let journal = bench.core.store.journal(0, 100, None).await.unwrap();
    let verbs: Vec<&str> = journal.iter().map(|row| row.verb.as_str()).filter(|v| *v != "durable").collect();
    assert_eq!(verbs, ["unlinked", "deleted"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_run_may_go_on_from_stays() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=9).await;
    advance(400 * DAY).await;
    // At work: what a new attempt is offered, and nothing of its generation is deleted.
    assert_eq!(bench.turn(NOW).await, Report { unlinked: 4, waiting: 0, deleted: 0 });
    assert_eq!(bench.durable().await, [5, 6, 7, 8, 9]);
    // Ended, but another run goes on from it.
    bench.change(succeeded).await;
    let row: Versioned<Run> = bench.core.need(&bench.run.to_string()).await.unwrap();
    let child = Run {
        id: RunId::from_bytes([70; 16]),
        parent: Some(bench.run),
        status: RunState::Queued,
        ..row.body.clone()
    };
    assert!(bench.core.commit(Changes::default().put(&Versioned::new(child.clone()))).await.unwrap());
    assert_eq!(bench.turn(NOW).await.unlinked, 0);
    assert_eq!(bench.durable().await, [5, 6, 7, 8, 9]);
    let mut child: Versioned<Run> = bench.core.need(&child.id.to_string()).await.unwrap();
    child.body.status = RunState::Cancelled;
    assert!(bench.core.commit(Changes::default().put(&child)).await.unwrap());
    assert_eq!(bench.turn(NOW).await.unlinked, 2);
    assert_eq!(bench.durable().await, [7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_takes_back_what_is_doomed_and_is_refused_what_goes() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=1).await;
    // Another generation publishes what refers to the first pack.
    let old = bench.keys.clone();
    bench.keys = KeySpace { generation: 2, ..bench.keys.clone() };
    let late = bench.publish(50).await;
    bench.keys = old;
    bench.saves(2..=9).await;
    bench.change(|run| run.generation = Generation::from_u64(2)).await;
    advance(400 * DAY).await;
    // Nothing durable needs the first pack once the older ones are let go:
    // make that so by condemning what is durable.
    for row in bench.core.of_run::<Checkpoint>(bench.run).await.unwrap() {
        crate::durable::condemn(&bench.core, "test", &row.body.manifest.key, "x", None).await.unwrap();
    }
    let report = bench.turn(Grace::default()).await;
    assert_eq!((report.waiting, report.deleted), (18, 0));
    let second = |attempt: &mut Versioned<Attempt>| attempt.body.generation = Generation::from_u64(2);
    let mut attempt: Versioned<Attempt> = bench.core.need(&bench.attempt.to_string()).await.unwrap();
    second(&mut attempt);
    assert!(bench.core.commit(Changes::default().put(&attempt)).await.unwrap());
    let commit_late = || commit(&bench.core, bench.attempt, Generation::from_u64(2), &late);
    assert_eq!(commit_late().await.unwrap(), Outcome::Durable);
    assert_eq!(leaving(&bench.core).await.unwrap().body.sweep.doomed.len(), 17, "one was taken back");
    advance(8 * DAY).await;
    assert_eq!(bench.turn(Grace::default()).await.deleted, 17);
    assert_eq!(bench.durable().await, [50]);

    // The same where the pack is already going.
    let mut record = leaving(&bench.core).await.unwrap();
    let pack = ObjectKey::pack(&bench.run.to_string(), 1, 1).unwrap().to_string();
    record.body.sweep.going.insert(pack);
    assert!(bench.core.commit(Changes::default().put(&record)).await.unwrap());
    bench.keys = KeySpace { generation: 2, pack_seq: 30, manifest_seq: 30, ..bench.keys.clone() };
    let next = bench.publish(51).await;
    let refused = commit(&bench.core, bench.attempt, Generation::from_u64(2), &next).await;
    assert!(matches!(refused, Err(CoreError::Contended)), "{refused:?}");
}

/// Looking for thousands of packs takes minutes: what was found first may be
/// deleted before the commit that names it is written.
#[tokio::test(start_paused = true)]
async fn what_was_there_when_it_was_looked_for_and_is_deleted_is_not_named() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=3).await;
    bench.change(succeeded).await;
    let packs: Vec<String> =
        (1..=3).map(|seq| ObjectKey::pack(&bench.run.to_string(), 1, seq).unwrap().to_string()).collect();
    let looked = looking(&bench.core).await.unwrap();
    let keys: Vec<String> = bench
        .core
        .of_run::<Checkpoint>(bench.run)
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.body.manifest.key)
        .collect();
    for key in &keys[1..] {
        crate::durable::condemn(&bench.core, "test", key, "x", None).await.unwrap();
    }
    let mut deleted = 0;
    for _ in 0..3 {
        deleted += bench.turn(NOW).await.deleted;
    }
    assert_eq!(deleted, 4, "two packs and two manifests");
    let name = async |packs: &[String]| {
        let mut looked = looked;
        naming(&bench.core, Changes::default(), packs, &mut looked).await.unwrap().map(drop)
    };
    assert_eq!(name(&packs).await, Err(packs[1].clone()));
    assert_eq!(name(&packs[..1]).await, Ok(()), "what is there is named, whatever else went");
}

#[tokio::test(start_paused = true)]
async fn what_leaked_goes_after_a_week_and_chunks_of_it_are_offered_no_more() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=1).await;
    let orphan = bench.publish(2).await;
    let stray = ObjectKey::pack(&bench.run.to_string(), 2, 1).unwrap();
    assert_eq!(bench.core.objects.put_if_absent(&stray, b"x").await.unwrap(), Put::Created);
    let source = ObjectKey::pack("source", 1, 1).unwrap();
    assert_eq!(bench.core.objects.put_if_absent(&source, b"x").await.unwrap(), Put::Created);
    bench.change(|run| run.generation = Generation::from_u64(2)).await;
    assert_eq!(bench.turn(Grace::default()).await.waiting, 2, "its pack and its manifest");
    advance(6 * DAY).await;
    assert_eq!(bench.turn(Grace::default()).await.deleted, 0);
    advance(DAY).await;
    assert_eq!(bench.turn(Grace::default()).await.deleted, 2);
    assert!(bench.core.objects.size(&orphan.key.parse().unwrap()).await.unwrap().is_none());
    assert_eq!(bench.objects().await, 4, "neither the source's nor the generation's at work");
    // The first checkpoint goes, and what it held must be sent again.
    crate::durable::condemn(
        &bench.core,
        "test",
        &bench.core.of_run::<Checkpoint>(bench.run).await.unwrap()[0].body.manifest.key,
        "x",
        None,
    )
    .await
    .unwrap();
    bench.turn(NOW).await;
    bench.keys = KeySpace { generation: 2, pack_seq: 5, manifest_seq: 5, ..bench.keys.clone() };
    let whole = bench.publish(3).await;
    let tree =
        artifacts::restore::load_manifest(&*bench.core.objects, &whole.key.parse().unwrap(), None).await;
    artifacts::restore::verify(&*bench.core.objects, &tree.unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rows_from_a_backup_begin_the_grace_anew() {
    let mut bench = Bench::new(3).await;
    bench.saves(1..=1).await;
    bench.publish(2).await;
    bench.change(|run| run.generation = Generation::from_u64(2)).await;
    let mut record = leaving(&bench.core).await.unwrap();
    record.body.restore_count = 2;
    let key = ObjectKey::pack(&bench.run.to_string(), 1, 2).unwrap().to_string();
    record.body.sweep.doomed.insert(key, 0);
    assert!(bench.core.commit(Changes::default().put(&record)).await.unwrap());
    assert_eq!(bench.turn(Grace::default()).await, Report { unlinked: 0, waiting: 2, deleted: 0 });
}

#[tokio::test(start_paused = true)]
async fn what_a_run_was_forked_from_stays_as_long_as_there_is_that_run() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=9).await;
    bench.change(succeeded).await;
    let row: Versioned<Run> = bench.core.need(&bench.run.to_string()).await.unwrap();
    let rows = bench.core.of_run::<Checkpoint>(bench.run).await.unwrap();
    let at = |step: u64| {
        rows.iter().find(|row| row.body.manifest.step == Some(step)).unwrap().body.manifest.clone()
    };
    let fork = crate::model::Fork { checkpoint: at(3), changes: Vec::new(), other_source: false };
    let child = Run {
        id: RunId::from_bytes([71; 16]),
        parent: Some(bench.run),
        fork: Some(fork),
        status: RunState::Queued,
        ..row.body.clone()
    };
    assert!(bench.core.commit(Changes::default().put(&Versioned::new(child.clone()))).await.unwrap());
    let core = bench.core.clone();
    let offered = async |run: Run| crate::durable::offered(&core, &run).await.unwrap();
    let steps = |offers: Vec<ManifestRef>| offers.iter().map(|m| m.step.unwrap()).collect::<Vec<_>>();
    assert_eq!(steps(offered(child.clone()).await), [3, 2, 1], "never a later one instead");
    // What goes on from the fork begins where that one did.
    let resumed =
        Run { id: RunId::from_bytes([72; 16]), parent: Some(child.id), fork: None, ..child.clone() };
    assert_eq!(steps(offered(resumed).await), [3, 2, 1]);

    advance(400 * DAY).await;
    assert_eq!(bench.turn(NOW).await.unlinked, 5);
    assert_eq!(bench.durable().await, [3, 7, 8, 9], "and no other only because of the fork");
    let mut child: Versioned<Run> = bench.core.need(&child.id.to_string()).await.unwrap();
    child.body.status = RunState::Succeeded;
    assert!(bench.core.commit(Changes::default().put(&child)).await.unwrap());
    assert_eq!(bench.turn(NOW).await.unlinked, 0);
    assert_eq!(bench.durable().await, [3, 7, 8, 9]);
    crate::durable::condemn(&bench.core, "test", &at(3).key, "x", None).await.unwrap();
    assert!(
        crate::durable::offered(&bench.core, &child.body).await.unwrap().is_empty(),
        "a bad one is not offered"
    );
}

#[tokio::test(start_paused = true)]
async fn the_best_by_the_named_metric_stay() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=9).await;
    bench
        .change(|run| {
            succeeded(run);
            run.spec.checkpoints.keep.best = 2;
            run.spec.checkpoints.best =
                Some(lifecycle::retention::score::Best { metric: "acc".into(), more: true });
        })
        .await;
    let dir = bench.core.files.attempt_dir("r", 1);
    std::fs::create_dir_all(&dir).unwrap();
    let line = |name: &str, step: u64, value: serde_json::Value| {
        json!({"t": 1, "name": name, "step": step, "value": value}).to_string() + "\n"
    };
    let points = [
        line("acc", 2, json!(0.9)),
        line("loss", 4, json!(99.0)),
        line("acc", 4, json!(0.5)),
        line("acc", 5, json!(0.7)),
        line("acc", 6, json!("NaN")),
        "torn".to_owned(),
    ];
    std::fs::write(dir.join("points.jsonl"), points.concat()).unwrap();
    advance(400 * DAY).await;
    assert_eq!(bench.turn(NOW).await.unlinked, 4);
    assert_eq!(bench.durable().await, [2, 5, 7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn an_import_that_died_half_way_goes_and_one_that_goes_on_does_not() {
    let mut bench = Bench::new(0).await;
    let put = async |scope: RunId, generation, number| {
        let key = ObjectKey::pack(&scope.to_string(), generation, number).unwrap();
        assert_eq!(bench.core.objects.put_if_absent(&key, b"x").await.unwrap(), Put::Created);
        key
    };
    let id = |n| RunId::from_bytes([n; 16]);
    // One that died; one that is at work; one that is whole and has no run; and
    // what a run whose rows are gone left.
    let died = [put(id(1), 0, 0).await, put(id(1), 0, 1).await];
    let first = put(id(2), 0, 0).await;
    let whole = put(id(3), 0, 0).await;
    let manifest = ObjectKey::manifest(&id(3).to_string(), 0, 0).unwrap();
    bench.core.objects.put_if_absent(&manifest, b"{}").await.unwrap();
    let ran = put(id(4), 1, 1).await;
    let core = bench.core.clone();
    let there = async |key: &ObjectKey| core.objects.size(key).await.unwrap().is_some();
    assert_eq!(bench.keeper.turn(&core, Grace::default()).await.unwrap().waiting, 3);
    advance(6 * DAY).await;
    let more = ObjectKey::pack(&id(2).to_string(), 0, 1).unwrap();
    core.objects.put_if_absent(&more, b"x").await.unwrap();
    assert_eq!(bench.turn(Grace::default()).await.deleted, 0);
    advance(DAY).await;
    assert_eq!(bench.turn(Grace::default()).await.deleted, 2);
    assert!(!there(&died[0]).await && !there(&died[1]).await);
    for key in [&first, &more, &whole, &manifest, &ran] {
        assert!(there(key).await, "{key}");
    }
    advance(7 * DAY).await;
    assert_eq!(bench.turn(Grace::default()).await.deleted, 2, "it came to nothing, too");
    assert!(there(&whole).await && there(&ran).await);
}
