//! What the verbs about machines take.

use std::path::PathBuf;

use clap::Subcommand;

use super::installation::ConfigArgs;
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
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
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
