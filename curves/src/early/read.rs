//! How a rule is written. What is no rule says why, with what it could have been;
//! nothing is guessed.

use super::{Comparison, Condition, Rule, RuleError};
use crate::judge::Kind;

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
/// That of a plateau for which no rate needs to have fallen.
const CONSTANT: &str = "at constant lr";
/// What sentences have before a verdict, and names of metrics do not end in.
const FILLERS: [&str; 7] = ["is", "are", "was", "has", "gets", "goes", "becomes"];

/// A name that stands in quotes may hold and end in anything.
fn unquoted(name: &str) -> &str {
    name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name)
}

/// A bound as filters take it: `0.5`, `50%`, `3k`.
fn bound_of(text: &str) -> Option<f64> {
    let (number, unit) = match text.char_indices().last()? {
        (at, '%') => (text[..at].trim_end(), 0.01),
        (at, 'k' | 'K') => (&text[..at], 1e3),
        (at, 'M') => (&text[..at], 1e6),
        _ => (text, 1.0),
    };
    number.parse::<f64>().ok().map(|value| value * unit).filter(|value| value.is_finite())
}

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
        let mut parts = joined(text).into_iter().map(Self::one);
        let first = parts.next().ok_or_else(|| fail("is empty".into()))??;
        Ok(Self { and: parts.collect::<Result<_, _>>()?, text: text.trim().to_owned(), ..first })
    }
}

/// What `and` joins; within quotes it is a part of a name.
fn joined(text: &str) -> Vec<&str> {
    const AND: &str = " and ";
    let (mut parts, mut from) = (Vec::new(), 0);
    for (at, _) in text.match_indices(AND) {
        let before = text.get(..at).unwrap_or_default();
        // Two that share a space cannot both be taken.
        if at >= from && before.matches('"').count().is_multiple_of(2) {
            parts.push(text.get(from..at).unwrap_or_default());
            from = at + AND.len();
        }
    }
    parts.push(text.get(from..).unwrap_or_default());
    parts
}

impl Rule {
    fn one(text: &str) -> Result<Self, RuleError> {
        let fail = |why: String| RuleError { text: text.chars().take(100).collect(), why };
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
        let (rule, at_constant_rate) = match rule.strip_suffix(CONSTANT) {
            Some(rule) => (rule.trim(), true),
            None => (rule, false),
        };
        let (metric, condition) = condition(rule).map_err(fail)?;
        if at_constant_rate && condition != Condition::Verdict(Kind::Plateau) {
            return Err(fail("only a plateau is asked for `at constant lr`".into()));
        }
        let metric = metric.map(|metric| unquoted(&metric).to_owned());
        if metric.as_ref().is_some_and(String::is_empty) {
            return Err(fail("names no metric between its quotes".into()));
        }
        let text = text.trim().to_owned();
        Ok(Self { metric, condition, after, at_constant_rate, and: Vec::new(), text })
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
            let value = bound_of(bound).ok_or_else(|| format!("`{bound}` is no number to compare with"))?;
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
            let metric = rule[..at].trim();
            if let Some((name, _)) = metric.rsplit_once(' ').filter(|(_, last)| FILLERS.contains(last)) {
                let said = rule[at + 1..].trim();
                return Err(format!("names a metric `{metric}`: write `{} {said}`", name.trim()));
            }
            return Ok((Some(metric.to_owned()), Condition::Verdict(kind)));
        }
    }
    let known = Kind::ALL.map(Kind::name).join(", ");
    Err(format!(
        "is neither `METRIC < NUMBER`, nor `METRIC worse than median`, nor ends in a verdict; those are {known}"
    ))
}
