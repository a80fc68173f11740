//! What tests of several modules begin from: a controller without machines and
//! one run at work. Never a promise of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use artifacts::index::{ChunkIndex, Location};
use artifacts::{Digest, Store, StoreError};
use async_trait::async_trait;
use lifecycle::{AttemptId, AttemptState, Generation, HubId, MachineId, RunId, RunState};
use proto::pki::Authority;
use serde_json::json;

use crate::clock::{Clock, Entropy};
use crate::core::{BootSettings, Changes, Core, Parts};
use crate::liveness::Clocks;
use crate::model::{Attempt, ManifestRef, Run, Versioned, Wish};
use crate::runfiles::RunFiles;
use crate::store::ChunkPut;

/// The machine of the attempt; it has no row.
pub(crate) const MACHINE: MachineId = MachineId::from_bytes([9; 16]);

/// A controller's parts, without providers; files lie in `dir`.
pub(crate) fn parts(dir: &Path, objects: Arc<dyn Store>) -> Parts {
    let hub = HubId::from_bytes([4; 16]);
    Parts {
        keys: Arc::default(),
        hub,
        authority: Authority::create(hub, SystemTime::now()).unwrap(),
        label_key: [1; 32],
        store: Arc::new(crate::store::MemoryStore::new()),
        objects,
        providers: BTreeMap::new(),
        clock: Clock::following_runtime(SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 20_000)),
        entropy: Entropy::seeded(1),
        clocks: Clocks::default(),
        files: RunFiles::new(dir.join("runs"), false),
        boot: BootSettings {
            endpoints: Vec::new(),
            join_endpoints: Vec::new(),
            agent_exe: "/agent".into(),
            cache_dir: dir.join("cache"),
        },
        restore_count: 0,
    }
}

/// The rows of a run at work and its first attempt.
pub(crate) fn at_work(provider: &str) -> (RunId, AttemptId, Changes) {
    at_work_with(provider, "auto")
}

/// The same, and whether its checkpoints are sealed.
pub(crate) fn at_work_with(provider: &str, encrypt: &str) -> (RunId, AttemptId, Changes) {
    let (run, attempt) = (RunId::from_bytes([7; 16]), AttemptId::from_bytes([8; 16]));
    let spec = json!({"project": "p", "name": "r", "command": ["x"], "provider": provider,
        "checkpoints": {"encrypt": encrypt}});
    let row: Run = serde_json::from_value(json!({
        "id": run, "name": "r", "spec": spec, "status": RunState::Running, "created_ms": 1,
        "generation": Generation::from_u64(1), "bound": attempt, "attempts": 1,
        "source": {"key": "source/g0000000000000001/m00000001", "digest": "", "step": null},
        "head": null, "outputs": null, "produced_step": null, "endings": [], "wish": Wish::Run, "token": "t"
    }))
    .unwrap();
    let tried: Attempt = serde_json::from_value(json!({
        "id": attempt, "run": run, "number": 1, "generation": Generation::from_u64(1), "machine": MACHINE,
        "status": AttemptState::Running, "bound_ms": 1, "resume": []
    }))
    .unwrap();
    (run, attempt, Changes::default().put(&Versioned::new(row)).put(&Versioned::new(tried)))
}

/// What the controller would tell a publisher of known chunks.
pub(crate) struct Index<'a>(pub(crate) &'a Core);

#[async_trait]
impl ChunkIndex for Index<'_> {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        let digests: Vec<[u8; 32]> = digests.iter().map(|d| *d.as_bytes()).collect();
        let found = self.0.store.locate(&digests).await.unwrap();
        let found = crate::durable::reliable(self.0, found, |_| false).await.unwrap();
        let place = |chunk: ChunkPut| Location {
            pack: chunk.pack.parse().unwrap(),
            offset: chunk.offset,
            len: chunk.len,
            stored: chunk.stored,
            codec: chunk.codec.try_into().unwrap(),
            cipher: chunk.cipher.map(Digest::from_bytes),
        };
        Ok(found.into_iter().map(|chunk| chunk.map(place)).collect())
    }
}

/// How a commit names what was published.
pub(crate) fn named(published: &artifacts::Published) -> ManifestRef {
    ManifestRef {
        key: published.manifest_key.to_string(),
        digest: published.manifest_digest.to_string(),
        step: published.manifest.step,
    }
}

/// Bytes that no codec makes smaller.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}
