//! The command line, as it is parsed and as `--help` shows it. Values are
//! checked for their form only; what they mean is the verbs' business.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::chaos::Plan;

/// Runs work to its end on machines that may not stay.
#[derive(Debug, Parser)]
#[command(name = "outlast", version, max_term_width = 100, after_help = exit_codes(), disable_help_subcommand = true)]
pub struct Args {
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

fn exit_codes() -> String {
    let mut text = String::from("Exit codes (an attached run ends with its own, or 128 and the signal):\n");
    for (code, meaning) in crate::exit_code::table() {
        text.push_str(&format!("  {code:>2}  {meaning}\n"));
    }
    text
}

/// Everything that can be asked.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command on a machine, to its end
    Run(RunArgs),
    /// Show runs, or one run in full
    Status(StatusArgs),
    /// Print what a run wrote
    Logs(LogsArgs),
    /// Ask a run to save and end
    Stop(StopArgs),
    /// End a run or a machine at once
    Destroy(DestroyArgs),
    /// Go on with a run that was held or has ended
    Resume(ResumeArgs),
    /// Show machines, as their providers see them
    #[command(args_conflicts_with_subcommands = true)]
    Machines {
        /// What else to do with them.
        #[command(subcommand)]
        verb: Option<MachinesVerb>,
        /// Those that are gone too
        #[arg(long)]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how a machine is: load, memory, disks, GPUs, alerts
    Health(HealthArgs),
    /// Show the checkpoints of a run
    Checkpoints {
        /// Its name, id, or the beginning of either
        run: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch the result files of a run
    Pull {
        /// Its name, id, or the beginning of either
        run: String,
        /// Where to put them [default: outputs/<run> in the project]
        dir: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say why an attempt ended, and what to try next
    Why(WhyArgs),
    /// Show the journal: everything that was learned and done
    Events(EventsArgs),
    /// Show what runs have cost
    Cost {
        /// Only this run, machine by machine
        run: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Start, stop and look after the controller
    Controller {
        /// What to do.
        #[command(subcommand)]
        verb: ControllerVerb,
    },
    /// Show or check the configuration
    Config {
        /// What to do.
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print version and build
    Version {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where the configuration comes from.
#[derive(Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// Use this file instead of the outlast.toml that is found
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set a setting, for example budget.max_usd=5; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
}

/// `outlast run`
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The directory of the source tree
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Return as soon as the run is accepted
    #[arg(short, long)]
    pub detach: bool,
    /// The beginning of the run's name
    #[arg(long)]
    pub name: Option<String>,
    /// Stop the run before it costs more
    #[arg(long, value_name = "USD")]
    pub max_usd: Option<String>,
    /// Cut the power of its machine N times at random moments and erase the disk
    #[arg(long, value_name = "machine=N[,within=15s]", value_parser = crate::chaos::parse, conflicts_with = "detach")]
    pub chaos: Option<Plan>,
    /// Repeat the moments of an earlier --chaos
    #[arg(long, requires = "chaos")]
    pub seed: Option<u64>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Ask no questions
    #[arg(short, long)]
    pub yes: bool,
    /// Print one JSON object at the end instead of the run's output
    #[arg(long)]
    pub json: bool,
    /// The command and its arguments [default: the configured one]
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `outlast status`
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// One run: its name, id, or the beginning of either
    pub run: Option<String>,
    /// Runs that ended long ago too
    #[arg(long)]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `outlast logs`
///
/// On a terminal the output is shown as the terminal would show it, without
/// what could command the terminal. Into a file or another program it goes
/// byte for byte.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// Its name, id, or the beginning of either
    pub run: String,
    /// Stay until the run ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines of the newest attempt
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// Only what was written since then, by the machine's clock: 10m, 2h, 3d, 2026-01-31T23:59:59Z or unix seconds
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub since: Option<u64>,
    /// Only lines in which this regular expression is found
    #[arg(long, value_name = "REGEX", value_parser = crate::screen::view::pattern)]
    pub grep: Option<regex::Regex>,
    /// Only lines in which it is not
    #[arg(long, requires = "grep")]
    pub invert: bool,
    /// Only lines that a launcher such as torchrun marked as this rank's
    #[arg(long, value_name = "N")]
    pub rank: Option<u32>,
    /// Put in front of each line when it was written, by the machine's clock
    #[arg(short, long)]
    pub timestamps: bool,
    /// Byte for byte, also on a terminal: it obeys what the program wrote
    #[arg(long)]
    pub raw: bool,
    /// What it wrote to its error stream
    #[arg(long)]
    pub stderr: bool,
    /// What it wrote to its output stream
    #[arg(long)]
    pub stdout: bool,
    /// What the making of its environment wrote
    #[arg(long)]
    pub setup: bool,
    /// Only this attempt
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub attempt: u32,
}

/// `outlast health`
#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// A machine or a run: its name, id, or the beginning of either [default: every machine]
    #[arg(value_name = "MACHINE|RUN")]
    pub target: Option<String>,
    /// Show each new report until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
    /// Ask the machine itself, not the controller
    #[arg(long)]
    pub direct: bool,
    /// Show earlier samples too, newest last
    #[arg(long, value_name = "N")]
    pub history: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `outlast stop`
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Its name, id, or the beginning of either
    pub run: String,
    /// Time to end by itself, such as 30s [default: the run's own]
    #[arg(long, value_parser = duration)]
    pub grace: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `outlast destroy`
#[derive(Debug, clap::Args)]
pub struct DestroyArgs {
    /// A run or a machine: its name, id, or the beginning of either
    #[arg(value_name = "RUN|MACHINE")]
    pub target: String,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `outlast resume`
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// Its name, id, or the beginning of either
    pub run: String,
    /// Return as soon as it goes on
    #[arg(short, long)]
    pub detach: bool,
    /// Print one JSON object at the end instead of the run's output
    #[arg(long)]
    pub json: bool,
}

/// `outlast why`
#[derive(Debug, clap::Args)]
pub struct WhyArgs {
    /// Its name, id, or the beginning of either
    pub run: String,
    /// This attempt [default: the newest that ended]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub attempt: u32,
    /// Print all that is known of it
    #[arg(long, conflicts_with = "json")]
    pub full: bool,
    /// Print the whole failure capsule as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the failure capsule to this file, too
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// Replace the file if there is one
    #[arg(short, long, requires = "export")]
    pub yes: bool,
}

/// `outlast events`
#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Only what concerns this run
    pub run: Option<String>,
    /// Only what came after this number
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub after: u64,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Check that nothing was changed or taken out
    #[arg(long)]
    pub verify: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `outlast controller`
#[derive(Debug, Subcommand)]
pub enum ControllerVerb {
    /// Start one in the background, if none runs
    Start {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End it; machines and their work go on
    Stop,
    /// Say whether one runs, and how it is
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Have the system keep one running
    Install {
        /// Only print what would be installed
        #[arg(long)]
        print: bool,
    },
    /// Be one, in the foreground
    Serve {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        home: Option<PathBuf>,
    },
}

/// `outlast machines`
#[derive(Debug, Subcommand)]
pub enum MachinesVerb {
    /// Replace the agent's program; what runs there goes on
    Upgrade(UpgradeArgs),
}

/// `outlast machines upgrade`
#[derive(Debug, clap::Args)]
pub struct UpgradeArgs {
    /// The machine's id, or the beginning of it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub machine: Option<String>,
    /// Every machine that is up, one after the other
    #[arg(long)]
    pub all: bool,
    /// The new program [default on this computer: this very program]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `outlast config`
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Print every setting as it is in force
    Show {
        /// Say who set each
        #[arg(long)]
        origin: bool,
        /// The directory of the source tree
        #[arg(default_value = ".")]
        path: PathBuf,
        /// Where the configuration comes from.
        #[command(flatten)]
        config: ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say whether the configuration is right
    Check {
        /// The directory of the source tree
        #[arg(default_value = ".")]
        path: PathBuf,
        /// Where the configuration comes from.
        #[command(flatten)]
        config: ConfigArgs,
    },
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is written SECTION.KEY=VALUE")?;
    if !name.contains('.') {
        return Err(format!("`{name}` names no section: it is written SECTION.KEY=VALUE"));
    }
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// Reads `300ms`, `30s`, `5m`, `2h` or a plain number of seconds.
///
/// # Errors
/// Where it is none of these.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err("a duration is a number with ms, s, m or h, such as 30s".into()),
    };
    let seconds = number.parse::<f64>().map_err(|_| "a duration is written like 30s")? * factor;
    Duration::try_from_secs_f64(seconds).map_err(|_| "that is too long".into())
}

/// Reads how long ago (`90s`, `10m`, `2h`, `3d`), a moment of RFC 3339, or unix
/// seconds, as unix milliseconds.
fn since(text: &str) -> Result<u64, String> {
    let ago = match text.strip_suffix('d') {
        Some(days) => duration(&format!("{days}h")).and_then(|d| d.checked_mul(24).ok_or(String::new())),
        None if text.bytes().all(|b| b.is_ascii_digit()) => Err(String::new()),
        None => duration(text),
    };
    if let Ok(ago) = ago {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Ok(crate::commands::now_ms().saturating_sub(ago).max(1));
    }
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
        && (0.0..1e13).contains(&seconds)
    {
        // Whoever gives thirteen digits means milliseconds.
        let factor = if seconds >= 1e11 { 1.0 } else { 1_000.0 };
        return Duration::try_from_secs_f64(seconds * factor / 1_000.0)
            .map(|at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX).max(1))
            .map_err(|error| error.to_string());
    }
    crate::commands::unix_ms_of(text)
        .ok_or_else(|| "a moment is written 10m (ago), 2026-01-31T23:59:59Z or as unix seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn moments_are_read_as_people_write_them() {
        let at = 1_769_903_999_000;
        for text in ["2026-01-31T23:59:59Z", "2026-01-31T23:59:59.000+00:00", "2026-02-01 01:29:59+01:30"] {
            assert_eq!(since(text), Ok(at), "{text}");
        }
        assert_eq!((since("1769903999"), since("1769903999000")), (Ok(at), Ok(at)));
        assert_eq!(since("2026-01-31T23:59:59.25Z"), Ok(at + 250));
        for (text, ago) in [("90s", 90_000), ("10m", 600_000), ("3d", 259_200_000)] {
            let now = crate::commands::now_ms();
            assert!((now - ago..now - ago + 60_000).contains(&since(text).unwrap()), "{text}");
        }
        for bad in [
            "",
            "d",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-01-31",
            "-5",
            "2026-02-30T00:00:00Z",
            "1e400",
        ] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_command_needs_two_hyphens_and_keeps_its_flags() {
        let args = Args::try_parse_from(["outlast", "run", "-d", "--", "python", "t.py", "-d"]).unwrap();
        let Verb::Run(run) = args.verb else { panic!("not a run") };
        assert_eq!(
            (run.path, run.command),
            (PathBuf::from("."), vec!["python".into(), "t.py".into(), "-d".into()])
        );
        let args = Args::try_parse_from(["outlast", "run", "x", "--set", "run.env.A=b=c"]).unwrap();
        let Verb::Run(run) = args.verb else { panic!("not a run") };
        assert_eq!(run.config.set, [("run.env.A".to_owned(), "b=c".to_owned())]);
        assert!(Args::try_parse_from(["outlast", "run", "x", "python"]).is_err());
        assert!(Args::try_parse_from(["outlast", "run", "--seed", "3"]).is_err());
    }

    #[test]
    fn durations_are_read_as_written() {
        for (text, millis) in
            [("300ms", 300), ("30s", 30_000), ("1.5m", 90_000), ("2h", 7_200_000), ("7", 7_000)]
        {
            assert_eq!(duration(text).unwrap().as_millis(), millis, "{text}");
        }
        for bad in ["", "s", "3d", "-3s", "1e400s", "..s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
