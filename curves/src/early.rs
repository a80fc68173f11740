//! Rules by which a run is ended before its time: a verdict of the judge, a
//! bound on a value, or a place behind the median of its like.
//!
//! ```text
//! nan                                any metric, for good
//! val/loss plateau                   a verdict on one metric
//! val_acc < 0.5 after 10k            the newest value, from that step on
//! val/loss worse than median after 2k
//! ```
//!
//! A rule decides from a report and values alone. It must never hold on too
//! little: what a rule names and the run does not log never ends anything.

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
    /// The first step at which it counts.
    pub after: u64,
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

/// Words for verdicts beside their own names.
const WORDS: [(&str, Kind); 14] = [
    ("nan", Kind::NonFinite),
    ("inf", Kind::NonFinite),
    ("diverged", Kind::Divergence),
    ("diverging", Kind::Divergence),
    ("overfit", Kind::Overfitting),
    ("exploding", Kind::GradientExplosion),
    ("exploding gradients", Kind::GradientExplosion),
    ("vanishing", Kind::GradientVanishing),
    ("vanishing gradients", Kind::GradientVanishing),
    ("dead", Kind::DeadMetric),
    ("oscillating", Kind::Oscillation),
    ("worse", Kind::Regression),
    ("not learning", Kind::NotLearning),
    ("loss scale collapse", Kind::LossScaleCollapse),
];

/// The phrase of a median rule.
const MEDIAN: &str = "worse than median";

fn verdict(words: &str) -> Option<Kind> {
    let plain = words.trim().to_ascii_lowercase().replace([' ', '-'], "_");
    let own = Kind::ALL.into_iter().find(|kind| kind.name() == plain);
    own.or_else(|| WORDS.iter().find(|(word, _)| word.replace(' ', "_") == plain).map(|(_, kind)| *kind))
}

/// `10000`, `10k`, `1.5M`.
fn steps(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 1e3),
        (at, 'm' | 'M') => (&text[..at], 1e6),
        _ => (text, 1.0),
    };
    let value = number.parse::<f64>().ok()? * unit;
    ((0.0..1e15).contains(&value) && value.fract() == 0.0).then_some(value as u64)
}

impl std::str::FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let fail = |why: String| RuleError { text: text.chars().take(100).collect(), why };
        if text.len() > 600 {
            return Err(fail("is longer than 600 bytes".into()));
        }
        let (rule, after) = match text.rsplit_once(" after ") {
            Some((rule, after)) => {
                let at = steps(after.trim()).ok_or_else(|| {
                    fail(format!("`{}` is no number of steps, such as 10000 or 10k", after.trim()))
                })?;
                (rule.trim(), at)
            }
            None => (text.trim(), 0),
        };
        if rule.is_empty() {
            return Err(fail("is empty".into()));
        }
        let (metric, condition) = condition(rule).map_err(fail)?;
        Ok(Self { metric, condition, after, text: text.trim().to_owned() })
    }
}

fn condition(rule: &str) -> Result<(Option<String>, Condition), String> {
    if let Some(metric) = rule.strip_suffix(MEDIAN) {
        let metric = metric.trim();
        if metric.is_empty() {
            return Err("names no metric before `worse than median`".into());
        }
        return Ok((Some(metric.to_owned()), Condition::BehindMedian));
    }
    // A metric's name may itself hold `<`; the last sign with a number behind it counts.
    for (sign, comparison) in Comparison::ALL {
        if let Some((metric, bound)) = rule.rsplit_once(sign) {
            let bound = bound.trim();
            let value = bound.parse::<f64>().ok().filter(|value| value.is_finite());
            let value = value.ok_or_else(|| format!("`{bound}` is no number to compare with"))?;
            let metric = metric.trim();
            if metric.is_empty() {
                return Err(format!("names no metric before `{sign}`"));
            }
            return Ok((Some(metric.to_owned()), Condition::Value(comparison, value)));
        }
    }
    if let Some(kind) = verdict(rule) {
        return Ok((None, Condition::Verdict(kind)));
    }
    // Verdicts have one to three words; the longest that fits is meant.
    let spaces: Vec<usize> = rule.match_indices(' ').map(|(at, _)| at).collect();
    for at in spaces {
        if let Some(kind) = verdict(&rule[at + 1..]) {
            return Ok((Some(rule[..at].trim().to_owned()), Condition::Verdict(kind)));
        }
    }
    let known = Kind::ALL.map(Kind::name).join(", ");
    Err(format!(
        "is neither `METRIC < NUMBER`, nor `METRIC worse than median`, nor ends in a verdict; those are {known}"
    ))
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
    /// Why the run is to be ended, in a sentence with numbers; `None`: go on.
    /// `peers` gives the courses of the others' metric of a name.
    #[must_use]
    pub fn holds<'a>(
        &self,
        report: &Report,
        peers: &mut dyn FnMut(&str) -> Vec<&'a Course>,
    ) -> Option<String> {
        match self.condition {
            Condition::Verdict(kind) => {
                let found = report.findings.iter().find(|finding| self.is_met_by(kind, finding))?;
                let newest = report.metrics.iter().filter_map(|metric| metric.last_step).max();
                (newest.unwrap_or(0) >= self.after).then(|| said(found))
            }
            Condition::Value(comparison, bound) => {
                let metric = report.metrics.iter().find(|m| Some(&m.name) == self.metric.as_ref())?;
                let step = metric.last_step.unwrap_or(0);
                (step >= self.after && comparison.holds(metric.last, bound))
                    .then(|| format!("{} is {} at step {step}", metric.name, short(metric.last)))
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

    fn is_met_by(&self, kind: Kind, finding: &Finding) -> bool {
        let lasts = finding.last_step.is_none() || finding.severity == Severity::Critical;
        finding.kind == kind
            && lasts
            && finding.severity >= Severity::Warning
            && self.metric.as_ref().is_none_or(|metric| *metric == finding.metric)
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
