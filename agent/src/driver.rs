//! The one task that owns every attempt of the machine: it feeds the
//! supervisors, performs their effects, and sends facts. Heartbeats are made
//! here, so that a driver that hangs falls silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::v1::{self, down, fact, up};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::deadman::{DeadMan, Tariff};
use crate::notice::Heard;
use crate::outbox::Settled;
use crate::supervisor::{Input, Phase, Wish};
use crate::uplink::Event;
use crate::world::{Ending, SharedGateway, World};

mod attempt;
mod cadence;
mod care;
mod disk;
mod effects;
mod ending;
mod finish;
mod notice;
mod pace;
mod send;
mod settle;
mod strain;
mod upgrade;

pub use attempt::Attempt;
pub use effects::Done;

/// Between two looks at output that flows.
const LOOK: Duration = Duration::from_millis(40);
/// Messages of the controller that are taken at once.
const BURST: usize = 64;
/// Between two looks at whether a program still runs.
const PROGRAM_LOOK: Duration = Duration::from_millis(80);
/// Between two syncs of metric batches.
const SYNC: Duration = Duration::from_secs(1);

/// What the driver is made of.
pub struct Parts {
    /// The machine.
    pub world: Arc<dyn World>,
    /// Where published bytes go.
    pub gateway: SharedGateway,
    /// To the uplink.
    pub up: mpsc::Sender<v1::Up>,
    /// From the uplink.
    pub events: mpsc::Receiver<Event>,
    /// What Hello must say.
    pub held: watch::Sender<Vec<v1::HeldAttempt>>,
    /// Milliseconds since the epoch, for display.
    pub wall_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Milliseconds of the boot-time clock.
    pub boottime_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The newest report of this machine's health, for whoever asks the agent.
    pub health: watch::Sender<v1::HealthReport>,
    /// When the loop last turned, by the boot-time clock: a driver that hangs
    /// must look hung to whoever asks, too.
    pub turned_ms: Arc<AtomicU64>,
}

/// The task.
pub struct Driver {
    world: Arc<dyn World>,
    gateway: SharedGateway,
    up: mpsc::Sender<v1::Up>,
    events: mpsc::Receiver<Event>,
    held: watch::Sender<Vec<v1::HeldAttempt>>,
    wall_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    boottime_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    turned_ms: Arc<AtomicU64>,
    health: watch::Sender<v1::HealthReport>,
    care: Option<care::Care>,
    disk: disk::OutboxDisk,
    attempts: BTreeMap<String, Attempt>,
    jobs: JoinSet<(String, Done)>,
    connected: bool,
    welcomed: bool,
    heartbeat: Duration,
    beat_due: Instant,
    renewals: u64,
    /// Until when the lease lasts: the time its renewal was *sent* plus its
    /// life, in milliseconds of the clock that goes on in suspend.
    lease_until_ms: u64,
    sent_renewals: BTreeMap<u64, u64>,
    /// Prepared, but without a lease: a machine that was given up must not
    /// start anything.
    waiting_for_lease: Vec<String>,
    /// An assignment that the disk refused; tried again.
    unkept: Option<v1::Work>,
    program_due: Instant,
    guard: upgrade::GuardLink,
    notices: notice::Notices,
    pace: pace::Pace,
    /// What the controller understands: `Welcome.wire`.
    wire: u32,
    deadman: DeadMan,
    /// How often machines like this one are lost, as the controller said last.
    between_losses_s: Option<f64>,
    ending: Option<Ending>,
}

impl Driver {
    /// A driver that has taken up nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            guard: upgrade::GuardLink::new(parts.world.guard()),
            notices: notice::Notices::default(),
            pace: pace::Pace::new(),
            disk: disk::OutboxDisk::new(&*parts.world),
            wire: 0,
            deadman: DeadMan::default(),
            between_losses_s: None,
            ending: parts.world.ending(),
            world: parts.world,
            gateway: parts.gateway,
            up: parts.up,
            events: parts.events,
            held: parts.held,
            wall_ms: parts.wall_ms,
            boottime_ms: parts.boottime_ms,
            turned_ms: parts.turned_ms,
            health: parts.health,
            care: None,
            attempts: BTreeMap::new(),
            jobs: JoinSet::new(),
            connected: false,
            welcomed: false,
            heartbeat: Duration::from_secs(1),
            beat_due: Instant::now(),
            renewals: 0,
            lease_until_ms: 0,
            waiting_for_lease: Vec::new(),
            unkept: None,
            sent_renewals: BTreeMap::new(),
            program_due: Instant::now(),
        }
    }

    /// Takes up what is on the machine, then serves until stopped. Programs go
    /// on when it stops.
    pub async fn run(mut self, stop: CancellationToken) {
        for work in self.world.held() {
            self.take_up(work);
        }
        self.tell_held();
        self.remember_deadline();
        self.care = care::Care::begin(&self.world);
        let mut scan_due = Instant::now();
        let mut sync_due = Instant::now();
        loop {
            let (look, told) = self.pace(scan_due);
            let change = self.change(told);
            let exit = self.exit(told);
            enum Next {
                Stop,
                Event(Option<Event>),
                Done(Option<(String, Done)>),
                Guard(upgrade::Heard),
                Care(care::Heard),
                Notice(Heard),
                Settled(Settled),
                Exit,
                Look,
            }
            // Arms only yield; whatever won is handled whole below.
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => Next::Stop,
                event = self.events.recv() => Next::Event(event),
                Some(done) = self.jobs.join_next() => Next::Done(done.ok()),
                heard = self.guard.next() => Next::Guard(heard),
                heard = care::Care::next(&mut self.care) => Next::Care(heard),
                heard = self.notices.next() => Next::Notice(heard),
                settled = self.disk.next() => Next::Settled(settled),
                () = exit => Next::Exit,
                () = change => Next::Look,
                () = tokio::time::sleep(look) => Next::Look,
            };
            let look = match &next {
                Next::Event(Some(event)) => pace::lets_send(event),
                next => matches!(next, Next::Look | Next::Exit),
            };
            self.pace.turn(look || !told);
            match next {
                Next::Stop | Next::Event(None) => break,
                Next::Event(Some(event)) => {
                    self.event(event);
                    // What came together is answered together: a look at everything
                    // after each would hold up a flood's acknowledgements.
                    for _ in 0..BURST {
                        let Ok(event) = self.events.try_recv() else { break };
                        self.pace.fresh |= pace::lets_send(&event);
                        self.event(event);
                    }
                }
                Next::Done(Some((id, done))) => self.done(&id, done),
                Next::Done(None) => {
                    // A fresh agent takes everything up from disk, this one might wait for ever.
                    tracing::error!("a job panicked; the agent ends and is started again");
                    break;
                }
                Next::Guard(upgrade::Heard::Upgraded(outcome)) => self.guard.outcome = Some(outcome),
                Next::Guard(upgrade::Heard::Farewell(farewell)) => {
                    self.leave(&farewell).await;
                    break;
                }
                Next::Care(heard) => self.heard(heard),
                Next::Notice(heard) => self.noticed(heard),
                Next::Settled(settled) => self.settled(&settled),
                // At once, however short ago programs were looked at.
                Next::Exit => {
                    self.pace.looks_at_ends();
                    self.program_due = Instant::now();
                }
                Next::Look => {}
            }
            self.turn(&mut scan_due, &mut sync_due);
            // All share one thread: beside a backlog the link would get its turn once in many of these.
            tokio::task::yield_now().await;
        }
        self.flush(disk::LAST).await;
    }

    /// What every turn of the loop does, whatever woke it.
    fn turn(&mut self, scan_due: &mut Instant, sync_due: &mut Instant) {
        self.turned_ms.store((self.boottime_ms)(), Ordering::Relaxed);
        self.observe();
        let now = Instant::now();
        if self.pace.scans(now, *scan_due) {
            *scan_due = now + self.pace.scan(now);
            self.scan();
        }
        if now >= *sync_due {
            *sync_due = now + SYNC;
            self.sync_metrics();
            let again = self.unkept.take();
            self.assignment(again);
        }
        self.take_care(now);
        self.watch_disk(now);
        self.watch_notices(now);
        self.watch_saves();
        self.beat(now);
        self.watch_deadline();
        self.send();
        self.tell_upgrade();
    }

    fn take_up(&mut self, work: v1::Work) {
        let id = work.attempt_id.clone();
        match Attempt::open(work, &*self.world, self.disk.pen.clone()) {
            Ok(mut attempt) => {
                attempt.wire = self.wire;
                self.attempts.insert(id, attempt);
            }
            Err(error) => tracing::error!(attempt = id, %error, "an attempt's outbox cannot be opened"),
        }
    }

    fn tell_held(&self) {
        let held = self.attempts.values().map(|a| v1::HeldAttempt {
            attempt_id: a.work.attempt_id.clone(),
            generation: a.work.generation,
        });
        let _ = self.held.send(held.collect());
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected => {
                self.connected = true;
                self.welcomed = false;
                self.renewals = 0;
                self.sent_renewals.clear();
                self.beat_due = Instant::now();
            }
            Event::Disconnected => {
                self.connected = false;
                self.welcomed = false;
            }
            Event::Down(message) => match message.body {
                Some(body) => self.down(body),
                None => tracing::warn!("a message of a newer version was ignored"),
            },
        }
    }

    fn down(&mut self, body: down::Body) {
        match body {
            down::Body::Welcome(welcome) => {
                self.welcomed = true;
                // The first lease is asked for now, not a heartbeat later: a
                // program that is ready waits for it.
                self.beat_due = Instant::now();
                self.guard.welcomed();
                self.heartbeat = Duration::from_millis(welcome.heartbeat_ms.clamp(50, 60_000));
                self.wire = welcome.wire;
                self.notices.again();
                for attempt in self.attempts.values_mut() {
                    attempt.wire = welcome.wire;
                    attempt.rewind();
                }
                self.settle_all();
                for position in &welcome.positions {
                    self.position(position, true);
                }
            }
            down::Body::Ack(ack) => {
                for position in &ack.positions {
                    self.position(position, false);
                }
            }
            down::Body::Nack(nack) => {
                if let Some(position) = nack.expected {
                    self.position(&position, true);
                }
            }
            down::Body::Granted(granted) => {
                if let Some(sent) = self.sent_renewals.remove(&granted.n) {
                    self.lease_until_ms = sent.saturating_add(granted.ttl_ms);
                    self.deadman.granted(sent, granted.allowance_ms, granted.unlimited);
                    self.deadman.priced(Tariff::of(&granted));
                    if granted.between_losses_ms > 0 {
                        let told = Duration::from_millis(granted.between_losses_ms);
                        self.between_losses_s = Some(told.as_secs_f64());
                    }
                }
                self.sent_renewals.retain(|n, _| *n > granted.n);
                for id in std::mem::take(&mut self.waiting_for_lease) {
                    self.start(&id);
                }
            }
            down::Body::Superseded(superseded) => self.input(&superseded.attempt_id, Input::Superseded),
            down::Body::Assignment(assignment) => self.assignment(assignment.work),
            down::Body::Upgrade(upgrade) => self.guard.begin(self.gateway.clone(), upgrade),
            down::Body::Unsupported(why) => {
                tracing::warn!(why, "the controller does not understand this agent");
            }
        }
    }

    fn position(&mut self, position: &v1::Position, rewind: bool) {
        let Some(attempt) = self.attempts.get_mut(&position.attempt_id) else { return };
        let stream = v1::Stream::try_from(position.stream).unwrap_or_default();
        if let Some(output) = attempt.acked(stream, position.next, rewind) {
            self.world.release(&position.attempt_id, output, position.next);
        }
    }

    fn assignment(&mut self, work: Option<v1::Work>) {
        let Some(work) = work else { return };
        let id = work.attempt_id.clone();
        if work.forget {
            // Its end is durable at the controller; what is delivered in full
            // need not lie around.
            if self.attempts.get(&id).is_some_and(Attempt::is_delivered) {
                self.attempts.remove(&id);
                self.forget(&id);
                self.tell_held();
            }
            return;
        }
        let newest =
            self.attempts.values().filter(|a| a.work.run_id == work.run_id).map(|a| a.work.generation).max();
        if !self.attempts.contains_key(&id) {
            if newest.is_some_and(|g| g >= work.generation) {
                tracing::warn!(
                    generation = work.generation,
                    "an assignment older than what is here was refused"
                );
                return;
            }
            // Older attempts go first: what they held may be the room it needs.
            self.supersede_others(&work);
            let kept = self.world.keep(&work);
            if let Err(error) = &kept {
                tracing::error!(%error, "an assignment could not be kept; it is tried again");
            } else {
                self.take_up(v1::Work { sealing: None, secrets: Vec::new(), ..work.clone() });
            }
            if !self.attempts.contains_key(&id) {
                self.unkept = Some(work);
                return;
            }
            self.tell_held();
        }
        // An agent that was started again has none, and recipients may change.
        self.world.entrust(&work);
        let wish = match v1::Wish::try_from(work.wish).unwrap_or_default() {
            v1::Wish::Run | v1::Wish::Unspecified => Wish::Run,
            v1::Wish::Stop => Wish::Stop(work.grace_seconds.saturating_mul(1_000)),
            v1::Wish::Kill => Wish::Kill,
        };
        self.input(&id, Input::Wished(wish));
    }

    /// Older attempts of the same run on this machine count no more.
    fn supersede_others(&mut self, work: &v1::Work) {
        let older: Vec<String> = self
            .attempts
            .values()
            .filter(|a| a.work.run_id == work.run_id && a.supervisor.phase != Phase::Ended)
            .map(|a| a.work.attempt_id.clone())
            .collect();
        for id in older {
            self.input(&id, Input::Superseded);
        }
        let done: Vec<String> = self
            .attempts
            .values()
            .filter(|a| a.work.run_id == work.run_id && a.is_delivered())
            .map(|a| a.work.attempt_id.clone())
            .collect();
        for id in done {
            self.attempts.remove(&id);
            self.forget(&id);
        }
    }

    fn input(&mut self, id: &str, input: Input) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let ends = matches!(input, Input::Superseded | Input::Wished(Wish::Kill));
        if ends && matches!(attempt.supervisor.phase, Phase::Finishing(_)) {
            attempt.cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        let effects = attempt.supervisor.step(input);
        for effect in effects {
            self.perform(id, effect);
        }
    }

    fn observe(&mut self) {
        if !self.pace.fresh {
            return;
        }
        let now = Instant::now();
        let due = now >= self.program_due;
        self.pace.unseen = !due;
        if due {
            self.program_due = now + PROGRAM_LOOK;
        }
        let ids: Vec<String> =
            self.attempts.values().filter(|a| a.is_busy()).map(|a| a.work.attempt_id.clone()).collect();
        for id in ids {
            let Some(attempt) = self.attempts.get_mut(&id) else { continue };
            let before = attempt.output_bytes();
            attempt.meter(&id, &*self.world, &*self.wall_ms);
            if attempt.output_bytes() != before {
                self.pace.flows(now);
            }
            let phase = &attempt.supervisor.phase;
            if matches!(phase, Phase::New | Phase::Starting) || (due && *phase == Phase::Running) {
                let program = self.world.program(&id);
                self.input(&id, Input::Observed(program));
            }
        }
    }

    fn beat(&mut self, now: Instant) {
        if !self.connected || !self.welcomed || now < self.beat_due {
            if now >= self.beat_due {
                self.beat_due = now + self.heartbeat;
            }
            return;
        }
        self.beat_due = now + self.heartbeat;
        self.renewals += 1;
        let (disk_free_bytes, memory_free_bytes) =
            if self.renewals % 10 == 1 { self.world.free() } else { (0, 0) };
        let renew = v1::Renew {
            n: self.renewals,
            boottime_ms: (self.boottime_ms)(),
            disk_free_bytes,
            memory_free_bytes,
            thinned: self.attempts.values().map(Attempt::thinned).sum(),
        };
        if self.up.try_send(v1::Up { body: Some(up::Body::Renew(renew)) }).is_ok() {
            self.sent_renewals.insert(self.renewals, (self.boottime_ms)());
        }
    }

    fn record(&mut self, id: &str, kind: v1::event::Kind) {
        let now = (self.wall_ms)();
        if let Some(attempt) = self.attempts.get_mut(id) {
            attempt.record(now, fact::Body::Event(v1::Event { kind: Some(kind) }));
        }
    }
}
