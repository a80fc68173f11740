//! `outlast events`: the journal, and whether it is whole.

use proto::v1;
use serde_json::json;

use super::{answer, moment};
use crate::app::Context;
use crate::args::EventsArgs;
use crate::client::Client;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};

const PAGE: u32 = 1_000;

/// Does it.
///
/// # Errors
/// Where the controller cannot be asked, or the journal was changed.
pub async fn perform(ctx: &Context, args: &EventsArgs) -> anyhow::Result<ExitCode> {
    let Some(client) = Box::pin(daemon::existing(ctx)).await? else {
        if args.json {
            ctx.printer.json(&json!([]));
        }
        return Ok(ExitCode::Ok);
    };
    let events = read(&client, args).await?;
    let verdict = if args.verify { Some(verify(&client).await?) } else { None };
    match (&verdict, args.json) {
        (Some(verdict), true) => {
            let holds = verdict.is_empty();
            ctx.printer.json(&json!({ "events": events, "chain_holds": holds, "verdict": verdict }));
        }
        (None, true) => ctx.printer.json(&events),
        (_, false) => {
            let rows: Vec<Vec<String>> = events.iter().map(row).collect();
            ctx.printer.table(&["NUMBER", "TIME", "WHO", "WHAT", "OF", "DETAIL"], &rows);
        }
    }
    match verdict {
        Some(broken) if !broken.is_empty() => {
            let help = "it was changed outside of outlast, or the disk is damaged: restore a backup";
            Err(Failure::new(ExitCode::BadInput, format!("the journal is not whole: {broken}"))
                .help(help)
                .into())
        }
        Some(_) => {
            ctx.printer.note("the journal is whole: its chain holds");
            Ok(ExitCode::Ok)
        }
        None => Ok(ExitCode::Ok),
    }
}

/// All that was asked for, page by page.
async fn read(client: &Client, args: &EventsArgs) -> anyhow::Result<Vec<v1::EventView>> {
    let mut events: Vec<v1::EventView> = Vec::new();
    let mut after = args.after;
    loop {
        let left = args.limit.map_or(u64::MAX, |limit| limit.saturating_sub(events.len() as u64));
        if left == 0 {
            return Ok(events);
        }
        let limit = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let ask =
            v1::EventsRequest { run: args.run.clone().unwrap_or_default(), after, limit, verify: false };
        let page = answer(client.operator.clone().events(ask).await)?.events;
        let whole = page.len() >= limit as usize;
        after = page.last().map_or(after, |event| event.seq);
        events.extend(page);
        if !whole {
            return Ok(events);
        }
    }
}

async fn verify(client: &Client) -> anyhow::Result<String> {
    // Nothing comes after the greatest number: only the verdict is wanted.
    let ask =
        v1::EventsRequest { after: i64::MAX.unsigned_abs(), limit: 1, verify: true, ..Default::default() };
    Ok(answer(client.operator.clone().events(ask).await)?.verdict)
}

fn row(event: &v1::EventView) -> Vec<String> {
    let object = match event.object.split_at_checked(26) {
        Some((id, "")) => super::short(id).to_owned(),
        _ => event.object.clone(),
    };
    let detail = if event.detail_json == "{}" { String::new() } else { event.detail_json.clone() };
    vec![event.seq.to_string(), moment(event.at_ms), event.actor.clone(), event.verb.clone(), object, detail]
}
