//! A machine without credentials puts under signed URLs, by way of the gateway
//! where it must, and can do nothing to what a later generation wrote.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use artifacts::store::MemoryStore;
use artifacts::store::booklet::client::{Dial, SignedClient, Stream};
use artifacts::store::booklet::plan::{Measured, Next, plan};
use artifacts::store::booklet::{Booklet, BookletStore};
use artifacts::store::memory::Fault as Gateway;
use artifacts::store::remote::s3::Credentials;
use artifacts::store::remote::sign::SignError;
use artifacts::store::remote::{RemoteStore, Writes, s3};
use artifacts::{ObjectKey, Put, Store, StoreError};
use async_trait::async_trait;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::proxy::{Fault, Proxy};
use super::{certificate, server};

struct Plain;

#[async_trait]
impl Dial for Plain {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(tokio::net::TcpStream::connect((host, port)).await?))
    }
}

fn pack(generation: u64, seq: u64) -> ObjectKey {
    ObjectKey::pack("run", generation, seq).expect("a key")
}

fn manifest(generation: u64, seq: u64) -> ObjectKey {
    ObjectKey::manifest("run", generation, seq).expect("a key")
}

async fn booklet(store: &RemoteStore, generation: u64) -> Booklet {
    let measured = Measured { between_saves: Duration::from_hours(3), packs_per_save: 2 };
    let plan = plan(Some(measured), Duration::from_hours(12), Next { pack: 1, manifest: 1 });
    assert_eq!((plan.packs.clone(), plan.manifests.clone()), (1..13, 1..7));
    store.booklet("run", generation, &plan, 1_700_000_000_000).await.expect("signed")
}

fn machine(generation: u64, gateway: &MemoryStore) -> BookletStore {
    patient(generation, gateway, Duration::from_mins(3))
}

/// One that waits for so long for each answer.
fn patient(generation: u64, gateway: &MemoryStore, answer: Duration) -> BookletStore {
    let client = SignedClient::new(Arc::new(Plain), None).with_answer(answer);
    BookletStore::new("run", generation, Arc::new(gateway.clone()), Arc::new(client))
        .with_pause(Duration::from_millis(5))
}

#[tokio::test]
async fn a_machine_stores_while_its_controller_is_away() {
    let Some(server) = server::start("a_machine_stores_while_its_controller_is_away") else { return };
    let proxy = Proxy::start(server.address, None);
    let signer = server::store(proxy.address, "team");
    let direct = server::store(server.address, "team");
    let issued = booklet(&signer, 1).await;
    assert!(proxy.seen().is_empty(), "signing asks nobody");
    let put = issued.packs[0].put.reveal();
    assert!(put.contains("X-Amz-SignedHeaders=host%3Bif-none-match"), "the condition is signed: {put}");
    assert!(!put.contains("a-secret"));

    let gateway = MemoryStore::default();
    // Whoever is asleep answers nothing at all.
    gateway.fail_puts(0, 1000, Gateway::Remote);
    let machine = machine(1, &gateway);
    machine.renew(&issued).expect("a good booklet");
    let bytes: Vec<u8> = (0..3_u32 << 20).map(|i| (i % 241) as u8).collect();
    assert_eq!(machine.put_if_absent(&pack(1, 1), &bytes).await.expect("put"), Put::Created);
    assert!(direct.get(&pack(1, 1), 0, bytes.len() as u64).await.expect("get") == bytes);
    assert_eq!(machine.left(), 17, "a URL that was used is put away");

    let faults = [
        Fault::Refuse(503, "SlowDown"),
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::FailAfter,
        Fault::Torn,
        Fault::Refuse(409, "ConditionalRequestConflict"),
        Fault::Hang,
        Fault::Late,
    ];
    // Only requests that hang wait for this long.
    let hasty = patient(1, &gateway, Duration::from_secs(5));
    hasty.renew(&issued).expect("a good booklet");
    for (number, fault) in (2_u64..).zip(faults) {
        let by = if matches!(fault, Fault::Hang | Fault::Late) { &hasty } else { &machine };
        proxy.next("PUT", &[fault]);
        let put = by.put_if_absent(&pack(1, number), b"mine").await;
        assert!(matches!(put, Ok(Put::Created | Put::Same)), "{fault:?}: {put:?}");
        proxy.flush();
        assert_eq!(direct.get(&pack(1, number), 0, 4).await.expect("get"), b"mine", "{fault:?}");
    }
    direct.put_if_absent(&manifest(1, 1), b"another's").await.expect("put");
    assert_eq!(machine.put_if_absent(&manifest(1, 1), b"mine").await.expect("put"), Put::Different);
    assert_eq!(direct.get(&manifest(1, 1), 0, 9).await.expect("get"), b"another's");
    assert_eq!(gateway.total_bytes(), 0);

    // Refused, as a URL that has run out is; then the gateway is asked, and
    // what it says is told with what the store said.
    proxy.next("PUT", &[Fault::Refuse(403, "AccessDenied")]);
    let both = machine.put_if_absent(&manifest(1, 2), b"mine").await;
    assert!(
        matches!(&both, Err(StoreError::Remote(why)) if why.contains("403") && why.contains("gateway")),
        "{both:?}"
    );
    let none = machine.put_if_absent(&manifest(1, 99), b"mine").await;
    assert!(matches!(&none, Err(StoreError::Remote(why)) if why.contains("no signed URL")), "{none:?}");
}

#[tokio::test]
async fn nothing_is_signed_that_would_not_keep_its_promise() {
    let here = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let plan = plan(None, Duration::from_hours(12), Next { pack: 1, manifest: 1 });
    let mut config = server::config(here, "");
    config.writes = Writes::Overwriting;
    let told = s3::open(config).expect("good").booklet("run", 1, &plan, 1).await;
    assert!(matches!(told, Err(SignError::Overwrites)), "{told:?}");
    let mut config = server::config(here, "");
    config.credentials = Credentials::new("AKIDEXAMPLE", "a-secret", Some("a-token"));
    let told = s3::open(config).expect("good").booklet("run", 1, &plan, 1).await;
    assert!(matches!(told, Err(SignError::Session)), "{told:?}");
}

#[tokio::test]
async fn without_a_good_url_the_gateway_takes_it() {
    let Some(server) = server::start("without_a_good_url_the_gateway_takes_it") else { return };
    let proxy = Proxy::start(server.address, None);
    let gateway = MemoryStore::default();
    let machine = machine(1, &gateway);
    assert_eq!(machine.put_if_absent(&pack(1, 1), b"a").await.expect("no booklet yet"), Put::Created);
    machine.renew(&booklet(&server::store(proxy.address, ""), 1).await).expect("a good booklet");
    proxy.decide(|_, _| Fault::Refuse(403, "AccessDenied"));
    assert_eq!(machine.put_if_absent(&pack(1, 2), b"b").await.expect("refused"), Put::Created);
    proxy.decide(|_, _| Fault::CutBefore);
    assert_eq!(machine.put_if_absent(&pack(1, 3), b"c").await.expect("unreachable"), Put::Created);
    assert_eq!(machine.left(), 17, "the refused one is gone, the other may serve again");
    assert_eq!(gateway.list("").await.expect("list"), [pack(1, 1), pack(1, 2), pack(1, 3)]);
    assert!(server::store(server.address, "").list("").await.expect("list").is_empty());
}

#[tokio::test]
async fn what_a_superseded_machine_writes_is_never_read() {
    let Some(server) = server::start("what_a_superseded_machine_writes_is_never_read") else { return };
    let store = server::store(server.address, "");
    let gateway = MemoryStore::default();
    let (old, new) = (machine(1, &gateway), machine(2, &gateway));
    let issued = booklet(&store, 1).await;
    old.renew(&issued).expect("its own");
    assert!(new.renew(&issued).is_err(), "an older generation's booklet");
    old.put_if_absent(&manifest(1, 1), b"before the cut").await.expect("put");
    // Cut off, replaced, and writing on with URLs that still hold.
    new.renew(&booklet(&store, 2).await).expect("its own");
    new.put_if_absent(&manifest(2, 1), b"the head").await.expect("put");
    for seq in 2..7 {
        assert_eq!(old.put_if_absent(&manifest(1, seq), b"stale").await.expect("put"), Put::Created);
    }
    // A resume lists the bound generation alone, and it is untouched.
    let read = store.list(&format!("{}m", ObjectKey::prefix("run", 2))).await.expect("list");
    assert_eq!(read, [manifest(2, 1)]);
    assert_eq!(store.get(&manifest(2, 1), 0, 8).await.expect("get"), b"the head");
}

#[tokio::test]
async fn urls_lead_over_tls_to_whom_is_trusted_only() {
    let Some(server) = server::start("urls_lead_over_tls_...") else { return };
    let (tls, pem) = certificate();
    let proxy = Proxy::start(server.address, Some(tls));
    let mut config = server::config(proxy.address, "");
    config.endpoint = Some(format!("https://localhost:{}", proxy.address.port()));
    let issued = booklet(&s3::open(config).expect("a good configuration"), 1).await;
    let connect = |roots: rustls::RootCertStore| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = SignedClient::new(Arc::new(Plain), Some(Arc::new(tls)));
        let gateway = MemoryStore::default();
        gateway.fail_puts(0, 1, Gateway::Remote);
        let machine = BookletStore::new("run", 1, Arc::new(gateway), Arc::new(client));
        machine.renew(&issued).expect("a good booklet");
        machine
    };
    let told = connect(rustls::RootCertStore::empty()).put_if_absent(&pack(1, 1), b"x").await;
    assert!(matches!(&told, Err(StoreError::Remote(why)) if why.contains("not trusted")), "{told:?}");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")).expect("a root");
    assert_eq!(connect(roots).put_if_absent(&pack(1, 1), b"x").await.expect("put"), Put::Created);
    assert_eq!(server::store(server.address, "").get(&pack(1, 1), 0, 1).await.expect("get"), b"x");
}
