//! Stores across the network against a real S3 server, straight and through a
//! proxy that breaks requests: nothing acknowledged is lost, nothing is
//! overwritten, and what could not be asked is never taken for absent.

#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

#[cfg(feature = "azure")]
#[path = "stores/azure.rs"]
mod azure;
#[path = "stores/booklets.rs"]
mod booklets;
#[path = "stores/chaos.rs"]
mod chaos;
#[path = "stores/proxy.rs"]
mod proxy;
#[path = "stores/server.rs"]
mod server;
#[path = "stores/strict.rs"]
mod strict;
#[path = "stores/troubles.rs"]
mod troubles;

use std::sync::Arc;
use std::time::Duration;

use artifacts::store::contract::{contract, contract_of_one_writer};
use artifacts::store::remote::{Patience, Writes, s3};
use artifacts::{ObjectKey, Put, Store, StoreError};

use proxy::{Fault, Proxy};

fn key(text: &str) -> ObjectKey {
    text.parse().expect("a key")
}

#[tokio::test]
async fn s3_keeps_the_contract() {
    let Some(server) = server::start("s3_keeps_the_contract") else { return };
    whole_contract(&server::store(server.address, "")).await;
}

/// s3s-fs looks whether a key is free and then writes: of two that create at
/// the same instant both are told that they did.
async fn whole_contract(store: &dyn Store) {
    if server::is_strict() { contract_of_one_writer(store).await } else { contract(store).await }
}

#[tokio::test]
async fn s3_keeps_the_contract_below_a_prefix_in_small_pages_and_over_tls() {
    let Some(server) = server::start("s3_keeps_the_contract_below_a_prefix_...") else { return };
    let (tls, ca_pem) = certificate();
    let proxy = Proxy::start(server.address, Some(tls));
    // What others keep in the bucket is none of its business.
    let other = server::store(server.address, "");
    other.put_if_absent(&key("team/foreign"), b"x").await.expect("put");
    let mut config = server::config(proxy.address, "team/outlast");
    config.endpoint = Some(format!("https://localhost:{}", proxy.address.port()));
    config.allow_http = false;
    config.ca_pem = Some(ca_pem.into_bytes());
    config.page = 2;
    whole_contract(&s3::open(config).expect("a good configuration")).await;
    assert!(proxy.seen().iter().filter(|seen| seen.contains("continuation-token")).count() > 3, "pages");
    let names: Vec<String> =
        other.list("team/").await.expect("list").iter().map(ToString::to_string).collect();
    assert!(
        names.contains(&"team/foreign".to_owned()) && names.contains(&"team/outlast/other".to_owned()),
        "{names:?}"
    );
}

/// A server's configuration and the certificate that a client must trust.
pub(crate) fn certificate() -> (Arc<rustls::ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    (Arc::new(config), made.cert.pem())
}

#[tokio::test]
async fn what_became_of_a_put_is_read_back_and_never_assumed() {
    let Some(server) = server::start("what_became_of_a_put_...") else { return };
    let proxy = Proxy::start(server.address, None);
    let mut config = server::config(proxy.address, "");
    // Only requests that hang wait for this long.
    config.patience.answer = Duration::from_secs(2);
    let store = s3::open(config).expect("a good configuration");
    let direct = server::store(server.address, "");
    let cases: [(&str, &[Fault]); 9] = [
        ("refused", &[Fault::Refuse(500, "InternalError"), Fault::Refuse(503, "SlowDown")]),
        ("cut-before", &[Fault::CutBefore]),
        ("cut-after", &[Fault::CutAfter]),
        ("fail-after", &[Fault::FailAfter]),
        ("torn", &[Fault::Torn]),
        ("conflict", &[Fault::Refuse(409, "ConditionalRequestConflict")]),
        ("taken-by-nobody", &[Fault::Refuse(412, "PreconditionFailed")]),
        ("hang", &[Fault::Hang]),
        ("late", &[Fault::Late]),
    ];
    for (name, faults) in cases {
        let free = key(&format!("run/free-{name}"));
        proxy.next("PUT", faults);
        assert_eq!(store.put_if_absent(&free, b"mine").await.expect(name), Put::Created, "{name}");
        proxy.flush();
        assert_eq!(direct.get(&free, 0, 4).await.expect(name), b"mine", "{name}");
        for (held, put) in [("mine", Put::Same), ("other", Put::Different)] {
            let taken = key(&format!("run/{held}-{name}"));
            direct.put_if_absent(&taken, held.as_bytes()).await.expect(name);
            proxy.next("PUT", faults);
            assert_eq!(store.put_if_absent(&taken, b"mine").await.expect(name), put, "{name}");
            proxy.flush();
            assert_eq!(
                direct.get(&taken, 0, held.len() as u64).await.expect(name),
                held.as_bytes(),
                "{name}"
            );
        }
    }
    // The look, too, goes wrong.
    let twice = key("run/twice");
    let mut puts = 0;
    proxy.decide(move |method, _| match method {
        "PUT" => {
            puts += 1;
            if puts == 1 { Fault::CutAfter } else { Fault::None }
        }
        "HEAD" if puts == 1 => Fault::CutBefore,
        _ => Fault::None,
    });
    assert_eq!(store.put_if_absent(&twice, b"mine").await.expect("put"), Put::Created);
}

#[tokio::test]
async fn a_call_ends_whatever_the_store_does() {
    let Some(server) = server::start("a_call_ends_whatever_the_store_does") else { return };
    let proxy = Proxy::start(server.address, None);
    let mut config = server::config(proxy.address, "");
    // One answer may take longer than the call as a whole: so nothing is asked
    // twice, and a call without a bound of its own would ask six times.
    config.patience.answer = Duration::from_mins(10);
    config.patience.total = Duration::from_secs(1);
    let store = s3::open(config).expect("a good configuration");
    let object = key("run/object");
    proxy.decide(|_, _| Fault::Hang);
    assert!(matches!(store.put_if_absent(&object, b"x").await, Err(StoreError::Remote(_))));
    assert!(matches!(store.get(&object, 0, 1).await, Err(StoreError::Remote(_))));
    assert!(matches!(store.size(&object).await, Err(StoreError::Remote(_))));
    assert!(matches!(store.list("run/").await, Err(StoreError::Remote(_))));
    assert!(matches!(store.delete(&object).await, Err(StoreError::Remote(_))));
    // Whoever got no core for a second may have given up before it asked, or had its
    // connection come only when it was no longer wanted, and asked once more.
    let seen = proxy.seen();
    let times = |wanted: &String| seen.iter().filter(|asked| *asked == wanted).count();
    assert!(seen.iter().all(|asked| times(asked) <= 2), "something was asked again and again: {seen:?}");
}

#[tokio::test]
async fn a_put_looks_twice_and_says_full_only_of_all_its_requests() {
    let Some(server) = server::start("a_put_looks_twice_...") else { return };
    let proxy = Proxy::start(server.address, None);
    let mut config = server::config(proxy.address, "");
    config.patience.attempts = 3;
    let store = s3::open(config).expect("a good configuration");
    proxy.decide(|_, _| Fault::CutBefore);
    assert!(matches!(store.put_if_absent(&key("run/a"), b"x").await, Err(StoreError::Remote(_))));
    let count = |method: &str| proxy.seen().iter().filter(|seen| seen.starts_with(method)).count();
    assert_eq!((count("PUT"), count("HEAD")), (3, 6));

    // The first may have been stored all the same, or may arrive yet.
    proxy.next("PUT", &[Fault::CutBefore, Fault::Refuse(507, "XMinioStorageFull")]);
    let told = store.put_if_absent(&key("run/b"), b"x").await;
    assert!(matches!(told, Err(StoreError::Remote(_))), "{told:?}");
    proxy.next("PUT", &[Fault::Refuse(507, "XMinioStorageFull")]);
    let told = store.put_if_absent(&key("run/b"), b"x").await;
    assert!(matches!(told, Err(StoreError::Full(_))), "{told:?}");

    // Bytes that came torn are sent again.
    proxy.next("PUT", &[Fault::Refuse(400, "IncompleteBody"), Fault::Refuse(400, "BadDigest")]);
    assert_eq!(store.put_if_absent(&key("run/c"), b"x").await.expect("put"), Put::Created);
}

#[tokio::test]
async fn a_read_is_whole_or_an_error() {
    let Some(server) = server::start("a_read_is_whole_or_an_error") else { return };
    let proxy = Proxy::start(server.address, None);
    let (object, bytes) = (key("run/object"), vec![7; 300_000]);
    server::store(server.address, "").put_if_absent(&object, &bytes).await.expect("put");
    let mut config = server::config(proxy.address, "");
    config.patience = Patience { attempts: 3, pause: Duration::from_millis(1), ..Patience::default() };
    let store = s3::open(config).expect("a good configuration");
    for fault in
        [Fault::Torn, Fault::CutBefore, Fault::Refuse(503, "SlowDown"), Fault::Refuse(500, "InternalError")]
    {
        for method in ["GET", "HEAD"] {
            proxy.next(method, &[fault; 2]);
            assert_eq!(store.get(&object, 1, 299_999).await.expect("get").len(), 299_999, "{fault:?}");
            proxy.next(method, &[fault; 2]);
            assert_eq!(store.size(&object).await.expect("size"), Some(300_000), "{fault:?}");
            proxy.next(method, &[fault; 2]);
            assert_eq!(store.list("run/").await.expect("list"), std::slice::from_ref(&object), "{fault:?}");
        }
        // As often as it is asked.
        proxy.decide(move |_, _| fault);
        assert!(matches!(store.get(&object, 0, 10).await, Err(StoreError::Remote(_))), "{fault:?}");
        assert!(matches!(store.size(&object).await, Err(StoreError::Remote(_))), "{fault:?}");
        assert!(matches!(store.size(&key("run/none")).await, Err(StoreError::Remote(_))), "{fault:?}");
        assert!(matches!(store.list("run/").await, Err(StoreError::Remote(_))), "{fault:?}");
        assert!(matches!(store.delete(&object).await, Err(StoreError::Remote(_))), "{fault:?}");
    }
}

#[tokio::test]
async fn a_store_that_overwrites_is_looked_at_first_and_sent_parts() {
    let Some(server) = server::start("a_store_that_overwrites_...") else { return };
    let proxy = Proxy::start(server.address, None);
    proxy.decide(|_, _| Fault::Unconditional);
    let mut config = server::config(proxy.address, "");
    config.writes = Writes::Overwriting;
    let store = s3::open(config).expect("a good configuration");
    let small = key("run/small");
    assert_eq!(store.put_if_absent(&small, b"first").await.expect("put"), Put::Created);
    assert_eq!(store.put_if_absent(&small, b"first").await.expect("put"), Put::Same);
    assert_eq!(store.put_if_absent(&small, b"other").await.expect("put"), Put::Different);
    assert_eq!(store.get(&small, 0, 5).await.expect("get"), b"first");
    let (large, bytes) = (key("run/large"), (0..40_u32 << 20).map(|i| (i % 253) as u8).collect::<Vec<u8>>());
    assert_eq!(store.put_if_absent(&large, &bytes).await.expect("put 40 MiB"), Put::Created);
    assert!(store.get(&large, 0, bytes.len() as u64).await.expect("get 40 MiB") == bytes);
    let parts = proxy.seen().iter().filter(|seen| seen.contains("partNumber=")).count();
    assert_eq!(parts, 3, "in parts of 16 MiB");
}
