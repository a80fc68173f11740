//! What the views take that hold several readings of the same work together.

use std::path::PathBuf;

use super::Shown;

/// `outlast reproduce`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ReproduceArgs {
    /// A file or directory of one run
    #[arg(value_name = "PATH")]
    pub first: PathBuf,
    /// And of the other
    #[arg(value_name = "PATH")]
    pub second: PathBuf,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast ranks`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RanksArgs {
    /// A directory with the logs of all ranks, or the logs
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Which metrics, by name or with `*` [default: all]
    #[arg(short, long = "metric", value_name = "NAME")]
    pub metrics: Vec<String>,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast changes`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ChangesArgs {
    /// A directory with runs, or one run; without it all runs of the controller
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Where the controller's runs are read from, once they are known.
    #[arg(skip)]
    pub places: Vec<PathBuf>,
    /// How many of them are left out.
    #[arg(skip)]
    pub left_out: usize,
    /// Remember nothing: the next time says the same and more
    #[arg(long)]
    pub keep: bool,
    /// Where to remember what was seen [default: `seen` in the data directory]
    #[arg(long, value_name = "DIR")]
    pub memory: Option<PathBuf>,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}
