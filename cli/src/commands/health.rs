//! `outlast health`: how a machine is, through the controller or asked of the
//! machine itself.

use std::time::Duration;

use proto::v1;
use proto::v1::machine_health_client::MachineHealthClient;

use super::{answer, short};
use crate::app::Context;
use crate::args::HealthArgs;
use crate::client::{self, Client, failure};
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::link::Link;
use crate::printer::duration;

mod view;

/// Between two questions while watching through the controller.
const LOOK: Duration = Duration::from_secs(1);
/// Newest samples of a machine that are asked for at most.
const HISTORY: u32 = 600;
/// A machine that takes the connection answers within this.
const ANSWER: Duration = Duration::from_secs(10);

/// Does it. Ends with [`ExitCode::Unhealthy`] where a critical alert stands.
///
/// # Errors
/// Where there is no such machine, it has not reported, or it cannot be asked.
pub async fn perform(ctx: &Context, args: &HealthArgs) -> anyhow::Result<ExitCode> {
    let Some(client) = Box::pin(daemon::existing(ctx)).await? else { return nothing(ctx, args) };
    let text = match &args.target {
        Some(text) => text.clone(),
        None => {
            let mut live = live(&client).await?;
            match (live.pop(), live.is_empty()) {
                (None, _) => return nothing(ctx, args),
                (Some(only), true) => only.id,
                (Some(_), false) if args.watch || args.direct => {
                    let why = "there are several machines; say which one";
                    return Err(Failure::new(ExitCode::Usage, why)
                        .help("`outlast machines` lists them")
                        .into());
                }
                (Some(last), false) => {
                    live.push(last);
                    return several(ctx, args, &client, &live).await;
                }
            }
        }
    };
    if args.watch {
        tokio::select! {
            done = Box::pin(watch(ctx, args, client, &text)) => done?,
            _ = tokio::signal::ctrl_c() => {}
        }
        return Ok(ExitCode::Ok);
    }
    let reply = if args.direct {
        let (mut machine, at) = direct(ctx, &client, &text).await?;
        let asked = machine.get(v1::HealthRequest {});
        let reply = tokio::time::timeout(ANSWER, asked).await.map_err(|_| unanswered(&at, "no answer"))?;
        of_machine(&at, reply.map_err(|status| refused(&at, &status))?.into_inner())
    } else {
        answer(client.operator.clone().health(ask(&text, args)).await)?
    };
    show(ctx, args, &reply, args.target.is_none());
    Ok(code(&reply))
}

fn ask(text: &str, args: &HealthArgs) -> v1::HealthOf {
    let history = args.history.unwrap_or(0).min(HISTORY);
    v1::HealthOf { text: text.to_owned(), history, endpoint_only: false }
}

/// No machine is no failure, unless one was named.
fn nothing(ctx: &Context, args: &HealthArgs) -> anyhow::Result<ExitCode> {
    if let Some(text) = &args.target {
        let why = format!("there is no machine and no run `{text}`: nothing has been run here yet");
        return Err(Failure::new(ExitCode::NotFound, why).into());
    }
    if args.json {
        ctx.printer.line("[]");
    } else {
        ctx.printer.note("there are no machines");
    }
    Ok(ExitCode::Ok)
}

/// The machines that can have something to say.
async fn live(client: &Client) -> anyhow::Result<Vec<v1::MachineView>> {
    let ask = v1::ListMachinesRequest { all: false };
    let mut all = answer(client.operator.clone().list_machines(ask).await)?.machines;
    all.retain(|machine| matches!(machine.state.as_str(), "READY" | "SUSPECT"));
    Ok(all)
}

fn is_critical(alert: &&v1::Alert) -> bool {
    alert.raised && alert.level == "critical"
}

fn code(reply: &v1::HealthReply) -> ExitCode {
    let bad = reply.report.iter().flat_map(|report| &report.alerts).any(|alert| is_critical(&alert));
    if bad { ExitCode::Unhealthy } else { ExitCode::Ok }
}

/// All of it as JSON (a list where no machine was named), or one screen.
fn show(ctx: &Context, args: &HealthArgs, reply: &v1::HealthReply, listed: bool) {
    match (args.json, listed) {
        (true, true) => ctx.printer.json(&[reply]),
        (true, false) => ctx.printer.json(reply),
        (false, _) => {
            for line in view::screen(reply) {
                line.print(&ctx.printer);
            }
            if !reply.history.is_empty() {
                ctx.printer.line("");
                let rows: Vec<Vec<String>> = reply.history.iter().map(view::sample_row).collect();
                ctx.printer.table(&view::SAMPLE_HEAD, &rows);
            } else if args.history.is_some() && args.direct {
                ctx.printer.note("a machine keeps no history: ask the controller, without --direct");
            }
        }
    }
}

/// One line for each of several machines.
async fn several(
    ctx: &Context,
    args: &HealthArgs,
    client: &Client,
    machines: &[v1::MachineView],
) -> anyhow::Result<ExitCode> {
    let mut replies = Vec::new();
    let mut rows = Vec::new();
    let mut worst = ExitCode::Ok;
    for machine in machines {
        match client.operator.clone().health(ask(&machine.id, args)).await {
            Ok(reply) => {
                let reply = reply.into_inner();
                if code(&reply) != ExitCode::Ok {
                    worst = ExitCode::Unhealthy;
                }
                rows.push(view::machine_row(&reply));
                replies.push(reply);
            }
            // One that has not reported yet, or went away meanwhile.
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                rows.push(vec![short(&machine.id).to_owned(), machine.state.clone()]);
            }
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => return Err(failure(&status).into()),
        }
    }
    if args.json {
        ctx.printer.json(&replies);
    } else {
        ctx.printer.table(&view::MACHINE_HEAD, &rows);
    }
    Ok(worst)
}

/// Where a machine answers itself.
struct At {
    machine: String,
    endpoint: String,
    state: String,
}

type Machine = MachineHealthClient<proto::channel::Channel>;

/// Connects to the machine itself with the operator's certificate.
async fn direct(ctx: &Context, client: &Client, text: &str) -> anyhow::Result<(Machine, At)> {
    let ask = v1::HealthOf { text: text.to_owned(), history: 0, endpoint_only: true };
    let reply = answer(client.operator.clone().health(ask).await)?;
    let at = At { machine: reply.machine_id, endpoint: reply.endpoint, state: reply.machine_state };
    if at.endpoint.is_empty() {
        let why = format!("machine {} has no port of its own ({})", at.machine, at.state);
        return Err(Failure::new(ExitCode::Unreachable, why).help(THROUGH).into());
    }
    let channel = client::machine(&ctx.home()?, &at.machine, &at.endpoint)
        .await
        .map_err(|why| unanswered(&at, &why))?;
    Ok((MachineHealthClient::new(channel).max_decoding_message_size(proto::MESSAGE_LIMIT), at))
}

const THROUGH: &str = "ask through the controller: the same without --direct";

fn unanswered(at: &At, why: &str) -> Failure {
    let why = format!("machine {} does not answer at {}: {why}", at.machine, at.endpoint);
    Failure::new(ExitCode::Unreachable, why).help(THROUGH)
}

fn refused(at: &At, status: &tonic::Status) -> Failure {
    if crate::client::passing(status) {
        return unanswered(at, status.message());
    }
    let why = format!("machine {} at {}: {}", at.machine, at.endpoint, status.message());
    Failure::new(ExitCode::from(status.code()), why).help(THROUGH)
}

/// What a machine said itself, just now.
fn of_machine(at: &At, report: v1::HealthReport) -> v1::HealthReply {
    v1::HealthReply {
        report: Some(report),
        machine_state: at.state.clone(),
        endpoint: at.endpoint.clone(),
        machine_id: at.machine.clone(),
        ..v1::HealthReply::default()
    }
}

/// Shows each new report until nobody looks any more.
async fn watch(ctx: &Context, args: &HealthArgs, client: Client, text: &str) -> anyhow::Result<()> {
    if args.direct {
        let (mut machine, at) = direct(ctx, &client, text).await?;
        let mut reports =
            machine.watch(v1::HealthRequest {}).await.map_err(|status| refused(&at, &status))?.into_inner();
        while let Some(report) = reports.message().await.map_err(|status| refused(&at, &status))? {
            again(ctx, args, &of_machine(&at, report));
            if ctx.printer.is_closed() {
                return Ok(());
            }
        }
        return Err(unanswered(&at, "it ended the stream").into());
    }
    let mut link = Link::new(ctx, client);
    let mut last = None;
    while !ctx.printer.is_closed() {
        let question = ask(text, args);
        let asked = async |client: Client| client.operator.clone().health(question.clone()).await;
        let reply = link.ask(asked).await?.into_inner();
        // Through a pipe only what is new; on a terminal the age goes on too.
        if ctx.printer.settings().stdout.terminal && !args.json || last != reply.report {
            again(ctx, args, &reply);
            last = reply.report;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// The screen anew on a terminal, the next one below elsewhere.
fn again(ctx: &Context, args: &HealthArgs, reply: &v1::HealthReply) {
    if ctx.printer.settings().stdout.terminal && !args.json {
        ctx.printer.raw(b"\x1b[H\x1b[2J");
    }
    show(ctx, args, reply, false);
}

/// How long ago, as people say it.
fn ago(ms: u64) -> String {
    format!("{} ago", duration(ms / 1_000))
}
