//! `outlast answer`: shows what a run waits for, and takes the answer. What
//! providers and programs said is shown escaped.

use proto::v1;

use super::{answer as reply, can_ask, describe, moment, now_ms, span, step};
use crate::app::Context;
use crate::args::AnswerArgs;
use crate::client::Client;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{money, safe};

/// Does it.
///
/// # Errors
/// Where there is no such run, it waits for nothing, or there is no such answer.
pub async fn perform(ctx: &Context, args: &AnswerArgs) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    if let Some(number) = args.number {
        return say(ctx, &client, &args.run, (number, 0), args.json).await;
    }
    let run = client.run(&args.run).await?.run.unwrap_or_default();
    let Some(question) = &run.question else {
        let why = format!("{} waits for no answer: it is {}", run.name, run.state);
        return Err(Failure::new(ExitCode::BadInput, why).into());
    };
    if args.json {
        ctx.printer.json(question);
        return Ok(ExitCode::Ok);
    }
    screen(ctx, &run);
    if !can_ask(ctx) {
        ctx.printer.note(&format!("answer it: outlast answer {} NUMBER", run.name));
        return Ok(ExitCode::Ok);
    }
    ctx.printer.note("which number? (Enter: decide later)");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let typed = line.trim();
    if typed.is_empty() {
        return Ok(ExitCode::Ok);
    }
    let number = typed
        .parse()
        .map_err(|_| Failure::new(ExitCode::BadInput, format!("`{}` is no number", safe(typed))))?;
    // It may have been answered, and another asked, while this was read.
    say(ctx, &client, &run.id, (number, question.asked_ms), false).await
}

async fn say(
    ctx: &Context,
    client: &Client,
    run: &str,
    (number, asked_ms): (u32, u64),
    json: bool,
) -> anyhow::Result<ExitCode> {
    let ask = v1::AnswerRequest { run: run.to_owned(), number, asked_ms };
    let run = reply(client.operator.clone().answer(ask).await)?;
    if json {
        ctx.printer.json(&run);
    }
    ctx.printer.note(&format!("{}: answer {number} is taken; watch it: outlast status {0}", run.name));
    Ok(ExitCode::Ok)
}

/// The whole screen: how far the run is, what it cost, and the question.
pub fn screen(ctx: &Context, run: &v1::RunView) {
    describe(ctx, "run", &run.name);
    describe(ctx, "state", &run.state);
    describe(ctx, "step", &step(run.step.or(run.durable_step)));
    describe(ctx, "cost", &money(run.cost_usd));
    show(ctx, run);
}

/// The question, where there is one.
pub fn show(ctx: &Context, run: &v1::RunView) {
    let Some(question) = &run.question else { return };
    let age = match question.checkpoint_ms {
        0 => "none".to_owned(),
        at => format!("step {}, {} old", step(run.durable_step), span(at, now_ms())),
    };
    describe(ctx, "checkpoint", &age);
    ctx.printer.line("");
    ctx.printer.line(&format!("It waits for an answer: {}", safe(&question.text)));
    for line in &question.evidence {
        ctx.printer.line(&format!("  - {}", safe(line)));
    }
    for choice in &question.options {
        let default = if choice.number == question.default {
            format!(" (taken by itself at {})", moment(question.deadline_ms))
        } else {
            String::new()
        };
        ctx.printer.line(&format!("  {}  {}{default}", choice.number, safe(&choice.text)));
    }
}
