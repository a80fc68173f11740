//! What a training says about itself: text lines become points, points become
//! bounded statistics, steps and times become a pace.
//!
//! Pure: no clock, no files, no network. Every input is hostile text, so
//! nothing here may panic on it or grow without a bound.

mod counters;
pub mod downsample;
pub mod early;
pub mod format;
pub mod judge;
pub mod log;
pub mod number;
mod pace;
mod read;
mod series;
pub mod settings;
pub mod statistics;
pub mod view;
pub mod write;

pub use pace::{MAX_SAMPLES, eta, rate};
pub use read::{
    Limits, LineMetrics, LineReader, MAX_LINE_BYTES, MAX_NAME_BYTES, MAX_VALUES_PER_LINE, parse_line,
};
pub use series::{MAX_SERIES, RunMetrics, Series};

use serde::{Deserialize, Serialize};

/// One value of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The metric's name as the program wrote it; nested JSON is joined by
    /// `/`. Never empty, at most [`MAX_NAME_BYTES`].
    pub name: String,
    /// The step it belongs to; `None` when the program named none so far.
    pub step: Option<u64>,
    /// The value: NaN and the infinities are kept as they are.
    #[serde(with = "number")]
    pub value: f64,
}
