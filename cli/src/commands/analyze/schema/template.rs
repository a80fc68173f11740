//! What usual kinds of training call their metrics.

use curves::judge::schema::{MetricSpec, Role, Split, read_name};

use super::fits;
use crate::config::Template;

/// What is known of a kind of training.
pub(super) struct Known {
    /// The key that counts steps.
    pub(super) step: Option<&'static str>,
    /// Metrics that a run may be judged by, the best first.
    pub(super) primary: &'static [&'static str],
    /// Patterns of names with what they measure and on which data.
    names: &'static [(&'static str, Option<Role>, Option<Split>)],
    /// What held-out metrics begin with, where the same name without it is
    /// measured in training.
    held_out: Option<&'static str>,
}

const TRAIN: Option<Split> = Some(Split::Train);
const VALIDATION: Option<Split> = Some(Split::Validation);

/// Loggers of Lightning write `_step` and `_epoch` behind names, and the monitor
/// of learning rates writes `lr-` and the optimizer.
const LIGHTNING: Known = Known {
    step: Some("step"),
    primary: &[
        "val_loss",
        "val/loss",
        "val_loss_epoch",
        "val_acc",
        "val/acc",
        "train_loss_epoch",
        "train_loss",
    ],
    names: &[
        ("lr-*", Some(Role::LearningRate), None),
        ("val*", None, VALIDATION),
        ("test*", None, VALIDATION),
        ("train*", None, TRAIN),
    ],
    held_out: None,
};

/// `Trainer.log` of Transformers: `loss` is of training, `eval_` is in front of
/// what is not, and a last row sums the training up.
const TRANSFORMERS: Known = Known {
    step: Some("step"),
    primary: &["eval_loss", "loss"],
    names: &[
        ("eval_runtime", Some(Role::Time), None),
        ("eval_samples_per_second", Some(Role::Throughput), None),
        ("eval_steps_per_second", Some(Role::Throughput), None),
        ("eval_*", None, VALIDATION),
        ("train_runtime", Some(Role::Time), None),
        ("train_loss", Some(Role::Other), TRAIN),
        ("total_flos", Some(Role::Other), None),
        ("loss", Some(Role::Loss), TRAIN),
    ],
    held_out: Some("eval_"),
};

/// Callbacks of Keras write a row for each epoch.
const KERAS: Known = Known {
    step: Some("epoch"),
    primary: &["val_loss", "val_accuracy", "loss"],
    names: &[
        ("val_*", None, VALIDATION),
        ("loss", Some(Role::Loss), TRAIN),
        ("accuracy", Some(Role::Score), TRAIN),
    ],
    held_out: Some("val_"),
};

const CLASSIFICATION: Known = Known {
    step: None,
    primary: &[
        "val/acc",
        "val/accuracy",
        "val_acc",
        "val_accuracy",
        "eval_accuracy",
        "eval/accuracy",
        "val/f1",
        "val_f1",
        "val/loss",
        "val_loss",
        "eval_loss",
    ],
    names: &[("*top*err*", Some(Role::Error), None), ("*acc*", Some(Role::Score), None)],
    held_out: None,
};

const REGRESSION: Known = Known {
    step: None,
    primary: &[
        "val/rmse",
        "val_rmse",
        "val/mse",
        "val_mse",
        "val/mae",
        "val_mae",
        "eval_mse",
        "eval_mae",
        "val/loss",
        "val_loss",
        "eval_loss",
    ],
    names: &[("*r2*", Some(Role::Score), None), ("*mape*", Some(Role::Error), None)],
    held_out: None,
};

pub(super) fn of(template: Template) -> &'static Known {
    match template {
        Template::Lightning => &LIGHTNING,
        Template::Transformers => &TRANSFORMERS,
        Template::Keras => &KERAS,
        Template::Classification => &CLASSIFICATION,
        Template::Regression => &REGRESSION,
    }
}

/// What a template says of a name.
pub(super) fn said(template: Template, name: &str) -> Option<MetricSpec> {
    let known = of(template);
    let (_, role, split) = known.names.iter().find(|(pattern, ..)| fits(pattern, name))?;
    let judged = |name: &str| matches!(read_name(name).role, Role::Loss | Role::Score | Role::Error);
    let pair = known.held_out.and_then(|start| name.strip_prefix(start)).filter(|rest| judged(rest));
    Some(MetricSpec { role: *role, split: *split, pair: pair.map(str::to_owned), ..MetricSpec::default() })
}
