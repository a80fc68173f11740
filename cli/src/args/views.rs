//! What the views over training curves take. All of them read files and ask
//! nobody; every one answers in a bounded number of tokens, or as JSON.

use std::path::PathBuf;

use super::ReadAs;
use super::analyze::{formats, read_as};
pub use notes::{DecisionArgs, FavoriteArgs, HypothesisArgs, LinkArgs, NoteArgs, TagArgs};
pub use several::{ChangesArgs, RanksArgs, ReproduceArgs};

mod notes;
mod several;

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
    /// Compare runs side by side at the same step: values, settings, speed
    Compare(CompareArgs),
    /// List runs, search them with a filter or a plain question, rank them
    Runs(RunsArgs),
    /// Compare groups of runs over random seeds: spread, tests, what settings matter
    Group(GroupArgs),
    /// Draw metrics in the terminal, as SVG, as PNG, or as a script for matplotlib
    Plot(PlotArgs),
    /// Write a report of runs: Markdown, or one HTML file with charts
    Report(ReportArgs),
    /// Write a run as a page for Obsidian or Notion, or as a model card
    Export(ExportArgs),
    /// Write a note to a run, or show what was written
    Note(NoteArgs),
    /// Tag a run, or show its tags
    Tag(TagArgs),
    /// Mark a run as a favourite
    Favorite(FavoriteArgs),
    /// Write down what is thought to be true, and later whether it was
    Hypothesis(HypothesisArgs),
    /// Write down what was decided, and why
    Decision(DecisionArgs),
    /// Tie a run to a commit or a pull request, or show what it is tied to
    Link(LinkArgs),
    /// Say whether two runs are the same experiment with the same numbers
    Reproduce(ReproduceArgs),
    /// Join the logs of the ranks of one run, and show how far they are apart
    Ranks(RanksArgs),
    /// Say what changed below a path since this was asked last
    Changes(ChangesArgs),
}

impl ViewVerb {
    /// The files and directories that it looks at.
    pub fn paths(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::History(args) => vec![&mut args.path],
            Self::Stats(args) => vec![&mut args.path],
            Self::Metrics(args) => vec![&mut args.path],
            Self::Settings(args) => vec![&mut args.path],
            Self::Export(args) => vec![&mut args.path],
            Self::Runs(args) => args.path.iter_mut().collect(),
            Self::Changes(args) => args.path.iter_mut().collect(),
            Self::Group(args) => args.paths.iter_mut().collect(),
            Self::Plot(args) => args.paths.iter_mut().collect(),
            Self::Report(args) => args.paths.iter_mut().collect(),
            Self::Ranks(args) => args.paths.iter_mut().collect(),
            Self::Reproduce(args) => vec![&mut args.first, &mut args.second],
            Self::Note(args) => vec![&mut args.path],
            Self::Tag(args) => vec![&mut args.path],
            Self::Favorite(args) => vec![&mut args.path],
            Self::Hypothesis(args) => vec![&mut args.path],
            Self::Decision(args) => vec![&mut args.path],
            Self::Link(args) => vec![&mut args.path],
            Self::Compare(_) => Vec::new(),
        }
    }

    /// Runs that are named with a step: `RUN@STEP`.
    pub fn places(&mut self) -> &mut [String] {
        if let Self::Compare(args) = self { &mut args.runs } else { &mut [] }
    }
}

/// How an answer is given.
#[derive(Debug, Clone, clap::Args)]
pub struct Shown {
    /// About how many tokens of a language model the whole answer may have
    #[arg(long, value_name = "N", default_value = "300", value_parser = clap::value_parser!(u32).range(50..=1_000_000), conflicts_with = "json")]
    pub tokens: u32,
    /// Read files as this; see `formats`.
    #[arg(long, value_name = "NAME", value_parser = read_as, help = formats())]
    pub format: Option<ReadAs>,
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
    #[arg(long, conflicts_with_all = ["json", "tokens"])]
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

/// `outlast compare`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CompareArgs {
    /// The runs: files or directories of one run each, with `@STEP` behind for another step than the others
    #[arg(required = true, num_args = 2..=10, value_name = "PATH[@STEP]")]
    pub runs: Vec<String>,
    /// Which metrics, by name or with `*` [default: all that they share]
    #[arg(short, long = "metric", value_name = "NAME")]
    pub metrics: Vec<String>,
    /// Only metrics whose name begins so
    #[arg(long, value_name = "TEXT", conflicts_with = "metrics")]
    pub prefix: Option<String>,
    /// Only metrics that differ from the first run by at least so many percent
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    pub threshold: f64,
    /// At this step [default: the last that all have reached]
    #[arg(long, value_name = "STEP")]
    pub at: Option<u64>,
    /// At the end of this stage of `[metrics] stages`
    #[arg(long, value_name = "NAME", conflicts_with = "at")]
    pub stage: Option<String>,
    /// Only the settings that differ
    #[arg(long, conflicts_with_all = ["csv", "at", "stage", "metrics"])]
    pub settings: bool,
    /// Print a CSV table and nothing else, however long
    #[arg(long, conflicts_with_all = ["json", "tokens"])]
    pub csv: bool,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast runs`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RunsArgs {
    /// A directory with runs, or names of runs of the controller with `*` [default: all of the controller's runs]
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// A filter such as `val_acc > 0.8 and state == finished and tag:base since 7d`, or a question such as `best run of last week`
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
    /// The controller's runs: every word belongs to the filter
    #[arg(long)]
    pub all: bool,
    /// The best by this metric first
    #[arg(long, value_name = "METRIC", conflicts_with_all = ["sort", "reverse"])]
    pub best: Option<String>,
    /// The largest value is the best
    #[arg(long, conflicts_with = "min")]
    pub max: bool,
    /// The smallest value is the best
    #[arg(long)]
    pub min: bool,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub top: Option<u32>,
    /// In order of: time, path, name, state, steps, health, a metric or a setting
    #[arg(long, value_name = "FIELD")]
    pub sort: Option<String>,
    /// The other way round
    #[arg(long, requires = "sort")]
    pub reverse: bool,
    /// Where the controller's runs are read from, once they are known.
    #[arg(skip)]
    pub places: Vec<PathBuf>,
    /// How many of them are left out.
    #[arg(skip)]
    pub left_out: usize,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// The one number that a run stands with in a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Number {
    /// Its last value
    #[default]
    Last,
    /// Its best value
    Best,
    /// Its smallest value
    Min,
    /// Its largest value
    Max,
    /// The mean of its values
    Mean,
}

impl Number {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Best => "best",
            Self::Min => "min",
            Self::Max => "max",
            Self::Mean => "mean",
        }
    }
}

/// `outlast group`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct GroupArgs {
    /// Directories or files of runs
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Compared by this metric [default: the one that the first run is judged by]
    #[arg(short, long, value_name = "NAME")]
    pub metric: Option<String>,
    /// What makes an arm: a setting, `group`, `directory`, `day`, or `name` without the number at its end [default: name]
    #[arg(long, value_name = "FIELD")]
    pub by: Option<String>,
    /// An arm by a filter; give it twice or more for an A/B comparison
    #[arg(long = "arm", value_name = "FILTER", conflicts_with = "by")]
    pub arms: Vec<String>,
    /// The arm that the others are compared with [default: the first by name]
    #[arg(long, value_name = "ARM")]
    pub base: Option<String>,
    /// Pair runs of two arms by this setting, such as seed, or by `name`: the number at its end
    #[arg(long, value_name = "FIELD")]
    pub pair: Option<String>,
    /// Which number of a run is taken
    #[arg(long, value_enum, default_value = "last", value_name = "NUMBER")]
    pub value: Number,
    /// The value at this step, whatever --value says
    #[arg(long, value_name = "STEP")]
    pub at: Option<u64>,
    /// Say which settings go with the metric, and how sure that is
    #[arg(long)]
    pub importance: bool,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast plot`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PlotArgs {
    /// Files or directories of one run each, drawn over each other
    #[arg(required = true, num_args = 1..=20, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Which of several runs below the path, where only one path is given
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Which metrics, by name or with `*` [default: the one that the first run is judged by]
    #[arg(short, long = "metric", value_name = "NAME")]
    pub metrics: Vec<String>,
    /// A logarithmic scale; values that are not above zero are gaps
    #[arg(long)]
    pub log: bool,
    /// From this step on
    #[arg(long, value_name = "STEP")]
    pub from: Option<u64>,
    /// Up to this step
    #[arg(long, value_name = "STEP")]
    pub to: Option<u64>,
    /// Draw with Braille dots instead of ASCII; three times as many tokens
    #[arg(long)]
    pub unicode: bool,
    /// Columns of the drawing, or pixels of a picture [default: what fits; 800]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(8..=4000))]
    pub width: Option<u32>,
    /// Rows of the drawing, or pixels of a picture [default: what fits; 450]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=4000))]
    pub height: Option<u32>,
    /// Write a picture or a script: its name ends in .svg, .png or .py
    #[arg(short, long, value_name = "FILE", conflicts_with = "unicode")]
    pub out: Option<PathBuf>,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast report`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ReportArgs {
    /// Directories or files of runs
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Only these metrics, by name or with `*`
    #[arg(short, long = "metric", value_name = "NAME")]
    pub metrics: Vec<String>,
    /// Write all of it to a file whose name ends in .html or .md
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// What a run is exported as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportKind {
    /// Markdown with properties
    #[default]
    Obsidian,
    /// Markdown without
    Notion,
    /// A model card as the Hugging Face Hub reads it
    Card,
}

/// `outlast export`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ExportArgs {
    /// A file or directory of one run
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Which of several runs below the path: its name, id, the end of its path, or the beginning of one
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// As what
    #[arg(long, value_enum, value_name = "KIND", default_value = "obsidian")]
    pub to: ExportKind,
    /// Write all of it to this file
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}
