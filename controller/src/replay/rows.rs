//! The rows of one replayed run and what is seen of its machines: what a
//! controller would have in its store and in its memory.

use lifecycle::retry::{self, Ending};
use lifecycle::{AttemptEvent, AttemptId, AttemptState, LossCause, MachineId, MachineState, RunEvent, RunId};

use super::{ReplayError, Settings};
use crate::liveness::{Clocks, Observation, ProviderWord};
use crate::model::{Attempt, Machine, ManifestRef, Run, Wish};
use crate::plan::Snapshot;

/// Endings that are kept, as the executor does.
const ENDINGS: usize = 100;
/// Moments in rows are unix milliseconds; a recording begins at none.
const EPOCH_MS: u64 = 1_000_000_000_000;

/// A machine as somebody sees it who sees everything.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    /// Which.
    pub(super) id: MachineId,
    /// Its zone; `None`: on-demand.
    pub(super) zone: Option<usize>,
    /// Dollars an hour.
    pub(super) usd_per_hour: f64,
    /// When it was made.
    pub(super) born_ms: u64,
    /// When its agent is there.
    pub(super) ready_ms: u64,
    /// When it is taken back; `u64::MAX`: it is not.
    pub(super) dies_ms: u64,
    /// Its agent has attached.
    pub(super) attached: bool,
    /// It was taken back.
    pub(super) dead: bool,
    /// That was said beforehand, and heard.
    pub(super) noticed: bool,
    /// The old machine saved for the last time before this one takes over.
    pub(super) handed: bool,
    /// The provider's last word since it died or before.
    pub(super) word: Option<ProviderWord>,
    /// When the provider was last asked.
    pub(super) asked_ms: Option<u64>,
}

pub(super) struct Rows {
    /// Milliseconds of the recording.
    pub(super) now_ms: u64,
    pub(super) began_ms: u64,
    pub(super) clocks: Clocks,
    pub(super) run: Run,
    pub(super) attempt: Option<Attempt>,
    /// Those that are not final.
    pub(super) machines: Vec<Machine>,
    pub(super) instances: Vec<Instance>,
    made: u64,
    detect_ms: u64,
}

impl Rows {
    pub(super) fn new(began_ms: u64, settings: &Settings) -> Result<Self, ReplayError> {
        let usual = Clocks::default();
        let detect = settings.detect_ms;
        // Slower detection than the product's is asked for: its patience is
        // as long, and silence alone replaces nothing before.
        let clocks = Clocks {
            suspect_ms: usual.suspect_ms.min(detect.max(1)),
            lost_after_ms: usual.lost_after_ms.max(detect + 1_000),
            boot_deadline_ms: usual.boot_deadline_ms.max(2 * settings.relaunch_ms),
            ..usual
        };
        let id = RunId::from_bytes([1; 16]);
        let run = serde_json::from_value(serde_json::json!({
            "id": id, "name": "replay", "status": lifecycle::RunState::Queued, "created_ms": EPOCH_MS + began_ms,
            "generation": 0, "bound": null, "attempts": 0, "source": {"key": "", "digest": ""}, "head": null,
            "outputs": null, "produced_step": null, "endings": [], "wish": Wish::Run, "token": "",
            "spec": {"project": "replay", "name": "replay", "command": ["train"], "provider": "recorded"},
        }))?;
        Ok(Self {
            now_ms: began_ms,
            began_ms,
            clocks,
            run,
            attempt: None,
            machines: Vec::new(),
            instances: Vec::new(),
            made: 0,
            detect_ms: detect,
        })
    }

    /// The moment as rows write it.
    pub(super) fn wall_ms(&self) -> u64 {
        EPOCH_MS + self.now_ms
    }

    /// A moment of a row as one of the recording.
    pub(super) fn recorded_ms(wall_ms: u64) -> u64 {
        wall_ms.saturating_sub(EPOCH_MS)
    }

    /// As the reconciler reads it.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut world = Snapshot { now_ms: self.wall_ms(), ..Snapshot::default() };
        for machine in &self.machines {
            let age = self.wall_ms().saturating_sub(machine.created_ms).min(self.now_ms - self.began_ms);
            world.seen.push((machine.id, self.observe(machine.id), age));
            world.machines.push(machine.clone().into());
        }
        world.bound.extend(self.attempt.clone().map(Into::into));
        if !self.run.status.is_final() || !self.machines.is_empty() {
            world.runs.push(self.run.clone().into());
        }
        world
    }

    fn observe(&self, id: MachineId) -> Observation {
        let up_ms = self.now_ms - self.began_ms;
        let Some(instance) = self.instance(id) else {
            return Observation { silent_ms: up_ms, ..Observation::default() };
        };
        let died = if instance.dead { self.now_ms.saturating_sub(instance.dies_ms) } else { 0 };
        // Its last words came with its end, or its stream stays open and
        // nothing comes, until the provider notices.
        let known = instance.dead && (instance.noticed || died >= self.detect_ms);
        Observation {
            silent_ms: if instance.attached { died } else { up_ms },
            attached: instance.attached && !known,
            broke: instance.attached && known,
            farewell: instance.attached && instance.dead && instance.noticed,
            provider: instance.word,
            asked_ms_ago: instance.asked_ms.map(|at| self.now_ms - at),
            ..Observation::default()
        }
    }

    /// What the provider says of an instance now.
    pub(super) fn provider_word(&self, id: MachineId) -> ProviderWord {
        match self.instance(id) {
            Some(it) if !it.dead || self.now_ms < it.dies_ms.saturating_add(self.detect_ms) => {
                ProviderWord::Alive
            }
            _ => ProviderWord::Absent,
        }
    }

    pub(super) fn instance(&self, id: MachineId) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    pub(super) fn instance_mut(&mut self, id: MachineId) -> Option<&mut Instance> {
        self.instances.iter_mut().find(|instance| instance.id == id)
    }

    pub(super) fn machine(&self, id: MachineId) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.id == id)
    }

    pub(super) fn machine_mut(&mut self, id: MachineId) -> Option<&mut Machine> {
        self.machines.iter_mut().find(|machine| machine.id == id)
    }

    /// The row of a machine that is wanted.
    pub(super) fn add_machine(&mut self) -> Result<(), ReplayError> {
        self.made += 1;
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.made.to_be_bytes());
        let id = MachineId::from_bytes(bytes);
        let machine = serde_json::from_value(serde_json::json!({
            "id": id, "provider": "recorded", "label": "", "run": self.run.id, "status": MachineState::Intent,
            "instance": null, "created_ms": self.wall_ms(), "usd_per_hour": 0.0,
        }))?;
        self.machines.push(machine);
        Ok(())
    }

    /// The row of the attempt that is bound next.
    pub(super) fn add_attempt(&mut self, machine: MachineId) -> Result<(), ReplayError> {
        let mut bytes = [2; 16];
        bytes[8..12].copy_from_slice(&self.run.attempts.to_be_bytes());
        let id = AttemptId::from_bytes(bytes);
        self.run.bound = Some(id);
        self.attempt = Some(serde_json::from_value(serde_json::json!({
            "id": id, "run": self.run.id, "number": self.run.attempts, "generation": self.run.generation,
            "machine": machine, "status": AttemptState::Running, "bound_ms": self.wall_ms(), "resume": [],
            "program_started": true,
        }))?);
        Ok(())
    }

    /// The bound attempt, if it has not ended.
    pub(super) fn live(&self) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|attempt| !attempt.status.is_final())
    }

    /// Ends the bound attempt and remembers how, for the retry rules.
    pub(super) fn end_attempt(&mut self, event: AttemptEvent) -> Result<(), ReplayError> {
        let at_ms = self.wall_ms();
        let Some(attempt) = self.attempt.as_mut() else { return Ok(()) };
        if !attempt.status.is_final() {
            attempt.status = attempt.status.apply(event)?;
            attempt.ended_ms = at_ms;
        }
        let exit = match &attempt.status {
            AttemptState::Ended { exit } => Some(exit.clone()),
            _ => None,
        };
        // By name, so that what the rules of others add has its usual value.
        let ending: Ending = serde_json::from_value(serde_json::json!({
            "exit": exit, "fingerprint": "", "step": attempt.last_step,
            "durable_step": self.run.head.as_ref().and_then(|head| head.step),
            "started": attempt.program_started, "at_ms": at_ms,
        }))?;
        self.run.endings.push(ending);
        let surplus = self.run.endings.len().saturating_sub(ENDINGS);
        self.run.endings.drain(..surplus);
        Ok(())
    }

    /// What follows the newest ending.
    pub(super) fn follow(&self) -> RunEvent {
        match retry::after(&self.run.endings, &self.run.spec.retry, &retry::Means::default()) {
            retry::Decision::Again => RunEvent::Unbind,
            // Nobody is there to be asked.
            retry::Decision::GiveUp(why) | retry::Decision::Ask(why) => RunEvent::Fail(why),
        }
    }

    pub(super) fn step_run(&mut self, event: RunEvent) -> Result<(), ReplayError> {
        self.run.status = self.run.status.apply(event)?;
        if self.run.status.is_final() {
            self.run.ended_ms = self.wall_ms();
        }
        Ok(())
    }

    /// A save of so much work became durable.
    pub(super) fn commit(&mut self, work_ms: u64) {
        self.run.head = Some(ManifestRef { key: String::new(), digest: String::new(), step: Some(work_ms) });
    }

    /// A machine was lost for good.
    pub(super) fn lose_machine(&mut self, id: MachineId, cause: LossCause) -> Result<(), ReplayError> {
        if let Some(row) = self.machine_mut(id) {
            row.status = row.status.apply(lifecycle::MachineEvent::Lose(cause))?;
            row.reason = cause.to_string();
        }
        Ok(())
    }
}
