//! The processes of a simulated world: the controller, and an agent on each
//! machine, both the real cores over simulated sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent::driver::{Driver, Parts as DriverParts};
use agent::identity::Identity;
use agent::uplink::{self, Carrier, Dialler, Io};
use proto::gateway::RemoteStore;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use turmoil::net::{TcpListener, TcpStream};

use super::machine::Machine;
use super::world::{EPOCH, World, wall};

pub(super) const AGENTS: u16 = 9001;
pub(super) const JOIN: u16 = 9002;

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

pub(super) async fn controller(world: Arc<World>) -> turmoil::Result {
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
pub(super) fn first_boot(state: &Path, script: &str) {
    let heredoc = |name: &str| {
        let body =
            between(script, &format!("cat > {name} <<'OUTLAST_END_OF_FILE'\n"), "\nOUTLAST_END_OF_FILE");
        std::fs::write(state.join(name), body).unwrap();
    };
    std::fs::create_dir_all(state).unwrap();
    heredoc("machine.json");
    heredoc("join.token");
}

pub(super) async fn agent(state: PathBuf, machine: Arc<Machine>, seed: u64) -> turmoil::Result {
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
        carrier: Carrier::over("simulated", lane(AGENTS), lane(JOIN)),
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
