//! The hidden verbs of the program: guard, keeper and agent are one file.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::guard::GuardConfig;

/// Rises when the guard, keeper and agent of two builds no longer understand
/// each other's files and sockets, or the controller's wire.
pub const PROTOCOL: u32 = 1;

/// What `agent --version` prints: by this line a program that is offered as
/// an upgrade is known.
#[must_use]
pub fn version_line() -> String {
    format!("outlast-agent {} protocol {PROTOCOL}", proto::VERSION)
}

/// Prints [`version_line`]; touches nothing else.
#[must_use]
pub fn version() -> ExitCode {
    match writeln!(std::io::stdout(), "{}", version_line()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs one of the machine's processes: `guard` and `agent` for a state
/// directory, `keeper` for an attempt's directory.
#[must_use]
pub fn hidden(verb: &str, dir: &Path) -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let done = match verb {
        "guard" => guard(dir),
        "keeper" => crate::keeper::run(dir).map_err(|e| chain(&e)),
        "agent" => crate::app::run(dir).map_err(|e| chain(&e)),
        other => Err(format!("`{other}` is none of guard, keeper and agent")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{verb}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Joins the standard streams to the agent of a state directory: what the
/// controller runs over SSH.
#[must_use]
pub fn link(dir: &Path, lane: &str) -> ExitCode {
    let say = |text: &str| {
        // Nobody is left to be told where this fails.
        let _ = writeln!(std::io::stderr(), "link: {text}");
    };
    let Ok(lane) = lane.parse() else {
        say("a lane is join, control or bulk");
        return ExitCode::from(64);
    };
    match crate::link::run(dir, lane) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&chain(&error));
            error.exit_code()
        }
    }
}

fn guard(dir: &Path) -> Result<(), String> {
    let exe = std::env::current_exe().map_err(|e| format!("the program's own file: {e}"))?;
    let config = GuardConfig { state_dir: dir.to_owned(), exe, log: dir.join("agent.log") };
    crate::guard::run(config).map_err(|e| chain(&e))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A program's word that a checkpoint is finished: `ckpt done DIR [--step N]`.
fn checkpoint_done(path: &str, step: Option<&str>) -> ExitCode {
    let step = match step.map(str::parse).transpose() {
        Ok(step) => step,
        Err(_) => {
            return refused(&format!(
                "`{}` is no step: --step takes a whole number",
                step.unwrap_or_default()
            ));
        }
    };
    let variable = |name: &str| std::env::var_os(name).map(Into::into);
    match crate::world::publishing::say(Path::new(path), step, variable) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refused(&error.to_string()),
    }
}

fn refused(why: &str) -> ExitCode {
    // Nobody is left to be told where this fails.
    let _ = writeln!(std::io::stderr(), "ckpt done: {why}");
    ExitCode::FAILURE
}

/// The whole of `outlast-agent`: `guard --state DIR`, `agent --state DIR`,
/// `keeper --attempt DIR`, `link --state DIR --lane join|control|bulk`,
/// `agent --version`, and for the programs of runs `ckpt done PATH [--step N]`.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--version"] | ["agent", "--version"] => version(),
        ["ckpt", "done", path] => checkpoint_done(path, None),
        ["ckpt", "done", path, "--step", step] => checkpoint_done(path, Some(step)),
        ["link", "--state", dir, "--lane", lane] => link(Path::new(dir), lane),
        [verb, "--state" | "--attempt", dir] => hidden(verb, Path::new(dir)),
        _ => hidden("", Path::new("")),
    }
}
