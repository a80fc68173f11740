//! Looking after the machine and its programs: samples, reports, alerts, hangs,
//! room on the disk, evidence. Decisions are made elsewhere, purely
//! ([`crate::health`]); what may wait for a disk or a process is done by two
//! threads of their own, so that heartbeats never wait with it.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::{self, event::Kind, up};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Driver;
use super::attempt::Attempt;
use super::effects::error_tail;
use crate::evidence;
use crate::health::{Monitor, Outcome};
use crate::os;
use crate::supervisor::Phase;
use crate::world::World;
use crate::world::layout::AttemptDir;

mod attempt;
mod chores;
mod hangs;
mod room;
#[cfg(test)]
mod tests;

pub(super) use attempt::AttemptCare;
use attempt::attempt_health;
pub(super) use chores::Heard;
use chores::{Ask, Chore, Hands, Told, Worker};

/// Without an attempt that says otherwise.
const EVERY: Duration = Duration::from_secs(10);
/// While something will be used up within [`SOON_S`] seconds.
const EVERY_SOON: Duration = Duration::from_secs(1);
const SOON_S: f64 = 120.0;
/// An answer of the sampler that is so late is told of.
const LATE: Duration = Duration::from_secs(10);
/// Places in the uplink's queue that reports leave free.
const RESERVED: usize = 4;
/// Alerts that are told for one attempt at most: each is a durable fact.
const ALERTS: u32 = 200;
/// Samples that are kept for the end.
const SAMPLES: usize = 10;

/// The driver's part.
pub(super) struct Care {
    sampler: Worker<Ask, Outcome>,
    hands: Worker<Chore, Told>,
    began: Instant,
    due: Instant,
    room_due: Instant,
    looking: bool,
    making_room: bool,
    asked: Option<Instant>,
    late: bool,
    last: Option<Outcome>,
    /// A hardware fault that stands.
    fault: String,
}

impl Care {
    /// Looks after a real machine; `None`: nothing is looked after here.
    pub(super) fn begin(world: &Arc<dyn World>) -> Option<Self> {
        let mut monitor: Monitor = world.monitor()?;
        let mut hands = Hands::new(world.clone());
        let now = Instant::now();
        Some(Self {
            sampler: Worker::new("health", move |ask: Ask| {
                monitor.set_spec(&ask.spec);
                monitor.set_extra(ask.extra);
                monitor.set_programs(ask.programs);
                monitor.sample(os::boottime_ms(), os::unix_ms())
            })?,
            hands: Worker::new("care", move |chore| hands.perform(chore))?,
            began: now,
            due: now,
            room_due: now,
            looking: false,
            making_room: false,
            asked: None,
            late: false,
            last: None,
            fault: String::new(),
        })
    }

    /// What the threads have to tell; never, where nothing is looked after.
    pub(super) async fn next(this: &mut Option<Self>) -> Heard {
        let Some(care) = this else { return std::future::pending().await };
        tokio::select! {
            biased;
            told = care.hands.told() => Heard::Told(told),
            outcome = care.sampler.told() => Heard::Sampled(Box::new(outcome)),
        }
    }

    fn gpu_percent(&self) -> Option<f64> {
        let gpus = &self.last.as_ref()?.sample.gpus;
        gpus.iter().filter_map(|gpu| gpu.utilization_percent).reduce(f64::max)
    }

    /// How fast the disk under this directory fills, in bytes per second.
    fn filling_per_s(&self, dir: &AttemptDir) -> f64 {
        let Some(last) = &self.last else { return 0.0 };
        let mounts = last.sample.mounts.iter().map(|mount| mount.path.as_str());
        let mount = mounts.filter(|path| dir.path().starts_with(path)).max_by_key(|path| path.len());
        let what = mount.map(|path| format!("disk-full {path}"));
        last.forecasts.iter().find(|f| Some(&f.what) == what.as_ref()).map_or(0.0, |f| f.slope_per_s.abs())
    }

    fn is_soon(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.forecasts.iter().any(|f| f.in_seconds < SOON_S))
    }
}

impl Driver {
    /// Starts what is due.
    pub(super) fn take_care(&mut self, now: Instant) {
        self.watch_store(now);
        if self.care.is_none() {
            return;
        }
        let clock = (self.boottime_ms)();
        let mut overdue = Vec::new();
        for (id, attempt) in &mut self.attempts {
            if let Some(step) = attempt.step() {
                attempt.care.watch.step(clock, step);
            }
            if attempt.care.ending.as_ref().is_some_and(|(_, at)| now >= *at) {
                overdue.push(id.clone());
            }
        }
        for id in overdue {
            self.end_hung(&id);
        }
        self.look_after(now);
        self.make_room(now);
    }

    /// Asks for a sample and for what the programs use.
    fn look_after(&mut self, now: Instant) {
        let running = |a: &&Attempt| a.supervisor.phase == Phase::Running && a.care.pid > 0;
        let Some(care) = &mut self.care else { return };
        if now < care.due {
            return;
        }
        let every = self.attempts.values().filter(running).map(|a| a.care.every()).min().unwrap_or(EVERY);
        care.due = now + if care.is_soon() { EVERY_SOON } else { every };
        let trees: Vec<(String, i32)> = self
            .attempts
            .iter()
            .filter(|(_, a)| running(a))
            .map(|(id, a)| (id.clone(), a.care.pid))
            .collect();
        if !trees.is_empty() && !care.looking {
            care.looking = care.hands.ask(Chore::Look(trees));
        }
        if care.asked.is_none() {
            let newest = self.attempts.values().rfind(|a| a.supervisor.phase != Phase::Ended);
            let spec = newest.map(|a| a.care.spec.clone()).unwrap_or_default();
            let dirs = self.attempts.values().filter_map(|a| a.care.dir.as_ref());
            let extra = dirs.map(|dir| ("checkpoints".to_owned(), dir.checkpoints())).take(8).collect();
            let programs = self.attempts.values().filter(running);
            let programs = programs.map(|a| (a.work.run_name.clone(), a.care.pid)).collect();
            if care.sampler.ask(Ask { spec, extra, programs }) {
                care.asked = Some(now);
            }
        } else if care.asked.is_some_and(|at| now >= at + LATE) {
            // Whoever asks must hear that nothing is known, not what was.
            care.late = true;
            self.report();
        }
    }

    /// Takes what the threads told.
    pub(super) fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Sampled(outcome) => self.sampled(*outcome),
            Heard::Told(Told::Nothing) => {}
            Heard::Told(Told::Looked(usages)) => {
                if let Some(care) = &mut self.care {
                    care.looking = false;
                }
                for (id, seen) in usages {
                    self.looked(&id, seen);
                }
            }
            Heard::Told(Told::Dumped(id, again)) => {
                if let Some(attempt) = self.attempts.get_mut(&id)
                    && again
                    && attempt.care.ending.is_some()
                    && attempt.care.kept.leave.is_empty()
                {
                    let why = "it hangs here again, without a newer durable step in between";
                    why.clone_into(&mut attempt.care.kept.leave);
                }
                self.end_hung(&id);
            }
            Heard::Told(Told::Relieved(id, relief)) => {
                if let Some(care) = &mut self.care {
                    care.making_room = false;
                }
                self.relieved(&id, relief);
            }
        }
    }

    fn sampled(&mut self, outcome: Outcome) {
        let Some(care) = &mut self.care else { return };
        care.asked = None;
        care.late = false;
        care.fault = outcome.leave_machine.clone().unwrap_or_default();
        let edges = outcome.edges.clone();
        if outcome.forecasts.iter().any(|f| f.in_seconds < SOON_S) {
            care.due = care.due.min(Instant::now() + EVERY_SOON);
        }
        care.last = Some(outcome);
        for alert in edges {
            let here: Vec<String> = self
                .attempts
                .iter()
                .filter(|(_, a)| a.supervisor.phase != Phase::Ended)
                .map(|(id, _)| id.clone())
                .collect();
            for id in here {
                self.alert(&id, alert.clone());
            }
        }
        self.note_samples();
        self.report();
    }

    /// A figure for the evidence of every running attempt, where it is due.
    fn note_samples(&mut self) {
        let now = Instant::now();
        let Some(care) = &mut self.care else { return };
        let Some(last) = &care.last else { return };
        for (id, attempt) in &mut self.attempts {
            let step = attempt.step();
            let of = &mut attempt.care;
            if attempt.supervisor.phase != Phase::Running || of.dir.is_none() || now < of.minute_due {
                continue;
            }
            of.minute_due = now + Duration::from_secs(60);
            let sample = chores::figures(&last.sample, &of.usage, step);
            if of.line_is_due(now) {
                care.hands.ask(Chore::Note(id.clone(), "sample", sample));
            } else {
                of.samples.push_back(sample);
                if of.samples.len() > SAMPLES {
                    of.samples.pop_front();
                }
            }
        }
    }

    /// The newest report: for whoever asks the agent, and for the controller if
    /// there is room on the way.
    fn report(&mut self) {
        let Some(care) = &self.care else { return };
        let clock = (self.boottime_ms)();
        let linked = self.connected && self.welcomed;
        let uptime = u64::try_from(care.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut sample = care.last.as_ref().map(|last| last.sample.clone()).unwrap_or_default();
        if care.late {
            sample.unreadable.push("no new sample: something that is read for it does not answer".into());
        }
        let (mut alerts, forecasts) =
            care.last.as_ref().map(|last| (last.active.clone(), last.forecasts.clone())).unwrap_or_default();
        alerts.extend(self.attempts.values().filter_map(|attempt| attempt.strain.raised()));
        let mut attempts: Vec<_> = self.attempts.values().map(|a| attempt_health(a, clock)).collect();
        for attempt in &mut attempts {
            attempt.checkpoints = self.world.standings(&attempt.attempt_id);
            let saves = self.attempts.get(&attempt.attempt_id).map(|a| &a.saves);
            attempt.saves = saves.and_then(|saves| saves.view(clock, self.between_losses_s()));
        }
        let agent_rss_bytes = os::own_rss_bytes();
        self.health.send_modify(|report| {
            *report = v1::HealthReport {
                machine_id: std::mem::take(&mut report.machine_id),
                boot_id: std::mem::take(&mut report.boot_id),
                version: std::mem::take(&mut report.version),
                agent_uptime_ms: uptime,
                sample: Some(sample),
                attempts,
                forecasts,
                alerts,
                agent_rss_bytes,
                linked,
            };
        });
        if linked && self.wire >= 1 && self.up.capacity() > RESERVED {
            let body = Some(up::Body::Health(self.health.borrow().clone()));
            // The next one is newer: none is worth waiting for.
            let _ = self.up.try_send(v1::Up { body });
        }
    }

    /// Tells an alert for an attempt, durably, and keeps it as evidence.
    fn alert(&mut self, id: &str, alert: v1::Alert) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        if attempt.care.alerts >= ALERTS {
            return;
        }
        attempt.care.alerts += 1;
        let line = json!({
            "name": alert.name, "subject": alert.subject, "level": alert.level, "raised": alert.raised,
            "value": alert.value, "limit": alert.limit, "text": alert.text,
        });
        if let Some(care) = &mut self.care {
            care.hands.ask(Chore::Note(id.to_owned(), "alert", line));
        }
        self.record(id, Kind::Alert(alert));
    }

    /// Its program was seen running.
    pub(super) fn program_started(&mut self, id: &str, pid: i32) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        attempt.care.pid = pid;
        let Some(care) = &mut self.care else { return };
        let now = Instant::now();
        care.due = now;
        let standing = care.last.as_ref().map(|last| last.active.clone()).unwrap_or_default();
        let gpus = care.last.as_ref().map_or(Value::Null, |last| chores::gpu_names(&last.sample));
        care.hands.ask(Chore::Begin(id.to_owned(), gpus));
        for alert in standing {
            self.alert(id, alert);
        }
    }

    /// What the last part of the evidence is made of.
    pub(super) fn last_words(&mut self, id: &str) -> Option<(AttemptDir, Vec<Value>)> {
        let last = self.care.as_ref()?.last.as_ref();
        let attempt = self.attempts.get_mut(id)?;
        let step = attempt.step();
        let mut samples = Vec::from(std::mem::take(&mut attempt.care.samples));
        samples.extend(last.map(|last| chores::figures(&last.sample, &attempt.care.usage, step)));
        Some((attempt.care.dir.clone()?, samples))
    }
}

/// Writes the last part of the evidence, before the end is told.
pub(super) async fn end_evidence(
    world: &Arc<dyn World>,
    id: &str,
    last_words: Option<(AttemptDir, Vec<Value>)>,
) {
    let Some((dir, samples)) = last_words else { return };
    let tail = error_tail(&**world, id);
    let written = tokio::task::spawn_blocking(move || {
        let rank =
            crate::ranks::root_cause(&tail).map(|rank| json!({"text": rank.to_string(), "rank": rank.rank}));
        evidence::end(&dir, &samples, rank);
    })
    .await;
    if let Err(error) = written {
        tracing::warn!(%error, attempt = id, "the last evidence could not be written");
    }
}
