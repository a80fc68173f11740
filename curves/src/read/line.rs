//! The metrics of one line, and which words mean steps, epochs and metrics.
//!
//! Every format puts what it finds in here, so that bounds on names and
//! values hold for all of them.

use crate::{counters, number};

/// A longer name is left out.
pub const MAX_NAME_BYTES: usize = 128;

/// Further values of a line are left out.
pub const MAX_VALUES_PER_LINE: usize = 1000;

/// Step keys, the most telling first.
const STEP_KEYS: [&str; 8] = ["global_step", "num_updates", "step", "_step", "iteration", "iter", "it", "s"];

/// From this rank on a step is a counter that stands in for one; keys of a nested
/// object have a hundred more.
const STAND_IN: usize = 7;

/// Words that alone mark a metric's name.
const KNOWN: [&str; 42] = [
    "loss",
    "losses",
    "logloss",
    "mlogloss",
    "nll",
    "acc",
    "accuracy",
    "lr",
    "ppl",
    "perplexity",
    "norm",
    "gnorm",
    "f1",
    "auc",
    "auroc",
    "aucpr",
    "bleu",
    "rouge",
    "wer",
    "cer",
    "reward",
    "score",
    "mse",
    "mae",
    "rmse",
    "entropy",
    "kl",
    "iou",
    "miou",
    "precision",
    "top1",
    "top5",
    "mfu",
    "bpb",
    "bpc",
    "elbo",
    "psnr",
    "ssim",
    "fid",
    "dice",
    "trl",
    "tel",
];

/// Words that mark a metric only in a compound name: alone they are prose.
const KNOWN_IN_COMPOUND: [&str; 8] =
    ["error", "err", "return", "map", "recall", "grad", "merror", "throughput"];

/// When a line was logged is not a metric of it.
const TIME_KEYS: [&str; 5] = ["_timestamp", "timestamp", "ts", "time", "_runtime"];

/// What one line says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LineMetrics {
    /// The step that the line names.
    pub step: Option<u64>,
    /// The step is a counter that only stands in for one, such as an episode.
    pub stand_in: bool,
    /// The epoch that the line names: finite, not negative, perhaps a fraction.
    pub epoch: Option<f64>,
    /// Names and values in order of appearance, at most
    /// [`MAX_VALUES_PER_LINE`]. A name that the line repeats is repeated here.
    pub values: Vec<(String, f64)>,
    /// Position and total of a progress bar or an `N/M` step.
    pub progress: Option<(u64, u64)>,
    /// Values left out by the bounds on names and values.
    pub dropped: u64,
    /// The total that stands beside the step: `Step [100/600]`.
    pub step_total: Option<u64>,
}

impl LineMetrics {
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
            && self.step.is_none()
            && self.epoch.is_none()
            && self.progress.is_none()
            && self.dropped == 0
    }

    pub(super) fn push(&mut self, name: String, value: f64) {
        if name.is_empty() || name.chars().any(char::is_control) {
            return;
        }
        if name.len() > MAX_NAME_BYTES || self.values.len() >= MAX_VALUES_PER_LINE {
            self.dropped = self.dropped.saturating_add(1);
        } else {
            self.values.push((name, value));
        }
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A step counter; the lowest rank wins within a line.
    Step(usize),
    /// An epoch counter.
    Epoch,
    /// A time or an identifier, no metric.
    Ignored,
    /// A metric, if anything.
    Value,
}

pub(super) fn role(name: &str) -> Role {
    let last = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    if last == "epoch" {
        return Role::Epoch;
    }
    if TIME_KEYS.contains(&name) || last == "v_num" {
        return Role::Ignored;
    }
    // `s` only counts steps where a format says so by its place in the line.
    let known = STEP_KEYS[..STAND_IN].iter().position(|key| *key == last);
    known.or_else(|| Some(counters::rank(&last)? + STAND_IN)).map_or(Role::Value, Role::Step)
}

/// Whether the words of a name say that it is a metric.
pub(super) fn is_known(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let mut words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    let compound = words.clone().nth(1).is_some();
    lower.contains("learning_rate")
        || lower == "learning rate"
        || words
            .any(|w| KNOWN.contains(&w) || w.ends_with("loss") || compound && KNOWN_IN_COMPOUND.contains(&w))
}

/// The best step found so far in a line.
#[derive(Debug, Default)]
pub(super) struct StepChoice {
    best: Option<(usize, u64, Option<u64>)>,
}

impl StepChoice {
    /// Offers a step of some rank: the first one of the lowest rank is kept.
    pub(super) fn offer(&mut self, rank: usize, step: u64, total: Option<u64>) {
        if self.best.is_none_or(|(best, ..)| rank < best) {
            self.best = Some((rank, step, total));
        }
    }

    pub(super) fn found(&self) -> bool {
        self.best.is_some()
    }

    pub(super) fn store(self, metrics: &mut LineMetrics) {
        if let Some((rank, step, total)) = self.best {
            (metrics.step, metrics.step_total) = (Some(step), total);
            metrics.stand_in = (STAND_IN..STAND_IN + counters::RANKS).contains(&(rank % 100));
            metrics.progress = metrics.progress.or(total.map(|total| (step, total)));
        }
    }
}

/// An epoch worth keeping.
pub(super) fn epoch(value: f64) -> Option<f64> {
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// A step that was printed as a float or an integer.
pub(super) fn step(value: f64) -> Option<u64> {
    number::as_step(value)
}
