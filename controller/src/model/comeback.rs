//! What a machine's row keeps of its stop and of having been asked to go on, so
//! that a controller that starts anew asks neither more often nor for more.

use serde::{Deserialize, Serialize};

/// A machine that had stopped and was asked to go on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReturnAsked {
    /// Unix milliseconds of the first sight of its stop.
    pub stopped_ms: u64,
    /// Unix milliseconds of the last asking.
    pub asked_ms: u64,
    /// How often since that stop.
    pub times: u32,
    /// How often in its life.
    pub ever: u32,
    /// What was bid the last time, US dollars an hour beside its disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bid_usd: Option<f64>,
    /// What an hour of the best other machine would have cost then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere_usd: Option<f64>,
    /// Nobody said what others cost then.
    #[serde(default)]
    pub blind: bool,
}
