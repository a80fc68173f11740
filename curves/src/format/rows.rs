//! Rows of the databases of MLflow and trackio. Who opens the database hands
//! them over column by column; it is opened read-only and never written.

use super::json;
use super::jsonl::Rows;
use super::{fields::Fields, time, wandb};
use crate::log::{Record, Sink, Value};

/// Rows of MLflow's table `metrics`: one value each.
#[derive(Debug)]
pub struct MlflowRows {
    fields: Fields,
}

impl MlflowRows {
    /// No row so far.
    #[must_use]
    pub fn new() -> Self {
        Self { fields: Fields::of_metrics() }
    }

    /// Pushes a row as it stands in the table: whether its name found a place.
    pub fn row(
        &mut self,
        key: &str,
        value: f64,
        is_nan: bool,
        ms: i64,
        step: i64,
        sink: &mut dyn Sink,
    ) -> bool {
        self.fields.begin();
        match self.fields.field(key.as_bytes()) {
            Some(field) => self.fields.value(field, mlflow_value(value, is_nan)),
            None => self.fields.drop_value(),
        }
        self.fields.end_at(u64::try_from(step).ok(), Some(ms as f64 / 1000.0), sink) == 0
    }
}

impl Default for MlflowRows {
    fn default() -> Self {
        Self::new()
    }
}

/// What the program logged: MLflow's databases hold 0 and a mark for NaN, and
/// the greatest finite number for infinity.
#[must_use]
pub fn mlflow_value(value: f64, is_nan: bool) -> f64 {
    if is_nan {
        f64::NAN
    } else if value.abs() == f64::MAX {
        f64::INFINITY.copysign(value)
    } else {
        value
    }
}

/// Rows of trackio's tables. Their JSON columns hold bytes, whatever their
/// declared type.
#[derive(Debug)]
pub struct TrackioRows {
    rows: Rows,
}

impl TrackioRows {
    /// No row so far.
    #[must_use]
    pub fn new() -> Self {
        Self { rows: Rows::of_metrics() }
    }

    /// Pushes a row of `metrics`: how many values were left out, `None` when
    /// the JSON is broken.
    pub fn metrics(&mut self, step: i64, timestamp: &str, json: &[u8], sink: &mut dyn Sink) -> Option<u64> {
        self.rows.push_at(json, u64::try_from(step).ok(), time::iso(timestamp), sink)
    }

    /// Pushes a row of `configs`. `None` when the JSON is broken.
    pub fn config(&mut self, json: &[u8], sink: &mut dyn Sink) -> Option<()> {
        let Value::Map(members) = json::parse(json)? else { return None };
        // What trackio adds of its own.
        for (key, value) in members.into_iter().filter(|(key, _)| !key.starts_with('_')) {
            wandb::emit(&[&key], value, &mut |path, value| sink.record(Record::Config { path, value }));
        }
        Some(())
    }

    /// Pushes a row of `system_metrics`. `None` when the JSON is broken.
    pub fn system(&mut self, timestamp: &str, json: &[u8], sink: &mut dyn Sink) -> Option<()> {
        let Value::Map(members) = json::parse(json)? else { return None };
        for (key, value) in members {
            if let Some(value) = value.number() {
                sink.record(Record::System { key: &key, time: time::iso(timestamp), value });
            }
        }
        Some(())
    }
}

impl Default for TrackioRows {
    fn default() -> Self {
        Self::new()
    }
}
