//! The command line, as it is parsed and as `--help` shows it. Values are
//! checked for their form only; what they mean is the verbs' business.

use clap::{Parser, Subcommand};

mod analyze;
mod artifacts;
mod installation;
mod machines;
mod mcp;
mod runs;
mod simulate;
mod tidy;
mod values;
mod views;

pub use analyze::{AnalyzeArgs, FORMATS, ForwardArgs, ReadAs, WatchArgs};
pub use artifacts::{ArtifactsVerb, ForkArgs, ImportArgs, VerifyArgs};
pub use installation::{
    ArriveVerb, ConfigArgs, ConfigVerb, ControllerVerb, DeployArgs, InitArgs, KeysVerb, LoginArgs, NotifyVerb,
};
pub use machines::{HealthArgs, HostsArgs, MachinesVerb, OffersArgs, RecommendArgs, UpgradeArgs};
pub use mcp::{Allowed, ApproveArgs, McpArgs, Offered};
pub use runs::{
    AnswerArgs, DestroyArgs, EventsArgs, LogsArgs, PullArgs, ResumeArgs, RunArgs, StatusArgs, StopArgs,
    SyncArgs, WhyArgs,
};
pub use simulate::SimulateArgs;
pub use tidy::TidyArgs;
pub use values::{duration, setting};
pub use views::{
    ChangesArgs, CompareArgs, DecisionArgs, ExportArgs, ExportKind, FavoriteArgs, GroupArgs, HistoryArgs,
    HypothesisArgs, LinkArgs, MetricsArgs, NoteArgs, Number, PlotArgs, RanksArgs, ReportArgs, ReproduceArgs,
    RunsArgs, SettingsArgs, Shown, StatsArgs, TagArgs, ViewVerb,
};

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
    /// Write an outlast.toml for the project that lies here
    Init(InitArgs),
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
    /// Show what a run waits for, or answer it
    Answer(AnswerArgs),
    /// Show machines, as their providers see them
    #[command(args_conflicts_with_subcommands = true)]
    Machines {
        /// What else to do with them.
        #[command(subcommand)]
        verb: Option<MachinesVerb>,
        /// Those that are gone too
        #[arg(long)]
        all: bool,
        /// Those that other installations of outlast made in your accounts, and what they cost
        #[arg(long, conflicts_with = "all")]
        foreign: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show machines that could be rented now for this project
    Offers(OffersArgs),
    /// From a measured rate, show what finishing would take on each kind of machine on offer
    Recommend(RecommendArgs),
    /// Show what is remembered of the hosts of rented machines
    Hosts(HostsArgs),
    /// Show how a machine is: load, memory, disks, GPUs, alerts
    Health(HealthArgs),
    /// Show the checkpoints of a run
    Checkpoints {
        /// Its name, id, or the beginning of either; with --explain also a path on this computer
        #[arg(value_name = "RUN|PATH")]
        run: String,
        /// Say of everything saved on its machine why it is or is not complete
        #[arg(long)]
        explain: bool,
        /// Show where they came from and what was forked from them, with all related runs
        #[arg(long, conflicts_with = "explain")]
        tree: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Keep a checkpoint whatever the rule for old ones says
    Pin {
        /// Which, as RUN@STEP
        #[arg(value_name = "RUN@STEP", value_parser = values::at_step)]
        checkpoint: (String, u64),
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Keep a pinned checkpoint no longer than the rule says
    Unpin {
        /// Which, as RUN@STEP
        #[arg(value_name = "RUN@STEP", value_parser = values::at_step)]
        checkpoint: (String, u64),
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Begin a new run from a checkpoint of another one, with other settings
    Fork(ForkArgs),
    /// Look into stored checkpoints: verify, list, compare, export, import
    Artifacts {
        /// What to do.
        #[command(subcommand)]
        verb: ArtifactsVerb,
    },
    /// Let go of old checkpoints and delete what nothing needs any more
    Tidy(TidyArgs),
    /// Send the source tree now, or show what would be sent
    Sync(SyncArgs),
    /// Fetch the result files of a run
    Pull(PullArgs),
    /// Say why an attempt ended, and what to try next
    Why(WhyArgs),
    /// Show the journal: everything that was learned and done
    Events(EventsArgs),
    /// Show what runs have cost, per run, project, day and in all, beside the caps
    Cost {
        /// Only this run, machine by machine
        run: Option<String>,
        /// Only runs of this project
        #[arg(long, value_name = "NAME", conflicts_with_all = ["run", "bill"])]
        project: Option<String>,
        /// Ask the providers what they charged, and compare it with the ledger
        #[arg(long, conflicts_with = "run")]
        bill: bool,
        /// How many days back, with --bill
        #[arg(long, value_name = "N", default_value = "7", requires = "bill", value_parser = clap::value_parser!(u32).range(1..=90))]
        days: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what training curves in files show: trends, what is wrong, what to do
    Analyze(AnalyzeArgs),
    /// Write a run's curves for TensorBoard or W&B, or send them to an MLflow server
    Forward(ForwardArgs),
    /// Look at a run again and again, and tell what is new and wrong
    Watch(WatchArgs),
    /// Look at training curves in files.
    #[command(flatten)]
    View(ViewVerb),
    /// Serve what there is to look at and to do to an assistant, over MCP
    Mcp(McpArgs),
    /// Do what an assistant asked for, once you have seen it with its price and cap
    Approve(ApproveArgs),
    /// Replay recorded availability: what a policy would have done, and at what cost
    Simulate(Box<SimulateArgs>),
    /// Start, stop and look after the controller
    Controller {
        /// What to do.
        #[command(subcommand)]
        verb: ControllerVerb,
    },
    /// Speak with the controller of another computer, through your SSH login there
    Login(LoginArgs),
    /// Go back to this computer's own controller
    Logout,
    /// Show or check the configuration
    Config {
        /// What to do.
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Show or try out whom the controller tells of events
    Notify {
        /// What to do.
        #[command(subcommand)]
        verb: NotifyVerb,
    },
    /// Look after the keys of sealed checkpoints
    Keys {
        /// What to do.
        #[command(subcommand)]
        verb: KeysVerb,
    },
    /// Try out what runs depend on, and say how to mend it
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use clap::CommandFactory as _;

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
}
