//! What each action of the planner does to the rows: the executor's rules,
//! with a provider whose machines come from the recording.

use lifecycle::market::Place;
use lifecycle::question;
use lifecycle::{AttemptEvent, LossCause, MachineEvent, MachineId, MachineState, RunEvent};

use super::ReplayError;
use super::rows::Instance;
use super::world::{LOOK_MS, Phase, Program, World};
use crate::model::Wish;
use crate::plan::{self, Action};

impl World<'_> {
    pub(super) fn perform(&mut self, action: &Action) -> Result<(), ReplayError> {
        match action {
            Action::Place(_) => self.rows.step_run(RunEvent::Place),
            Action::Intend(_) => self.intend(),
            Action::Create(id) => self.create(*id),
            Action::Boot(id) => self.step(*id, MachineEvent::Boot),
            Action::Probe(id) => {
                let word = self.rows.provider_word(*id);
                let now = self.rows.now_ms;
                if let Some(instance) = self.rows.instance_mut(*id) {
                    (instance.word, instance.asked_ms) = (Some(word), Some(now));
                }
                Ok(())
            }
            Action::Suspect(id) => self.step(*id, MachineEvent::Suspect),
            Action::LoseMachine(id, cause) => self.rows.lose_machine(*id, *cause),
            Action::GiveUp(id) => {
                if let Some(row) = self.rows.machine_mut(*id) {
                    row.given_up = true;
                }
                Ok(())
            }
            Action::Release(id, why) => self.release(*id, why),
            Action::Bind(_, id) => self.bind(*id),
            Action::LoseAttempt(_, cause) => self.lose_attempt(*cause),
            Action::Settle(_) => self.settle(),
            Action::Storm(_) => self.storm(),
            Action::Answer(_) => self.rows.step_run(RunEvent::Answer),
            Action::Close(_) => self.rows.step_run(plan::stopped_as(&self.rows.run)),
            // Creates answer at once and destroys are done at once here, no
            // budget is set, and one run has too few machines for an alarm.
            _ => Ok(()),
        }
    }

    fn step(&mut self, id: MachineId, event: MachineEvent) -> Result<(), ReplayError> {
        if let Some(row) = self.rows.machine_mut(id) {
            row.status = row.status.apply(event)?;
        }
        Ok(())
    }

    fn intend(&mut self) -> Result<(), ReplayError> {
        let now = self.rows.wall_ms();
        let run = &mut self.rows.run;
        run.creates_ms.retain(|at| at + plan::HOUR_MS > now);
        run.creates_ms.push(now);
        self.rows.add_machine()
    }

    fn create(&mut self, id: MachineId) -> Result<(), ReplayError> {
        let place = self.wanted();
        let now = self.rows.now_ms;
        let called = self.rows.wall_ms();
        self.step(id, MachineEvent::Call)?;
        let zone = (place == Place::Spot).then(|| self.zone()).flatten();
        // Somebody changed their mind: what is wanted is what there is.
        let stays = self.program.is_some() && place == self.on() && place != Place::Nowhere;
        let held = self.program.as_ref().map(|program| program.machine).filter(|_| stays);
        if let Some(row) = held.and_then(|held| self.rows.machine_mut(held)) {
            row.given_up = false;
        }
        if stays || (place != Place::OnDemand && zone.is_none()) {
            return self.reject(id);
        }
        let usd_per_hour = zone.map_or(self.settings.on_demand_usd, |zone| self.usd(zone));
        self.rows.instances.push(Instance {
            id,
            zone,
            usd_per_hour,
            born_ms: now,
            ready_ms: now + self.settings.relaunch_ms,
            dies_ms: zone.and_then(|zone| self.zones[zone].until(now)).unwrap_or(u64::MAX),
            attached: false,
            dead: false,
            noticed: false,
            handed: false,
            word: None,
            asked_ms: None,
        });
        self.tally.machines += 1;
        self.rows.run.rejections = 0;
        if let Some(row) = self.rows.machine_mut(id) {
            (row.called_ms, row.usd_per_hour) = (called, usd_per_hour);
        }
        self.step(id, MachineEvent::Exist)
    }

    /// Nothing was made: it is no part of a storm, and the next asking waits.
    fn reject(&mut self, id: MachineId) -> Result<(), ReplayError> {
        let now = self.rows.wall_ms();
        let run = &mut self.rows.run;
        run.creates_ms.pop();
        run.rejections += 1;
        run.retry_at_ms = now + plan::pause_after_refusal(run.rejections);
        self.step(id, MachineEvent::Reject("no machine that is wanted".into()))?;
        self.rows.machines.retain(|machine| machine.id != id);
        Ok(())
    }

    fn release(&mut self, id: MachineId, why: &str) -> Result<(), ReplayError> {
        if self.rows.machine(id).is_some_and(|row| row.status == MachineState::Intent) {
            self.step(id, MachineEvent::Reject(why.to_owned()))?;
        } else {
            self.step(id, MachineEvent::Destroy)?;
            self.step(id, MachineEvent::ConfirmAbsence)?;
        }
        if self.program.as_ref().is_some_and(|program| program.machine == id) {
            self.end_program(false);
        }
        if let Some(at) = self.rows.instances.iter().position(|instance| instance.id == id) {
            let instance = self.rows.instances.remove(at);
            self.bill(&instance);
        }
        self.rows.machines.retain(|machine| machine.id != id);
        Ok(())
    }

    fn bind(&mut self, id: MachineId) -> Result<(), ReplayError> {
        let ready = self.rows.machine(id).is_some_and(|row| row.status == MachineState::Ready);
        if !ready || self.rows.run.status.is_final() || self.rows.run.wish != Wish::Run {
            return Ok(());
        }
        if let Some(held) = self.rows.live().map(|attempt| attempt.machine) {
            let announced = self.rows.instance(held).is_some_and(|it| it.noticed && !it.dead);
            self.tally.left_in_time += u32::from(announced);
            self.tally.losses += u32::from(announced);
            self.end_program(false);
            self.rows.end_attempt(AttemptEvent::Lose(LossCause::Silent))?;
            self.rows.step_run(RunEvent::Unbind)?;
            if self.rows.machine(held).is_some_and(|row| row.status.is_up()) {
                self.rows.lose_machine(held, LossCause::Silent)?;
            }
        }
        self.rows.step_run(RunEvent::Bind)?;
        let run = &mut self.rows.run;
        run.attempts += 1;
        if let Some(generation) = run.generation.next(0) {
            run.generation = generation;
        }
        self.rows.add_attempt(id)?;
        let now = self.rows.now_ms;
        self.program = Some(Program {
            machine: id,
            born_ms: self.rows.instance(id).map_or(now, |instance| instance.born_ms),
            began_ms: now,
            base_ms: self.durable_ms(),
            phase: Phase::Computing { since_ms: now },
            next_save_ms: u64::MAX,
            last_save_ms: None,
            leaves: false,
        });
        let next = now + self.interval_ms();
        if let Some(program) = &mut self.program {
            program.next_save_ms = next;
        }
        self.look_ms = now + LOOK_MS;
        Ok(())
    }

    fn lose_attempt(&mut self, cause: LossCause) -> Result<(), ReplayError> {
        if self.rows.live().is_none() {
            return Ok(());
        }
        self.end_program(false);
        self.rows.end_attempt(AttemptEvent::Lose(cause))?;
        let event = self.rows.follow();
        self.rows.step_run(event)
    }

    fn settle(&mut self) -> Result<(), ReplayError> {
        // Here a program ends only when its work is done.
        self.rows.step_run(RunEvent::Succeed)
    }

    fn storm(&mut self) -> Result<(), ReplayError> {
        let now = self.rows.wall_ms();
        let Some(deadline_ms) = plan::storm_over_ms(&self.rows.run.creates_ms, now) else { return Ok(()) };
        self.tally.storms += 1;
        let asked = question::storm(plan::CREATES_PER_HOUR, now, deadline_ms);
        self.rows.step_run(RunEvent::Ask(asked))
    }
}
