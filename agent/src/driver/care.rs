//! Looking after the machine and its programs: samples, reports, alerts, hangs,
//! room on the disk, evidence. Decisions are made elsewhere, purely
//! ([`crate::health`]); what may wait for a disk or a process is done by two
//! threads of their own, so that heartbeats never wait with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::RunSpec;
use lifecycle::spec::{HangAction, HealthSpec};
use proto::v1::{self, event::Kind, up};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::attempt::Attempt;
use super::effects::error_tail;
use super::{Done, Driver};
use crate::evidence::{self, Part};
use crate::health::hang::{Change, Hang, Learned, Signs, Watch};
use crate::health::{Monitor, Outcome};
use crate::os;
use crate::supervisor::{Input, Phase};
use crate::world::layout::AttemptDir;
use crate::world::{Published, Relief, World};

mod chores;

pub(super) use chores::Heard;
use chores::{Ask, Chore, Hands, Told, Worker};

/// Without an attempt that says otherwise.
const EVERY: Duration = Duration::from_secs(10);
/// While something will be used up within [`SOON_S`] seconds.
const EVERY_SOON: Duration = Duration::from_secs(1);
const SOON_S: f64 = 120.0;
/// Between two looks at the room on the disk while a program runs.
const ROOM: Duration = Duration::from_millis(400);
/// A dump that takes longer is not waited for before the program is ended.
const DUMP: Duration = Duration::from_secs(20);
/// An answer of the sampler that is so late is told of.
const LATE: Duration = Duration::from_secs(10);
/// Places in the uplink's queue that reports leave free.
const RESERVED: usize = 4;
/// Alerts that are told for one attempt at most: each is a durable fact.
const ALERTS: u32 = 200;
/// Samples that are kept for the end.
const SAMPLES: usize = 10;

/// What the next process of the agent must know of an attempt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    learned: Learned,
    /// Why the program is being ended; empty: it is not.
    #[serde(default)]
    hang: String,
    /// Why the next try belongs elsewhere.
    #[serde(default)]
    leave: String,
}

/// One attempt as it is looked after.
pub(super) struct AttemptCare {
    dir: Option<AttemptDir>,
    spec: HealthSpec,
    pub(super) pid: i32,
    watch: Watch,
    usage: os::Usage,
    kept: Kept,
    /// A hang that is ended as soon as its dump is there, at the latest then.
    ending: Option<(String, Instant)>,
    alerts: u32,
    began: Instant,
    minute_due: Instant,
    line_due: Instant,
    samples: VecDeque<Value>,
    /// Its disk is full and nothing is left to delete.
    stuck: bool,
}

impl AttemptCare {
    pub(super) fn open(work: &v1::Work, world: &dyn World) -> Self {
        let spec: Option<RunSpec> = serde_json::from_str(&work.spec_json).ok();
        let spec = spec.map(|spec| spec.health).unwrap_or_default();
        let dir = world.directory(&work.attempt_id);
        let kept = dir.as_ref().and_then(|dir| os::read_bounded(&dir.care(), 64 << 10).ok());
        let kept: Kept = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let expects_steps = work.resume.iter().any(|offer| offer.step.is_some());
        let after_ms = spec.hang.after_seconds.saturating_mul(1_000);
        let now = Instant::now();
        Self {
            dir,
            watch: Watch::new(after_ms, expects_steps, kept.learned),
            spec,
            pid: 0,
            usage: os::Usage::default(),
            kept,
            ending: None,
            alerts: 0,
            began: now,
            minute_due: now,
            line_due: now,
            samples: VecDeque::new(),
            stuck: false,
        }
    }

    /// Why the agent before this one was ending the program; empty: it was not.
    pub(super) fn found_hang(&self) -> &str {
        &self.kept.hang
    }

    /// How often its program is looked at.
    fn every(&self) -> Duration {
        let interval = Duration::from_secs(self.spec.interval_seconds.clamp(1, 3_600));
        if self.spec.hang.action == HangAction::Off {
            return interval;
        }
        interval.min(Duration::from_secs(self.spec.hang.after_seconds / 5)).max(EVERY_SOON)
    }

    /// Whether a figure belongs into the evidence now: each minute, later less
    /// often, so that days fit into the quota.
    fn line_is_due(&mut self, now: Instant) -> bool {
        let spacing = match now.duration_since(self.began).as_secs() {
            0..3_600 => 60,
            3_600..86_400 => 300,
            _ => 1_800,
        };
        let due = now >= self.line_due;
        if due {
            self.line_due = now + Duration::from_secs(spacing);
        }
        due
    }
}

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
            if care.sampler.ask(Ask { spec, extra }) {
                care.asked = Some(now);
            }
        } else if care.asked.is_some_and(|at| now >= at + LATE) {
            // Whoever asks must hear that nothing is known, not what was.
            care.late = true;
            self.report();
        }
    }

    fn make_room(&mut self, now: Instant) {
        let Some(care) = &mut self.care else { return };
        if now < care.room_due || care.making_room {
            return;
        }
        care.room_due = now + ROOM;
        let running = self.attempts.values().find(|a| {
            matches!(a.supervisor.phase, Phase::Running | Phase::Finishing(_)) && a.care.dir.is_some()
        });
        let Some(attempt) = running else { return };
        let filling = attempt.care.dir.as_ref().map_or(0.0, |dir| care.filling_per_s(dir));
        care.making_room = care.hands.ask(Chore::Relieve(Box::new(attempt.work.clone()), filling));
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
                for (id, usage) in usages {
                    self.looked(&id, usage);
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
        let (alerts, forecasts) =
            care.last.as_ref().map(|last| (last.active.clone(), last.forecasts.clone())).unwrap_or_default();
        let attempts = self.attempts.values().map(|a| attempt_health(a, clock)).collect();
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

    /// What its tree uses now: does it still make progress?
    fn looked(&mut self, id: &str, usage: os::Usage) {
        let clock = (self.boottime_ms)();
        let wall = (self.wall_ms)();
        let Some(care) = &mut self.care else { return };
        let gpu_percent = care.gpu_percent();
        let Some(attempt) = self.attempts.get_mut(id).filter(|a| a.supervisor.phase == Phase::Running) else {
            return;
        };
        let signs = Signs {
            at_ms: clock,
            step: attempt.step(),
            output_bytes: attempt.output_bytes(),
            checkpoints: attempt.announced.len() as u64,
            cpu_ms: Some(usage.cpu_ms),
            io_bytes: usage.io_bytes,
            gpu_percent,
        };
        let of = &mut attempt.care;
        of.usage = usage;
        if of.spec.hang.action == HangAction::Off {
            return;
        }
        let every = u64::try_from(of.every().as_millis()).unwrap_or(u64::MAX);
        let change = of.watch.observe(signs, every);
        let slow = of.watch.pace();
        let learned = of.watch.learned();
        let pause_grew = learned.longest_pause_ms > of.kept.learned.longest_pause_ms.saturating_mul(5) / 4;
        if learned.stepped != of.kept.learned.stepped || pause_grew {
            of.kept.learned = learned;
            care.hands.ask(Chore::Keep(id.to_owned(), serde_json::to_vec(&of.kept).unwrap_or_default()));
        }
        if let Some(slow) = slow {
            let text = format!(
                "a step takes {:.0} ms, usually {:.0} ms ({:.1} times as long, limit 3 times)",
                slow.now_ms,
                slow.usual_ms,
                slow.now_ms / slow.usual_ms
            );
            let (value, limit) = (slow.now_ms, 3.0 * slow.usual_ms);
            let (name, level) = ("slow-steps".into(), "warning".into());
            let raised = slow.raised;
            self.alert(
                id,
                v1::Alert { name, level, raised, value, limit, text, at_ms: wall, ..v1::Alert::default() },
            );
        }
        match change {
            Some(Change::Hung(hang)) => self.hung(id, &hang, wall),
            Some(Change::Moves) => {
                let text = "it makes progress again".to_owned();
                let name = "hang".to_owned();
                self.alert(
                    id,
                    v1::Alert { name, level: "info".into(), text, at_ms: wall, ..v1::Alert::default() },
                );
            }
            None => {}
        }
    }

    /// It makes no progress: the ladder is climbed as far as it may be.
    fn hung(&mut self, id: &str, hang: &Hang, at_ms: u64) {
        let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
        self.alert(
            id,
            v1::Alert {
                name: "hang".into(),
                level: "critical".into(),
                raised: true,
                value: seconds(hang.quiet_ms),
                limit: seconds(hang.limit_ms),
                text: hang.text.clone(),
                at_ms,
                ..v1::Alert::default()
            },
        );
        let Some(care) = &mut self.care else { return };
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let action = attempt.care.spec.hang.action;
        let acts = action >= HangAction::Restart && hang.may_act;
        if acts {
            attempt.care.ending = Some((hang.text.clone(), Instant::now() + DUMP));
            if !care.fault.is_empty() {
                attempt.care.kept.leave.clone_from(&care.fault);
            }
        }
        let durable = attempt.work.resume.iter().filter_map(|offer| offer.step).max();
        let durable = attempt.published_step.max(durable);
        let moves = (acts && action >= HangAction::Move).then(|| (attempt.work.run_id.clone(), durable));
        let pids = attempt.care.usage.pids.clone();
        let asked = action >= HangAction::Dump
            && care.hands.ask(Chore::Dump { attempt: id.to_owned(), why: hang.text.clone(), pids, moves });
        if acts && !asked {
            self.end_hung(id);
        }
    }

    /// The dump is there, or is waited for no longer: the program is ended.
    fn end_hung(&mut self, id: &str) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let Some((text, _)) = attempt.care.ending.take() else { return };
        if attempt.supervisor.phase != Phase::Running {
            return;
        }
        attempt.care.kept.hang.clone_from(&text);
        let kept = serde_json::to_vec(&attempt.care.kept).unwrap_or_default();
        let grace_ms = attempt.work.grace_seconds.saturating_mul(1_000);
        if let Some(care) = &mut self.care {
            care.hands.ask(Chore::Keep(id.to_owned(), kept));
        }
        self.input(id, Input::Hung(text, grace_ms));
    }

    /// Why the next try belongs on another machine; empty: it need not.
    pub(super) fn leave_machine(&self, id: &str, is_success: bool) -> String {
        let Some(attempt) = self.attempts.get(id).filter(|_| !is_success) else { return String::new() };
        let fault = self.care.as_ref().map(|care| care.fault.clone()).unwrap_or_default();
        if attempt.care.kept.leave.is_empty() { fault } else { attempt.care.kept.leave.clone() }
    }

    /// What was deleted is told; where nothing is left to delete, what the
    /// program has is brought to safety while it can be.
    fn relieved(&mut self, id: &str, relief: Relief) {
        for text in relief.deleted {
            self.record(id, Kind::Note(v1::Note { level: "info".into(), text }));
        }
        let wall = (self.wall_ms)();
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let stuck = relief.lacking > 0;
        if stuck == attempt.care.stuck || attempt.supervisor.phase != Phase::Running {
            return;
        }
        attempt.care.stuck = stuck;
        let salvages = stuck && !attempt.publishing;
        let work = attempt.work.clone();
        attempt.publishing |= salvages;
        let text = if stuck {
            format!(
                "the disk of the checkpoints lacks {} MB and nothing is left to delete: results are published now",
                relief.lacking.div_ceil(1_000_000)
            )
        } else {
            "the disk of the checkpoints has room again".to_owned()
        };
        let subject =
            attempt.care.dir.as_ref().map_or_else(String::new, |d| d.checkpoints().display().to_string());
        #[expect(clippy::cast_precision_loss, reason = "bytes of a disk, for display")]
        let value = relief.lacking as f64;
        let (name, level) = ("disk-full".to_owned(), if stuck { "critical" } else { "info" }.to_owned());
        let alert = v1::Alert {
            name,
            subject,
            level,
            raised: stuck,
            value,
            text,
            at_ms: wall,
            ..v1::Alert::default()
        };
        self.alert(id, alert);
        if salvages {
            let (world, gateway, key) = (self.world.clone(), self.gateway.clone(), id.to_owned());
            self.jobs.spawn(async move { (key, Done::Salvaged(world.publish_outputs(work, gateway).await)) });
        }
    }

    /// The results were published because the disk is full, or could not be.
    pub(super) fn salvaged(&mut self, id: &str, outcome: &Published) {
        if let Some(attempt) = self.attempts.get_mut(id)
            && attempt.supervisor.phase == Phase::Running
        {
            attempt.publishing = false;
        }
        tracing::info!(?outcome, attempt = id, "results were published for want of room");
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

    /// Removes the files of attempts that are delivered, off this thread where
    /// the machine is a real one.
    pub(super) fn forget(&mut self, id: &str) {
        if self.care.is_none() {
            self.world.forget(id);
            return;
        }
        let (world, id) = (self.world.clone(), id.to_owned());
        self.jobs.spawn_blocking(move || {
            world.forget(&id);
            (id, Done::Nothing)
        });
    }

    /// Makes metric batches durable, off this thread where the machine is a
    /// real one: a disk that does not answer must not stop the heartbeat.
    pub(super) fn sync_metrics(&mut self) {
        for (id, attempt) in &mut self.attempts {
            if self.care.is_none() {
                attempt.sync();
            } else if let Some(file) = attempt.unsynced() {
                let id = id.clone();
                self.jobs.spawn_blocking(move || {
                    if let Err(error) = file.sync_data() {
                        tracing::warn!(%error, "the outbox could not be synced");
                    }
                    (id, Done::Synced)
                });
            }
        }
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

fn attempt_health(attempt: &Attempt, clock_ms: u64) -> v1::AttemptHealth {
    let phase = match attempt.supervisor.phase {
        Phase::New | Phase::Preparing | Phase::Starting => "preparing",
        Phase::Running => "running",
        Phase::Finishing(_) => "finishing",
        Phase::Ended => "ended",
    };
    let of = &attempt.care;
    v1::AttemptHealth {
        attempt_id: attempt.work.attempt_id.clone(),
        run_name: attempt.work.run_name.clone(),
        phase: phase.to_owned(),
        pid: of.pid,
        step: attempt.step(),
        step_seconds: of.watch.step_ms().unwrap_or(0.0) / 1_000.0,
        since_progress_ms: of.watch.quiet_ms(clock_ms),
        rss_bytes: of.usage.rss_bytes,
        processes: u32::try_from(of.usage.pids.len()).unwrap_or(u32::MAX),
        cpu_seconds: Duration::from_millis(of.usage.cpu_ms).as_secs_f64(),
    }
}

/// Evidence of a program that is dumped: where each of its processes waits.
fn dump(dir: &AttemptDir, why: &str, pids: &[i32]) {
    let note = |fields| evidence::note(dir, Part::Course, "stacks", fields);
    note(json!({"why": why, "processes": pids.len()}));
    let stacks = os::stacks(pids);
    for stack in &stacks {
        note(json!({"process": stack}));
    }
    chores::interpreters(dir, &stacks, note);
}
