//! Who is being worked on: actions side by side, at most one per machine and
//! one per run. What waits for a provider or for the store of objects is
//! carried out here and never in the loop itself, so that one run whose
//! checkpoints cannot be looked at holds up nothing but itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::{MachineId, RunId};
use tokio::task::{JoinError, JoinSet};

use super::chain;
use crate::core::Core;
use crate::execute;
use crate::plan::Action;

/// Pause of a machine or a run whose action failed; a run's is doubled each
/// time in a row.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A run's pause grows no further than by two to this.
const MOST_DOUBLINGS: u32 = 4;

/// A run that waits for its checkpoints longer than this is told of.
const LONG_MS: u64 = 30_000;

/// What an action works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Machine(MachineId),
    Run(RunId),
}

/// What an action works on, where it may take its time; `None` for what only
/// moves rows.
pub(super) fn subject_of(action: &Action) -> Option<Subject> {
    match action {
        Action::Create(id)
        | Action::Resolve(id)
        | Action::Boot(id)
        | Action::Probe(id)
        | Action::Suspect(id)
        | Action::LoseMachine(id, _)
        | Action::GiveUp(id)
        | Action::Release(id, _)
        | Action::Destroy(id) => Some(Subject::Machine(*id)),
        // They look at what was stored and never heard of, in full.
        Action::Bind(run, _) | Action::LoseAttempt(run, _) | Action::Settle(run) => Some(Subject::Run(*run)),
        _ => None,
    }
}

/// An action that is over.
pub(super) struct Done {
    subject: Subject,
    good: bool,
}

/// Actions under way.
#[derive(Default)]
pub(super) struct Lanes {
    tasks: JoinSet<Done>,
    /// Since when.
    busy: BTreeMap<Subject, u64>,
    /// Failures in a row.
    failed: BTreeMap<RunId, u32>,
    told: BTreeSet<RunId>,
}

impl Lanes {
    /// Begins an action, unless its subject is being worked on.
    pub(super) fn begin(&mut self, core: &Arc<Core>, subject: Subject, action: Action) {
        if self.busy.contains_key(&subject) {
            return;
        }
        self.busy.insert(subject, core.clock.mono_ms());
        let failures = match subject {
            Subject::Run(run) => self.failed.get(&run).copied().unwrap_or(0),
            Subject::Machine(_) => 0,
        };
        let core = core.clone();
        self.tasks.spawn(async move {
            let done = execute::perform(&core, &action).await;
            if let Err(error) = &done {
                let why = chain(error);
                tracing::warn!(?action, error = why, "an action failed and will be planned again");
                if let Subject::Run(run) = subject {
                    core.alert(&key(run), Some(format!("work on run {run} is held up: {why}")));
                }
                // Its subject stays busy meanwhile: what fails at once must
                // not be tried at full speed.
                tokio::time::sleep(AFTER_FAILURE * (1 << failures.min(MOST_DOUBLINGS))).await;
            }
            Done { subject, good: done.is_ok() }
        });
    }

    /// The next action that is over; pending for ever where none is under way.
    pub(super) async fn next(&mut self) -> Option<Result<Done, JoinError>> {
        self.tasks.join_next().await
    }

    /// Takes note of everything that is over.
    pub(super) fn collect(&mut self, core: &Core) {
        while let Some(done) = self.tasks.try_join_next() {
            self.freed(core, done);
        }
    }

    /// Takes note of an action that is over. After a panic it is not known on
    /// what: all are free again once none is under way.
    pub(super) fn freed(&mut self, core: &Core, done: Result<Done, JoinError>) {
        match done {
            Ok(Done { subject, good }) => {
                self.busy.remove(&subject);
                if let Subject::Run(run) = subject {
                    if good {
                        self.failed.remove(&run);
                        self.told.remove(&run);
                        core.alert(&key(run), None);
                    } else {
                        *self.failed.entry(run).or_default() += 1;
                        self.told.insert(run);
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "an action ended without an answer");
                if self.tasks.is_empty() {
                    self.busy.clear();
                }
            }
        }
    }

    /// Tells of runs that wait for long, and no more of those for which
    /// nothing is planned any longer.
    pub(super) fn tell(&mut self, core: &Core, planned: &[Action]) {
        let now = core.clock.mono_ms();
        for (subject, since) in &self.busy {
            if let Subject::Run(run) = subject
                && now >= since + LONG_MS
                && self.told.insert(*run)
            {
                let what = "its checkpoints are being looked at before it goes on, and the store of objects \
                            has not answered yet (`outlast doctor` tries it out)";
                core.alert(&key(*run), Some(format!("run {run} waits: {what}")));
            }
        }
        let wanted: BTreeSet<Subject> = planned.iter().filter_map(subject_of).collect();
        let over = |run: &RunId| {
            let subject = Subject::Run(*run);
            !wanted.contains(&subject) && !self.busy.contains_key(&subject)
        };
        let settled: Vec<RunId> = self.told.iter().chain(self.failed.keys()).copied().filter(over).collect();
        for run in settled {
            self.told.remove(&run);
            self.failed.remove(&run);
            core.alert(&key(run), None);
        }
    }

    /// Lets what is under way end.
    pub(super) async fn drain(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

fn key(run: RunId) -> String {
    format!("run {run}")
}
