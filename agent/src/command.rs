//! The hidden verbs of the program: guard, keeper and agent are one file.

use std::path::Path;
use std::process::ExitCode;

use crate::guard::GuardConfig;

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

/// The whole of `outlast-agent`: `guard --state DIR`, `agent --state DIR`,
/// `keeper --attempt DIR`.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [verb, flag, dir] if matches!(flag.as_str(), "--state" | "--attempt") => hidden(verb, Path::new(dir)),
        _ => hidden("", Path::new("")),
    }
}
