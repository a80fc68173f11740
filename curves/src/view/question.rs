//! Plain questions, by rules: `best run of last week` becomes a filter and a
//! wish for order, which are shown. A question with one word that no rule knows
//! is not answered by half: it is refused with that word.

mod words;

use super::filter::parse;
use words::{count, is_empty, is_name, is_run, meaning, order};

/// Words that a name may be made of: `val loss`.
const NAME: usize = 4;
/// Runs that are meant where several are.
const SEVERAL: usize = 5;

/// What a question comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Question {
    /// The filter, in its own language.
    pub filter: String,
    /// Which runs first.
    pub order: Option<Order>,
    /// By this metric; `None` is the one that runs are judged by.
    pub metric: Option<String>,
    /// At most so many.
    pub top: Option<usize>,
}

/// Which end comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The best.
    Best,
    /// The worst.
    Worst,
    /// The newest.
    Newest,
    /// The smallest value, whether that is good or bad.
    Lowest,
    /// The largest value.
    Highest,
}

/// Understands a question.
///
/// # Errors
/// The first word that no rule knows.
pub fn understand(text: &str) -> Result<Question, String> {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| c.is_whitespace() || "?!,;".contains(c))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| !word.is_empty())
        .collect();
    let mut question = Question::default();
    let mut parts: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(&word) = words.get(at) {
        let rest = words.get(at + 1..).unwrap_or_default();
        let used = ordered(word, rest, &mut question)
            .or_else(|| period(word, rest, &mut parts))
            .or_else(|| negated(word, rest, &mut parts))
            .or_else(|| compared(&words[at..], &mut parts))
            .or_else(|| tagged(word, rest, &mut parts))
            .or_else(|| meaning(word).map(|filter| parts.push(filter.to_owned())).map(|()| 1))
            .or_else(|| is_empty(word).then_some(1));
        at += used.ok_or_else(|| word.to_owned())?;
    }
    // `the best runs` are several, `the best run` is one.
    let several = if words.contains(&"runs") || words.contains(&"experiments") { SEVERAL } else { 1 };
    if question.order.is_some() {
        question.top = question.top.or(Some(several));
    } else if question.metric.is_some() {
        question.order = Some(Order::Best);
    }
    question.filter = parts.join(" and ");
    // What the rules make must be of the language; a rule that does not is a fault.
    parse(&question.filter).map(|_| question).map_err(|error| error.message)
}

/// `best 3 runs by val loss`, `three best runs`, `best val_acc`, `lowest loss`:
/// how many words that took.
fn ordered(word: &str, rest: &[&str], question: &mut Question) -> Option<usize> {
    if word == "by" {
        // `by the lowest loss`: the order follows.
        let skip = rest.iter().take_while(|word| is_empty(word)).count();
        if rest.get(skip).is_some_and(|word| order(word).is_some()) {
            return Some(1 + skip);
        }
        let (name, used) = name(rest.get(skip..)?)?;
        question.metric = Some(name);
        return Some(1 + skip + used);
    }
    if word == "last" {
        // `last run`, `last 3 runs`; `last 3 days` is a time.
        let number = rest.first().and_then(|word| count(word));
        let used = usize::from(number.is_some());
        is_run(rest.get(used)?).then_some(())?;
        (question.order, question.top) = (Some(Order::Newest), number.or(question.top));
        return Some(2 + used);
    }
    if let Some(number) = count(word)
        && rest.first().is_some_and(|word| order(word).is_some())
    {
        question.top = Some(number);
        return Some(1);
    }
    question.order = Some(order(word)?);
    let mut used = 0;
    if let Some(number) = rest.first().and_then(|word| count(word)) {
        question.top = Some(number);
        used = 1;
    }
    if let Some((name, words)) = name(rest.get(used..).unwrap_or_default()) {
        question.metric = Some(name);
        used += words;
    }
    Some(1 + used)
}

/// The name that stands first, and of how many words it is.
fn name(words: &[&str]) -> Option<(String, usize)> {
    let used = words.iter().take(NAME).take_while(|word| is_name(word)).count();
    (used > 0).then(|| (words[..used].join(" "), used))
}

/// `last week`, `last 3 days`, `this month`, `before last week`, `before 2026-11-01`.
fn period(word: &str, rest: &[&str], parts: &mut Vec<String>) -> Option<usize> {
    if word == "before" {
        let (first, rest) = rest.split_first()?;
        let mut ended = Vec::new();
        let used = match period(first, rest, &mut ended) {
            Some(used) => used,
            None => {
                ended.push(format!("since {first}"));
                1
            }
        };
        let text = ended.first()?.replacen("since", "before", 1);
        parse(&text).ok()?;
        parts.push(text);
        return Some(1 + used);
    }
    if !matches!(word, "last" | "past" | "this" | "since") {
        return None;
    }
    let days = |unit: &str| match unit.trim_end_matches('s') {
        "hour" => Some("h"),
        "day" => Some("d"),
        "week" => Some("w"),
        "minute" => Some("m"),
        _ => None,
    };
    let first = *rest.first()?;
    if first.trim_end_matches('s') == "month" {
        parts.push("since 30d".into());
        return Some(2);
    }
    if let Some(unit) = days(first) {
        parts.push(if unit == "w" { "since 7d".into() } else { format!("since 1{unit}") });
        return Some(2);
    }
    let count: u32 = first.parse().ok()?;
    let unit = days(rest.get(1)?)?;
    parts.push(format!("since {count}{unit}"));
    Some(3)
}

/// `not finished`, `did not diverge`.
fn negated(word: &str, rest: &[&str], parts: &mut Vec<String>) -> Option<usize> {
    matches!(word, "not" | "never" | "didn't" | "without" | "no").then_some(())?;
    let filter = meaning(rest.first()?)?;
    parts.push(format!("not ({filter})"));
    Some(2)
}

/// `val loss below 0.3`, `accuracy of at least 80%`, `lr is 0.1`, `optimizer is adam`.
fn compared(words: &[&str], parts: &mut Vec<String>) -> Option<usize> {
    let (name, used) = name(words)?;
    let rest = words.get(used..)?;
    let skip = rest.iter().take_while(|word| matches!(**word, "is" | "of" | "was" | "equals")).count();
    let said = rest.get(..skip).is_some_and(|words| words.iter().any(|word| *word != "of"));
    let after = rest.get(skip..)?;
    let (op, more) = match *after {
        ["above" | "over", ..] => (">", 1),
        ["below" | "under", ..] => ("<", 1),
        ["greater" | "higher" | "more", "than", ..] => (">", 2),
        ["less" | "lower" | "smaller" | "fewer", "than", ..] => ("<", 2),
        ["at", "least", ..] => (">=", 2),
        ["at", "most", ..] => ("<=", 2),
        ["not", ..] if skip > 0 => ("!=", 1),
        _ => ("==", 0),
    };
    let is_number = |value: &str| value.trim_end_matches(['%', 'k', 'm']).parse::<f64>().is_ok();
    if let ["between", low, "and", high, ..] = *after {
        (is_number(low) && is_number(high)).then_some(())?;
        parts.extend([format!("\"{}\" >= {low}", bare(&name)), format!("\"{}\" <= {high}", bare(&name))]);
        return Some(used + skip + 4);
    }
    let value = *after.get(more)?;
    let number = is_number(value);
    let value = match (number, op) {
        (true, _) => value.to_owned(),
        (false, "==" | "!=") if said && (is_name(value) || value == "nan") => format!("\"{}\"", bare(value)),
        _ => return None,
    };
    parts.push(format!("\"{}\" {op} {value}", bare(&name)));
    Some(used + skip + more + 1)
}

/// Text that can stand in quotes.
fn bare(text: &str) -> String {
    text.replace(['\\', '"'], "")
}

/// `tagged baseline`.
fn tagged(word: &str, rest: &[&str], parts: &mut Vec<String>) -> Option<usize> {
    let key = match word {
        "tagged" | "tag" => "tag",
        "named" | "called" => "name",
        "group" => "group",
        "project" => "project",
        _ => return None,
    };
    let name = bare(rest.first()?);
    parts.push(format!("{key}:\"{name}\""));
    Some(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn questions_become_filters() {
        for (text, filter, order, top) in [
            ("best run of last week", "since 7d", Some(Order::Best), Some(1)),
            ("Show me the best 3 runs by val/loss", "", Some(Order::Best), Some(3)),
            ("which runs diverged today?", "label:diverged and since 1d", None, None),
            ("failed runs of the last 3 days", "state == failed and since 3d", None, None),
            ("runs with val_acc above 80%", "\"val_acc\" > 80%", None, None),
            ("runs whose loss is less than 0.3 tagged base", "\"loss\" < 0.3 and tag:\"base\"", None, None),
            ("the latest experiments", "", Some(Order::Newest), Some(5)),
            ("which run has the lowest val loss", "", Some(Order::Lowest), Some(1)),
            ("best val_acc", "", Some(Order::Best), Some(1)),
            ("top 3 runs by val acc", "", Some(Order::Best), Some(3)),
            ("show me the three best runs by val_loss", "", Some(Order::Best), Some(3)),
            ("runs where lr is 0.1", "\"lr\" == 0.1", None, None),
            ("runs with the optimizer equals Adam.", "\"optimizer\" == \"adam\"", None, None),
            ("how many runs diverged", "label:diverged", None, None),
            ("which runs did not diverge?", "not (label:diverged)", None, None),
            ("runs with val loss below 0.3", "\"val loss\" < 0.3", None, None),
            ("worst run", "", Some(Order::Worst), Some(1)),
            ("last 3 runs", "", Some(Order::Newest), Some(3)),
            ("the last run", "", Some(Order::Newest), Some(1)),
            ("failed ones of the last two experiments", "state == failed", Some(Order::Newest), Some(2)),
            ("run with the most steps", "", Some(Order::Highest), Some(1)),
            ("loss between 0.5 and 0.6", "\"loss\" >= 0.5 and \"loss\" <= 0.6", None, None),
            ("runs before last week", "before 7d", None, None),
            ("runs before last 3 days", "before 3d", None, None),
            ("runs before 2026-11-01", "before 2026-11-01", None, None),
        ] {
            let found = understand(text).expect(text);
            assert_eq!((found.filter.as_str(), found.order, found.top), (filter, order, top), "{text}");
        }
        for (text, metric) in [
            ("best run by val/loss", Some("val/loss")),
            ("which run has the lowest val loss", Some("val loss")),
            ("best val_acc", Some("val_acc")),
            ("top 3 runs by val acc", Some("val acc")),
            ("runs by the highest accuracy of last week", Some("accuracy")),
            ("best runs today", None),
        ] {
            assert_eq!(understand(text).map(|q| q.metric), Ok(metric.map(str::to_owned)), "{text}");
        }
        assert_eq!(understand("runs that smell of roses"), Err("smell".into()));
        assert_eq!(understand("runs before breakfast"), Err("before".into()));
    }

    proptest! {
        #[test]
        fn any_text_is_understood_or_refused(text in "(best|last|by|loss|tagged|[a-z\"\\\\]{1,6}|[0-9]{1,3}| ){0,20}|\\PC{0,30}") {
            if let Ok(found) = understand(&text) {
                prop_assert!(parse(&found.filter).is_ok());
            }
        }
    }
}
