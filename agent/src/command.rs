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

/// For people: what a program of a run may say with this file.
const USAGE: &str = "\
Say that a checkpoint is finished, so that it is stored at once:

    outlast-agent ckpt done PATH [--step N]

PATH is a file or a directory in $OUTLAST_CHECKPOINT_DIR, or in the source tree where
`[checkpoints] paths` names it. It counts for what was there when this was called. Without
--step the step is read from its name. Only the program of a run can say it.

The other verbs (guard, agent, keeper, link) are called by outlast itself; `--version` says
which build this is.
";

/// A usage error, as for every other program of this project.
const WRONG_USE: u8 = 64;

/// What the words of a command line ask for.
#[derive(Debug, PartialEq, Eq)]
enum Call<'a> {
    Version,
    Help,
    Done {
        path: &'a str,
        step: Option<&'a str>,
    },
    Link {
        dir: &'a str,
        lane: &'a str,
    },
    Hidden {
        verb: &'a str,
        dir: &'a str,
    },
    /// What is wrong with it.
    Wrong(String),
}

fn call<'a>(words: &[&'a str]) -> Call<'a> {
    match *words {
        ["--version" | "-V"] | ["agent", "--version"] => Call::Version,
        ["ckpt", "done", "--", path] => Call::Done { path, step: None },
        ["--help" | "-h" | "help", ..] | ["ckpt"] => Call::Help,
        ["ckpt", ref rest @ ..] if rest.iter().any(|word| ["--help", "-h"].contains(word)) => Call::Help,
        ["ckpt", "done"] => Call::Wrong("ckpt done: which checkpoint?".into()),
        ["ckpt", "done", path, "--step", step] | ["ckpt", "done", "--step", step, path]
            if !path.starts_with('-') =>
        {
            Call::Done { path, step: Some(step) }
        }
        ["ckpt", "done", path] if !path.starts_with('-') => Call::Done { path, step: None },
        ["ckpt", "done", ..] => Call::Wrong("ckpt done takes one PATH, and a number after --step".into()),
        ["ckpt", verb, ..] => Call::Wrong(format!("ckpt {verb}: there is only `ckpt done`")),
        ["link", "--state", dir, "--lane", lane] => Call::Link { dir, lane },
        [verb @ ("guard" | "keeper" | "agent"), "--state" | "--attempt", dir] => Call::Hidden { verb, dir },
        [] => Call::Wrong("what is to be done?".into()),
        [verb, ..] => {
            Call::Wrong(format!("`{verb}`, with what follows it, is nothing that this program does"))
        }
    }
}

/// The whole of `outlast-agent`: `guard --state DIR`, `agent --state DIR`,
/// `keeper --attempt DIR`, `link --state DIR --lane join|control|bulk`,
/// `agent --version`, and for the programs of runs `ckpt done PATH [--step N]`.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match call(&words) {
        Call::Version => version(),
        Call::Help => match write!(std::io::stdout(), "{USAGE}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Call::Done { path, step } => checkpoint_done(path, step),
        Call::Link { dir, lane } => link(Path::new(dir), lane),
        Call::Hidden { verb, dir } => hidden(verb, Path::new(dir)),
        Call::Wrong(why) => {
            // Nobody is left to be told where this fails.
            let _ = write!(std::io::stderr(), "error: {why}\n\n{USAGE}");
            ExitCode::from(WRONG_USE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_line_asks_for() {
        let done = |step| Call::Done { path: "step-7", step };
        for (line, expected) in [
            ("ckpt done step-7", done(None)),
            ("ckpt done step-7 --step 7", done(Some("7"))),
            ("ckpt done --step 7 step-7", done(Some("7"))),
            ("ckpt done -- --help", Call::Done { path: "--help", step: None }),
            ("--version", Call::Version),
            ("agent --version", Call::Version),
            ("ckpt", Call::Help),
            ("ckpt done --help", Call::Help),
            ("ckpt -h", Call::Help),
            ("--help", Call::Help),
            ("guard --state /x", Call::Hidden { verb: "guard", dir: "/x" }),
            ("keeper --attempt /x", Call::Hidden { verb: "keeper", dir: "/x" }),
            ("link --state /x --lane bulk", Call::Link { dir: "/x", lane: "bulk" }),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(call(&words), expected, "{line}");
        }
        for line in
            ["ckpt done", "ckpt done a b", "ckpt done a --step", "ckpt undo a", "ckpt done --stop a", "x"]
        {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(matches!(call(&words), Call::Wrong(_)), "{line}");
        }
        assert!(matches!(call(&[]), Call::Wrong(_)));
    }
}
