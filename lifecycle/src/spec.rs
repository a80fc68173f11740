//! What a run is asked to be. Made by the CLI from the configuration, kept by
//! the controller, obeyed by the agent; never changed after submission. What a
//! newer version added is kept out of an older one's way: unknown fields are
//! ignored here, the CLI checks a configuration by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::retention::Retention;
use crate::retention::score::Best;

mod data;
pub mod difference;
pub mod filter;
mod health;
mod limits;
mod machine;
mod market;
mod notice;
pub mod secret;

pub use data::{DataSpec, HfKind, HfRepo, UrlFile, is_commit, is_inside};
pub use filter::Filter;
pub use health::{HangAction, HangSpec, HealthSpec};
pub use limits::LimitSpec;
pub use machine::{MachineSpec, Market, WhenStopped};
pub use market::{MarketStep, PlayedMarket, Taken};
pub use notice::{NoticeSignal, NoticeSource, NoticeSpec};

/// Everything that decides how a run is carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The project that owns the run.
    pub project: String,
    /// The stem of the run's name; the controller adds a short id.
    pub name: String,
    /// The program and its arguments; never a shell line.
    pub command: Vec<String>,
    /// Directory inside the source tree in which the command runs; empty is
    /// the root.
    #[serde(default)]
    pub workdir: String,
    /// Variables given to the command besides the contract's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Names of the variables whose values the controller keeps sealed and hands
    /// to the machine after it joined; the values stand nowhere in here.
    #[serde(default, skip_serializing_if = "is_default")]
    pub secrets: Vec<String>,
    /// What is fetched to the machine before anything else is made.
    #[serde(default, skip_serializing_if = "is_default")]
    pub data: DataSpec,
    /// How the environment is built.
    #[serde(default)]
    pub environment: EnvironmentSpec,
    /// Where checkpoints appear and how they come back.
    #[serde(default)]
    pub checkpoints: CheckpointSpec,
    /// Which result files are kept, as globs relative to the source root.
    #[serde(default)]
    pub artifacts: Vec<String>,
    /// When a failed attempt is followed by another.
    #[serde(default)]
    pub retry: RetrySpec,
    /// The provider that machines come from.
    pub provider: String,
    /// The run's hard cap in US dollars; `None` is no cap.
    #[serde(default)]
    pub max_usd: Option<f64>,
    /// The most that an hour of its machine may cost, in US dollars.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_usd_per_hour: Option<f64>,
    /// Cap for all runs of the project together, in US dollars.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_usd_project: Option<f64>,
    /// Cap for all runs of the installation on one day of UTC, in US dollars.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_usd_day: Option<f64>,
    /// What its machine must be.
    #[serde(default, skip_serializing_if = "is_default")]
    pub machine: MachineSpec,
    /// What an hour of a machine without a price of its own (`local`) counts
    /// as, in US dollars.
    #[serde(default)]
    pub usd_per_hour: Option<f64>,
    /// Seconds between SIGTERM and SIGKILL when the run is stopped.
    #[serde(default = "default_grace")]
    pub grace_seconds: u64,
    /// Bytes of unacknowledged output the machine keeps; 0 is the default
    /// (10 % of free disk, at most 8 GiB).
    #[serde(default)]
    pub spool_bytes: u64,
    /// What the program may use at most.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: LimitSpec,
    /// Give the program a terminal instead of two pipes; its error stream is
    /// then part of its output.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pty: bool,
    /// Thresholds of alerts, and what is done about a hang.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health: HealthSpec,
    /// What is done when its provider takes the machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub notice: NoticeSpec,
    /// When it is ended before its time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub early_stop: EarlyStopSpec,
}

/// When a run is ended before its time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EarlyStopSpec {
    /// Rules on its metrics, in the words of `curves::early`; the first that
    /// holds ends it.
    pub rules: Vec<String>,
}

/// What an older version does not know is written only where it is used: that
/// version refuses fields it does not know, and rightly so where they ask for
/// something.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn default_grace() -> u64 {
    30
}

/// How the environment on the machine is built.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EnvironmentSpec {
    /// Which builder; `Auto` looks at the files of the source tree.
    #[serde(default)]
    pub kind: EnvironmentKind,
    /// Command lines run by `sh -c` after the packages are installed.
    #[serde(default)]
    pub setup: Vec<String>,
    /// A container image in which the command runs, with podman or docker of
    /// the machine; empty is none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub image: String,
}

/// Which tool makes the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnvironmentKind {
    /// `environment.yml` and conda present: conda; `requirements.txt` or
    /// `pyproject.toml`: venv; else none.
    #[default]
    Auto,
    /// `uv` when present, else `python3 -m venv` and pip.
    Venv,
    /// conda (or mamba, micromamba) with `environment.yml`.
    Conda,
    /// The machine's own interpreter as it is.
    None,
}

/// Where a program saves, and how a saved state comes back to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSpec {
    /// Globs relative to the source root; empty means that only
    /// `$OUTLAST_CHECKPOINT_DIR` is watched.
    #[serde(default)]
    pub paths: Vec<String>,
    /// How a restored checkpoint is handed to the program.
    #[serde(default)]
    pub restore: RestoreMode,
    /// Arguments appended to the command on resume; `{path}` is replaced.
    #[serde(default)]
    pub resume_args: Vec<String>,
    /// Seconds without a change after which a file or directory that was not
    /// renamed into place counts as finished.
    #[serde(default = "default_quiet")]
    pub quiet_seconds: u64,
    /// How many durable checkpoints stay on the machine's own disk.
    #[serde(default = "default_keep_local")]
    pub keep_local: u32,
    /// Part of the link's time that uploads may take while the program runs,
    /// 1 to 100.
    #[serde(default = "default_uplink", skip_serializing_if = "is_usual_uplink")]
    pub uplink_percent: u32,
    /// Glob of the file by which the program says that a checkpoint is
    /// finished: in it, or beside it where the glob holds `{name}`. Empty: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub marker: String,
    /// Command that tells by its exit code whether a checkpoint, whose path is
    /// added, is finished. Empty: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub check: Vec<String>,
    /// Which durable checkpoints stay in the store.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep: Retention,
    /// The metric by which some of them are the best.
    #[serde(default, skip_serializing_if = "is_default")]
    pub best: Option<Best>,
    /// Whether checkpoints and results are sealed before they leave the machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub encrypt: Encrypt,
    /// Who decides when it is saved.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cadence: Cadence,
}

/// Who decides when a program saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cadence {
    /// The program alone.
    #[default]
    Own,
    /// It is asked as well, by the signal of notices, where the best interval
    /// ([`crate::cadence`]) has passed without a save.
    Adaptive,
}

fn default_quiet() -> u64 {
    10
}

fn default_keep_local() -> u32 {
    3
}

fn default_uplink() -> u32 {
    80
}

fn is_usual_uplink(percent: &u32) -> bool {
    *percent == default_uplink()
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            restore: RestoreMode::default(),
            resume_args: Vec::new(),
            quiet_seconds: default_quiet(),
            keep_local: default_keep_local(),
            uplink_percent: default_uplink(),
            marker: String::new(),
            check: Vec::new(),
            keep: Retention::default(),
            best: None,
            encrypt: Encrypt::default(),
            cadence: Cadence::default(),
        }
    }
}

/// Whether trees are sealed before they leave the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encrypt {
    /// On machines of strangers.
    #[default]
    Auto,
    /// On every machine.
    Always,
    /// On none.
    Never,
}

/// How a restored checkpoint is handed to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreMode {
    /// `InPlace` where `paths` is set, else `Variable`.
    #[default]
    Auto,
    /// Only `OUTLAST_RESUME_FROM` names it.
    Variable,
    /// Files return to where the program wrote them (and
    /// `OUTLAST_RESUME_FROM` names them there).
    InPlace,
}

/// When a failed attempt is followed by another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrySpec {
    /// Further attempts allowed for failures of the program itself that make
    /// no progress. Losses of machines never use these up.
    #[serde(default = "default_failures")]
    pub failures: u32,
    /// Further attempts allowed after losses of machines; `None` is no limit
    /// besides the limit of machines made per hour.
    #[serde(default)]
    pub losses: Option<u32>,
}

fn default_failures() -> u32 {
    2
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { failures: default_failures(), losses: None }
    }
}

/// The names of the contract with the trained program: the environment and
/// nothing else (the last marks the machine's own processes). No configuration
/// may set them.
pub const CONTRACT: [&str; 8] = [
    "OUTLAST_RUN_ID",
    "OUTLAST_ATTEMPT",
    "OUTLAST_GENERATION",
    "OUTLAST_CHECKPOINT_DIR",
    "OUTLAST_RESUME_FROM",
    "OUTLAST_OUTPUT_DIR",
    "OUTLAST_NOTICE_FILE",
    "OUTLAST_MACHINE_ID",
];
