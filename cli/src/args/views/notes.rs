//! What the views take that write down what people say of runs.

use std::path::PathBuf;

use super::Shown;

/// `outlast note`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct NoteArgs {
    /// The run, or a directory of runs
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// The note; without it all that was written is shown
    #[arg(value_name = "TEXT")]
    pub text: Vec<String>,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast tag`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TagArgs {
    /// The run
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// The tags; without any those it has are shown
    #[arg(value_name = "TAG")]
    pub tags: Vec<String>,
    /// The group that it belongs to, for `group:NAME` in filters and `--by group`, whatever its log says
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Take them away
    #[arg(long)]
    pub remove: bool,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast favorite`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FavoriteArgs {
    /// The run
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// It is none any more
    #[arg(long)]
    pub remove: bool,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast hypothesis`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct HypothesisArgs {
    /// The run, or a directory of runs
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// The hypothesis, or what was found; without it all are shown
    #[arg(value_name = "TEXT")]
    pub text: Vec<String>,
    /// This one was true
    #[arg(long, value_name = "ID", conflicts_with = "refute")]
    pub confirm: Option<String>,
    /// This one was not
    #[arg(long, value_name = "ID")]
    pub refute: Option<String>,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast decision`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DecisionArgs {
    /// The run, or a directory of runs
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// What was decided; without it all decisions are shown
    #[arg(value_name = "TEXT")]
    pub text: Vec<String>,
    /// Why
    #[arg(long, value_name = "TEXT", requires = "text")]
    pub why: Option<String>,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}

/// `outlast link`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LinkArgs {
    /// The run
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// The commit it was made from [default with no REV: the one that is checked out where the run lies]
    #[arg(long, value_name = "REV", num_args = 0..=1, default_missing_value = "HEAD")]
    pub commit: Option<String>,
    /// The pull or merge request it belongs to: its number, or its address
    #[arg(long, value_name = "PR")]
    pub pr: Option<String>,
    /// How to answer.
    #[command(flatten)]
    pub shown: Shown,
}
