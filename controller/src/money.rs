//! What may be spent, decided without IO. Nothing that somebody bills is begun
//! without a cap that a person wrote: silence is no consent. What is spent and
//! what must be kept back for the end of every machine stay below each cap
//! together (I16), so that the cap also holds in the provider's books.

use std::collections::BTreeMap;

use lifecycle::meter::Rates;
use lifecycle::spec::MachineSpec;
use lifecycle::{MachineState, RunSpec};
use serde::{Deserialize, Serialize};

use crate::model::{Machine, Run, Wish};

mod books;

pub use books::Books;

const HOUR_MS: f64 = 3_600_000.0;
/// How long a machine may need from its last moment of allowance until its
/// program has saved and its end is asked for, beside the run's own grace.
const ENDING_MS: u64 = 300_000;
/// How long its end may have to be asked for again.
const DESTROY_RETRIES_MS: u64 = 600_000;
/// How long the disk of a stopped machine is paid for from what is kept back.
pub(crate) const DISK_HOURS: f64 = 48.0;
/// Money kept back for a machine that nobody bills: its price is a figure.
const TEARDOWN_MS: u64 = 120_000;
/// What a gigabyte of disk is reckoned at before the provider has said it, in
/// US dollars an hour: $0.20 a month, and a month has 730 hours.
const DISK_USD_PER_GB_HOUR: f64 = 0.20 / 730.0;
/// Shares of what may be spent of a cap of which people are told.
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

    /// What of the cap may be spent: all but what is kept back.
    #[must_use]
    pub fn may_spend_usd(&self) -> f64 {
        (self.cap_usd - self.reserved_usd).max(0.0)
    }

    /// The highest share in [`TOLD_AT`] of what may be spent that is reached; 0:
    /// none.
    #[must_use]
    pub fn percent(&self) -> u8 {
        let full = self.left_usd() <= 0.0;
        let share = 100.0 * self.spent_usd / self.may_spend_usd();
        TOLD_AT.iter().rev().copied().find(|at| full || share >= f64::from(*at)).unwrap_or(0)
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
pub fn expected(run: &RunSpec, machine: &MachineSpec, paid: bool) -> Rates {
    let hourly = if paid { run.max_usd_per_hour } else { run.usd_per_hour.or(run.max_usd_per_hour) };
    let hourly = hourly.unwrap_or(0.0);
    #[expect(clippy::cast_precision_loss, reason = "bytes of a disk")]
    let disk = if paid { machine.disk_bytes as f64 / 1e9 * DISK_USD_PER_GB_HOUR } else { 0.0 };
    let disk = disk.min(hourly);
    Rates { compute_usd_per_hour: hourly - disk, disk_usd_per_hour: disk, ..Rates::default() }
}

/// The least cap under which a machine of this run could be begun at all.
#[must_use]
pub fn least_cap(spec: &RunSpec, machine: &MachineSpec, head_bytes: u64, paid: bool) -> f64 {
    reserve(&expected(spec, machine, paid), paid, spec, head_bytes)
}

fn bills(machine: &Machine) -> bool {
    machine.status.may_bill() || machine.status == MachineState::Intent
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
    let least = least_cap(spec, &spec.machine, 0, paid);
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
