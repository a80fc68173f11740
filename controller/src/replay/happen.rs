//! What happens at its moment: machines are taken back, are announced to be,
//! get ready; the program saves and ends. And which moment comes next.
//!
//! Two things are stand-ins for what an agent and its provider do: a machine
//! that was announced to end counts as given up (the planner's word for "it
//! works still, and another one is wanted"), and before another takes over,
//! the old one saves for the last time.

use lifecycle::cadence;
use lifecycle::market::Place;
use lifecycle::{AttemptEvent, Exit, MachineEvent, MachineId, MachineState, RunState};

use super::ReplayError;
use super::rows::Rows;
use super::world::{LOOK_MS, Phase, World};
use crate::plan;

impl World<'_> {
    /// Lets everything happen that is due; whether anything was.
    pub(super) fn happen(&mut self) -> Result<bool, ReplayError> {
        let died = self.take_back();
        let saved = self.end_save()?;
        let ready = self.get_ready()?;
        let told = self.notice();
        let began = self.begin_save();
        let looked = self.look();
        Ok(died || saved || ready || told || began || looked)
    }

    /// The next moment at which something may happen.
    pub(super) fn next_ms(&self) -> u64 {
        let now = self.rows.now_ms;
        let mut next = u64::MAX;
        let mut at = |moment: u64| {
            if moment > now {
                next = next.min(moment);
            }
        };
        for it in &self.rows.instances {
            if it.dead {
                at(it.dies_ms.saturating_add(self.rows.clocks.suspect_ms));
                at(it.dies_ms.saturating_add(self.settings.detect_ms));
                // The next probe, where the provider's word is late.
                at(it.asked_ms.map_or(0, |asked| asked + 1_000));
            } else {
                at(it.dies_ms);
                at(if it.attached { 0 } else { it.ready_ms });
                if self.heeds_notices() && it.dies_ms != u64::MAX {
                    at(it.dies_ms.saturating_sub(self.settings.notice_ms));
                }
            }
        }
        if let Some(program) = &self.program {
            match program.phase {
                Phase::Saving { until_ms } => at(until_ms),
                Phase::Computing { since_ms } => {
                    at(program.next_save_ms);
                    let left = self.settings.work_ms.map(|work| work.saturating_sub(program.base_ms));
                    at(left.map_or(u64::MAX, |left| since_ms + left));
                }
            }
            if self.on() == Place::OnDemand {
                at(self.look_ms);
            }
        }
        at(Rows::recorded_ms(self.rows.run.retry_at_ms));
        if let RunState::Waiting { question, .. } = &self.rows.run.status {
            at(Rows::recorded_ms(question.deadline_ms));
        }
        next
    }

    fn heeds_notices(&self) -> bool {
        self.policy.notices && self.settings.notice_ms > 0
    }

    fn take_back(&mut self) -> bool {
        let now = self.rows.now_ms;
        let due = |it: &&mut super::rows::Instance| !it.dead && it.dies_ms <= now;
        let mut taken: Vec<(MachineId, bool, bool)> = Vec::new();
        for it in self.rows.instances.iter_mut().filter(due) {
            it.dead = true;
            taken.push((it.id, it.noticed, it.attached));
        }
        for (id, noticed, attached) in &taken {
            if self.program.as_ref().is_some_and(|program| program.machine == *id) {
                self.tally.losses += 1;
                self.end_program(!noticed);
            } else if !attached {
                self.tally.lost_starting += 1;
            }
        }
        !taken.is_empty()
    }

    fn end_save(&mut self) -> Result<bool, ReplayError> {
        let now = self.rows.now_ms;
        let interval = self.interval_ms();
        let Some(program) = self.program.as_mut() else { return Ok(false) };
        let Phase::Saving { until_ms } = program.phase else { return Ok(false) };
        if until_ms > now {
            return Ok(false);
        }
        let (machine, work, leaves) = (program.machine, program.base_ms, program.leaves);
        program.phase = Phase::Computing { since_ms: now };
        program.next_save_ms = now + interval;
        if self.rows.instance(machine).is_some_and(|it| it.noticed) {
            program.next_save_ms = program.last_save_ms.take().filter(|at| *at > now).unwrap_or(u64::MAX);
        }
        self.rows.commit(work);
        self.tally.saves += 1;
        if self.settings.work_ms.is_some_and(|all| work >= all) {
            self.rows.end_attempt(AttemptEvent::End(Exit::Code { code: 0 }))?;
            self.end_program(false);
        } else if leaves {
            if let Some(row) = self.rows.machine_mut(machine) {
                row.condemned = true;
                row.reason = format!("{}it waits for the market", plan::UNFIT);
            }
        } else if self.on() == Place::Spot && self.wanted() == Place::OnDemand {
            self.leave(machine);
        }
        Ok(true)
    }

    /// Another machine is wanted while this one still works.
    fn leave(&mut self, machine: MachineId) {
        if let Some(row) = self.rows.machine_mut(machine) {
            row.given_up = true;
        }
    }

    fn get_ready(&mut self) -> Result<bool, ReplayError> {
        let now = self.rows.now_ms;
        let booting = |it: &super::rows::Instance| !it.attached && !it.dead && it.ready_ms <= now;
        let Some(at) = self.rows.instances.iter().position(booting) else { return Ok(false) };
        if self.program.is_some() && !self.rows.instances[at].handed {
            self.save_now();
            let until = match self.program.as_ref().map(|program| program.phase) {
                Some(Phase::Saving { until_ms }) => until_ms,
                _ => now,
            };
            self.rows.instances[at].handed = true;
            self.rows.instances[at].ready_ms = until;
            return Ok(true);
        }
        let instance = &mut self.rows.instances[at];
        instance.attached = true;
        instance.word = None;
        let id = instance.id;
        let wall = self.rows.wall_ms();
        if let Some(row) = self.rows.machine_mut(id)
            && matches!(row.status, MachineState::Created | MachineState::Booting)
        {
            row.status = row.status.apply(MachineEvent::Attach)?;
            row.ready_ms = wall;
        }
        Ok(true)
    }

    fn notice(&mut self) -> bool {
        let Some(machine) = self.program.as_ref().map(|program| program.machine) else { return false };
        let (now, notice, heeds) = (self.rows.now_ms, self.settings.notice_ms, self.heeds_notices());
        let cost = self.settings.save_cost();
        let Some(instance) = self.rows.instance_mut(machine) else { return false };
        let told = instance.dies_ms != u64::MAX && now >= instance.dies_ms.saturating_sub(notice);
        if !heeds || instance.noticed || instance.dead || !told {
            return false;
        }
        instance.noticed = true;
        let left = instance.dies_ms - now;
        let last = cadence::last_save_s(left as f64 / 1_000.0, &cost);
        if let Some(program) = &mut self.program {
            program.last_save_ms = last.map(|seconds| now + (seconds * 1_000.0) as u64);
            program.leaves = false;
        }
        self.leave(machine);
        self.save_now();
        true
    }

    /// Begins a save, unless one is under way.
    fn save_now(&mut self) {
        let (now, takes) = (self.rows.now_ms, self.settings.save_ms);
        if let Some(program) = &mut self.program
            && matches!(program.phase, Phase::Computing { .. })
        {
            program.base_ms = program.progress_ms(now);
            program.phase = Phase::Saving { until_ms: now + takes };
        }
    }

    fn begin_save(&mut self) -> bool {
        let now = self.rows.now_ms;
        let work = self.settings.work_ms;
        let Some(program) = self.program.as_ref() else { return false };
        if matches!(program.phase, Phase::Saving { .. }) {
            return false;
        }
        // What is done is saved as a result.
        let done = work.is_some_and(|all| program.progress_ms(now) >= all);
        if !done && program.next_save_ms > now {
            return false;
        }
        self.save_now();
        true
    }

    /// Whoever is on an on-demand machine looks at the market now and then.
    fn look(&mut self) -> bool {
        if self.look_ms > self.rows.now_ms || self.on() != Place::OnDemand {
            return false;
        }
        self.look_ms = self.rows.now_ms + LOOK_MS;
        let Some(machine) = self.program.as_ref().map(|program| program.machine) else { return false };
        if self.rows.machine(machine).is_none_or(|row| row.given_up || row.condemned) {
            return false;
        }
        match self.wanted() {
            Place::OnDemand => false,
            Place::Spot => {
                self.leave(machine);
                true
            }
            Place::Nowhere => {
                self.save_now();
                if let Some(program) = &mut self.program {
                    program.leaves = true;
                }
                true
            }
        }
    }
}
