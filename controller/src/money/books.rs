//! Every cap with all that spends from it, summed once for one snapshot: a plan
//! asks for each run, and a thousand runs must not be a million sums.

use std::collections::BTreeMap;

use lifecycle::meter::Rates;
use lifecycle::{MachineId, RunId, RunState};

use super::{HOUR_MS, Room, Scope, bills, expected, hourly, least_cap, reserve, spends};
use crate::model::{Machine, Run};
use crate::plan::Snapshot;

/// What spends from one purse.
#[derive(Debug, Clone, Default)]
struct Sum {
    usd: f64,
    today_usd: f64,
    reserved_usd: f64,
    machines: usize,
    /// The dearest of its machines, dollars an hour.
    hourly: f64,
    /// Some machine may yet serve its run.
    hopeful: bool,
    /// The strictest wish for the project and for the day of who spends from it.
    project_cap: Option<f64>,
    day_cap: Option<f64>,
}

impl Sum {
    fn add(&mut self, machine: &Machine, reserved_usd: f64, now_ms: u64, run: &Run) {
        self.usd += machine.cost_usd(now_ms);
        self.today_usd += machine.spent_today(now_ms);
        self.reserved_usd += reserved_usd;
        self.machines += 1;
        self.hourly = self.hourly.max(hourly(machine));
        if !run.status.is_final() {
            self.project_cap = least(self.project_cap, run.spec.max_usd_project);
            self.day_cap = least(self.day_cap, run.spec.max_usd_day);
        }
    }

    fn room(&self, scope: Scope, cap_usd: f64, spent_usd: f64) -> Room {
        Room { scope, cap_usd, spent_usd, reserved_usd: self.reserved_usd, machines: self.machines }
    }
}

fn least(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// The books of one moment.
pub struct Books<'a> {
    world: &'a Snapshot,
    runs: BTreeMap<RunId, &'a Run>,
    of_run: BTreeMap<RunId, Sum>,
    of_project: BTreeMap<&'a str, Sum>,
    all: Sum,
    past: BTreeMap<RunId, f64>,
}

impl<'a> Books<'a> {
    /// Sums up.
    #[must_use]
    pub fn of(world: &'a Snapshot) -> Self {
        let runs: BTreeMap<RunId, &Run> = world.runs.iter().map(|run| (run.id, &**run)).collect();
        let mut past: BTreeMap<RunId, f64> = BTreeMap::new();
        for (run, usd) in &world.spent {
            *past.entry(*run).or_default() += usd;
        }
        let (mut of_run, mut of_project) = (BTreeMap::<RunId, Sum>::new(), BTreeMap::<&str, Sum>::new());
        let mut all = Sum::default();
        for machine in &world.machines {
            let Some(run) = runs.get(&machine.run) else { continue };
            let own = of_run.entry(run.id).or_default();
            own.hopeful |= machine.status.is_hopeful();
            if bills(machine) {
                let kept = reserve_of(world, machine, run);
                own.add(machine, kept, world.now_ms, run);
                of_project.entry(&run.spec.project).or_default().add(machine, kept, world.now_ms, run);
                all.add(machine, kept, world.now_ms, run);
            }
        }
        Self { world, runs, of_run, of_project, all, past }
    }

    /// The caps that hold for a run: its own wish, and where it has none that
    /// of the strictest of those that spend from the same purse now.
    #[must_use]
    pub fn rooms(&self, run: &Run) -> Vec<Room> {
        let none = Sum::default();
        let own = self.of_run.get(&run.id).unwrap_or(&none);
        let project = self.of_project.get(run.spec.project.as_str()).unwrap_or(&none);
        let mut found = Vec::new();
        if let Some(cap) = run.spec.max_usd {
            found.push(own.room(Scope::Run, cap, own.usd + self.past.get(&run.id).unwrap_or(&0.0)));
        }
        if let Some(cap) = run.spec.max_usd_project.or(project.project_cap) {
            let past = self.world.past.by_project.get(&run.spec.project).unwrap_or(&0.0);
            found.push(project.room(Scope::Project, cap, project.usd + past));
        }
        if let Some(cap) = run.spec.max_usd_day.or(self.all.day_cap) {
            found.push(self.all.room(Scope::Day, cap, self.all.today_usd + self.world.past.today));
        }
        found
    }

    /// What is kept back for the end of a machine.
    #[must_use]
    pub fn kept_back(&self, machine: &Machine) -> f64 {
        let run = self.runs.get(&machine.run).filter(|_| bills(machine));
        run.map_or(0.0, |run| reserve_of(self.world, machine, run))
    }

    fn hourly(&self, run: &Run) -> f64 {
        self.of_run.get(&run.id).map_or(0.0, |sum| sum.hourly)
    }

    /// What the end of one more machine of a run would need.
    fn next_end(&self, run: &Run) -> f64 {
        let machine = run.steer.machine(&run.spec.machine);
        least_cap(&run.spec, machine, run.head_bytes, self.world.is_paid(&run.spec.provider))
    }

    /// The first cap under which a run may not go on as it does. A run without a
    /// machine is not over while others only keep money back that they give free.
    #[must_use]
    pub fn exhausted(&self, run: &Run) -> Option<Room> {
        let has_machine = self.of_run.get(&run.id).is_some_and(|sum| sum.machines > 0);
        let next = self.next_end(run);
        // What costs nothing is not ended by what others have spent.
        if next <= 0.0 && self.hourly(run) <= 0.0 {
            return None;
        }
        self.rooms(run).into_iter().find(|room| {
            if has_machine {
                (room.spent_usd > 0.0 || room.reserved_usd > 0.0) && room.left_usd() <= 0.0
            } else {
                (room.spent_usd > 0.0 || next > 0.0) && room.spent_usd + next >= room.cap_usd
            }
        })
    }

    /// The first cap that cannot bear one more machine of this run. Where its
    /// price is not known it is that of the machine that the run has.
    #[must_use]
    pub fn refuses(&self, run: &Run) -> Option<Room> {
        self.lacks(run, 1.0)
    }

    /// Whether every cap bears a machine beside the silent one of this run, and
    /// as much again: what is made on a guess must not be what ends the run.
    #[must_use]
    pub fn bears_both(&self, run: &Run) -> bool {
        self.lacks(run, 2.0).is_none()
    }

    /// The first cap that has less left than so many ends of this run's next
    /// machine need.
    fn lacks(&self, run: &Run, times: f64) -> Option<Room> {
        let paid = self.world.is_paid(&run.spec.provider);
        let known = if paid { 0.0 } else { self.hourly(run) };
        let next = self.next_end(run).max(reserve(&Rates::flat(known), paid, &run.spec, 0));
        self.rooms(run).into_iter().find(|room| next > 0.0 && room.left_usd() - times * next <= 0.0)
    }

    /// A cap is spent altogether, with what was kept back.
    #[must_use]
    pub fn spent(&self, run: &Run) -> bool {
        self.rooms(run).iter().any(|room| room.spent_usd >= room.cap_usd)
    }

    /// Runs that have reached another share of a cap, with the cap.
    #[must_use]
    pub fn news(&self) -> Vec<(RunId, u8, Room)> {
        let costly = self.runs.values().filter(|run| !run.status.is_final() && self.hourly(run) > 0.0);
        let reached = costly.filter_map(|run| {
            let room = self.rooms(run).into_iter().max_by_key(Room::percent)?;
            (room.percent() > run.told_percent).then(|| (run.id, room.percent(), room))
        });
        reached.collect()
    }

    /// Runs that want a machine whose end no cap can bear beside those of others.
    #[must_use]
    pub fn held_up(&self) -> Vec<(RunId, Room)> {
        let wants = |run: &&&Run| {
            let looks = matches!(run.status, RunState::Provisioning | RunState::Recovering);
            looks && spends(run) && !self.of_run.get(&run.id).is_some_and(|sum| sum.hopeful)
        };
        let waiting = self.runs.values().filter(wants);
        waiting.filter_map(|run| self.refuses(run).map(|room| (run.id, room))).collect()
    }

    /// How long each machine may go on without a controller, in milliseconds
    /// from now: its share of what is left in every cap it spends from. `None`:
    /// as long as it likes.
    #[must_use]
    pub fn allowances(&self) -> Vec<(MachineId, Option<u64>)> {
        self.world.machines.iter().map(|machine| (machine.id, self.allowance(machine))).collect()
    }

    fn allowance(&self, machine: &Machine) -> Option<u64> {
        let price = hourly(machine);
        let run = self.runs.get(&machine.run).filter(|_| bills(machine) && price > 0.0)?;
        #[expect(clippy::cast_precision_loss, reason = "a number of machines")]
        let share = |room: &Room| room.left_usd().max(0.0) / room.machines.max(1) as f64;
        let usd = self.rooms(run).iter().map(share).min_by(f64::total_cmp)?;
        // A year is as good as for ever.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded on both sides")]
        let ms = (usd / price * HOUR_MS).min(3.2e10) as u64;
        Some(ms)
    }
}

fn reserve_of(world: &Snapshot, machine: &Machine, run: &Run) -> f64 {
    let paid = world.is_paid(&machine.provider);
    let rates = if machine.meter.is_on() {
        machine.meter.rates
    } else if paid {
        // Wished for: its price is the most that it may be.
        expected(&run.spec, run.steer.machine(&run.spec.machine), paid)
    } else {
        Rates::flat(machine.usd_per_hour)
    };
    reserve(&rates, paid, &run.spec, run.head_bytes)
}
