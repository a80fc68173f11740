//! Performs what supervisors ask for. Long work runs as owned jobs whose
//! results come back as inputs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::convert;
use proto::v1::{self, event::Kind};
use tokio::time::Instant;

use super::Driver;
use super::finish::unnamed;
use super::settle::stored_fact;
use crate::evidence;
use crate::supervisor::{Effect, Input, Phase, Tell};
use crate::world::{Candidate, Failed, Output, Piece, Prepared, Published, Settlement, Warned};

/// Between two tries of a publish that nobody answered.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// Last bytes of the error stream looked at for its last line.
const TAIL: u64 = 8_192;

/// A job's result.
pub enum Done {
    /// Preparing.
    Prepared(Result<Prepared, Failed>),
    /// Asking for a keeper.
    Started(Result<(), Failed>),
    /// Asking a keeper to end its program: whether it was reached.
    Asked(bool),
    /// A scan for checkpoints.
    Scanned(Vec<Candidate>),
    /// A publish.
    Published(Candidate, Published),
    /// What became of what was stored.
    Settled(Settlement),
    /// Everything the program left.
    Finished(Option<String>, Vec<Kind>),
    /// The results, published because the disk is full.
    Salvaged(Published),
    /// Telling the program of a notice.
    Warned(Warned),
    /// Asking the program to save: how many of its processes took that.
    AskedToSave(usize),
    /// As before, of one that had caught no signal when a notice came.
    AskedAgain(usize),
    /// Something whose end changes nothing.
    Nothing,
}

impl Driver {
    pub(super) fn perform(&mut self, id: &str, effect: Effect) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let (world, gateway, work) = (self.world.clone(), self.gateway.clone(), attempt.work.clone());
        let key = id.to_owned();
        match effect {
            Effect::Prepare => {
                let cancelled = Arc::new(AtomicBool::new(false));
                attempt.cancelled = cancelled.clone();
                attempt.prepare_began = Some(Instant::now());
                self.jobs.spawn(async move {
                    (key, Done::Prepared(world.prepare(work, gateway, cancelled).await))
                });
            }
            Effect::CancelPrepare => attempt.cancelled.store(true, Ordering::Relaxed),
            Effect::Start => self.start(id),
            // A keeper whose disk stands still answers late or never: nobody's
            // heartbeat may wait for that.
            Effect::Stop(grace_ms) => {
                self.jobs.spawn(async move {
                    let reached = world.stop(&key, grace_ms).await;
                    (key, Done::Asked(reached))
                });
            }
            Effect::Kill => {
                self.jobs.spawn(async move {
                    let reached = world.kill(&key).await;
                    (key, Done::Asked(reached))
                });
            }
            Effect::Finish(counts) => self.finish(id, counts),
            Effect::Tell(tell) => self.tell(id, tell),
        }
    }

    /// Has the program started, now or with the next lease.
    pub(super) fn start(&mut self, id: &str) {
        let Some(attempt) = self.attempts.get(id) else { return };
        if attempt.supervisor.phase != Phase::Starting {
            return;
        }
        if !attempt.supervisor.may_start() {
            let reason = "it was stopped before its program was started".to_owned();
            self.input(id, Input::Started(Err(Failed { reason, transient: false })));
            return;
        }
        if (self.boottime_ms)() >= self.lease_until_ms {
            self.waiting_for_lease.push(id.to_owned());
            return;
        }
        let (world, work, key) = (self.world.clone(), attempt.work.clone(), id.to_owned());
        self.jobs.spawn(async move { (key, Done::Started(world.start(work).await)) });
    }

    fn tell(&mut self, id: &str, tell: Tell) {
        match tell {
            Tell::Preparing => self.record(id, Kind::Preparing(v1::Preparing {})),
            Tell::Ready(prepared) => {
                if let Some(attempt) = self.attempts.get_mut(id) {
                    attempt.environment_cached = prepared.environment_cached;
                    attempt.published_step = prepared.restored.as_ref().and_then(|r| r.step);
                }
                for text in prepared.notes {
                    self.record(id, Kind::Note(v1::Note { level: "info".into(), text }));
                }
                if let Some(restored) = prepared.restored {
                    let (manifest_key, step) = (restored.key, restored.step);
                    let (bytes, took_ms) = (restored.bytes, restored.took_ms);
                    self.record(id, Kind::Restored(v1::Restored { manifest_key, step, bytes, took_ms }));
                }
            }
            Tell::Started(pid) => {
                let attempt = self.attempts.get(id);
                let began = attempt.and_then(|a| a.prepare_began);
                let took = began.map_or(0, |at| at.elapsed().as_millis());
                let started = v1::Started {
                    pid,
                    prepare_ms: u64::try_from(took).unwrap_or(u64::MAX),
                    environment_cached: attempt.is_some_and(|a| a.environment_cached),
                };
                self.record(id, Kind::Started(started));
                self.program_started(id, pid);
                self.warn(id);
                for text in self.world.unapplied_limits(id) {
                    self.record(id, Kind::Note(v1::Note { level: "warning".into(), text }));
                }
            }
            Tell::Stopping(why) => self.record(id, Kind::Stopping(v1::Stopping { why: why.into() })),
            Tell::Exited(ended) => {
                self.hang_is_over(id);
                let exited = v1::Exited {
                    exit: Some(convert::exit_message(&ended.exit)),
                    // Without a record of the end, when it was found is known.
                    at_ms: if ended.at_ms == 0 { (self.wall_ms)() } else { ended.at_ms },
                    out_of_memory: ended.out_of_memory,
                };
                self.record(id, Kind::Exited(exited));
            }
            Tell::Ended { ended, started, unpublished, transient, hang } => {
                self.hang_is_over(id);
                let dir = self.world.directory(id);
                let last_error_line = evidence::last_line(dir.as_ref(), &error_tail(&*self.world, id));
                let is_success = ended.exit.is_success() && hang.is_empty();
                let leave_machine = self.leave_machine(id, is_success);
                if is_success && ended.out_of_memory.starts_with("certain") {
                    let text = format!(
                        "it ended well, but {}: what that process did may be missing",
                        ended.out_of_memory.trim_start_matches("certain: ")
                    );
                    self.record(id, Kind::Note(v1::Note { level: "warning".into(), text }));
                }
                let ended = v1::Ended {
                    exit: Some(convert::exit_message(&ended.exit)),
                    last_error_line,
                    started,
                    max_rss_bytes: ended.max_rss_bytes,
                    out_of_memory: ended.out_of_memory,
                    unpublished,
                    transient,
                    hang,
                    leave_machine,
                    oom_pid: ended.oom_process.as_ref().map_or(0, |(pid, _)| *pid),
                    oom_command: ended.oom_process.map_or_else(String::new, |(_, command)| command),
                    unapplied_limits: ended.unapplied_limits,
                    alone: self.attempts.get(id).is_some_and(|a| a.alone),
                };
                if let Some(attempt) = self.attempts.get_mut(id) {
                    attempt.unpublished = !ended.unpublished.is_empty();
                }
                self.record(id, Kind::Ended(ended));
            }
        }
    }

    pub(super) fn done(&mut self, id: &str, done: Done) {
        let publishes =
            matches!(done, Done::Scanned(_) | Done::Published(..) | Done::Settled(_) | Done::Salvaged(_));
        match done {
            Done::Prepared(result) => self.input(id, Input::Prepared(result)),
            Done::Started(result) => self.input(id, Input::Started(result)),
            Done::Asked(reached) => {
                if let (false, Some(attempt)) = (reached, self.attempts.get_mut(id)) {
                    attempt.supervisor.not_reached();
                }
            }
            Done::Scanned(found) => self.scanned(id, found),
            Done::Published(candidate, outcome) => self.published(id, &candidate, outcome),
            Done::Settled(settlement) => self.settlement(id, settlement),
            Done::Salvaged(outcome) => self.salvaged(id, &outcome),
            Done::Warned(warned) => self.warned(id, &warned),
            Done::AskedToSave(processes) => self.asked_to_save(id, processes),
            Done::AskedAgain(processes) => self.asked_again(id, processes),
            Done::Nothing => {}
            Done::Finished(unpublished, facts) => {
                for kind in facts {
                    self.record(id, kind);
                }
                if let Some(attempt) = self.attempts.get_mut(id) {
                    attempt.publishing = false;
                }
                self.input(id, Input::Finished(unpublished));
            }
        }
        if publishes {
            self.finish_what_waits(id);
        }
    }

    /// Looks for new checkpoints, or publishes the newest found.
    pub(super) fn scan(&mut self) {
        let now = Instant::now();
        let mut settles = Vec::new();
        for (id, attempt) in &mut self.attempts {
            let running = attempt.supervisor.phase == Phase::Running && !attempt.supervisor.is_superseded();
            if !running || attempt.publishing || attempt.retry_at.is_some_and(|at| now < at) {
                continue;
            }
            if self.welcomed
                && let Some(fresh) = attempt.settles(now)
            {
                settles.push((id.clone(), fresh));
                continue;
            }
            attempt.publishing = true;
            let (world, work, key) = (self.world.clone(), attempt.work.clone(), id.clone());
            if let Some(candidate) = attempt.queue.pop() {
                let gateway = self.gateway.clone();
                self.jobs.spawn(async move {
                    let outcome = world.publish(work, candidate.clone(), gateway).await;
                    (key, Done::Published(candidate, outcome))
                });
            } else {
                self.jobs.spawn(async move { (key, Done::Scanned(world.candidates(work, false).await)) });
            }
        }
        for (id, fresh) in settles {
            self.spawn_settle(&id, fresh);
        }
    }

    fn scanned(&mut self, id: &str, found: Vec<Candidate>) {
        for text in self.world.remarks(id) {
            self.record(id, Kind::Note(v1::Note { level: "warning".into(), text }));
        }
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        attempt.publishing = false;
        if attempt.supervisor.phase != Phase::Running {
            return;
        }
        let (now, boot) = (Instant::now(), (self.boottime_ms)());
        let (step_now, durable) = (attempt.step(), attempt.published_step);
        let mut seen = Vec::new();
        let mut newest = None;
        for mut candidate in found.into_iter().filter(|candidate| !candidate.older) {
            // A name without a step belongs to the step just reported.
            candidate.step = candidate.step.or_else(|| unnamed(step_now, durable));
            if attempt.announced.insert(candidate.token.clone(), ()).is_none() {
                if let Some(asked) = &mut attempt.asked {
                    asked.found(&candidate.token);
                }
                self.pace.found = now;
                attempt.saves.found(boot);
                seen.push(v1::CheckpointSeen { name: candidate.name.clone(), step: candidate.step });
            }
            if newest.is_none() {
                newest = Some(candidate);
            }
        }
        // The newest first; older ones only when nothing newer waits.
        if let Some(candidate) = newest {
            attempt.queue.push(candidate);
        }
        for fact in seen.into_iter().rev() {
            self.record(id, Kind::CheckpointSeen(fact));
        }
        // What was found goes out at once; an empty scan waits for its turn.
        if self.attempts.get(id).is_some_and(|a| !a.queue.is_empty()) {
            self.scan();
        }
    }

    fn published(&mut self, id: &str, candidate: &Candidate, outcome: Published) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        attempt.publishing = false;
        match &outcome {
            Published::Later(why) | Published::Local(why) => attempt.strain.failed(why),
            // It did not come to the store.
            Published::Gone => {}
            _ => attempt.strain.over(),
        }
        match outcome {
            Published::Durable { key, step } => {
                attempt.saves.durable((self.boottime_ms)());
                attempt.retry_at = None;
                attempt.published_step = attempt.published_step.max(step);
                // What waited before it was committed with it, and is told now.
                attempt.settle.soon();
                self.record(id, stored_fact(key, step));
                self.answered(id, step, Some(candidate));
            }
            Published::Stored { key, .. } => {
                tracing::info!(key, "stored; it is durable once the controller answers");
                attempt.retry_at = None;
                attempt.settle.soon();
            }
            Published::Superseded => self.input(id, Input::Superseded),
            Published::Refused(why) => {
                let text = format!("checkpoint {} cannot be published: {why}", candidate.name);
                self.record(id, Kind::Note(v1::Note { level: "warning".into(), text }));
            }
            Published::Later(why) | Published::Local(why) => {
                tracing::info!(why, name = candidate.name, "a publish must be tried again");
                attempt.retry_at = Some(Instant::now() + RETRY);
            }
            Published::Gone => {}
        }
    }
}

/// The last words of the error stream.
pub(super) fn error_tail(world: &dyn crate::world::World, id: &str) -> String {
    // The end is found by doubling steps: reading all of a long stream for
    // its last line would be wasteful.
    let has = |offset: u64| world.read(id, Output::Stderr, offset, 1) != Piece::Nothing;
    let mut low = 0_u64;
    let mut step = 1 << 20;
    while step > 0 {
        if has(low + step) { low += step } else { step /= 2 }
    }
    let mut at = low.saturating_sub(TAIL);
    let mut tail = Vec::new();
    loop {
        match world.read(id, Output::Stderr, at, 64 << 10) {
            Piece::Bytes(bytes) => {
                at += bytes.len() as u64;
                tail.extend(bytes);
            }
            Piece::Gap(to) => at = to,
            Piece::Nothing => break,
        }
        if tail.len() > 1 << 20 {
            break;
        }
    }
    String::from_utf8_lossy(&tail).into_owned()
}
