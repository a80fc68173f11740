//! The rows: what is kept of runs, attempts, machines and checkpoints. Each is
//! a JSON body under compare-and-set on its version. Only positions, states
//! and summaries are rows; log bytes and metric points are files.

use std::collections::BTreeMap;

use lifecycle::retry::Ending;
use lifecycle::{AttemptId, AttemptState, Exit, Generation, MachineId, MachineState, RunId};
use lifecycle::{RunSpec, RunState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::{Expect, Kind, PutRow, Row};

mod comeback;
mod cost;
mod fork;
mod host;
mod manifest;
pub mod notice;
mod steer;

pub use comeback::ReturnAsked;
pub use fork::Fork;
pub use host::{Conduct, Host, Of};
pub use manifest::{Checkpoint, ManifestRef};
pub use notice::Notice;
pub use steer::{Avoid, Steer};

/// A body that does not parse: another program wrote it, or a bug.
#[derive(Debug, thiserror::Error)]
#[error("{kind:?} row `{id}` cannot be read")]
pub struct RowError {
    /// Which table.
    pub kind: Kind,
    /// Which row.
    pub id: String,
    /// What the parser said.
    #[source]
    pub source: serde_json::Error,
}

/// A typed row with the version it was read at.
#[derive(Debug, Clone)]
pub struct Versioned<T> {
    /// The version to expect when writing it back; `None` is a new row.
    pub version: Option<u64>,
    /// The content.
    pub body: T,
}

/// What has a row of its own.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Which table it is in.
    const KIND: Kind;
    /// Its key there.
    fn key(&self) -> String;
    /// The run it belongs to, for scoped listings.
    fn run(&self) -> Option<RunId>;
}

impl<T: Record> Versioned<T> {
    /// A row that does not exist yet.
    pub fn new(body: T) -> Self {
        Self { version: None, body }
    }

    /// Reads a stored row.
    ///
    /// # Errors
    /// Where its body does not parse.
    pub fn read(row: &Row) -> Result<Self, RowError> {
        serde_json::from_str(&row.body)
            .map(|body| Self { version: Some(row.version), body })
            .map_err(|source| RowError { kind: row.kind, id: row.id.clone(), source })
    }

    /// The expectation and the new content, for a changeset.
    ///
    /// # Panics
    /// Never: every record's fields have a JSON form.
    pub fn write(&self) -> (Expect, PutRow) {
        let id = self.body.key();
        let body = serde_json::to_string(&self.body).unwrap_or_default();
        let run = self.body.run().map(|r| r.to_string());
        (
            Expect { kind: T::KIND, id: id.clone(), version: self.version },
            PutRow { kind: T::KIND, id, run, body },
        )
    }
}

/// Rights and keys belong to a machine, not to a run.
fn no_run(_: &MachineId) -> Option<RunId> {
    None
}

macro_rules! record {
    ($type:ty, $kind:ident, $row:ident => $key:expr, $run:expr) => {
        impl Record for $type {
            const KIND: Kind = Kind::$kind;
            fn key(&self) -> String {
                let $row = self;
                $key.to_string()
            }
            fn run(&self) -> Option<RunId> {
                let $row = self;
                $run
            }
        }
    };
}

/// What the owner wants of a run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Carry it to its end.
    Run,
    /// Let the program end itself, publish, end the run.
    Stop,
    /// End it now.
    Kill,
}

/// Who asked for a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// A person.
    Person,
    /// The cap.
    Budget,
    /// A rule of its `[early_stop]`.
    Rule,
}

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its name, unique in the hub.
    pub name: String,
    /// What it is asked to be.
    pub spec: RunSpec,
    /// Where it stands.
    pub status: RunState,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds; 0 until final.
    #[serde(default)]
    pub ended_ms: u64,
    /// The generation of the bound attempt: the current one.
    pub generation: Generation,
    /// The attempt whose work counts.
    pub bound: Option<AttemptId>,
    /// Attempts made so far.
    pub attempts: u32,
    /// The packed source tree.
    pub source: ManifestRef,
    /// The newest durable checkpoint.
    pub head: Option<ManifestRef>,
    /// The newest published result files.
    pub outputs: Option<ManifestRef>,
    /// Newest step of which a complete checkpoint was seen on a machine.
    pub produced_step: Option<u64>,
    /// How earlier attempts ended, oldest first; at most 100 are kept.
    pub endings: Vec<Ending>,
    /// What the owner wants.
    pub wish: Wish,
    /// Seconds of grace asked for with the stop; 0 is the run's own.
    #[serde(default)]
    pub stop_grace: u64,
    /// Who asked.
    #[serde(default)]
    pub stop_reason: Option<StopReason>,
    /// The rule that asked, and why it held; empty where none did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stopped_by: String,
    /// Unix milliseconds of the creates in the last hour.
    #[serde(default)]
    pub creates_ms: Vec<u64>,
    /// Machines that providers refused in a row.
    #[serde(default)]
    pub rejections: u32,
    /// Unix milliseconds before which no provider is asked again.
    #[serde(default)]
    pub retry_at_ms: u64,
    /// What was learned about its next machine.
    #[serde(default, skip_serializing_if = "Steer::is_empty")]
    pub steer: Steer,
    /// The submission's token.
    pub token: String,
    /// The program's last exit.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// Checkpoints of this run may be resumed from too.
    #[serde(default)]
    pub parent: Option<RunId>,
    /// It was forked from the parent, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<Fork>,
    /// Bytes of the newest durable checkpoint.
    #[serde(default)]
    pub head_bytes: u64,
    /// The highest share of a cap, in percent, of which people were told.
    #[serde(default)]
    pub told_percent: u8,
    /// Names the work that it does: equal for runs that do the same. Empty for
    /// those that go on from a checkpoint of another, and in older rows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub work: String,
    /// The commits at which all its attempts take repositories of `[data]`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pins: BTreeMap<String, String>,
}
record!(Run, Run, run => run.id, Some(run.id));

/// An attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// Its run.
    pub run: RunId,
    /// 1 for the first of its run.
    pub number: u32,
    /// Its fencing number.
    pub generation: Generation,
    /// Where it runs.
    pub machine: MachineId,
    /// Where it stands.
    pub status: AttemptState,
    /// Unix milliseconds of the bind.
    pub bound_ms: u64,
    /// Unix milliseconds of the program's start; 0 before.
    #[serde(default)]
    pub started_ms: u64,
    /// Unix milliseconds; 0 until final.
    #[serde(default)]
    pub ended_ms: u64,
    /// Its program's end as it was first told, before what it left is
    /// published. Where its machine is lost after that, it is the program's
    /// failure that counts, not the loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exited: Option<Exited>,
    /// What it may resume from, newest first.
    pub resume: Vec<ManifestRef>,
    /// What it did resume from.
    #[serde(default)]
    pub restored: Option<ManifestRef>,
    /// How long restoring took.
    #[serde(default)]
    pub restore_ms: u64,
    /// From assignment to start.
    #[serde(default)]
    pub prepare_ms: u64,
    /// Whether the environment was there already.
    #[serde(default)]
    pub environment_cached: bool,
    /// First step its program reported, and when that was heard.
    #[serde(default)]
    pub first_step: Option<u64>,
    /// Unix milliseconds.
    #[serde(default)]
    pub first_step_ms: u64,
    /// Last step its program reported.
    #[serde(default)]
    pub last_step: Option<u64>,
    /// Last line of its error stream.
    #[serde(default)]
    pub last_error_line: String,
    /// Evidence that memory ran out.
    #[serde(default)]
    pub out_of_memory: String,
    /// Whether the program itself had been started when it ended.
    #[serde(default)]
    pub program_started: bool,
    /// The machine holds its failure for passing.
    #[serde(default)]
    pub transient: bool,
    /// What it left that is not in the store, in words; empty is nothing.
    #[serde(default)]
    pub unpublished: String,
    /// Why the agent itself ended it: no progress; empty: it did not.
    #[serde(default)]
    pub hang: String,
    /// Its agent ended it: no controller spoke, and the machine's allowance was
    /// over.
    #[serde(default)]
    pub alone: bool,
    /// Why the next try belongs on another machine; empty: it need not.
    #[serde(default)]
    pub leave_machine: String,
    /// Which process the out-of-memory killer took: number and command.
    #[serde(default)]
    pub oom_process: Option<(i32, String)>,
    /// What the machine said; at most 50 lines.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Recent (unix ms, step), for the rate; at most 32.
    #[serde(default)]
    pub pace: Vec<(u64, u64)>,
}
record!(Attempt, Attempt, attempt => attempt.id, Some(attempt.run));

impl Attempt {
    /// The end of its program that was heard of, whatever became of the
    /// attempt.
    #[must_use]
    pub fn heard_exit(&self) -> Option<&Exit> {
        match &self.status {
            AttemptState::Ended { exit } => Some(exit),
            _ => self.exited.as_ref().map(|exited| &exited.exit),
        }
    }

    /// That end, where it was a failure that somebody saw.
    #[must_use]
    pub fn heard_failure(&self) -> Option<&Exit> {
        let seen =
            |exit: &&Exit| matches!(exit, Exit::Code { .. } | Exit::Signal { .. }) && !exit.is_success();
        self.heard_exit().filter(seen)
    }
}

/// A program's end that was heard of before the end of its attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// How it ended.
    pub exit: Exit,
    /// When the controller heard of it, unix milliseconds.
    pub heard_ms: u64,
    /// Evidence that memory ran out; empty is none so far.
    #[serde(default)]
    pub out_of_memory: String,
}

/// A machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Its id.
    pub id: MachineId,
    /// Where it comes from.
    pub provider: String,
    /// What is written on it at the provider.
    pub label: String,
    /// The run that it was rented for.
    pub run: RunId,
    /// Where it stands.
    pub status: MachineState,
    /// The provider's own name for it.
    pub instance: Option<String>,
    /// Unix milliseconds of the intent.
    pub created_ms: u64,
    /// Unix milliseconds of the create call: money flows from here.
    #[serde(default)]
    pub called_ms: u64,
    /// Unix milliseconds of the first attach.
    #[serde(default)]
    pub ready_ms: u64,
    /// Unix milliseconds of the confirmed absence.
    #[serde(default)]
    pub ended_ms: u64,
    /// Price of an hour while it runs, its disk included.
    pub usd_per_hour: f64,
    /// What it has cost, as far as it was seen.
    #[serde(default)]
    pub meter: lifecycle::meter::Meter,
    /// Why it is where it is, in words.
    #[serde(default)]
    pub reason: String,
    /// A person wants it gone.
    #[serde(default)]
    pub condemned: bool,
    /// Silent for longer than `lost_after`; a replacement is wanted, and
    /// whoever is ready first is bound.
    #[serde(default)]
    pub given_up: bool,
    /// Its provider said that it takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Notice>,
    /// It stopped and was asked to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_asked: Option<ReturnAsked>,
    /// Its host, and how that behaved.
    #[serde(default, skip_serializing_if = "Conduct::is_empty")]
    pub conduct: Conduct,
}
record!(Machine, Machine, machine => machine.id, Some(machine.run));

record!(Checkpoint, Checkpoint, c => c.manifest.key, Some(c.run));

/// What is on its way out of the artifact store; one row.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Leaving {
    /// Which objects.
    #[serde(default)]
    pub sweep: lifecycle::sweep::Sweep,
    /// The restore of the database under which they were looked at.
    #[serde(default)]
    pub restore_count: u32,
}
record!(Leaving, Meta, _leaving => "leaving", None);

/// When checkpoints were last verified without being asked; one row.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verification {
    /// Unix milliseconds of the beginning.
    #[serde(default)]
    pub last_ms: u64,
}
record!(Verification, Meta, _verification => "verification", None);

/// How far a stream of an attempt is durable here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Position {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its run.
    pub run: RunId,
    /// The stream's name.
    pub stream: String,
    /// Everything below is durable.
    pub next: u64,
    /// Bytes in the stream's file that belong to what is below `next`.
    pub file_len: u64,
    /// What is missing below `next`: [from, to) each, rising; the last of
    /// very many grows to cover those after it.
    #[serde(default)]
    pub gaps: Vec<(u64, u64)>,
}
record!(Position, Stream, p => format!("{}/{}", p.attempt, p.stream), Some(p.run));

/// A machine's right to join, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinRight {
    /// The machine.
    pub machine: MachineId,
    /// SHA-256 of the secret, hex. The secret itself is kept nowhere.
    pub secret_sha256: String,
    /// Unix milliseconds.
    pub expires_ms: u64,
    /// The key that used it.
    pub used_by: Option<String>,
    /// When it was used, unix milliseconds.
    #[serde(default)]
    pub used_ms: u64,
}
record!(JoinRight, Join, j => j.machine, no_run(&j.machine));

/// The key that a machine is bound to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BoundKey {
    /// The machine.
    pub machine: MachineId,
    /// SHA-256 of the public key info, hex.
    pub thumbprint: String,
    /// The public key info, DER, hex.
    pub spki: String,
    /// Highest incarnation heard.
    pub incarnation: u64,
    /// The boot it was last heard from.
    pub boot_id: String,
}
record!(BoundKey, Identity, k => k.machine, no_run(&k.machine));

/// Running statistics of an attempt's metrics.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Metrics {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its run.
    pub run: RunId,
    /// By name; bounded by the crate that counts.
    pub metrics: curves::RunMetrics,
}
record!(Metrics, Series, m => m.attempt, Some(m.run));

/// Facts of the installation, by name.
pub type Meta = BTreeMap<String, String>;
