//! The driver's side of its guard: signs of life from the main loop, programs
//! that are tried instead of this one, and the farewell of a machine that ends.
//! A program that is stopped for a farewell has not ended of itself: no end is
//! reported of it, and the run goes on elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::v1::{self, down, up};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::attempt::{Attempt, stream_of};
use super::effects::Done;
use super::finish::{Last, finish};
use super::{Driver, LOOK};
use crate::guard::{self, Farewell};
use crate::notice::{self, Notice, Source};
use crate::outbox::Lane;
use crate::supervisor::Phase;
use crate::upgrade::{self, Signs};
use crate::uplink::Event;
use crate::world::{Piece, Program, SharedGateway, World};

/// Of the time until the machine ends, what a program may use to end by
/// itself, in percent; the rest is for what it leaves.
const PROGRAM_SHARE: u32 = 60;
/// Where the machine is taken, what a program may use before that to save when
/// it is asked to, in percent of the whole.
const SAVE_SHARE: u32 = 35;
/// Between two scans for what it saves then.
const SCAN: Duration = Duration::from_millis(400);
/// How long the farewell itself waits for its way to the controller.
const SAY: Duration = Duration::from_secs(1);

/// What came by way of the guard.
pub(super) enum Heard {
    /// How an upgrade went.
    Upgraded(v1::UpgradeOutcome),
    /// The machine is ending.
    Farewell(Farewell),
}

/// The guard as the driver sees it.
pub(super) struct GuardLink {
    state: Option<PathBuf>,
    signs: Option<Signs>,
    jobs: JoinSet<Option<v1::UpgradeOutcome>>,
    /// The digest of the program that is being fetched or tried.
    trying: Option<String>,
    farewell: Option<watch::Receiver<Option<Farewell>>>,
    /// Not told to the controller yet.
    pub(super) outcome: Option<v1::UpgradeOutcome>,
}

impl GuardLink {
    pub(super) fn new(state: Option<&Path>) -> Self {
        Self {
            signs: state.and_then(|_| Signs::of_guard()),
            state: state.map(Path::to_owned),
            jobs: JoinSet::new(),
            trying: None,
            farewell: None,
            outcome: None,
        }
    }

    /// Gives a sign of life if one is due; how long until the next one is.
    pub(super) fn turn(&mut self) -> Duration {
        let Some(signs) = &mut self.signs else { return Duration::MAX };
        signs.turn();
        signs.next_turn()
    }

    /// The controller welcomed this agent: the guard is told, and tells how
    /// the newest upgrade went.
    pub(super) fn welcomed(&mut self) {
        let Some(state) = self.state.clone() else { return };
        self.jobs.spawn(async move {
            let asked = tokio::task::spawn_blocking(move || upgrade::ready(&state)).await;
            match asked {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(error)) => {
                    tracing::debug!(error, "no guard was told");
                    None
                }
                Err(_) => None,
            }
        });
    }

    /// Fetches a program and has the guard try it.
    pub(super) fn begin(&mut self, gateway: SharedGateway, asked: v1::Upgrade) {
        let digest = asked.digest.clone();
        let refused = match (&self.trying, &self.state) {
            (Some(trying), _) if *trying == digest => return,
            (Some(_), _) => "another upgrade is under way",
            (None, None) => "this agent has no guard",
            (None, Some(state)) => {
                self.trying = Some(digest.clone());
                self.outcome = None;
                let state = state.clone();
                self.jobs.spawn(async move {
                    match upgrade::install(state, gateway, asked).await {
                        // The next agent tells how it went.
                        Ok(true) => None,
                        Ok(false) => Some(v1::UpgradeOutcome { digest, problem: String::new() }),
                        Err(problem) => Some(v1::UpgradeOutcome { digest, problem }),
                    }
                });
                return;
            }
        };
        self.outcome = Some(v1::UpgradeOutcome { digest, problem: refused.into() });
    }

    /// The next thing that is heard. May be dropped at any moment.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            tokio::select! {
                Some(done) = self.jobs.join_next() => {
                    if let Ok(Some(outcome)) = done {
                        if self.trying.as_ref() == Some(&outcome.digest) {
                            self.trying = None;
                        }
                        if !outcome.problem.is_empty() {
                            tracing::warn!(problem = outcome.problem, "an upgrade failed");
                        }
                        return Heard::Upgraded(outcome);
                    }
                }
                farewell = told(&mut self.farewell) => return Heard::Farewell(farewell),
            }
        }
    }
}

/// Waits for ever where nobody can tell.
async fn told(farewell: &mut Option<watch::Receiver<Option<Farewell>>>) -> Farewell {
    if let Some(receiver) = farewell {
        let said = receiver.wait_for(Option::is_some).await.ok().and_then(|said| said.clone());
        if let Some(said) = said {
            *farewell = None;
            return said;
        }
    }
    std::future::pending().await
}

impl Driver {
    /// Hears here that the machine is ending.
    #[must_use]
    pub fn hearing(mut self, farewell: watch::Receiver<Option<Farewell>>) -> Self {
        self.guard.farewell = Some(farewell);
        self
    }

    /// Tells the controller how an upgrade went, once there is a way.
    pub(super) fn tell_upgrade(&mut self) {
        if self.welcomed
            && self.wire >= 1
            && let Some(outcome) = self.guard.outcome.take()
            && let Err(error) = self.up.try_send(v1::Up { body: Some(up::Body::Upgraded(outcome)) })
            && let Some(up::Body::Upgraded(outcome)) = error.into_inner().body
        {
            self.guard.outcome = Some(outcome);
        }
    }

    /// Says farewell, ends the programs, and saves what the time allows.
    pub(super) async fn leave(&mut self, farewell: &Farewell) {
        let grace = Duration::from_millis(farewell.grace_ms);
        let (begun, until) = (Instant::now(), Instant::now() + grace);
        tracing::warn!(reason = farewell.reason, ?grace, "the machine is ending");
        if farewell.reason.starts_with(guard::PREEMPTED) {
            self.save_first(&farewell.reason, grace).await;
        }
        if self.wire >= 1 {
            let said = v1::Farewell { reason: farewell.reason.clone() };
            let said = v1::Up { body: Some(up::Body::Farewell(said)) };
            let _ = tokio::time::timeout(SAY, self.up.send(said)).await;
        }
        // The answer to this shows that the farewell arrived.
        self.beat_due = begun;
        self.beat(begun);
        let running: Vec<String> = self
            .attempts
            .values()
            .filter(|a| matches!(a.supervisor.phase, Phase::Starting | Phase::Running))
            .map(|a| a.work.attempt_id.clone())
            .collect();
        let left = until.saturating_duration_since(Instant::now());
        let share = u64::try_from((left * PROGRAM_SHARE / 100).as_millis()).unwrap_or(u64::MAX);
        for id in running.iter().cloned() {
            let world = self.world.clone();
            self.jobs.spawn(async move {
                let reached = world.stop(&id, share).await;
                (id, Done::Asked(reached))
            });
        }
        let mut left = running.clone();
        self.ferry(until, |driver| {
            left.retain(|id| !matches!(driver.world.program(id), Program::Ended(_) | Program::NotStarted));
            left.is_empty() && driver.attempts.values().all(|a| !a.publishing)
        })
        .await;
        for id in &running {
            self.save(id, until).await;
        }
        self.ferry(until, |driver| {
            let heard = !driver.connected || driver.sent_renewals.is_empty();
            heard && driver.attempts.iter().all(|(id, a)| is_told(a, id, &*driver.world))
        })
        .await;
    }

    /// A machine that is taken is replaced while its programs save: a notice
    /// like any other, and the end comes only after it.
    async fn save_first(&mut self, reason: &str, grace: Duration) {
        let in_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let until = (self.wall_ms)().saturating_add(in_ms);
        self.stands(Source::Sigterm, Notice::new(notice::Kind::Ends, reason, Some(until)));
        self.tell_notices();
        self.ferry(Instant::now() + grace * SAVE_SHARE / 100, |driver| !driver.is_saving()).await;
    }

    /// Publishes what a program left.
    async fn save(&mut self, id: &str, until: Instant) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        attempt.publishing = true;
        let last = Last {
            durable: attempt.published_step,
            step: attempt.step(),
            cancelled: crate::world::Cancelled::default(),
            strain: attempt.strain.clone(),
        };
        let (world, gateway, work) = (self.world.clone(), self.gateway.clone(), attempt.work.clone());
        let mut job = JoinSet::new();
        job.spawn(async move { finish(&*world, work, gateway, last).await });
        let mut saved = None;
        self.ferry(until, |_| {
            saved = job.try_join_next();
            saved.is_some()
        })
        .await;
        match saved {
            Some(Ok((unpublished, facts))) => {
                for kind in facts {
                    self.record(id, kind);
                }
                if let Some(unpublished) = unpublished {
                    tracing::warn!(unpublished, "not all was saved");
                }
            }
            _ => tracing::warn!("the time did not allow to save all"),
        }
    }

    /// Goes on with everything but the programs, until something holds or the
    /// time is over. What the controller wishes now is for another machine.
    async fn ferry(&mut self, until: Instant, mut holds: impl FnMut(&Self) -> bool) {
        let mut scan_due = Instant::now();
        loop {
            let now = Instant::now();
            if now >= scan_due && self.is_saving() {
                scan_due = now + SCAN;
                self.scan();
            }
            for (id, attempt) in &mut self.attempts {
                attempt.meter(id, &*self.world, &*self.wall_ms);
            }
            self.beat(now);
            self.pace.turn(true);
            self.send();
            self.guard.turn();
            if now >= until || holds(self) {
                return;
            }
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Some(Event::Down(message)) if matches!(message.body, Some(down::Body::Assignment(_))) => {}
                    Some(event) => self.event(event),
                    None => return,
                },
                Some(Ok((id, done))) = self.jobs.join_next() => self.done(&id, done),
                settled = self.disk.next() => self.settled(&settled),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

/// Whether the controller has all that there is of an attempt by now.
fn is_told(attempt: &Attempt, id: &str, world: &dyn World) -> bool {
    let acked = |stream: v1::Stream| attempt.positions.get(&stream.into()).map_or(0, |(_, acked)| *acked);
    acked(v1::Stream::Events) >= attempt.outbox.next(Lane::Events)
        && acked(v1::Stream::Metrics) >= attempt.outbox.next(Lane::Metrics)
        && attempt.outputs().all(|o| world.read(id, o, acked(stream_of(o)), 1) == Piece::Nothing)
}
