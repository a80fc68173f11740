//! Words that questions are made of.

use super::Order;

/// Words without a meaning of their own.
const EMPTY: [&str; 60] = [
    "a",
    "all",
    "an",
    "and",
    "any",
    "are",
    "at",
    "been",
    "can",
    "count",
    "did",
    "do",
    "does",
    "ever",
    "experiment",
    "experiments",
    "far",
    "find",
    "for",
    "from",
    "get",
    "give",
    "had",
    "has",
    "have",
    "how",
    "i",
    "in",
    "is",
    "it",
    "list",
    "many",
    "me",
    "my",
    "number",
    "of",
    "on",
    "one",
    "ones",
    "our",
    "please",
    "run",
    "runs",
    "show",
    "so",
    "tell",
    "that",
    "the",
    "there",
    "training",
    "trainings",
    "was",
    "we",
    "were",
    "what",
    "where",
    "which",
    "whose",
    "with",
    "you",
];

/// Words that are a filter by themselves.
const MEANING: [(&str, &str); 39] = [
    ("failed", "state == failed"),
    ("fail", "state == failed"),
    ("failing", "state == failed"),
    ("crashed", "state == failed"),
    ("crash", "state == failed"),
    ("finished", "state == finished"),
    ("finish", "state == finished"),
    ("completed", "state == finished"),
    ("done", "state == finished"),
    ("succeeded", "state == finished"),
    ("successful", "state == finished"),
    ("stopped", "state == stopped"),
    ("cancelled", "state == stopped"),
    ("canceled", "state == stopped"),
    ("killed", "state == stopped"),
    ("running", "state == running"),
    ("active", "state == running"),
    ("diverged", "label:diverged"),
    ("diverge", "label:diverged"),
    ("diverging", "label:diverged"),
    ("overfit", "label:overfit"),
    ("overfitted", "label:overfit"),
    ("overfitting", "label:overfit"),
    ("stalled", "label:stalled"),
    ("stuck", "label:stalled"),
    ("plateau", "label:plateau*"),
    ("plateaued", "label:plateau*"),
    ("healthy", "label:healthy"),
    ("unhealthy", "not label:healthy"),
    ("nan", "label:diverged"),
    ("nans", "label:diverged"),
    ("favorite", "tag:favorite"),
    ("favorites", "tag:favorite"),
    ("favourite", "tag:favorite"),
    ("favourites", "tag:favorite"),
    ("today", "since 1d"),
    ("yesterday", "since 2d and before 1d"),
    ("unfinished", "not state == finished"),
    ("unsuccessful", "not state == finished"),
];

const ORDERS: [(&str, Order); 18] = [
    ("best", Order::Best),
    ("top", Order::Best),
    ("worst", Order::Worst),
    ("newest", Order::Newest),
    ("latest", Order::Newest),
    ("recent", Order::Newest),
    ("lowest", Order::Lowest),
    ("smallest", Order::Lowest),
    ("least", Order::Lowest),
    ("minimal", Order::Lowest),
    ("minimum", Order::Lowest),
    ("highest", Order::Highest),
    ("largest", Order::Highest),
    ("biggest", Order::Highest),
    ("greatest", Order::Highest),
    ("maximal", Order::Highest),
    ("maximum", Order::Highest),
    ("most", Order::Highest),
];

const NUMBERS: [&str; 10] = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

/// Other words that rules begin with or look for.
const RULES: [&str; 29] = [
    "before", "between", "by", "last", "past", "this", "since", "tagged", "tag", "named", "called", "group",
    "project", "not", "never", "without", "no", "didn't", "above", "over", "below", "under", "greater",
    "higher", "more", "less", "lower", "equals", "than",
];

pub(super) fn is_empty(word: &str) -> bool {
    EMPTY.contains(&word)
}

/// The filter that a word is.
pub(super) fn meaning(word: &str) -> Option<&'static str> {
    MEANING.iter().find(|(known, _)| *known == word).map(|(_, filter)| *filter)
}

pub(super) fn order(word: &str) -> Option<Order> {
    ORDERS.iter().find(|(known, _)| *known == word).map(|(_, order)| *order)
}

/// Whether a word stands for runs.
pub(super) fn is_run(word: &str) -> bool {
    matches!(word, "run" | "runs" | "experiment" | "experiments" | "training" | "trainings")
}

/// `3` or `three`.
pub(super) fn count(word: &str) -> Option<usize> {
    let named = || NUMBERS.iter().position(|known| *known == word).map(|at| at + 1);
    word.parse().ok().or_else(named).filter(|count| *count > 0)
}

/// Whether a word can be part of a metric's or a setting's name.
pub(super) fn is_name(word: &str) -> bool {
    let taken = is_empty(word) || meaning(word).is_some() || order(word).is_some() || RULES.contains(&word);
    !taken && count(word).is_none() && word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}
