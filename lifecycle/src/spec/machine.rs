//! What a machine must be for a run: asked of providers that rent out many
//! kinds. Wishes are in the user's order of preference; limits are limits.

use serde::{Deserialize, Serialize};

/// What is asked of a rented machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineSpec {
    /// GPU types as the provider names them, the preferred first; empty: any.
    pub gpus: Vec<String>,
    /// GPUs of one machine.
    pub gpu_count: u32,
    /// Memory of each GPU in bytes at least; 0: any.
    pub gpu_memory_bytes: u64,
    /// The machine's own memory in bytes at least; 0: any.
    pub memory_bytes: u64,
    /// Processor cores at least; 0: any.
    pub cpus: u32,
    /// Disk of the machine in bytes, for its whole life.
    pub disk_bytes: u64,
    /// Regions by country code (ISO 3166), the preferred first; empty: any.
    pub regions: Vec<String>,
    /// Lowest reliability in the provider's own measure, 0 to 1.
    pub min_reliability: f64,
    /// The image that the machine starts with, as a registry names it.
    pub image: String,
    /// Whether the provider may take the machine back.
    pub market: Market,
    /// What becomes of a machine that stopped with the run's work on it.
    #[serde(skip_serializing_if = "super::is_default")]
    pub when_stopped: WhenStopped,
    /// What else the provider's search is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<super::Filter>,
    /// Where no machine is rented: physical machines as the provider numbers
    /// them, and `host:NUMBER` for all that one host has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<String>,
    /// A market that is played on this computer, for machines of `local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub played: Option<Box<super::PlayedMarket>>,
    /// Also a machine that costs something may be made while its silent one is
    /// not lost yet. What costs nothing is made without being asked for.
    #[serde(skip_serializing_if = "super::is_default")]
    pub speculate: bool,
    /// Seconds of silence before that.
    #[serde(skip_serializing_if = "is_usual_speculation")]
    pub speculate_after_seconds: u64,
    /// Seconds of silence after which a machine is given up without evidence.
    #[serde(skip_serializing_if = "is_usual_patience")]
    pub lost_after_seconds: u64,
}

/// Seconds of silence before a paid machine is made, where none were set.
const SPECULATE_AFTER: u64 = 15;
/// Seconds of silence after which a machine is given up, where none were set.
const LOST_AFTER: u64 = 30;

fn is_usual_speculation(seconds: &u64) -> bool {
    *seconds == SPECULATE_AFTER
}

fn is_usual_patience(seconds: &u64) -> bool {
    *seconds == LOST_AFTER
}

impl MachineSpec {
    /// Seconds of silence after which a machine is given up, where the run asks
    /// for others than the usual ones.
    #[must_use]
    pub fn own_patience(&self) -> Option<u64> {
        (self.lost_after_seconds != LOST_AFTER).then_some(self.lost_after_seconds)
    }
}

/// What becomes of a machine that was outbid, or stopped otherwise, and could
/// go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenStopped {
    /// What is cheaper: a higher bid and the wait, or another machine and the
    /// steps that are done again there.
    #[default]
    Decide,
    /// It is asked to go on, as long as the ceiling allows it.
    Return,
    /// It is left.
    Leave,
}

/// Gigabyte of 10^9 bytes.
const GB: u64 = 1_000_000_000;

impl Default for MachineSpec {
    fn default() -> Self {
        Self {
            gpus: Vec::new(),
            gpu_count: 1,
            gpu_memory_bytes: 0,
            memory_bytes: 0,
            cpus: 0,
            disk_bytes: 40 * GB,
            regions: Vec::new(),
            min_reliability: 0.98,
            image: String::new(),
            market: Market::OnDemand,
            when_stopped: WhenStopped::Decide,
            filter: Vec::new(),
            avoid: Vec::new(),
            played: None,
            speculate: false,
            speculate_after_seconds: SPECULATE_AFTER,
            lost_after_seconds: LOST_AFTER,
        }
    }
}

/// How a machine is rented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    /// Kept until it is given back.
    #[default]
    OnDemand,
    /// Cheaper, and taken back when another pays more.
    Interruptible,
}
