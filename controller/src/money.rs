//! What may be spent, decided without IO. Nothing that somebody bills is begun
//! without a cap that a person wrote: silence is no consent. What is spent and
//! what must be kept back for the end of every machine stay below each cap
//! together (I16), so that the cap also holds in the provider's books.

use std::collections::BTreeMap;

use lifecycle::meter::Rates;
use lifecycle::{MachineState, RunId, RunSpec};
use serde::{Deserialize, Serialize};

use crate::model::{Machine, Run, Wish};
use crate::plan::Snapshot;

const HOUR_MS: f64 = 3_600_000.0;
/// How long a machine may need from its last moment of allowance until its
/// program has saved and its end is asked for, beside the run's own grace.
const ENDING_MS: u64 = 300_000;
/// How long its end may have to be asked for again.
const DESTROY_RETRIES_MS: u64 = 600_000;
/// How long the disk of a stopped machine is paid for from what is kept back.
const DISK_HOURS: f64 = 48.0;
/// Money kept back for a machine that nobody bills: its price is a figure.
const TEARDOWN_MS: u64 = 120_000;
/// What a gigabyte of disk is reckoned at before the provider has said it, in
/// US dollars an hour: $0.20 a month, and a month has 730 hours.
const DISK_USD_PER_GB_HOUR: f64 = 0.20 / 730.0;
/// Shares of a cap of which people are told.
pub const TOLD_AT: [u8; 3] = [50, 80, 100];

/// What a cap is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// One run.
    Run,
    /// All runs of its project, for ever.
    Project,
    /// All runs of this installation on one day of UTC.
    Day,
}

impl Scope {
    /// Its name in journals and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Project => "project",
            Self::Day => "day",
        }
    }
}

/// One cap and how full it is, in US dollars.
#[derive(Debug, Clone, PartialEq)]
pub struct Room {
    /// What it is about.
    pub scope: Scope,
    /// The cap.
    pub cap_usd: f64,
    /// Spent so far, as far as can be known.
    pub spent_usd: f64,
    /// Kept back for the ends of the machines that there are.
    pub reserved_usd: f64,
    /// Machines that spend from it now.
    pub machines: usize,
}

impl Room {
    /// What may still be spent.
    #[must_use]
    pub fn left_usd(&self) -> f64 {
        self.cap_usd - self.spent_usd - self.reserved_usd
    }

    /// The highest share in [`TOLD_AT`] that is reached; 0: none. The cap counts
    /// as reached when only what is kept back is left.
    #[must_use]
    pub fn percent(&self) -> u8 {
        let full = self.left_usd() <= 0.0;
        let share = 100.0 * self.spent_usd / self.cap_usd;
        TOLD_AT.iter().rev().copied().find(|at| (*at == 100 && full) || share >= f64::from(*at)).unwrap_or(0)
    }
}

/// Sums over machines that are gone, by what caps are about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Past {
    /// US dollars by project.
    pub by_project: BTreeMap<String, f64>,
    /// US dollars today.
    pub today: f64,
}

/// What an hour of a machine takes, its disk included.
#[must_use]
fn hourly(machine: &Machine) -> f64 {
    if machine.meter.is_on() { machine.meter.rates.hourly() } else { machine.usd_per_hour }
}

fn hours(ms: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of years fit")]
    let ms = ms as f64;
    ms / HOUR_MS
}

/// What is kept back so that a machine can save, be ended, and keep its disk
/// until somebody comes, where nobody can be reached. `head_bytes` is the size of
/// the newest checkpoint, which is fetched once.
#[must_use]
pub fn reserve(rates: &Rates, paid: bool, spec: &RunSpec, head_bytes: u64) -> f64 {
    let grace = spec.grace_seconds * 1_000;
    if !paid {
        return rates.hourly() * hours(TEARDOWN_MS + grace);
    }
    #[expect(clippy::cast_precision_loss, reason = "bytes of a checkpoint")]
    let upload_gb = head_bytes as f64 / 1e9;
    rates.hourly() * hours(ENDING_MS + grace + DESTROY_RETRIES_MS)
        + rates.disk_usd_per_hour * DISK_HOURS
        + upload_gb * rates.up_usd_per_gb
}

/// What a machine that a run does not have yet is reckoned at.
#[must_use]
pub fn expected(run: &RunSpec, paid: bool) -> Rates {
    let hourly = if paid { run.max_usd_per_hour } else { run.usd_per_hour.or(run.max_usd_per_hour) };
    let hourly = hourly.unwrap_or(0.0);
    #[expect(clippy::cast_precision_loss, reason = "bytes of a disk")]
    let disk = if paid { run.machine.disk_bytes as f64 / 1e9 * DISK_USD_PER_GB_HOUR } else { 0.0 };
    let disk = disk.min(hourly);
    Rates { compute_usd_per_hour: hourly - disk, disk_usd_per_hour: disk, ..Rates::default() }
}

/// The least cap under which a machine of this run could be begun at all.
#[must_use]
pub fn least_cap(spec: &RunSpec, head_bytes: u64, paid: bool) -> f64 {
    reserve(&expected(spec, paid), paid, spec, head_bytes)
}

fn bills(machine: &Machine) -> bool {
    machine.status.may_bill() || machine.status == MachineState::Intent
}

fn least(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    values.flatten().min_by(f64::total_cmp)
}

/// The caps that hold for a run, each with all that spends from it.
#[must_use]
pub fn rooms(world: &Snapshot, run: &Run) -> Vec<Room> {
    let of_project = |other: &&Run| other.spec.project == run.spec.project;
    // The strictest wish of those that spend from the same purse holds for all.
    let open = || world.runs.iter().filter(|r| !r.status.is_final());
    let project = least(open().filter(of_project).map(|r| r.spec.max_usd_project));
    let day = least(open().map(|r| r.spec.max_usd_day));
    let mut found = Vec::new();
    let mut add = |scope, cap: Option<f64>, past: f64, mine: &dyn Fn(&Run) -> bool| {
        let Some(cap_usd) = cap else { return };
        let mut room = Room { scope, cap_usd, spent_usd: past, reserved_usd: 0.0, machines: 0 };
        for machine in world.machines.iter().filter(|m| bills(m)) {
            let Some(owner) = world.runs.iter().find(|r| r.id == machine.run).filter(|r| mine(r)) else {
                continue;
            };
            room.spent_usd += match scope {
                Scope::Day => machine.spent_today(world.now_ms),
                _ => machine.cost_usd(world.now_ms),
            };
            room.reserved_usd += reserve_of(world, machine, owner);
            room.machines += 1;
        }
        found.push(room);
    };
    let past_run = world.spent.iter().filter(|(id, _)| *id == run.id).map(|(_, usd)| usd).sum();
    add(Scope::Run, run.spec.max_usd, past_run, &|r| r.id == run.id);
    let past_project = world.past.by_project.get(&run.spec.project).copied().unwrap_or(0.0);
    add(Scope::Project, project, past_project, &|r| r.spec.project == run.spec.project);
    add(Scope::Day, day, world.past.today, &|_| true);
    found
}

fn reserve_of(world: &Snapshot, machine: &Machine, run: &Run) -> f64 {
    let paid = world.is_paid(&machine.provider);
    let rates = if machine.meter.is_on() {
        machine.meter.rates
    } else if paid {
        // Wished for: its price is the most that it may be.
        expected(&run.spec, paid)
    } else {
        Rates::flat(machine.usd_per_hour)
    };
    reserve(&rates, paid, &run.spec, run.head_bytes)
}

/// The first cap under which a run may not go on as it does. A run without a
/// machine is not over while others only keep money back that they give free.
#[must_use]
pub fn exhausted(world: &Snapshot, run: &Run) -> Option<Room> {
    let has_machine = world.machines.iter().any(|m| m.run == run.id && bills(m));
    let next = least_cap(&run.spec, run.head_bytes, world.is_paid(&run.spec.provider));
    rooms(world, run).into_iter().find(|room| {
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
pub fn refuses(world: &Snapshot, run: &Run) -> Option<Room> {
    let paid = world.is_paid(&run.spec.provider);
    let known = world.machines.iter().filter(|m| m.run == run.id && bills(m)).map(hourly).fold(0.0, f64::max);
    let like = reserve(&Rates::flat(if paid { 0.0 } else { known }), paid, &run.spec, 0);
    let next = least_cap(&run.spec, run.head_bytes, paid).max(like);
    rooms(world, run).into_iter().find(|room| next > 0.0 && room.left_usd() - next <= 0.0)
}

/// A cap is spent altogether, with what was kept back.
#[must_use]
pub fn spent(world: &Snapshot, run: &Run) -> bool {
    rooms(world, run).iter().any(|room| room.spent_usd >= room.cap_usd)
}

/// Runs that have reached another share of a cap, with the cap.
#[must_use]
pub fn news(world: &Snapshot) -> Vec<(RunId, u8, Room)> {
    let mut news = Vec::new();
    for run in world.runs.iter().filter(|r| !r.status.is_final()) {
        let reached = rooms(world, run).into_iter().max_by_key(Room::percent);
        if let Some(room) = reached.filter(|room| room.percent() > run.told_percent) {
            news.push((run.id, room.percent(), room));
        }
    }
    news
}

/// How long each machine may go on without a controller, in milliseconds from
/// now: its share of what is left in every cap it spends from. Machines without
/// a cap are not in it.
#[must_use]
pub fn allowances(world: &Snapshot) -> Vec<(lifecycle::MachineId, u64)> {
    let mut all = Vec::new();
    for machine in world.machines.iter().filter(|m| bills(m)) {
        let Some(run) = world.runs.iter().find(|r| r.id == machine.run) else { continue };
        let price = hourly(machine);
        if price <= 0.0 {
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of machines")]
        let share = |room: &Room| room.left_usd().max(0.0) / room.machines.max(1) as f64;
        if let Some(usd) = rooms(world, run).iter().map(share).min_by(f64::total_cmp) {
            // A year is as good as for ever.
            let ms = (usd / price * HOUR_MS).min(3.2e10);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded above")]
            all.push((machine.id, ms as u64));
        }
    }
    all
}

/// Whether a run may be begun with a provider.
///
/// # Errors
/// What is missing, and how it is given.
pub fn is_capped(spec: &RunSpec, paid: bool) -> Result<(), String> {
    if !paid {
        return Ok(());
    }
    let mut missing = Vec::new();
    if spec.max_usd.is_none() {
        missing.push("max_usd = 10.00 (for the whole run)");
    }
    if spec.max_usd_per_hour.is_none() {
        missing.push("max_usd_per_hour = 0.60 (for its machine)");
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "machines of `{}` cost money, and this run has no cap: write to [budget] in outlast.toml, for example: {}; \
         or give it with --set budget.max_usd=... and --set budget.max_usd_per_hour=...",
        spec.provider,
        missing.join(" and ")
    ))
}

/// Whether a cap of a new run could bear one machine of it.
///
/// # Errors
/// Which could not, and from what it would be enough.
pub fn is_enough(spec: &RunSpec, paid: bool) -> Result<(), String> {
    let least = least_cap(spec, 0, paid);
    let caps = [
        ("max_usd", spec.max_usd),
        ("max_usd_project", spec.max_usd_project),
        ("max_usd_day", spec.max_usd_day),
    ];
    match caps.iter().find(|(_, cap)| paid && cap.is_some_and(|cap| cap <= least)) {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "budget.{name} must be more than ${least:.2}: so much is kept back for the end of a machine that costs \
             ${:.2} an hour (its last save, ten minutes of asking for its end, two days of its disk)",
            spec.max_usd_per_hour.unwrap_or(0.0)
        )),
    }
}

/// Whether a run is asked to spend at all.
#[must_use]
pub fn spends(run: &Run) -> bool {
    run.wish == Wish::Run && !run.status.is_final()
}

#[cfg(test)]
mod tests;
