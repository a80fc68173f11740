//! Carries one call to Vast.ai and back: its turn, its key, its bounds. It
//! interprets nothing. It must never send a call twice by itself that could
//! make or change something: only reads are repeated.

use std::time::Duration;

use reqwest::{Client, Method, redirect};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::answer::{self, Failure, Kind, Raw, printable};
use super::key::Key;
use super::pace::{Op, Pace};

/// Longest answer that is read: a list of 25 machines has 100 KB.
const BODY_MAX: usize = 8 << 20;
/// How often a read is tried.
const READS: u32 = 3;
const CONNECT: Duration = Duration::from_secs(10);
/// Longest that a turn is waited for; more is told as busy.
const TURN_MAX_MS: u64 = 90_000;

/// Where calls go.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    base: String,
    pace: Mutex<Pace>,
    started: Instant,
    /// How long an interval of the vendor takes here, in hundredths: less than
    /// 100 only before a stand-in whose own clock is faster. 0: none is kept.
    pace_percent: u32,
}

/// One call.
pub(super) struct Call<'a> {
    pub(super) op: Op,
    pub(super) method: Method,
    /// Path and query, exactly as listed: trailing slashes matter.
    pub(super) path: String,
    pub(super) body: Option<&'a Value>,
}

impl Call<'static> {
    pub(super) fn get(op: Op, path: impl Into<String>) -> Self {
        Self { op, method: Method::GET, path: path.into(), body: None }
    }
}

impl Http {
    /// For one base address, such as `https://console.vast.ai`.
    ///
    /// # Errors
    /// Where there is no TLS to be had.
    pub(super) fn new(base: &str, patience: Duration, pace_percent: u32) -> Result<Self, String> {
        let client = Client::builder()
            .user_agent(concat!("outlast/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .timeout(patience)
            // A write that is sent elsewhere may be done twice.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| format!("no HTTP client: {}", reason(&error)))?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { client, base, pace: Mutex::new(Pace::default()), started: Instant::now(), pace_percent })
    }

    /// The vendor's clock, in which turns are counted: a turn taken on another
    /// one would lie ever further ahead of it.
    fn now_ms(&self) -> u64 {
        let here = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        here.saturating_mul(100) / u64::from(self.pace_percent.max(1))
    }

    /// A call that only reads: repeated where its answer was lost.
    pub(super) async fn read(&self, key: &Key, call: &Call<'_>) -> Result<Value, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.once(key, call).await {
                Err(failure) if tries < READS && matches!(failure.kind, Kind::Busy(_) | Kind::Unknown) => {}
                done => return done,
            }
        }
    }

    /// One call, sent once.
    pub(super) async fn once(&self, key: &Key, call: &Call<'_>) -> Result<Value, Failure> {
        self.turn(call.op).await?;
        self.now(key, call).await
    }

    /// Waits for the next turn of a kind of call, and takes it.
    pub(super) async fn turn(&self, op: Op) -> Result<(), Failure> {
        if self.pace_percent == 0 {
            return Ok(());
        }
        let turn = {
            let mut pace = self.pace.lock().await;
            let now = self.now_ms();
            pace.turn(op, now, TURN_MAX_MS).map(|at| Duration::from_millis(at.saturating_sub(now)))
        };
        let wait = match turn {
            Ok(wait) => wait * self.pace_percent / 100,
            Err(ms) => {
                let text = format!("Vast.ai takes no such call for another {} s", ms / 1_000);
                return Err(Failure { kind: Kind::Queue, text, contract: None });
            }
        };
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// A call whose turn was taken before.
    pub(super) async fn now(&self, key: &Key, call: &Call<'_>) -> Result<Value, Failure> {
        let mut done = match self.send(key, call).await {
            Ok(raw) => answer::read(&raw),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = &mut done
            && failure.kind == Kind::Key
        {
            failure.text = format!("{}; {}", failure.text, key.refused());
        }
        if let Err(Failure { kind: Kind::Busy(ms), .. }) = &done {
            let now = self.now_ms();
            // The service says in no header how long; its penalty is 12 s.
            self.pace.lock().await.refused(call.op, now, (*ms).clamp(12_000, 60_000));
        }
        done
    }

    async fn send(&self, key: &Key, call: &Call<'_>) -> Result<Raw, Failure> {
        let url = format!("{}{}", self.base, call.path);
        let mut request = self.client.request(call.method.clone(), url).bearer_auth(key.as_str());
        if call.method != Method::GET {
            let body = call.body.map_or_else(|| "{}".to_owned(), Value::to_string);
            request = request.header("Content-Type", "application/json").body(body);
        }
        let lost = |error: &reqwest::Error| {
            // What was never sent did nothing.
            let kind = if error.is_connect() || error.is_builder() { Kind::Busy(0) } else { Kind::Unknown };
            let text = format!("Vast.ai at {} cannot be reached: {}", self.base, reason(error));
            Failure { kind, text, contract: None }
        };
        let mut response = request.send().await.map_err(|error| lost(&error))?;
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let mut raw = Raw {
            status: response.status().as_u16(),
            body: Vec::new(),
            retry_after_s: header("retry-after"),
            reset_s: header("x-ratelimit-reset"),
        };
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) if raw.body.len() + bytes.len() <= BODY_MAX => {
                    raw.body.extend_from_slice(&bytes);
                }
                Ok(Some(_)) => {
                    let text = format!("Vast.ai answered with more than {} MB", BODY_MAX >> 20);
                    return Err(Failure { kind: Kind::Unknown, text, contract: None });
                }
                Ok(None) => return Ok(raw),
                Err(error) => return Err(Failure { kind: Kind::Unknown, ..lost(&error) }),
            }
        }
    }
}

/// Percent-encoding of a query's value (RFC 3986, section 2).
pub(super) fn escaped(text: &str) -> String {
    let byte = |b: u8| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// An error with its causes and without its address, in which a key could
/// stand.
fn reason(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "no answer in time".to_owned() } else { String::new() };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = if text.is_empty() { said } else { format!("{text}: {said}") };
        }
        source = cause.source();
    }
    if text.is_empty() { "the connection broke".to_owned() } else { printable(&text) }
}
