//! `outlast hosts`: what is remembered of the machines that were rented, host by
//! host and kind by kind. It forbids nothing: it only weighs against a price.

use proto::v1;

use super::{answer, span};
use crate::app::Context;
use crate::args::HostsArgs;
use crate::daemon;
use crate::exit_code::ExitCode;
use crate::printer::{bytes, duration};

/// Does it.
///
/// # Errors
/// Where the controller cannot be asked.
pub async fn perform(ctx: &Context, args: &HostsArgs) -> anyhow::Result<ExitCode> {
    let ask = v1::HostsRequest { provider: args.provider.clone().unwrap_or_default() };
    let mut hosts = match Box::pin(daemon::existing(ctx)).await? {
        Some(client) => answer(client.operator.clone().hosts(ask).await)?.hosts,
        None => Vec::new(),
    };
    hosts.truncate(args.limit.unwrap_or(50) as usize);
    if args.json {
        ctx.printer.json(&hosts);
    } else if hosts.is_empty() {
        ctx.printer.note("nothing is remembered: no rented machine has come and gone yet");
    } else {
        let head = [
            "PROVIDER", "OF", "NAME", "SCORE", "CAME UP", "FAILED", "BOOT", "LIVED", "LOST", "FAULTS",
            "LIES", "LINK", "SEEN",
        ];
        ctx.printer.table(&head, &hosts.iter().map(row).collect::<Vec<_>>());
    }
    Ok(ExitCode::Ok)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures for people")]
fn row(host: &v1::HostView) -> Vec<String> {
    let count = |number: f64| format!("{number:.1}");
    let link = match host.bytes_per_second {
        none if none <= 0.0 => "-".to_owned(),
        some => format!("{}/s", bytes(some as u64)),
    };
    vec![
        host.provider.clone(),
        host.of.clone(),
        host.name.clone(),
        format!("{:.0}", host.score),
        count(host.came_up),
        count(host.failed),
        duration(host.boot_seconds as u64),
        duration(host.lived_seconds as u64),
        count(host.losses),
        count(host.faults),
        count(host.lies),
        link,
        format!("{} ago", span(host.seen_ms, 0)),
    ]
}
