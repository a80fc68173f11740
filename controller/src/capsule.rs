//! The failure capsule: one bundle per attempt that says how it ended, why that
//! is believed, and everything that helps to understand it, in less than a
//! mebibyte. [`build`] is pure and total: whatever a machine sent, a bounded
//! capsule comes out, without the secrets it can recognise. What is missing
//! says why.

use std::collections::BTreeMap;

use lifecycle::Exit;
use lifecycle::attempt::repeated_steps;
use lifecycle::cause::{self, Verdict};
use lifecycle::mask::Masker;

use crate::model::{Attempt, Checkpoint, Machine, Run};

pub mod bounds;
pub mod evidence;
mod facts;
pub mod gather;
mod parts;
mod points;
pub mod text;
pub mod told;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod tests;

pub use parts::{
    AttemptPart, Capsule, CheckpointPart, CostPart, ExitPart, MachinePart, MetricPart, Moment, Output,
    RunPart,
};

use bounds::Budget;
use evidence::Collected;
use text::{Tail, clean, clip};

/// The form of capsules that this program writes.
pub const SCHEMA: u32 = 1;
/// A capsule is smaller than this, as JSON.
pub const LIMIT: usize = 1 << 20;
/// Journal entries kept: the first few and the newest.
pub const TIMELINE: usize = 200;
const FIRST_ENTRIES: usize = 20;
const CHECKPOINTS: usize = 100;
const NOTES: usize = 50;

/// Bytes of one stream's end as they were read.
#[derive(Debug, Clone, Default)]
pub struct StreamEnd {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where in the stream they begin.
    pub from: u64,
    /// Bytes that the stream has in all.
    pub total: u64,
    /// Bytes that are known to be missing.
    pub missing: u64,
}

/// Everything that a capsule is made of.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// The run.
    pub run: Run,
    /// Knows what the run was given to hide.
    pub mask: Masker,
    /// The attempt that it is about.
    pub attempt: Attempt,
    /// The attempt's machine.
    pub machine: Option<Machine>,
    /// Dollars that the whole run has cost so far.
    pub run_cost_usd: f64,
    /// The run's journal, oldest first, as far as it was read.
    pub journal: Vec<Moment>,
    /// Durable checkpoints of the run.
    pub checkpoints: Vec<Checkpoint>,
    /// Output.
    pub stdout: StreamEnd,
    /// Error stream.
    pub stderr: StreamEnd,
    /// Output of the set-up.
    pub setup: StreamEnd,
    /// The end of `points.jsonl`.
    pub points: Vec<u8>,
    /// All of `evidence.jsonl`.
    pub evidence: Vec<u8>,
    /// The highest step of the attempts before this one.
    pub reached_before: Option<u64>,
    /// A later attempt's program ran on another machine of this provider.
    pub replacement_works: bool,
    /// Other machines that fell silent within the same minute.
    pub others_silent: u32,
}

/// Makes the capsule.
#[must_use]
pub fn build(inputs: &Inputs) -> Capsule {
    let (run, own) = (inputs.run.id.to_string(), inputs.attempt.id.to_string());
    let mask = inputs.mask.clone().knowing([run, own, inputs.attempt.machine.to_string()]);
    let mut budget = Budget::default();
    let collected = Collected::read(&inputs.evidence, &mask, &mut budget);
    let stderr = tail(&inputs.stderr, &mask);
    let stdout = tail(&inputs.stdout, &mask);
    let setup = tail(&inputs.setup, &mask);
    let output = Output { stdout, stderr, setup };
    let attempt = &inputs.attempt;
    let verdict = cause::judge(&facts::of(inputs, &output, &collected));
    let mut capsule = Capsule {
        schema: SCHEMA,
        made_ms: inputs.now_ms,
        is_final: attempt.status.is_final() || inputs.run.status.is_final(),
        verdict: Verdict {
            because: verdict.because.iter().map(|text| mask.text(text)).collect(),
            next: verdict.next,
            ..verdict
        },
        run: run_part(&inputs.run, &mask),
        attempt: attempt_part(inputs),
        exit: exit_part(attempt, &mask),
        machine: inputs.machine.as_ref().map(|m| machine_part(m, &mask)),
        cost: cost_part(inputs),
        metrics: points::ends(&inputs.points, &mut budget),
        timeline: timeline(inputs, &mask, &mut budget),
        checkpoints: checkpoints(inputs, &mut budget),
        notes: budget.newest(
            "notes",
            attempt.notes.iter().map(|n| clip(&mask.text(n), 500)).collect(),
            NOTES,
            32 << 10,
        ),
        output,
        kernel: Vec::new(),
        stacks: Vec::new(),
        environment: BTreeMap::new(),
        packages: Vec::new(),
        gpus: Vec::new(),
        history: Vec::new(),
        alerts: Vec::new(),
        other: Vec::new(),
        missing: BTreeMap::new(),
        cut: BTreeMap::new(),
    };
    collected.fill(&mut capsule);
    capsule.missing = missing(inputs, &capsule);
    capsule.cut = budget.cut;
    bounds::enforce(&mut capsule);
    capsule
}

/// The verdict that an attempt's row alone allows, for lists.
#[must_use]
pub fn judge_rows(run: &Run, attempt: &Attempt) -> Verdict {
    let inputs = Inputs {
        now_ms: 0,
        run: run.clone(),
        mask: Masker::default(),
        attempt: attempt.clone(),
        machine: None,
        run_cost_usd: 0.0,
        journal: Vec::new(),
        checkpoints: Vec::new(),
        stdout: StreamEnd::default(),
        stderr: StreamEnd::default(),
        setup: StreamEnd::default(),
        points: Vec::new(),
        evidence: Vec::new(),
        reached_before: None,
        replacement_works: false,
        others_silent: 0,
    };
    cause::judge(&facts::of(&inputs, &Output::default(), &Collected::default()))
}

fn tail(end: &StreamEnd, mask: &Masker) -> Tail {
    let text = mask.text(&clean(&end.bytes));
    // A piece that begins within a line may begin within a secret.
    let text = match (end.from > 0).then(|| text.split_once('\n')).flatten() {
        Some((_, rest)) => rest,
        None if end.from > 0 => "",
        None => &text,
    };
    Tail::new(text, end.total, end.missing, end.from > 0)
}

fn run_part(run: &Run, mask: &Masker) -> RunPart {
    let reason = match &run.status {
        lifecycle::RunState::Failed { reason } => reason.as_str(),
        lifecycle::RunState::Waiting { question, .. } => question.text.as_str(),
        _ => "",
    };
    RunPart {
        id: run.id.to_string(),
        name: clip(&run.name, 200),
        project: clip(&run.spec.project, 200),
        state: run.status.name().to_owned(),
        reason: clip(&mask.text(reason), 1_000),
        command: mask.command(&run.spec.command).iter().take(60).map(|a| clip(a, 200)).collect(),
        attempts: run.attempts,
        created_ms: run.created_ms,
        ended_ms: run.ended_ms,
    }
}

fn attempt_part(inputs: &Inputs) -> AttemptPart {
    let a = &inputs.attempt;
    let own = |c: &&Checkpoint| !c.stray && c.generation <= a.generation;
    let durable_step = inputs.checkpoints.iter().filter(own).filter_map(|c| c.manifest.step).max();
    let resumed = a.restored.as_ref().and_then(|r| r.step);
    let again = |reached: u64| repeated_steps(reached, resumed, a.last_step);
    AttemptPart {
        id: a.id.to_string(),
        number: a.number,
        generation: a.generation.as_u64(),
        state: a.status.name().to_owned(),
        ending: clip(&ending(a), 400),
        bound_ms: a.bound_ms,
        started_ms: a.started_ms,
        ended_ms: a.ended_ms,
        prepare_ms: a.prepare_ms,
        restore_ms: a.restore_ms,
        environment_cached: a.environment_cached,
        resumed_step: resumed,
        first_step: a.first_step,
        last_step: a.last_step,
        durable_step,
        repeated_steps: inputs.reached_before.filter(|_| a.first_step.is_some()).map(again),
        unsaved_steps: a.last_step.map(|last| last.saturating_sub(durable_step.unwrap_or(0))),
    }
}

/// How an attempt ended, in words; empty: it has not.
#[must_use]
pub fn ending(attempt: &Attempt) -> String {
    match &attempt.status {
        lifecycle::AttemptState::Ended { exit } => exit.to_string(),
        lifecycle::AttemptState::Lost { cause } => cause.to_string(),
        lifecycle::AttemptState::Superseded => "superseded".to_owned(),
        _ => String::new(),
    }
}

fn exit_part(a: &Attempt, mask: &Masker) -> ExitPart {
    let text = |text: &str| clip(&mask.text(text), 1_000);
    let exit = a.heard_exit().map(|exit| match exit {
        Exit::NotStarted { reason } => Exit::NotStarted { reason: text(reason) },
        Exit::Unknown { reason } => Exit::Unknown { reason: text(reason) },
        exit => exit.clone(),
    });
    ExitPart {
        exit,
        last_error_line: text(&clean(a.last_error_line.as_bytes())),
        out_of_memory: text(&a.out_of_memory),
        oom_process: a.oom_process.as_ref().map(|(pid, command)| (*pid, text(command))),
        hang: text(&a.hang),
        leave_machine: text(&a.leave_machine),
        transient: a.transient,
        unpublished: text(&a.unpublished),
        recorded: Vec::new(),
        ranks: Vec::new(),
    }
}

fn machine_part(m: &Machine, mask: &Masker) -> MachinePart {
    MachinePart {
        id: m.id.to_string(),
        provider: clip(&m.provider, 100),
        instance: clip(m.instance.as_deref().unwrap_or_default(), 200),
        state: m.status.name().to_owned(),
        reason: clip(&mask.text(&m.reason), 400),
        created_ms: m.created_ms,
        ready_ms: m.ready_ms,
        ended_ms: m.ended_ms,
        facts: Vec::new(),
    }
}

fn cost_part(inputs: &Inputs) -> CostPart {
    let (a, price) = (&inputs.attempt, inputs.machine.as_ref().map_or(0.0, |m| m.usd_per_hour));
    let until = if a.ended_ms > 0 { a.ended_ms } else { inputs.now_ms };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of years fit")]
    let hours = until.saturating_sub(a.bound_ms) as f64 / 3_600_000.0;
    CostPart {
        usd_per_hour: price,
        attempt_usd: hours * price,
        machine_usd: inputs.machine.as_ref().map_or(0.0, |m| m.cost_usd(inputs.now_ms)),
        run_usd: inputs.run_cost_usd,
        max_usd: inputs.run.spec.max_usd,
    }
}

/// What happened to the attempt, its machine and, meanwhile, its run.
fn timeline(inputs: &Inputs, mask: &Masker, budget: &mut Budget) -> Vec<Moment> {
    let (attempt, run) = (inputs.attempt.id.to_string(), inputs.run.id.to_string());
    let machine = inputs.attempt.machine.to_string();
    let until = if inputs.attempt.ended_ms > 0 { inputs.attempt.ended_ms + 60_000 } else { u64::MAX };
    let within = |m: &Moment| m.object == run && (inputs.attempt.bound_ms..=until).contains(&m.at_ms);
    let own = inputs.journal.iter().filter(|m| m.object == attempt || m.object == machine || within(m));
    let mut entries: Vec<Moment> = own
        .map(|m| {
            let mut detail = m.detail.clone();
            mask.json(&mut detail);
            Moment {
                actor: clip(&m.actor, 120),
                verb: clip(&m.verb, 60),
                object: clip(&m.object, 120),
                detail: bounds::clip_value(detail, 2_000),
                at_ms: m.at_ms,
            }
        })
        .collect();
    let first: Vec<Moment> = entries.drain(..entries.len().min(FIRST_ENTRIES)).collect();
    let mut kept = budget.newest("timeline", first, FIRST_ENTRIES, 24 << 10);
    kept.extend(budget.newest("timeline", entries, TIMELINE - FIRST_ENTRIES, 72 << 10));
    kept
}

fn checkpoints(inputs: &Inputs, budget: &mut Budget) -> Vec<CheckpointPart> {
    let mut rows: Vec<&Checkpoint> = inputs.checkpoints.iter().collect();
    rows.sort_by_key(|c| (c.committed_ms, c.manifest.step));
    let parts = rows
        .into_iter()
        .map(|c| CheckpointPart {
            name: clip(&c.name, 200),
            step: c.manifest.step,
            generation: c.generation.as_u64(),
            bytes: c.bytes,
            committed_ms: c.committed_ms,
            state: if c.stray { "STRAY".to_owned() } else { c.status.name().to_owned() },
        })
        .collect();
    budget.newest("checkpoints", parts, CHECKPOINTS, 40 << 10)
}

/// What is not there, and why.
fn missing(inputs: &Inputs, capsule: &Capsule) -> BTreeMap<String, String> {
    let a = &inputs.attempt;
    let over = a.status.is_final();
    let why = match (&a.status, a.program_started) {
        (lifecycle::AttemptState::Lost { .. } | lifecycle::AttemptState::Superseded, _) => {
            "the machine was lost before it could tell"
        }
        (_, false) if over => "the program was never started",
        _ if !over => "nothing was told so far",
        _ => "the machine told nothing of it",
    };
    let mut missing = BTreeMap::new();
    let mut note = |part: &str, is_absent: bool, why: &str| {
        if is_absent {
            missing.insert(part.to_owned(), why.to_owned());
        }
    };
    let silent = if a.program_started && over && capsule.exit.exit.is_some() {
        "the program wrote nothing to it"
    } else {
        why
    };
    note("stdout", capsule.output.stdout.text.is_empty(), silent);
    note("stderr", capsule.output.stderr.text.is_empty(), silent);
    let cached = if a.environment_cached {
        "the environment was there already"
    } else {
        "nothing was printed while it was made"
    };
    note("setup", capsule.output.setup.text.is_empty(), if a.program_started { cached } else { why });
    note("exit", capsule.exit.exit.is_none(), why);
    note(
        "metrics",
        capsule.metrics.is_empty(),
        if a.program_started { "no metrics were found in its output" } else { why },
    );
    note(
        "kernel",
        capsule.kernel.is_empty(),
        if capsule.exit.exit.is_some() {
            "the kernel said nothing about it, or may not be read there"
        } else {
            why
        },
    );
    note("stacks", capsule.stacks.is_empty(), "stacks are taken when a program makes no progress");
    note("environment", capsule.environment.is_empty(), why);
    note("packages", capsule.packages.is_empty(), why);
    note("gpus", capsule.gpus.is_empty(), if capsule.history.is_empty() { why } else { "no GPU was seen" });
    note("history", capsule.history.is_empty(), why);
    note("checkpoints", capsule.checkpoints.is_empty(), "none was durable");
    missing
}
