//! What the verbs for assistants take.

use std::path::PathBuf;

/// `outlast mcp`
///
/// Speaks on stdin and stdout unless --http is given. Without --allow it only
/// looks. A paid or destructive action is then not done but given a code, which
/// a person redeems on a terminal with `outlast approve`.
#[derive(Debug, clap::Args)]
pub struct McpArgs {
    /// Let it change things, too
    #[arg(long, value_enum)]
    pub allow: Vec<Allowed>,
    /// Let it rent machines without asking, as long as what it begins in a day may cost no more
    #[arg(long, value_name = "AMOUNT/day", requires = "allow", value_parser = crate::mcp::allowance::amount)]
    pub allow_spend: Option<u64>,
    /// Which tools it has
    #[arg(long, value_enum, default_value = "all")]
    pub tools: Offered,
    /// A directory below which it may read training logs, besides the current one; may be repeated
    #[arg(long, value_name = "DIR")]
    pub root: Vec<PathBuf>,
    /// Speak HTTP at this port of this computer alone; 0 is any free one
    #[arg(long, value_name = "PORT")]
    pub http: Option<u16>,
    /// Where the token for HTTP is kept; made if it is not there [default: in the data directory]
    #[arg(long, value_name = "FILE", requires = "http")]
    pub token_file: Option<PathBuf>,
}

/// What a person may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Allowed {
    /// Begin, stop, fork, resume and destroy runs
    Control,
}

/// Which tools there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Offered {
    /// Curves and runs
    All,
    /// Only what reads curves in files
    Analysis,
}

/// `outlast approve`
#[derive(Debug, clap::Args)]
pub struct ApproveArgs {
    /// The code that the assistant was given [default: it is asked for]
    pub code: Option<String>,
}
