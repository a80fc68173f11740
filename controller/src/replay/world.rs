//! The world of one replay: time, the program, and what is counted. Events
//! are in `happen`, what the planner wants is carried out in `perform`.

use lifecycle::cadence::{self, Bounds, ByAge, Lifetimes, Prior};
use lifecycle::{MachineId, RunState};

use super::rows::{Instance, Rows};
use super::tally::{Doing, Tally};
use super::trace::covered;
use super::{Cadence, Policy, ReplayError, Settings, Zone};
use crate::plan::{self, Action};

/// Passes of the planner at one moment before it counts as restless.
const PASSES: usize = 200;
/// How often a run on an on-demand machine looks at the market; also the
/// longest pause of one that was refused.
pub(super) const LOOK_MS: u64 = 60_000;

/// What the program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Computing { since_ms: u64 },
    Saving { until_ms: u64 },
}

/// The program of the bound attempt.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) machine: MachineId,
    /// When its machine was made.
    pub(super) born_ms: u64,
    pub(super) began_ms: u64,
    /// Work done when the phase began.
    pub(super) base_ms: u64,
    pub(super) phase: Phase,
    pub(super) next_save_ms: u64,
    /// The last save before an announced end.
    pub(super) last_save_ms: Option<u64>,
    /// Its machine is left once the save under way is durable.
    pub(super) leaves: bool,
}

impl Program {
    pub(super) fn progress_ms(&self, now_ms: u64) -> u64 {
        match self.phase {
            Phase::Computing { since_ms } => self.base_ms + now_ms.saturating_sub(since_ms),
            Phase::Saving { .. } => self.base_ms,
        }
    }
}

pub(super) struct World<'a> {
    pub(super) zones: &'a [Zone],
    pub(super) settings: &'a Settings,
    pub(super) policy: &'a Policy,
    pub(super) rows: Rows,
    pub(super) program: Option<Program>,
    pub(super) tally: Tally,
    /// What was seen of each zone's machines.
    pub(super) lives: Vec<Lifetimes>,
    /// What was seen of losses that cost work.
    pub(super) exposed: ByAge,
    pub(super) look_ms: u64,
    end_ms: u64,
    on_demand_spans: Vec<(u64, u64)>,
}

impl<'a> World<'a> {
    pub(super) fn new(
        zones: &'a [Zone],
        from_ms: u64,
        end_ms: u64,
        settings: &'a Settings,
        policy: &'a Policy,
    ) -> Result<Self, ReplayError> {
        Ok(Self {
            zones,
            settings,
            policy,
            rows: Rows::new(from_ms, settings)?,
            program: None,
            tally: Tally::default(),
            lives: vec![Lifetimes::default(); zones.len()],
            exposed: ByAge::default(),
            look_ms: u64::MAX,
            end_ms,
            on_demand_spans: Vec::new(),
        })
    }

    /// Until the work is done or the recording ends.
    pub(super) fn run(&mut self) -> Result<(), ReplayError> {
        loop {
            self.come_to_rest()?;
            if self.rows.run.status == RunState::Succeeded {
                self.tally.finished = true;
                break;
            }
            let next = self.next_ms().max(self.rows.now_ms + 1);
            self.advance(next.min(self.end_ms));
            if next >= self.end_ms {
                break;
            }
        }
        self.close();
        Ok(())
    }

    /// Lets happen what is due and carries out what the planner wants, until
    /// both want nothing more at this moment.
    fn come_to_rest(&mut self) -> Result<(), ReplayError> {
        let mut wants = Vec::new();
        for _ in 0..PASSES {
            let happened = self.happen()?;
            wants = plan::plan(&self.rows.snapshot(), &self.rows.clocks);
            wants.retain(|action| !self.asked_just_now(action));
            if wants.is_empty() && !happened {
                return Ok(());
            }
            for action in &wants {
                self.perform(action)?;
            }
            if let RunState::Failed { .. } = self.rows.run.status {
                self.resume_by_hand();
            }
        }
        let at_s = (self.rows.now_ms - self.rows.began_ms) / 1_000;
        Err(ReplayError::NoRest { at_s, wants: format!("{wants:?}") })
    }

    /// A person resumes what the retry rules gave up: what it saved is there.
    fn resume_by_hand(&mut self) {
        self.tally.given_up += 1;
        let run = &mut self.rows.run;
        run.status = RunState::Queued;
        run.endings.clear();
        run.bound = None;
        self.rows.attempt = None;
        self.program = None;
    }

    /// Providers are asked about a machine once at a moment.
    fn asked_just_now(&self, action: &Action) -> bool {
        let (Action::Probe(id) | Action::Resolve(id) | Action::Destroy(id)) = action else { return false };
        self.rows.instance(*id).is_some_and(|it| it.asked_ms == Some(self.rows.now_ms))
    }

    fn advance(&mut self, to_ms: u64) {
        let from = self.rows.now_ms;
        let doing = match &self.program {
            Some(program) => match self.rows.instance(program.machine).and_then(|it| it.zone) {
                Some(zone) => Doing::Spot(zone),
                None => Doing::OnDemand,
            },
            None if !self.rows.machines.is_empty() => Doing::Starting,
            None => Doing::Waiting,
        };
        if let Some(Program { phase: Phase::Saving { .. }, .. }) = self.program {
            self.tally.saving_ms += to_ms - from;
        }
        self.tally.doing(from, to_ms, doing);
        self.rows.now_ms = to_ms;
    }

    /// Work that would not be lost now.
    pub(super) fn durable_ms(&self) -> u64 {
        self.rows.run.head.as_ref().and_then(|head| head.step).unwrap_or(0)
    }

    /// Work done, if nothing is lost now.
    pub(super) fn done_ms(&self) -> u64 {
        self.program.as_ref().map_or_else(|| self.durable_ms(), |it| it.progress_ms(self.rows.now_ms))
    }

    /// The program is gone, with what it had not saved. `hit`: a loss that
    /// nobody had announced took it.
    pub(super) fn end_program(&mut self, hit: bool) {
        let lost = self.done_ms().saturating_sub(self.durable_ms());
        let kept = self.on_demand();
        if let Some(program) = self.program.take() {
            self.tally.repeated_ms += lost;
            if !kept {
                let age = |at_ms: u64| at_ms.saturating_sub(program.born_ms);
                self.exposed.add(age(program.began_ms), age(self.rows.now_ms), hit);
            }
        }
    }

    /// Milliseconds from a save to the next one.
    pub(super) fn interval_ms(&self) -> u64 {
        if self.on_demand() { self.interval_for(Prior::KEPT.mean_s) } else { self.spot_interval_ms() }
    }

    /// The same on a spot machine: the one that it is on, or a new one.
    pub(super) fn spot_interval_ms(&self) -> u64 {
        let born = self.program.as_ref().map_or(self.rows.now_ms, |program| program.born_ms);
        self.interval_for(self.exposed.mean_s(self.rows.now_ms - born, &Prior::SPOT))
    }

    fn interval_for(&self, between_losses_s: f64) -> u64 {
        match self.policy.cadence {
            Cadence::Fixed(ms) => ms,
            Cadence::Adaptive => {
                let cost = self.settings.save_cost();
                (cadence::interval_s(&cost, between_losses_s, &Bounds::default()) * 1_000.0) as u64
            }
        }
    }

    /// Whether the program is on an on-demand machine.
    fn on_demand(&self) -> bool {
        let on = self.program.as_ref().and_then(|program| self.rows.instance(program.machine));
        on.is_some_and(|instance| instance.zone.is_none())
    }

    /// An instance is paid for until it is taken back or given back.
    pub(super) fn bill(&mut self, instance: &Instance) {
        let until = if instance.dead { instance.dies_ms } else { self.rows.now_ms };
        let paid = until.saturating_sub(instance.born_ms);
        self.tally.usd += paid as f64 / 3_600_000.0 * instance.usd_per_hour;
        match instance.zone {
            Some(zone) => {
                self.tally.spot_ms += paid;
                self.lives[zone].add(paid, instance.dead || instance.noticed);
            }
            None => {
                self.tally.on_demand_ms += paid;
                self.on_demand_spans.push((instance.born_ms, until));
            }
        }
    }

    /// Adds up.
    fn close(&mut self) {
        let (from, to) = (self.rows.began_ms, self.rows.now_ms);
        self.tally.took_ms = to - from;
        self.tally.useful_ms = self.done_ms();
        for instance in std::mem::take(&mut self.rows.instances) {
            self.bill(&instance);
        }
        let zones = self.zones.iter().flat_map(|zone| zone.up().iter().copied());
        self.tally.possible_ms = covered(zones.chain(self.on_demand_spans.iter().copied()), from, to);
        self.tally.missed = self.settings.deadline_ms.is_some_and(|deadline| {
            self.tally.took_ms > deadline || (!self.tally.finished && self.tally.took_ms >= deadline)
        });
    }

    pub(super) fn into_tally(self) -> Tally {
        self.tally
    }
}
