//! When a machine's figures are worth telling a person, and what is done about
//! a program that makes no progress.

use serde::{Deserialize, Serialize};

/// Thresholds. Percentages are of what there is in all; an alert is raised at
/// the limit and cleared only a hysteresis below it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// Seconds between two samples.
    #[serde(default = "ten")]
    pub interval_seconds: u64,
    /// Used share of a disk, percent.
    #[serde(default = "ninety")]
    pub disk_percent: f64,
    /// Used share of a file system's inodes, percent.
    #[serde(default = "ninety")]
    pub inodes_percent: f64,
    /// Used share of memory, percent.
    #[serde(default = "ninety_five")]
    pub memory_percent: f64,
    /// Stall share (PSI, memory or IO, `some`, over ten seconds), percent.
    #[serde(default = "fifty")]
    pub pressure_percent: f64,
    /// Degrees Celsius of a GPU.
    #[serde(default = "ninety")]
    pub gpu_celsius: f64,
    /// A disk that will be full, or memory that will be used up, within so
    /// many seconds at the recent slope is told before it happens.
    #[serde(default = "ten_minutes")]
    pub forecast_seconds: u64,
    /// What is done about a program that makes no progress.
    #[serde(default)]
    pub hang: HangSpec,
}

/// The ladder for a program without progress; each rung holds all below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HangAction {
    /// Not looked for.
    Off,
    /// Told.
    Report,
    /// Stacks and wait channels are kept as evidence.
    #[default]
    Dump,
    /// The attempt is ended and the next resumes from the newest checkpoint.
    Restart,
    /// Where a restart on the same machine hangs again, the next attempt is on
    /// another machine.
    Move,
}

/// When a program counts as hanging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HangSpec {
    /// How far the ladder is climbed.
    #[serde(default)]
    pub action: HangAction,
    /// Seconds without progress at the least; five times the usual time
    /// between steps (or the longest pause seen) where that is more.
    #[serde(default = "ten_minutes")]
    pub after_seconds: u64,
}

impl Default for HangSpec {
    fn default() -> Self {
        Self { action: HangAction::default(), after_seconds: ten_minutes() }
    }
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self {
            interval_seconds: ten(),
            disk_percent: ninety(),
            inodes_percent: ninety(),
            memory_percent: ninety_five(),
            pressure_percent: fifty(),
            gpu_celsius: ninety(),
            forecast_seconds: ten_minutes(),
            hang: HangSpec::default(),
        }
    }
}

fn ten() -> u64 {
    10
}

fn ten_minutes() -> u64 {
    600
}

fn fifty() -> f64 {
    50.0
}

fn ninety() -> f64 {
    90.0
}

fn ninety_five() -> f64 {
    95.0
}
