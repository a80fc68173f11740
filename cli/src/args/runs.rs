//! What the verbs about runs take.

use std::path::PathBuf;
use std::time::Duration;

use super::installation::ConfigArgs;
use super::values::{duration, since};
use crate::chaos::Plan;

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
    /// Play a market on this computer, for the provider `local`: when there are machines, their
    /// price, their boot, and when they are taken. FILE is TOML, or a recording as `outlast
    /// simulate` reads it
    #[arg(long, value_name = "FILE")]
    pub simulate_market: Option<PathBuf>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Run it although the same work is done already; matters with `run.cache = true` only
    #[arg(long)]
    pub again: bool,
    /// Ask no questions: yes to machines that cost money, and to a large source tree
    #[arg(short, long)]
    pub yes: bool,
    /// Print one JSON object at the end instead of the run's output
    #[arg(long)]
    pub json: bool,
    /// The command and its arguments [default: the configured one]
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `outlast sync`
///
/// A run keeps the tree that it began with: what is sent here is what the next
/// `outlast run` starts from, which then has nothing left to send.
#[derive(Debug, clap::Args)]
pub struct SyncArgs {
    /// The directory of the source tree
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Send nothing: show every file, what of it would be sent, and what is left out and why
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Take these files although an ignore file names them; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Leave these files out; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `outlast pull`
///
/// Each file appears whole. A file that was changed here is never overwritten:
/// the fetched one is put beside it as NAME.pulled-DIGEST, and `outlast` ends
/// with 94.
#[derive(Debug, clap::Args)]
pub struct PullArgs {
    /// Its name, id, or the beginning of either
    pub run: String,
    /// Where to put them [default: outputs/<run> in the project]
    pub dir: Option<PathBuf>,
    /// Stay until the run ends, and fetch whatever is new
    #[arg(short, long)]
    pub watch: bool,
    /// Only these files; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Not these files; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
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
    /// A run or a machine: its name, id, or the beginning of either; with --foreign PROVIDER/INSTANCE
    #[arg(value_name = "RUN|MACHINE")]
    pub target: String,
    /// It is a machine of another installation, as `outlast machines --foreign` lists it
    #[arg(long)]
    pub foreign: bool,
    /// Of which installation it must be: without a terminal --foreign needs this besides --yes
    #[arg(long, value_name = "ID", requires = "foreign")]
    pub installation: Option<String>,
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

/// `outlast answer`
///
/// Without a number the question is shown and, on a terminal, asked.
#[derive(Debug, clap::Args)]
pub struct AnswerArgs {
    /// Its name, id, or the beginning of either
    pub run: String,
    /// The number of the answer
    #[arg(value_parser = clap::value_parser!(u32).range(1..=99))]
    pub number: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `outlast why`
#[derive(Debug, clap::Args)]
pub struct WhyArgs {
    /// Its name, id, or the beginning of either
    pub run: String,
    /// This attempt [default: the newest that ended]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
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
