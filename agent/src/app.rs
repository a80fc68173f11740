//! Builds the agent's parts, runs them on one thread, and stops on SIGTERM.
//! Programs and keepers go on without it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proto::gateway::RemoteStore;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, Parts};
use crate::identity::{self, Identity, IdentityError};
use crate::os;
use crate::uplink::{self, Carrier};
use crate::world::machine::Machine;

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Its identity or first-boot data.
    #[error(transparent)]
    Identity(#[from] IdentityError),
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
    let config = uplink::Config {
        hub: file.hub_id,
        machine: file.machine_id.clone(),
        pin: file.ca_spki_sha256,
        carrier: Carrier::dial(file.endpoints, file.join_endpoints),
        incarnation,
        clock: Arc::new(SystemTime::now),
        max_backoff: MAX_BACKOFF,
        seed,
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
    });
    let stop = CancellationToken::new();
    let mut term = signal(SignalKind::terminate()).map_err(AppError::Runtime)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(link);
    tasks.spawn(driver.run(stop.clone()));
    tokio::select! {
        biased;
        _ = term.recv() => {}
        _ = tasks.join_next() => tracing::error!("a part of the agent ended"),
    }
    stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(2), tasks.join_next()).await;
    Ok(())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// What programs get of this machine's environment: enough to find tools,
/// nothing that could be a secret of the agent.
fn inherited() -> BTreeMap<String, String> {
    const NAMES: [&str; 14] = [
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
