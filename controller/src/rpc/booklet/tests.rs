//! Who is handed URLs, for what, and who is not.

use std::sync::Arc;

use artifacts::store::MemoryStore;
use artifacts::store::booklet::simulated::SimulatedBucket;
use lifecycle::{AttemptId, AttemptState, RunId, RunState};
use tonic::Code;

use super::*;
use crate::model::Wish;

const EPOCH_MS: u64 = 86_400_000 * 20_000;

/// A controller with one run at work on one machine.
struct Bench {
    core: Arc<Core>,
    run: RunId,
    attempt: AttemptId,
    machine: MachineId,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new(objects: Arc<dyn artifacts::Store>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let core = Core::new(crate::bench::parts(dir.path(), objects));
        let (run, attempt) = (RunId::from_bytes([7; 16]), AttemptId::from_bytes([8; 16]));
        let machine = MachineId::from_bytes([9; 16]);
        let spec = json!({"project": "p", "name": "r", "command": ["x"], "provider": "local"});
        let row: Run = serde_json::from_value(json!({
            "id": run, "name": "r", "spec": spec, "status": RunState::Running, "created_ms": 1,
            "generation": Generation::from_u64(3), "bound": attempt, "attempts": 1,
            "source": {"key": "source/g0000000000000001/m00000001", "digest": "", "step": null},
            "head": null, "outputs": null, "produced_step": null, "endings": [], "wish": Wish::Run, "token": "t"
        }))
        .unwrap();
        let tried: Attempt = serde_json::from_value(json!({
            "id": attempt, "run": run, "number": 1, "generation": Generation::from_u64(3),
            "machine": machine, "status": AttemptState::Running, "bound_ms": 1, "resume": []
        }))
        .unwrap();
        let place: Machine = serde_json::from_value(json!({
            "id": machine, "provider": "local", "label": "l", "run": run, "status": MachineState::Ready,
            "instance": "i", "created_ms": 1, "usd_per_hour": 0.0
        }))
        .unwrap();
        let rows = Changes::default().put(&Versioned::new(row)).put(&Versioned::new(tried));
        assert!(core.commit(rows.put(&Versioned::new(place))).await.unwrap());
        Self { core, run, attempt, machine, _dir: dir }
    }

    fn ask(&self) -> v1::BookletRequest {
        v1::BookletRequest {
            attempt_id: self.attempt.to_string(),
            generation: 3,
            next_pack: 5,
            next_manifest: 2,
            between_saves_ms: 60_000,
            packs_per_save: 2,
        }
    }

    async fn asks(&self, machine: MachineId, ask: &v1::BookletRequest) -> Result<Vec<v1::BookletPart>, Code> {
        booklet(&self.core, machine, ask).await.map_err(|status| status.code())
    }

    async fn change(&self, act: impl FnOnce(&mut Run)) {
        let mut run: Versioned<Run> = self.core.need(&self.run.to_string()).await.unwrap();
        act(&mut run.body);
        assert!(self.core.commit(Changes::default().put(&run)).await.unwrap());
    }
}

fn bucket() -> SimulatedBucket {
    SimulatedBucket::new(MemoryStore::default(), [5; 32], || EPOCH_MS)
}

#[tokio::test]
async fn the_bound_attempt_is_handed_its_next_keys_in_small_parts_and_no_url_is_kept_or_shown() {
    let bucket = bucket();
    let bench = Bench::new(Arc::new(bucket.clone())).await;
    let parts = bench.asks(bench.machine, &bench.ask()).await.unwrap();
    let head = parts[0].head.clone().unwrap();
    assert!(parts.iter().all(|part| part.packs.len() <= PART && part.manifests.len() <= PART));
    assert!(parts.iter().skip(1).all(|part| part.head.is_none()));
    let packs: Vec<u64> = parts.iter().flat_map(|part| &part.packs).map(|leaf| leaf.seq).collect();
    let manifests: Vec<u64> = parts.iter().flat_map(|part| &part.manifests).map(|leaf| leaf.seq).collect();
    // Twelve hours of a save a minute, and half as much again.
    assert_eq!((packs.len(), manifests.len()), (2_160, 1_080));
    assert_eq!((head.packs as usize, head.manifests as usize), (packs.len(), manifests.len()));
    assert_eq!((packs[0], manifests[0], head.covers_ms), (5, 2, 12 * 3_600_000));
    let url = parts.iter().flat_map(|part| &part.packs).next().unwrap().put.clone();
    let signed = artifacts::store::booklet::SignedUrl::new(url.clone());
    let put = artifacts::store::booklet::SignedRequests::put(&bucket, &signed, b"x");
    assert_eq!(put.await, Ok(200), "it opens the store");
    let signature = url.rsplit('.').next().unwrap();
    let journal = bench.core.store.journal(0, 100, None).await.unwrap();
    let noted = journal.iter().find(|row| row.verb == "booklet").expect("that it was handed out is noted");
    assert_eq!(noted.detail["packs"], json!([5, 2_165]));
    let told = format!("{journal:?} {parts:?} {}", serde_json::to_string(&parts).unwrap());
    assert!(!told.contains(signature) && !told.contains("https://"), "a URL is a permission");
}

#[tokio::test]
async fn nobody_else_is_and_a_superseded_attempt_no_more() {
    let bench = Bench::new(Arc::new(bucket())).await;
    let ask = bench.ask();
    let stranger = MachineId::from_bytes([1; 16]);
    assert_eq!(bench.asks(stranger, &ask).await, Err(Code::PermissionDenied));
    for generation in [2, 4] {
        let other = v1::BookletRequest { generation, ..ask.clone() };
        assert_eq!(bench.asks(bench.machine, &other).await, Err(Code::FailedPrecondition), "{generation}");
    }
    for next_pack in [LAST - 5, u64::MAX] {
        let high = v1::BookletRequest { next_pack, ..ask.clone() };
        assert_eq!(bench.asks(bench.machine, &high).await, Err(Code::InvalidArgument));
    }
    assert!(bench.asks(bench.machine, &ask).await.is_ok());
    // Another attempt is bound: signing stops with it.
    bench.change(|run| run.generation = Generation::from_u64(4)).await;
    assert_eq!(bench.asks(bench.machine, &ask).await, Err(Code::FailedPrecondition));
    bench.change(|run| (run.generation, run.bound) = (Generation::from_u64(3), None)).await;
    assert_eq!(bench.asks(bench.machine, &ask).await, Err(Code::FailedPrecondition));
    let attempt = bench.attempt;
    bench.change(|run| (run.bound, run.status) = (Some(attempt), RunState::Succeeded)).await;
    assert_eq!(bench.asks(bench.machine, &ask).await, Err(Code::FailedPrecondition));
    bench.change(|run| run.status = RunState::Running).await;
    let mut machine: Versioned<Machine> = bench.core.need(&bench.machine.to_string()).await.unwrap();
    machine.body.status = MachineState::Destroying;
    assert!(bench.core.commit(Changes::default().put(&machine)).await.unwrap());
    assert_eq!(bench.asks(bench.machine, &ask).await, Err(Code::FailedPrecondition));
}

#[tokio::test]
async fn a_store_that_signs_nothing_says_so() {
    let bench = Bench::new(Arc::new(MemoryStore::default())).await;
    let refused = booklet(&bench.core, bench.machine, &bench.ask()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("signs no URLs"), "{refused}");
}
