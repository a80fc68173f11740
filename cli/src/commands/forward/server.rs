//! An MLflow tracking server, by its REST interface. A run there is found again
//! by the id that it has here, and tells how far it got: forwarding that was cut
//! off goes on from there and repeats one batch at most.

use std::path::Path;

use curves::log::Value;
use proto::v1;
use serde_json::{Value as Json, json};

use super::rows::{Came, Following, More};
use super::settings;
use crate::app::Context;
use crate::commands::analyze::server::{Address, Experiment, Server};
use crate::exit_code::{ExitCode, Failure};

/// Values in one call; the interface takes 1,000.
const BATCH: usize = 1_000;
/// Bytes of a parameter's value that MLflow takes.
const PARAMETER: usize = 500;
/// Parameters in one call.
const PARAMETERS: usize = 100;
/// The tags by which a run is found again and goes on.
const ID: &str = "outlast.run_id";
const READ: &str = "outlast.read";

/// A run on a server.
pub(super) struct Mlflow {
    server: Server,
    run: String,
    shown: String,
}

fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(value, |value, key| value.member(key))?.text()
}

/// A name as MLflow takes it: letters, digits and `_-. :/`.
fn name(text: &str) -> String {
    let fits = |c: char| c.is_alphanumeric() || "_-. :/".contains(c);
    text.chars().map(|c| if fits(c) { c } else { '_' }).take(250).collect()
}

impl Mlflow {
    /// The run on the server, made where it is not there yet.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub(super) async fn open(
        ctx: &Context,
        url: &str,
        detail: &v1::RunDetail,
        following: &mut Following,
    ) -> anyhow::Result<Self> {
        let address = Address::of(Path::new(url)).ok_or_else(|| {
            Failure::new(
                ExitCode::Usage,
                format!("`{url}` is no address of a server: http://HOST:PORT/EXPERIMENT"),
            )
        })?;
        let address = address?;
        let run = detail.run.clone().unwrap_or_default();
        let Experiment { server, name, id } =
            Server::new(address, &ctx.env)?.experiment(&run.project).await?;
        let experiment = match id {
            Some(id) => id,
            None => made(&server, &name).await?,
        };
        let filter = format!("tags.`{ID}` = '{}'", run.id);
        let ask = json!({"experiment_ids": [experiment], "filter": filter, "max_results": 1});
        let found = server.post("runs/search", &ask).await?;
        let known = match found.member("runs") {
            Some(Value::List(runs)) => runs.first().cloned(),
            _ => None,
        };
        let id = match &known {
            Some(known) => {
                *following = read_before(known).unwrap_or_default();
                text(known, &["info", "run_id"]).map(str::to_owned)
            }
            None => {
                let ask = json!({
                    "experiment_id": experiment, "start_time": run.created_ms, "run_name": run.name,
                    "tags": [{"key": ID, "value": run.id}, {"key": "mlflow.source.name", "value": run.name}],
                });
                let made = server.post("runs/create", &ask).await?;
                text(&made, &["run", "info", "run_id"]).map(str::to_owned)
            }
        };
        let id = id.ok_or_else(|| Failure::new(ExitCode::BadInput, "the server named no run"))?;
        let shown = format!("{url}#{}", run.name);
        let this = Self { server, run: id, shown };
        if known.is_none() {
            this.parameters(detail).await?;
        }
        Ok(this)
    }

    async fn parameters(&self, detail: &v1::RunDetail) -> anyhow::Result<()> {
        let value = |value: &Value| match value {
            Value::Bool(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(text) => text.chars().take(PARAMETER).collect(),
            _ => String::new(),
        };
        let given = settings(detail);
        let params: Vec<Json> =
            given.iter().map(|(key, given)| json!({"key": name(key), "value": value(given)})).collect();
        for params in params.chunks(PARAMETERS) {
            self.server.post("runs/log-batch", &json!({"run_id": self.run, "params": params})).await?;
        }
        Ok(())
    }

    /// Sends what came.
    ///
    /// # Errors
    /// Where the server refuses.
    pub(super) async fn write(&mut self, more: &More, following: &Following) -> anyhow::Result<()> {
        if more.came.is_empty() {
            return Ok(());
        }
        let mut metrics = Vec::new();
        for came in &more.came {
            let Came::Values(row) = came else { continue };
            let ms = (row.time * 1000.0).round().max(0.0) as u64;
            for (key, value) in &row.values {
                // What JSON has no number for, MLflow takes as text.
                let value = match value {
                    value if value.is_finite() => json!(value),
                    value if value.is_nan() => json!("NaN"),
                    value => json!(if *value > 0.0 { "Infinity" } else { "-Infinity" }),
                };
                metrics.push(json!({"key": name(key), "value": value, "timestamp": ms, "step": row.step}));
            }
        }
        for metrics in metrics.chunks(BATCH) {
            self.server.post("runs/log-batch", &json!({"run_id": self.run, "metrics": metrics})).await?;
        }
        let read = following.place().unwrap_or_default();
        self.server.post("runs/set-tag", &json!({"run_id": self.run, "key": READ, "value": read})).await?;
        Ok(())
    }

    /// The run has ended.
    ///
    /// # Errors
    /// Where the server refuses.
    pub(super) async fn finish(&mut self, run: &v1::RunView) -> anyhow::Result<()> {
        let status = match run.state.as_str() {
            "SUCCEEDED" => "FINISHED",
            "CANCELLED" => "KILLED",
            _ => "FAILED",
        };
        let ask = json!({"run_id": self.run, "status": status, "end_time": run.ended_ms});
        self.server.post("runs/update", &ask).await?;
        Ok(())
    }

    /// Where it is.
    pub(super) fn place(&self) -> String {
        self.shown.clone()
    }
}

/// How far forwarding got before.
fn read_before(run: &Value) -> Option<Following> {
    let Some(Value::List(tags)) = run.member("data").and_then(|data| data.member("tags")) else {
        return None;
    };
    let tag = tags.iter().find(|tag| text(tag, &["key"]) == Some(READ))?;
    Following::from(text(tag, &["value"])?)
}

/// The id of an experiment that is made.
async fn made(server: &Server, name: &str) -> anyhow::Result<String> {
    let made = server.post("experiments/create", &json!({"name": name})).await?;
    let id = text(&made, &["experiment_id"]).map(str::to_owned);
    Ok(id.ok_or_else(|| Failure::new(ExitCode::BadInput, "the server named no experiment"))?)
}
