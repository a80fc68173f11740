//! Runs of an MLflow tracking server, by its REST interface:
//! <https://mlflow.org/docs/latest/api_reference/rest-api.html>.
//!
//! Analysing only asks: nothing at the server changes. What proves who asks comes from
//! the environment, never from the command line, and goes over the network in
//! the clear to nobody but this computer. The answers are a stranger's: they are
//! bounded, and what they say is data.

mod address;
mod answers;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::time::Duration;

use curves::format::{Format, parse_json};
use curves::log::Value;
use reqwest::{Client, Method, Response, StatusCode, redirect};

use super::find::{self, Found};
pub(crate) use address::{Address, decoded, is_safe};

/// The most bytes of one answer.
const MAX_ANSWER: usize = 64 << 20;
/// The most bytes that are kept of one run.
const MAX_RUN: u64 = 1 << 30;
/// Metrics of one run that are asked for.
const MAX_METRICS: usize = 2000;
/// Values that the server gives in one answer.
const PAGE: &str = "10000";
/// Pages of one list that are asked for, however many a server says there are.
const MAX_PAGES: usize = 5_000;
/// How variables begin that prove who asks.
const PROOFS: &str = "MLFLOW_TRACKING_";
/// For the whole of one question.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that can be asked.
pub(crate) struct Server {
    client: Client,
    address: Address,
    /// Proofs of who asks.
    env: BTreeMap<String, String>,
}

/// Takes in the runs that an address names.
///
/// # Errors
/// Where the server cannot be asked, or knows nothing of that name.
pub(super) async fn add(
    found: &mut Found,
    address: &Address,
    env: &BTreeMap<String, String>,
) -> io::Result<()> {
    let (server, runs) = Server::new(address.clone(), env)?.runs().await?;
    let (count, most) = (runs.len(), find::MAX_RUNS);
    for run in runs.into_iter().take(most) {
        let name = answers::text(run.member("info"), &["run_name", "run_id", "run_uuid"]).unwrap_or_default();
        let path = address.shown(&name);
        if answers::text(run.member("info"), &["lifecycle_stage"]).as_deref() == Some("deleted") {
            found.skip(&path, "deleted in MLflow");
            continue;
        }
        let dir = tempfile::tempdir()?;
        let lines = dir.path().join("lines");
        server.write(&run, File::create_new(&lines)?).await?;
        let why = format!("as the MLflow server at {} answered", address.host());
        found.push_elsewhere(&path, lines, dir, (Format::MlflowMetric, why));
    }
    if count > most {
        found.skip(&address.shown("..."), format!("more than {most} runs: name fewer at once"));
    }
    Ok(())
}

/// Takes in the same where nothing can be waited for: on a thread and a runtime of
/// its own, as the caller may be inside of one.
///
/// # Errors
/// As [`add`].
pub(super) fn add_now(found: &mut Found, address: &Address) -> io::Result<()> {
    let env = std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
            .filter(|(name, _)| name.starts_with(PROOFS))
    });
    let env: BTreeMap<String, String> = env.collect();
    let asked = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(add(found, address, &env))
    };
    std::thread::scope(|scope| {
        scope.spawn(asked).join().unwrap_or_else(|_| Err(io::Error::other("asking the server failed")))
    })
}

/// What an address names at a server.
pub(crate) struct Experiment {
    /// The server under the address that knows it, else the first that answers.
    pub(crate) server: Server,
    pub(crate) name: String,
    /// `None`: there is none of that name.
    pub(crate) id: Option<String>,
}

impl Server {
    /// A server at an address.
    ///
    /// # Errors
    /// Where what proves who asks would go over the network in the clear.
    pub(crate) fn new(address: Address, env: &BTreeMap<String, String>) -> io::Result<Self> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .timeout(PATIENCE)
            .no_proxy()
            .build()
            .map_err(|error| io::Error::other(reason(&error)))?;
        let env = env.iter().filter(|(name, _)| name.starts_with(PROOFS));
        let server = Self { client, address, env: env.map(|(n, v)| (n.clone(), v.clone())).collect() };
        server.may_prove()?;
        Ok(server)
    }

    /// Asks something that changes nothing.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub(crate) async fn get(&self, call: &str, query: &[(&str, &str)]) -> io::Result<Value> {
        self.ask(Method::GET, call, query, None).await
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn post(&self, call: &str, body: &serde_json::Value) -> io::Result<Value> {
        self.ask(Method::POST, call, &[], Some(body.to_string())).await
    }

    fn said(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Refuses to send what proves who asks in the clear.
    fn may_prove(&self) -> io::Result<()> {
        let proof = self.said("MLFLOW_TRACKING_TOKEN").or_else(|| self.said("MLFLOW_TRACKING_PASSWORD"));
        if proof.is_none() || self.address.is_safe() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "MLFLOW_TRACKING_TOKEN would go over the network in the clear: name the server with https://",
        ))
    }

    async fn ask(
        &self,
        method: Method,
        call: &str,
        query: &[(&str, &str)],
        body: Option<String>,
    ) -> io::Result<Value> {
        let (status, answer) = self.exchange(method, call, query, body).await?;
        if status.is_success() {
            return answer.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its answer is no JSON"));
        }
        Err(refusal(status, answer.as_ref()))
    }

    /// The status of an answer, and what it says where that is JSON.
    async fn exchange(
        &self,
        method: Method,
        call: &str,
        query: &[(&str, &str)],
        body: Option<String>,
    ) -> io::Result<(StatusCode, Option<Value>)> {
        let url = self.address.call(call, query)?;
        let mut request = self.client.request(method, url);
        if let Some(token) = self.said("MLFLOW_TRACKING_TOKEN") {
            request = request.bearer_auth(token);
        } else if let Some(name) = self.said("MLFLOW_TRACKING_USERNAME") {
            request = request.basic_auth(name, self.said("MLFLOW_TRACKING_PASSWORD"));
        }
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        let response = request.send().await.map_err(|error| {
            io::Error::new(
                io::ErrorKind::NotConnected,
                format!("{} cannot be reached: {}", self.address.host(), reason(&error)),
            )
        })?;
        let status = response.status();
        let bytes = body_of(response).await?;
        Ok((status, parse_json(&bytes)))
    }

    /// The experiment that the address names, else one of this name: by its name, or
    /// by its number as a browser shows it.
    ///
    /// # Errors
    /// Where no MLflow server answers there, or it refuses.
    pub(crate) async fn experiment(&self, otherwise: &str) -> io::Result<Experiment> {
        let (mut first, mut failed) = (None, None);
        for address in std::iter::once(self.address.clone()).chain(self.address.others()) {
            let name = address.named().unwrap_or(otherwise).to_owned();
            let server = Self { client: self.client.clone(), address, env: self.env.clone() };
            match server.id_of(&name).await? {
                Ok(Some(id)) => return Ok(Experiment { server, name, id: Some(id) }),
                Ok(None) => first = first.or(Some(Experiment { server, name, id: None })),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        first.ok_or_else(|| failed.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    /// The id of an experiment, if there is one; within: why what answers is no
    /// MLflow server.
    async fn id_of(&self, name: &str) -> io::Result<Result<Option<String>, io::Error>> {
        let (status, answer) =
            self.exchange(Method::GET, "experiments/get-by-name", &[("experiment_name", name)], None).await?;
        let id = |answer: &Value| answers::text(answer.member("experiment"), &["experiment_id"]);
        match (status.as_u16(), &answer) {
            (200..300, Some(found)) if id(found).is_some() => Ok(Ok(id(found))),
            (404, Some(told)) if told.member("error_code").is_some() => {
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Ok(Ok(None));
                }
                match self.get("experiments/get", &[("experiment_id", name)]).await {
                    Ok(found) => Ok(Ok(id(&found))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ok(None)),
                    Err(error) => Err(error),
                }
            }
            // Another program, or a page of a proxy.
            (404 | 405 | 200..300, _) => Ok(Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("it answered {}: no MLflow server answers there", status.as_u16()),
            ))),
            _ => Err(refusal(status, answer.as_ref())),
        }
    }

    /// The runs that the address names, with the server that knows them: a run by its
    /// id, else the runs of an experiment by its name or id.
    async fn runs(self) -> io::Result<(Self, Vec<Value>)> {
        let Some(name) = self.address.named() else { return Err(self.experiments().await?) };
        if self.address.run().is_some()
            || name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            let run = self.ask(Method::GET, "runs/get", &[("run_id", name)], None).await?;
            let runs = run.member("run").cloned().into_iter().collect();
            return Ok((self, runs));
        }
        let Experiment { server, id, .. } = self.experiment(name).await?;
        let Some(id) = id else { return Err(server.experiments().await?) };
        let runs = server.runs_of(&id).await?;
        Ok((server, runs))
    }

    /// The runs of an experiment, the newest first.
    async fn runs_of(&self, id: &str) -> io::Result<Vec<Value>> {
        let mut runs = Vec::new();
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let page = serde_json::json!({
                "experiment_ids": [id], "max_results": 20, "page_token": token,
                "order_by": ["attributes.start_time DESC"],
            });
            let answer = self.ask(Method::POST, "runs/search", &[], Some(page.to_string())).await?;
            runs.extend(answers::list(&answer, "runs").cloned());
            match answers::text(Some(&answer), &["next_page_token"])
                .filter(|next| !next.is_empty() && *next != token)
            {
                Some(next) if runs.len() <= find::MAX_RUNS => token = next,
                _ => break,
            }
        }
        if runs.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the experiment has no runs"));
        }
        Ok(runs)
    }

    /// Says which experiments there are.
    async fn experiments(&self) -> io::Result<io::Error> {
        let body = serde_json::json!({ "max_results": 20 }).to_string();
        let answer = self.ask(Method::POST, "experiments/search", &[], Some(body)).await?;
        let names: Vec<String> = answers::list(&answer, "experiments")
            .filter_map(|one| answers::text(Some(one), &["name"]))
            .take(20)
            .map(|name| super::words::name(&name))
            .collect();
        let listed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Ok(io::Error::new(
            io::ErrorKind::NotFound,
            format!("name an experiment, or a run by its id, behind the address; experiments: {listed}"),
        ))
    }

    /// Writes a run as records.
    async fn write(&self, run: &Value, to: File) -> io::Result<()> {
        let mut out = answers::Bounded { inner: BufWriter::new(to), left: MAX_RUN };
        for line in answers::about(run) {
            out.line(&line)?;
        }
        let id = answers::text(run.member("info"), &["run_id", "run_uuid"]).unwrap_or_default();
        let data = run.member("data");
        let keys = data.into_iter().flat_map(|data| answers::list(data, "metrics"));
        let keys: Vec<String> =
            keys.filter_map(|one| answers::text(Some(one), &["key"])).take(MAX_METRICS).collect();
        for key in keys {
            let mut token = String::new();
            for _ in 0..MAX_PAGES {
                let mut query =
                    vec![("run_id", id.as_str()), ("metric_key", key.as_str()), ("max_results", PAGE)];
                if !token.is_empty() {
                    query.push(("page_token", &token));
                }
                let answer = self.ask(Method::GET, "metrics/get-history", &query, None).await?;
                for line in answers::list(&answer, "metrics").filter_map(|one| answers::row(&key, one)) {
                    out.line(&line)?;
                }
                let next = answers::text(Some(&answer), &["next_page_token"]);
                match next.filter(|next| !next.is_empty() && *next != token) {
                    Some(next) => token = next,
                    None => break,
                }
            }
        }
        out.inner.flush()
    }
}

/// Why a server did not do it.
fn refusal(status: StatusCode, answer: Option<&Value>) -> io::Error {
    let told = answers::text(answer, &["message"]).unwrap_or_default();
    let kind = match status.as_u16() {
        404 => io::ErrorKind::NotFound,
        401 | 403 => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::InvalidData,
    };
    let told = if told.is_empty() { String::new() } else { format!(", {}", super::words::quoted(&told)) };
    io::Error::new(kind, format!("it answered {}{told}", status.as_u16()))
}

/// The bytes of an answer.
///
/// # Errors
/// Where it breaks off or is too long.
pub(super) async fn body_of(mut response: Response) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| io::Error::other(reason(&error)))? {
        if bytes.len() + piece.len() > MAX_ANSWER {
            let most = MAX_ANSWER >> 20;
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it answered with more than {most} MiB"),
            ));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// An error with its causes and without its address.
pub(super) fn reason(error: &reqwest::Error) -> String {
    let mut text = match error {
        error if error.is_timeout() => "no answer in time".to_owned(),
        error if error.is_connect() => "no connection".to_owned(),
        _ => "the exchange broke off".to_owned(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text.push_str(&format!(": {said}"));
        }
        cause = next.source();
    }
    text
}
