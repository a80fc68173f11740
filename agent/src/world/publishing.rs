//! Which checkpoints are complete, and their way to the store. A checkpoint is
//! taken when its format says that it is whole, or, where the format says
//! nothing, when it was renamed into place or has been at rest for the quiet
//! period; in any case only when nobody can write to it; and never twice. All
//! of that is asked again when it was read, before it is committed. What went
//! away before it could be taken is counted and told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifacts::index::Resuming;
use artifacts::publish::{PublishError, With};
use artifacts::seal::Sealing;
use artifacts::store::share::{Link, Sharing};
use artifacts::{Kind, Selection, StoreError};
use lifecycle::RunSpec;
use proto::v1;

mod asked;
mod beside;
mod choose;
mod copy;
mod done;
mod end;
mod keyframe;
mod later;
mod left;
mod local;
mod look;
mod missed;
mod places;
mod prepare;
mod sealing;
mod seen;
mod standing;
mod unfinished;
mod verdicts;
mod watch;
mod word;

use done::Became;
pub use local::Relief;
use look::{look, spots};
use prepare::{Prepared, prepare};
use seen::Seen;
use unfinished::Left;
use verdicts::Still;
pub use word::{WordError, say};

use super::layout::AttemptDir;
use super::{Candidate, Commit, Published, SharedGateway};
use crate::booklets::{Connect, Courier, Entry, over_the_network};
use crate::keeper::EXIT_FILE;
use crate::os;

/// Names looked at in one scan; more are counted, not read.
const NAMES: usize = 10_000;
const FILES: usize = 200_000;
/// Looking at all places costs at most one part in so many of the time.
const SHARE: u32 = 100;

/// What is told of an attempt, and what the one thread that heartbeats also
/// run on needs: never locked for longer than it takes to read or set it.
#[derive(Default)]
struct Told {
    standings: Vec<v1::CheckpointStanding>,
    remarks: Vec<String>,
    /// What cannot travel, as far as it was told, and in how many notes of results.
    left_behind: BTreeSet<String>,
    left_notes: u32,
    /// What became of checkpoints that were stored earlier, not told yet.
    settled: Vec<Published>,
    /// What is stored in this generation without being committed.
    left: Left,
    /// What trees are sealed with.
    sealing: Option<Arc<Sealing>>,
    /// The controller takes nothing else any more.
    must_seal: bool,
    /// Names the result files that were published last.
    outputs: Option<String>,
}

/// The checkpoints of every attempt on the machine.
pub struct Publishing {
    /// What is within may be locked while a disk is waited for; this is not.
    seen: Mutex<BTreeMap<String, Arc<Mutex<Seen>>>>,
    told: Mutex<BTreeMap<String, Told>>,
    /// What checkpoints are stored as differences to.
    keyframes: keyframe::Keyframes,
    /// Made at the first scan; `None` too where the system has no watches left.
    renames: Mutex<Option<os::Renames>>,
    couriers: Mutex<BTreeMap<String, Arc<Courier>>>,
    /// Reaches a store whose signed URLs are held.
    connect: Connect,
    /// An attempt was forgotten: its directories need no watch any more.
    forgot: AtomicBool,
    share: u32,
    /// Left in part to the programs.
    link: Link,
}

impl Default for Publishing {
    fn default() -> Self {
        Self {
            seen: Mutex::default(),
            told: Mutex::default(),
            keyframes: keyframe::Keyframes::default(),
            renames: Mutex::default(),
            couriers: Mutex::default(),
            connect: over_the_network(),
            forgot: AtomicBool::new(false),
            share: SHARE,
            link: Link::default(),
        }
    }
}

impl Publishing {
    /// What is remembered of an attempt.
    fn of(&self, attempt: &str) -> Arc<Mutex<Seen>> {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(attempt.to_owned()).or_default().clone()
    }

    /// As [`Publishing::of`]; `None`: it is not looked after here.
    fn known(&self, attempt: &str) -> Option<Arc<Mutex<Seen>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(attempt).cloned()
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<String, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell<T>(&self, attempt: &str, act: impl FnOnce(&mut Told) -> T) -> T {
        act(self.told().entry(attempt.to_owned()).or_default())
    }

    /// What is there before the program starts came with the attempt. Blocks.
    pub fn baseline(&self, dir: &AttemptDir, attempt: &str, spec: &RunSpec) {
        self.watch(dir, std::iter::empty());
        self.keyframes.sweep(dir);
        let seen = self.of(attempt);
        let mut seen = seen::lock(&seen);
        seen.load(dir);
        for spot in spots(dir, spec).found {
            if let Some(look) = look(&spot.path) {
                seen.known.insert(spot.relative, look.token);
            }
        }
        seen.save(dir);
    }

    /// Forgets an attempt, and removes what was kept for it.
    pub fn forget(&self, attempt: &str) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(attempt);
        self.told().remove(attempt);
        self.couriers().remove(attempt);
        self.keyframes.forget(attempt);
        self.forgot.store(true, Ordering::Relaxed);
    }

    /// Stores a selection, if what must still hold then does, and commits it.
    async fn send(
        &self,
        dir: &AttemptDir,
        work: &v1::Work,
        selection: &Selection,
        gateway: &SharedGateway,
        Upload { still, relative, token, percent }: Upload,
    ) -> Published {
        let courier = self.courier(dir, work, gateway).await;
        let _publish = courier.begin().await;
        let sealing = match self.sealing(work) {
            Ok(sealing) => sealing,
            Err(why) => return Published::Later(why),
        };
        self.sealed_with(&work.attempt_id, sealing.as_deref());
        courier.renew(false).await;
        let mut keys = match courier.keys().await {
            Ok(keys) => keys,
            Err(error) => return Published::Later(error.to_string()),
        };
        let way = courier.way();
        let left = match self.left(work, gateway, &way).await {
            Ok(left) => left,
            Err(error) => {
                courier.put_back(keys);
                return Published::Later(error.to_string());
            }
        };
        let index = Resuming { index: &way, left: &left };
        // Before the manifest is stored: one that is there is committed by the
        // controller when this machine is lost.
        let holds = move || still.is_none_or(|still| still.holds());
        let (attempt, is_checkpoint) = (&work.attempt_id, selection.kind == Kind::Checkpoint);
        let base = if is_checkpoint { self.keyframes.base(dir, attempt).await } else { None };
        let before = keys.pack_seq;
        let alone = alone(dir);
        let store = Sharing::new(&way, &self.link, percent, &alone);
        let with = With { keyframe: base, sealing };
        let published = artifacts::publish_against(with, selection, &mut keys, &store, &index, holds).await;
        let packs = keys.pack_seq.saturating_sub(before);
        courier.put_back(keys);
        let published = match published {
            Ok(published) => published,
            Err(PublishError::Changed { .. } | PublishError::Withdrawn) => return Published::Gone,
            Err(error @ (PublishError::Unfit { .. } | PublishError::Path(_) | PublishError::Manifest(_))) => {
                return Published::Refused(error.to_string());
            }
            Err(error @ (PublishError::Io { .. } | PublishError::Store(StoreError::Io { .. }))) => {
                return Published::Local(error.to_string());
            }
            Err(error) => return Published::Later(error.to_string()),
        };
        courier.saved(packs);
        let (key, step) = (published.manifest_key.to_string(), published.manifest.step);
        let digest = published.manifest_digest.to_string();
        let entry = Entry { key: key.clone(), digest: digest.clone(), step, relative, token };
        let outcome = self.committing(dir, work, &courier, entry).await;
        self.committed(work, &published, &outcome);
        match outcome {
            Commit::Durable if is_checkpoint => {
                courier.knows(&published.manifest);
                self.keyframes.saved(dir, attempt, selection, published).await;
            }
            Commit::Durable | Commit::Unknown(_) => {}
            _ => self.keyframes.unsure(attempt),
        }
        match outcome {
            Commit::Durable => Published::Durable { key, step },
            Commit::Superseded => Published::Superseded,
            // A controller that is older than the one whose format was asked
            // for: not for good.
            Commit::Refused(why)
                if why.contains("this program reads up to") || self.seals_now(attempt, &why) =>
            {
                Published::Later(why)
            }
            Commit::Refused(why) => Published::Refused(why),
            Commit::Again(why) => Published::Later(why),
            Commit::Unknown(_) => Published::Stored { key, digest, step },
        }
    }

    /// Publishes one checkpoint, then the result files that go with it.
    pub async fn checkpoint(
        &self,
        dir: &AttemptDir,
        work: &v1::Work,
        spec: &RunSpec,
        candidate: &Candidate,
        gateway: &SharedGateway,
    ) -> Published {
        let seen = self.of(&work.attempt_id);
        let begin = (seen.clone(), dir.clone(), candidate.clone());
        let prepared = offload(move || prepare(&begin.0, &begin.1, &begin.2)).await;
        let prepared = match prepared {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(outcome)) => return outcome,
            Err(why) => return Published::Later(why),
        };
        let Prepared { selection, still, chosen, copy, left } = prepared;
        self.left_out(&work.attempt_id, &candidate.name, &left);
        let upload = Upload {
            still,
            relative: chosen.relative.clone(),
            token: chosen.token.clone(),
            percent: spec.checkpoints.uplink_percent,
        };
        let outcome = self.send(dir, work, &selection, gateway, upload).await;
        let is_durable = matches!(outcome, Published::Durable { .. });
        let became = match outcome {
            Published::Durable { .. } => Some(Became::Durable),
            Published::Stored { .. } => Some(Became::Stored),
            Published::Refused(_) => Some(Became::Refused),
            _ => None,
        };
        let end = (dir.clone(), spec.clone());
        // Files are read and removed: never on the thread that heartbeats run on.
        let done = offload(move || {
            drop(copy);
            became.map(|became| done::done(&seen, &end.0, &chosen, &end.1, became))
        });
        match done.await {
            Ok(Some(standings)) => self.tell(&work.attempt_id, |told| told.standings = standings),
            Ok(None) => {}
            Err(why) => tracing::warn!(why, "what was published is not remembered"),
        }
        if is_durable || matches!(outcome, Published::Stored { .. }) {
            // Results are a service beside the checkpoint: their failure is
            // met again with the next one and at the end.
            let _ = self.outputs(dir, work, spec, gateway).await;
        }
        outcome
    }

    /// Publishes the result files, if there are any and they changed.
    pub async fn outputs(
        &self,
        dir: &AttemptDir,
        work: &v1::Work,
        spec: &RunSpec,
        gateway: &SharedGateway,
    ) -> Published {
        let mut globs = spec.artifacts.clone();
        globs.push("results/**".to_owned());
        let root = dir.source();
        let listed = tokio::task::spawn_blocking(move || {
            let (paths, left) = artifacts::source::select_results(&root, &globs)?;
            let mut hasher = blake3::Hasher::new();
            for path in &paths {
                let look = look(&root.join(path)).map_or_else(String::new, |l| l.token);
                hasher.update(look.as_bytes());
            }
            let token = hasher.finalize().to_hex().to_string();
            Ok::<_, artifacts::source::SourceError>((paths, left, root, token))
        })
        .await;
        let (paths, left, root, token) = match listed {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Published::Refused(error.to_string()),
            Err(error) => return Published::Later(error.to_string()),
        };
        self.leave_behind(&work.attempt_id, left);
        let is_same = self.tell(&work.attempt_id, |told| told.outputs.as_ref() == Some(&token));
        if paths.is_empty() || is_same {
            // There are none, or the store has these very ones.
            return Published::Gone;
        }
        let selection = Selection {
            root,
            paths,
            kind: Kind::Outputs,
            step: None,
            name: String::new(),
            single_file: false,
            created_ms: os::unix_ms(),
        };
        let percent = spec.checkpoints.uplink_percent;
        let upload = Upload { still: None, relative: String::new(), token: token.clone(), percent };
        let outcome = self.send(dir, work, &selection, gateway, upload).await;
        if matches!(outcome, Published::Durable { .. } | Published::Stored { .. }) {
            self.tell(&work.attempt_id, |told| told.outputs = Some(token));
        }
        outcome
    }
}

/// How something is sent, and what must still hold then.
struct Upload {
    still: Option<Still>,
    /// What it is here, for what is only stored; nothing for results.
    relative: String,
    token: String,
    /// Of the link's time.
    percent: u32,
}

/// Whether the program needs no link any more: it has ended.
fn alone(dir: &AttemptDir) -> impl Fn() -> bool + Send + Sync + use<> {
    let record = dir.path().join(EXIT_FILE);
    move || record.exists()
}

/// Does what waits for a disk on a thread of its own.
async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
