//! Recorded availability played against the planner that runs in production.
//!
//! Time, machines and the market come from a recording; what is wanted comes
//! from [`crate::plan::plan`], [`crate::liveness`], the diagrams of `lifecycle`
//! and its retry rules, saves come when `lifecycle::cadence` says so, and the
//! market is chosen by `lifecycle::market`. Pure: no clock, no store, no
//! provider, no chance but a seed; the same input gives the same output, bit
//! for bit. It never asks a recording about its future, except for when a
//! notice would have come.
//!
//! Time goes from event to event. At each the planner is asked until it wants
//! nothing more.

mod happen;
mod market;
mod perform;
mod rows;
mod tally;
mod trace;
mod windows;
mod world;

pub mod generate;
pub mod read;

pub use tally::{Doing, Span, Tally};
pub use trace::Zone;
pub use windows::{Windows, windows};

use lifecycle::cadence::SaveCost;
use lifecycle::market::Rule;
use serde::Serialize;

use world::World;

/// Why a replay could not be carried through: a fault of this program.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The rows of the run could not be made.
    #[error("the rows of a replayed run cannot be made")]
    Rows(#[from] serde_json::Error),
    /// The planner asked for a move that no diagram has.
    #[error("the planner wants what no diagram has")]
    Move(#[from] lifecycle::Refusal),
    /// The planner does not come to rest, or time does not go on.
    #[error("the planner does not come to rest after {at_s} s: {wants}")]
    NoRest {
        /// Seconds since the beginning.
        at_s: u64,
        /// What it wants.
        wants: String,
    },
    /// There is no zone, or none of them lasts.
    #[error("there is no time in the recording to replay")]
    Empty,
}

/// How long things take, and what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Settings {
    /// From a loss until the provider says so, in milliseconds.
    pub detect_ms: u64,
    /// From the create call to the program's going on, in milliseconds.
    pub relaunch_ms: u64,
    /// How long the program stands still for a save, in milliseconds.
    pub save_ms: u64,
    /// How long before the end of a machine that is said; 0: it is not.
    pub notice_ms: u64,
    /// Price of a spot machine where the recording has none, dollars an hour.
    pub spot_usd: f64,
    /// Price of an on-demand machine, dollars an hour.
    pub on_demand_usd: f64,
    /// Work to be done; `None`: as much as there is time for.
    pub work_ms: Option<u64>,
    /// When it must have ended.
    pub deadline_ms: Option<u64>,
}

impl Default for Settings {
    /// The settings of `docs/economics.md`; prices of a p3.2xlarge in 2023.
    fn default() -> Self {
        Self {
            detect_ms: 10_000,
            relaunch_ms: 90_000,
            save_ms: 5_000,
            notice_ms: 120_000,
            spot_usd: 0.918,
            on_demand_usd: 3.06,
            work_ms: None,
            deadline_ms: None,
        }
    }
}

impl Settings {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a save fit")]
    fn save_cost(&self) -> SaveCost {
        SaveCost::blocking(self.save_ms as f64 / 1_000.0)
    }
}

/// When the program saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cadence {
    /// As the losses seen so far make it best.
    Adaptive,
    /// Each so many milliseconds, as a user would write it.
    Fixed(u64),
}

/// Everything that differs between two rows of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Its name.
    pub name: &'static str,
    /// Which market it takes machines from.
    pub rule: Rule,
    /// When it saves.
    pub cadence: Cadence,
    /// Whether a notice is made use of.
    pub notices: bool,
    /// Whether zones are taken by what an hour of useful work costs there,
    /// or in the order they were given in.
    pub chooses_zones: bool,
}

/// The policies that can be compared. Greedy and Uniform Progress differ from
/// ours in the choice of the market and of the zone alone: they save, detect
/// and use notices as ours does.
pub const POLICIES: [Policy; 6] = {
    let ours = Policy {
        name: "ours",
        rule: Rule::Ours,
        cadence: Cadence::Adaptive,
        notices: true,
        chooses_zones: true,
    };
    let own = Policy { notices: false, chooses_zones: false, ..ours };
    [
        ours,
        Policy { name: "on-demand", rule: Rule::OnDemand, ..ours },
        Policy { name: "hourly", cadence: Cadence::Fixed(3_600_000), ..own },
        Policy { name: "half-hourly", cadence: Cadence::Fixed(1_800_000), ..own },
        Policy { name: "greedy", rule: Rule::Greedy, chooses_zones: false, ..ours },
        Policy { name: "uniform-progress", rule: Rule::UniformProgress, chooses_zones: false, ..ours },
    ]
};

/// Replays a run under one policy over the zones from `from_ms` on, until its
/// work is done or the recording ends.
///
/// # Errors
/// Where the recording is empty, or the planner does what it never should.
pub fn replay(
    zones: &[Zone],
    from_ms: u64,
    settings: &Settings,
    policy: &Policy,
) -> Result<Tally, ReplayError> {
    let end_ms = zones.iter().map(Zone::end_ms).min().unwrap_or(0);
    if from_ms >= end_ms {
        return Err(ReplayError::Empty);
    }
    let mut world = World::new(zones, from_ms, end_ms, settings, policy)?;
    world.run()?;
    Ok(world.into_tally())
}

#[cfg(test)]
mod tests;
