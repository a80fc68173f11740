//! Answers for this machine's health on a port of its own, so that it can be
//! asked where the controller cannot: the detailed service and the standard
//! one, both behind mutual TLS. Only operators and the controller of this hub
//! are answered; a machine is not, not even itself. Nothing here decides,
//! changes or waits for anything that the agent does: without this listener
//! the agent works as well.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use lifecycle::{HubId, MachineId};
use proto::accept::{PeerInfo, incoming, tcp};
use proto::health::pb::health_check_response::ServingStatus;
use proto::health::pb::health_server::Health;
use proto::health::pb::{HealthCheckRequest, HealthCheckResponse};
use proto::identity::{Identity, Peer};
use proto::tls::{self, WallClock};
use proto::v1::{self, machine_health_server::MachineHealth};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::identity::Held;
use crate::os;

/// A driver whose loop has not turned for this long does not serve.
pub const HUNG: Duration = Duration::from_secs(10);
/// Watchers at once, over both services.
pub const WATCHERS: usize = 8;
/// A watcher that does not take an answer within this is dropped.
const SLOW: Duration = Duration::from_secs(10);
/// Between two looks of a watcher of the standard service.
const LOOK: Duration = Duration::from_secs(1);
/// Names of services that the standard one knows; the empty one is the agent.
const KNOWN: [&str; 2] = ["", "outlast.v1.MachineHealth"];

/// A bound listener.
pub struct Listening {
    listener: TcpListener,
    /// `address:port` for others; empty where the machine cannot know it.
    pub endpoint: String,
}

/// Where the answers come from.
pub struct Sources {
    /// Whose certificates count.
    pub hub: HubId,
    /// This machine.
    pub machine: MachineId,
    /// The newest report; the default before the first sample.
    pub reports: watch::Receiver<v1::HealthReport>,
    /// When the driver's loop last turned, by `boottime_ms`.
    pub turned_ms: Arc<AtomicU64>,
    /// Milliseconds of the boot-time clock.
    pub boottime_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// For certificates.
    pub clock: WallClock,
}

/// Binds the listener and writes where to `health.json` in the state directory;
/// `None` where it is not wanted or not possible, which is said in the log.
pub async fn bind(state: &Path, listen: Option<&str>) -> Option<Listening> {
    let file = state.join("health.json");
    // What an earlier start of the agent wrote there leads nowhere now.
    let _ = std::fs::remove_file(&file);
    let bound = bind_at(&file, listen?).await;
    bound.inspect_err(|why| tracing::warn!("no health port: {why}; the controller is told all the same")).ok()
}

async fn bind_at(file: &Path, listen: &str) -> Result<Listening, String> {
    let wanted: SocketAddr = listen
        .parse()
        .map_err(|_| format!("health_listen in machine.json is `{listen}`, no address:port"))?;
    let listener = TcpListener::bind(wanted).await.map_err(|e| format!("{wanted}: {e}"))?;
    let bound = listener.local_addr().map_err(|e| format!("{wanted}: {e}"))?;
    let here = match bound {
        SocketAddr::V4(_) if bound.ip().is_unspecified() => format!("127.0.0.1:{}", bound.port()),
        SocketAddr::V6(_) if bound.ip().is_unspecified() => format!("[::1]:{}", bound.port()),
        _ => bound.to_string(),
    };
    let text = serde_json::json!({ "endpoint": here }).to_string();
    os::write_durable(file, text.as_bytes()).map_err(|e| format!("{}: {e}", file.display()))?;
    // Under which address others reach all interfaces is not known here.
    let endpoint = if bound.ip().is_unspecified() { String::new() } else { here };
    Ok(Listening { listener, endpoint })
}

/// Serves until dropped, with whatever certificate is the newest. Before the
/// machine has joined there is none: callers wait in the backlog.
pub async fn serve(listening: Listening, sources: Sources, mut held: watch::Receiver<Held>) {
    let (config, own) = loop {
        let now = held.borrow_and_update().clone();
        match now.map(|(own, ca)| tls::renewable_server(&ca, &own, sources.clock.clone())) {
            Some(Ok(ready)) => break ready,
            Some(Err(error)) => tracing::warn!(%error, "the health port has no usable certificate"),
            None => {}
        }
        if held.changed().await.is_err() {
            return;
        }
    };
    let accepted = incoming(tcp(listening.listener), config, Some(sources.hub));
    let served = proto::serve::machine_health(accepted, Service::new(sources), std::future::pending());
    tokio::pin!(served);
    loop {
        tokio::select! {
            biased;
            end = &mut served => {
                tracing::warn!(?end, "the health port is closed");
                return;
            }
            changed = held.changed() => {
                if changed.is_err() {
                    // No renewal comes any more; what there is goes on.
                    let _ = served.await;
                    return;
                }
                let now = held.borrow_and_update().clone();
                if let Some((credentials, _)) = now
                    && let Err(error) = own.renew(&credentials)
                {
                    tracing::warn!(%error, "a renewed certificate is not usable at the health port");
                }
            }
        }
    }
}

/// Both services.
#[derive(Clone)]
struct Service {
    sources: Arc<Sources>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

type Unsent<T> = ReceiverStream<Result<T, Status>>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The end of a watcher's stream that answers are put into.
struct Watcher<T> {
    sender: mpsc::Sender<Result<T, Status>>,
    /// Seconds for which the peer's certificate lasts.
    left: Duration,
    _place: OwnedSemaphorePermit,
}

impl<T> Watcher<T> {
    /// Passes an answer on; `false`: the reader is gone or too slow.
    async fn pass(&self, answer: Result<T, Status>) -> bool {
        matches!(tokio::time::timeout(SLOW, self.sender.send(answer)).await, Ok(Ok(())))
    }
}

impl Service {
    fn new(sources: Sources) -> Self {
        let places = Arc::new(Semaphore::new(WATCHERS));
        Self { sources: Arc::new(sources), places, tasks: TaskTracker::new() }
    }

    /// Lets operators and the controller in, as their certificate says; how
    /// long that lasts.
    fn admit<T>(&self, request: &Request<T>) -> Result<Duration, Status> {
        let info = request.extensions().get::<PeerInfo>();
        let peer = info.and_then(|info| info.peer.as_ref());
        admitted(peer, (self.sources.clock)())
    }

    fn watcher<T>(&self, left: Duration) -> Result<(Watcher<T>, Unsent<T>), Status> {
        let full = || {
            let why = format!("{WATCHERS} watchers are here already; ask once with Get, or end another");
            Status::resource_exhausted(why)
        };
        let place = self.places.clone().try_acquire_owned().map_err(|_| full())?;
        let (sender, receiver) = mpsc::channel(1);
        Ok((Watcher { sender, left, _place: place }, ReceiverStream::new(receiver)))
    }

    fn report(&self, reports: &mut watch::Receiver<v1::HealthReport>) -> v1::HealthReport {
        let mut report = reports.borrow_and_update().clone();
        if report.machine_id.is_empty() {
            // Not sampled yet: who it is can be said all the same.
            report.machine_id = self.sources.machine.to_string();
            os::boot_id().clone_into(&mut report.boot_id);
            proto::VERSION.clone_into(&mut report.version);
        }
        report
    }

    fn status(&self) -> ServingStatus {
        let (now, turned) = ((self.sources.boottime_ms)(), self.sources.turned_ms.load(Ordering::Relaxed));
        let still = Duration::from_millis(now.saturating_sub(turned));
        if still < HUNG { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

/// Whether a peer may ask, and for how long.
fn admitted(peer: Option<&Peer>, now: SystemTime) -> Result<Duration, Status> {
    let peer = peer.ok_or_else(|| Status::unauthenticated("no client certificate"))?;
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let until = u64::try_from(peer.not_after).unwrap_or(0);
    if until < since {
        return Err(expired());
    }
    match &peer.identity {
        Identity::Operator(_) | Identity::Controller => Ok(Duration::from_secs(until - since)),
        other @ Identity::Machine(_) => {
            Err(Status::permission_denied(format!("a {other} may not ask for health; operators may")))
        }
    }
}

fn expired() -> Status {
    Status::unauthenticated("the certificate has expired")
}

#[tonic::async_trait]
impl MachineHealth for Service {
    type WatchStream = Answers<v1::HealthReport>;

    async fn get(&self, request: Request<v1::HealthRequest>) -> Result<Response<v1::HealthReport>, Status> {
        self.admit(&request)?;
        Ok(Response::new(self.report(&mut self.sources.reports.clone())))
    }

    async fn watch(
        &self,
        request: Request<v1::HealthRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (watcher, answers) = self.watcher(self.admit(&request)?)?;
        let (me, mut reports) = (self.clone(), self.sources.reports.clone());
        self.tasks.spawn(async move {
            let void = tokio::time::sleep(watcher.left);
            tokio::pin!(void);
            while watcher.pass(Ok(me.report(&mut reports))).await {
                tokio::select! {
                    biased;
                    () = watcher.sender.closed() => return,
                    () = &mut void => {
                        watcher.pass(Err(expired())).await;
                        return;
                    }
                    changed = reports.changed() => if changed.is_err() { return },
                }
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = Answers<HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.admit(&request)?;
        let name = &request.get_ref().service;
        if !KNOWN.contains(&name.as_str()) {
            return Err(Status::not_found("that service is not served here"));
        }
        Ok(Response::new(HealthCheckResponse { status: self.status() as i32 }))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (watcher, answers) = self.watcher(self.admit(&request)?)?;
        let known = KNOWN.contains(&request.get_ref().service.as_str());
        let me = self.clone();
        self.tasks.spawn(async move {
            let void = tokio::time::sleep(watcher.left);
            tokio::pin!(void);
            let mut last = None;
            loop {
                let status = if known { me.status() } else { ServingStatus::ServiceUnknown };
                if last != Some(status) {
                    last = Some(status);
                    if !watcher.pass(Ok(HealthCheckResponse { status: status as i32 })).await {
                        return;
                    }
                }
                tokio::select! {
                    biased;
                    () = watcher.sender.closed() => return,
                    () = &mut void => {
                        watcher.pass(Err(expired())).await;
                        return;
                    }
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[cfg(test)]
mod tests;
