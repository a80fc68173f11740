//! What it is expected to take, in hours and dollars, to finish a piece of work
//! on a machine that is offered: its price, its starts that fail, its boot, its
//! losses with the steps that are repeated, its speed. Pure. What an offer says
//! is hostile: no number in it makes the answer negative, endless or none.
//!
//! An hour in which the run waits for a machine counts as an hour of that
//! machine: what is not billed of it is the price of waiting.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cadence::{self, Bounds, Prior, SaveCost};
use crate::reputation::Reputation;
use crate::spec::Market;

/// Hours of work where nobody knows how many there are: what one start is
/// shared out over. Few, since who waits for a start waits in person.
const UNKNOWN_H: f64 = 2.0;
/// From a loss until it is known, in seconds.
const DETECT_S: f64 = 60.0;
/// What a start that fails costs at least, in seconds: six machines may be made
/// in an hour, and it was one of them.
const FAIL_LEAST_S: f64 = 600.0;
/// How long a machine is away in the mean that its provider calls unreliable,
/// in seconds: with that, a reliability of 0.98 is a loss in four days.
const OUTAGE_S: f64 = 7_200.0;
/// Between the speeds of two machines lies no more than this.
const SPEED_MOST: f64 = 50.0;
/// Part of the time that is useful, at least: below, nothing is told apart.
const USEFUL_LEAST: f64 = 1e-3;
/// What a broken promise adds to the price that is believed, and at most how
/// often.
const LIE: f64 = 0.1;
const LIES_MOST: f64 = 10.0;
/// What is not a price counts as this, dollars an hour.
const ABSURD_USD: f64 = 1e6;
const HOURS_MOST: f64 = 1e9;
/// Bytes a second of a link of which nobody knows anything.
const LINK: f64 = 12.5e6;

/// An offer, as far as its cost goes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Dollars an hour, disk included.
    pub usd_per_hour: f64,
    /// Dollars for each gigabyte to it.
    pub down_usd_per_gb: f64,
    /// Dollars for each gigabyte from it.
    pub up_usd_per_gb: f64,
    /// Speed in its provider's measure (DLPerf); 0: not told.
    pub speed: f64,
    /// Bytes a second to it, as its provider says; 0: not told.
    pub down_bytes_per_s: f64,
    /// 0 to 1, in its provider's measure; 0: not told.
    pub reliability: f64,
    /// How it is rented.
    pub market: Market,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Hours on a machine of the reference speed, without a loss; `None`: nobody
    /// knows.
    pub hours: Option<f64>,
    /// That speed; 0: speeds are not compared.
    pub reference_speed: f64,
    /// Bytes that each start fetches: the source and the newest checkpoint.
    pub start_bytes: f64,
    /// Gigabytes of checkpoints that leave the machine in an hour.
    pub up_gb_per_hour: f64,
    /// What one save costs.
    pub save: SaveCost,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            hours: None,
            reference_speed: 0.0,
            start_bytes: 0.0,
            up_gb_per_hour: 0.0,
            save: SaveCost::blocking(5.0),
        }
    }
}

/// What is expected of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Outlook {
    /// Hours from the order to the end of the work.
    pub hours: f64,
    /// Dollars for all of it.
    pub usd: f64,
    /// Dollars for each hour of work at the reference speed.
    pub usd_per_useful_hour: f64,
    /// Hours of work, at the reference speed, that this is for.
    pub work_hours: f64,
    /// Part of the time on the machine that is work done for the first time.
    pub useful: f64,
    /// Losses on the way.
    pub losses: f64,
    /// Chance that a start comes up.
    pub chance_up: f64,
    /// Seconds from the order to the agent's first word.
    pub boot_s: f64,
    /// Mean seconds between losses.
    pub between_losses_s: f64,
    /// How fast it is, by the reference.
    pub speed: f64,
}

fn positive(number: f64) -> f64 {
    if number.is_finite() && number > 0.0 { number } else { 0.0 }
}

/// A price; what is none is absurdly dear, so that nobody gains by it.
fn price(usd: f64) -> f64 {
    if usd.is_finite() && usd >= 0.0 { usd.min(ABSURD_USD) } else { ABSURD_USD }
}

/// How fast a machine is by another, where both speeds are known.
#[must_use]
pub fn ratio(speed: f64, reference: f64) -> f64 {
    let (speed, reference) = (positive(speed), positive(reference));
    if speed == 0.0 || reference == 0.0 {
        return 1.0;
    }
    (speed / reference).clamp(1.0 / SPEED_MOST, SPEED_MOST)
}

/// What is believed of a lifetime where nothing was seen: the market's prior,
/// or less where the provider itself says so.
#[must_use]
pub fn prior_s(market: Market, reliability: f64) -> f64 {
    let usual = match market {
        Market::OnDemand => Prior::KEPT.mean_s,
        Market::Interruptible => Prior::SPOT.mean_s,
    };
    let said = positive(reliability).min(1.0);
    if said == 0.0 || said == 1.0 {
        return usual;
    }
    usual.min((OUTAGE_S * said / (1.0 - said)).max(600.0))
}

/// The expectation of one offer. `host` is what is known of the physical
/// machine, `kind` of all of its kind.
#[must_use]
pub fn outlook(facts: &Facts, work: &Work, host: &Reputation, kind: &Reputation) -> Outlook {
    let between_losses_s =
        host.between_losses_s(kind.between_losses_s(prior_s(facts.market, facts.reliability)));
    let chance_up = host.chance_up().clamp(1e-3, 1.0);
    let boot_s = host.mean_boot_s();
    // Starts that fail before one comes up.
    let failing_s = (1.0 / chance_up - 1.0) * host.mean_fail_s().max(FAIL_LEAST_S);
    let link = match host.bandwidth(facts.down_bytes_per_s) {
        unknown if unknown <= 0.0 => LINK,
        known => known.max(1e3),
    };
    let start_bytes = positive(work.start_bytes).min(1e15);
    let start_s = failing_s + boot_s + start_bytes / link;
    let cost = work.save.seconds();
    let interval = cadence::interval_s(&work.save, between_losses_s, &Bounds::default());
    let wasted = cadence::wasted(interval, cost, between_losses_s, DETECT_S + start_s);
    let useful = (1.0 - wasted).clamp(USEFUL_LEAST, 1.0);
    let speed = ratio(facts.speed, work.reference_speed);
    let work_hours = work.hours.map_or(UNKNOWN_H, positive).clamp(1.0 / 3_600.0, HOURS_MOST / 1e3);
    let on_it = work_hours / speed / useful;
    let hours = (start_s / 3_600.0 + on_it).min(HOURS_MOST);
    let losses = on_it * 3_600.0 / between_losses_s.max(1.0);
    let down_gb = start_bytes / 1e9 * (1.0 + losses);
    let up_gb = positive(work.up_gb_per_hour).min(1e6) * on_it;
    let lies = 1.0 + LIE * positive(host.lies).min(LIES_MOST);
    let usd = price(facts.usd_per_hour) * lies * hours
        + price(facts.down_usd_per_gb) * down_gb
        + price(facts.up_usd_per_gb) * up_gb;
    Outlook {
        hours,
        usd,
        usd_per_useful_hour: usd / work_hours,
        work_hours,
        useful,
        losses,
        chance_up,
        boot_s,
        between_losses_s,
        speed,
    }
}

/// All that is known when offers are compared, as of one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Appraisal {
    /// What is to be done.
    pub work: Work,
    /// The kind of GPU whose speed is the reference; empty: the middle one.
    pub reference_gpu: String,
    /// Of each physical machine, by its provider's number.
    pub hosts: BTreeMap<String, Reputation>,
    /// Of each kind, by [`kind`].
    pub kinds: BTreeMap<String, Reputation>,
}

/// The name of a kind of machine: losses depend on the GPU and on how it is
/// rented.
#[must_use]
pub fn kind(gpu: &str, market: Market) -> String {
    let plain: String = gpu.replace('_', " ").to_lowercase().chars().take(64).collect();
    let how = match market {
        Market::OnDemand => "on-demand",
        Market::Interruptible => "interruptible",
    };
    format!("{how} {}", plain.trim())
}

impl Appraisal {
    /// What is expected of an offer on this physical machine.
    #[must_use]
    pub fn of(&self, host: &str, gpu: &str, facts: &Facts) -> Outlook {
        let none = Reputation::default();
        let known = self.hosts.get(host).unwrap_or(&none);
        let kind = self.kinds.get(&kind(gpu, facts.market)).unwrap_or(&none);
        outlook(facts, &self.work, known, kind)
    }

    /// The same with a reference for the speeds, where there is none: the middle
    /// one of those on offer, of the kind that is the reference if there is one.
    #[must_use]
    pub fn measured_by<'a>(&self, offered: impl Iterator<Item = (&'a str, f64)>) -> Self {
        let offered: Vec<(&str, f64)> = offered.filter(|(_, speed)| positive(*speed) > 0.0).collect();
        let wanted = kind(&self.reference_gpu, Market::OnDemand);
        let middle = middle(&offered, &wanted).map_or(0.0, |(_, speed)| speed);
        let given = positive(self.work.reference_speed);
        let reference_speed = if given > 0.0 { given } else { middle };
        Self { work: Work { reference_speed, ..self.work }, ..self.clone() }
    }

    /// The kind of GPU whose speed that is, as it is offered; empty: no speed is
    /// told, and nothing is compared.
    #[must_use]
    pub fn reference<'a>(&self, offered: impl Iterator<Item = (&'a str, f64)>) -> String {
        let offered: Vec<(&str, f64)> = offered.filter(|(_, speed)| positive(*speed) > 0.0).collect();
        let found = middle(&offered, &kind(&self.reference_gpu, Market::OnDemand));
        found.map_or_else(String::new, |(gpu, _)| gpu.to_owned())
    }
}

/// The one with the middle speed, of the wanted kind if there is one.
fn middle<'a>(offered: &[(&'a str, f64)], wanted: &str) -> Option<(&'a str, f64)> {
    let of = |all: bool| {
        let fits = |gpu: &str| all || kind(gpu, Market::OnDemand) == wanted;
        let mut found: Vec<(&str, f64)> = offered.iter().filter(|(gpu, _)| fits(gpu)).copied().collect();
        found.sort_by(|a, b| a.1.total_cmp(&b.1));
        found.get(found.len() / 2).copied()
    };
    of(false).or_else(|| of(true))
}

#[cfg(test)]
mod tests;
