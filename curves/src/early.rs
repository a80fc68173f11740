//! Rules by which a run is ended before its time: a verdict of the judge, a
//! bound on a value, or a place behind the median of its like.
//!
//! ```text
//! nan                                the run's loss or score, for good
//! val/loss plateau                   a verdict on one metric
//! "Val Loss" plateau at constant lr  the same before the rate falls, too
//! val_acc < 50% after 10k            the newest value, from that step on
//! val/loss worse than median after 2k
//! loss > 3 and grad_norm > 100       both
//! ```
//!
//! A rule decides from a report and values alone. It must never hold on too
//! little: what a rule names and the run does not log never ends anything, a
//! verdict without a metric counts only where it is one on the run, and a level
//! loss is no reason to end a run whose learning rate has not fallen yet, unless
//! the rule says `at constant lr`.

mod bare;
mod read;
mod watch;

use std::fmt;

use crate::judge::schema::Direction;
use crate::judge::{Finding, Kind, Report, Severity, short};

pub use watch::{Courses, Met, Watch};

/// Rules that one run may have.
pub const MAX_RULES: usize = 32;
/// Other runs that a median needs at least.
pub const MIN_PEERS: usize = 3;
/// Places of a course that is kept of another run.
const COURSE: usize = 512;

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The metric; `None` is any.
    pub metric: Option<String>,
    /// What must be so.
    pub condition: Condition,
    /// The first step at which it counts; where no steps are logged, so many values.
    pub after: u64,
    /// A plateau counts while the learning rate stands at its highest, too.
    pub at_constant_rate: bool,
    /// Rules that must hold, too.
    pub and: Vec<Self>,
    text: String,
}

/// What a rule asks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    /// The judge says so, as a warning or worse, and it lasts.
    Verdict(Kind),
    /// The newest value compares so.
    Value(Comparison, f64),
    /// The best value so far is worse than the median of what the averages of
    /// others were by then (the median stopping rule of Golovin et al.,
    /// "Google Vizier", KDD 2017, section 3.2.1).
    BehindMedian,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparison {
    const ALL: [(&str, Self); 4] =
        [("<=", Self::LessOrEqual), (">=", Self::GreaterOrEqual), ("<", Self::Less), (">", Self::Greater)];

    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Less => value < bound,
            Self::LessOrEqual => value <= bound,
            Self::Greater => value > bound,
            Self::GreaterOrEqual => value >= bound,
        }
    }
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: {why}")]
pub struct RuleError {
    text: String,
    why: String,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The course of another run's metric: its average so far, by step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Course {
    places: Vec<(u64, f64)>,
    count: u64,
    mean: f64,
    every: u64,
}

impl Course {
    /// Takes in a value; steps that go back and values that are no numbers are
    /// left out.
    pub fn push(&mut self, step: u64, value: f64) {
        if !value.is_finite() || self.places.last().is_some_and(|(last, _)| step < *last) {
            return;
        }
        self.count += 1;
        self.mean += (value - self.mean) / self.count as f64;
        self.every = self.every.max(1);
        if self.count.is_multiple_of(self.every) {
            self.places.push((step, self.mean));
        }
        if self.places.len() >= 2 * COURSE {
            let mut keep = false;
            self.places.retain(|_| {
                keep = !keep;
                keep
            });
            self.every *= 2;
        }
    }

    /// The average of what came up to a step; `None` before its first value,
    /// and where it never got that far.
    #[must_use]
    pub fn by(&self, step: u64) -> Option<f64> {
        let reached = self.places.last().is_some_and(|(last, _)| step <= last.saturating_add(last / 20));
        let at = self.places.partition_point(|(place, _)| *place <= step);
        (reached && at > 0).then(|| self.places[at - 1].1)
    }
}

impl Rule {
    /// It, and all that must hold with it.
    pub fn parts(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.and)
    }

    /// Why the run is to be ended, in a sentence with numbers; `None`: go on.
    /// `peers` gives the courses of the others' metric of a name.
    #[must_use]
    pub fn holds<'a>(
        &self,
        report: &Report,
        peers: &mut dyn FnMut(&str) -> Vec<&'a Course>,
    ) -> Option<String> {
        let whys: Option<Vec<String>> = self.parts().map(|part| part.holds_alone(report, peers)).collect();
        whys.map(|whys| whys.join(" and "))
    }

    fn holds_alone<'a>(
        &self,
        report: &Report,
        peers: &mut dyn FnMut(&str) -> Vec<&'a Course>,
    ) -> Option<String> {
        match self.condition {
            Condition::Verdict(kind) => {
                let found = report.findings.iter().find(|finding| self.is_met_by(kind, finding, report))?;
                let newest = report.metrics.iter().filter_map(|metric| metric.last_step).max();
                let values = || report.metrics.iter().map(|metric| metric.count).max();
                (newest.or_else(values).unwrap_or(0) >= self.after).then(|| said(found))
            }
            Condition::Value(comparison, bound) => {
                let metric = report.metrics.iter().find(|m| Some(&m.name) == self.metric.as_ref())?;
                let place = metric.last_step.unwrap_or(metric.count);
                (place >= self.after && comparison.holds(metric.last, bound)).then(|| {
                    let at = match metric.last_step {
                        Some(step) => format!("at step {step}"),
                        None => format!("after {} values", metric.count),
                    };
                    format!("{} is {} {at}", metric.name, short(metric.last))
                })
            }
            Condition::BehindMedian => {
                let metric = report.metrics.iter().find(|m| Some(&m.name) == self.metric.as_ref())?;
                let (best, step) = (metric.best?, metric.last_step?);
                if step < self.after {
                    return None;
                }
                let mut others: Vec<f64> =
                    peers(&metric.name).iter().filter_map(|course| course.by(step)).collect();
                if others.len() < MIN_PEERS {
                    return None;
                }
                others.sort_by(f64::total_cmp);
                let half = others.len() / 2;
                let median = if others.len() % 2 == 1 {
                    others[half]
                } else {
                    f64::midpoint(others[half - 1], others[half])
                };
                let behind = match metric.direction {
                    Direction::Lower => best > median,
                    Direction::Higher => best < median,
                    Direction::Unknown => false,
                };
                behind.then(|| {
                    format!(
                        "the best {} up to step {step} is {}, and half of {} other runs averaged {} or better by then",
                        metric.name,
                        short(best),
                        others.len(),
                        short(median)
                    )
                })
            }
        }
    }

    /// Whether what is only worth a note to others is meant by it: a divergence of
    /// a part of an objective that it names, a level loss at a constant rate.
    fn takes_notes(&self, kind: Kind) -> bool {
        self.metric.is_some() && kind == Kind::Divergence || self.at_constant_rate && kind == Kind::Plateau
    }

    fn is_met_by(&self, kind: Kind, finding: &Finding, report: &Report) -> bool {
        let lasts = finding.last_step.is_none() || finding.severity == Severity::Critical;
        finding.kind == kind
            && lasts
            && (finding.severity >= Severity::Warning || self.takes_notes(kind))
            && match &self.metric {
                Some(metric) => *metric == finding.metric,
                None => bare::is_on_the_run(finding, report),
            }
            // What is level at the full rate falls again when that does.
            && (kind != Kind::Plateau || self.at_constant_rate || report.rate_fell != Some(false))
    }
}

fn said(found: &Finding) -> String {
    let since = found.first_step.map(|step| format!(" since step {step}")).unwrap_or_default();
    format!("{}: {}{since}", found.metric, found.kind.name().replace('_', " "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::judge::{Judge, Settings};

    fn rule(text: &str) -> Rule {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn report(name: &str, values: impl Iterator<Item = f64>) -> Report {
        let mut judge = Judge::new(Settings::default());
        let id = judge.metric(name);
        values.zip(0..).for_each(|(value, step)| judge.point(id, Some(step), None, value));
        judge.report()
    }

    fn alone(rule: &Rule, report: &Report) -> Option<String> {
        rule.holds(report, &mut |_| Vec::new())
    }

    #[test]
    fn rules_are_read() {
        let cases = [
            ("nan", None, Condition::Verdict(Kind::NonFinite), 0),
            ("val/loss plateau", Some("val/loss"), Condition::Verdict(Kind::Plateau), 0),
            ("val_acc < 0.5 after 10k", Some("val_acc"), Condition::Value(Comparison::Less, 0.5), 10_000),
            ("loss>=1e3", Some("loss"), Condition::Value(Comparison::GreaterOrEqual, 1000.0), 0),
            (
                "grad norm exploding gradients",
                Some("grad norm"),
                Condition::Verdict(Kind::GradientExplosion),
                0,
            ),
            ("val/loss worse than median after 2k", Some("val/loss"), Condition::BehindMedian, 2_000),
            ("not learning after 1.5k", None, Condition::Verdict(Kind::NotLearning), 1_500),
            ("val_acc < 50% after 10k", Some("val_acc"), Condition::Value(Comparison::Less, 0.5), 10_000),
            ("\"loss is\" nan", Some("loss is"), Condition::Verdict(Kind::NonFinite), 0),
            ("ppl > 3k", Some("ppl"), Condition::Value(Comparison::Greater, 3_000.0), 0),
            ("loss plateau at constant lr after 9", Some("loss"), Condition::Verdict(Kind::Plateau), 9),
            ("plateau at constant lr", None, Condition::Verdict(Kind::Plateau), 0),
        ];
        for (text, metric, condition, after) in cases {
            let read = rule(text);
            assert_eq!(
                (read.metric.as_deref(), read.condition, read.after),
                (metric, condition, after),
                "{text}"
            );
            assert_eq!(read.to_string(), text);
        }
        for kind in Kind::ALL {
            assert_eq!(rule(kind.name()).condition, Condition::Verdict(kind));
        }
    }

    #[test]
    fn what_is_no_rule_says_why() {
        for (text, why) in [
            ("", "is empty"),
            ("loss is nan", "write `loss nan`"),
            ("loss nan at constant lr", "only a plateau"),
            ("\"\" nan", "names no metric"),
            ("loss < many", "`many` is no number"),
            ("< 3", "names no metric"),
            ("loss plateau after never", "is no number of steps"),
            ("loss boring", "nor ends in a verdict"),
            ("worse than median", "names no metric"),
            ("loss < NaN", "is no number"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_loss_that_is_lost_ends_a_run_and_a_healthy_one_does_not() {
        let well = report("loss", (0..400).map(|i| 2.0 * (-f64::from(i) / 100.0).exp() + 0.1));
        let lost = report("loss", (0..400).map(|i| if i < 200 { 1.0 / f64::from(i + 1) } else { f64::NAN }));
        assert_eq!(alone(&rule("nan"), &well), None);
        let why = alone(&rule("nan"), &lost).unwrap();
        assert!(why.contains("loss") && why.contains("200"), "{why}");
        assert_eq!(alone(&rule("nan after 1k"), &lost), None, "it has not come so far");
        assert_eq!(alone(&rule("val/loss nan"), &lost), None, "another metric was meant");
    }

    #[test]
    fn one_nan_that_passed_ends_nothing() {
        let once = report("loss", (0..400).map(|i| if i == 50 { f64::NAN } else { 1.0 / f64::from(i + 1) }));
        assert_eq!(alone(&rule("nan"), &once), None);
    }

    #[test]
    fn values_count_from_their_step_on() {
        let poor = report("val_acc", (0..50).map(|_| 0.4));
        assert_eq!(alone(&rule("val_acc < 0.5 after 100"), &poor), None);
        assert_eq!(alone(&rule("val_acc < 0.5 after 49"), &poor).unwrap(), "val_acc is 0.4 at step 49");
        assert_eq!(alone(&rule("val_acc < 0.4"), &poor), None);
        assert_eq!(alone(&rule("other < 9"), &poor), None, "what is not logged ends nothing");
    }

    #[test]
    fn what_is_joined_must_hold_together() {
        let poor = report("val_acc", (0..50).map(|_| 0.4));
        let both = rule("val_acc < 50% after 10 and val_acc > 0.3");
        assert_eq!(alone(&both, &poor).unwrap(), "val_acc is 0.4 at step 49 and val_acc is 0.4 at step 49");
        assert_eq!(alone(&rule("val_acc < 50% and val_acc > 0.5"), &poor), None);
        assert_eq!(alone(&rule("val_acc < 50% and other > 0.5"), &poor), None);
        assert_eq!(rule("\"this and that\" < 3 and nan").metric.as_deref(), Some("this and that"));
        assert!("nan and ".parse::<Rule>().is_err() && "nan and loss boring".parse::<Rule>().is_err());
    }

    #[test]
    fn where_no_steps_are_logged_values_are_counted() {
        let mut judge = Judge::new(Settings::default());
        let id = judge.metric("reward");
        (0..100).for_each(|_| judge.point(id, None, None, 0.3));
        let report = judge.report();
        assert_eq!(alone(&rule("reward < 0.5 after 101"), &report), None);
        assert_eq!(
            alone(&rule("reward < 0.5 after 100"), &report).unwrap(),
            "reward is 0.3 after 100 values"
        );
    }

    #[test]
    fn a_level_loss_ends_nothing_before_the_rate_falls() {
        // Level from step 300 on; the rate falls from `decays` on.
        let of = |decays: u32| {
            let mut judge = Judge::new(Settings { planned_steps: Some(4_000), ..Settings::default() });
            let (loss, lr) = (judge.metric("loss"), judge.metric("lr"));
            for i in 0..2_000_u32 {
                let noise = f64::from(i * 7_919 % 101) / 101.0 - 0.5;
                let level = 0.5 + 2.0 * (-f64::from(i) / 60.0).exp();
                let rate = if i < decays { 3e-4 } else { 3e-4 * (1.0 - f64::from(i - decays) / 3_000.0) };
                judge.point(loss, Some(u64::from(i)), None, level + 0.02 * noise);
                judge.point(lr, Some(u64::from(i)), None, rate);
            }
            judge.report()
        };
        let (constant, decayed) = (of(9_999), of(1_000));
        let plain = report(
            "loss",
            (0..2_000).map(|i| {
                0.5 + 2.0 * (-f64::from(i) / 60.0).exp() + 0.02 * (f64::from(i * 7_919 % 101) / 101.0 - 0.5)
            }),
        );
        assert!(alone(&rule("loss plateau"), &plain).is_some(), "nothing is known of a rate");
        assert_eq!(alone(&rule("loss plateau"), &constant), None);
        assert!(alone(&rule("loss plateau at constant lr"), &constant).is_some());
        assert!(alone(&rule("loss plateau"), &decayed).is_some());
    }

    fn course(values: impl Iterator<Item = f64>) -> Course {
        let mut course = Course::default();
        values.zip(0..).for_each(|(value, step)| course.push(step, value));
        course
    }

    #[test]
    fn a_run_behind_the_median_of_three_is_ended_and_two_say_nothing() {
        let others: Vec<Course> =
            (1..=3).map(|n| course((0..100).map(|i| f64::from(n) / f64::from(i + 1)))).collect();
        let worst = report("loss", (0..60).map(|_| 5.0));
        let best = report("loss", (0..60).map(|i| 0.1 / f64::from(i + 1)));
        let rule = rule("loss worse than median after 50");
        let of =
            |report: &Report, count: usize| rule.holds(report, &mut |_| others.iter().take(count).collect());
        assert!(of(&worst, 3).unwrap().contains("3 other runs"));
        assert_eq!(of(&worst, 2), None);
        assert_eq!(of(&best, 3), None);
    }

    #[test]
    fn others_that_ended_earlier_are_no_measure() {
        let short = course((0..10).map(|_| 1.0));
        assert_eq!((short.by(9), short.by(1_000), Course::default().by(0)), (Some(1.0), None, None));
    }

    proptest! {
        #[test]
        fn any_text_is_a_rule_or_an_error(text in ".{0,700}") {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
            }
        }

        #[test]
        fn a_course_is_bounded_and_holds_the_average(values in prop::collection::vec(-1e3..1e3_f64, 1..5_000)) {
            let whole = course(values.iter().copied());
            prop_assert!(whole.places.len() <= 2 * COURSE);
            let (step, mean) = *whole.places.last().unwrap();
            let expected = values[..=step as usize].iter().sum::<f64>() / (step + 1) as f64;
            prop_assert!((mean - expected).abs() < 1e-6);
        }
    }
}
