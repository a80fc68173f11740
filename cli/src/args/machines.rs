//! What the verbs about machines take.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::installation::ConfigArgs;
use super::values::duration;
use crate::commands::offers::OfferOrder;

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

/// `outlast offers`
///
/// What is asked for stands in outlast.toml: [run] provider, [machine], and
/// [budget] max_usd_per_hour. Nothing is rented.
#[derive(Debug, clap::Args)]
pub struct OffersArgs {
    /// The directory of the source tree
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Where machines come from [default: the configured provider]
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// What comes first
    #[arg(long, value_name = "ORDER", value_enum, default_value_t = OfferOrder::Choice)]
    pub sort: OfferOrder,
    /// Show so many [default: 20]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// How much there is to do, such as 12h on a machine of the reference speed [default: not known]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub work: Option<Duration>,
    /// The kind of GPU whose speed is the reference [default: the middle one on offer]
    #[arg(long, value_name = "GPU", requires = "work")]
    pub reference: Option<String>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `outlast recommend`
///
/// The rate is a run's own, as it last reported steps, or given. On other kinds
/// of machines it is an estimate by the provider's measure of speed. Limits such
/// as [machine] gpu_memory and [budget] max_usd_per_hour hold; every kind of GPU
/// is looked at. For a RUN, provider, machine and ceiling are the run's own unless
/// --path, --config or --set name others. Nothing is rented.
#[derive(Debug, clap::Args)]
pub struct RecommendArgs {
    /// The run whose rate is taken: its name, id, or the beginning of either
    #[arg(required_unless_present = "steps_per_second")]
    pub run: Option<String>,
    /// The rate, instead of the run's own
    #[arg(long, value_name = "RATE")]
    pub steps_per_second: Option<f64>,
    /// The kind of GPU on which it was measured [default: the run's]
    #[arg(long, value_name = "GPU")]
    pub gpu: Option<String>,
    /// Steps in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// The run was a trial: none of its steps count as done
    #[arg(long, requires = "run")]
    pub trial: bool,
    /// Within which it is to be finished, such as 48h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub deadline: Option<Duration>,
    /// Only these kinds of GPU; may be repeated
    #[arg(long, value_name = "GPU", value_delimiter = ',')]
    pub gpus: Vec<String>,
    /// Where machines come from [default: the run's provider, or the configured one]
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// Show so many [default: 20]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// The directory of the source tree
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub path: PathBuf,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `outlast hosts`
///
/// Everything is forgotten by halves in 14 days. A score of 50 is a host of
/// which nothing is known. No host is forbidden by it: it weighs against the
/// price wherever a machine is chosen.
#[derive(Debug, clap::Args)]
pub struct HostsArgs {
    /// Only those of this provider
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// Show so many [default: 50]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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
