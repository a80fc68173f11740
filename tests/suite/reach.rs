//! I20: what a call does is confined to the machine that its certificate
//! names. Real TLS on loopback, the real services, rows of two projects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use artifacts::{ObjectKey, Put, Store as _};
use controller::clock::{Clock, Entropy};
use controller::core::{BootSettings, Changes, Core, Parts};
use controller::liveness::Clocks;
use controller::model::{Attempt, BoundKey, Machine, ManifestRef, Run, Versioned, Wish};
use controller::runfiles::RunFiles;
use controller::store::MemoryStore;
use lifecycle::{
    AttemptId, AttemptState, Generation, HubId, MachineId, MachineState, RunId, RunSpec, RunState,
};
use proto::channel::Channel;
use proto::gateway::RemoteStore;
use proto::pki::{Authority, Credentials, MachineKey, csr_public_key, sha256_hex};
use proto::v1::agent_link_client::AgentLinkClient;
use proto::v1::artifact_gateway_client::ArtifactGatewayClient;
use proto::v1::{self, down, up};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Code;

const DAY: Duration = Duration::from_hours(24);

/// One machine with its run and attempt, and a channel that proves it.
pub(super) struct Side {
    machine: MachineId,
    run: RunId,
    attempt: AttemptId,
    pub(super) channel: Channel,
}

pub(super) struct Hub {
    pub(super) core: Arc<Core>,
    address: String,
    _server: tokio::task::JoinSet<()>,
    _dir: tempfile::TempDir,
}

pub(super) async fn hub() -> Hub {
    let hub = HubId::from_bytes([4; 16]);
    let dir = tempfile::tempdir().unwrap();
    let core = Core::new(Parts {
        keys: std::sync::Arc::default(),
        hub,
        authority: Authority::create(hub, SystemTime::now()).unwrap(),
        label_key: [1; 32],
        store: Arc::new(MemoryStore::new()),
        objects: Arc::new(artifacts::store::MemoryStore::default()),
        providers: BTreeMap::new(),
        clock: Clock::system(),
        entropy: Entropy::System,
        clocks: Clocks::default(),
        files: RunFiles::new(dir.path().join("runs"), false),
        boot: BootSettings {
            endpoints: Vec::new(),
            join_endpoints: Vec::new(),
            agent_exe: "/agent".into(),
            cache_dir: "/cache".into(),
        },
        restore_count: 0,
    });
    let own = core.authority.issue(&proto::identity::Identity::Controller, SystemTime::now(), DAY).unwrap();
    let tls = proto::tls::server(core.authority.root_pem(), &own, Arc::new(SystemTime::now)).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = proto::accept::incoming(proto::accept::tcp(listener), tls, Some(hub));
    let served = core.clone();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move {
        let tasks = TaskTracker::new();
        let _ = controller::app::serve_agents(served, &tasks, incoming, CancellationToken::new()).await;
    });
    Hub { core, address, _server: server, _dir: dir }
}

impl Hub {
    async fn channel(&self, credentials: &Credentials) -> Channel {
        let tls = proto::tls::client(self.core.authority.root_pem(), credentials, Arc::new(SystemTime::now));
        let name = proto::tls::expected_name(self.core.hub).unwrap();
        proto::channel::dial(std::slice::from_ref(&self.address), tls.unwrap(), name).await.unwrap()
    }

    /// A machine of a project of its own, with a bound attempt.
    async fn side(&self, seed: u8, status: MachineState) -> Side {
        let (machine, run) = (MachineId::from_bytes([seed; 16]), RunId::from_bytes([seed + 100; 16]));
        self.side_of(machine, run, AttemptId::from_bytes([seed + 50; 16]), seed, status).await
    }

    /// The same under these ids.
    pub(super) async fn side_of(
        &self,
        machine: MachineId,
        run: RunId,
        attempt: AttemptId,
        seed: u8,
        status: MachineState,
    ) -> Side {
        let key = MachineKey::generate().unwrap();
        let csr = key.request().unwrap();
        let chain_pem = self.core.authority.sign_machine(machine, &csr, SystemTime::now(), DAY).unwrap();
        let spki = csr_public_key(&csr).unwrap();
        let bound = BoundKey {
            machine,
            thumbprint: sha256_hex(&spki),
            spki: String::new(),
            incarnation: 0,
            boot_id: String::new(),
        };
        let changes = Changes::default()
            .put(&Versioned::new(run_row(run, attempt, seed)))
            .put(&Versioned::new(machine_row(machine, run, &status)))
            .put(&Versioned::new(attempt_row(attempt, run, machine)))
            .put(&Versioned::new(bound));
        assert!(self.core.commit(changes).await.unwrap());
        let channel = self.channel(&Credentials { chain_pem, key_pem: key.to_pem() }).await;
        Side { machine, run, attempt, channel }
    }
}

fn run_row(id: RunId, attempt: AttemptId, seed: u8) -> Run {
    let spec: RunSpec = serde_json::from_value(serde_json::json!({
        "project": format!("p{seed}"), "name": "r", "command": ["x"], "provider": "local"
    }))
    .unwrap();
    serde_json::from_value(serde_json::json!({
        "id": id, "name": format!("r-{seed}"), "spec": spec, "status": RunState::Running, "created_ms": 1,
        "generation": Generation::from_u64(1), "bound": attempt, "attempts": 1,
        "source": ManifestRef { key: "source/g0000000000000001/m00000001".into(), digest: String::new(), step: None },
        "head": null, "outputs": null, "produced_step": null, "endings": [], "wish": Wish::Run, "token": "t"
    }))
    .unwrap()
}

fn machine_row(id: MachineId, run: RunId, status: &MachineState) -> Machine {
    serde_json::from_value(serde_json::json!({
        "id": id, "provider": "local", "label": "l", "run": run, "status": status, "instance": "i",
        "created_ms": 1, "usd_per_hour": 0.0
    }))
    .unwrap()
}

fn attempt_row(id: AttemptId, run: RunId, machine: MachineId) -> Attempt {
    serde_json::from_value(serde_json::json!({
        "id": id, "run": run, "number": 1, "generation": Generation::from_u64(1), "machine": machine,
        "status": AttemptState::Running, "bound_ms": 1, "resume": []
    }))
    .unwrap()
}

fn pack(run: RunId, generation: u64) -> ObjectKey {
    ObjectKey::pack(&run.to_string(), generation, 1).unwrap()
}

#[tokio::test]
async fn i20_a_machine_writes_and_reads_only_what_is_its_own() {
    let hub = hub().await;
    let (a, b) = (hub.side(1, MachineState::Ready).await, hub.side(2, MachineState::Ready).await);
    let (store_a, store_b) = (RemoteStore::over(a.channel.clone()), RemoteStore::over(b.channel.clone()));
    assert_eq!(store_a.put_if_absent(&pack(a.run, 1), b"mine").await.unwrap(), Put::Created);
    assert_eq!(store_a.get(&pack(a.run, 1), 0, 4).await.unwrap(), b"mine");
    let refused = |what: Result<(), artifacts::StoreError>| {
        let error = what.unwrap_err().to_string();
        assert!(error.contains("may not"), "{error}");
    };
    refused(store_a.put_if_absent(&pack(b.run, 1), b"theirs").await.map(|_| ()));
    refused(store_a.put_if_absent(&pack(a.run, 2), b"a later generation").await.map(|_| ()));
    refused(
        store_a.put_if_absent(&"source/g0000000000000001/p00000001".parse().unwrap(), b"x").await.map(|_| ()),
    );
    refused(store_b.get(&pack(a.run, 1), 0, 4).await.map(|_| ()));
    refused(store_b.size(&pack(a.run, 1)).await.map(|_| ()));
    refused(store_a.list("source/").await.map(|_| ()));
    assert_eq!(hub.core.objects.list("").await.unwrap(), [pack(a.run, 1)], "nothing else was written");
}

#[tokio::test]
async fn i20_a_machine_commits_and_tells_only_of_its_own_attempts() {
    let hub = hub().await;
    let (a, b) = (hub.side(1, MachineState::Ready).await, hub.side(2, MachineState::Ready).await);
    let commit = v1::CommitRequest {
        attempt_id: b.attempt.to_string(),
        generation: 1,
        manifest_key: "x/m1".into(),
        manifest_digest: String::new(),
    };
    let mut gateway = ArtifactGatewayClient::new(a.channel.clone());
    assert_eq!(gateway.commit(commit).await.unwrap_err().code(), Code::PermissionDenied);

    // A Hello in another machine's name.
    assert_eq!(talk(&a, b.machine, None).await.unwrap_err().code(), Code::PermissionDenied);
    // Its own Hello, then facts of another machine's attempt.
    assert_eq!(talk(&a, a.machine, Some(b.attempt)).await.unwrap_err().code(), Code::InvalidArgument);
    // The same said of its own attempt is taken.
    talk(&a, a.machine, Some(a.attempt)).await.unwrap();
    let told = |id: AttemptId| {
        let core = hub.core.clone();
        async move { core.need::<Attempt>(&id.to_string()).await.unwrap().body.notes }
    };
    assert_eq!(told(a.attempt).await, ["a note"]);
    assert!(told(b.attempt).await.is_empty());
}

#[tokio::test]
async fn i20_the_first_commit_of_a_repository_stands_and_a_machine_pins_only_its_own_runs() {
    let hub = hub().await;
    let (a, b) = (hub.side(1, MachineState::Ready).await, hub.side(2, MachineState::Ready).await);
    let mut row: Versioned<Run> = hub.core.need(&a.run.to_string()).await.unwrap();
    row.body.spec.data.hf = vec!["org/m".parse().unwrap()];
    assert!(hub.core.commit(Changes::default().put(&row)).await.unwrap());
    let ask = |repository: &str, commit: &str| v1::PinDataRequest {
        attempt_id: a.attempt.to_string(),
        generation: 1,
        repository: repository.into(),
        commit: commit.into(),
    };
    let mut own = ArtifactGatewayClient::new(a.channel.clone());
    let (first, second) = ("a".repeat(40), "b".repeat(40));
    assert_eq!(own.pin_data(ask("org/m", "")).await.unwrap().into_inner().commit, "");
    assert_eq!(own.pin_data(ask("org/m", &first)).await.unwrap().into_inner().commit, first);
    assert_eq!(own.pin_data(ask("org/m", &second)).await.unwrap().into_inner().commit, first);
    for (asked, code) in [
        (ask("org/other", &first), Code::PermissionDenied),
        (ask("org/m", "main"), Code::InvalidArgument),
        (v1::PinDataRequest { generation: 2, ..ask("org/m", &first) }, Code::FailedPrecondition),
    ] {
        assert_eq!(own.pin_data(asked).await.unwrap_err().code(), code);
    }
    let mut other = ArtifactGatewayClient::new(b.channel.clone());
    assert_eq!(other.pin_data(ask("org/m", "")).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn i20_a_released_machine_and_an_operator_reach_nothing_there() {
    let hub = hub().await;
    let gone = hub.side(3, MachineState::Destroying).await;
    let store = RemoteStore::over(gone.channel.clone());
    let error = store.put_if_absent(&pack(gone.run, 1), b"late").await.unwrap_err().to_string();
    assert!(error.contains("not wanted"), "{error}");

    let person = proto::identity::Identity::Operator("somebody".into());
    let pair = hub.core.authority.issue(&person, SystemTime::now(), DAY).unwrap();
    let channel = hub.channel(&pair).await;
    let mut link = AgentLinkClient::new(channel);
    let refused = link.session(tokio_stream::pending::<v1::Up>()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// Says Hello as `machine` over `side`'s channel, then perhaps a fact of
/// `attempt`; the first refusal, or the acknowledgement.
async fn talk(side: &Side, machine: MachineId, attempt: Option<AttemptId>) -> Result<(), tonic::Status> {
    let hello = v1::Hello { machine_id: machine.to_string(), incarnation: 1, ..v1::Hello::default() };
    let mut messages = vec![v1::Up { body: Some(up::Body::Hello(hello)) }];
    if let Some(attempt) = attempt {
        let note = v1::Note { level: "info".into(), text: "a note".into() };
        let event = v1::Event { kind: Some(v1::event::Kind::Note(note)) };
        let fact = v1::Fact {
            stream: v1::Stream::Events.into(),
            seq: 0,
            at_ms: 1,
            body: Some(v1::fact::Body::Event(event)),
        };
        let batch = v1::FactBatch { attempt_id: attempt.to_string(), generation: 1, facts: vec![fact] };
        messages.push(v1::Up { body: Some(up::Body::Facts(batch)) });
    }
    let outbound = tokio_stream::iter(messages).chain(tokio_stream::pending());
    let mut inbound = AgentLinkClient::new(side.channel.clone()).session(outbound).await?.into_inner();
    while let Some(message) = inbound.message().await? {
        if let Some(down::Body::Ack(_)) = message.body {
            return Ok(());
        }
    }
    Err(tonic::Status::unknown("it ended without a word"))
}
