//! What keeps a store from being used is told by name, when it is set up and
//! later.

use std::time::Duration;

use artifacts::store::remote::probe::probe;
use artifacts::store::remote::s3::S3Config;
use artifacts::store::remote::{RemoteStore, Writes, s3};
use artifacts::store::trouble::Trouble;
use artifacts::{Store, StoreError};

use super::proxy::{Fault, Proxy};
use super::{certificate, key, server};

/// This computer's clock, so many minutes slow.
fn slow_by(minutes: i64) -> impl Fn() -> i64 + Send + Sync {
    move || now_ms() - minutes * 60 * 1000
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    now.as_millis() as i64
}

fn open(config: S3Config) -> RemoteStore {
    s3::open(config).expect("a good configuration")
}

fn impatient(address: std::net::SocketAddr) -> S3Config {
    let mut config = server::config(address, "");
    config.patience.attempts = 2;
    config.patience.pause = Duration::from_millis(1);
    config
}

#[tokio::test]
async fn a_good_store_passes_and_nothing_is_left_behind() {
    let Some(server) = server::start("a_good_store_passes_...") else { return };
    let store = server::store(server.address, "team");
    let found = probe(&store, &now_ms).await.expect("a good store");
    assert!(found.create_only);
    assert!(found.skew_ms.abs() < 60_000, "{found:?}");
    assert!(server::store(server.address, "").list("").await.expect("list").is_empty());
    let far = probe(&store, &slow_by(20)).await;
    assert!(matches!(far, Err(Trouble::ClockSkew(Some(ms))) if ms > 19 * 60 * 1000), "{far:?}");
}

#[tokio::test]
async fn a_store_that_overwrites_is_refused_unless_accepted() {
    let Some(server) = server::moto("a_store_that_overwrites_is_refused_...") else { return };
    let proxy = Proxy::start(server.address, None);
    proxy.decide(|_, _| Fault::Unconditional);
    let mut config = impatient(proxy.address);
    assert_eq!(probe(&open(config.clone()), &now_ms).await, Err(Trouble::Overwrites));
    config.writes = Writes::Overwriting;
    let found = probe(&open(config), &now_ms).await.expect("accepted");
    assert!(!found.create_only);
    assert!(
        server::store(server.address, "").list("").await.expect("list").is_empty(),
        "nothing is left behind"
    );
}

#[tokio::test]
async fn every_trouble_has_its_name() {
    let Some(server) = server::start("every_trouble_has_its_name") else { return };
    let proxy = Proxy::start(server.address, None);
    let store = open(impatient(proxy.address));
    type Wanted = fn(&Trouble) -> bool;
    let refusals: [(u16, &str, Wanted); 8] = [
        (403, "InvalidAccessKeyId", |t| matches!(t, Trouble::Credentials(_))),
        (403, "SignatureDoesNotMatch", |t| matches!(t, Trouble::Credentials(_))),
        (400, "ExpiredToken", |t| matches!(t, Trouble::Credentials(_))),
        (403, "AccessDenied", |t| matches!(t, Trouble::Denied(_))),
        (403, "RequestTimeTooSkewed", |t| matches!(t, Trouble::ClockSkew(None))),
        (507, "XMinioStorageFull", |t| matches!(t, Trouble::Full(_))),
        (301, "PermanentRedirect", |t| matches!(t, Trouble::Elsewhere(_))),
        (503, "SlowDown", |t| matches!(t, Trouble::Busy(503))),
    ];
    for (status, code, wanted) in refusals {
        proxy.decide(move |_, _| Fault::Refuse(status, code));
        let told = probe(&store, &now_ms).await.expect_err(code);
        assert!(wanted(&told), "{code}: {told:?}");
        assert!(!told.to_string().contains("a-secret"));
        // None of these says anything about an object.
        assert!(store.size(&key("run/a")).await.is_err(), "{code}");
        assert!(store.put_if_absent(&key("run/a"), b"x").await.is_err(), "{code}");
    }
    proxy.decide(|method, _| if method == "PUT" { Fault::Refuse(403, "AccessDenied") } else { Fault::None });
    assert!(matches!(probe(&store, &now_ms).await, Err(Trouble::ReadOnly(_))));
    proxy.decide(|method, _| if method == "PUT" { Fault::Refuse(400, "QuotaExceeded") } else { Fault::None });
    let full = store.put_if_absent(&key("run/a"), b"x").await;
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
}

#[tokio::test]
async fn a_listing_that_ends_early_is_no_listing() {
    let Some(server) = server::start("a_listing_that_ends_early_is_no_listing") else { return };
    let proxy = Proxy::start(server.address, None);
    proxy.decide(|method, target| {
        if method == "GET" && target.contains("list-type") { Fault::Unfinished } else { Fault::None }
    });
    let told = probe(&open(impatient(proxy.address)), &now_ms).await;
    assert!(matches!(&told, Err(Trouble::Senseless(why)) if why.contains("listing")), "{told:?}");
    assert!(server::store(server.address, "").list("").await.expect("list").is_empty());
}

#[tokio::test]
async fn nobody_is_sent_elsewhere() {
    let Some(server) = server::start("nobody_is_sent_elsewhere") else { return };
    let (proxy, other) = (Proxy::start(server.address, None), Proxy::start(server.address, None));
    let port = other.address.port();
    for status in [301, 302, 307, 308] {
        proxy.decide(move |_, _| Fault::Redirect(status, port));
        let store = open(impatient(proxy.address));
        let told = probe(&store, &now_ms).await;
        assert!(matches!(told, Err(Trouble::Elsewhere(_))), "{status}: {told:?}");
        assert!(matches!(store.get(&key("run/a"), 0, 1).await, Err(StoreError::Remote(_))), "{status}");
        assert!(store.put_if_absent(&key("run/a"), b"x").await.is_err(), "{status}");
    }
    assert!(other.seen().is_empty(), "a signed request went to {:?}", other.seen());
}

#[tokio::test]
async fn where_nothing_was_written_nothing_is_removed() {
    let Some(server) = server::start("where_nothing_was_written_nothing_is_removed") else { return };
    let proxy = Proxy::start(server.address, None);
    let store = open(impatient(proxy.address));
    let removals = || proxy.seen().iter().filter(|seen| seen.starts_with("DELETE")).count();
    proxy.decide(|_, _| Fault::Refuse(403, "AccessDenied"));
    assert!(probe(&store, &now_ms).await.is_err());
    assert_eq!(removals(), 0);
    proxy.decide(|method, _| if method == "PUT" { Fault::FailAfter } else { Fault::None });
    assert!(probe(&store, &now_ms).await.is_err());
    assert_eq!(removals(), 1, "what may be there is removed");
    assert!(server::store(server.address, "").list("").await.expect("list").is_empty());
}

#[tokio::test]
async fn no_bucket_no_host_and_no_trust_are_not_absence() {
    let Some(server) = server::moto("no_bucket_no_host_...") else { return };
    let mut config = impatient(server.address);
    config.bucket = "nothing-here".into();
    let store = open(config);
    assert_eq!(probe(&store, &now_ms).await, Err(Trouble::BucketMissing));
    let size = store.size(&key("run/a")).await;
    assert!(
        matches!(&size, Err(StoreError::Remote(why)) if why.contains("bucket does not exist")),
        "{size:?}"
    );
    assert!(matches!(store.get(&key("run/a"), 0, 1).await, Err(StoreError::Remote(_))));
    assert!(matches!(store.get(&key("run/a"), 0, 0).await, Err(StoreError::Remote(_))));
    assert!(matches!(store.list("").await, Err(StoreError::Remote(_))));
    assert!(matches!(store.delete(&key("run/a")).await, Err(StoreError::Remote(_))));

    // A port that nobody listens on, and that is given to nobody who asks for a
    // free one.
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    assert!(matches!(probe(&open(impatient(nobody)), &now_ms).await, Err(Trouble::Unreachable(_))));

    let (tls, _) = certificate();
    let proxy = Proxy::start(server.address, Some(tls));
    let mut config = impatient(proxy.address);
    config.endpoint = Some(format!("https://localhost:{}", proxy.address.port()));
    let told = probe(&open(config), &now_ms).await;
    assert!(matches!(told, Err(Trouble::Certificate(_))), "{told:?}");
}
