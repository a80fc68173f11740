//! What a metric's name says of it.

use super::vocabulary::{self, TRAIN, VALIDATION};
use super::{Direction, Role, Split};

/// What is known of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traits {
    /// What it measures.
    pub role: Role,
    /// On which data.
    pub split: Split,
    /// Which way is better.
    pub direction: Direction,
    /// Why that way.
    pub reason: String,
    /// The words of the name without those that tell the split.
    pub stem: String,
}

const COUNTER: [&str; 15] = [
    "step",
    "steps",
    "iter",
    "iters",
    "iteration",
    "iterations",
    "epoch",
    "epochs",
    "batch",
    "seen",
    "consumed",
    "update",
    "updates",
    "timestep",
    "timesteps",
];
const RESOURCE: [&str; 13] = [
    "mem",
    "memory",
    "gpu",
    "cpu",
    "util",
    "utilization",
    "utilisation",
    "temp",
    "temperature",
    "power",
    "vram",
    "rss",
    "disk",
];
const THROUGHPUT: [&str; 12] =
    ["throughput", "tps", "fps", "mfu", "tflops", "flops", "qps", "sps", "imgs", "toks", "speed", "goodput"];

/// Reads a name: see `vocabulary.rs` for its words.
#[must_use]
pub fn read_name(name: &str) -> Traits {
    let words = vocabulary::measured(name);
    let has = |list: &[&str]| words.iter().any(|word| vocabulary::is_of(word, list));
    let split = if has(&VALIDATION) {
        Split::Validation
    } else if has(&TRAIN) {
        Split::Train
    } else {
        Split::Unsaid
    };
    let (role, word) = role(&words, name);
    let direction = direction_of(role);
    let reason = match direction {
        Direction::Lower => format!("`{word}` in the name: lower is better"),
        Direction::Higher => format!("`{word}` in the name: higher is better"),
        Direction::Unknown => "nothing in the name says which way is better".to_owned(),
    };
    let of_split = |word: &str| vocabulary::is_of(word, &VALIDATION) || vocabulary::is_of(word, &TRAIN);
    let kept = words.iter().filter(|word| !of_split(word));
    let stem = kept.cloned().collect::<Vec<_>>().join(" ");
    Traits { role, split, direction, reason, stem }
}

fn stem(traits: &Traits) -> Vec<String> {
    traits.stem.split(' ').map(str::to_owned).collect()
}

/// Whether a score's name says that it is a part of a whole.
pub(in crate::judge) fn is_share(traits: &Traits) -> bool {
    vocabulary::share(&stem(traits)).is_some()
}

/// Whether a loss is by its name a part of an objective, or one of two that play
/// against each other: the entropy of a policy, a divergence, a critic, the loss
/// of a discriminator. Such a one may rise in a run that is well.
pub(in crate::judge) fn is_part(traits: &Traits) -> bool {
    matches!(traits.role, Role::Loss) && vocabulary::part(&stem(traits))
}

/// Whether a score is what an agent earns: its losses then only serve that.
pub(in crate::judge) fn is_return(traits: &Traits) -> bool {
    traits.role == Role::Score && vocabulary::is_return(&stem(traits))
}

/// Whether a loss is the whole of what is trained on, by a plain name.
pub(in crate::judge) fn is_whole(traits: &Traits) -> bool {
    matches!(traits.stem.as_str(), "loss" | "total loss" | "loss total")
}

/// Which way is better for what a metric measures.
pub(super) fn direction_of(role: Role) -> Direction {
    match role {
        Role::Loss | Role::Error | Role::StepTime => Direction::Lower,
        Role::Score | Role::Throughput => Direction::Higher,
        _ => Direction::Unknown,
    }
}

fn role(words: &[String], name: &str) -> (Role, String) {
    let find = |list: &[&str]| words.iter().find(|w| list.contains(&w.as_str())).cloned();
    let both = |a: &[&str], b: &[&str]| find(a).zip(find(b)).map(|(a, b)| format!("{a} {b}"));
    let time = ["time", "ms", "sec", "secs", "second", "seconds", "s", "duration"];
    let work = ["step", "iter", "iteration", "batch", "it", "update", "token", "sample", "epoch"];
    let per_second = || {
        let at = words.iter().position(|w| w == "per")?;
        let unit = words.get(at + 1)?;
        time.contains(&unit.as_str()).then(|| format!("per {unit}"))
    };
    let rate =
        || name.to_ascii_lowercase().ends_with("/s").then(|| "/s".to_owned()).filter(|_| words.len() > 1);
    let per_step = || {
        let at = words.iter().position(|w| w == "per")?;
        let (before, unit) = (words.get(at.checked_sub(1)?)?, words.get(at + 1)?);
        (time.contains(&before.as_str()) && work.contains(&unit.as_str()))
            .then(|| format!("{before} per {unit}"))
    };
    let judged = vocabulary::judged(words, name);
    let of = |role: Role| judged.clone().filter(|(of, _)| *of == role).map(|(_, word)| word);
    let tries: [(Role, Option<String>); 13] = [
        (Role::LossScale, both(&["loss", "grad"], &["scale", "scaler"]).or_else(|| find(&["scaler"]))),
        (
            Role::LearningRate,
            words
                .iter()
                .find(|w| vocabulary::is_of(w, &["lr"]))
                .cloned()
                .or_else(|| both(&["learning"], &["rate"])),
        ),
        (
            Role::GradientNorm,
            both(&["grad", "gradient", "gradients", "grads"], &["norm"])
                .or_else(|| find(&["gnorm", "gradnorm"])),
        ),
        (Role::StepTime, per_step().or_else(|| vocabulary::step_time(name))),
        (Role::Throughput, per_second().or_else(rate).or_else(|| find(&THROUGHPUT))),
        (Role::StepTime, both(&time[..1], &work)),
        (Role::Loss, of(Role::Loss)),
        (Role::Error, of(Role::Error)),
        (Role::Score, of(Role::Score)),
        (Role::Resource, find(&RESOURCE)),
        (Role::Counter, find(&COUNTER).or_else(|| vocabulary::counter(words))),
        (Role::Time, find(&["time", "timestamp", "runtime", "elapsed", "wall", "eta", "duration"])),
        (Role::Other, None),
    ];
    tries.into_iter().find_map(|(role, word)| Some((role, word?))).unwrap_or((Role::Other, String::new()))
}

/// The words of a name, in small letters.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut small = false;
    for c in name.chars() {
        if !c.is_alphanumeric() {
            words.push(String::new());
            small = false;
            continue;
        }
        if small && c.is_uppercase() {
            words.push(String::new());
        }
        small = c.is_lowercase() || c.is_numeric();
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

/// The most similar of `known`, if it shares most of its words or letters.
#[must_use]
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let wanted: Vec<char> = name.chars().take(128).collect();
    let distance = |other: &str| {
        let other: Vec<char> = other.chars().take(128).collect();
        let mut row: Vec<usize> = (0..=other.len()).collect();
        for (i, a) in wanted.iter().enumerate() {
            let mut corner = row[0];
            row[0] = i + 1;
            for (j, b) in other.iter().enumerate() {
                let replaced = corner + usize::from(a != b);
                corner = row[j + 1];
                row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
            }
        }
        row[other.len()]
    };
    let (away, found) = known.iter().map(|k| (distance(k), *k)).min()?;
    (away * 2 <= wanted.len()).then_some(found)
}
