//! The one stream to the controller, over any carrier. It connects, says
//! Hello, ferries messages between the stream and the driver, and connects
//! again with full-jitter back-off. It decides nothing about attempts, and no
//! heartbeat is made here: a driver that hangs must look hung.

use std::time::{Duration, SystemTime};

use lifecycle::HubId;
use proto::channel::Channel;
use proto::link::Lane;
use proto::tls::WallClock;
use proto::v1::agent_link_client::AgentLinkClient;
use proto::v1::{self, up};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::identity::Identity;

mod accepted;
mod carrier;

pub use accepted::{Slots, listen};
pub use carrier::{Carrier, Dialled, Dialler, Io};

/// What the driver hears.
#[derive(Debug)]
pub enum Event {
    /// A stream is up and Hello was said.
    Connected,
    /// A message came.
    Down(Box<v1::Down>),
    /// The stream is gone.
    Disconnected,
}

/// What an uplink needs.
pub struct Config {
    /// The installation.
    pub hub: HubId,
    /// The machine.
    pub machine: String,
    /// The root's pin.
    pub pin: String,
    /// How to get there.
    pub carrier: Carrier,
    /// This start of the agent.
    pub incarnation: u64,
    /// For certificates.
    pub clock: WallClock,
    /// Longest pause between two tries.
    pub max_backoff: Duration,
    /// Seed of the jitter.
    pub seed: u64,
    /// Where this machine answers for its health; empty: nowhere.
    pub health_endpoint: String,
}

/// The uplink's ends as the driver holds them.
pub struct Handle {
    /// Messages to the controller; full means: wait.
    pub up: mpsc::Sender<v1::Up>,
    /// What happened.
    pub events: mpsc::Receiver<Event>,
    /// The bulk connection, for the gateway.
    pub bulk: watch::Receiver<Option<Channel>>,
    /// What Hello must say of attempts; kept current by the driver.
    pub held: watch::Sender<Vec<v1::HeldAttempt>>,
}

const QUEUE: usize = 16;

/// Leases were asked for and nothing at all came for so long: whatever the
/// socket says, nobody is there (a NAT forgot the connection, the way back is
/// cut). Sooner than the transport's own 20 s, so that a new connection is tried
/// while the controller still has patience.
const UNANSWERED: Duration = Duration::from_secs(12);

/// Whether what is sent is answered.
#[derive(Debug, Default)]
struct Answers {
    /// When the first lease was asked for since something last came.
    asked: Option<Instant>,
}

impl Answers {
    fn sent(&mut self, message: &v1::Up, now: Instant) {
        if matches!(message.body, Some(up::Body::Renew(_))) {
            self.asked.get_or_insert(now);
        }
    }

    fn came(&mut self) {
        self.asked = None;
    }

    /// Ends when nothing came for too long.
    async fn missing(&self) {
        match self.asked {
            Some(at) => tokio::time::sleep_until(at + UNANSWERED).await,
            None => std::future::pending().await,
        }
    }
}

fn unanswered() -> LinkError {
    LinkError::Ended(format!("no answer for {UNANSWERED:?}"))
}

/// The task and its handle.
pub fn build(config: Config, identity: Identity) -> (impl Future<Output = ()> + Send, Handle) {
    let (up, from_driver) = mpsc::channel(QUEUE);
    let (to_driver, events) = mpsc::channel(QUEUE * 4);
    let (bulk_in, bulk) = watch::channel(None);
    let (held, held_out) = watch::channel(Vec::new());
    let task = Task { config, identity, from_driver, to_driver, bulk: bulk_in, held: held_out };
    (task.run(), Handle { up, events, bulk, held })
}

struct Task {
    config: Config,
    identity: Identity,
    from_driver: mpsc::Receiver<v1::Up>,
    to_driver: mpsc::Sender<Event>,
    bulk: watch::Sender<Option<Channel>>,
    held: watch::Receiver<Vec<v1::HeldAttempt>>,
}

#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Identity(#[from] crate::identity::IdentityError),
    #[error(transparent)]
    Tls(#[from] proto::tls::TlsError),
    #[error("{0}: {1}")]
    Connect(String, String),
    #[error("the stream ended: {0}")]
    Ended(String),
    #[error("the driver is gone")]
    NoDriver,
}

impl From<proto::channel::ConnectError> for LinkError {
    fn from(error: proto::channel::ConnectError) -> Self {
        let mut cause: &dyn std::error::Error = &error.source;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Self::Connect(error.to_string(), cause.to_string())
    }
}

impl Task {
    async fn run(mut self) {
        let mut rng = fastrand::Rng::with_seed(self.config.seed);
        let mut failures = 0_u32;
        loop {
            let begun = Instant::now();
            match self.session().await {
                Err(LinkError::NoDriver) => return,
                Err(error) => tracing::info!(%error, "the link is down"),
                Ok(()) => {}
            }
            let _ = self.bulk.send(None);
            if self.to_driver.send(Event::Disconnected).await.is_err() {
                return;
            }
            // What the driver queued for the dead stream is void: after the
            // next Welcome it sends from the acknowledged positions.
            while self.from_driver.try_recv().is_ok() {}
            failures = if begun.elapsed() > Duration::from_secs(30) { 0 } else { failures + 1 };
            let ceiling = Duration::from_millis(200 << failures.min(8)).min(self.config.max_backoff);
            tokio::time::sleep(ceiling.mul_f64(rng.f64())).await;
        }
    }

    async fn ensure_identity(&mut self) -> Result<Duration, LinkError> {
        let now: SystemTime = (self.config.clock)();
        if let Some((_, _, left)) = self.identity.usable(now) {
            return Ok(left);
        }
        let tls = proto::tls::join_client(&self.config.pin, self.config.clock.clone())?;
        let name = proto::tls::expected_name(self.config.hub)?;
        self.config.carrier.ready(Lane::Join).await;
        let join = self.config.carrier.join.clone();
        let channel = proto::channel::over("the join service", move || join(), tls, name).await?;
        self.identity.obtain(channel).await?;
        tracing::info!("joined");
        Ok(self.identity.usable(now).map_or(Duration::from_secs(60), |(_, _, left)| left))
    }

    async fn session(&mut self) -> Result<(), LinkError> {
        let renew_after = self.ensure_identity().await?;
        // The controller may be away for long, where it is the one that dials.
        self.config.carrier.ready(Lane::Control).await;
        let now = (self.config.clock)();
        let Some((credentials, ca, _)) = self.identity.usable(now) else {
            return Err(LinkError::Ended("the certificate is not valid by this machine's clock".into()));
        };
        let tls = proto::tls::client(ca, credentials, self.config.clock.clone())?;
        let name = proto::tls::expected_name(self.config.hub)?;
        let carrier = &self.config.carrier;
        let (link, dial) = (carrier.control.clone(), carrier.bulk.clone());
        let control =
            proto::channel::over("the controller", move || link(), tls.clone(), name.clone()).await?;
        // A connection of its own, when it is wanted: a machine that can speak
        // must not wait for the way of its checkpoints, and a thousand that have
        // none to send hold none open.
        let bulk = proto::channel::later(move || dial(), tls, name);
        let (out, outbound) = mpsc::channel(QUEUE);
        let hello = v1::Hello {
            machine_id: self.config.machine.clone(),
            boot_id: crate::os::boot_id().to_owned(),
            incarnation: self.config.incarnation,
            version: proto::VERSION.to_owned(),
            build_id: String::new(),
            carrier: self.config.carrier.name.to_owned(),
            attempts: self.held.borrow_and_update().clone(),
            health_endpoint: self.config.health_endpoint.clone(),
        };
        let first = v1::Up { body: Some(up::Body::Hello(hello)) };
        out.send(first).await.map_err(|_| LinkError::NoDriver)?;
        let mut client = AgentLinkClient::new(control).max_decoding_message_size(proto::MESSAGE_LIMIT);
        let ended = |s: tonic::Status| LinkError::Ended(s.message().to_owned());
        let mut inbound = client.session(ReceiverStream::new(outbound)).await.map_err(ended)?.into_inner();
        let _ = self.bulk.send(Some(bulk));
        self.to_driver.send(Event::Connected).await.map_err(|_| LinkError::NoDriver)?;
        let renewal = tokio::time::sleep(renew_after);
        tokio::pin!(renewal);
        let mut answers = Answers::default();
        loop {
            // Every arm only yields; nothing is lost when another one wins.
            tokio::select! {
                biased;
                message = inbound.next() => match message {
                    Some(Ok(down)) => {
                        answers.came();
                        self.to_driver.send(Event::Down(Box::new(down))).await.map_err(|_| LinkError::NoDriver)?;
                    }
                    Some(Err(status)) => return Err(ended(status)),
                    None => return Err(LinkError::Ended("closed by the controller".into())),
                },
                message = self.from_driver.recv() => match message {
                    Some(up) => {
                        answers.sent(&up, Instant::now());
                        // A full lane means that nothing gets through: the
                        // deadline must not wait for it.
                        tokio::select! {
                            biased;
                            sent = out.send(up) => sent.map_err(|_| LinkError::Ended("closed".into()))?,
                            () = answers.missing() => return Err(unanswered()),
                        }
                    }
                    None => return Err(LinkError::NoDriver),
                },
                () = &mut renewal => return Ok(()),
                () = answers.missing() => return Err(unanswered()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renew() -> v1::Up {
        v1::Up { body: Some(up::Body::Renew(v1::Renew::default())) }
    }

    /// How long it takes until the stream counts as dead, within a minute.
    async fn dead_after(answers: &Answers) -> Option<Duration> {
        let begun = Instant::now();
        tokio::time::timeout(Duration::from_secs(60), answers.missing()).await.ok().map(|()| begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_dead_when_leases_are_asked_for_and_nothing_comes() {
        let mut answers = Answers::default();
        assert_eq!(dead_after(&answers).await, None, "nothing was asked");
        answers.sent(&v1::Up { body: Some(up::Body::Hello(v1::Hello::default())) }, Instant::now());
        assert_eq!(dead_after(&answers).await, None, "no lease was asked for");
        answers.sent(&renew(), Instant::now());
        tokio::time::advance(Duration::from_secs(5)).await;
        // A later question does not make the first one younger.
        answers.sent(&renew(), Instant::now());
        assert_eq!(dead_after(&answers).await, Some(UNANSWERED - Duration::from_secs(5)));
        answers.came();
        assert_eq!(dead_after(&answers).await, None);
    }
}
