//! How one controller bears many agents: real mutual TLS, the real uplink with
//! its back-off, one lease a second each; many agents in one process. It never
//! stands in for an agent's work: no program runs, no checkpoint is stored.
//!
//! `bench-agents drive --agents 1000 --seconds 30` prepares an installation,
//! starts a controller (this program's `serve`), measures its memory, its
//! processor time and the answers to leases and to people; then ends it with
//! SIGKILL, starts it again and measures how everybody comes back. It prints
//! one line of JSON.
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program that measures: a terminal hears how far it is"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use agent::identity::Identity;
use agent::uplink::{self, Carrier, Event};
use clap::{Parser, Subcommand};
use controller::app::{self, Config, Providers};
use controller::home::Home;
use controller::liveness::Clocks;
use controller::model::{Attempt, BoundKey, Machine, ManifestRef, Run, Versioned};
use controller::provider::{
    CreateOutcome, CreateRequest, DestroyOutcome, Idempotency, InstanceState, Listing, Presence, Provider,
    Reach,
};
use controller::store::{Changeset, Mode, SqliteStore, Store as _};
use lifecycle::{AttemptId, MachineId, RunId};
use proto::v1::{self, up};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Rows written in one transaction.
const BATCH: usize = 250;
const DAY: Duration = Duration::from_hours(24);

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// A controller with machines that are simply there
    Serve {
        #[arg(long)]
        home: PathBuf,
    },
    /// Prepare, start, load, measure, kill, start again, measure
    Drive {
        #[arg(long, default_value = "1000")]
        agents: usize,
        #[arg(long, default_value = "30")]
        seconds: u64,
        /// Where the installation is made; a temporary directory otherwise
        #[arg(long)]
        home: Option<PathBuf>,
    },
}

/// Whatever is asked for is there and runs.
struct There;

#[async_trait::async_trait]
impl Provider for There {
    fn name(&self) -> &'static str {
        "bench"
    }
    fn reach(&self) -> Reach {
        Reach::MachineDials
    }
    fn idempotency(&self) -> Idempotency {
        Idempotency::ClientChosenName
    }
    fn usd_per_hour(&self) -> f64 {
        0.0
    }
    fn settle_window_ms(&self) -> u64 {
        1_000
    }
    async fn create(&self, _: &CreateRequest) -> CreateOutcome {
        CreateOutcome::rejected("no machine is made here")
    }
    async fn list(&self, _: &str) -> Listing {
        Listing::Partial(Vec::new())
    }
    async fn get(&self, _: &str) -> Presence {
        Presence::Present(InstanceState::Up)
    }
    async fn destroy(&self, _: &str) -> DestroyOutcome {
        DestroyOutcome::Absent
    }
}

fn main() {
    match Args::parse().verb {
        Verb::Serve { home } => serve(home),
        Verb::Drive { agents, seconds, home } => {
            let own = home.is_none();
            let home =
                home.unwrap_or_else(|| std::env::temp_dir().join(format!("ol-bench-{}", std::process::id())));
            let told = runtime(2).block_on(drive(&home, agents, seconds));
            println!("{told}");
            if own {
                let _ = fs::remove_dir_all(&home);
            }
        }
    }
}

fn runtime(threads: usize) -> tokio::runtime::Runtime {
    let made = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    made.expect("a runtime")
}

fn serve(home: PathBuf) {
    let exe = std::env::current_exe().expect("a program has a file");
    let config = Config { build_id: "bench".into(), home, agent_exe: exe, clocks: Clocks::default() };
    let more: Providers = BTreeMap::from([("bench".to_owned(), Arc::new(There) as Arc<dyn Provider>)]);
    let filter = std::env::var("OUTLAST_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_env_filter(filter).init();
    if let Err(error) = runtime(2).block_on(app::run_with(config, more)) {
        eprintln!("the controller failed: {error}");
        std::process::exit(70);
    }
}

/// What one agent is.
struct Seat {
    machine: MachineId,
    state: PathBuf,
}

/// Rows of agents at work, and what each agent has on its disk.
async fn prepare(home: &Path, agents: usize) -> (Vec<Seat>, lifecycle::HubId, String) {
    let opened = Home::open(home, SystemTime::now()).expect("a new installation");
    let store = SqliteStore::open(opened.path("outlast.db"), Mode::Thread).expect("a database");
    let mut seats = Vec::new();
    let mut changes = Changeset::default();
    for n in 0..agents {
        let machine = MachineId::from_bytes(id(1, n));
        let state = home.join("agents").join(machine.to_string());
        fs::create_dir_all(&state).expect("a directory");
        let identity =
            opened.authority.issue(&proto::identity::Identity::Machine(machine), SystemTime::now(), DAY);
        let identity = identity.expect("a certificate");
        fs::write(state.join("machine.key"), &identity.key_pem).expect("a file");
        fs::write(state.join("machine.pem"), &identity.chain_pem).expect("a file");
        fs::write(state.join("ca.pem"), opened.authority.root_pem()).expect("a file");
        let spki = proto::pki::MachineKey::from_pem(&identity.key_pem)
            .and_then(|key| proto::pki::csr_public_key(&key.request()?))
            .expect("its public key");
        rows(&mut changes, &opened, n, machine, &spki);
        seats.push(Seat { machine, state });
        if changes.put.len() >= BATCH * 4 {
            store.commit(std::mem::take(&mut changes)).await.expect("a transaction");
        }
    }
    store.commit(changes).await.expect("a transaction");
    let (hub, pin) = (opened.hub, opened.authority.pin().expect("a pin"));
    (seats, hub, pin)
}

fn id(kind: u8, n: usize) -> [u8; 16] {
    let mut bytes = [kind; 16];
    bytes[8..].copy_from_slice(&(n as u64).to_be_bytes());
    bytes
}

fn rows(changes: &mut Changeset, home: &Home, n: usize, machine: MachineId, spki: &[u8]) {
    let now = u64::try_from(
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis(),
    )
    .unwrap_or(0);
    let (run, attempt) = (RunId::from_bytes(id(2, n)), AttemptId::from_bytes(id(3, n)));
    let spec = json!({"project": "bench", "name": format!("r{n}"), "command": ["true"], "provider": "bench"});
    let source = ManifestRef { key: "none".into(), digest: "0".repeat(64), step: None };
    let of = |value: Value, what: &str| -> Value {
        assert!(value.is_object(), "{what}");
        value
    };
    let run_row: Run = serde_json::from_value(of(
        json!({
            "id": run, "name": format!("r{n}"), "spec": spec, "status": {"state": "running"}, "created_ms": now,
            "generation": 1, "bound": attempt, "attempts": 1, "source": source, "head": null, "outputs": null,
            "produced_step": null, "endings": [], "wish": "run", "token": format!("t{n}")
        }),
        "a run",
    ))
    .expect("a run");
    let attempt_row: Attempt = serde_json::from_value(of(
        json!({
            "id": attempt, "run": run, "number": 1, "generation": 1, "machine": machine,
            "status": {"state": "running"}, "bound_ms": now, "resume": [], "started_ms": now, "program_started": true
        }),
        "an attempt",
    ))
    .expect("an attempt");
    let machine_row: Machine = serde_json::from_value(of(
        json!({
            "id": machine, "provider": "bench", "label": controller::label::write(home.hub, machine, &home.label_key),
            "run": run, "status": {"state": "ready"}, "instance": machine.to_string(), "created_ms": now,
            "usd_per_hour": 0.0
        }),
        "a machine",
    ))
    .expect("a machine");
    let key = BoundKey {
        machine,
        thumbprint: proto::pki::sha256_hex(spki),
        spki: data_encoding::HEXLOWER.encode(spki),
        incarnation: 0,
        boot_id: String::new(),
    };
    changes.put.push(Versioned::new(run_row).write().1);
    changes.put.push(Versioned::new(attempt_row).write().1);
    changes.put.push(Versioned::new(machine_row).write().1);
    changes.put.push(Versioned::new(key).write().1);
}

/// What all agents together see.
#[derive(Default)]
struct Seen {
    connected: AtomicUsize,
    granted: AtomicU64,
    /// Milliseconds from a lease's asking to its grant.
    leases: Mutex<Vec<f64>>,
    /// Milliseconds since the controller's end at which each was welcomed again.
    back: Mutex<Vec<f64>>,
    ended: Mutex<Option<Instant>>,
    measuring: AtomicUsize,
}

async fn agent(
    seat: Seat,
    hub: lifecycle::HubId,
    pin: String,
    at: (String, String),
    seen: Arc<Seen>,
    n: usize,
) {
    let own = Identity::open(&seat.state, &seat.machine.to_string()).expect("its key");
    let config = uplink::Config {
        hub,
        machine: seat.machine.to_string(),
        pin,
        carrier: Carrier::dial(vec![at.0], vec![at.1]),
        incarnation: 1,
        clock: Arc::new(SystemTime::now),
        // As an agent has it.
        max_backoff: Duration::from_secs(5),
        seed: n as u64 ^ 0x9e37_79b9,
        health_endpoint: String::new(),
    };
    let (link, mut handle) = uplink::build(config, own);
    let mut own = JoinSet::new();
    own.spawn(link);
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut up, mut count, mut asked) = (false, 0_u64, BTreeMap::new());
    loop {
        tokio::select! {
            event = handle.events.recv() => match event {
                Some(Event::Connected) | None => {}
                Some(Event::Disconnected) => {
                    if up { seen.connected.fetch_sub(1, Relaxed); }
                    (up, count) = (false, 0);
                    asked.clear();
                }
                Some(Event::Down(down)) => match down.body {
                    Some(v1::down::Body::Welcome(_)) => {
                        up = true;
                        seen.connected.fetch_add(1, Relaxed);
                        if let Some(at) = *seen.ended.lock().expect("nobody panics") {
                            seen.back.lock().expect("nobody panics").push(at.elapsed().as_secs_f64() * 1e3);
                        }
                    }
                    Some(v1::down::Body::Granted(granted)) => {
                        seen.granted.fetch_add(1, Relaxed);
                        if let Some(at) = asked.remove(&granted.n) && seen.measuring.load(Relaxed) > 0 {
                            let at: Instant = at;
                            seen.leases.lock().expect("nobody panics").push(at.elapsed().as_secs_f64() * 1e3);
                        }
                    }
                    _ => {}
                },
            },
            _ = beat.tick(), if up => {
                count += 1;
                asked.insert(count, Instant::now());
                let renew = v1::Renew { n: count, ..v1::Renew::default() };
                let _ = handle.up.try_send(v1::Up { body: Some(up::Body::Renew(renew)) });
            }
        }
    }
}

/// The controller, and when it had planned for the first time.
struct Served {
    child: Child,
    began: Instant,
    planned: Arc<Mutex<Option<f64>>>,
}

fn start(home: &Path) -> Served {
    let exe = std::env::current_exe().expect("a program has a file");
    let began = Instant::now();
    let mut child = Command::new(exe)
        .args(["serve", "--home"])
        .arg(home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a controller");
    let planned = Arc::new(Mutex::new(None));
    let (said, out) = (planned.clone(), child.stderr.take().expect("its log"));
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if line.contains("planned for the first time") {
                said.lock().expect("nobody panics").get_or_insert(began.elapsed().as_secs_f64());
            }
            if std::env::var_os("BENCH_LOG").is_some() {
                eprintln!("{line}");
            }
        }
    });
    Served { child, began, planned }
}

/// Resident bytes now and at most, and processor seconds so far.
fn usage(pid: u32) -> (u64, u64, f64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    // utime and stime: the 14th and 15th field, the state and two more before.
    let numbers: Vec<&str> = after.split_whitespace().collect();
    let tick = |at: usize| numbers.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "seconds of minutes")]
    let seconds = (tick(11) + tick(12)) as f64 / 100.0;
    (field("VmRSS:"), field("VmHWM:"), seconds)
}

fn percentile(values: &mut [f64], percent: f64) -> f64 {
    if values.is_empty() {
        return -1.0;
    }
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let at = ((values.len() - 1) as f64 * percent / 100.0).round() as usize;
    (values[at] * 10.0).round() / 10.0
}

/// What people ask, over and over, until it is told to stop; milliseconds each.
async fn people(home: PathBuf, stop: tokio::sync::watch::Receiver<bool>) -> (Vec<f64>, usize) {
    let (mut took, mut failed) = (Vec::new(), 0);
    let mut turn = 0_u32;
    while !*stop.borrow() {
        let began = Instant::now();
        let asked = tokio::time::timeout(Duration::from_secs(20), question(&home, turn)).await;
        match asked {
            Ok(Ok(ms)) => took.push(ms),
            _ => failed += 1,
        }
        turn += 1;
        tokio::time::sleep(Duration::from_millis(100).saturating_sub(began.elapsed())).await;
    }
    (took, failed)
}

async fn question(home: &Path, turn: u32) -> Result<f64, String> {
    let client = cli::client::connect(home).await.map_err(|failure| failure.message)?;
    let mut ask = client.operator.clone();
    let began = Instant::now();
    let selector = |text: &str| v1::Selector { text: text.to_owned() };
    let said = match turn % 4 {
        0 => ask.status(v1::StatusRequest {}).await.map(drop),
        1 => ask.list_runs(v1::ListRunsRequest { all: false }).await.map(drop),
        2 => ask.list_machines(v1::ListMachinesRequest { all: false }).await.map(drop),
        _ => ask.get_run(selector("r7")).await.map(drop),
    };
    said.map_err(|status| status.to_string())?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

async fn until(what: &str, most: Duration, mut is: impl FnMut() -> bool) -> f64 {
    let began = Instant::now();
    while !is() {
        if began.elapsed() > most {
            eprintln!("not within {most:?}: {what}");
            return -1.0;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed().as_secs_f64()
}

async fn rendezvous(home: &Path) -> (String, String) {
    loop {
        if let Some(at) = controller::home::rendezvous(home) {
            return (at.agents, at.join);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn drive(home: &Path, agents: usize, seconds: u64) -> Value {
    let (_, most) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit");
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most).expect("a limit");
    eprintln!("preparing {agents} agents");
    // It makes the installation and its store; rows without a store are refused.
    let mut maker = start(home);
    rendezvous(home).await;
    let _ = maker.child.kill();
    let _ = maker.child.wait();
    let (seats, hub, pin) = prepare(home, agents).await;
    let mut served = start(home);
    let at = rendezvous(home).await;
    let idle = usage(served.child.id());
    let seen = Arc::new(Seen::default());
    let (connecting, mut running) = (Instant::now(), JoinSet::new());
    for (n, seat) in seats.into_iter().enumerate() {
        running.spawn(agent(seat, hub, pin.clone(), at.clone(), seen.clone(), n));
        // As machines come up: not in one instant.
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let all = || seen.connected.load(Relaxed) == agents;
    until("everybody is welcomed", Duration::from_mins(5), all).await;
    let connect_s = connecting.elapsed().as_secs_f64();
    // What connecting costs is over after a moment.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let steady = measure(home, &served, &seen, agents, seconds).await;

    // The controller dies and comes back.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let _ = served.child.kill();
    let _ = served.child.wait();
    *seen.ended.lock().expect("nobody panics") = Some(Instant::now());
    until("everybody saw the end", Duration::from_mins(1), || seen.connected.load(Relaxed) == 0).await;
    let mut again = start(home);
    let mut asking = JoinSet::new();
    asking.spawn(people(home.to_owned(), stopped));
    until("everybody is back", Duration::from_mins(5), all).await;
    let back_s = again.began.elapsed().as_secs_f64();
    let after = usage(again.child.id());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let _ = stop.send(true);
    let (mut took, failed) = asking.join_next().await.expect("one asks").expect("nobody panics");
    let mut back = seen.back.lock().expect("nobody panics").clone();
    let most_at_once = densest(&back);
    let planned = *again.planned.lock().expect("nobody panics");
    let told = json!({
        "agents": agents,
        "rss_idle_mb": mb(idle.0),
        "connect_s": (connect_s * 100.0).round() / 100.0,
        "steady": steady,
        "restart": {
            "first_plan_s": planned.map(|s| (s * 100.0).round() / 100.0),
            "everybody_back_s": (back_s * 100.0).round() / 100.0,
            "back_p50_ms": percentile(&mut back, 50.0),
            "most_in_100_ms": most_at_once,
            "rss_mb": mb(after.0), "rss_most_mb": mb(after.1), "cpu_s": after.2,
            "people_p50_ms": percentile(&mut took, 50.0), "people_p99_ms": percentile(&mut took, 99.0),
            "people_failed": failed,
        },
    });
    let _ = again.child.kill();
    let _ = again.child.wait();
    told
}

fn densest(at: &[f64]) -> usize {
    let mut buckets: BTreeMap<u64, usize> = BTreeMap::new();
    for ms in at {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
        let bucket = (ms / 100.0) as u64;
        *buckets.entry(bucket).or_default() += 1;
    }
    buckets.values().copied().max().unwrap_or(0)
}

fn mb(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let mb = bytes as f64 / 1e6;
    (mb * 10.0).round() / 10.0
}

async fn measure(home: &Path, served: &Served, seen: &Arc<Seen>, agents: usize, seconds: u64) -> Value {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let before = usage(served.child.id());
    let granted = seen.granted.load(Relaxed);
    seen.leases.lock().expect("nobody panics").clear();
    seen.measuring.store(1, Relaxed);
    let mut asking = JoinSet::new();
    asking.spawn(people(home.to_owned(), stopped));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let _ = stop.send(true);
    let (mut took, failed) = asking.join_next().await.expect("one asks").expect("nobody panics");
    seen.measuring.store(0, Relaxed);
    let after = usage(served.child.id());
    let mut leases = seen.leases.lock().expect("nobody panics").clone();
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    let rate = (seen.granted.load(Relaxed) - granted) as f64 / seconds as f64;
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    let cores = (after.2 - before.2) / seconds as f64;
    json!({
        "seconds": seconds, "connected": seen.connected.load(Relaxed), "of": agents,
        "leases_per_s": (rate * 10.0).round() / 10.0,
        "lease_p50_ms": percentile(&mut leases, 50.0), "lease_p99_ms": percentile(&mut leases, 99.0),
        "cores": (cores * 1000.0).round() / 1000.0, "rss_mb": mb(after.0), "rss_most_mb": mb(after.1),
        "people_p50_ms": percentile(&mut took, 50.0), "people_p99_ms": percentile(&mut took, 99.0),
        "people_asked": took.len(), "people_failed": failed,
    })
}
