//! What the verbs about stored checkpoints take.

use std::path::PathBuf;

use super::installation::ConfigArgs;

/// `outlast artifacts`
#[derive(Debug, clap::Subcommand)]
pub enum ArtifactsVerb {
    /// Read checkpoints in the store and say whether they are whole
    Verify(VerifyArgs),
    /// List the files of a checkpoint
    Ls {
        /// Which: RUN (its newest), RUN@STEP or RUN@best
        #[arg(value_name = "RUN[@STEP]")]
        checkpoint: String,
        /// What is in each file, too: tensors and records
        #[arg(short, long)]
        tensors: bool,
        /// Open it with the private key in this file, not with the controller's
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print one file of a checkpoint
    Cat {
        /// Which: RUN (its newest), RUN@STEP or RUN@best
        #[arg(value_name = "RUN[@STEP]")]
        checkpoint: String,
        /// The file, as `outlast artifacts ls` names it; a checkpoint of one file needs no name
        path: Option<String>,
        /// Open it with the private key in this file, not with the controller's
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Say in what two checkpoints differ: files, tensors by name
    Diff {
        /// The one, as RUN[@STEP]
        #[arg(value_name = "RUN[@STEP]")]
        from: String,
        /// The other, as RUN[@STEP]
        #[arg(value_name = "RUN[@STEP]")]
        to: String,
        /// Open both with the private key in this file, not with the controller's
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a checkpoint into a directory or a tar file, whole or not at all
    Export {
        /// Which: RUN (its newest), RUN@STEP or RUN@best
        #[arg(value_name = "RUN[@STEP]")]
        checkpoint: String,
        /// Where to: a new name, a directory to put it into, a FILE.tar, or - for a tar on stdout
        #[arg(value_name = "DIR|FILE.tar|-")]
        to: PathBuf,
        /// Open it with the private key in this file, not with the controller's
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a run out of a checkpoint that was made elsewhere, to go on from
    ///
    /// The run is held: `outlast resume` begins it from the checkpoint, `outlast fork` begins
    /// others. Its command, settings and source tree are those of the project, as with `outlast run`.
    Import(ImportArgs),
}

/// `outlast artifacts verify`
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Which: RUN (its newest), RUN@STEP or RUN@best
    #[arg(value_name = "RUN[@STEP]", required_unless_present = "all")]
    pub checkpoint: Option<String>,
    /// Every durable checkpoint of the run; without a run, of every run
    #[arg(long)]
    pub all: bool,
    /// Read so many percent of each, drawn at random, instead of everything
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub sample: Option<u32>,
    /// Do not wait: verdicts are in `outlast checkpoints` and `outlast events`
    #[arg(short, long)]
    pub detach: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `outlast artifacts import`
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The checkpoint: a file or a directory
    pub path: PathBuf,
    /// Take it although it looks incomplete or holds no file
    #[arg(long)]
    pub force: bool,
    /// The beginning of the run's name
    #[arg(long, value_name = "NAME")]
    pub run: String,
    /// The step it was made at
    #[arg(long, value_name = "N")]
    pub step: u64,
    /// The directory of the source tree
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub project: PathBuf,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The command and its arguments [default: the configured one]
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `outlast fork`
#[derive(Debug, clap::Args)]
pub struct ForkArgs {
    /// Which checkpoint: RUN (its newest), RUN@STEP or RUN@best
    #[arg(value_name = "RUN[@STEP]")]
    pub checkpoint: String,
    /// What is different from that run, such as --set run.env.LR=0.1
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = super::values::setting)]
    pub set: Vec<(String, String)>,
    /// The beginning of the new run's name
    #[arg(long)]
    pub name: Option<String>,
    /// Take the source tree of this directory instead of that run's
    #[arg(long, value_name = "DIR")]
    pub source: Option<PathBuf>,
    /// Return as soon as the run is accepted
    #[arg(short, long)]
    pub detach: bool,
    /// Print one JSON object at the end instead of the run's output
    #[arg(long)]
    pub json: bool,
    /// The command and its arguments [default: that run's]
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}
