//! `outlast-agent`: guard, keeper and agent of a machine in one file.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::command::main()
}
