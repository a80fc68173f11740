//! The transport over real sockets: who gets through to a handler and who is
//! refused before. A refusal counts only if no handler was reached.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use lifecycle::{HubId, MachineId};
use proto::accept::{HANDSHAKE_TIMEOUT, PENDING_HANDSHAKES, PeerInfo, incoming, tcp};
use proto::identity::{Identity, Peer};
use proto::pki::{Authority, Credentials, MachineKey};
use proto::tls::{self, WallClock};
use proto::v1::artifact_gateway_server::ArtifactGateway;
use proto::v1::operator_server::Operator;
use proto::v1::{self, join_client::JoinClient, operator_client::OperatorClient};
use proto::{channel, serve};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Nothing here takes as long as a handshake may.
const PATIENCE: Duration = Duration::from_mins(3);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Tells every caller who it is, and counts the calls.
#[derive(Clone, Default)]
struct Mirror {
    reached: Arc<AtomicUsize>,
}

impl Mirror {
    fn look<T>(&self, request: &Request<T>) -> Option<Peer> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        request.extensions().get::<PeerInfo>().and_then(|info| info.peer.clone())
    }
}

/// A service of which one call is answered and the others are not.
macro_rules! service {
    ($trait:ident { $($stream:ident: $item:ty),* } $answered:item
     $($name:ident($ask:ty) -> $answer:ty,)*) => {
        #[tonic::async_trait]
        impl $trait for Mirror {
            $(type $stream = Answers<$item>;)*
            $answered
            $(async fn $name(&self, request: Request<$ask>) -> Result<Response<$answer>, Status> {
                self.look(&request);
                Err(Status::unimplemented(stringify!($name)))
            })*
        }
    };
}

service! {
    Operator { WatchStream: v1::RunDetail, LogsStream: v1::LogChunk, MetricsStream: v1::MetricsChunk }
    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::ControllerView>, Status> {
        let peer = self.look(&request).ok_or_else(|| Status::internal("nobody is known to call"))?;
        let alerts = vec![format!("{:?}", peer.identity), peer.thumbprint];
        Ok(Response::new(v1::ControllerView { alerts, ..v1::ControllerView::default() }))
    }
    submit(v1::SubmitRequest) -> v1::RunView,
    list_runs(v1::ListRunsRequest) -> v1::RunList,
    get_run(v1::Selector) -> v1::RunDetail,
    watch(v1::Selector) -> Self::WatchStream,
    logs(v1::LogsRequest) -> Self::LogsStream,
    metrics(v1::MetricsRequest) -> Self::MetricsStream,
    stop(v1::StopRequest) -> v1::RunView,
    resume(v1::Selector) -> v1::RunView,
    answer(v1::AnswerRequest) -> v1::RunView,
    notify(v1::NotifyRequest) -> v1::NotifyReply,
    destroy_run(v1::Selector) -> v1::RunView,
    destroy_machine(v1::Selector) -> v1::MachineView,
    sabotage(v1::Selector) -> v1::MachineView,
    list_machines(v1::ListMachinesRequest) -> v1::MachineList,
    list_checkpoints(v1::Selector) -> v1::CheckpointList,
    pin(v1::PinRequest) -> v1::CheckpointView,
    tidy(v1::TidyRequest) -> v1::TidyReply,
    find_checkpoint(v1::Selector) -> v1::CheckpointView,
    lineage(v1::Selector) -> v1::LineageReply,
    verify(v1::VerifyRequest) -> v1::VerifyReply,
    fork(v1::ForkRequest) -> v1::RunView,
    import(v1::ImportRequest) -> v1::RunView,
    outputs(v1::Selector) -> v1::OutputsReply,
    events(v1::EventsRequest) -> v1::EventList,
    admit(v1::AdmitRequest) -> v1::AdmitReply,
    drain(v1::DrainRequest) -> v1::DrainReply,
    offers(v1::OffersRequest) -> v1::OfferList,
    foreign(v1::ForeignRequest) -> v1::ForeignList,
    destroy_foreign(v1::DestroyForeignRequest) -> v1::DestroyForeignReply,
    bill(v1::BillRequest) -> v1::BillReply,
    spending(v1::SpendingRequest) -> v1::SpendingReply,
    hosts(v1::HostsRequest) -> v1::HostList,
    preflight(v1::PreflightRequest) -> v1::PreflightReply,
    recommend(v1::RecommendRequest) -> v1::RecommendReply,
    health(v1::HealthOf) -> v1::HealthReply,
    why(v1::WhyRequest) -> v1::WhyReply,
    upgrade_machine(v1::UpgradeRequest) -> v1::UpgradeReply,
}

service! {
    ArtifactGateway { GetStream: v1::Chunk, BookletStream: v1::BookletPart }
    async fn size(&self, _: Request<v1::SizeRequest>) -> Result<Response<v1::SizeReply>, Status> {
        Err(Status::unimplemented("size"))
    }
    locate(v1::LocateRequest) -> v1::LocateReply,
    put(Streaming<v1::PutFrame>) -> v1::PutReply,
    get(v1::GetRequest) -> Self::GetStream,
    list(v1::ListRequest) -> v1::ListReply,
    commit(v1::CommitRequest) -> v1::CommitReply,
    condemn(v1::CondemnRequest) -> v1::CondemnReply,
    pin_data(v1::PinDataRequest) -> v1::PinDataReply,
    booklet(v1::BookletRequest) -> Self::BookletStream,
    unseal(v1::UnsealRequest) -> v1::UnsealReply,
}

#[tonic::async_trait]
impl v1::join_server::Join for Mirror {
    async fn redeem(&self, request: Request<v1::RedeemRequest>) -> Result<Response<v1::Certificate>, Status> {
        assert!(self.look(&request).is_none(), "a peer that joins has no identity yet");
        Ok(Response::new(v1::Certificate { chain_pem: request.into_inner().secret, ca_pem: String::new() }))
    }
    async fn challenge(
        &self,
        _: Request<v1::ChallengeRequest>,
    ) -> Result<Response<v1::ChallengeReply>, Status> {
        Err(Status::unimplemented("challenge"))
    }
    async fn rejoin(&self, _: Request<v1::RejoinRequest>) -> Result<Response<v1::Certificate>, Status> {
        Err(Status::unimplemented("rejoin"))
    }
}

fn hub() -> HubId {
    HubId::from_bytes([7; 16])
}

fn authority() -> Authority {
    Authority::create(hub(), SystemTime::now()).unwrap()
}

fn real() -> WallClock {
    Arc::new(SystemTime::now)
}

/// A server on a free port, and a clock of its own that can be moved.
struct Hub {
    at: SocketAddr,
    mirror: Mirror,
    ahead_s: Arc<AtomicU64>,
    _server: JoinSet<()>,
}

impl Hub {
    async fn start(ca: &Authority) -> Self {
        let own = ca.issue(&Identity::Controller, SystemTime::now(), DAY * 90).unwrap();
        Self::start_as(ca, &own).await
    }

    async fn start_as(ca: &Authority, own: &Credentials) -> Self {
        let ahead_s = Arc::new(AtomicU64::new(0));
        let ahead = ahead_s.clone();
        let clock: WallClock =
            Arc::new(move || SystemTime::now() + Duration::from_secs(ahead.load(Ordering::SeqCst)));
        let config = tls::server(ca.root_pem(), own, clock).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mirror = Mirror::default();
        let incoming = incoming(tcp(listener), config, Some(hub()));
        let mut server = JoinSet::new();
        let (operator, gateway) = (mirror.clone(), mirror.clone());
        server.spawn(async move {
            serve::operators(incoming, operator, gateway, std::future::pending()).await.unwrap();
        });
        Self { at, mirror, ahead_s, _server: server }
    }

    fn reached(&self) -> usize {
        self.mirror.reached.load(Ordering::SeqCst)
    }

    /// Connects afresh and asks who the caller is.
    async fn ask(&self, client: &Arc<ClientConfig>) -> Result<Vec<String>, String> {
        let name = tls::expected_name(hub()).unwrap();
        let call = async {
            let channel = channel::dial(&[self.at.to_string()], client.clone(), name)
                .await
                .map_err(|e| format!("{e:?}"))?;
            let reply = OperatorClient::new(channel).status(v1::StatusRequest {}).await;
            Ok(reply.map_err(|e| format!("{e:?}"))?.into_inner().alerts)
        };
        tokio::time::timeout(PATIENCE, call).await.expect("an answer or a refusal comes soon")
    }

    async fn refuses(&self, client: &Arc<ClientConfig>, word: &str) {
        let before = self.reached();
        let refusal = self.ask(client).await.expect_err("the peer is refused");
        assert!(refusal.contains(word), "refused for another reason: {refusal}");
        assert_eq!(self.reached(), before, "the handler was reached");
    }
}

fn operator(ca: &Authority, life: Duration) -> Credentials {
    ca.issue(&Identity::Operator("ada".into()), SystemTime::now(), life).unwrap()
}

fn client(ca: &Authority, own: &Credentials) -> Arc<ClientConfig> {
    tls::client(ca.root_pem(), own, real()).unwrap()
}

#[tokio::test]
async fn the_proven_identity_reaches_the_handler() {
    let ca = authority();
    let hub_ = Hub::start(&ca).await;
    let person = hub_.ask(&client(&ca, &operator(&ca, DAY))).await.unwrap();
    assert_eq!(person[0], format!("{:?}", Identity::Operator("ada".into())));

    let (key, id) = (MachineKey::generate().unwrap(), MachineId::from_bytes([3; 16]));
    let request = key.request().unwrap();
    let chain_pem = ca.sign_machine(id, &request, SystemTime::now(), DAY).unwrap();
    let own = Credentials { chain_pem, key_pem: key.to_pem() };
    let machine = hub_.ask(&client(&ca, &own)).await.unwrap();
    assert_eq!(machine[0], format!("{:?}", Identity::Machine(id)));
    let spki = proto::pki::csr_public_key(&request).unwrap();
    assert_eq!(machine[1], proto::pki::sha256_hex(&spki), "the thumbprint is the key's");
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused() {
    let ca = authority();
    let hub = Hub::start(&ca).await;
    // The pinned client trusts this server and has no certificate to show.
    let bare = tls::join_client(&ca.pin().unwrap(), real()).unwrap();
    hub.refuses(&bare, "CertificateRequired").await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (ca, other) = (authority(), authority());
    let hub = Hub::start(&ca).await;
    let stranger = client(&ca, &operator(&other, DAY));
    hub.refuses(&stranger, "fatal alert").await;
}

#[tokio::test]
async fn a_certificate_that_names_another_hub_is_refused() {
    let ca = authority();
    let hub = Hub::start(&ca).await;
    let elsewhere = HubId::from_bytes([8; 16]);
    let twin = Authority::load(elsewhere, ca.root_pem(), ca.key_pem()).unwrap();
    // The chain is good: only the name is not one of this hub.
    hub.refuses(&client(&ca, &operator(&twin, DAY)), "").await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let ca = authority();
    let hub = Hub::start(&ca).await;
    hub.ahead_s.store(2 * 3600, Ordering::SeqCst);
    hub.refuses(&client(&ca, &operator(&ca, HOUR)), "CertificateExpired").await;
    hub.ask(&client(&ca, &operator(&ca, DAY))).await.expect("one that is still valid gets through");
}

#[tokio::test]
async fn a_certificate_that_expires_is_refused_at_the_next_connection_of_the_same_client() {
    let ca = authority();
    let hub = Hub::start(&ca).await;
    let client = client(&ca, &operator(&ca, HOUR));
    hub.ask(&client).await.expect("it is valid now");
    hub.ask(&client).await.expect("and at a second connection");
    hub.ahead_s.store(2 * 3600, Ordering::SeqCst);
    // A resumed session would carry the old proof over.
    hub.refuses(&client, "CertificateExpired").await;
}

#[tokio::test]
async fn a_client_that_would_resume_gets_nothing_to_resume_with() {
    let ca = authority();
    let hub = Hub::start(&ca).await;
    let own = operator(&ca, HOUR);
    let mut eager = (*client(&ca, &own)).clone();
    eager.resumption = rustls::client::Resumption::in_memory_sessions(32);
    let eager = Arc::new(eager);
    for _ in 0..3 {
        hub.ask(&eager).await.unwrap();
    }
    hub.ahead_s.store(2 * 3600, Ordering::SeqCst);
    hub.refuses(&eager, "CertificateExpired").await;
}

#[tokio::test]
async fn a_client_refuses_a_server_that_is_no_controller() {
    let ca = authority();
    let hub = Hub::start_as(&ca, &operator(&ca, DAY)).await;
    hub.refuses(&client(&ca, &operator(&ca, DAY)), "InvalidCertificate").await;
}

/// The first flight of a client that knows nothing newer than TLS 1.2.
fn hello_of_tls_1_2() -> Vec<u8> {
    let mut extensions = Vec::new();
    let name = proto::pki::server_name(hub());
    let len = u16::try_from(name.len()).unwrap();
    let mut sni = Vec::from((len + 3).to_be_bytes());
    sni.push(0);
    sni.extend(len.to_be_bytes());
    sni.extend(name.as_bytes());
    // Name, groups (x25519, P-256), point formats, signatures (ECDSA P-256,
    // RSA-PSS), extended master secret.
    let list: [(u16, Vec<u8>); 5] = [
        (0, sni),
        (10, vec![0, 4, 0, 29, 0, 23]),
        (11, vec![1, 0]),
        (13, vec![0, 4, 4, 3, 8, 4]),
        (23, Vec::new()),
    ];
    for (kind, body) in list {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        extensions.extend(body);
    }
    let mut hello = vec![3, 3];
    hello.extend([9; 32]);
    // No session; ECDHE with AES-GCM; no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);
    let body = u16::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1];
    record.extend((body + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(body.to_be_bytes());
    record.extend(hello);
    record
}

#[tokio::test]
async fn a_client_that_speaks_only_tls_1_2_is_refused() {
    let ca = authority();
    let hub = Hub::start(&ca).await;
    let mut old = TcpStream::connect(hub.at).await.unwrap();
    old.write_all(&hello_of_tls_1_2()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, old.read_to_end(&mut answer)).await.expect("an end comes soon").unwrap();
    // A fatal alert: protocol_version.
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70]);
}

#[tokio::test]
async fn peers_that_never_finish_their_handshake_hold_nobody_up() {
    let ca = authority();
    let hub = Hub::start(&ca).await;
    let mut stuck = Vec::new();
    for n in 0..40 {
        let mut peer = TcpStream::connect(hub.at).await.unwrap();
        // Some say nothing, some begin and stop.
        peer.write_all(&hello_of_tls_1_2()[..n % 5]).await.unwrap();
        stuck.push(peer);
    }
    hub.ask(&client(&ca, &operator(&ca, DAY))).await.expect("a good client gets through at once");
    drop(stuck);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_finishes_its_handshake_is_dropped() {
    let ca = authority();
    let own = ca.issue(&Identity::Controller, SystemTime::now(), DAY).unwrap();
    let config: Arc<ServerConfig> = tls::server(ca.root_pem(), &own, real()).unwrap();
    let (sender, raw) = tokio::sync::mpsc::channel::<io::Result<tokio::io::DuplexStream>>(4);
    let accepted = incoming(ReceiverStream::new(raw), config, Some(hub()));
    let began = tokio::time::Instant::now();
    // All places are taken, and one more waits.
    let mut peers = Vec::new();
    for _ in 0..=PENDING_HANDSHAKES {
        let (near, far) = tokio::io::duplex(4096);
        sender.send(Ok(far)).await.unwrap();
        peers.push(near);
    }
    let mut last = peers.pop().unwrap();
    for mut peer in peers {
        assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0, "the connection ends");
    }
    assert_eq!(began.elapsed().as_secs(), HANDSHAKE_TIMEOUT.as_secs());
    // Its turn came when the others were dropped; then its own time ran.
    assert_eq!(last.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(began.elapsed().as_secs(), 2 * HANDSHAKE_TIMEOUT.as_secs());
    drop(accepted);
}

/// Redeems over a connection that trusts nothing but `pin`.
async fn join(at: SocketAddr, pin: &str) -> Result<String, String> {
    let config = tls::join_client(pin, real()).unwrap();
    let name = tls::expected_name(hub()).unwrap();
    let call = async {
        let channel = channel::dial(&[at.to_string()], config, name).await.map_err(|e| format!("{e:?}"))?;
        let ask = v1::RedeemRequest { secret: "abc".into(), ..v1::RedeemRequest::default() };
        let reply = JoinClient::new(channel).redeem(ask).await;
        Ok(reply.map_err(|e| format!("{e:?}"))?.into_inner().chain_pem)
    };
    tokio::time::timeout(PATIENCE, call).await.expect("an answer or a refusal comes soon")
}

#[tokio::test]
async fn only_the_pinned_authority_is_joined() {
    let (ca, other) = (authority(), authority());
    let own = ca.issue(&Identity::Controller, SystemTime::now(), DAY).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mirror = Mirror::default();
    let accepted = incoming(tcp(listener), tls::join_server(&own, real()).unwrap(), None);
    let mut server = JoinSet::new();
    let service = mirror.clone();
    server.spawn(async move { serve::join(accepted, service, std::future::pending()).await.unwrap() });

    let refusal = join(at, &other.pin().unwrap()).await.expect_err("a wrong pin is refused");
    assert!(refusal.contains("UnknownIssuer"), "refused for another reason: {refusal}");
    assert_eq!(mirror.reached.load(Ordering::SeqCst), 0, "a secret went to a stranger");
    assert_eq!(join(at, &ca.pin().unwrap()).await.unwrap(), "abc");
}
