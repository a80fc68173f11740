//! Builds every part, serves, waits for the signal, drains. Any kill at any
//! moment is safe: what counts is in the store, and the rest is asked anew.
//! Operators are only ever served on loopback.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::carrier;
use crate::clock::{Clock, Entropy};
use crate::core::{BootSettings, Core, CoreError, Parts};
use crate::home::{Home, HomeError, Rendezvous};
use crate::ingest;
use crate::liveness::Clocks;
use crate::objects::{self, ObjectsError};
use crate::provider::ssh::{self, SshProvider};
use crate::provider::{LocalConfig, LocalProvider, Provider, VastConfig, VastProvider, settings};
use crate::reconcile;
use crate::rpc::gateway::Gateway;
use crate::rpc::join::JoinService;
use crate::rpc::operator::{Build, OperatorService};
use crate::rpc::session::AgentService;
use crate::runfiles::RunFiles;
use crate::store::{Kind, Mode, SqliteStore, Store, StoreError};

/// What a controller is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory.
    pub home: PathBuf,
    /// The program that is guard, keeper and agent on local machines.
    pub agent_exe: PathBuf,
    /// Tells two builds apart.
    pub build_id: String,
    /// Waiting times.
    pub clocks: Clocks,
}

/// Why a controller could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data directory.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The database.
    #[error("the database cannot be opened")]
    Store(#[from] StoreError),
    /// The artifact store.
    #[error("the artifact store cannot be opened")]
    Objects(#[from] ObjectsError),
    /// The settings of sources of machines.
    #[error(transparent)]
    Providers(#[from] settings::SettingsErrors),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] proto::tls::TlsError),
    /// A listener.
    #[error("cannot listen")]
    Listen(#[source] std::io::Error),
    /// The address asked for in the environment.
    #[error("{LISTEN} must be one IP address that machines can dial, such as 192.0.2.7; it is `{0}`")]
    Address(String),
    /// A server.
    #[error("a server failed")]
    Serve(#[from] proto::serve::ServeError),
    /// A source of machines.
    #[error("{0}")]
    Provider(String),
    /// Start-up work.
    #[error(transparent)]
    Core(#[from] CoreError),
}

/// How long calls under way may take after the signal.
const DRAIN: Duration = Duration::from_secs(5);

/// The environment variable that names where machines are served.
const LISTEN: &str = "OUTLAST_CONTROLLER_LISTEN";
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Where machines are served: they are told this very address, so it must name
/// one host.
fn machines_address(asked: Option<&str>) -> Result<IpAddr, AppError> {
    let Some(text) = asked.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(LOOPBACK) };
    text.parse()
        .ok()
        .filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast())
        .ok_or_else(|| AppError::Address(text.chars().take(60).collect()))
}

/// The port of before if it is free, so that agents find their controller
/// again; else a new one.
async fn listen(ip: IpAddr, before: Option<&str>) -> Result<TcpListener, AppError> {
    let before = before.and_then(|address| address.parse::<SocketAddr>().ok());
    if let Some(address) = before.map(|before| SocketAddr::new(ip, before.port())) {
        // The port of a controller that was killed is free at once; one that
        // is still draining needs a moment.
        for _ in 0..200 {
            match TcpListener::bind(address).await {
                Ok(listener) => return Ok(listener),
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(_) => break,
            }
        }
    }
    // Outside the range that outgoing connections take their ports from: after
    // a restart the port must be free, since machines know no other.
    for _ in 0..50 {
        let port = fastrand::u16(20_000..32_000);
        if let Ok(listener) = TcpListener::bind((ip, port)).await {
            return Ok(listener);
        }
    }
    TcpListener::bind((ip, 0)).await.map_err(AppError::Listen)
}

/// The three listeners and what tools are told of them.
struct Doors {
    operators: TcpListener,
    agents: TcpListener,
    join: TcpListener,
    rendezvous: Rendezvous,
}

async fn open_doors(home: &Home, build: &str) -> Result<Doors, AppError> {
    let last = home.last_rendezvous();
    let machines = machines_address(std::env::var(LISTEN).ok().as_deref())?;
    let operators = listen(LOOPBACK, last.as_ref().map(|r| r.operators.as_str())).await?;
    let agents = listen(machines, last.as_ref().map(|r| r.agents.as_str())).await?;
    let join = listen(machines, last.as_ref().map(|r| r.join.as_str())).await?;
    let address = |l: &TcpListener| l.local_addr().map(|a| a.to_string()).map_err(AppError::Listen);
    let rendezvous = Rendezvous {
        pid: std::process::id(),
        hub: home.hub,
        operators: address(&operators)?,
        agents: address(&agents)?,
        join: address(&join)?,
        build: build.to_owned(),
    };
    Ok(Doors { operators, agents, join, rendezvous })
}

/// Every source of machines that is set up. A file that cannot be used is an
/// error: there may be machines that only it leads to.
fn providers(home: &Home, config: &Config) -> Result<BTreeMap<String, Arc<dyn Provider>>, AppError> {
    let local = LocalProvider::new(LocalConfig {
        root: home.path("machines"),
        // Each run says what an hour of this computer counts as.
        usd_per_hour: 0.0,
    });
    let mut all: BTreeMap<String, Arc<dyn Provider>> =
        BTreeMap::from([("local".to_owned(), Arc::new(local) as _)]);
    let env = |name: &str| std::env::var(name).ok();
    let found = ssh::configured(&config.home, &home.hub.to_string(), &env)?;
    if !found.hosts.is_empty() {
        all.insert("ssh".to_owned(), Arc::new(SshProvider::new(found)));
    }
    let vast = VastProvider::new(
        VastConfig {
            url: None,
            keys: home.path("keys"),
            boot_deadline: Duration::from_millis(config.clocks.boot_deadline_ms),
            pace_percent: 100,
        },
        env,
    );
    all.insert("vast".to_owned(), Arc::new(vast.map_err(AppError::Provider)?));
    Ok(all)
}

fn build_core(
    home: &Home,
    config: &Config,
    clock: Clock,
    at: &Rendezvous,
    store: Arc<dyn Store>,
    objects: Arc<dyn artifacts::Store>,
    more: Providers,
) -> Result<Arc<Core>, AppError> {
    let mut all = providers(home, config)?;
    all.extend(more);
    #[cfg(feature = "failpoints")]
    let (all, store) = crate::failpoint::arm(all, store);
    let authority =
        proto::pki::Authority::load(home.hub, home.authority.root_pem(), home.authority.key_pem())
            .map_err(HomeError::from)?;
    Ok(Core::new(Parts {
        hub: home.hub,
        authority,
        label_key: home.label_key,
        store,
        objects,
        providers: all,
        clock,
        entropy: Entropy::System,
        keys: Arc::new(crate::keys::Keys::open(&home.path("keys"))?),
        clocks: config.clocks,
        files: RunFiles::new(home.path("runs"), true),
        boot: BootSettings {
            endpoints: vec![at.agents.clone()],
            join_endpoints: vec![at.join.clone()],
            agent_exe: config.agent_exe.clone(),
            cache_dir: home.path("cache"),
        },
        restore_count: home.restore_count,
    }))
}

async fn open_objects(
    config: &Config,
    store: &dyn Store,
    clock: &Clock,
) -> Result<Arc<dyn artifacts::Store>, AppError> {
    // Every run has its source in the store of objects.
    let rows = !store.list(Kind::Run).await?.is_empty();
    let env = |name: &str| std::env::var(name).ok();
    Ok(Box::pin(objects::open(&config.home, &env, &|| clock.wall_ms(), rows)).await?)
}

/// Sources of machines by name.
pub type Providers = BTreeMap<String, Arc<dyn Provider>>;

/// Runs a controller until it is told to end.
///
/// # Errors
/// Where it cannot start, or a server fails.
pub async fn run(config: Config) -> Result<(), AppError> {
    run_with(config, Providers::new()).await
}

/// As [`run`], with more providers than the usual ones, or others under their
/// names.
///
/// # Errors
/// As [`run`].
pub async fn run_with(config: Config, more: Providers) -> Result<(), AppError> {
    let clock = Clock::system();
    let started_ms = clock.wall_ms();
    let home = Home::open(&config.home, clock.wall())?;
    let doors = open_doors(&home, &config.build_id).await?;
    let store = Arc::new(SqliteStore::open(home.path("outlast.db"), Mode::Thread)?);
    let objects = open_objects(&config, &*store, &clock).await?;
    let core = build_core(&home, &config, clock, &doors.rendezvous, store, objects, more)?;
    let local = objects::is_local(&config.home, &|name: &str| std::env::var(name).ok());
    core.local_store.store(local, std::sync::atomic::Ordering::Relaxed);
    home.begin()?;
    ingest::cut_to_durable(&core).await?;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(watch_signals(stop.clone()));
    let (loop_core, loop_stop) = (core.clone(), stop.clone());
    tasks.spawn(async move {
        // However it ends, a controller without it must not look alive.
        let _ends = loop_stop.clone().drop_guard();
        reconcile::run(loop_core, loop_stop).await;
    });
    tasks.spawn(keep_state_files(core.clone(), stop.clone()));
    tasks.spawn(crate::capsule::gather::keep(core.clone(), stop.clone()));
    tasks.spawn(crate::retain::run(core.clone(), stop.clone()));
    tasks.spawn(crate::verify::run(core.clone(), stop.clone()));
    tasks.spawn(crate::notify::run(core.clone(), config.home.clone(), stop.clone()));
    tasks.spawn(crate::bill::run(core.clone(), stop.clone()));
    tasks.spawn(crate::early::run(core.clone(), stop.clone()));
    let (carrying, carried) = carrier::doors();
    let (carrier_core, carrier_home, carrier_stop) = (core.clone(), config.home.clone(), stop.clone());
    tasks.spawn(async move { carrier::run(carrier_core, carrying, &carrier_home, carrier_stop).await });
    let build = Build { id: config.build_id, schema: crate::store::SCHEMA, started_ms };
    let at = doors.rendezvous.clone();
    let servers = Box::pin(serve_all(&home, &core, &tasks, &stop, (doors, carried), build));
    home.announce(&at)?;
    tracing::info!(pid = at.pid, agents = at.agents, operators = at.operators, "serving");
    let ended = tokio::select! {
        biased;
        done = servers => done,
        // Streams that never end by themselves are cut after the drain.
        () = async { stop.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    };
    stop.cancel();
    tasks.close();
    let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
    tracing::info!("ended");
    ended
}

async fn serve_all(
    home: &Home,
    core: &Arc<Core>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    (doors, carried): (Doors, carrier::Let),
    build: Build,
) -> Result<(), AppError> {
    let own = home.server_credentials(core.clock.wall())?;
    let clock = core.clock.clone();
    let wall: proto::tls::WallClock = Arc::new(move || clock.wall());
    let mutual = proto::tls::server(home.authority.root_pem(), &own, wall.clone())?;
    let joining = proto::tls::join_server(&own, wall)?;
    let until = || stop.clone().cancelled_owned();
    let operators = proto::serve::operators(
        proto::accept::incoming(proto::accept::tcp(doors.operators), mutual.clone(), Some(core.hub)),
        OperatorService::new(core.clone(), tasks.clone(), stop.clone(), build),
        Gateway::new(core.clone(), tasks.clone()),
        until(),
    );
    let agents = serve_agents(
        core.clone(),
        tasks,
        proto::accept::incoming(carrier::incoming(doors.agents, carried.agents), mutual, Some(core.hub)),
        stop.clone(),
    );
    let join = proto::serve::join(
        proto::accept::incoming(carrier::incoming(doors.join, carried.join), joining, None),
        JoinService::new(core.clone()),
        until(),
    );
    tokio::try_join!(
        Box::pin(agents),
        Box::pin(async { Ok(operators.await?) }),
        Box::pin(async { Ok(join.await?) })
    )?;
    Ok(())
}

/// Serves agents over any kind of connection.
///
/// # Errors
/// Where the server fails as a whole.
pub async fn serve_agents<S>(
    core: Arc<Core>,
    tasks: &TaskTracker,
    incoming: proto::accept::Incoming<S>,
    stop: CancellationToken,
) -> Result<(), AppError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let link = AgentService::new(core.clone(), tasks.clone(), stop.clone());
    let gateway = Gateway::new(core, tasks.clone());
    Ok(proto::serve::agents(incoming, link, gateway, stop.cancelled_owned()).await?)
}

async fn watch_signals(stop: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be watched");
        return;
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    stop.cancel();
}

/// Keeps `runs/<name>/state.json`, a copy for people.
async fn keep_state_files(core: Arc<Core>, stop: CancellationToken) {
    let mut changed = core.changed.subscribe();
    let mut written: BTreeMap<lifecycle::RunId, u64> = BTreeMap::new();
    loop {
        if let Ok(runs) = core.every::<crate::model::Run>().await {
            for run in runs {
                let version = run.version;
                if written.get(&run.body.id) == Some(&version) {
                    continue;
                }
                let json = serde_json::to_string_pretty(&*run.body).unwrap_or_default();
                match core.files.write_state(&run.body.name, &json) {
                    Ok(()) => {
                        written.insert(run.body.id, version);
                    }
                    Err(error) => tracing::warn!(%error, "a state file could not be written"),
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // Told to end, it writes the last changes now and ends then.
            _ = changed.changed() => tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_served_where_they_can_dial() {
        assert_eq!(machines_address(None).unwrap(), LOOPBACK);
        assert_eq!(machines_address(Some("  ")).unwrap(), LOOPBACK);
        for good in ["10.0.0.7", "::1", "fd00::7"] {
            assert_eq!(machines_address(Some(good)).unwrap().to_string(), good);
        }
        for bad in ["0.0.0.0", "::", "224.0.0.1", "10.0.0.7:80", "host", "10.0.0.7 10.0.0.8"] {
            assert!(machines_address(Some(bad)).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn the_port_of_before_is_taken_again_on_the_asked_address() {
        // Between the two anybody may be given that port: hardly each time.
        for left in (0..5).rev() {
            let first = listen(LOOPBACK, None).await.unwrap();
            let port = first.local_addr().unwrap().port();
            drop(first);
            // The address of before does not bind the one of now.
            let again = listen(LOOPBACK, Some(&format!("192.0.2.1:{port}"))).await.unwrap();
            if again.local_addr().unwrap() == SocketAddr::new(LOOPBACK, port) {
                return;
            }
            assert!(left > 0, "another port is taken each time");
        }
    }
}
