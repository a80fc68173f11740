//! `outlast mcp`: what assistants ask and do, over the Model Context Protocol.
//! Read-only unless a person allowed control at the start; never lets a model
//! spend or destroy without a person or an allowance; never writes anything but
//! protocol to stdout; never takes what runs, files or clients say for more
//! than data.

mod acting;
pub(crate) mod action;
pub(crate) mod allowance;
mod analysis;
pub(crate) mod approval;
mod arguments;
mod compact;
mod cures;
mod desk;
mod following;
mod http;
mod paging;
mod prompts;
mod reading;
mod reply;
mod resources;
mod server;
pub(crate) mod shelf;
mod stdio;
mod tools;
mod views;
mod writing;

use std::io::{self, IsTerminal as _};
use std::sync::Mutex;

use rmcp::ServiceExt as _;
use rmcp::service::ServerInitializeError;

use crate::app::Context;
use crate::args::{McpArgs, Offered};
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{Output, Printer, Settings};
use desk::Desk;
use server::Server;

/// Serves until the client goes.
///
/// # Errors
/// Where there is no such root, or the port or the token's file is no good.
pub async fn serve(ctx: &Context, args: &McpArgs) -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("OUTLAST_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    let logs = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).with_env_filter(filter);
    // Another one may be there already: then that one is told.
    let _ = logs.try_init();
    let server = Server::new(desk(ctx, args)?);
    if let Some(port) = args.http {
        let token = http::Token::of(&ctx.home()?, args.token_file.as_deref())?;
        http::serve(ctx, server, port, token).await?;
        return Ok(ExitCode::Ok);
    }
    if io::stdin().is_terminal() {
        ctx.printer.note("outlast: this speaks MCP on stdin and stdout, for an assistant; Ctrl-D ends it");
    }
    let lines = stdio::Lines::new(tokio::io::stdin(), tokio::io::stdout());
    match server.serve(lines).await {
        Ok(running) => {
            running.waiting().await?;
            Ok(ExitCode::Ok)
        }
        // It went before it said anything.
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(ExitCode::Ok),
        Err(error) => {
            Err(Failure::new(ExitCode::BadInput, format!("the client's first words: {error}")).into())
        }
    }
}

fn desk(ctx: &Context, args: &McpArgs) -> anyhow::Result<Desk> {
    let settings = Settings {
        verbosity: ctx.printer.settings().verbosity,
        stdout: Output::default(),
        stderr: Output::default(),
        width: 80,
    };
    let printer = Printer::to(settings, Box::new(io::sink()), Box::new(io::stderr()));
    let project = std::env::current_dir()?.canonicalize()?;
    let mut roots = vec![project.clone()];
    for root in &args.root {
        let real = root.canonicalize().map_err(|error| {
            Failure::new(ExitCode::NotFound, format!("--root {}: {error}", root.display()))
        })?;
        roots.push(real);
    }
    Ok(Desk {
        ctx: Context::new(printer, ctx.env.clone()),
        home: ctx.home()?,
        project,
        stands_here: true,
        roots,
        control: !args.allow.is_empty(),
        spend: args.allow_spend,
        analysis: args.tools == Offered::Analysis,
        line: Mutex::default(),
    })
}
