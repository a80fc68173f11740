//! What `outlast analyze` takes.

use std::path::PathBuf;

use curves::format::Format;

/// `outlast analyze`
#[derive(Debug, clap::Args)]
pub struct AnalyzeArgs {
    /// Files of tracking tools, console logs, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// About how many tokens of a language model the whole answer may have
    #[arg(long, value_name = "N", default_value = "300", value_parser = clap::value_parser!(u32).range(50..=1_000_000), conflicts_with = "json")]
    pub tokens: u32,
    /// Read files as this; see `formats`.
    #[arg(long, value_name = "NAME", value_parser = format, help = formats())]
    pub format: Option<Format>,
    /// Print JSON: everything, one object for each run
    #[arg(long)]
    pub json: bool,
}

/// The formats that files are read in, by the names that the command line has
/// for them.
pub const FORMATS: [(&str, Format); 9] = [
    ("wandb", Format::Wandb),
    ("tensorboard", Format::TensorBoard),
    ("trainer", Format::TrainerState),
    ("mlflow", Format::MlflowMetric),
    ("clearml", Format::ClearMl),
    ("neptune", Format::Neptune),
    ("jsonl", Format::JsonLines),
    ("csv", Format::Delimited),
    ("console", Format::Console),
];

fn names() -> String {
    FORMATS.map(|(name, _)| name).join(", ")
}

pub(super) fn formats() -> String {
    format!("Read files as this, whatever they look like; of directories take only such files: {}", names())
}

pub(super) fn format(text: &str) -> Result<Format, String> {
    let known = FORMATS.iter().find(|(name, _)| *name == text);
    known.map(|(_, format)| *format).ok_or_else(|| format!("the formats are {}", names()))
}
