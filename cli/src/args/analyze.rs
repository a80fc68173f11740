//! What `outlast analyze` takes.

use std::path::PathBuf;
use std::time::Duration;

use curves::format::Format;

use crate::commands::analyze::plugin;

/// `outlast analyze`
#[derive(Debug, clap::Args)]
pub struct AnalyzeArgs {
    /// Files of tracking tools, console logs, directories of them, or names of runs
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// About how many tokens of a language model the whole answer may have
    #[arg(long, value_name = "N", default_value = "300", value_parser = clap::value_parser!(u32).range(50..=1_000_000), conflicts_with = "json")]
    pub tokens: u32,
    /// Read files as this; see `formats`.
    #[arg(long, value_name = "NAME", value_parser = read_as, help = formats())]
    pub format: Option<ReadAs>,
    /// Show these metrics first, by name or with `*`; may be repeated
    #[arg(short, long = "metric", value_name = "NAME")]
    pub metrics: Vec<String>,
    /// Say why each file is read as what, and read no further
    #[arg(long)]
    pub explain: bool,
    /// Take what metrics mean from [metrics] of this file, not from the nearest outlast.toml
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// Print a [metrics] for outlast.toml that says what the names in a run say
    #[arg(long, conflicts_with_all = ["json", "explain", "tokens"])]
    pub write_schema: bool,
    /// Print JSON: everything, one object for each run
    #[arg(long)]
    pub json: bool,
}

/// `outlast forward`
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("to").required(true).args(["tensorboard", "wandb", "mlflow"])))]
pub struct ForwardArgs {
    /// A run, by its name or the beginning of its id
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Write TensorBoard's event files below this directory
    #[arg(long, value_name = "DIR")]
    pub tensorboard: Option<PathBuf>,
    /// Write a directory of an offline run of W&B's below this one, for `wandb sync`
    #[arg(long, value_name = "DIR")]
    pub wandb: Option<PathBuf>,
    /// Send it to an MLflow tracking server; who asks is proved by `MLFLOW_TRACKING_TOKEN`
    #[arg(long, value_name = "http://HOST:PORT/EXPERIMENT")]
    pub mlflow: Option<String>,
    /// Stay until the run has ended
    #[arg(short, long)]
    pub follow: bool,
}

/// `outlast watch`
#[derive(Debug, Clone, clap::Args)]
pub struct WatchArgs {
    /// A run by its name, or files that a tool writes
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Tell when this holds, as in [early_stop]; without any, all that is a warning or worse
    #[arg(long = "rule", value_name = "RULE", value_parser = crate::commands::watch::rule)]
    pub rules: Vec<curves::early::Rule>,
    /// Tell when no value came for so long
    #[arg(long, value_name = "TIME", value_parser = super::duration)]
    pub stalled: Option<Duration>,
    /// Run this line in a shell for each alert, which it gets as JSON on its standard input
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,
    /// Post each alert to the address in this variable, in the form that Slack takes
    #[arg(long, value_name = "VARIABLE")]
    pub webhook_env: Option<String>,
    /// Between two looks
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = super::duration)]
    pub interval: Duration,
    /// Read files as this; see `formats`.
    #[arg(long, value_name = "NAME", value_parser = format, help = plain_formats())]
    pub format: Option<Format>,
    /// Look once: the exit code says whether there is an alert
    #[arg(long)]
    pub once: bool,
    /// End at the first alert
    #[arg(long)]
    pub until_alert: bool,
    /// Print each alert as a line of JSON, and no values
    #[arg(long)]
    pub json: bool,
}

/// The formats that files are read in, by the names that the command line has
/// for them.
pub const FORMATS: [(&str, Format); 12] = [
    ("outlast", Format::Outlast),
    ("wandb", Format::Wandb),
    ("tensorboard", Format::TensorBoard),
    ("trainer", Format::TrainerState),
    ("mlflow", Format::MlflowMetric),
    ("clearml", Format::ClearMl),
    ("neptune", Format::Neptune),
    ("aim", Format::Aim),
    ("trackio", Format::Trackio),
    ("jsonl", Format::JsonLines),
    ("csv", Format::Delimited),
    ("console", Format::Console),
];

fn names() -> String {
    FORMATS.map(|(name, _)| name).join(", ")
}

pub(super) fn formats() -> String {
    format!(
        "Read files as this, whatever they look like; of directories take only such files: {}, or what the program outlast-reader-NAME reads",
        names()
    )
}

/// What `--format` may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadAs {
    /// A format of this program's.
    Format(Format),
    /// A program that prints records.
    Plugin(PathBuf),
}

pub(super) fn read_as(text: &str) -> Result<ReadAs, String> {
    let known = FORMATS.iter().find(|(name, _)| *name == text);
    let plugin = || plugin::find(text, &std::env::var_os("PATH").unwrap_or_default()).map(ReadAs::Plugin);
    known.map(|(_, format)| ReadAs::Format(*format)).or_else(plugin).ok_or_else(|| {
        format!("the formats are {}; there is no program {}{text} on PATH", names(), plugin::PREFIX)
    })
}

/// What `watch` says of its `--format`.
pub(super) fn plain_formats() -> String {
    format!("Read files as this, whatever they look like; of directories take only such files: {}", names())
}

/// A format of this program's own.
pub(super) fn format(text: &str) -> Result<Format, String> {
    let known = FORMATS.iter().find(|(name, _)| *name == text);
    known.map(|(_, format)| *format).ok_or_else(|| format!("the formats are {}", names()))
}
