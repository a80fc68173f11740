//! What each action does to the rows: the executor's rules.

use controller::liveness::ProviderWord;
use controller::model::{Machine, StopReason, Wish};
use controller::plan::{self, Action};
use lifecycle::question::{self, Trouble, Verb};
use lifecycle::retry::{self, Decision, Ending, Means};
use lifecycle::{
    AttemptEvent, AttemptId, AttemptState, LossCause, MachineEvent, MachineId, MachineState, Refusal,
    RunEvent, RunId, RunState,
};

use super::{Reply, World};

/// How long an unknown create is looked for.
const SETTLE_MS: u64 = 300_000;

impl World {
    /// # Errors
    /// Where the plan asks for a move that no diagram has.
    pub(in super::super) fn perform(&mut self, action: &Action) -> Result<(), Refusal> {
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
            Action::Tell(run, percent) => {
                self.run(*run).told_percent = *percent;
                Ok(())
            }
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
                let now = self.wall_ms;
                let Some(deadline_ms) = plan::storm_over_ms(&self.run(*run).creates_ms, now) else {
                    return Ok(());
                };
                let question = question::storm(plan::CREATES_PER_HOUR, now, deadline_ms);
                self.step_run(*run, RunEvent::Ask(question))
            }
            Action::Ask(run) => {
                let now = self.wall_ms;
                let row = self.run(*run).steer.refusals.as_mut().expect("it was refused");
                let question = question::refused("local", row, now);
                row.was_told();
                self.step_run(*run, RunEvent::Ask(question))
            }
            Action::Answer(run) => self.answer(*run),
            Action::Alarm(_) => {
                self.alarmed_ms = Some(self.up_ms);
                Ok(())
            }
        }
    }

    /// At the deadline the default; before it the question is over.
    fn answer(&mut self, id: RunId) -> Result<(), Refusal> {
        let now = self.wall_ms;
        let run = self.run(id);
        let RunState::Waiting { question, .. } = &run.status else { return Ok(()) };
        let stops =
            now >= question.deadline_ms && run.wish == Wish::Run && question.by_default() == Verb::Stop;
        let event = if stops { RunEvent::Fail("nobody answered".into()) } else { RunEvent::Answer };
        self.step_run(id, event)
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

    pub(in super::super) fn intend(&mut self, run_id: RunId) {
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
            meter: lifecycle::meter::Meter::default(),
            reason: String::new(),
            condemned: false,
            given_up: false,
            notice: None,
            return_asked: None,
            conduct: controller::model::Conduct::default(),
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
                run.steer.refusals = None;
                self.step(id, MachineEvent::Exist)
            }
            Reply::Lost | Reply::Vanished => self.step(id, MachineEvent::LoseReply),
            Reply::Rejected => {
                run.creates_ms.pop();
                run.rejections += 1;
                run.steer.refused(Trouble::Passing, "full", 0, now);
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
            let now = self.wall_ms;
            let row = self.machine(held);
            let noticed = plan::may_be_left(row, now) && !row.given_up;
            if row.status.is_up() && !row.given_up && !noticed {
                return Ok(());
            }
            let cause = if noticed { LossCause::Noticed } else { LossCause::Silent };
            self.end_attempt(id, old, AttemptEvent::Lose(cause))?;
            self.step_run(id, RunEvent::Unbind)?;
            // Evidence may have come in the same pass.
            if self.machine(held).status.is_up() {
                self.step(held, MachineEvent::Lose(cause))?;
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
            cause: None,
            micro_usd: 0,
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
        match retry::after(&run.endings, &run.spec.retry, &Means::default()) {
            Decision::Again => RunEvent::Unbind,
            // A question is asked once the attempt is unbound.
            Decision::Ask(why) => RunEvent::Fail(why),
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
