//! The controller's own planner decides in the model: a world becomes the
//! snapshot that the planner takes, and its actions become the model's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use controller::liveness::{Clocks, Observation, ProviderWord};
use controller::model::{Attempt, Machine, Run, Wish};
use controller::plan::{Action, Snapshot, plan};
use lifecycle::{
    AttemptId, AttemptState, Exit, Generation, LossCause, MachineId, MachineState, RunId, RunState,
};
use serde_json::json;

use super::rules::{Act, Life, Phase, Real, Row, World};

/// What is known of a machine that is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Look {
    /// The provider was asked and told the truth.
    Asked,
    /// Nobody knows anything; another machine may be made in case.
    Uneasy,
    /// Nobody knows anything, and patience is over.
    Impatient,
}

/// Plans for worlds, each kind of world once.
pub(super) struct Planner {
    run: Run,
    attempt: Attempt,
    machine: Machine,
    /// Machines that were wanted later have lower ids.
    ids_fall: bool,
    known: Mutex<HashMap<(World, Look), Vec<Act>>>,
}

impl Planner {
    pub(super) fn new(ids_fall: bool) -> Self {
        let (run, attempt, machine) = templates();
        Self { run, attempt, machine, ids_fall, known: Mutex::default() }
    }

    /// What the planner wants in this world.
    pub(super) fn plan(&self, world: &World, look: Look) -> Vec<Act> {
        let key = (seen(world), look);
        if let Some(acts) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return acts.clone();
        }
        let actions = plan(&self.snapshot(world, look), &Clocks::default());
        let acts: Vec<Act> = actions.iter().filter_map(|action| self.act(action)).collect();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, acts.clone());
        acts
    }

    fn id(&self, m: u8) -> MachineId {
        MachineId::from_bytes([if self.ids_fall { 255 - m } else { m + 1 }; 16])
    }

    fn act(&self, action: &Action) -> Option<Act> {
        let m = |id: &MachineId| {
            let byte = id.as_bytes()[0];
            if self.ids_fall { 255 - byte } else { byte - 1 }
        };
        Some(match action {
            Action::Intend(_) => Act::Intend,
            Action::Create(id) => Act::Create(m(id)),
            Action::Resolve(id) => Act::Resolve(m(id)),
            Action::Suspect(id) => Act::Suspect(m(id)),
            Action::LoseMachine(id, _) => Act::LoseMachine(m(id)),
            Action::GiveUp(id) => Act::GiveUp(m(id)),
            Action::Bind(_, id) => Act::Bind(m(id)),
            Action::LoseAttempt(..) => Act::LoseAttempt,
            Action::Settle(_) => Act::Settle,
            Action::Release(id, _) => Act::Release(m(id)),
            Action::Destroy(id) => Act::Destroy(m(id)),
            // Asking changes no row; what was answered is in the look.
            Action::Probe(_) => return None,
            Action::Place(_)
            | Action::Boot(_)
            | Action::StopForBudget(_)
            | Action::Tell(..)
            | Action::Condemn(..)
            | Action::Close(_)
            | Action::Storm(_)
            | Action::Ask(_)
            | Action::Answer(_)
            | Action::Alarm(_) => panic!("{action:?} cannot be wanted in this world"),
        })
    }

    fn snapshot(&self, world: &World, look: Look) -> Snapshot {
        let mut snapshot = Snapshot { now_ms: 10_000_000, ..Snapshot::default() };
        let mut run = self.run.clone();
        run.status = match world.phase {
            Phase::Wanting if world.generation == 0 => RunState::Provisioning,
            Phase::Wanting => RunState::Recovering,
            Phase::Running => RunState::Running,
            Phase::Over => RunState::Succeeded,
        };
        run.generation = Generation::from_u64(world.generation.into());
        if let Some(bound) = world.bound_attempt() {
            let mut attempt = self.attempt.clone();
            attempt.machine = self.id(bound.machine);
            attempt.generation = Generation::from_u64(bound.generation.into());
            attempt.status = match bound.life {
                Life::Live => AttemptState::Running,
                Life::Ended { well } => AttemptState::Ended { exit: Exit::Code { code: i32::from(!well) } },
                Life::Lost => AttemptState::Lost { cause: LossCause::Silent },
            };
            run.bound = Some(attempt.id);
            snapshot.bound.push(attempt.into());
        }
        for (m, machine) in (0u8..).zip(&world.machines) {
            if machine.row.is_over() {
                continue;
            }
            let id = self.id(m);
            let status = state(machine.row);
            let row = Machine { id, status, given_up: machine.given_up, ..self.machine.clone() };
            snapshot.machines.push(row.into());
            let (seen, age) = observed(machine.heard, machine.real, look);
            snapshot.seen.push((id, seen, age));
        }
        if world.phase != Phase::Over || !snapshot.machines.is_empty() {
            snapshot.runs.push(run.into());
        }
        snapshot
    }
}

/// The part of a world that the planner can see.
fn seen(world: &World) -> World {
    let mut seen = World { phase: world.phase, generation: world.generation.min(1), ..World::default() };
    for (to, from) in seen.machines.iter_mut().zip(&world.machines) {
        if !from.row.is_over() {
            to.row = from.row;
            to.given_up = from.given_up;
            to.heard = from.heard;
            to.real = if from.real == Real::Gone { Real::Gone } else { Real::Up };
        }
    }
    if let Some(bound) = world.bound_attempt() {
        seen.bound = Some((1, bound.machine));
        seen.attempts[0] = Some(super::rules::Attempt { generation: 1, ..*bound });
    }
    seen
}

fn state(row: Row) -> MachineState {
    match row {
        Row::Intent => MachineState::Intent,
        Row::Calling => MachineState::Calling,
        Row::Unknown => MachineState::Unknown,
        Row::Booting => MachineState::Booting,
        Row::Ready => MachineState::Ready,
        Row::Suspect => MachineState::Suspect,
        Row::Lost => MachineState::Lost { cause: LossCause::Silent },
        Row::Destroying => MachineState::Destroying,
        Row::None | Row::Rejected | Row::Abandoned | Row::Destroyed => unreachable!("no row of the snapshot"),
    }
}

fn observed(heard: bool, real: Real, look: Look) -> (Observation, u64) {
    let clocks = Clocks::default();
    if heard {
        return (Observation { attached: true, asked_ms_ago: Some(0), ..Observation::default() }, 0);
    }
    let word = if real == Real::Gone { ProviderWord::Absent } else { ProviderWord::Alive };
    let (silent_ms, age, provider) = match look {
        Look::Asked => (clocks.suspect_ms, clocks.suspect_ms, Some(word)),
        Look::Uneasy => (clocks.suspect_ms + 5_000, clocks.lost_after_ms, Some(ProviderWord::Alive)),
        Look::Impatient => (clocks.lost_after_ms, clocks.boot_deadline_ms, None),
    };
    (Observation { silent_ms, broke: true, provider, asked_ms_ago: Some(0), ..Observation::default() }, age)
}

fn templates() -> (Run, Attempt, Machine) {
    let (id, attempt_id) = (RunId::from_bytes([1; 16]), AttemptId::from_bytes([1; 16]));
    let run = json!({
        "id": id, "name": "a", "status": RunState::Queued, "created_ms": 0, "generation": 0, "bound": null,
        "attempts": 0, "source": {"key": "", "digest": ""}, "head": null, "outputs": null,
        "produced_step": null, "endings": [], "wish": Wish::Run, "token": "",
        "spec": {"project": "p", "name": "a", "command": ["true"], "provider": "local"},
    });
    let machine_id = MachineId::from_bytes([1; 16]);
    let attempt = json!({
        "id": attempt_id, "run": id, "number": 1, "generation": 1, "machine": machine_id,
        "status": AttemptState::Running, "bound_ms": 0, "resume": [],
    });
    let machine = json!({
        "id": machine_id, "provider": "local", "label": "", "run": id, "status": MachineState::Intent,
        "instance": null, "created_ms": 0, "usd_per_hour": 0.0,
    });
    (
        serde_json::from_value(run).expect("a run"),
        serde_json::from_value(attempt).expect("an attempt"),
        serde_json::from_value(machine).expect("a machine"),
    )
}
