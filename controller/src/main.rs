//! `outlast-controller`: the controller as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    controller::command::main()
}
