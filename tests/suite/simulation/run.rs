//! One simulated world from a seed: a controller that may be bounced, a
//! provider that loses replies, machines that die, links that break; and the
//! checks by somebody who sees everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use agent::driver::{Driver, Parts as DriverParts};
use agent::identity::Identity;
use agent::uplink::{self, Carrier, Dialler, Io};
use controller::clock::{Clock, Entropy};
use controller::core::{BootSettings, Changes, Core, Parts};
use controller::liveness::Clocks;
use controller::model::{ManifestRef, Run, Versioned, Wish};
use controller::provider::{Faults, Provider, SimulatedConfig, SimulatedProvider};
use controller::runfiles::RunFiles;
use controller::store::{MemoryStore, Store};
use lifecycle::{Generation, HubId, RunId, RunSpec, RunState};
use proto::gateway::RemoteStore;
use proto::pki::Authority;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use turmoil::net::{TcpListener, TcpStream};

use super::judge::judge;
use super::machine::{Machine, Oracle};

const AGENTS: u16 = 9001;
const JOIN: u16 = 9002;
pub(super) const EPOCH: Duration = Duration::from_secs(1_800_000_000);
/// Faults happen only in this time.
const TROUBLE: Duration = Duration::from_secs(60);
/// By then everything must have converged.
const DEADLINE: Duration = Duration::from_secs(900);
/// From when to when the controller is away, if it is for long.
const AWAY: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(3_620));
const TICK: Duration = Duration::from_millis(10);

/// Which faults a seed has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Options {
    pub(super) machine_kills: u32,
    pub(super) agent_bounces: u32,
    pub(super) controller_bounces: u32,
    pub(super) partitions: u32,
    pub(super) one_way: u32,
    pub(super) holds: u32,
    pub(super) provider_faults: bool,
    pub(super) forget_resume: bool,
    /// The controller is away for an hour, while a slow program writes.
    pub(super) hour_away: bool,
}

impl Options {
    pub(super) fn calm() -> Self {
        Self {
            machine_kills: 0,
            agent_bounces: 0,
            controller_bounces: 0,
            partitions: 0,
            one_way: 0,
            holds: 0,
            provider_faults: false,
            forget_resume: false,
            hour_away: false,
        }
    }

    /// A random subset of the faults.
    pub(super) fn swarm(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let mut some = |most: u32| if rng.bool() { rng.u32(1..=most) } else { 0 };
        Self {
            machine_kills: some(3),
            agent_bounces: some(4),
            controller_bounces: some(3),
            partitions: some(2),
            one_way: some(2),
            holds: some(2),
            provider_faults: some(1) == 1,
            forget_resume: false,
            hour_away: false,
        }
    }
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) verdict: Result<(), String>,
    pub(super) trace: Vec<String>,
    pub(super) generations: u64,
    pub(super) machines: u64,
    /// The times that the controller noted of the first attempt's output.
    pub(super) times: Vec<serde_json::Value>,
}

/// Everything that outlives a process.
pub(super) struct World {
    pub(super) dir: PathBuf,
    pub(super) store: Arc<MemoryStore>,
    objects: artifacts::store::MemoryStore,
    pub(super) provider: Arc<SimulatedProvider>,
    pub(super) oracle: Arc<Mutex<Oracle>>,
    root: (String, String),
    hub: HubId,
    seed: u64,
    /// Instances that the provider made and destroyed, for the outer loop.
    births: Arc<Mutex<Vec<(String, String)>>>,
    deaths: Arc<Mutex<Vec<String>>>,
}

fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + EPOCH + turmoil::sim_elapsed().unwrap_or_default()
}

fn spec() -> RunSpec {
    serde_json::from_value(serde_json::json!({
        "project": "sim", "name": "sim", "command": ["train"], "provider": "simulated"
    }))
    .unwrap()
}

impl World {
    fn new(seed: u64, dir: &Path, options: &Options) -> Self {
        let births: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let deaths: Arc<Mutex<Vec<String>>> = Arc::default();
        let now_ms = || (EPOCH + turmoil::sim_elapsed().unwrap_or_default()).as_millis() as u64;
        let mut config = SimulatedConfig::new(seed, now_ms);
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
        let hub = HubId::from_bytes([9; 16]);
        let authority = Authority::create(hub, SystemTime::UNIX_EPOCH + EPOCH).unwrap();
        Self {
            dir: dir.to_owned(),
            store: Arc::new(MemoryStore::new()),
            objects: artifacts::store::MemoryStore::default(),
            provider: Arc::new(SimulatedProvider::new(config)),
            oracle: Arc::default(),
            root: (authority.root_pem().to_owned(), authority.key_pem().to_owned()),
            hub,
            seed,
            births,
            deaths,
        }
    }

    fn core(&self) -> Arc<Core> {
        let provider: Arc<dyn Provider> = self.provider.clone();
        let since = turmoil::sim_elapsed().unwrap_or_default();
        Core::new(Parts {
            hub: self.hub,
            authority: Authority::load(self.hub, &self.root.0, &self.root.1).unwrap(),
            label_key: [3; 32],
            store: self.store.clone(),
            objects: Arc::new(self.objects.clone()),
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

/// Accepts on a simulated listener.
async fn incoming(port: u16, tasks: &mut JoinSet<()>) -> ReceiverStream<std::io::Result<TcpStream>> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).await.unwrap();
    let (sender, receiver) = mpsc::channel(16);
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if sender.send(Ok(stream)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn controller(world: Arc<World>) -> turmoil::Result {
    let core = world.core();
    controller::ingest::cut_to_durable(&core).await?;
    let now = wall();
    let own =
        core.authority.issue(&proto::identity::Identity::Controller, now, Duration::from_secs(86_400))?;
    let clock: proto::tls::WallClock = Arc::new(wall);
    let mutual = proto::tls::server(core.authority.root_pem(), &own, clock.clone())?;
    let joining = proto::tls::join_server(&own, clock)?;
    let mut tasks = JoinSet::new();
    let agents = proto::accept::incoming(incoming(AGENTS, &mut tasks).await, mutual, Some(world.hub));
    let join = proto::accept::incoming(incoming(JOIN, &mut tasks).await, joining, None);
    let tracker = TaskTracker::new();
    let stop = CancellationToken::new();
    tasks.spawn(controller::reconcile::run(core.clone(), stop.clone()));
    let service = controller::rpc::join::JoinService::new(core.clone());
    tokio::try_join!(
        async {
            controller::app::serve_agents(core.clone(), &tracker, agents, stop.clone())
                .await
                .map_err(Box::<dyn std::error::Error>::from)
        },
        async {
            proto::serve::join(join, service, std::future::pending())
                .await
                .map_err(Box::<dyn std::error::Error>::from)
        },
    )?;
    Ok(())
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let from = text.find(start).map_or(text.len(), |at| at + start.len());
    text[from..].split(end).next().unwrap_or_default()
}

/// The two files that a first boot writes, out of the rendered script.
fn first_boot(state: &Path, script: &str) {
    let heredoc = |name: &str| {
        let body =
            between(script, &format!("cat > {name} <<'OUTLAST_END_OF_FILE'\n"), "\nOUTLAST_END_OF_FILE");
        std::fs::write(state.join(name), body).unwrap();
    };
    std::fs::create_dir_all(state).unwrap();
    heredoc("machine.json");
    heredoc("join.token");
}

async fn agent(state: PathBuf, machine: Arc<Machine>, seed: u64) -> turmoil::Result {
    let file = agent::identity::machine_file(&state)?;
    let incarnation = agent::identity::next_incarnation(&state)?;
    let own = Identity::open(&state, &file.machine_id)?;
    let lane = |port: u16| -> Dialler {
        Arc::new(move || {
            Box::pin(async move {
                let stream = TcpStream::connect(("controller", port)).await?;
                Ok(Box::new(stream) as Box<dyn Io>)
            })
        })
    };
    let config = uplink::Config {
        hub: file.hub_id,
        machine: file.machine_id.clone(),
        pin: file.ca_spki_sha256,
        carrier: Carrier { name: "simulated", link: lane(AGENTS), join: lane(JOIN) },
        incarnation,
        clock: Arc::new(wall),
        max_backoff: Duration::from_secs(5),
        seed: seed ^ incarnation,
        health_endpoint: String::new(),
    };
    let (link, handle) = uplink::build(config, own);
    let driver = Driver::new(DriverParts {
        world: machine,
        gateway: Arc::new(RemoteStore::newest(handle.bulk.clone())),
        up: handle.up,
        events: handle.events,
        held: handle.held,
        wall_ms: Arc::new(|| (EPOCH + turmoil::sim_elapsed().unwrap_or_default()).as_millis() as u64),
        boottime_ms: Arc::new(|| turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64),
        health: tokio::sync::watch::Sender::default(),
        turned_ms: Arc::default(),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(link);
    tasks.spawn(driver.run(CancellationToken::new()));
    tasks.join_next().await;
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillMachine,
    BounceAgent,
    BounceController,
    Partition(Duration),
    OneWay(Duration, bool),
    Hold(Duration),
}

fn schedule(options: &Options, rng: &mut fastrand::Rng) -> Vec<(Duration, Fault)> {
    let mut list = Vec::new();
    let at = |rng: &mut fastrand::Rng| Duration::from_millis(rng.u64(1_000..TROUBLE.as_millis() as u64));
    let long = |rng: &mut fastrand::Rng| Duration::from_millis(rng.u64(500..40_000));
    for _ in 0..options.machine_kills {
        list.push((at(rng), Fault::KillMachine));
    }
    for _ in 0..options.agent_bounces {
        list.push((at(rng), Fault::BounceAgent));
    }
    for _ in 0..options.controller_bounces {
        list.push((at(rng), Fault::BounceController));
    }
    for _ in 0..options.partitions {
        list.push((at(rng), Fault::Partition(long(rng))));
    }
    for _ in 0..options.one_way {
        list.push((at(rng), Fault::OneWay(long(rng), rng.bool())));
    }
    for _ in 0..options.holds {
        list.push((at(rng), Fault::Hold(Duration::from_millis(rng.u64(100..4_000)))));
    }
    list.sort_by_key(|(at, _)| *at);
    list
}

/// The machines that live, by id.
struct Fleet {
    live: BTreeMap<String, Arc<Machine>>,
    started: BTreeSet<String>,
}

/// Runs one world to its end.
pub(super) fn simulate(seed: u64, options: &Options) -> Outcome {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
    let world = Arc::new(World::new(seed, dir.path(), options));
    let run = futures_block_on(submit(&world));
    let deadline = if options.hour_away { AWAY.1 + DEADLINE } else { DEADLINE };
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut faults = schedule(options, &mut rng);
    let mut sim = turmoil::Builder::new()
        .simulation_duration(deadline * 2)
        .tick_duration(if options.hour_away { TICK * 5 } else { TICK })
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(30))
        .tcp_capacity(4_096)
        .rng_seed(seed)
        .build();
    let shared = world.clone();
    sim.host("controller", move || controller(shared.clone()));
    let mut fleet = Fleet { live: BTreeMap::new(), started: BTreeSet::new() };
    let mut heal: Vec<(Duration, String)> = Vec::new();
    let mut verdict = Err(format!("not converged within {deadline:?}"));
    let mut healed = false;
    let mut away = if options.hour_away { vec![AWAY.1, AWAY.0] } else { Vec::new() };
    while sim.elapsed() < deadline {
        if let Err(error) = sim.step() {
            verdict = Err(format!("a host ended: {error}"));
            break;
        }
        let now = sim.elapsed();
        births_and_deaths(&mut sim, &world, &mut fleet, options);
        if away.pop_if(|at| *at <= now).is_some() {
            leave_or_return(&mut sim, &fleet, away.is_empty());
        }
        while faults.first().is_some_and(|(at, _)| *at <= now) {
            let (_, fault) = faults.remove(0);
            inject(&mut sim, &world, &mut fleet, fault, now, &mut heal, &mut rng);
        }
        heal.retain(|(until, name)| {
            let over = *until <= now;
            if over {
                sim.release("controller", name.as_str());
                sim.repair("controller", name.as_str());
            }
            !over
        });
        if faults.is_empty() && heal.is_empty() && now > TROUBLE && !healed {
            healed = true;
            world.provider.set_faults(Faults::default());
        }
        if healed {
            futures_block_on(answer(&world, run));
        }
        if healed && away.is_empty() && is_over(&world, run) {
            verdict = judge(&world, run);
            break;
        }
    }
    let trace = trace(&world);
    let noted = world.dir.join("runs/sim-run/1/stdout.times.jsonl");
    let noted = std::fs::read_to_string(noted).unwrap_or_default();
    let times = noted.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let generations = futures_block_on(load(&world, run)).generation.as_u64();
    Outcome { verdict, trace, generations, machines: world.provider.made(), times }
}

/// The controller's host goes away without a farewell, or comes back.
fn leave_or_return(sim: &mut turmoil::Sim<'_>, fleet: &Fleet, returns: bool) {
    for id in fleet.live.keys() {
        if returns {
            sim.repair("controller", id.as_str());
        } else {
            sim.partition("controller", id.as_str());
        }
    }
    if returns {
        sim.bounce("controller");
    } else {
        sim.crash("controller");
    }
}

/// The stores answer at once: one poll is enough.
pub(super) fn futures_block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn submit(world: &World) -> RunId {
    let id = RunId::from_bytes([5; 16]);
    let run = Versioned::new(Run {
        id,
        name: "sim-run".into(),
        spec: spec(),
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
        outputs: None,
        produced_step: None,
        endings: Vec::new(),
        wish: Wish::Run,
        stop_grace: 0,
        stop_reason: None,
        creates_ms: Vec::new(),
        rejections: 0,
        retry_at_ms: 0,
        token: "t".into(),
        exit: None,
        parent: None,
    });
    world.store.commit(Changes::default().put(&run).0).await.unwrap();
    id
}

/// A person who answers every question with "go on".
async fn answer(world: &World, id: RunId) {
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

fn births_and_deaths(sim: &mut turmoil::Sim<'_>, world: &Arc<World>, fleet: &mut Fleet, options: &Options) {
    let births: Vec<_> = world.births.lock().unwrap().drain(..).collect();
    for (id, script) in births {
        if !fleet.started.insert(id.clone()) {
            continue;
        }
        let state = world.dir.join("machines").join(&id);
        first_boot(&state, &script);
        let outboxes = state.join("outboxes");
        std::fs::create_dir_all(&outboxes).unwrap();
        let machine = Arc::new(Machine::new(world.oracle.clone(), outboxes, options));
        fleet.live.insert(id.clone(), machine.clone());
        let seed = world.seed ^ fleet.started.len() as u64;
        sim.host(id.as_str(), move || agent(state.clone(), machine.clone(), seed));
    }
    // What the provider takes away goes without a farewell too.
    let deaths: Vec<_> = world.deaths.lock().unwrap().drain(..).collect();
    for instance in deaths {
        if let Some(id) = world.provider.machine_of(&instance)
            && fleet.live.remove(&id).is_some()
        {
            sim.partition("controller", id.as_str());
            sim.crash(id.as_str());
        }
    }
}

fn inject(
    sim: &mut turmoil::Sim<'_>,
    world: &World,
    fleet: &mut Fleet,
    fault: Fault,
    now: Duration,
    heal: &mut Vec<(Duration, String)>,
    rng: &mut fastrand::Rng,
) {
    let ids: Vec<String> = fleet.live.keys().cloned().collect();
    let victim = if ids.is_empty() { None } else { Some(ids[rng.usize(..ids.len())].clone()) };
    match (fault, victim) {
        // Crashes are power cuts: no farewell of any socket arrives. (In which
        // order a runtime drops its sockets is not the seed's to decide.)
        (Fault::BounceController, _) => {
            for id in &ids {
                sim.partition("controller", id.as_str());
                heal.push((now + TICK * 2, id.clone()));
            }
            sim.bounce("controller");
        }
        (Fault::KillMachine, Some(id)) => {
            for instance in world.provider.truth() {
                if world.provider.machine_of(&instance.id).as_deref() == Some(&id) {
                    world.provider.preempt(&instance.id);
                }
            }
            sim.partition("controller", id.as_str());
            if fleet.live.remove(&id).is_some() {
                sim.crash(id.as_str());
            }
        }
        (Fault::BounceAgent, Some(id)) => {
            sim.partition("controller", id.as_str());
            sim.bounce(id.as_str());
            heal.push((now + TICK * 2, id));
        }
        (Fault::Partition(long), Some(id)) => {
            sim.partition("controller", id.as_str());
            heal.push((now + long, id));
        }
        (Fault::OneWay(long, up), Some(id)) => {
            let (from, to) = if up { (id.as_str(), "controller") } else { ("controller", id.as_str()) };
            sim.partition_oneway(from, to);
            heal.push((now + long, id));
        }
        (Fault::Hold(long), Some(id)) => {
            sim.hold("controller", id.as_str());
            heal.push((now + long, id));
        }
        (_, None) => {}
    }
}

fn is_over(world: &World, run: RunId) -> bool {
    let run = futures_block_on(load(world, run));
    run.status.is_final() && world.provider.truth().is_empty()
}

fn trace(world: &World) -> Vec<String> {
    let rows = futures_block_on(world.store.journal(0, 100_000, None)).unwrap();
    rows.iter().map(|r| format!("{} {} {} {} {}", r.at_ms, r.actor, r.verb, r.object, r.detail)).collect()
}
