//! Reads durable checkpoints and says whether they are what their manifests
//! say: when a person asks, and by itself once a day, slowly and a part of
//! each. A bad one is condemned with the reason, and the next newest good one
//! counts. A store that cannot be asked, or that suddenly knows nothing of a
//! run, says nothing about a checkpoint: it is never a reason to condemn.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artifacts::ObjectKey;
use artifacts::restore::RestoreError;
use lifecycle::{CheckpointState, RunId};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::core::{Changes, Core, CoreError};
use crate::durable;
use crate::execute::SELF;
use crate::model::{Checkpoint, Run, Verification, Versioned};

mod look;

#[cfg(test)]
mod tests;

use look::{Chosen, Look, Pace};

/// After the start the controller has more urgent things to do.
const FIRST: Duration = Duration::from_secs(1_800);
const LOOK: Duration = Duration::from_secs(600);
const EVERY_MS: u64 = 86_400_000;
/// What is read of each checkpoint without being asked, in percent.
const SAMPLE: u32 = 5;
/// Bytes read in one day without being asked.
const MOST_A_DAY: u64 = 16 << 30;
/// Verifications that wait at the same time.
const WAITING: usize = 8;
/// Verifications that ended and can still be asked about.
const ENDED: usize = 32;
/// Rows of one verification that are told; all bad ones come first.
const ROWS: usize = 10_000;

/// What is to be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Manifests' keys with the names of their runs.
    pub what: Vec<String>,
    /// How much of each, 1 to 100 percent.
    pub percent: u32,
    /// Those too that are condemned: they count again if all of them is right.
    pub condemned: bool,
    /// Nobody waits: slowly, and not more than a day's share.
    pub slowly: bool,
    /// Who asked.
    pub actor: String,
}

/// Where a verification stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// Others come first.
    #[default]
    Waiting,
    /// It is read.
    Running,
    /// All was looked at.
    Done,
    /// It could not be done.
    Failed,
}

/// What was found out about one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// What was read is right.
    Good,
    /// It is condemned, for this reason.
    Bad(String),
    /// It could not be found out.
    Unknown(String),
}

/// One checkpoint that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its row's key.
    pub key: String,
    /// Its run.
    pub run: RunId,
    /// Its step.
    pub step: Option<u64>,
    /// Its size.
    pub bytes: u64,
    /// What was found.
    pub verdict: Verdict,
}

/// How a verification goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Where it stands.
    pub stage: Stage,
    /// Checkpoints to look at.
    pub checkpoints: u64,
    /// Bytes of files to read, as far as is known.
    pub bytes: u64,
    /// Bytes read, or known to be right already.
    pub bytes_done: u64,
    /// What was looked at.
    pub found: Vec<Found>,
    /// Why it failed.
    pub problem: String,
}

#[derive(Debug)]
struct Job {
    ask: Ask,
    progress: Progress,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    jobs: BTreeMap<u64, Job>,
}

/// Where verifications are handed in and asked about. Lost with the process:
/// verdicts are in the rows.
#[derive(Debug, Default)]
pub struct Desk {
    state: Mutex<State>,
    wake: Notify,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands one in; `None`: too many wait already.
    pub fn ask(&self, ask: Ask) -> Option<u64> {
        let mut state = self.state();
        if state.jobs.values().filter(|job| job.progress.stage == Stage::Waiting).count() >= WAITING {
            return None;
        }
        let over = |job: &Job| matches!(job.progress.stage, Stage::Done | Stage::Failed);
        while state.jobs.values().filter(|job| over(job)).count() >= ENDED {
            let oldest = state.jobs.iter().find(|(_, job)| over(job)).map(|(id, _)| *id);
            oldest.and_then(|id| state.jobs.remove(&id));
        }
        state.last += 1;
        let id = state.last;
        let progress = Progress { checkpoints: ask.what.len() as u64, ..Progress::default() };
        state.jobs.insert(id, Job { ask, progress });
        self.wake.notify_one();
        Some(id)
    }

    /// How it stands; `None`: nobody knows of it any more.
    #[must_use]
    pub fn progress(&self, id: u64) -> Option<Progress> {
        self.state().jobs.get(&id).map(|job| job.progress.clone())
    }

    fn next(&self) -> Option<(u64, Ask)> {
        let mut state = self.state();
        // What somebody waits for comes first.
        let waiting = |slowly: bool| {
            move |(_, job): &(&u64, &mut Job)| {
                job.progress.stage == Stage::Waiting && job.ask.slowly == slowly
            }
        };
        let first = state.jobs.iter_mut().find(waiting(false)).map(|(id, _)| *id);
        let id = first.or_else(|| state.jobs.iter_mut().find(waiting(true)).map(|(id, _)| *id))?;
        let job = state.jobs.get_mut(&id)?;
        job.progress.stage = Stage::Running;
        Some((id, job.ask.clone()))
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Progress)) {
        if let Some(job) = self.state().jobs.get_mut(&id) {
            change(&mut job.progress);
        }
    }

    fn somebody_waits(&self) -> bool {
        self.state().jobs.values().any(|job| job.progress.stage == Stage::Waiting && !job.ask.slowly)
    }
}

/// Verifies what is asked for, and once a day without being asked, until it is
/// told to end.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut wait = FIRST;
    loop {
        while let Some((id, ask)) = core.verify.next() {
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                done = perform(&core, id, &ask) => done,
            };
            let ended = done.err().map(|error| crate::reconcile::chain(&error));
            core.verify.change(id, |progress| {
                progress.stage = if ended.is_some() { Stage::Failed } else { Stage::Done };
                progress.problem = ended.unwrap_or_default();
            });
        }
        let due = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = core.verify.wake.notified() => false,
            () = tokio::time::sleep(wait) => true,
        };
        if due {
            wait = LOOK;
            if let Err(error) = daily(&core).await {
                tracing::warn!(%error, "checkpoints could not be chosen for verification; tried again soon");
            }
        }
    }
}

/// Hands in the day's verification, if it is time: those first that were
/// looked at longest ago.
async fn daily(core: &Core) -> Result<(), CoreError> {
    let now = core.clock.wall_ms();
    let row: Option<Versioned<Verification>> = core.load("verification").await?;
    let mut row = row.unwrap_or_else(|| Versioned::new(Verification::default()));
    if row.body.last_ms != 0 && now < row.body.last_ms.saturating_add(EVERY_MS) {
        return Ok(());
    }
    let mut rows: Vec<Checkpoint> = core.all::<Checkpoint>().await?.into_iter().map(|row| row.body).collect();
    rows.retain(|c| c.status.is_durable());
    rows.sort_by_key(|c| (c.verified_ms, std::cmp::Reverse(c.committed_ms)));
    row.body.last_ms = now;
    if !core.commit_quietly(Changes::default().put(&row)).await? || rows.is_empty() {
        return Ok(());
    }
    let what = rows.into_iter().map(|c| c.manifest.key).collect();
    core.verify.ask(Ask { what, percent: SAMPLE, condemned: false, slowly: true, actor: SELF.into() });
    Ok(())
}

async fn perform(core: &Core, id: u64, ask: &Ask) -> Result<(), CoreError> {
    let mut rows = Vec::new();
    let is_asked = |c: &Checkpoint| c.status.is_durable() || ask.condemned && is_condemned(c);
    for key in &ask.what {
        rows.extend(core.load::<Checkpoint>(key).await?.map(|row| row.body).filter(is_asked));
    }
    let share =
        |bytes: u64| bytes / 100 * u64::from(ask.percent) + bytes % 100 * u64::from(ask.percent) / 100;
    core.verify.change(id, |p| {
        p.checkpoints = rows.len() as u64;
        p.bytes = rows.iter().map(|c| share(c.bytes)).sum();
    });
    let seed: [u8; 16] = core.entropy.bytes()?;
    let mut look = Look {
        chosen: Chosen::new(ask.percent, seed),
        known: HashSet::new(),
        pace: if ask.slowly { Pace::Slow } else { Pace::Fast },
    };
    let (mut read, mut bad) = (0, 0_u64);
    let mut looked = 0_u64;
    for row in rows {
        if ask.slowly && (read >= MOST_A_DAY || core.verify.somebody_waits()) {
            break;
        }
        let told = |bytes: u64| {
            core.verify.change(id, |p| p.bytes_done += bytes);
            read += bytes;
        };
        let verdict = match look.at(core, &row, told).await {
            Ok(()) => {
                let key = &row.manifest.key;
                good(core, key, ask.percent).await?;
                if is_condemned(&row) && ask.percent >= 100 {
                    durable::reinstate(core, &ask.actor, key).await?;
                }
                Verdict::Good
            }
            Err(error) if is_condemned(&row) && !durable::is_passing(&error) => {
                Verdict::Bad(error.to_string())
            }
            Err(error) => judge(core, &row, &error, &ask.actor).await?,
        };
        looked += 1;
        bad += u64::from(matches!(verdict, Verdict::Bad(_)));
        let key = row.manifest.key;
        let found = Found { key, run: row.run, step: row.manifest.step, bytes: row.bytes, verdict };
        core.verify.change(id, |p| {
            if p.found.len() < ROWS {
                p.found.push(found);
            }
        });
    }
    let detail = json!({"checkpoints": looked, "bad": bad, "bytes": read, "percent": ask.percent});
    let noted = Changes::default().note(core, &ask.actor, "verified", "artifacts", None, detail);
    core.commit_quietly(noted).await?;
    Ok(())
}

/// Whether it was found damaged before.
pub(crate) fn is_condemned(row: &Checkpoint) -> bool {
    row.status == CheckpointState::Corrupt
}

async fn good(core: &Core, key: &str, percent: u32) -> Result<(), CoreError> {
    for _ in 0..8 {
        let Some(mut row) = core.load::<Checkpoint>(key).await? else { return Ok(()) };
        row.body.verified_ms = core.clock.wall_ms();
        row.body.verified_percent = percent;
        if core.commit_quietly(Changes::default().put(&row)).await? {
            return Ok(());
        }
    }
    Err(CoreError::Contended)
}

/// What a failure says of the checkpoint.
async fn judge(
    core: &Core,
    row: &Checkpoint,
    error: &RestoreError,
    actor: &str,
) -> Result<Verdict, CoreError> {
    let key = &row.manifest.key;
    // Tidied up meanwhile: then it is no wonder that objects are gone.
    let there = core.load::<Checkpoint>(key).await?.is_some_and(|row| row.body.status.is_durable());
    let newer = matches!(error, RestoreError::Unsupported { .. });
    if durable::is_passing(error) || !there || newer {
        return Ok(Verdict::Unknown(error.to_string()));
    }
    if matches!(error, RestoreError::Missing { .. })
        && core.objects.list(&format!("{}/", row.run)).await?.is_empty()
    {
        let why = "the store has nothing at all of this run: is it mounted, and the right one?";
        return Ok(Verdict::Unknown(why.into()));
    }
    let detail = error.to_string();
    durable::condemn(core, actor, key, &detail, durable::blamed(error)).await?;
    if let Some(run) = core.load::<Run>(&row.run.to_string()).await? {
        tracing::warn!(run = run.body.name, key, detail, "a checkpoint is damaged and is used no more");
    }
    Ok(Verdict::Bad(detail))
}

/// The key of a manifest as the store has it.
fn object(row: &Checkpoint) -> Result<ObjectKey, RestoreError> {
    row.manifest.key.parse().map_err(|_| RestoreError::Remote("the row's key is no object key".into()))
}
