//! Reads what a capsule is made of, and keeps the capsule of an attempt that
//! ended beside its logs, readable without the program. Best effort: a capsule
//! that cannot be written costs nothing but itself, and nothing waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lifecycle::cause::{Cause, Confidence, Verdict};
use lifecycle::{AttemptId, AttemptState, RunId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Capsule, Inputs, Moment, StreamEnd, build};
use crate::core::{Core, CoreError};
use crate::model::{Attempt, Checkpoint, Machine, Position, Run, Versioned};
use crate::reconcile::chain;
use crate::runfiles::{FileError, RunFiles};
use crate::store::JournalRow;

/// Its name in the attempt's directory.
pub const FILE: &str = "capsule.json";
/// Attempts that wait for their capsule; more is a storm, and `outlast why`
/// builds them anyway.
const WAITING: usize = 256;
/// Attempts whose verdict is remembered.
const VERDICTS: usize = 4_096;
/// Bytes read of a stream's end: progress bars make much of little.
const READ: u64 = 256 << 10;
const POINTS: u64 = 512 << 10;
const EVIDENCE: u64 = 1 << 20;
/// Journal entries read for one capsule.
const PAGE: usize = 1_000;
const PAGES: usize = 50;
/// Machines that fall silent within this of each other do so together.
const TOGETHER_MS: u64 = 60_000;

/// Attempts that ended and whose capsule is not written yet.
#[derive(Debug, Default)]
pub struct Waiting {
    attempts: Mutex<BTreeSet<AttemptId>>,
    wake: Notify,
    dropped: AtomicU64,
    /// What capsules said, for lists; lost with the process on purpose.
    verdicts: Mutex<BTreeMap<AttemptId, (Cause, Confidence)>>,
}

impl Waiting {
    fn attempts(&self) -> MutexGuard<'_, BTreeSet<AttemptId>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt has become final, or more was heard of one that is.
    pub fn add(&self, attempt: AttemptId) {
        let mut attempts = self.attempts();
        if attempts.len() >= WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        attempts.insert(attempt);
        drop(attempts);
        self.wake.notify_one();
    }

    fn judged(&self, attempt: AttemptId, verdict: &Verdict) {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if verdicts.len() >= VERDICTS {
            verdicts.pop_first();
        }
        verdicts.insert(attempt, (verdict.cause, verdict.confidence));
    }

    /// The cause of an attempt that ended without success, in words. What no
    /// capsule said since this controller started is judged from the rows.
    #[must_use]
    pub fn cause_of(&self, run: &Run, attempt: &Attempt) -> Option<String> {
        if !attempt.status.is_final() {
            return None;
        }
        let known = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).get(&attempt.id).copied();
        let (cause, confidence) = known.unwrap_or_else(|| {
            let verdict = super::judge_rows(run, attempt);
            (verdict.cause, verdict.confidence)
        });
        match (cause, confidence) {
            (Cause::Finished | Cause::Running, _) => None,
            (cause, Confidence::Certain) => Some(cause.to_string()),
            (cause, confidence) => Some(format!("{cause} ({})", confidence.name())),
        }
    }

    fn next(&self) -> Option<AttemptId> {
        self.attempts().pop_first()
    }
}

/// Writes capsules until cancelled, one at a time.
pub async fn keep(core: Arc<Core>, stop: CancellationToken) {
    loop {
        while let Some(attempt) = core.capsules.next() {
            if let Err(error) = write(&core, attempt).await {
                tracing::warn!(attempt = %attempt, error = chain(&error), "a failure capsule could not be written");
            }
            if stop.is_cancelled() {
                return;
            }
        }
        let dropped = core.capsules.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "failure capsules were left out; `outlast why` builds them");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = core.capsules.wake.notified() => {}
        }
    }
}

async fn write(core: &Arc<Core>, id: AttemptId) -> Result<(), CoreError> {
    let attempt: Versioned<Attempt> = core.need(&id.to_string()).await?;
    let run: Versioned<Run> = core.need(&attempt.body.run.to_string()).await?;
    let (name, number) = (run.body.name.clone(), attempt.body.number);
    let (inputs, lengths) = rows(core, run.body, attempt.body).await?;
    let files = core.files.clone();
    let written = tokio::task::spawn_blocking(move || {
        let capsule = build(&read_files(&files, inputs, &lengths)?);
        let json = serde_json::to_string(&capsule).unwrap_or_default();
        files.write_whole(&name, number, FILE, json.as_bytes()).map(|()| capsule.verdict)
    });
    let verdict = written.await.map_err(|e| CoreError::Impossible(e.to_string()))??;
    core.capsules.judged(id, &verdict);
    // Lists and attached runs name the cause.
    core.changed.send_modify(|n| *n += 1);
    Ok(())
}

/// The capsule of an attempt as it is now.
///
/// # Errors
/// Where the store or a file fails.
pub async fn capsule(core: &Core, run: Run, attempt: Attempt) -> Result<Capsule, CoreError> {
    let (inputs, lengths) = rows(core, run, attempt).await?;
    let files = core.files.clone();
    let built = tokio::task::spawn_blocking(move || {
        read_files(&files, inputs, &lengths).map(|inputs| build(&inputs))
    });
    Ok(built.await.map_err(|e| CoreError::Impossible(e.to_string()))??)
}

/// How much of each file is durable.
struct Lengths {
    stdout: u64,
    stderr: u64,
    setup: u64,
    points: u64,
    evidence: u64,
}

/// Rows and journal, and how far the files may be read.
async fn rows(core: &Core, run: Run, attempt: Attempt) -> Result<(Inputs, Lengths), CoreError> {
    let now_ms = core.clock.wall_ms();
    let machines: Vec<Versioned<Machine>> = core.of_run(run.id).await?;
    let attempts: Vec<Versioned<Attempt>> = core.of_run(run.id).await?;
    let checkpoints: Vec<Versioned<Checkpoint>> = core.of_run(run.id).await?;
    let positions: Vec<Versioned<Position>> = core.of_run(run.id).await?;
    let row = |stream: &str| {
        positions.iter().map(|p| &p.body).find(|p| p.attempt == attempt.id && p.stream == stream)
    };
    let length = |stream: &str| row(stream).map_or(0, |p| p.file_len);
    let end = |stream: &str| {
        row(stream).map_or_else(StreamEnd::default, |p| StreamEnd {
            total: p.next,
            missing: p.gaps.iter().map(|(from, to)| to.saturating_sub(*from)).sum(),
            ..StreamEnd::default()
        })
    };
    let lengths = Lengths {
        stdout: length("stdout"),
        stderr: length("stderr"),
        setup: length("setup"),
        points: length("metrics"),
        evidence: length("evidence"),
    };
    let (stdout, stderr, setup) = (end("stdout"), end("stderr"), end("setup"));
    let machine = machines.iter().find(|m| m.body.id == attempt.machine).map(|m| m.body.clone());
    let provider = machine.as_ref().map(|m| m.provider.clone());
    let same = |a: &Attempt| {
        machines.iter().any(|m| m.body.id == a.machine && Some(&m.body.provider) == provider.as_ref())
    };
    let later = attempts
        .iter()
        .map(|a| &a.body)
        .filter(|a| a.number > attempt.number && a.machine != attempt.machine);
    let replacement_works = later.clone().any(|a| a.program_started && same(a));
    let before = attempts.iter().filter(|a| a.body.number < attempt.number);
    let reached_before = before.filter_map(|a| a.body.last_step).max();
    let (journal, silent) = journal(core, run.id, &attempt).await?;
    let others_silent = match (&attempt.status, silent) {
        (AttemptState::Lost { .. } | AttemptState::Superseded, Some((seq, at_ms))) => {
            others_silent(core, &attempt, seq, at_ms).await?
        }
        _ => 0,
    };
    let inputs = Inputs {
        now_ms,
        stdout,
        stderr,
        setup,
        points: Vec::new(),
        evidence: Vec::new(),
        run_cost_usd: machines.iter().map(|m| m.body.cost_usd(now_ms)).sum(),
        checkpoints: checkpoints.into_iter().map(|c| c.body).collect(),
        mask: crate::secrets::masker(core, &run).await,
        run,
        attempt,
        machine,
        journal,
        reached_before,
        replacement_works,
        others_silent,
    };
    Ok((inputs, lengths))
}

/// What the journal says of the attempt, its machine and its run; and where it
/// says that the machine fell silent.
async fn journal(
    core: &Core,
    run: RunId,
    attempt: &Attempt,
) -> Result<(Vec<Moment>, Option<(u64, u64)>), CoreError> {
    let (id, machine, run) = (attempt.id.to_string(), attempt.machine.to_string(), run.to_string());
    let (mut after, mut silent) = (0, None);
    let mut moments = Vec::new();
    for _ in 0..PAGES {
        let page = core.store.journal(after, PAGE, Some(&run)).await?;
        let more = page.len() == PAGE;
        after = page.last().map_or(after, |row| row.seq);
        for row in page.into_iter().filter(|row| [&id, &machine, &run].contains(&&row.object)) {
            if row.object == machine && matches!(row.verb.as_str(), "suspect" | "given-up" | "lost") {
                silent = Some((row.seq, row.at_ms));
            }
            moments.push(moment(row));
        }
        if !more {
            break;
        }
    }
    Ok((moments, silent))
}

fn moment(row: JournalRow) -> Moment {
    Moment { at_ms: row.at_ms, actor: row.actor, verb: row.verb, object: row.object, detail: row.detail }
}

/// How many other machines fell silent at about the same time.
async fn others_silent(core: &Core, attempt: &Attempt, seq: u64, at_ms: u64) -> Result<u32, CoreError> {
    let around = core.store.journal(seq.saturating_sub(PAGE as u64 / 2), PAGE, None).await?;
    let own = attempt.machine.to_string();
    let others: BTreeSet<String> = around
        .into_iter()
        .filter(|row| matches!(row.verb.as_str(), "suspect" | "given-up") && row.object != own)
        .filter(|row| row.at_ms.abs_diff(at_ms) <= TOGETHER_MS)
        .map(|row| row.object)
        .collect();
    Ok(u32::try_from(others.len()).unwrap_or(u32::MAX))
}

fn read_files(files: &RunFiles, mut inputs: Inputs, lengths: &Lengths) -> Result<Inputs, FileError> {
    let (run, number) = (inputs.run.name.clone(), inputs.attempt.number);
    let read = |file: &str, len: u64, most: u64| {
        let from = len.saturating_sub(most);
        let bytes = usize::try_from(len - from).unwrap_or(0);
        files.read(&run, number, file, from, bytes).map(|bytes| (from, bytes))
    };
    (inputs.stdout.from, inputs.stdout.bytes) = read("stdout.log", lengths.stdout, READ)?;
    (inputs.stderr.from, inputs.stderr.bytes) = read("stderr.log", lengths.stderr, READ)?;
    (inputs.setup.from, inputs.setup.bytes) = read("setup.log", lengths.setup, READ)?;
    inputs.points = read("points.jsonl", lengths.points, POINTS)?.1;
    inputs.evidence = read("evidence.jsonl", lengths.evidence, EVIDENCE)?.1;
    Ok(inputs)
}
