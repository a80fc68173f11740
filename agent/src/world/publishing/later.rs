//! What was stored while nobody answered, once somebody does: it is committed
//! in the order in which it was stored. Only then is a local copy counted among
//! what may go, and only then is it told as durable.

use std::sync::{MutexGuard, PoisonError};

use super::done::{self, Became};
use super::{Arc, BTreeMap, Courier, Entry, Publishing, RunSpec, offload, v1};
use crate::booklets::{DirShelf, Parts, Settled};
use crate::os;
use crate::world::layout::AttemptDir;
use crate::world::{Commit, Published, Settlement, SharedGateway};

/// What is told at once of checkpoints that were stored earlier.
const TOLD: usize = 2_048;

impl super::Told {
    fn tell_settled(&mut self, outcome: Published) {
        if self.settled.len() < TOLD {
            self.settled.push(outcome);
        }
    }
}

impl Publishing {
    pub(super) fn couriers(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Courier>>> {
        self.couriers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempt's way to the store.
    pub(super) async fn courier(
        &self,
        dir: &AttemptDir,
        work: &v1::Work,
        gateway: &SharedGateway,
    ) -> Arc<Courier> {
        let known = self.couriers().get(&work.attempt_id).cloned();
        if let Some(known) = known {
            return known;
        }
        let opened = Courier::open(Parts {
            work: work.clone(),
            gateway: gateway.clone(),
            shelf: Arc::new(DirShelf(dir.path().to_owned())),
            connect: self.connect.clone(),
            wall_ms: Arc::new(os::unix_ms),
        });
        let opened = opened.await;
        let (waiting, seen) = (opened.waiting(), self.of(&work.attempt_id));
        if !waiting.is_empty() {
            match offload(move || done::waits(&seen, waiting)).await {
                Ok(standings) => self.tell(&work.attempt_id, |told| told.standings = standings),
                Err(why) => tracing::debug!(why, "what waits is not told"),
            }
        }
        self.couriers().entry(work.attempt_id.clone()).or_insert(opened).clone()
    }

    /// Commits what was just stored, after what was stored before it. What
    /// became of the older ones is told with the next settlement.
    pub(super) async fn committing(
        &self,
        dir: &AttemptDir,
        work: &v1::Work,
        courier: &Courier,
        entry: Entry,
    ) -> Commit {
        let key = entry.key.clone();
        let mut own = Commit::Unknown("it was stored".into());
        for settled in courier.commit(entry).await {
            if settled.entry.key == key {
                own = settled.answer;
            } else {
                self.settled(dir, work, settled).await;
            }
        }
        own
    }

    /// Commits what waits, and renews the booklet if that is due.
    pub async fn settle(
        &self,
        dir: &AttemptDir,
        work: &v1::Work,
        gateway: &SharedGateway,
        fresh: bool,
    ) -> Settlement {
        let courier = self.courier(dir, work, gateway).await;
        for settled in courier.settle().await {
            self.settled(dir, work, settled).await;
        }
        courier.renew(fresh).await;
        let outcomes = self.tell(&work.attempt_id, |told| std::mem::take(&mut told.settled));
        Settlement { outcomes, left: courier.pending() }
    }

    /// Nothing more will be published.
    pub async fn close(&self, dir: &AttemptDir, work: &v1::Work, gateway: &SharedGateway) {
        self.courier(dir, work, gateway).await.close().await;
    }

    async fn settled(&self, dir: &AttemptDir, work: &v1::Work, settled: Settled) {
        let Settled { entry, answer } = settled;
        let attempt = &work.attempt_id;
        let Entry { key, step, relative, token, .. } = entry;
        if matches!(answer, Commit::Durable) {
            self.tell(attempt, |told| told.left.settled(&key));
        } else {
            // What comes next must not rest on what did not become durable.
            self.tell(attempt, |told| told.left.forget());
            self.keyframes.unsure(attempt);
        }
        let outcome = match answer {
            Commit::Durable => Published::Durable { key, step },
            Commit::Superseded => Published::Superseded,
            // Not the checkpoint's fault: a controller older than the one whose
            // format was asked for, or a pack that is gone and is sent anew.
            Commit::Refused(why)
                if why.contains("this program reads up to")
                    || why.ends_with("is missing")
                    || self.seals_now(attempt, &why) =>
            {
                Published::Later(why)
            }
            Commit::Refused(why) => Published::Refused(format!("{key}: {why}")),
            Commit::Again(why) | Commit::Unknown(why) => Published::Later(why),
        };
        if relative.is_empty() {
            if !matches!(outcome, Published::Durable { .. }) {
                // The results are published again with the next checkpoint, or
                // by whoever finishes.
                self.tell(attempt, |told| {
                    told.outputs = None;
                    told.tell_settled(outcome);
                });
            }
            return;
        }
        let became = match outcome {
            Published::Durable { .. } => Some(Became::Durable),
            Published::Later(_) => None,
            _ => Some(Became::Refused),
        };
        let (seen, dir) = (self.of(attempt), dir.clone());
        let spec = serde_json::from_str::<RunSpec>(&work.spec_json).ok();
        let noted = offload(move || {
            let spec = spec?;
            done::settled(&seen, &dir, &relative, &token, &spec, became)
        });
        match noted.await {
            Ok(Some(standings)) => self.tell(attempt, |told| told.standings = standings),
            Ok(None) => {}
            Err(why) => tracing::warn!(why, "what became durable is not remembered"),
        }
        self.tell(attempt, |told| told.tell_settled(outcome));
    }
}
