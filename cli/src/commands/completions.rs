//! `outlast completions`: a script that completes command lines.

use clap::CommandFactory as _;

use crate::app::Context;
use crate::args::Args;
use crate::exit_code::ExitCode;

/// Prints it.
pub fn perform(ctx: &Context, shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "outlast", &mut script);
    ctx.printer.raw(&script);
    ExitCode::Ok
}
