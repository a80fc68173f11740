//! The rows and what is seen besides them, and what each action does to them:
//! the executor's rules without store, provider or clock. Facts are told by
//! the test; nothing happens by itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use controller::liveness::{Clocks, Observation, ProviderWord};
use controller::model::{Attempt, Machine, ManifestRef, Run, StopReason, Wish};
use controller::plan::{self, Action, Snapshot};
use lifecycle::retry::{self, Decision, Ending};
use lifecycle::run::Question;
use lifecycle::{
    AttemptEvent, AttemptId, AttemptState, Exit, LossCause, MachineEvent, MachineId, MachineState, Refusal,
    RunEvent, RunId, RunState,
};

/// How long an unknown create is looked for.
const SETTLE_MS: u64 = 300_000;

/// What the provider answers to a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// It is made, and says so.
    Made,
    /// It is made; the answer is lost.
    Lost,
    /// It is not made; the answer is lost.
    Vanished,
    /// It refuses.
    Rejected,
}

#[derive(Debug, Clone, Default)]
struct Presence {
    attached: bool,
    broke: bool,
    heard_ms: Option<u64>,
    provider: Option<ProviderWord>,
    asked_ms: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) wall_ms: u64,
    up_ms: u64,
    pub(super) clocks: Clocks,
    pub(super) runs: Vec<Run>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) machines: Vec<Machine>,
    presence: BTreeMap<MachineId, Presence>,
    pub(super) replies: VecDeque<Reply>,
    /// What the provider has, and whether it has ended.
    instances: BTreeMap<MachineId, bool>,
    /// What the provider does not manage to remove.
    pub(super) stuck: BTreeSet<MachineId>,
    pub(super) usd_per_hour: f64,
    alarmed_ms: Option<u64>,
    /// Later machines have lower ids.
    pub(super) ids_fall: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            wall_ms: 1_000_000_000,
            up_ms: 0,
            clocks: Clocks::default(),
            runs: Vec::new(),
            attempts: Vec::new(),
            machines: Vec::new(),
            presence: BTreeMap::new(),
            replies: VecDeque::new(),
            instances: BTreeMap::new(),
            stuck: BTreeSet::new(),
            usd_per_hour: 1.0,
            alarmed_ms: None,
            ids_fall: false,
        }
    }

    /// As the reconciler reads it.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot { now_ms: self.wall_ms, ..Snapshot::default() };
        snapshot.alarmed_ms_ago = self.alarmed_ms.map(|at| self.up_ms.saturating_sub(at));
        for machine in &self.machines {
            if machine.status.is_final() || machine.status == MachineState::Abandoned {
                snapshot.spent.push((machine.run, machine.cost_usd(self.wall_ms)));
                continue;
            }
            let age = (self.wall_ms - machine.created_ms).min(self.up_ms);
            snapshot.seen.push((machine.id, self.observe(machine.id), age));
            snapshot.machines.push(machine.clone());
        }
        for run in &self.runs {
            if run.status.is_final() && !snapshot.machines.iter().any(|m| m.run == run.id) {
                continue;
            }
            snapshot.bound.extend(self.bound(run).cloned());
            snapshot.runs.push(run.clone());
        }
        snapshot
    }

    fn observe(&self, id: MachineId) -> Observation {
        let Some(entry) = self.presence.get(&id) else {
            return Observation { silent_ms: self.up_ms, ..Observation::default() };
        };
        Observation {
            silent_ms: self.up_ms - entry.heard_ms.unwrap_or(0),
            attached: entry.attached,
            broke: entry.broke,
            provider: entry.provider,
            farewell: false,
            asked_ms_ago: entry.asked_ms.map(|at| self.up_ms - at),
        }
    }

    pub(super) fn plan(&self) -> Vec<Action> {
        plan::plan(&self.snapshot(), &self.clocks)
    }

    pub(super) fn bound(&self, run: &Run) -> Option<&Attempt> {
        run.bound.and_then(|id| self.attempts.iter().find(|a| a.id == id))
    }

    pub(super) fn run(&mut self, id: RunId) -> &mut Run {
        self.runs.iter_mut().find(|r| r.id == id).expect("the run exists")
    }

    pub(super) fn machine(&mut self, id: MachineId) -> &mut Machine {
        self.machines.iter_mut().find(|m| m.id == id).expect("the machine exists")
    }

    fn attempt(&mut self, id: AttemptId) -> &mut Attempt {
        self.attempts.iter_mut().find(|a| a.id == id).expect("the attempt exists")
    }

    fn live(&self, run: RunId) -> Option<AttemptId> {
        let run = self.runs.iter().find(|r| r.id == run)?;
        self.bound(run).filter(|a| !a.status.is_final()).map(|a| a.id)
    }
}

/// What happens in the world.
impl World {
    pub(super) fn submit(&mut self, name: &str, max_usd: Option<f64>, losses: Option<u32>) -> RunId {
        let byte = u8::try_from(self.runs.len() + 1).expect("few runs");
        let id = RunId::from_bytes([byte; 16]);
        let run = serde_json::json!({
            "id": id, "name": name, "status": RunState::Queued, "created_ms": self.wall_ms, "generation": 0,
            "bound": null, "attempts": 0, "source": {"key": "", "digest": ""}, "head": null, "outputs": null,
            "produced_step": null, "endings": [], "wish": Wish::Run, "token": "",
            "spec": {
                "project": "p", "name": name, "command": ["true"], "provider": "local",
                "max_usd": max_usd, "retry": {"losses": losses},
            },
        });
        let run: Run = serde_json::from_value(run).expect("a run");
        self.runs.push(run);
        id
    }

    /// Time passes; what is attached is heard all the while.
    pub(super) fn wait(&mut self, ms: u64) {
        self.wall_ms += ms;
        self.up_ms += ms;
        for entry in self.presence.values_mut().filter(|p| p.attached) {
            entry.heard_ms = Some(self.up_ms);
        }
    }

    /// Another controller process: what was seen is forgotten.
    pub(super) fn restart(&mut self) {
        self.up_ms = 0;
        self.presence.clear();
        self.alarmed_ms = None;
    }

    /// An agent's stream opens, as the session handles it.
    pub(super) fn attach(&mut self, id: MachineId) {
        let up = self.up_ms;
        let entry = self.presence.entry(id).or_default();
        *entry = Presence { attached: true, heard_ms: Some(up), ..Presence::default() };
        let wall = self.wall_ms;
        let row = self.machine(id);
        let path: &[MachineEvent] = match &row.status {
            MachineState::Ready => &[],
            MachineState::Calling | MachineState::Unknown => &[MachineEvent::Exist, MachineEvent::Attach],
            MachineState::Created | MachineState::Booting | MachineState::Suspect => &[MachineEvent::Attach],
            _ => return,
        };
        for event in path {
            row.status = row.status.apply(event.clone()).expect("an agent may attach");
        }
        row.given_up = false;
        row.ready_ms = if row.ready_ms == 0 { wall } else { row.ready_ms };
    }

    /// The stream breaks; nobody says why.
    pub(super) fn detach(&mut self, id: MachineId) {
        if let Some(entry) = self.presence.get_mut(&id).filter(|p| p.attached) {
            *entry = Presence { broke: true, heard_ms: entry.heard_ms, ..Presence::default() };
        }
    }

    /// Power cut: nothing is left at the provider.
    pub(super) fn vanish(&mut self, id: MachineId) {
        self.detach(id);
        self.instances.remove(&id);
    }

    /// It has ended and still lies there.
    pub(super) fn end_instance(&mut self, id: MachineId) {
        self.detach(id);
        self.instances.entry(id).and_modify(|ended| *ended = true);
    }

    pub(super) fn exists(&self, id: MachineId) -> bool {
        self.instances.contains_key(&id)
    }

    /// The bound attempt's program runs and then ends, and this is told.
    pub(super) fn exit(&mut self, run: RunId, exit: Exit) {
        let Some(id) = self.live(run) else { return };
        let now = self.wall_ms;
        let attempt = self.attempt(id);
        if let Ok(next) = attempt.status.apply(AttemptEvent::Start) {
            attempt.status = next;
        }
        attempt.program_started = true;
        attempt.status = attempt.status.apply(AttemptEvent::End(exit)).expect("a live attempt may end");
        attempt.ended_ms = now;
    }

    /// The bound attempt was ended because it made no progress; with `leave`,
    /// its next try belongs on another machine.
    pub(super) fn hang(&mut self, run: RunId, leave: bool) {
        let Some(id) = self.live(run) else { return };
        let attempt = self.attempt(id);
        attempt.hang = "no step".into();
        attempt.transient = true;
        attempt.leave_machine = if leave { "it hangs here".into() } else { String::new() };
        self.exit(run, Exit::Signal { signal: 15, core: false });
    }

    /// A checkpoint of the bound attempt became durable.
    pub(super) fn save(&mut self, run: RunId, step: u64) {
        let run = self.run(run);
        run.head = Some(ManifestRef { key: format!("m{step}"), digest: String::new(), step: Some(step) });
    }
}

/// What the executor does.
impl World {
    /// # Errors
    /// Where the plan asks for a move that no diagram has.
    pub(super) fn perform(&mut self, action: &Action) -> Result<(), Refusal> {
        match action {
            Action::Place(run) => self.step_run(*run, RunEvent::Place),
            Action::Intend(run) => {
                self.intend(*run);
                Ok(())
            }
            Action::Create(id) => self.create(*id),
            Action::Resolve(id) => self.resolve(*id),
            Action::Boot(id) => self.step(*id, MachineEvent::Boot),
            Action::Probe(id) => {
                self.probe(*id);
                Ok(())
            }
            Action::Suspect(id) => self.step(*id, MachineEvent::Suspect),
            Action::LoseMachine(id, cause) => self.step(*id, MachineEvent::Lose(*cause)),
            Action::GiveUp(id) => {
                self.machine(*id).given_up = true;
                Ok(())
            }
            Action::Condemn(_, id) => {
                let row = self.machine(*id);
                row.condemned = true;
                row.reason = plan::UNFIT.into();
                Ok(())
            }
            Action::Release(id, _) => self.release(*id),
            Action::Destroy(id) => self.destroy(*id),
            Action::Bind(run, id) => self.bind(*run, *id),
            Action::LoseAttempt(run, cause) => self.lose_attempt(*run, *cause),
            Action::Settle(run) => self.settle(*run),
            Action::StopForBudget(run) => {
                let run = self.run(*run);
                run.wish = Wish::Stop;
                run.stop_reason = Some(StopReason::Budget);
                Ok(())
            }
            Action::Close(run) => {
                let event = plan::stopped_as(self.run(*run));
                self.step_run(*run, event)
            }
            Action::Storm(run) => {
                let oldest = self.run(*run).creates_ms.iter().copied().min().unwrap_or(0);
                let question = Question {
                    text: "go on?".into(),
                    options: vec!["go on".into(), "stop".into()],
                    deadline_ms: oldest + plan::HOUR_MS,
                };
                self.step_run(*run, RunEvent::Ask(question))
            }
            Action::Answer(run) => self.step_run(*run, RunEvent::Answer),
            Action::Alarm(_) => {
                self.alarmed_ms = Some(self.up_ms);
                Ok(())
            }
        }
    }

    fn step_run(&mut self, id: RunId, event: RunEvent) -> Result<(), Refusal> {
        let now = self.wall_ms;
        let run = self.run(id);
        run.status = run.status.apply(event)?;
        if run.status.is_final() {
            run.ended_ms = now;
        }
        Ok(())
    }

    fn step(&mut self, id: MachineId, event: MachineEvent) -> Result<(), Refusal> {
        let row = self.machine(id);
        row.status = row.status.apply(event)?;
        Ok(())
    }

    pub(super) fn intend(&mut self, run_id: RunId) {
        let now = self.wall_ms;
        let number = u8::try_from(self.machines.len() + 1).expect("few machines");
        let id = MachineId::from_bytes([if self.ids_fall { 255 - number } else { number }; 16]);
        let run = self.run(run_id);
        run.creates_ms.retain(|at| at + plan::HOUR_MS > now);
        run.creates_ms.push(now);
        self.machines.push(Machine {
            id,
            provider: "local".into(),
            label: String::new(),
            run: run_id,
            status: MachineState::Intent,
            instance: None,
            created_ms: now,
            called_ms: 0,
            ready_ms: 0,
            ended_ms: 0,
            usd_per_hour: self.usd_per_hour,
            reason: String::new(),
            condemned: false,
            given_up: false,
        });
    }

    fn create(&mut self, id: MachineId) -> Result<(), Refusal> {
        self.step(id, MachineEvent::Call)?;
        self.machine(id).called_ms = self.wall_ms;
        let reply = self.replies.pop_front().unwrap_or(Reply::Made);
        if matches!(reply, Reply::Made | Reply::Lost) {
            self.instances.insert(id, false);
        }
        let (now, run) = (self.wall_ms, self.machine(id).run);
        let run = self.run(run);
        match reply {
            Reply::Made => {
                run.rejections = 0;
                self.step(id, MachineEvent::Exist)
            }
            Reply::Lost | Reply::Vanished => self.step(id, MachineEvent::LoseReply),
            Reply::Rejected => {
                run.creates_ms.pop();
                run.rejections += 1;
                run.retry_at_ms = now + plan::pause_after_refusal(run.rejections);
                self.machine(id).ended_ms = now;
                self.step(id, MachineEvent::Reject("full".into()))
            }
        }
    }

    fn resolve(&mut self, id: MachineId) -> Result<(), Refusal> {
        self.presence.entry(id).or_default().asked_ms = Some(self.up_ms);
        let (now, found) = (self.wall_ms, self.exists(id));
        let row = self.machine(id);
        if !found && now - row.called_ms < SETTLE_MS {
            return Ok(());
        }
        if row.status == MachineState::Calling {
            row.status = row.status.apply(MachineEvent::LoseReply)?;
        }
        if found {
            return self.step(id, MachineEvent::Exist);
        }
        row.ended_ms = now;
        self.step(id, MachineEvent::Abandon)
    }

    fn probe(&mut self, id: MachineId) {
        let word = match self.instances.get(&id) {
            None => ProviderWord::Absent,
            Some(true) => ProviderWord::Terminal,
            Some(false) => ProviderWord::Alive,
        };
        let up = self.up_ms;
        let entry = self.presence.entry(id).or_default();
        entry.provider = Some(word);
        entry.asked_ms = Some(up);
    }

    fn release(&mut self, id: MachineId) -> Result<(), Refusal> {
        if self.machine(id).status == MachineState::Intent {
            return self.step(id, MachineEvent::Reject("not needed".into()));
        }
        self.step(id, MachineEvent::Destroy)?;
        self.destroy(id)
    }

    fn destroy(&mut self, id: MachineId) -> Result<(), Refusal> {
        self.detach(id);
        let up = self.up_ms;
        self.presence.entry(id).or_default().asked_ms = Some(up);
        if self.stuck.contains(&id) {
            return Ok(());
        }
        self.instances.remove(&id);
        self.machine(id).ended_ms = self.wall_ms;
        self.step(id, MachineEvent::ConfirmAbsence)?;
        self.presence.remove(&id);
        Ok(())
    }

    fn bind(&mut self, id: RunId, machine: MachineId) -> Result<(), Refusal> {
        let status = self.machine(machine).status.clone();
        let run = self.run(id);
        if status != MachineState::Ready || run.status.is_final() || run.wish != Wish::Run {
            return Ok(());
        }
        if let Some(old) = self.live(id) {
            let held = self.attempt(old).machine;
            self.end_attempt(id, old, AttemptEvent::Lose(LossCause::Silent))?;
            self.step_run(id, RunEvent::Unbind)?;
            // Evidence may have come in the same pass.
            if self.machine(held).status.is_up() {
                self.step(held, MachineEvent::Lose(LossCause::Silent))?;
            }
        }
        self.step_run(id, RunEvent::Bind)?;
        let bound_ms = self.wall_ms;
        let run = self.run(id);
        run.attempts += 1;
        run.generation = run.generation.next(0).expect("generations are left");
        let (number, generation) = (run.attempts, run.generation);
        let mut bytes = *id.as_bytes();
        bytes[15] = u8::try_from(number).expect("few attempts");
        let attempt_id = AttemptId::from_bytes(bytes);
        run.bound = Some(attempt_id);
        let attempt = serde_json::json!({
            "id": attempt_id, "run": id, "number": number, "generation": generation, "machine": machine,
            "status": AttemptState::Assigned, "bound_ms": bound_ms, "resume": [],
        });
        self.attempts.push(serde_json::from_value(attempt).expect("an attempt"));
        Ok(())
    }

    /// Ends an attempt and remembers how, for the retry rules.
    fn end_attempt(&mut self, run: RunId, id: AttemptId, event: AttemptEvent) -> Result<(), Refusal> {
        let now = self.wall_ms;
        let attempt = self.attempt(id);
        if !attempt.status.is_final() {
            attempt.status = attempt.status.apply(event)?;
            attempt.ended_ms = now;
        }
        let exit = match &attempt.status {
            AttemptState::Ended { exit } => Some(exit.clone()),
            _ => None,
        };
        let ending = Ending {
            exit,
            fingerprint: retry::fingerprint(&attempt.last_error_line),
            step: attempt.last_step,
            durable_step: None,
            started: attempt.program_started,
            transient: attempt.transient,
            hang: !attempt.hang.is_empty(),
            at_ms: now,
        };
        let run = self.run(run);
        let durable_step = run.head.as_ref().and_then(|h| h.step);
        run.endings.push(Ending { durable_step, ..ending });
        Ok(())
    }

    fn follow(&mut self, id: RunId) -> RunEvent {
        let run = self.run(id);
        if run.wish != Wish::Run {
            return plan::stopped_as(run);
        }
        match retry::after(&run.endings, &run.spec.retry) {
            Decision::Again => RunEvent::Unbind,
            Decision::GiveUp(why) => RunEvent::Fail(why),
        }
    }

    fn lose_attempt(&mut self, id: RunId, cause: LossCause) -> Result<(), Refusal> {
        let Some(attempt) = self.live(id) else { return Ok(()) };
        self.end_attempt(id, attempt, AttemptEvent::Lose(cause))?;
        let event = self.follow(id);
        self.step_run(id, event)
    }

    fn settle(&mut self, id: RunId) -> Result<(), Refusal> {
        let run = self.run(id).clone();
        let Some(attempt) = self.bound(&run) else { return Ok(()) };
        let AttemptState::Ended { exit } = attempt.status.clone() else { return Ok(()) };
        let attempt = attempt.id;
        let hung = self.bound(&run).is_some_and(|a| !a.hang.is_empty());
        let event = if run.wish == Wish::Run && exit.is_success() && !hung {
            RunEvent::Succeed
        } else {
            self.end_attempt(id, attempt, AttemptEvent::End(exit))?;
            self.follow(id)
        };
        self.step_run(id, event)
    }
}
