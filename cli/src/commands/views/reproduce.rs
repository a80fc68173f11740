//! `outlast reproduce`: whether two runs are the same experiment by what their
//! logs say: code, program, environment, settings, seed, data; and whether their
//! curves are the same numbers. What a log does not say is unknown, not equal.

use std::collections::BTreeMap;

use curves::log::Fact;
use serde_json::json;

use super::budget::Lines;
use super::load::{self, Run};
use super::{Answer, numbers, settings};
use crate::args::ReproduceArgs;
use crate::commands::analyze::words;

/// Facts that have to be the same.
const FACTS: [(Fact, &str); 6] = [
    (Fact::Commit, "commit"),
    (Fact::Remote, "remote"),
    (Fact::Program, "program"),
    (Fact::Python, "python"),
    (Fact::Accelerator, "accelerator"),
    (Fact::Host, "host"),
];

/// How names of what the controller says of a run begin.
const OWN: &str = "outlast/";
/// The digest of all files that the program was made of.
const SOURCE: &str = "outlast/source";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Same {
    Yes,
    No,
    Unknown,
}

/// See the module.
///
/// # Errors
/// A run that is not there, or several.
pub(crate) fn answer(args: &ReproduceArgs) -> anyhow::Result<Answer> {
    let a = load::one(&args.first, None, args.shown.format.as_ref())?;
    let b = load::one(&args.second, None, args.shown.format.as_ref())?;
    let mut checks: Vec<(String, Same, String)> = Vec::new();
    for (kind, name) in FACTS {
        let (one, two) = (a.data.fact(kind), b.data.fact(kind));
        checks.push((name.into(), same(one, two), differing(one, two)));
    }
    let (mut one, mut two) = (texts(&a), texts(&b));
    // Of runs of the controller the source is known whole: a commit says less.
    if one.contains_key(SOURCE) && two.contains_key(SOURCE) {
        checks.retain(|(name, same, _)| {
            *same != Same::Unknown || !["commit", "remote"].contains(&name.as_str())
        });
    }
    for (what, is) in [
        ("source", &source as &dyn Fn(&str) -> bool),
        ("environment", &environment),
        ("machine", &machine),
        ("seed", &seed),
        ("data digest", &digest),
    ] {
        let of = |all: &BTreeMap<String, String>| {
            let found: Vec<String> = all
                .iter()
                .filter(|(name, _)| is(name))
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            (!found.is_empty()).then(|| found.join(", "))
        };
        let (one, two) = (of(&one), of(&two));
        // Logs of other tools know nothing of these.
        if one.is_none() && two.is_none() && ["source", "environment", "machine"].contains(&what) {
            continue;
        }
        checks.push((
            what.into(),
            same(one.as_deref(), two.as_deref()),
            differing(one.as_deref(), two.as_deref()),
        ));
    }
    one.retain(|name, _| !name.starts_with(OWN));
    two.retain(|name, _| !name.starts_with(OWN));
    let unlike: Vec<&String> = one
        .keys()
        .chain(two.keys())
        .filter(|name| one.get(*name) != two.get(*name))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let settings = if (one.is_empty() || two.is_empty()) && !(a.gathered.is_own() && b.gathered.is_own()) {
        (Same::Unknown, String::new())
    } else if unlike.is_empty() {
        (Same::Yes, String::new())
    } else {
        let named: Vec<String> = unlike.iter().take(6).map(|name| words::metric(name)).collect();
        (
            Same::No,
            format!("{} differ: {}", numbers::count(unlike.len(), "setting", "settings"), named.join(", ")),
        )
    };
    checks.push(("settings".into(), settings.0, settings.1));
    let curves = curves(&a, &b);
    Ok(made(&a, &b, &checks, &curves, args))
}

/// How many values are the same at the same steps, and where the first is not.
struct Curves {
    compared: usize,
    equal: usize,
    first: Option<(u64, String)>,
}

fn curves(a: &Run, b: &Run) -> Curves {
    let mut found = Curves { compared: 0, equal: 0, first: None };
    let timed = |name: &str| {
        use curves::judge::schema::{Role, read_name};
        matches!(read_name(name).role, Role::Throughput | Role::StepTime | Role::Time | Role::Resource)
    };
    for (name, _) in a.columns().filter(|(name, _)| !name.starts_with("system/") && !timed(name)) {
        let (Some(one), Some(two)) = (a.course(name), b.course(name)) else { continue };
        for point in &one.points {
            let Ok(index) = two.points.binary_search_by_key(&point.0, |other| other.0) else { continue };
            let Some(other) = two.points.get(index) else { continue };
            found.compared += 1;
            if point.1 == other.1 || (point.1.is_nan() && other.1.is_nan()) {
                found.equal += 1;
            } else if found.first.as_ref().is_none_or(|(step, _)| point.0 < *step) {
                found.first = Some((point.0, name.to_owned()));
            }
        }
    }
    found
}

fn made(
    a: &Run,
    b: &Run,
    checks: &[(String, Same, String)],
    curves: &Curves,
    args: &ReproduceArgs,
) -> Answer {
    let count = |wanted: Same| checks.iter().filter(|(_, same, _)| *same == wanted).count();
    let (no, unknown) = (count(Same::No), count(Same::Unknown));
    let unequal = curves.compared - curves.equal;
    let verdict = match (no, unknown, unequal) {
        (0, 0, 0) => "the same experiment by everything the logs say",
        (0, _, 0) => "nothing differs, but not everything is known",
        (0, 0, _) => "not the same numbers, although the logs say the same of both",
        (0, _, _) => "not the same numbers; what is known of both is the same",
        _ => "not the same experiment",
    };
    let headline = match unequal {
        0 => String::new(),
        _ => format!(": {unequal} of {} values differ", curves.compared),
    };
    let numbers = if curves.compared == 0 {
        "no values at the same steps".to_owned()
    } else if curves.equal == curves.compared {
        format!("all {} values at the same steps are equal", curves.compared)
    } else {
        let first = curves
            .first
            .as_ref()
            .map(|(step, name)| format!("; first difference at step {step} in {}", words::metric(name)));
        format!(
            "{} of {} values at the same steps are equal{}",
            curves.equal,
            curves.compared,
            first.unwrap_or_default()
        )
    };
    let mut lines = Lines::new("");
    lines.push(0, &format!("{} and {}: {verdict}{headline}", a.shown(), b.shown()));
    lines.push(0, &format!("  values: {numbers}"));
    for (name, same, text) in checks {
        let (rank, word) = match same {
            Same::Yes => (3, "same"),
            Same::No => (1, "differs"),
            Same::Unknown => (2, "unknown"),
        };
        let text = if text.is_empty() { String::new() } else { format!(": {text}") };
        lines.push(rank, &format!("  {name} {word}{text}"));
    }
    let json = json!({
        "paths": [a.gathered.path().to_string_lossy(), b.gathered.path().to_string_lossy()],
        "verdict": verdict,
        "differs": no,
        "unknown": unknown,
        "checks": checks.iter().map(|(name, same, text)| json!({
            "name": name,
            "same": match same { Same::Yes => Some(true), Same::No => Some(false), Same::Unknown => None },
            "text": text,
        })).collect::<Vec<_>>(),
        "values": {
            "compared": curves.compared,
            "equal": curves.equal,
            "unequal": unequal,
            "first_difference": curves.first.as_ref().map(|(step, name)| json!({ "step": step, "metric": name })),
        },
    });
    Answer { text: lines.fit(args.shown.tokens as usize), json }
}

fn same(a: Option<&str>, b: Option<&str>) -> Same {
    match (a.filter(|text| !text.is_empty()), b.filter(|text| !text.is_empty())) {
        (Some(a), Some(b)) if a == b => Same::Yes,
        (Some(_), Some(_)) => Same::No,
        _ => Same::Unknown,
    }
}

fn differing(a: Option<&str>, b: Option<&str>) -> String {
    match (same(a, b), a, b) {
        (Same::No, Some(a), Some(b)) => format!("{} and {}", words::name(a), words::name(b)),
        _ => String::new(),
    }
}

fn texts(run: &Run) -> BTreeMap<String, String> {
    settings::flat(run)
        .into_iter()
        .map(|(name, value)| match value {
            curves::log::Value::Text(text) => (name, text),
            other => (name, settings::of(&other).to_string()),
        })
        .collect()
}

fn source(name: &str) -> bool {
    name == SOURCE
}

fn environment(name: &str) -> bool {
    ["environment", "image", "setup", "workdir"].iter().any(|one| name.strip_prefix(OWN) == Some(one))
}

fn machine(name: &str) -> bool {
    name.strip_prefix(OWN).is_some_and(|name| name == "provider" || name.starts_with("machine"))
}

fn seed(name: &str) -> bool {
    let last = name.rsplit(['.', '/']).next().unwrap_or(name).to_lowercase();
    last == "seed" || last == "random_state" || last.ends_with("_seed") || last.starts_with("seed_")
}

fn digest(name: &str) -> bool {
    let name = name.to_lowercase();
    let of_data = ["data", "dataset", "corpus", "train_file"].iter().any(|word| name.contains(word));
    of_data
        && ["hash", "digest", "sha", "md5", "checksum", "version", "revision"]
            .iter()
            .any(|word| name.contains(word))
}
