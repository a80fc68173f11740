//! What the views over training curves take. All of them read files and ask
//! nobody; every one answers in a bounded number of tokens, or as JSON.

use std::path::PathBuf;

use curves::format::Format;

use super::analyze::{format, plain_formats};

/// The views.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum ViewVerb {
    /// Print the values of metrics by step, fewer of them without losing extremes
    History(HistoryArgs),
    /// Describe metrics: smallest, largest, mean, last, spread, NaN, trend
    Stats(StatsArgs),
    /// List what a run logged: metrics, measurements of its machine, other keys
    Metrics(MetricsArgs),
    /// Show the settings that a run was made with, and what else its log says of it
    Settings(SettingsArgs),
}

impl ViewVerb {
    /// The files and directories that it looks at.
    pub fn paths(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::History(args) => vec![&mut args.path],
            Self::Stats(args) => vec![&mut args.path],
            Self::Metrics(args) => vec![&mut args.path],
            Self::Settings(args) => vec![&mut args.path],
        }
    }
}

/// How an answer is given.
#[derive(Debug, Clone, clap::Args)]
pub struct Shown {
    /// About how many tokens of a language model the whole answer may have
    #[arg(long, value_name = "N", default_value = "300", value_parser = clap::value_parser!(u32).range(50..=1_000_000), conflicts_with = "json")]
    pub tokens: u32,
    /// Read files as this; see `formats`.
    #[arg(long, value_name = "NAME", value_parser = format, help = plain_formats())]
    pub format: Option<Format>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Default for Shown {
    fn default() -> Self {
        Self { tokens: 300, format: None, json: false }
    }
}

/// `outlast history`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct HistoryArgs {
    /// A file or directory of one run, or its name
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Which of several runs below the path: its name, id, the end of its path, or the beginning of one
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Which metrics, by name or with `*` [default: the one that the run is judged by]
    #[arg(short, long = "metric", value_name = "NAME", num_args = 1..)]
    pub metrics: Vec<String>,
    /// At most so many values of each metric [default: as many as fit; 200 with --csv and --json]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..=10_000_000))]
    pub samples: Option<u32>,
    /// From this step on
    #[arg(long, value_name = "STEP")]
    pub from: Option<u64>,
    /// Up to this step
    #[arg(long, value_name = "STEP")]
    pub to: Option<u64>,
    /// Print a CSV table and nothing else, however long
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast stats`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct StatsArgs {
    /// A file or directory of one run, or its name
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Which of several runs below the path: its name, id, the end of its path, or the beginning of one
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Which metrics, by name or with `*` [default: all]
    #[arg(short, long = "metric", value_name = "NAME", num_args = 1..)]
    pub metrics: Vec<String>,
    /// From this step on
    #[arg(long, value_name = "STEP")]
    pub from: Option<u64>,
    /// Up to this step
    #[arg(long, value_name = "STEP")]
    pub to: Option<u64>,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast metrics`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct MetricsArgs {
    /// A file or directory of one run, or its name
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Which of several runs below the path: its name, id, the end of its path, or the beginning of one
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast settings`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SettingsArgs {
    /// A file or directory of one run, or its name
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Which of several runs below the path: its name, id, the end of its path, or the beginning of one
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Only settings whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}
