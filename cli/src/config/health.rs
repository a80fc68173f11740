//! `[health]`: how often a machine looks at itself, and from which figures on
//! it tells.

use std::time::Duration;

use lifecycle::spec::{HangSpec, HealthSpec};
use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::hang::Hang;
use super::quantity::write_duration;
use super::section::Section;

/// Thresholds; shares are in percent of what there is.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Time between two samples.
    pub interval: Duration,
    /// Used share of a disk.
    pub disk_percent: f64,
    /// Used share of a file system's inodes.
    pub inodes_percent: f64,
    /// Used share of memory.
    pub memory_percent: f64,
    /// Share of the last ten seconds in which work waited for memory or disk.
    pub pressure_percent: f64,
    /// Temperature of a GPU in degrees Celsius.
    pub gpu_celsius: f64,
    /// What will be used up within this time is told, and room is made.
    pub forecast: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self::of(&HealthSpec::default())
    }
}

impl Health {
    /// The inverse of [`Health::spec`].
    pub(super) fn of(spec: &HealthSpec) -> Self {
        Self {
            interval: Duration::from_secs(spec.interval_seconds),
            disk_percent: spec.disk_percent,
            inodes_percent: spec.inodes_percent,
            memory_percent: spec.memory_percent,
            pressure_percent: spec.pressure_percent,
            gpu_celsius: spec.gpu_celsius,
            forecast: Duration::from_secs(spec.forecast_seconds),
        }
    }

    /// As a run's description has it, with what is done about hangs.
    pub(super) fn spec(&self, hang: &Hang) -> HealthSpec {
        HealthSpec {
            interval_seconds: self.interval.as_secs(),
            disk_percent: self.disk_percent,
            inodes_percent: self.inodes_percent,
            memory_percent: self.memory_percent,
            pressure_percent: self.pressure_percent,
            gpu_celsius: self.gpu_celsius,
            forecast_seconds: self.forecast.as_secs(),
            hang: HangSpec { action: hang.action, after_seconds: hang.after.as_secs() },
        }
    }
}

/// A number above 0 and at most `most`.
fn limit(field: &mut Field<'_>, most: f64, example: &str) -> Option<f64> {
    let value = field.number(example)?;
    if value > 0.0 && value <= most {
        return Some(value);
    }
    field.refuse(&format!("must be above 0 and at most {most}"), format!("for example: {example}"))
}

impl Section for Health {
    fn keys(&self) -> &'static [&'static str] {
        &[
            "interval",
            "disk_percent",
            "inodes_percent",
            "memory_percent",
            "pressure_percent",
            "gpu_celsius",
            "forecast",
        ]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "interval" => assign(&mut self.interval, field.seconds(1, "\"10s\"")),
            "disk_percent" => assign(&mut self.disk_percent, limit(field, 100.0, "90")),
            "inodes_percent" => assign(&mut self.inodes_percent, limit(field, 100.0, "90")),
            "memory_percent" => assign(&mut self.memory_percent, limit(field, 100.0, "95")),
            "pressure_percent" => assign(&mut self.pressure_percent, limit(field, 100.0, "50")),
            "gpu_celsius" => assign(&mut self.gpu_celsius, limit(field, 200.0, "90")),
            "forecast" => assign(&mut self.forecast, field.seconds(0, "\"10m\"")),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        match key {
            "interval" => json!(write_duration(self.interval)),
            "disk_percent" => json!(self.disk_percent),
            "inodes_percent" => json!(self.inodes_percent),
            "memory_percent" => json!(self.memory_percent),
            "pressure_percent" => json!(self.pressure_percent),
            "gpu_celsius" => json!(self.gpu_celsius),
            _ => json!(write_duration(self.forecast)),
        }
    }
}
