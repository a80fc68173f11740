//! A simulated machine under the real agent: its disk survives the agent and
//! not the machine; its program advances with virtual time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::booklets::{Connect, Courier, Entry, Parts, Settled, Shelf};
use agent::world::{
    Cancelled, Candidate, Commit, Ended, Failed, Output, Piece, Prepared, Program, Published, Restored,
    Settlement, SharedGateway, World, Written,
};
use artifacts::publish::About;
use artifacts::{Kind, ObjectKey};
use async_trait::async_trait;
use lifecycle::Exit;
use proto::v1;

use super::faults::{Away, Options};
use super::world::EPOCH;

/// Steps of the whole training.
pub(super) const STEPS: u64 = 120;
/// Steps between two checkpoints.
pub(super) const EVERY: u64 = 10;
/// Virtual time of a step.
pub(super) const STEP: Duration = Duration::from_millis(500);
/// The same of a program that writes for more than an hour.
pub(super) const SLOW_STEP: Duration = Duration::from_secs(31);

/// What a checkpoint at a step must contain.
pub(super) fn content(step: u64) -> Vec<u8> {
    (0..2_000_u64).map(|i| (i.wrapping_mul(31).wrapping_add(step * 7) % 251) as u8).collect()
}

/// A program's start, as somebody outside every machine saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) generation: u64,
    pub(super) from: u64,
}

/// What outlives every machine, for the checks.
#[derive(Default)]
pub(super) struct Oracle {
    pub(super) starts: Vec<Start>,
    pub(super) problems: Vec<String>,
}

#[derive(Clone)]
struct OnDisk {
    work: v1::Work,
    step: Duration,
    from: u64,
    started: Option<Duration>,
    ended: Option<(Duration, Exit)>,
    published: u64,
}

/// The small files of attempts, on the machine's disk.
#[derive(Clone, Default)]
struct Files(Arc<Mutex<BTreeMap<Named, Vec<u8>>>>);

/// An attempt and a file's name.
type Named = (String, &'static str);

struct FilesOf(Files, String);

#[async_trait]
impl Shelf for FilesOf {
    async fn read(&self, name: &'static str) -> Option<Vec<u8>> {
        self.0.0.lock().unwrap().get(&(self.1.clone(), name)).cloned()
    }
    async fn write(&self, name: &'static str, bytes: Vec<u8>) -> std::io::Result<()> {
        self.0.0.lock().unwrap().insert((self.1.clone(), name), bytes);
        Ok(())
    }
    async fn remove(&self, name: &'static str) {
        self.0.0.lock().unwrap().remove(&(self.1.clone(), name));
    }
}

/// The disk and the processes of one machine.
pub(super) struct Machine {
    disk: Mutex<BTreeMap<String, OnDisk>>,
    oracle: Arc<Mutex<Oracle>>,
    outboxes: PathBuf,
    forget_resume: bool,
    step: Duration,
    files: Files,
    connect: Connect,
    /// What one process of the agent remembers.
    couriers: Mutex<BTreeMap<String, Arc<Courier>>>,
    told: Mutex<BTreeMap<String, Vec<Published>>>,
}

impl Machine {
    pub(super) fn new(
        oracle: Arc<Mutex<Oracle>>,
        outboxes: PathBuf,
        options: &Options,
        connect: Connect,
    ) -> Self {
        let step = options.away.map_or(STEP, Away::step);
        Self {
            disk: Mutex::default(),
            oracle,
            outboxes,
            forget_resume: options.forget_resume,
            step,
            files: Files::default(),
            connect,
            couriers: Mutex::default(),
            told: Mutex::default(),
        }
    }

    async fn courier(&self, work: &v1::Work, gateway: &SharedGateway) -> Arc<Courier> {
        let known = self.couriers.lock().unwrap().get(&work.attempt_id).cloned();
        if let Some(known) = known {
            return known;
        }
        let opened = Courier::open(Parts {
            work: work.clone(),
            gateway: gateway.clone(),
            shelf: Arc::new(FilesOf(self.files.clone(), work.attempt_id.clone())),
            connect: self.connect.clone(),
            wall_ms: Arc::new(|| (EPOCH + now()).as_millis() as u64),
        });
        let opened = opened.await;
        self.couriers.lock().unwrap().entry(work.attempt_id.clone()).or_insert(opened).clone()
    }

    fn settled(&self, work: &v1::Work, settled: Settled) {
        let Settled { entry, answer } = settled;
        let outcome = match answer {
            Commit::Durable => Published::Durable { key: entry.key, step: entry.step },
            Commit::Superseded => Published::Superseded,
            Commit::Refused(why) => Published::Refused(why),
            Commit::Again(why) | Commit::Unknown(why) => {
                let before = entry.step.unwrap_or(0).saturating_sub(1);
                self.with(&work.attempt_id, |a| a.published = a.published.min(before));
                Published::Later(why)
            }
        };
        self.told.lock().unwrap().entry(work.attempt_id.clone()).or_default().push(outcome);
    }

    fn with<T>(&self, attempt: &str, f: impl FnOnce(&mut OnDisk) -> T) -> Option<T> {
        self.disk.lock().unwrap().get_mut(attempt).map(f)
    }
}

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

impl OnDisk {
    /// Steps done by now, counting the ones restored.
    fn done(&self) -> u64 {
        let Some(started) = self.started else { return self.from };
        let until = self.ended.as_ref().map_or_else(now, |(at, _)| *at);
        let steps = until.saturating_sub(started).as_millis() / self.step.as_millis();
        (self.from + steps as u64).min(STEPS)
    }

    fn line(step: u64) -> String {
        format!("{{\"step\": {step}, \"loss\": {}}}\n", 1.0 / step as f64)
    }

    fn output(&self) -> Vec<u8> {
        (self.from + 1..=self.done()).map(Self::line).collect::<String>().into_bytes()
    }

    /// When the line at an offset was written, and where it ends.
    fn written(&self, offset: u64) -> Option<Written> {
        let mut until = 0;
        let step = (self.from + 1..=self.done()).find(|step| {
            until += Self::line(*step).len() as u64;
            offset < until
        })?;
        let ran = self.step * u32::try_from(step - self.from).ok()?;
        let at = EPOCH + self.started? + ran;
        Some(Written { at_ms: at.as_millis() as u64, until })
    }
}

#[async_trait]
impl World for Machine {
    fn held(&self) -> Vec<v1::Work> {
        // Asked by an agent that starts: what the one before knew is gone.
        self.couriers.lock().unwrap().clear();
        self.told.lock().unwrap().clear();
        self.disk.lock().unwrap().values().map(|a| a.work.clone()).collect()
    }

    fn keep(&self, work: &v1::Work) -> std::io::Result<()> {
        let fresh = OnDisk {
            work: work.clone(),
            // Whoever comes after a night does the rest quickly.
            step: if work.generation > 1 { STEP.min(self.step) } else { self.step },
            from: 0,
            started: None,
            ended: None,
            published: 0,
        };
        self.disk.lock().unwrap().entry(work.attempt_id.clone()).or_insert(fresh);
        Ok(())
    }

    fn outbox(&self, attempt: &str) -> Option<PathBuf> {
        Some(self.outboxes.join(attempt))
    }

    async fn prepare(
        &self,
        work: v1::Work,
        gateway: SharedGateway,
        _: Cancelled,
    ) -> Result<Prepared, Failed> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut restored = None;
        if let Some(offer) = work.resume.first() {
            let later = |e: &dyn std::fmt::Display| Failed { reason: e.to_string(), transient: true };
            let key: ObjectKey = offer.key.parse().map_err(|e| later(&e))?;
            let digest = offer.digest.parse().map_err(|e| later(&e))?;
            // A link that breaks now is met again by the next attempt.
            let tree = loop {
                match artifacts::restore::load_manifest(&*gateway, &key, Some(digest)).await {
                    Ok(tree) => break tree,
                    Err(artifacts::restore::RestoreError::Remote(_)) => tokio::time::sleep(STEP).await,
                    Err(e) => return Err(later(&e)),
                }
            };
            let files = loop {
                match artifacts::restore::read_tree(&*gateway, &tree, 1 << 20).await {
                    Ok(files) => break files,
                    Err(artifacts::restore::RestoreError::Remote(_)) => tokio::time::sleep(STEP).await,
                    Err(e) => return Err(later(&e)),
                }
            };
            let step = tree.step.unwrap_or(0);
            if files.first().map(|(_, bytes)| bytes.as_slice()) != Some(content(step).as_slice()) {
                self.oracle.lock().unwrap().problems.push(format!("step {step} came back with other bytes"));
            }
            self.with(&work.attempt_id, |a| {
                a.from = if self.forget_resume { 0 } else { step };
                a.published = step;
            });
            let bytes = tree.total_bytes();
            restored = Some(Restored { key: offer.key.clone(), step: Some(step), bytes, took_ms: 300 });
        }
        Ok(Prepared { restored, environment_cached: true, condemned: Vec::new(), notes: Vec::new() })
    }

    async fn start(&self, work: v1::Work) -> Result<(), Failed> {
        let from = self.with(&work.attempt_id, |a| {
            // At most once: a keeper refuses a second start.
            (a.started.is_none()).then(|| {
                a.started = Some(now());
                a.from
            })
        });
        if let Some(Some(from)) = from {
            self.oracle.lock().unwrap().starts.push(Start { generation: work.generation, from });
        }
        Ok(())
    }

    fn program(&self, attempt: &str) -> Program {
        let ended = |exit| {
            Program::Ended(Ended {
                exit,
                at_ms: 0,
                out_of_memory: String::new(),
                max_rss_bytes: 0,
                oom_process: None,
                unapplied_limits: Vec::new(),
            })
        };
        self.with(attempt, |a| match (&a.started, &a.ended) {
            (None, _) => Program::NotStarted,
            (Some(_), Some((_, exit))) => ended(exit.clone()),
            (Some(_), None) if a.done() >= STEPS => {
                a.ended = Some((now(), Exit::Code { code: 0 }));
                ended(Exit::Code { code: 0 })
            }
            (Some(_), None) => Program::Running(7),
        })
        .unwrap_or(Program::NotStarted)
    }

    async fn stop(&self, attempt: &str, _: u64) -> bool {
        self.kill(attempt).await
    }

    async fn kill(&self, attempt: &str) -> bool {
        self.with(attempt, |a| {
            if a.started.is_some() && a.ended.is_none() {
                a.ended = Some((now(), Exit::Signal { signal: 15, core: false }));
            }
        })
        .is_some()
    }

    fn read(&self, attempt: &str, output: Output, offset: u64, max: usize) -> Piece {
        if output != Output::Stdout {
            return Piece::Nothing;
        }
        let bytes = self.with(attempt, |a| a.output()).unwrap_or_default();
        match bytes.get(offset as usize..) {
            Some(rest) if !rest.is_empty() => Piece::Bytes(rest[..rest.len().min(max)].to_vec()),
            _ => Piece::Nothing,
        }
    }

    fn written(&self, attempt: &str, output: Output, offset: u64) -> Written {
        // Short steps are not told apart, as a keeper would not.
        let known =
            |a: &mut OnDisk| (output == Output::Stdout && a.step >= SLOW_STEP).then(|| a.written(offset));
        self.with(attempt, known).flatten().flatten().unwrap_or(Written::UNKNOWN)
    }

    fn release(&self, _: &str, _: Output, _: u64) {}

    fn tells_changes(&self, _: &[&str]) -> bool {
        // A night has too many moments to look at all of them.
        self.step > SLOW_STEP
    }

    async fn candidates(&self, work: v1::Work, _: bool) -> Vec<Candidate> {
        let newest = self.with(&work.attempt_id, |a| (a.done() / EVERY * EVERY, a.published));
        match newest {
            Some((step, published)) if step > published => {
                vec![Candidate {
                    token: step.to_string(),
                    name: format!("step-{step}"),
                    step: Some(step),
                    older: false,
                }]
            }
            _ => Vec::new(),
        }
    }

    async fn publish(&self, work: v1::Work, candidate: Candidate, gateway: SharedGateway) -> Published {
        let step = candidate.step.unwrap_or(0);
        let courier = self.courier(&work, &gateway).await;
        let _publish = courier.begin().await;
        courier.renew(false).await;
        let mut space = match courier.keys().await {
            Ok(space) => space,
            Err(e) => return Published::Later(e.to_string()),
        };
        let about = About {
            kind: Kind::Checkpoint,
            step: Some(step),
            name: candidate.name,
            single_file: true,
            created_ms: 0,
        };
        let files = [("state".to_owned(), content(step))];
        let way = courier.way();
        let stored = artifacts::publish_bytes(&files, &about, &mut space, &way, &way).await;
        courier.put_back(space);
        let stored = match stored {
            Ok(stored) => stored,
            Err(e) => return Published::Later(e.to_string()),
        };
        courier.saved(1);
        let (key, digest) = (stored.manifest_key.to_string(), stored.manifest_digest.to_string());
        let token = step.to_string();
        let entry = Entry {
            key: key.clone(),
            digest: digest.clone(),
            step: Some(step),
            relative: "@/s".into(),
            token,
        };
        let mut own = Commit::Unknown(String::new());
        for settled in courier.commit(entry).await {
            if settled.entry.key == key {
                own = settled.answer;
            } else {
                self.settled(&work, settled);
            }
        }
        let is_stored = matches!(own, Commit::Durable | Commit::Unknown(_));
        if is_stored {
            self.with(&work.attempt_id, |a| a.published = step);
        }
        match own {
            Commit::Durable => Published::Durable { key, step: Some(step) },
            Commit::Superseded => Published::Superseded,
            Commit::Refused(why) => Published::Refused(why),
            Commit::Again(why) => Published::Later(why),
            Commit::Unknown(_) => Published::Stored { key, digest, step: Some(step) },
        }
    }

    async fn settle(&self, work: v1::Work, gateway: SharedGateway, fresh: bool) -> Settlement {
        let courier = self.courier(&work, &gateway).await;
        for settled in courier.settle().await {
            self.settled(&work, settled);
        }
        courier.renew(fresh).await;
        let outcomes = self.told.lock().unwrap().remove(&work.attempt_id).unwrap_or_default();
        Settlement { outcomes, left: courier.pending() }
    }

    async fn close(&self, work: v1::Work, gateway: SharedGateway) {
        self.courier(&work, &gateway).await.close().await;
    }

    async fn publish_outputs(&self, _: v1::Work, _: SharedGateway) -> Published {
        Published::Gone
    }

    fn forget(&self, attempt: &str) {
        self.disk.lock().unwrap().remove(attempt);
        self.couriers.lock().unwrap().remove(attempt);
        self.files.0.lock().unwrap().retain(|(of, _), _| of != attempt);
        let _ = std::fs::remove_file(self.outboxes.join(attempt));
    }

    fn free(&self) -> (u64, u64) {
        (0, 0)
    }
}
