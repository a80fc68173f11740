//! The form of a capsule: what it is written and read as. Fields are only ever
//! added; an older reader ignores what it does not know, a newer one takes
//! what is absent for empty.

use std::collections::BTreeMap;

use lifecycle::Exit;
use lifecycle::cause::Verdict;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text::Tail;

/// One journal entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Moment {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// Who.
    pub actor: String,
    /// What.
    pub verb: String,
    /// Of what.
    pub object: String,
    /// More about it.
    pub detail: Value,
}

/// The run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunPart {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its project.
    pub project: String,
    /// Its state.
    pub state: String,
    /// Why it is in that state; may be empty.
    pub reason: String,
    /// The command, secrets masked.
    pub command: Vec<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds; 0 until final.
    pub ended_ms: u64,
}

/// The attempt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttemptPart {
    /// Its id.
    pub id: String,
    /// 1 for the first of its run.
    pub number: u32,
    /// Its fencing number.
    pub generation: u64,
    /// Its state.
    pub state: String,
    /// How it ended, in words; empty: it has not.
    pub ending: String,
    /// Unix milliseconds of the bind.
    pub bound_ms: u64,
    /// Unix milliseconds of the program's start; 0: it never started.
    pub started_ms: u64,
    /// Unix milliseconds; 0: it has not ended.
    pub ended_ms: u64,
    /// From the bind to the start.
    pub prepare_ms: u64,
    /// Of that, restoring.
    pub restore_ms: u64,
    /// The environment was there already.
    pub environment_cached: bool,
    /// The step that it went on from.
    pub resumed_step: Option<u64>,
    /// The first step that was heard of.
    pub first_step: Option<u64>,
    /// The last step that was heard of.
    pub last_step: Option<u64>,
    /// The newest step that nothing can take away.
    pub durable_step: Option<u64>,
    /// Steps done once more, since the attempt before had reached them.
    pub repeated_steps: Option<u64>,
    /// Steps beyond the durable one: the next attempt repeats them.
    pub unsaved_steps: Option<u64>,
}

/// How the program ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitPart {
    /// The end as its parent saw it.
    pub exit: Option<Exit>,
    /// Its last error line.
    pub last_error_line: String,
    /// What speaks for memory.
    pub out_of_memory: String,
    /// Whom the out-of-memory killer took.
    pub oom_process: Option<(i32, String)>,
    /// Why the agent ended it.
    pub hang: String,
    /// Why its machine is held for broken.
    pub leave_machine: String,
    /// The machine holds the failure for passing.
    pub transient: bool,
    /// What is not in the store.
    pub unpublished: String,
    /// What the machine itself recorded.
    pub recorded: Vec<Value>,
    /// What launchers said of the ranks.
    pub ranks: Vec<Value>,
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachinePart {
    /// Its id.
    pub id: String,
    /// Where it comes from.
    pub provider: String,
    /// The provider's name for it.
    pub instance: String,
    /// Its state.
    pub state: String,
    /// Why.
    pub reason: String,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds; 0: it never attached.
    pub ready_ms: u64,
    /// Unix milliseconds; 0: it is not confirmed gone.
    pub ended_ms: u64,
    /// What it said of itself: cores, memory, kernel.
    pub facts: Vec<Value>,
}

/// What it cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CostPart {
    /// Dollars an hour of its machine.
    pub usd_per_hour: f64,
    /// From the bind to the end of this attempt.
    pub attempt_usd: f64,
    /// The machine as a whole, so far.
    pub machine_usd: f64,
    /// The run as a whole, so far.
    pub run_usd: f64,
    /// The cap.
    pub max_usd: Option<f64>,
}

/// A checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointPart {
    /// Base name.
    pub name: String,
    /// The step it was saved at.
    pub step: Option<u64>,
    /// The generation that made it.
    pub generation: u64,
    /// Its size.
    pub bytes: u64,
    /// Unix milliseconds.
    pub committed_ms: u64,
    /// Its state.
    pub state: String,
}

/// The end of one metric.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricPart {
    /// Its name.
    pub name: String,
    /// Step and value, oldest first; what JSON has no number for is text.
    pub points: Vec<(Option<u64>, Value)>,
}

/// The ends of the streams.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Output {
    /// What it printed.
    pub stdout: Tail,
    /// Its error stream.
    pub stderr: Tail,
    /// The making of its environment.
    pub setup: Tail,
}

/// The bundle. Read by other versions too: unknown fields are ignored, absent
/// ones are empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capsule {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// Unix milliseconds of its making.
    pub made_ms: u64,
    /// Whether the attempt has ended; else this is what is known so far.
    pub is_final: bool,
    /// The verdict.
    pub verdict: Verdict,
    /// The run.
    #[serde(default)]
    pub run: RunPart,
    /// The attempt.
    #[serde(default)]
    pub attempt: AttemptPart,
    /// How the program ended.
    #[serde(default)]
    pub exit: ExitPart,
    /// Its machine.
    #[serde(default)]
    pub machine: Option<MachinePart>,
    /// What it cost.
    #[serde(default)]
    pub cost: CostPart,
    /// The ends of the streams.
    #[serde(default)]
    pub output: Output,
    /// The ends of the metrics, the main ones first.
    #[serde(default)]
    pub metrics: Vec<MetricPart>,
    /// The journal of attempt and machine.
    #[serde(default)]
    pub timeline: Vec<Moment>,
    /// Kernel messages.
    #[serde(default)]
    pub kernel: Vec<String>,
    /// Stacks and wait channels.
    #[serde(default)]
    pub stacks: Vec<Value>,
    /// Variables of the program, secrets masked.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Packages with versions.
    #[serde(default)]
    pub packages: Vec<String>,
    /// The GPUs as they were last seen.
    #[serde(default)]
    pub gpus: Vec<Value>,
    /// Disk, memory and load over time, thinned evenly.
    #[serde(default)]
    pub history: Vec<Value>,
    /// Alerts of the machine.
    #[serde(default)]
    pub alerts: Vec<Value>,
    /// Evidence of kinds that this version does not know.
    #[serde(default)]
    pub other: Vec<Value>,
    /// Checkpoints, newest last.
    #[serde(default)]
    pub checkpoints: Vec<CheckpointPart>,
    /// What the machine remarked.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What is not here, and why.
    #[serde(default)]
    pub missing: BTreeMap<String, String>,
    /// How many entries were left out of a part for its size.
    #[serde(default)]
    pub cut: BTreeMap<String, u64>,
}
