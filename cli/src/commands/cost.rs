//! `outlast cost`: what runs have cost, or one run machine by machine.

use proto::v1;
use serde_json::json;

use super::{answer, short, span};
use crate::app::Context;
use crate::client::Client;
use crate::daemon;
use crate::exit_code::ExitCode;
use crate::printer::money;

/// Does it.
///
/// # Errors
/// Where there is no such run, or the controller cannot be asked.
pub async fn perform(ctx: &Context, run: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    if let Some(run) = run {
        let client = Box::pin(daemon::needed(ctx)).await?;
        return one(ctx, &client, run, json).await;
    }
    let runs = match Box::pin(daemon::existing(ctx)).await? {
        Some(client) => {
            answer(client.operator.clone().list_runs(v1::ListRunsRequest { all: true }).await)?.runs
        }
        None => Vec::new(),
    };
    let total: f64 = runs.iter().map(|run| run.cost_usd).sum();
    if json {
        let list: Vec<_> = runs
            .iter()
            .map(|r| json!({ "id": r.id, "name": r.name, "project": r.project, "state": r.state, "cost_usd": r.cost_usd }))
            .collect();
        ctx.printer.json(&json!({ "runs": list, "total_usd": total }));
        return Ok(ExitCode::Ok);
    }
    let mut rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            let took = span(run.created_ms, run.ended_ms);
            vec![run.name.clone(), run.project.clone(), run.state.clone(), took, money(run.cost_usd)]
        })
        .collect();
    rows.push(vec!["total".into(), String::new(), String::new(), String::new(), money(total)]);
    ctx.printer.table(&["RUN", "PROJECT", "STATE", "TOOK", "COST"], &rows);
    Ok(ExitCode::Ok)
}

async fn one(ctx: &Context, client: &Client, run: &str, json: bool) -> anyhow::Result<ExitCode> {
    let detail = client.run(run).await?;
    let run = detail.run.unwrap_or_default();
    let cap =
        serde_json::from_str::<lifecycle::RunSpec>(&detail.spec_json).ok().and_then(|spec| spec.max_usd);
    if json {
        ctx.printer.json(&json!({
            "id": run.id,
            "name": run.name,
            "cost_usd": run.cost_usd,
            "max_usd": cap,
            "machines": detail.machines,
        }));
        return Ok(ExitCode::Ok);
    }
    let mut rows: Vec<Vec<String>> = detail
        .machines
        .iter()
        .map(|machine| {
            let (provider, took) = (machine.provider.clone(), span(machine.created_ms, machine.ended_ms));
            let price = format!("{}/h", money(machine.usd_per_hour));
            vec![short(&machine.id).to_owned(), provider, took, price, money(machine.cost_usd)]
        })
        .collect();
    let of = cap.map_or_else(String::new, |cap| format!(" of {}", money(cap)));
    let sum = format!("{}{of}", money(run.cost_usd));
    rows.push(vec!["total".into(), String::new(), String::new(), String::new(), sum]);
    ctx.printer.table(&["MACHINE", "PROVIDER", "TOOK", "PRICE", "COST"], &rows);
    Ok(ExitCode::Ok)
}
