//! The socket around the fake Vast: reads requests within bounds, asks the
//! core, and sends, delays or withholds what it answers. Loopback only. It
//! decides nothing itself.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::state::{Boot, World};
use super::wire::{Delivery, Request};
use super::{advance, boot, handle, market};
use crate::loopback::{self, Answered};

/// The largest body that is read.
const BODY: usize = 4 << 20;
/// Connections at once.
const CONNECTIONS: usize = 512;
/// How often time passes where nobody asks.
const TICK: Duration = Duration::from_millis(20);
/// Calls of the machines' command that wait.
const BOOTS: usize = 4096;

/// A fake Vast.ai on loopback. Prints one line of JSON with its port; the key
/// it accepts is that of the environment, `FAKE_VAST_API_KEY`, or `test-key`.
#[derive(Debug, Parser)]
#[command(name = "fake-vast")]
struct Arguments {
    /// The port; 0 is any.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// What the market, ids and faults are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many machines the market has at first.
    #[arg(long, default_value_t = 0)]
    offers: usize,
    /// How many seconds pass in one; with 0 only the control plane moves the clock.
    #[arg(long, default_value_t = 1)]
    speed: u32,
    /// Where machines' files may lie; the command's working directory.
    #[arg(long, requires = "boot")]
    machines: Option<PathBuf>,
    /// What starts, stops and destroys machines.
    #[arg(long, requires = "machines")]
    boot: Option<PathBuf>,
    /// Ends when the standard input does.
    #[arg(long)]
    until_stdin_closes: bool,
}

/// The world and its clock.
pub(super) struct Shared {
    world: Mutex<World>,
    began: Instant,
    epoch_ms: u64,
    speed: u32,
}

impl Shared {
    /// The world, at the present moment.
    pub(super) fn now(&self) -> (MutexGuard<'_, World>, u64) {
        let world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.began.elapsed().saturating_mul(self.speed);
        (world, self.epoch_ms.saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Serves until it is ended.
#[must_use]
pub fn main() -> ExitCode {
    loopback::run("fake-vast", run(Arguments::parse()))
}

async fn run(arguments: Arguments) -> io::Result<Infallible> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port)).await?;
    let port = listener.local_addr()?.port();
    let url = format!("http://127.0.0.1:{port}");
    let epoch = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
    let epoch_ms = u64::try_from(epoch.as_millis()).unwrap_or_default();
    let key = std::env::var("FAKE_VAST_API_KEY").unwrap_or_else(|_| "test-key".to_owned());
    let mut world = World::new(epoch_ms, &key, arguments.seed);
    world.options_mut().url.clone_from(&url);
    world.options_mut().machines = arguments.boot.is_some();
    market::generate(&mut world, arguments.seed, arguments.offers);
    let shared = Arc::new(Shared {
        world: Mutex::new(world),
        began: Instant::now(),
        epoch_ms,
        speed: arguments.speed,
    });
    if arguments.until_stdin_closes {
        loopback::end_with_stdin();
    }
    let mut tasks = JoinSet::new();
    let (boots, waiting) = mpsc::channel(BOOTS);
    tasks.spawn(tick(shared.clone(), boots));
    if let (Some(program), Some(folder)) = (arguments.boot, arguments.machines) {
        tasks.spawn(boot::run(shared.clone(), program, folder, waiting));
    }
    writeln!(io::stdout(), "{}", serde_json::json!({"port": port, "url": url}))?;
    io::stdout().flush()?;
    loopback::accept(listener, CONNECTIONS, tasks, move |request| answer(shared.clone(), request)).await
}

/// Lets time pass, so that machines start and stop without being asked after.
async fn tick(shared: Arc<Shared>, boots: mpsc::Sender<Boot>) {
    loop {
        tokio::time::sleep(TICK).await;
        let told = {
            let (mut world, now) = shared.now();
            advance(&mut world, now);
            world.take_boots()
        };
        for boot in told {
            if boots.send(boot).await.is_err() {
                return;
            }
        }
    }
}

async fn answer(shared: Arc<Shared>, request: hyper::Request<Incoming>) -> Answered {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY).collect().await else {
        return hyper::Response::builder().status(413).body(Full::default()).map_err(io::Error::other);
    };
    let query = query(head.uri.query().unwrap_or_default());
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    let in_query = || query.iter().find(|(key, _)| key == "api_key").map(|(_, value)| value.clone());
    let request = Request {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        api_key: bearer.or_else(in_query),
        agent: header(USER_AGENT).unwrap_or_default().to_owned(),
        query,
        body: body.to_bytes().to_vec(),
    };
    let response = {
        let (mut world, now) = shared.now();
        handle(&mut world, now, &request)
    };
    match response.delivery {
        Delivery::Now => {}
        Delivery::Late { after_ms } => tokio::time::sleep(Duration::from_millis(after_ms)).await,
        Delivery::Close { after_ms } => {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            // An error of the service closes the connection without a word.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
    let mut builder =
        hyper::Response::builder().status(response.status).header(CONTENT_TYPE, &response.content_type);
    for (name, value) in &response.headers {
        builder = builder.header(*name, value);
    }
    builder.body(Full::new(Bytes::from(response.body))).map_err(io::Error::other)
}

/// The arguments of a query, decoded.
fn query(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn queries_are_decoded() {
    let pairs = query("a=%7B%22x%22%3A+1%7D&b&c=%zz");
    let expected = [("a", "{\"x\": 1}"), ("b", ""), ("c", "%zz")];
    assert_eq!(pairs, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}
