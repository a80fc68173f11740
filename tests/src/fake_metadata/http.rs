//! The socket around the fake services: reads requests within bounds, asks the
//! core, and sends, delays or withholds what it answers. Loopback only. It
//! decides nothing itself.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::ETAG;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Answer, Asked, World, answer};
use crate::loopback::{self, Answered};

/// The largest body that is read.
const BODY: usize = 1 << 20;
/// Connections at once.
const CONNECTIONS: usize = 256;
/// Between two looks while a request waits for a change.
const LOOK: Duration = Duration::from_millis(10);
/// A hung service hangs for this long.
const HANG: Duration = Duration::from_hours(1);

/// Fake metadata services of EC2, Google and Azure on one loopback port.
/// Prints one line of JSON with it.
#[derive(Debug, Parser)]
#[command(name = "fake-metadata")]
struct Arguments {
    /// The port; 0 is any.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Ends when the standard input does.
    #[arg(long)]
    until_stdin_closes: bool,
}

type Shared = Arc<Mutex<World>>;

/// Serves until it is ended.
#[must_use]
pub fn main() -> ExitCode {
    loopback::run("fake-metadata", run(Arguments::parse()))
}

async fn run(arguments: Arguments) -> io::Result<Infallible> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port)).await?;
    let port = listener.local_addr()?.port();
    if arguments.until_stdin_closes {
        loopback::end_with_stdin();
    }
    writeln!(io::stdout(), "{}", serde_json::json!({"port": port}))?;
    io::stdout().flush()?;
    let shared = Shared::default();
    loopback::accept(listener, CONNECTIONS, JoinSet::new(), move |request| respond(shared.clone(), request))
        .await
}

async fn respond(shared: Shared, request: hyper::Request<Incoming>) -> Answered {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY).collect().await else {
        return hyper::Response::builder().status(413).body(Full::default()).map_err(io::Error::other);
    };
    let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let asked = Asked {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        body: body.to_bytes().to_vec(),
    };
    let ask = |fresh: bool| {
        let mut world = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let before = (world.preempted_changes, world.faults.len());
        (answer(&mut world, unix_ms(), &asked, fresh), before)
    };
    let (first, before) = ask(true);
    let found = match first {
        Answer::Wait(ms) => {
            let until = Instant::now() + Duration::from_millis(ms);
            loop {
                let (now, seen) = ask(false);
                if seen != before || Instant::now() >= until {
                    break now;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        other => other,
    };
    match found {
        Answer::Say { status, body, etag } => {
            let mut builder = hyper::Response::builder().status(status);
            if let Some(etag) = etag {
                builder = builder.header(ETAG, etag);
            }
            if status == 302 {
                builder = builder.header("Location", "/control/state");
            }
            builder.body(Full::new(Bytes::from(body))).map_err(io::Error::other)
        }
        Answer::Wait(_) | Answer::Hang => {
            tokio::time::sleep(HANG).await;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
