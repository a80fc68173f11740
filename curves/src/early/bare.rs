//! Whether a finding is one on the run, and not only on a part of what it logs. A
//! rule that names no metric ends a run for the former alone: entropy, divergences
//! from a reference and the losses of single networks go where they like in runs
//! that are well.

use crate::judge::schema::{Role, Split, read_name};
use crate::judge::{Finding, Kind, MetricReport, Report};

/// Words that a name may have besides and still means the whole.
const PLAIN: [&str; 24] = [
    "loss",
    "total",
    "overall",
    "nll",
    "ce",
    "xent",
    "cross",
    "mse",
    "mae",
    "rmse",
    "objective",
    "logloss",
    "mean",
    "avg",
    "average",
    "epoch",
    "step",
    "iter",
    "batch",
    "smooth",
    "smoothed",
    "ema",
    "lm",
    "running",
];
/// What a run that learns by reward logs: its losses follow what it meets.
const REWARDS: [&str; 6] = ["reward", "rewards", "rew", "return", "returns", "success"];

pub(super) fn is_on_the_run(finding: &Finding, report: &Report) -> bool {
    let by_reward = report.metrics.iter().any(is_reward);
    let Some(metric) = report.metrics.iter().find(|metric| metric.name == finding.metric) else {
        // Of no metric, such as a stall.
        return true;
    };
    let is_primary = report.primary.as_ref() == Some(&metric.name);
    match metric.role {
        Role::Loss if by_reward && finding.kind != Kind::NonFinite => false,
        // A part that the run is judged by counts where nothing of the whole is logged.
        Role::Loss | Role::Error | Role::Score => {
            is_whole(metric) || is_primary && !report.metrics.iter().any(is_whole)
        }
        // The verdict is about these themselves.
        Role::GradientNorm | Role::LearningRate | Role::Throughput | Role::StepTime | Role::LossScale => {
            finding.kind != Kind::NonFinite || metric.role == Role::GradientNorm
        }
        Role::Counter | Role::Time | Role::Resource | Role::Other => is_primary,
    }
}

fn is_reward(metric: &MetricReport) -> bool {
    let stem = read_name(&metric.name).stem;
    metric.role != Role::Loss && stem.split(' ').any(|word| REWARDS.contains(&word))
}

/// Whether a loss or score is that of the whole, by its name.
fn is_whole(metric: &MetricReport) -> bool {
    let stem = read_name(&metric.name).stem;
    let words: Vec<&str> = stem.split(' ').collect();
    let plain = |at: usize, word: &str| {
        PLAIN.contains(&word) || word == "entropy" && at > 0 && words.get(at - 1) == Some(&"cross")
    };
    match metric.role {
        Role::Loss if metric.split == Split::Unsaid => {
            words.iter().enumerate().all(|(at, word)| plain(at, word))
        }
        // Beside training and validation these are said of the whole, too.
        Role::Loss => words
            .iter()
            .enumerate()
            .all(|(at, word)| plain(at, word) || ["perplexity", "ppl", "bpb", "bpc"].contains(word)),
        Role::Error | Role::Score => metric.split == Split::Validation || words.len() == 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::early::Rule;
    use crate::judge::{Judge, Settings};

    /// Twelve hundred points of each.
    fn report(metrics: &[(&str, &dyn Fn(f64) -> f64)]) -> Report {
        let mut judge = Judge::new(Settings::default());
        let ids: Vec<_> = metrics.iter().map(|(name, _)| judge.metric(name)).collect();
        for i in 0..1_200_u32 {
            let noise = 1.0 + 0.02 * (f64::from(i * 7_919 % 101) / 101.0 - 0.5);
            for (id, (_, value)) in ids.iter().zip(metrics) {
                judge.point(*id, Some(u64::from(i)), None, value(f64::from(i) / 1_200.0) * noise);
            }
        }
        judge.report()
    }

    fn holds(rule: &str, report: &Report) -> bool {
        rule.parse::<Rule>().unwrap().holds(report, &mut |_| Vec::new()).is_some()
    }

    /// Falls, and from the middle on rises far above its start.
    fn lost(x: f64) -> f64 {
        if x < 0.5 { 2.0 * (-6.0 * x).exp() + 0.2 } else { 0.3 + 20.0 * (x - 0.5) }
    }

    fn well(x: f64) -> f64 {
        2.0 * (-3.0 * x).exp() + 0.3
    }

    #[test]
    fn what_a_part_of_a_loss_does_ends_no_run_and_what_the_loss_does_ends_it() {
        for name in
            ["kl", "train/entropy_loss", "critic_loss", "commit_loss", "losses/qf1_loss", "train/approx_kl"]
        {
            let found = report(&[("train/loss", &well), (name, &lost)]);
            assert!(!holds("diverged", &found), "{name}");
            assert!(holds(&format!("{name} diverged"), &found), "{name} is named");
        }
        for name in ["loss", "train_loss", "val/loss", "eval_loss", "train/cross_entropy_loss"] {
            assert!(holds("diverged", &report(&[(name, &lost)])), "{name}");
        }
    }

    #[test]
    fn the_loss_of_who_learns_by_reward_ends_no_run() {
        let rising = |x: f64| 1.0 + 100.0 * x;
        let found = report(&[("rollout/ep_rew_mean", &rising), ("train/loss", &lost)]);
        assert!(!holds("diverged", &found));
        let nan = |x: f64| if x < 0.5 { 1.0 } else { f64::NAN };
        assert!(holds("nan", &report(&[("reward", &rising), ("loss", &nan)])));
        assert!(!holds("nan", &report(&[("loss", &well), ("train/explained_variance", &nan)])));
    }
}
