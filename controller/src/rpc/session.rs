//! The stream with one agent. The wished-for state goes down whole whenever it
//! changed; facts come up and are acknowledged when they are durable. The
//! certificate, the bound key and the machine's state are checked again on
//! every lease renewal.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use lifecycle::{LossCause, MachineEvent, MachineId, MachineState};
use proto::convert;
use proto::identity::Peer;
use proto::v1::{self, agent_link_server::AgentLink, down, up};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::core::{Changes, Core, CoreError};
use crate::ingest::{self, Answer, IngestError};
use crate::model::{Attempt, BoundKey, Machine, ManifestRef, Run, Versioned, Wish};
use crate::reconcile::chain;

const OUT: usize = 64;

/// The service.
pub struct AgentService {
    core: Arc<Core>,
    tasks: TaskTracker,
    drain: CancellationToken,
}

impl AgentService {
    /// Serves for `core`; its sessions run on `tasks` and end with `drain`.
    #[must_use]
    pub fn new(core: Arc<Core>, tasks: TaskTracker, drain: CancellationToken) -> Self {
        Self { core, tasks, drain }
    }
}

type Down = Result<v1::Down, Status>;

#[tonic::async_trait]
impl AgentLink for AgentService {
    type SessionStream = Pin<Box<dyn Stream<Item = Down> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::Up>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (machine, peer) = super::machine_of(&self.core, &request)?;
        let (sender, receiver) = mpsc::channel(OUT);
        let receiver = ReceiverStream::new(receiver).map(|said: Box<Down>| *said);
        let (core, drain) = (self.core.clone(), self.drain.clone());
        let mut inbound = request.into_inner();
        self.tasks.spawn(async move {
            let (session, poke) = core.attach(machine);
            let mut live =
                Session { core: core.clone(), machine, peer, out: sender, told: BTreeSet::new(), sent: None };
            let end = tokio::select! {
                biased;
                () = drain.cancelled() => Err(Status::unavailable("the controller is ending")),
                end = live.run(&mut inbound, poke) => end,
            };
            core.detach(machine, session, end.is_ok());
            if let Err(status) = end {
                tracing::info!(machine = %machine.short(), %status, "a session ended");
                let _ = live.out.try_send(Box::new(Err(status)));
            }
        });
        Ok(Response::new(Box::pin(receiver)))
    }
}

struct Session {
    core: Arc<Core>,
    machine: MachineId,
    peer: Peer,
    /// Boxed: the queue of each of many machines holds its places all the time.
    out: mpsc::Sender<Box<Down>>,
    /// Attempts that were told that they are superseded.
    told: BTreeSet<String>,
    sent: Option<v1::Assignment>,
}

impl Session {
    /// What handles a message is boxed: it is large, lives for a moment, and a
    /// thousand sessions wait all the time.
    async fn run(
        &mut self,
        inbound: &mut Streaming<v1::Up>,
        mut poke: watch::Receiver<u64>,
    ) -> Result<(), Status> {
        match inbound.next().await {
            Some(Ok(v1::Up { body: Some(up::Body::Hello(hello)) })) => Box::pin(self.hello(&hello)).await?,
            _ => return Err(Status::invalid_argument("the first message must be Hello")),
        }
        loop {
            // Both arms only yield; a message that was received is handled
            // whole before the next look.
            let message = tokio::select! {
                biased;
                changed = poke.changed() => {
                    if changed.is_err() {
                        return Err(Status::aborted("a newer session of this machine opened"));
                    }
                    None
                }
                message = inbound.next() => match message {
                    Some(message) => Some(message?),
                    None => return Ok(()),
                },
            };
            match message {
                None => {
                    Box::pin(self.assign()).await?;
                    Box::pin(self.upgrade()).await?;
                }
                Some(v1::Up { body: Some(up::Body::Renew(renew)) }) => Box::pin(self.renew(&renew)).await?,
                Some(v1::Up { body: Some(up::Body::Facts(batch)) }) => Box::pin(self.facts(&batch)).await?,
                Some(v1::Up { body: Some(up::Body::Hello(_)) }) => {
                    return Err(Status::invalid_argument("Hello is said once"));
                }
                Some(v1::Up { body: Some(up::Body::Health(report)) }) => {
                    self.core.heard(self.machine);
                    self.core.health.said(self.machine, self.core.clock.mono_ms(), report);
                }
                Some(v1::Up { body: Some(up::Body::Farewell(farewell)) }) => {
                    Box::pin(self.farewell(&farewell)).await?;
                }
                Some(v1::Up { body: Some(up::Body::Notice(said)) }) => {
                    self.core.heard(self.machine);
                    Box::pin(super::notice::take(&self.core, self.machine, &said)).await?;
                }
                Some(v1::Up { body: Some(up::Body::Upgraded(outcome)) }) => {
                    self.core.health.upgraded(self.machine, outcome);
                }
                Some(v1::Up { body: None }) => {
                    Box::pin(self.say(down::Body::Unsupported("message not known".into()))).await?;
                }
            }
        }
    }

    /// The machine itself says that it ends: with the end of the stream this
    /// is evidence, not silence.
    async fn farewell(&self, farewell: &v1::Farewell) -> Result<(), Status> {
        let reason: String = farewell.reason.chars().take(200).collect();
        let row: Versioned<Machine> = self.core.need(&self.machine.to_string()).await?;
        let actor = format!("machine:{}", self.machine);
        let detail = json!({"reason": reason});
        let note =
            Changes::default().note(&self.core, &actor, "farewell", self.machine, Some(row.body.run), detail);
        self.core.commit(note).await?;
        self.core.farewell(self.machine);
        Ok(())
    }

    async fn say(&self, body: down::Body) -> Result<(), Status> {
        let sent = self.out.send(Box::new(Ok(v1::Down { body: Some(body) }))).await;
        sent.map_err(|_| Status::cancelled("the peer went away"))
    }

    async fn hello(&mut self, hello: &v1::Hello) -> Result<(), Status> {
        if hello.machine_id != self.machine.to_string() {
            return Err(Status::permission_denied("the certificate names another machine"));
        }
        self.check_key(hello).await?;
        self.core.health.connected(self.machine, &hello.version);
        self.core.health.answers_at(self.machine, &hello.health_endpoint);
        attach(&self.core, self.machine).await?;
        let mut positions = Vec::new();
        for held in hello.attempts.iter().take(64) {
            let id = convert::attempt_id(&held.attempt_id)?;
            let Some(attempt) = self.core.load::<Attempt>(&id.to_string()).await? else { continue };
            if attempt.body.machine != self.machine {
                return Err(Status::permission_denied("an attempt of another machine was claimed"));
            }
            positions.extend(ingest::positions(&self.core, &attempt.body).await?);
        }
        let heartbeat_ms = self.core.clocks.heartbeat_ms;
        self.say(down::Body::Welcome(v1::Welcome { positions, heartbeat_ms, wire: proto::WIRE })).await?;
        self.assign().await?;
        self.upgrade().await?;
        for held in hello.attempts.iter().take(64) {
            self.tell_superseded(&held.attempt_id).await?;
        }
        Ok(())
    }

    /// Hands on an upgrade that a person asked for.
    async fn upgrade(&self) -> Result<(), Status> {
        match self.core.health.take_upgrade(self.machine) {
            Some(upgrade) => self.say(down::Body::Upgrade(upgrade)).await,
            None => Ok(()),
        }
    }

    /// The key that is bound to this machine is still the peer's.
    async fn same_key(&self) -> Result<(), Status> {
        let key = self.core.look::<BoundKey>(&self.machine.to_string()).await?;
        let key = key.ok_or_else(|| Status::permission_denied("this machine never joined"))?;
        if key.body.thumbprint == self.peer.thumbprint {
            return Ok(());
        }
        Err(Status::permission_denied("another key is bound to this machine"))
    }

    /// The bound key and the incarnation, which a Hello raises.
    async fn check_key(&self, hello: &v1::Hello) -> Result<(), Status> {
        let core = &self.core;
        for _ in 0..8 {
            let mut key: Versioned<BoundKey> = core
                .load(&self.machine.to_string())
                .await?
                .ok_or_else(|| Status::permission_denied("this machine never joined"))?;
            if key.body.thumbprint != self.peer.thumbprint {
                return Err(Status::permission_denied("another key is bound to this machine"));
            }
            if hello.incarnation < key.body.incarnation {
                return Err(Status::permission_denied("a newer incarnation of this machine was heard"));
            }
            key.body.incarnation = hello.incarnation;
            key.body.boot_id = hello.boot_id.chars().take(64).collect();
            if core.commit(Changes::default().put(&key)).await? {
                return Ok(());
            }
        }
        Err(Status::aborted("the rows kept changing; try again"))
    }

    async fn renew(&mut self, renew: &v1::Renew) -> Result<(), Status> {
        super::current(&self.core, &self.peer)?;
        self.same_key().await?;
        self.core.heard(self.machine);
        attach(&self.core, self.machine).await?;
        let ttl_ms = self.core.clocks.lease_ttl_ms;
        // Until the first plan that knows it, a machine keeps what it was
        // granted before.
        let known = self.core.allowance(self.machine);
        let (allowance_ms, unlimited) = (known.flatten(), known == Some(None));
        let between_losses_ms = self.core.between_losses_ms(self.machine).unwrap_or(0);
        // Bytes cost too while nobody is there to count them.
        let row = match allowance_ms {
            Some(_) => self.core.look::<Machine>(&self.machine.to_string()).await?,
            None => None,
        };
        let (up_ms_per_gb, down_ms_per_gb) = row.map_or((0, 0), |row| row.body.meter.rates.gigabytes_as_ms());
        let granted = v1::Granted {
            n: renew.n,
            ttl_ms,
            allowance_ms,
            unlimited,
            between_losses_ms,
            up_ms_per_gb,
            down_ms_per_gb,
        };
        self.say(down::Body::Granted(granted)).await
    }

    async fn facts(&mut self, batch: &v1::FactBatch) -> Result<(), Status> {
        self.core.heard(self.machine);
        let answer = match ingest::apply(&self.core, self.machine, batch).await {
            Ok(answer) => answer,
            Err(IngestError::Wire(error)) => return Err(error.into()),
            Err(IngestError::Core(error)) => {
                // The facts stay on the machine and are sent again with the
                // next session; an alert tells people meanwhile.
                self.core.alert("ingest", Some(format!("facts cannot be stored: {}", chain(&error))));
                return Err(error.into());
            }
        };
        self.core.alert("ingest", None);
        match answer {
            Answer::Ack(positions) => self.say(down::Body::Ack(v1::Ack { positions })).await?,
            Answer::Nack(expected) => {
                self.say(down::Body::Nack(v1::Nack { expected: Some(expected) })).await?;
            }
        }
        self.tell_superseded(&batch.attempt_id).await
    }

    async fn tell_superseded(&mut self, attempt: &str) -> Result<(), Status> {
        if self.told.contains(attempt) {
            return Ok(());
        }
        let Some(row) = self.core.load::<Attempt>(attempt).await? else { return Ok(()) };
        let run: Versioned<Run> = self.core.need(&row.body.run.to_string()).await?;
        let bound = run.body.bound == Some(row.body.id);
        if bound && !run.body.status.is_final() {
            return Ok(());
        }
        self.told.insert(attempt.to_owned());
        self.say(down::Body::Superseded(v1::Superseded {
            attempt_id: attempt.to_owned(),
            current_generation: run.body.generation.as_u64(),
        }))
        .await
    }

    /// Sends the wished-for state if it differs from what was sent.
    async fn assign(&mut self) -> Result<(), Status> {
        let work = wished(&self.core, self.machine).await?;
        if let Some(sent) = &self.sent
            && sent.work == work
        {
            return Ok(());
        }
        let revision = self.sent.as_ref().map_or(1, |s| s.revision + 1);
        let assignment = v1::Assignment { revision, work };
        self.sent = Some(assignment.clone());
        self.say(down::Body::Assignment(assignment)).await
    }
}

/// A machine that speaks is ready; one that was given up is wanted again
/// until its replacement is bound.
async fn attach(core: &Core, machine: MachineId) -> Result<(), Status> {
    // Nearly always.
    let row = core.look::<Machine>(&machine.to_string()).await?;
    if row.is_some_and(|row| row.body.status == MachineState::Ready && !row.body.given_up) {
        return Ok(());
    }
    for _ in 0..8 {
        let mut row: Versioned<Machine> = core.need(&machine.to_string()).await?;
        match &row.body.status {
            MachineState::Ready if !row.body.given_up => return Ok(()),
            MachineState::Ready => {}
            MachineState::Calling | MachineState::Unknown => {
                // It joined before the provider's answer came; under which
                // name it exists, only that answer or a listing tells.
                return Ok(());
            }
            MachineState::Created | MachineState::Booting | MachineState::Suspect => {
                row.body.status = row.body.status.apply(MachineEvent::Attach).map_err(CoreError::from)?;
            }
            // Given up for good: it may hand in its history, no more.
            _ => return again(core, row).await,
        }
        if row.body.ready_ms == 0 {
            row.body.ready_ms = core.clock.wall_ms();
        }
        row.body.given_up = false;
        row.body.reason.clear();
        let run = row.body.run;
        let changes = Changes::default().put(&row).note(
            core,
            &format!("machine:{machine}"),
            "attached",
            machine,
            Some(run),
            json!({}),
        );
        if core.commit(changes).await? {
            return Ok(());
        }
    }
    Err(Status::aborted("the rows kept changing; try again"))
}

/// A machine that was given up for good speaks: it had lived on. Told once.
async fn again(core: &Core, mut row: Versioned<Machine>) -> Result<(), Status> {
    const AGAIN: &str = "it spoke again";
    let lost = matches!(row.body.status, MachineState::Lost { .. } | MachineState::Destroying);
    // One that was left before its end speaks on until then.
    let noticed = row.body.reason == LossCause::Noticed.to_string();
    let asked = row.body.condemned || noticed || row.body.reason.contains(AGAIN);
    if !lost || asked {
        return Ok(());
    }
    row.body.reason = format!("{}; {AGAIN}", row.body.reason);
    let (id, run) = (row.body.id, row.body.run);
    let actor = format!("machine:{id}");
    // Where its row changes meanwhile, it is told at its next session.
    let changes = Changes::default().put(&row).note(core, &actor, "spoke-again", id, Some(run), json!({}));
    core.commit(changes).await.map(|_| ()).map_err(Status::from)
}

fn reference(r: &ManifestRef) -> v1::ManifestRef {
    v1::ManifestRef { key: r.key.clone(), digest: r.digest.clone(), step: r.step }
}

/// What shall run on a machine now.
///
/// # Errors
/// Where the store fails.
pub async fn wished(core: &Core, machine: MachineId) -> Result<Option<v1::Work>, CoreError> {
    let Some(row) = core.load::<Machine>(&machine.to_string()).await? else { return Ok(None) };
    let Some(run) = core.load::<Run>(&row.body.run.to_string()).await? else { return Ok(None) };
    let Some(bound) = run.body.bound else { return Ok(None) };
    let Some(attempt) = core.load::<Attempt>(&bound.to_string()).await? else { return Ok(None) };
    if attempt.body.machine != machine || !row.body.status.is_up() {
        return Ok(None);
    }
    let run = &run.body;
    let wish = match run.wish {
        _ if run.status.is_final() && !attempt.body.status.is_final() => v1::Wish::Kill,
        Wish::Run => v1::Wish::Run,
        Wish::Stop => v1::Wish::Stop,
        Wish::Kill => v1::Wish::Kill,
    };
    let grace_seconds = if run.stop_grace > 0 { run.stop_grace } else { run.spec.grace_seconds };
    let sealed = crate::keys::is_sealed_run(core, &run.spec);
    // Without keys nothing is published in the clear; but a mistake in the file
    // of recipients must not cost anybody a lease or a stop.
    let sealing = crate::keys::sealing(core, &run.spec).unwrap_or_else(|error| {
        tracing::error!(%error, run = run.name, "no keys are handed out");
        None
    });
    let secrets = match crate::secrets::of(core, run.id, &run.spec).await {
        // Over: nothing is started there any more.
        _ if attempt.body.status.is_final() => Vec::new(),
        Ok(secrets) => secrets,
        // The machine says of its attempt what is missing.
        Err(error @ CoreError::Impossible(_)) => {
            tracing::error!(%error, run = run.name, "no secrets are handed out");
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    Ok(Some(v1::Work {
        run_id: run.id.to_string(),
        run_name: run.name.clone(),
        attempt_id: attempt.body.id.to_string(),
        generation: attempt.body.generation.as_u64(),
        number: attempt.body.number,
        spec_json: serde_json::to_string(&run.spec)
            .map_err(|e| CoreError::Impossible(format!("the spec has no JSON form: {e}")))?,
        source: Some(reference(&run.source)),
        resume: attempt.body.resume.iter().map(reference).collect(),
        // Fixed at the bind: what this very attempt publishes is not its own
        // input. Before any of its own it is the run's newest.
        outputs: run
            .outputs
            .as_ref()
            .filter(|o| !o.key.contains(&own_prefix(run, &attempt.body)))
            .map(reference),
        wish: wish.into(),
        grace_seconds,
        forget: attempt.body.status.is_final(),
        sealed,
        sealing,
        secrets,
    }))
}

fn own_prefix(run: &Run, attempt: &Attempt) -> String {
    artifacts::ObjectKey::prefix(&run.id.to_string(), attempt.generation.as_u64())
}
