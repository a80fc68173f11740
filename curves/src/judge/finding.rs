//! What a detector found, with all that is needed to check it by hand.

use serde::{Deserialize, Serialize};

use crate::number;

/// What is wrong, or worth knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// NaN or an infinity.
    NonFinite,
    /// Up far beyond the noise, and back or not yet back.
    Spike,
    /// The loss left what was learned, or its start, upwards for good.
    Divergence,
    /// Gradients ten or more times their usual size.
    GradientExplosion,
    /// Gradients fell away while the loss did not.
    GradientVanishing,
    /// No more progress since a step.
    Plateau,
    /// Hardly any progress at all.
    NotLearning,
    /// Worse than its best by more than noise, short of divergence.
    Regression,
    /// Validation worse than its best while training still improves.
    Overfitting,
    /// Fewer steps a second than before, for good or for long.
    ThroughputDrop,
    /// No step for far longer than steps take.
    Stall,
    /// Loss lost at the highest learning rate.
    LearningRateTooHigh,
    /// A loss that falls evenly, but by almost nothing.
    LearningRateTooLow,
    /// Full learning rate from the first step, and trouble right there.
    WarmupMissing,
    /// The rest of the run has next to no learning rate.
    LearningRateVanished,
    /// Up and down with a period.
    Oscillation,
    /// The same value again and again.
    DeadMetric,
    /// No longer logged while others are.
    SilentMetric,
    /// Another level after a restart than before it.
    ResumeJump,
    /// The loss scale of mixed precision falls without end.
    LossScaleCollapse,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 20] = [
        Self::NonFinite,
        Self::Spike,
        Self::Divergence,
        Self::GradientExplosion,
        Self::GradientVanishing,
        Self::Plateau,
        Self::NotLearning,
        Self::Regression,
        Self::Overfitting,
        Self::ThroughputDrop,
        Self::Stall,
        Self::LearningRateTooHigh,
        Self::LearningRateTooLow,
        Self::WarmupMissing,
        Self::LearningRateVanished,
        Self::Oscillation,
        Self::DeadMetric,
        Self::SilentMetric,
        Self::ResumeJump,
        Self::LossScaleCollapse,
    ];

    /// As in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NonFinite => "non_finite",
            Self::Spike => "spike",
            Self::Divergence => "divergence",
            Self::GradientExplosion => "gradient_explosion",
            Self::GradientVanishing => "gradient_vanishing",
            Self::Plateau => "plateau",
            Self::NotLearning => "not_learning",
            Self::Regression => "regression",
            Self::Overfitting => "overfitting",
            Self::ThroughputDrop => "throughput_drop",
            Self::Stall => "stall",
            Self::LearningRateTooHigh => "learning_rate_too_high",
            Self::LearningRateTooLow => "learning_rate_too_low",
            Self::WarmupMissing => "warmup_missing",
            Self::LearningRateVanished => "learning_rate_vanished",
            Self::Oscillation => "oscillation",
            Self::DeadMetric => "dead_metric",
            Self::SilentMetric => "silent_metric",
            Self::ResumeJump => "resume_jump",
            Self::LossScaleCollapse => "loss_scale_collapse",
        }
    }
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing need be done.
    Note,
    /// Look at it.
    Warning,
    /// The run is lost, or will be.
    Critical,
}

/// One number of the evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// In the metric's own unit unless the name says otherwise.
    #[serde(with = "number")]
    pub value: f64,
}

/// One thing found in one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// The metric's name as the program wrote it; `(clock)` for what was read
    /// from the times of the points.
    pub metric: String,
    /// Step at which it began; `None` when the program names no steps.
    pub first_step: Option<u64>,
    /// Last step it covers; `None` while it lasts.
    pub last_step: Option<u64>,
    /// How many points of the metric the decision looked at.
    pub window: u64,
    /// What the deciding number was compared with; the number itself is the
    /// first of the evidence.
    #[serde(with = "number")]
    pub threshold: f64,
    /// The numbers it rests on, the deciding one first.
    pub evidence: Vec<Fact>,
    /// What to do, with the numbers that say why.
    pub recommendation: String,
}

impl Finding {
    /// A number of the evidence by its name.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<f64> {
        self.evidence.iter().find(|f| f.name == name).map(|f| f.value)
    }
}

/// Evidence from pairs.
pub(super) fn facts<const N: usize>(pairs: [(&str, f64); N]) -> Vec<Fact> {
    pairs.into_iter().map(|(name, value)| Fact { name: name.to_owned(), value }).collect()
}

/// ` at step 5`, or nothing where no step is known.
pub(super) fn at(step: Option<u64>) -> String {
    step.map(|s| format!(" at step {s}")).unwrap_or_default()
}

/// Four significant digits, as people write them.
#[must_use]
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN".into()
        } else if value > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    let size = value.abs();
    if value == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e6).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_unit() {
        for (value, text) in [
            (0.2913, "0.2913"),
            (2.5, "2.5"),
            (0.0, "0"),
            (3e-9, "3.00e-9"),
            (61_234.0, "61234"),
            (1.0, "1"),
            (-0.5, "-0.5"),
            (1e30, "1.00e30"),
            (f64::NAN, "NaN"),
            (100.0, "100"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn every_kind_has_the_name_it_has_in_json() {
        for kind in Kind::ALL {
            let text = serde_json::to_string(&kind).expect("serialises");
            assert_eq!(text, format!("\"{}\"", kind.name()));
        }
    }
}
