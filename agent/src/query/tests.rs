//! A real listener with real certificates: who is answered, what, and who not.

use proto::channel::{self, Channel};
use proto::health::pb::health_client::HealthClient;
use proto::pki::{Authority, Credentials};
use proto::v1::machine_health_client::MachineHealthClient;
use tokio::task::JoinSet;
use tonic::Code;

use super::*;

const HOUR: Duration = Duration::from_hours(1);
/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_mins(3);

fn hub() -> HubId {
    HubId::from_bytes([7; 16])
}

fn machine(n: u8) -> MachineId {
    MachineId::from_bytes([n; 16])
}

fn real() -> WallClock {
    Arc::new(SystemTime::now)
}

/// An agent's listener with everything that it looks at.
struct Rig {
    ca: Authority,
    endpoint: String,
    file: serde_json::Value,
    reports: watch::Sender<v1::HealthReport>,
    held: watch::Sender<Held>,
    turned_ms: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
    _state: tempfile::TempDir,
}

/// By the clock of the rig it is this late.
const NOW_MS: u64 = 100_000;

impl Rig {
    async fn start() -> Self {
        let rig = Self::before_joining().await;
        rig.joins(SystemTime::now());
        rig
    }

    async fn before_joining() -> Self {
        let state = tempfile::tempdir().unwrap();
        let listening = bind(state.path(), Some("127.0.0.1:0")).await.unwrap();
        let endpoint = listening.endpoint.clone();
        let file = serde_json::from_slice(&std::fs::read(state.path().join("health.json")).unwrap()).unwrap();
        let (reports, out) = watch::channel(v1::HealthReport::default());
        let (held, held_out) = watch::channel(None);
        let turned_ms = Arc::new(AtomicU64::new(NOW_MS));
        let sources = Sources {
            hub: hub(),
            machine: machine(1),
            reports: out,
            turned_ms: turned_ms.clone(),
            boottime_ms: Arc::new(|| NOW_MS),
            clock: real(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listening, sources, held_out));
        let ca = Authority::create(hub(), SystemTime::now()).unwrap();
        Self { ca, endpoint, file, reports, held, turned_ms, _tasks: tasks, _state: state }
    }

    /// The machine gets a certificate that lasts an hour from then on.
    fn joins(&self, from: SystemTime) {
        let own = self.ca.issue(&Identity::Machine(machine(1)), from, HOUR).unwrap();
        self.held.send_replace(Some((own, self.ca.root_pem().to_owned())));
    }

    fn as_(&self, identity: &Identity) -> Credentials {
        self.ca.issue(identity, SystemTime::now(), HOUR).unwrap()
    }

    async fn connect(&self, own: &Credentials) -> Result<Channel, String> {
        let tls = tls::machine_client(self.ca.root_pem(), own, hub(), machine(1), real()).unwrap();
        let name = tls::expected_machine(machine(1)).unwrap();
        let dial = channel::dial(std::slice::from_ref(&self.endpoint), tls, name);
        tokio::time::timeout(PATIENCE, dial).await.unwrap().map_err(|e| format!("{e:?}"))
    }

    async fn operator(&self) -> Channel {
        self.connect(&self.as_(&Identity::Operator("ada".into()))).await.unwrap()
    }
}

fn sampled(uptime: u64) -> v1::HealthReport {
    v1::HealthReport {
        machine_id: machine(1).to_string(),
        agent_uptime_ms: uptime,
        ..v1::HealthReport::default()
    }
}

async fn status(channel: &Channel, service: &str) -> Result<ServingStatus, Code> {
    let ask = HealthCheckRequest { service: service.to_owned() };
    let reply = HealthClient::new(channel.clone()).check(ask).await.map_err(|status| status.code())?;
    Ok(reply.into_inner().status())
}

#[tokio::test]
async fn an_operator_gets_the_report_and_each_that_follows() {
    let rig = Rig::start().await;
    assert_eq!(rig.file["endpoint"], rig.endpoint.as_str(), "the file says where");
    let channel = rig.operator().await;
    let mut detailed = MachineHealthClient::new(channel.clone());
    let first = detailed.get(v1::HealthRequest {}).await.unwrap().into_inner();
    assert_eq!(first.machine_id, machine(1).to_string(), "said before the first sample too");
    assert_eq!(first.version, proto::VERSION);
    rig.reports.send_replace(sampled(1));
    let mut watching = detailed.watch(v1::HealthRequest {}).await.unwrap().into_inner();
    for uptime in 1..4 {
        let report = tokio::time::timeout(PATIENCE, watching.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(report.agent_uptime_ms, uptime);
        rig.reports.send_replace(sampled(uptime + 1));
    }
}

#[tokio::test]
async fn a_driver_that_hangs_does_not_serve() {
    let rig = Rig::start().await;
    let channel = rig.operator().await;
    for service in KNOWN {
        assert_eq!(status(&channel, service).await, Ok(ServingStatus::Serving));
    }
    assert_eq!(status(&channel, "outlast.v1.Operator").await, Err(Code::NotFound));
    let ask = HealthCheckRequest::default();
    let mut watching = HealthClient::new(channel.clone()).watch(ask).await.unwrap().into_inner();
    let next = async |stream: &mut tonic::Streaming<HealthCheckResponse>| {
        tokio::time::timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap().status()
    };
    assert_eq!(next(&mut watching).await, ServingStatus::Serving);
    let hung = u64::try_from(HUNG.as_millis()).unwrap();
    rig.turned_ms.store(NOW_MS - hung, Ordering::Relaxed);
    assert_eq!(next(&mut watching).await, ServingStatus::NotServing, "a watcher is told");
    assert_eq!(status(&channel, "").await, Ok(ServingStatus::NotServing));
    rig.turned_ms.store(NOW_MS - hung + 1, Ordering::Relaxed);
    assert_eq!(status(&channel, "").await, Ok(ServingStatus::Serving));
}

#[tokio::test]
async fn machines_are_refused_and_strangers_do_not_get_in() {
    let rig = Rig::start().await;
    for own in [1, 2] {
        let channel = rig.connect(&rig.as_(&Identity::Machine(machine(own)))).await.unwrap();
        let mut detailed = MachineHealthClient::new(channel.clone());
        let mut standard = HealthClient::new(channel.clone());
        let codes = [
            detailed.get(v1::HealthRequest {}).await.unwrap_err().code(),
            detailed.watch(v1::HealthRequest {}).await.unwrap_err().code(),
            standard.check(HealthCheckRequest::default()).await.unwrap_err().code(),
            standard.watch(HealthCheckRequest::default()).await.unwrap_err().code(),
        ];
        assert_eq!(codes, [Code::PermissionDenied; 4], "machine {own}");
    }
    let other = Authority::create(hub(), SystemTime::now()).unwrap();
    let stranger = other.issue(&Identity::Operator("ada".into()), SystemTime::now(), HOUR).unwrap();
    let refused = match rig.connect(&stranger).await {
        Err(why) => why,
        Ok(channel) => format!("{:?}", status(&channel, "").await.expect_err("refused")),
    };
    assert!(
        refused.contains("alert") || refused.contains("Unavailable") || refused.contains("Unknown"),
        "{refused}"
    );
}

#[test]
fn who_may_ask_and_for_how_long() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let peer = |identity, not_after| Peer { identity, not_after, thumbprint: String::new() };
    let code = |peer: Option<&Peer>| admitted(peer, now).map_err(|status| status.code());
    assert_eq!(code(None), Err(Code::Unauthenticated));
    assert_eq!(code(Some(&peer(Identity::Controller, 1_060))), Ok(Duration::from_secs(60)));
    assert_eq!(code(Some(&peer(Identity::Operator("ada".into()), 1_001))), Ok(Duration::from_secs(1)));
    assert_eq!(code(Some(&peer(Identity::Operator("ada".into()), 999))), Err(Code::Unauthenticated));
    assert_eq!(code(Some(&peer(Identity::Machine(machine(1)), 2_000))), Err(Code::PermissionDenied));
}

#[tokio::test]
async fn watchers_are_bounded_and_one_that_left_makes_room() {
    let rig = Rig::start().await;
    let channel = rig.operator().await;
    let mut detailed = MachineHealthClient::new(channel.clone());
    let mut all = Vec::new();
    for _ in 0..WATCHERS {
        all.push(detailed.watch(v1::HealthRequest {}).await.unwrap().into_inner());
    }
    let more = detailed.watch(v1::HealthRequest {}).await.unwrap_err();
    assert_eq!(more.code(), Code::ResourceExhausted);
    assert_eq!(status(&channel, "").await, Ok(ServingStatus::Serving), "single questions go on");
    all.pop();
    let room = async {
        while detailed.watch(v1::HealthRequest {}).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, room).await.expect("the place of one that left is free");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_dropped() {
    let places = Arc::new(Semaphore::new(1));
    let place = places.clone().try_acquire_owned().unwrap();
    let (sender, receiver) = mpsc::channel(1);
    let watcher = Watcher { sender, left: HOUR, _place: place };
    let began = tokio::time::Instant::now();
    assert!(watcher.pass(Ok(1)).await);
    assert!(!watcher.pass(Ok(2)).await, "nobody took the first");
    assert_eq!(began.elapsed(), SLOW);
    drop((watcher, receiver));
    assert_eq!(places.available_permits(), 1);
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let rig = Rig::before_joining().await;
    // Made while it waits for its first certificate: nobody is turned away.
    let me = rig.as_(&Identity::Operator("ada".into()));
    let early = rig.connect(&me);
    let join = async {
        tokio::task::yield_now().await;
        rig.joins(SystemTime::now());
    };
    let (early, ()) = tokio::join!(early, join);
    assert_eq!(status(&early.unwrap(), "").await, Ok(ServingStatus::Serving));

    rig.joins(SystemTime::now() - 4 * HOUR);
    let refused = async {
        while let Ok(channel) = rig.connect(&me).await {
            drop(channel);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the expired one is presented and refused");
    rig.joins(SystemTime::now());
    let renewed = async {
        loop {
            if let Ok(channel) = rig.connect(&me).await {
                break channel;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let channel = tokio::time::timeout(PATIENCE, renewed).await.expect("the renewed one is presented");
    assert_eq!(status(&channel, "").await, Ok(ServingStatus::Serving));
}

#[tokio::test]
async fn what_cannot_be_listened_on_is_said_and_nothing_else_fails() {
    let state = tempfile::tempdir().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = other.local_addr().unwrap().to_string();
    for listen in [None, Some("nonsense"), Some("203.0.113.1:9"), Some(taken.as_str())] {
        std::fs::write(state.path().join("health.json"), "{}").unwrap();
        assert!(bind(state.path(), listen).await.is_none(), "{listen:?}");
        assert!(!state.path().join("health.json").exists(), "{listen:?}: an old address stays");
    }
    let all = bind(state.path(), Some("0.0.0.0:0")).await.unwrap();
    assert_eq!(all.endpoint, "", "from elsewhere it has another address, not known here");
    let text = std::fs::read_to_string(state.path().join("health.json")).unwrap();
    assert!(text.contains("127.0.0.1:"), "{text}");
}
