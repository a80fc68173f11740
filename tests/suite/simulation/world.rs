//! What outlives the processes of a simulated world: rows, objects, provider
//! and files, and a person who submits the run and answers its questions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use agent::booklets::Connect;
use artifacts::store::booklet::simulated::SimulatedBucket;
use controller::clock::{Clock, Entropy};
use controller::core::{BootSettings, Changes, Core, Parts};
use controller::liveness::Clocks;
use controller::model::{ManifestRef, Run, Versioned, Wish};
use controller::money;
use controller::provider::{Faults, Provider, SimulatedConfig, SimulatedProvider};
use controller::runfiles::RunFiles;
use controller::store::{MemoryStore, Store};
use lifecycle::{Generation, HubId, RunId, RunSpec, RunState};
use proto::pki::Authority;

use super::faults::{Away, Options};
use super::hosts::{AGENTS, JOIN};
use super::machine::Oracle;

pub(super) const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// Everything that outlives a process.
pub(super) struct World {
    pub(super) dir: PathBuf,
    pub(super) store: Arc<MemoryStore>,
    pub(super) objects: Arc<dyn artifacts::Store>,
    bucket: SimulatedBucket,
    pub(super) provider: Arc<SimulatedProvider>,
    pub(super) oracle: Arc<Mutex<Oracle>>,
    root: (String, String),
    pub(super) hub: HubId,
    pub(super) seed: u64,
    /// Instances that the provider made and destroyed, for the outer loop.
    pub(super) births: Arc<Mutex<Vec<(String, String)>>>,
    pub(super) deaths: Arc<Mutex<Vec<String>>>,
    /// For so long nobody may have learned of a machine's end.
    pub(super) away: Duration,
    /// Milliseconds since the beginning, for who asks outside a host.
    pub(super) outside: Arc<AtomicU64>,
}

pub(super) fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + EPOCH + turmoil::sim_elapsed().unwrap_or_default()
}

/// Dollars an hour of a machine: a cent a second.
pub(super) const PRICE: f64 = 36.0;

fn spec(room_usd: Option<f64>) -> RunSpec {
    let mut spec: RunSpec = serde_json::from_value(serde_json::json!({
        "project": "sim", "name": "sim", "command": ["train"], "provider": "simulated"
    }))
    .unwrap();
    if let Some(room) = room_usd {
        spec.max_usd_per_hour = Some(PRICE);
        // What is kept back for a machine's end is no room for its work.
        spec.max_usd = Some(money::least_cap(&spec, &spec.machine, 0, true) + room);
    }
    spec
}

impl World {
    pub(super) fn new(seed: u64, dir: &Path, options: &Options) -> Self {
        let births: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let deaths: Arc<Mutex<Vec<String>>> = Arc::default();
        // Outside the hosts nobody but the loop knows the time.
        let outside: Arc<AtomicU64> = Arc::default();
        let loops = outside.clone();
        let now_ms = move || {
            let inside = turmoil::sim_elapsed().map(|elapsed| elapsed.as_millis() as u64);
            EPOCH.as_millis() as u64 + inside.unwrap_or_else(|| loops.load(Ordering::Relaxed))
        };
        let mut config = SimulatedConfig::new(seed, now_ms.clone());
        config.usd_per_hour = PRICE;
        config.paid = options.room_usd.is_some();
        config.boot_ms = 500;
        config.settle_window_ms = 20_000;
        if options.provider_faults {
            config.faults = Faults {
                create_rejected: 0.1,
                create_lost: 0.1,
                create_reply_lost: 0.2,
                create_visible_late: 0.2,
                list_error: 0.2,
                list_partial: 0.1,
                get_error: 0.2,
                destroy_lost: 0.2,
                destroy_reply_lost: 0.2,
            };
        }
        let (b, d) = (births.clone(), deaths.clone());
        config.on_create = Box::new(move |request| {
            b.lock().unwrap().push((request.machine_id.clone(), request.user_data.clone()));
        });
        config.on_destroy = Box::new(move |instance| d.lock().unwrap().push(instance.to_owned()));
        let memory = artifacts::store::MemoryStore::default();
        let bucket = SimulatedBucket::new(memory.clone(), [7; 32], now_ms);
        let objects: Arc<dyn artifacts::Store> =
            if options.signs { Arc::new(bucket.clone()) } else { Arc::new(memory) };
        let hub = HubId::from_bytes([9; 16]);
        let authority = Authority::create(hub, SystemTime::UNIX_EPOCH + EPOCH).unwrap();
        Self {
            dir: dir.to_owned(),
            store: Arc::new(MemoryStore::new()),
            objects,
            bucket,
            provider: Arc::new(SimulatedProvider::new(config)),
            oracle: Arc::default(),
            root: (authority.root_pem().to_owned(), authority.key_pem().to_owned()),
            hub,
            seed,
            births,
            deaths,
            away: options.away.map_or(Duration::ZERO, Away::until),
            outside,
        }
    }

    /// How machines reach the bucket: it is there whoever is away.
    pub(super) fn connect(&self) -> Connect {
        let bucket = self.bucket.clone();
        Arc::new(move |_| Arc::new(bucket.clone()))
    }

    pub(super) fn core(&self) -> Arc<Core> {
        let provider: Arc<dyn Provider> = self.provider.clone();
        let since = turmoil::sim_elapsed().unwrap_or_default();
        Core::new(Parts {
            keys: std::sync::Arc::default(),
            hub: self.hub,
            authority: Authority::load(self.hub, &self.root.0, &self.root.1).unwrap(),
            label_key: [3; 32],
            store: self.store.clone(),
            objects: self.objects.clone(),
            providers: BTreeMap::from([(provider.name().to_owned(), provider)]),
            clock: Clock::following_runtime(wall()),
            entropy: Entropy::seeded(self.seed ^ since.as_nanos() as u64),
            clocks: Clocks { boot_deadline_ms: 60_000, sweep_ms: 10_000, ..Clocks::default() },
            files: RunFiles::new(self.dir.join("runs"), false),
            boot: BootSettings {
                endpoints: vec![format!("controller:{AGENTS}")],
                join_endpoints: vec![format!("controller:{JOIN}")],
                agent_exe: "/bin/agent".into(),
                cache_dir: "/cache".into(),
            },
            restore_count: 0,
        })
    }
}

/// The stores answer at once: one poll is enough.
pub(super) fn futures_block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub(super) async fn submit(world: &World, room_usd: Option<f64>, speculate: bool) -> RunId {
    let id = RunId::from_bytes([5; 16]);
    let mut spec = spec(room_usd);
    spec.machine.speculate = speculate;
    let run = Versioned::new(Run {
        id,
        name: "sim-run".into(),
        spec,
        status: RunState::Queued,
        created_ms: 0,
        ended_ms: 0,
        generation: Generation::NONE,
        bound: None,
        attempts: 0,
        source: ManifestRef {
            key: "source/g0000000000000001/m00000001".into(),
            digest: String::new(),
            step: None,
        },
        head: None,
        head_bytes: 0,
        told_percent: 0,
        outputs: None,
        produced_step: None,
        endings: Vec::new(),
        wish: Wish::Run,
        stop_grace: 0,
        stop_reason: None,
        stopped_by: String::new(),
        creates_ms: Vec::new(),
        rejections: 0,
        retry_at_ms: 0,
        steer: controller::model::Steer::default(),
        token: "t".into(),
        exit: None,
        parent: None,
        fork: None,
        work: String::new(),
        pins: std::collections::BTreeMap::new(),
    });
    world.store.commit(Changes::default().put(&run).0).await.unwrap();
    id
}

/// A person who answers every question with "go on".
pub(super) async fn answer(world: &World, id: RunId) {
    let row = world.store.get(controller::store::Kind::Run, &id.to_string()).await.unwrap().unwrap();
    let mut run: Versioned<Run> = Versioned::read(&row).unwrap();
    if let Ok(next) = run.body.status.apply(lifecycle::RunEvent::Answer) {
        run.body.status = next;
        run.body.creates_ms.clear();
        world.store.commit(Changes::default().put(&run).0).await.unwrap();
    }
}

pub(super) async fn load(world: &World, run: RunId) -> Run {
    let row = world.store.get(controller::store::Kind::Run, &run.to_string()).await.unwrap().unwrap();
    serde_json::from_str(&row.body).unwrap()
}

pub(super) fn is_over(world: &World, run: RunId) -> bool {
    let run = futures_block_on(load(world, run));
    run.status.is_final() && world.provider.truth().is_empty()
}

pub(super) fn trace(world: &World) -> Vec<String> {
    let rows = futures_block_on(world.store.journal(0, 100_000, None)).unwrap();
    rows.iter().map(|r| format!("{} {} {} {} {}", r.at_ms, r.actor, r.verb, r.object, r.detail)).collect()
}
