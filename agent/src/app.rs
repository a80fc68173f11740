//! Builds the agent's parts, runs them on one thread, and stops on SIGTERM.
//! Programs and keepers go on without it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use proto::gateway::RemoteStore;
use proto::v1;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, Parts};
use crate::guard::Farewell;
use crate::identity::{self, CarrierKind, Identity, IdentityError, MachineFile};
use crate::uplink::{self, Carrier};
use crate::world::machine::Machine;
use crate::{guard, notice, os, query};

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Its identity or first-boot data.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The guard that started it has ended meanwhile.
    #[error("the guard that started this agent is gone: the next one starts its own")]
    Abandoned,
    /// The socket for what the controller brings.
    #[error("cannot listen for the controller's connections")]
    Listen(#[source] std::io::Error),
    /// The runtime or the signals.
    #[error("the runtime cannot be built")]
    Runtime(#[source] std::io::Error),
}

/// Direct dials are cheap: no longer pause than this between two tries.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Runs the agent of the machine whose state directory this is.
///
/// # Errors
/// Where it cannot start.
pub fn run(state: &Path) -> Result<(), AppError> {
    if !guard::is_owned(state) {
        return Err(AppError::Abandoned);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(AppError::Runtime)?;
    runtime.block_on(serve(state))
}

async fn serve(state: &Path) -> Result<(), AppError> {
    let file = identity::machine_file(state)?;
    let incarnation = identity::next_incarnation(state)?;
    let own = Identity::open(state, &file.machine_id)?;
    let seed = u64::from(std::process::id()) ^ os::unix_ms();
    let (health, reports) = watch::channel(v1::HealthReport {
        machine_id: file.machine_id.clone(),
        boot_id: os::boot_id().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..v1::HealthReport::default()
    });
    let turned_ms = Arc::new(AtomicU64::new(os::boottime_ms()));
    let listening = query::bind(state, file.health_listen.as_deref()).await;
    let health_endpoint = listening.as_ref().map_or_else(String::new, |at| at.endpoint.clone());
    let answers = answers(listening, &file, own.subscribe(), reports, turned_ms.clone());
    let (carrier, serving) = carrier(state, &file)?;
    let config = uplink::Config {
        hub: file.hub_id,
        machine: file.machine_id.clone(),
        pin: file.ca_spki_sha256,
        carrier,
        incarnation,
        clock: Arc::new(SystemTime::now),
        max_backoff: MAX_BACKOFF,
        seed,
        health_endpoint,
    };
    let (link, handle) = uplink::build(config, own);
    let world = Machine::new(file.machine_id, absolute(state), file.cache_dir, inherited());
    let driver = Driver::new(Parts {
        world: Arc::new(world),
        gateway: Arc::new(RemoteStore::newest(handle.bulk.clone())),
        up: handle.up,
        events: handle.events,
        held: handle.held,
        wall_ms: Arc::new(os::unix_ms),
        boottime_ms: Arc::new(os::boottime_ms),
        health,
        turned_ms,
    });
    let (leave, told) = watch::channel(None);
    let (broker, notices) =
        notice::broker(notice::Place::of_environment(), absolute(state).join(notice::HOST_FILE));
    let driver = driver.hearing(told).noticing(notices);
    let stop = CancellationToken::new();
    let mut term = signal(SignalKind::terminate()).map_err(AppError::Runtime)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(answers);
    tasks.spawn(serving);
    tasks.spawn(link);
    tasks.spawn(broker.run());
    tasks.spawn(driver.run(stop.clone()));
    tokio::select! {
        biased;
        _ = term.recv() => {
            // Does the machine end, or only its agent?
            if let Some(farewell) = Farewell::read(state) {
                let grace = Duration::from_millis(farewell.grace_ms);
                let _ = leave.send(Some(farewell));
                let _ = tokio::time::timeout(grace, tasks.join_next()).await;
            }
        }
        _ = tasks.join_next() => tracing::error!("a part of the agent ended"),
    }
    stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(2), tasks.join_next()).await;
    Ok(())
}

/// How the controller is reached, and what must run for that. Never ends.
fn carrier(
    state: &Path,
    file: &MachineFile,
) -> Result<(Carrier, impl Future<Output = ()> + Send + use<>), AppError> {
    let (carrier, serving) = match file.carrier {
        CarrierKind::Dial => (Carrier::dial(file.endpoints.clone(), file.join_endpoints.clone()), None),
        CarrierKind::Accepted => {
            let (slots, serving) = uplink::listen(state).map_err(AppError::Listen)?;
            (Carrier::accepted(slots), Some(serving))
        }
    };
    let serving = async move {
        match serving {
            Some(serving) => serving.await,
            None => std::future::pending().await,
        }
    };
    Ok((carrier, serving))
}

/// Answers for the machine's health. Never ends: without it the agent works
/// as well.
fn answers(
    listening: Option<query::Listening>,
    file: &MachineFile,
    held: watch::Receiver<identity::Held>,
    reports: watch::Receiver<v1::HealthReport>,
    turned_ms: Arc<AtomicU64>,
) -> impl Future<Output = ()> + Send + use<> {
    let (hub, machine) = (file.hub_id, file.machine_id.parse());
    async move {
        if let (Some(listening), Ok(machine)) = (listening, machine) {
            let boottime_ms = Arc::new(os::boottime_ms);
            let clock = Arc::new(SystemTime::now);
            let sources = query::Sources { hub, machine, reports, turned_ms, boottime_ms, clock };
            query::serve(listening, sources, held).await;
        }
        std::future::pending::<()>().await;
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// What programs get of this machine's environment: enough to find tools,
/// nothing that could be a secret of the agent.
fn inherited() -> BTreeMap<String, String> {
    const NAMES: [&str; 15] = [
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TZ",
        "TMPDIR",
        "USER",
        "LOGNAME",
        "SHELL",
        "LD_LIBRARY_PATH",
        "CUDA_HOME",
        "CUDA_DEVICE_ORDER",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "OPENBLAS_CORETYPE",
    ];
    let proxies = ["http_proxy", "https_proxy", "no_proxy", "all_proxy"];
    let prefixes = ["PIP_", "UV_", "SSL_CERT_", "REQUESTS_CA_"];
    std::env::vars()
        .filter(|(name, _)| {
            NAMES.contains(&name.as_str())
                || proxies.contains(&name.to_lowercase().as_str())
                || prefixes.iter().any(|p| name.starts_with(p))
        })
        .collect()
}
