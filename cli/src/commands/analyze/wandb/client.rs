//! Questions to W&B's server: GraphQL over HTTP, as W&B's own public client asks
//! them. They change nothing there, so that each may be asked again.
//!
//! The key goes to the host of the base address and nowhere else: redirections
//! are not followed. Answers are a stranger's: bounded, and data.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde_json::{Value, json};

use super::address::Address;
use super::key::Key;
use crate::commands::analyze::{server, words};

/// How often a question is asked before it is given up.
const TRIES: u32 = 5;
/// The pause after the first time; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a server may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// For the whole of one question, unless `WANDB_HTTP_TIMEOUT` says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages of a refusal that are told.
const TOLD: usize = 3;

/// A server that can be asked.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    url: Url,
    host: String,
    key: Key,
    patience: Duration,
}

/// Why a try failed, and whether another could do better.
enum Failed {
    /// At once, or after as long as the server asked for.
    Again(io::Error, Option<Duration>),
    For(io::Error),
}

impl Api {
    /// A server at an address.
    ///
    /// # Errors
    /// Where there is no key for it.
    pub(super) fn new(address: &Address, env: &BTreeMap<String, String>) -> io::Result<Self> {
        let key = Key::of(env, address.machine())?;
        // W&B's own variable, in seconds.
        let patience = env.get("WANDB_HTTP_TIMEOUT").and_then(|text| text.trim().parse::<u64>().ok());
        let patience = patience.filter(|s| (1..=3600).contains(s)).map_or(PATIENCE, Duration::from_secs);
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10).min(patience))
            .timeout(patience)
            .no_proxy()
            .build()
            .map_err(|error| io::Error::other(server::reason(&error)))?;
        Ok(Self { client, url: address.questions(), host: address.host(), key, patience })
    }

    /// The data that a question is answered with.
    ///
    /// # Errors
    /// `TimedOut`, `NotConnected` where the server is not there or busy for too
    /// long; `FileTooLarge`; `PermissionDenied`; `InvalidData` for all else that
    /// it says.
    pub(super) async fn ask(&self, query: &str, variables: &Value) -> io::Result<Value> {
        let body = json!({ "query": query, "variables": variables }).to_string();
        let (began, mut pause) = (Instant::now(), PAUSE);
        for tried in 1.. {
            let (error, asked) = match self.once(body.clone()).await {
                Ok(data) => return Ok(data),
                Err(Failed::For(error)) => return Err(error),
                Err(Failed::Again(error, asked)) => (error, asked),
            };
            if tried >= TRIES || began.elapsed() >= 2 * self.patience {
                return Err(io::Error::new(error.kind(), format!("{error} ({tried} times)")));
            }
            // Those who were refused together do not all come back together.
            let spread = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
            tokio::time::sleep(asked.map_or(spread, |asked| asked.min(MAX_PAUSE))).await;
            pause *= 2;
        }
        Err(io::ErrorKind::NotConnected.into())
    }

    async fn once(&self, body: String) -> Result<Value, Failed> {
        let request = self.client.post(self.url.clone()).header("Content-Type", "application/json");
        let request = request.basic_auth("api", Some(self.key.secret())).body(body);
        let gone = |error: &reqwest::Error| {
            let kind = if error.is_timeout() { io::ErrorKind::TimedOut } else { io::ErrorKind::NotConnected };
            let why = format!("{} cannot be reached: {}", self.host, server::reason(error));
            Failed::Again(io::Error::new(kind, why), None)
        };
        let response = request.send().await.map_err(|error| gone(&error))?;
        let status = response.status();
        let wait = response.headers().get("Retry-After").and_then(|value| value.to_str().ok());
        let wait = wait.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let bytes = self.body_of(response).await?;
        let answer: Result<Value, _> = serde_json::from_slice(&bytes);
        if status.is_success() {
            let broken = |what: String| Failed::For(io::Error::new(io::ErrorKind::InvalidData, what));
            let mut answer = answer.map_err(|_| broken(format!("{} answered with no JSON", self.host)))?;
            if let Some(told) = told(&answer) {
                return Err(broken(format!("{} refused the question: {told}", self.host)));
            }
            return match answer.get_mut("data").map(Value::take) {
                Some(data @ Value::Object(_)) => Ok(data),
                _ => Err(broken(format!("{} answered without data", self.host))),
            };
        }
        let said = answer.ok().as_ref().and_then(told).map(|said| format!(", {said}")).unwrap_or_default();
        Err(self.refused(status, &said, wait))
    }

    fn refused(&self, status: StatusCode, said: &str, wait: Option<Duration>) -> Failed {
        let host = &self.host;
        let error = |kind, why: String| io::Error::new(kind, why);
        match status.as_u16() {
            code @ (408 | 425 | 429 | 500 | 502 | 503 | 504) => Failed::Again(
                error(io::ErrorKind::NotConnected, format!("{host} answered {code}{said}")),
                wait,
            ),
            code @ (401 | 403) => Failed::For(error(
                io::ErrorKind::PermissionDenied,
                format!("{host} does not accept the key ({code}{said})"),
            )),
            code @ 300..=399 => Failed::For(error(
                io::ErrorKind::InvalidData,
                format!("{host} answered {code} and names another address, to which the key is not sent"),
            )),
            code => Failed::For(error(io::ErrorKind::InvalidData, format!("{host} answered {code}{said}"))),
        }
    }

    /// The bytes of an answer, without the key where the server says it.
    async fn body_of(&self, response: Response) -> Result<Vec<u8>, Failed> {
        let read = server::body_of(response).await.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => Failed::For(error),
            _ => {
                let why = format!("{} broke off its answer: {error}", self.host);
                Failed::Again(io::Error::new(io::ErrorKind::NotConnected, why), None)
            }
        });
        let mut bytes = read?;
        self.key.blot(&mut bytes);
        Ok(bytes)
    }
}

/// What the list of errors in an answer says; `None` where there is none.
fn told(answer: &Value) -> Option<String> {
    // W&B's server gives the same list under the one key or the other.
    let errors = match answer.get("errors") {
        Some(Value::Array(errors)) if !errors.is_empty() => errors.as_slice(),
        Some(Value::Null) | None => std::slice::from_ref(answer.get("error").filter(|e| !e.is_null())?),
        Some(Value::Array(_)) => return None,
        Some(other) => std::slice::from_ref(other),
    };
    let said: Vec<String> = errors
        .iter()
        .take(TOLD)
        .map(|error| match error.get("message").and_then(Value::as_str).or_else(|| error.as_str()) {
            Some(text) => words::quoted(text),
            None => "an error without a message".to_owned(),
        })
        .collect();
    Some(said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_an_answer_are_told_as_data() {
        for (answer, said) in [
            (json!({"data": {}}), None),
            (json!({"data": {}, "errors": []}), None),
            (
                json!({"errors": [{"message": "no \u{1b}[31mproject"}, {"code": 1}]}),
                Some("\"no \\u{1b}[31mproject\", an error without a message"),
            ),
            (json!({"error": "invalid token"}), Some("\"invalid token\"")),
            (json!({"errors": "odd"}), Some("\"odd\"")),
        ] {
            assert_eq!(told(&answer).as_deref(), said, "{answer}");
        }
    }
}
