//! `outlast approve`: does what an assistant asked for, once a person at a
//! terminal has seen it with its price and its cap. It says nothing about a
//! code where nobody sits: a program that tries codes learns nothing.

use std::io::Write as _;

use super::can_ask;
use crate::app::Context;
use crate::args::ApproveArgs;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::mcp::shelf::Shelf;
use crate::mcp::{action::Action, approval};
use crate::printer::safe;

/// Longest line that is taken from the terminal.
const TYPED: usize = 64;

/// Does it.
///
/// # Errors
/// Where nobody can be asked, the code is no good, or what it stands for fails.
pub async fn perform(ctx: &Context, args: &ApproveArgs) -> anyhow::Result<ExitCode> {
    if !can_ask(ctx) {
        let why = "a code is redeemed by a person at a terminal, and this is none";
        return Err(Failure::new(ExitCode::Denied, why).help("run it yourself: outlast approve CODE").into());
    }
    let code = match &args.code {
        Some(code) => code.clone(),
        None => typed(ctx, "code:")?,
    };
    let shelf = Shelf::open(&ctx.home()?)?;
    let waiting = approval::look(&shelf, &code)?;
    let client = Box::pin(daemon::ensure(ctx, true)).await?;
    let outlook = waiting.action.outlook(&client).await?;
    ctx.printer.report("an assistant asks to:");
    for line in &outlook.lines {
        ctx.printer.report(&format!("  {line}"));
    }
    if typed(ctx, "type yes to do exactly this:")? != "yes" {
        ctx.printer.note("nothing was done; the code is still good until it runs out");
        return Ok(ExitCode::Cancelled);
    }
    // Used up before anything is done: what happens then happens once.
    waiting.redeem(&shelf)?;
    let name = Box::pin(waiting.action.perform(ctx, client, &waiting.token)).await?;
    let done = match waiting.action {
        Action::DestroyRun { .. } | Action::DestroyMachine { .. } => "is being removed",
        Action::Resume { .. } => "goes on",
        Action::Run { .. } | Action::Fork { .. } => "was accepted",
    };
    ctx.printer.note(&format!("{} {done}", safe(&name)));
    Ok(ExitCode::Ok)
}

fn typed(ctx: &Context, question: &str) -> anyhow::Result<String> {
    ctx.printer.report(question);
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let text = line.trim();
    let short = text.len() <= TYPED;
    Ok(if short { text.to_owned() } else { String::new() })
}
