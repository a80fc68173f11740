//! What `outlast tidy` takes.

use std::time::Duration;

/// `outlast tidy`
#[derive(Debug, clap::Args)]
pub struct TidyArgs {
    /// Show only this run's checkpoints: its name, id, or the beginning of either
    pub run: Option<String>,
    /// Only say what would go
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Delete at once what nothing has needed for so long [default: a day; what no run ever named: a week]
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    pub grace: Option<Duration>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
