//! Plain questions, by rules: `best run of last week` becomes a filter and a
//! wish for order, which are shown. A question with one word that no rule knows
//! is not answered by half: it is refused with that word.

use super::filter::parse;

/// What a question comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Question {
    /// The filter, in its own language.
    pub filter: String,
    /// Best or worst first.
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
}

/// Words without a meaning of their own.
const EMPTY: [&str; 40] = [
    "show",
    "me",
    "the",
    "all",
    "runs",
    "run",
    "which",
    "what",
    "is",
    "are",
    "was",
    "were",
    "of",
    "from",
    "in",
    "with",
    "and",
    "that",
    "have",
    "has",
    "had",
    "did",
    "do",
    "list",
    "find",
    "my",
    "a",
    "an",
    "get",
    "give",
    "whose",
    "where",
    "on",
    "for",
    "please",
    "any",
    "there",
    "experiments",
    "experiment",
    "trainings",
];

/// Words that are a filter by themselves.
const MEANING: [(&str, &str); 26] = [
    ("failed", "state == failed"),
    ("crashed", "state == failed"),
    ("failing", "state == failed"),
    ("finished", "state == finished"),
    ("completed", "state == finished"),
    ("done", "state == finished"),
    ("successful", "state == finished"),
    ("running", "state == running"),
    ("active", "state == running"),
    ("diverged", "label:diverged"),
    ("diverging", "label:diverged"),
    ("overfit", "label:overfit"),
    ("overfitting", "label:overfit"),
    ("stalled", "label:stalled"),
    ("stuck", "label:stalled"),
    ("plateaued", "label:plateau*"),
    ("healthy", "label:healthy"),
    ("unhealthy", "not label:healthy"),
    ("nan", "label:diverged"),
    ("favorite", "tag:favorite"),
    ("favorites", "tag:favorite"),
    ("favourite", "tag:favorite"),
    ("favourites", "tag:favorite"),
    ("today", "since 1d"),
    ("yesterday", "since 2d and before 1d"),
    ("unfinished", "not state == finished"),
];

/// Understands a question.
///
/// # Errors
/// The first word that no rule knows.
pub fn understand(text: &str) -> Result<Question, String> {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| c.is_whitespace() || "?!,;".contains(c))
        .filter(|word| !word.is_empty())
        .collect();
    let mut question = Question::default();
    let mut parts: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(&word) = words.get(at) {
        let rest = words.get(at + 1..).unwrap_or_default();
        let used = ordered(word, rest, &mut question)
            .or_else(|| period(word, rest, &mut parts))
            .or_else(|| compared(word, rest, &mut parts))
            .or_else(|| tagged(word, rest, &mut parts))
            .or_else(|| {
                let meaning = MEANING.iter().find(|(known, _)| *known == word);
                meaning.map(|(_, filter)| parts.push((*filter).to_owned())).map(|()| 1)
            })
            .or_else(|| EMPTY.contains(&word).then_some(1));
        at += used.ok_or_else(|| word.to_owned())?;
    }
    question.filter = parts.join(" and ");
    // What the rules make must be of the language; a rule that does not is a fault.
    parse(&question.filter).map(|_| question).map_err(|error| error.message)
}

/// `best 3 runs by val/loss`: how many words that took.
fn ordered(word: &str, rest: &[&str], question: &mut Question) -> Option<usize> {
    let order = match word {
        "best" | "top" => Order::Best,
        "worst" => Order::Worst,
        "newest" | "latest" | "recent" => Order::Newest,
        "by" => {
            question.metric = Some((*rest.first()?).to_owned());
            return Some(2);
        }
        _ => return None,
    };
    question.order = Some(order);
    if let Some(count) = rest.first().and_then(|count| count.parse().ok()) {
        question.top = Some(count);
        return Some(2);
    }
    // `the best runs` are several, `the best run` is one.
    let one = matches!(rest.first(), Some(&("run" | "experiment" | "training")) | None);
    question.top = question.top.or(if one { Some(1) } else { Some(5) });
    Some(1)
}

/// `last week`, `last 3 days`, `this month`.
fn period(word: &str, rest: &[&str], parts: &mut Vec<String>) -> Option<usize> {
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

/// `loss below 0.3`, `accuracy of at least 80%`.
fn compared(word: &str, rest: &[&str], parts: &mut Vec<String>) -> Option<usize> {
    let skip = rest.iter().take_while(|word| matches!(**word, "is" | "of" | "was")).count();
    let after = rest.get(skip..)?;
    let (op, used) = match *after {
        ["above" | "over", ..] => (">", 1),
        ["below" | "under", ..] => ("<", 1),
        ["greater" | "higher" | "more", "than", ..] => (">", 2),
        ["less" | "lower" | "smaller" | "fewer", "than", ..] => ("<", 2),
        ["at", "least", ..] => (">=", 2),
        ["at", "most", ..] => ("<=", 2),
        _ => return None,
    };
    let value = *after.get(used)?;
    value.trim_end_matches(['%', 'k', 'm']).parse::<f64>().ok()?;
    parts.push(format!("\"{}\" {op} {value}", word.replace(['\\', '"'], "")));
    Some(1 + skip + used + 1)
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
    let name = rest.first()?.replace(['\\', '"'], "");
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
        ] {
            let found = understand(text).expect(text);
            assert_eq!((found.filter.as_str(), found.order, found.top), (filter, order, top), "{text}");
        }
        assert_eq!(understand("best run by val/loss").map(|q| q.metric), Ok(Some("val/loss".into())));
        assert_eq!(understand("runs that smell of roses"), Err("smell".into()));
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
