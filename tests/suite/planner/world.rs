//! The rows and what is seen besides them, without store, provider or clock.
//! Facts are told by the test; nothing happens by itself.

mod executor;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use controller::liveness::{Clocks, Observation, ProviderWord};
use controller::model::notice::Said;
use controller::model::{Attempt, Machine, ManifestRef, Notice, Run, Wish};
use controller::plan::{self, Action, Snapshot};
use lifecycle::{AttemptEvent, AttemptId, Exit, MachineEvent, MachineId, MachineState, RunId, RunState};

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
    /// Somebody bills its machines.
    pub(super) paid: bool,
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
            paid: false,
            alarmed_ms: None,
            ids_fall: false,
        }
    }

    /// As the reconciler reads it.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot { now_ms: self.wall_ms, ..Snapshot::default() };
        snapshot.paid = self.paid.then(|| "local".to_owned()).into_iter().collect();
        snapshot.alarmed_ms_ago = self.alarmed_ms.map(|at| self.up_ms.saturating_sub(at));
        for machine in &self.machines {
            if machine.status.is_final() || machine.status == MachineState::Abandoned {
                snapshot.spent.push((machine.run, machine.cost_usd(self.wall_ms)));
                continue;
            }
            let age = (self.wall_ms - machine.created_ms).min(self.up_ms);
            snapshot.seen.push((machine.id, self.observe(machine.id), age));
            snapshot.machines.push(machine.clone().into());
        }
        for run in &self.runs {
            if run.status.is_final() && !snapshot.machines.iter().any(|m| m.run == run.id) {
                continue;
            }
            snapshot.bound.extend(self.bound(run).cloned().map(Into::into));
            snapshot.runs.push(run.clone().into());
        }
        snapshot
    }

    fn observe(&self, id: MachineId) -> Observation {
        let Some(entry) = self.presence.get(&id) else {
            return Observation { silent_ms: self.up_ms, ..Observation::default() };
        };
        Observation {
            boots_longer_ms: 0,
            returns: false,
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

    /// Its agent says what its provider said.
    pub(super) fn notice(&mut self, id: MachineId, said: &Said) {
        let now = self.wall_ms;
        let row = self.machine(id);
        if let Some((next, _)) = Notice::after(row.notice.as_ref(), said, now) {
            row.notice = Some(next);
        }
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
