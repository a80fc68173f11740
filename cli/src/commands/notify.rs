//! `outlast notify`: whom the controller tells of events, and whether they hear
//! it. What receivers answered is shown escaped.

use proto::v1;

use super::answer;
use crate::app::Context;
use crate::args::NotifyVerb;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{safe, safe_lines};

/// Does it.
///
/// # Errors
/// Where the settings cannot be used, nobody is set up, or a test failed.
pub async fn perform(ctx: &Context, verb: &NotifyVerb) -> anyhow::Result<ExitCode> {
    let (test, target, json) = match verb {
        NotifyVerb::Status { json } => (false, String::new(), *json),
        NotifyVerb::Test { target, json } => (true, target.clone().unwrap_or_default(), *json),
    };
    let client = Box::pin(daemon::needed(ctx)).await?;
    let ask = v1::NotifyRequest { test, target };
    let reply = answer(client.operator.clone().notify(ask).await)?;
    if json {
        ctx.printer.json(&reply);
    } else if reply.trouble.is_empty() {
        let rows: Vec<Vec<String>> = reply.targets.iter().map(|target| row(target, test)).collect();
        let head = ["TARGET", "KIND", "EVENTS", "WAITING", "DROPPED", if test { "TEST" } else { "TROUBLE" }];
        ctx.printer.table(&head, &rows);
    }
    if !reply.trouble.is_empty() {
        return Err(Failure::new(ExitCode::Configuration, safe_lines(&reply.trouble)).into());
    }
    if reply.targets.is_empty() {
        ctx.printer
            .note("nobody is told of events: write notify.toml in the data directory (guide: Notifications)");
    }
    let failed = test && reply.targets.iter().any(|target| !target.delivered);
    Ok(if failed { ExitCode::Unreachable } else { ExitCode::Ok })
}

fn row(target: &v1::TargetView, test: bool) -> Vec<String> {
    let said = if test && target.delivered { "taken" } else { target.trouble.as_str() };
    vec![
        target.name.clone(),
        target.kind.clone(),
        target.events.join(" "),
        target.pending.to_string(),
        target.dropped.to_string(),
        safe(said).to_string(),
    ]
}
