//! What only a server shows that checks signatures and keeps its objects on
//! disk: that a signed URL creates and never overwrites, and that what was
//! acknowledged is there after the server was killed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use artifacts::store::booklet::plan::{Next, plan};
use artifacts::store::remote::probe::probe;
use artifacts::store::remote::s3::{self, Credentials};
use artifacts::store::trouble::Trouble;
use artifacts::{ObjectKey, Put, Store};
use tokio::task::JoinSet;

use super::{key, server};

/// Puts with a signed URL as anybody with a socket can.
fn put(url: &str, headers: &str, body: &str) -> String {
    let rest = url.strip_prefix("http://").expect("a plain address");
    let (host, path) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host).expect("connected");
    let length = body.len();
    write!(
        stream,
        "PUT /{path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_signed_url_creates_and_nothing_else() {
    let Some(server) = server::strict("a_signed_url_creates_and_nothing_else") else { return };
    let store = server::store(server.address, "team");
    let plan = plan(None, Duration::from_hours(12), Next { pack: 1, manifest: 1 });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let booklet = store.booklet("run", 1, &plan, now.as_millis() as u64).await.expect("signed");
    let url = booklet.packs[0].put.reveal().to_owned();
    let pack = ObjectKey::pack("run", 1, 1).expect("a key");
    for without in ["", "If-None-Match: \"x\"\r\n", "If-Match: *\r\n"] {
        let told = put(&url, without, "mine");
        assert!(told.contains(" 403 ") || told.contains(" 400 "), "without its condition: {told}");
        assert_eq!(store.size(&pack).await.expect("size"), None, "{told}");
    }
    let told = put(&url, "If-None-Match: *\r\n", "mine");
    assert!(told.contains(" 200 "), "{told}");
    for headers in ["If-None-Match: *\r\n", ""] {
        let told = put(&url, headers, "other");
        assert!(told.contains(" 412 ") || told.contains(" 403 ") || told.contains(" 400 "), "{told}");
    }
    assert_eq!(store.get(&pack, 0, 4).await.expect("get"), b"mine");
    // Another key under the same signature.
    let told = put(&url.replace("p00000001", "p00000002"), "If-None-Match: *\r\n", "mine");
    assert!(told.contains(" 403 "), "{told}");
}

#[tokio::test]
async fn wrong_credentials_are_told_as_such() {
    let Some(server) = server::strict("wrong_credentials_are_told_as_such") else { return };
    let mut config = server::config(server.address, "team");
    config.credentials = Credentials::new("AKIDEXAMPLE", "another", None);
    let store = s3::open(config).expect("a good configuration");
    let told = probe(&store, &|| 0).await;
    assert!(matches!(told, Err(Trouble::Credentials(_))), "{told:?}");
    assert!(store.size(&key("run/a")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_the_server_was_killed() {
    let Some(mut server) = server::strict("what_was_acknowledged_is_there_...") else { return };
    let mut config = server::config(server.address, "team");
    config.patience.attempts = 40;
    config.patience.pause = Duration::from_millis(50);
    let store = Arc::new(s3::open(config).expect("a good configuration"));
    let content = |number: u32| vec![(number % 251) as u8; 1 << 20];
    let writer = JoinSet::from_iter((0..4_u32).map(|part| {
        let store = store.clone();
        async move {
            for number in (part * 40)..(part * 40 + 40) {
                let put = store.put_if_absent(&key(&format!("run/{number}")), &content(number)).await;
                assert!(matches!(put, Ok(Put::Created | Put::Same)), "{number}: {put:?}");
            }
        }
    }));
    let mut killer = JoinSet::new();
    killer.spawn_blocking(move || {
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(300));
            server.kill_and_restart();
        }
        server
    });
    writer.join_all().await;
    let _servers = killer.join_all().await;
    for number in 0..160 {
        let got = store.get(&key(&format!("run/{number}")), 0, 1 << 20).await.expect("what was acknowledged");
        assert!(got == content(number), "{number}");
    }
}
