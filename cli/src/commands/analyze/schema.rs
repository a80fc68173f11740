//! What `[metrics]` of an `outlast.toml` says of the names that a run logged, as
//! the judge takes it; and the other way: a `[metrics]` made from a run.
//!
//! What is said of one metric counts before a pattern, a pattern before the
//! template, and all of them before what the name says. A unit is what somebody
//! wrote; none is guessed from how large values are.

mod template;

use std::collections::BTreeMap;

use curves::format::Schema as Keys;
use curves::judge::schema::{MetricSpec, Role, Schema, SchemaError, Split, read_name};

use super::words;
use crate::config::Metrics;

/// The keys that a log's step and time stand under.
pub(super) fn keys(metrics: Option<&Metrics>) -> Keys {
    let said = |metrics: &Metrics| {
        let usual = metrics.template.and_then(|template| template::of(template).step);
        Keys { step: metrics.step.clone().or(usual.map(str::to_owned)), time: metrics.time.clone() }
    };
    metrics.map(said).unwrap_or_default()
}

/// The judge's schema for a run that logged `names`, and what in `[metrics]` the
/// run has nothing to do with.
pub(super) fn of(metrics: &Metrics, names: &[String]) -> (Schema, Vec<String>) {
    let mut specs = BTreeMap::new();
    for name in names {
        let spec = spec(metrics, name);
        if spec != MetricSpec::default() {
            specs.insert(words::metric(name), spec);
        }
    }
    let logged = |name: &&str| names.iter().any(|known| known == name);
    let usual = metrics.template.map_or(&[][..], |template| template::of(template).primary);
    let primary = metrics.primary.as_deref().or_else(|| usual.iter().copied().find(logged));
    let mut notes = Vec::new();
    let wanted = metrics.primary.iter().map(|name| ("metrics.primary".to_owned(), name.as_str()));
    let keyed = metrics.keys.keys().map(|name| ("metrics.keys".to_owned(), name.as_str()));
    let pairs = metrics.keys.iter().filter_map(|(name, spec)| {
        Some((format!("metrics.keys.{}.pair", words::name(name)), spec.pair.as_deref()?))
    });
    for (key, name) in wanted.chain(keyed).chain(pairs).filter(|(_, name)| !logged(name)) {
        let known = names.iter().map(String::as_str);
        let nearest = curves::judge::schema::nearest(name, &known.collect::<Vec<_>>()).map(words::name);
        notes.push(SchemaError::NotLogged { key, name: words::name(name), nearest }.to_string());
    }
    let schema = Schema {
        step: metrics.step.as_deref().map(words::metric),
        primary: primary.filter(|name| logged(name)).map(words::metric),
        metrics: specs,
        stages: metrics.stages.clone(),
    };
    (schema, notes)
}

/// All that is said of a name.
fn spec(metrics: &Metrics, name: &str) -> MetricSpec {
    let mut spec = metrics.keys.get(name).cloned().unwrap_or_default();
    if spec.split.is_none() && metrics.validation.iter().any(|pattern| fits(pattern, name)) {
        spec.split = Some(Split::Validation);
    }
    if spec.group.is_none() {
        let group = metrics.groups.iter().find(|(_, patterns)| patterns.iter().any(|one| fits(one, name)));
        let inner = metrics.per_step.as_ref().filter(|pattern| is_inner_step(pattern, name));
        spec.group = group.map(|(group, _)| group.clone()).or_else(|| inner.cloned());
    }
    spec.sensitivity = spec.sensitivity.or(metrics.sensitivity);
    if let Some(usual) = metrics.template.and_then(|template| template::said(template, name)) {
        // A direction that somebody gave goes with the role that he had in mind.
        if spec.direction.is_none() {
            spec.role = spec.role.or(usual.role);
        }
        spec.split = spec.split.or(usual.split);
        spec.pair = spec.pair.or(usual.pair);
    }
    spec.pair = spec.pair.as_deref().map(words::metric);
    spec
}

/// Whether a name is one of a pattern's, in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(byte), _) if *byte == name[n] => (p, n) = (p + 1, n + 1),
            (_, Some((at, from))) => {
                (p, n) = (at + 1, from + 1);
                star = Some((at, from + 1));
            }
            _ => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether a name is `pattern` with a number for `{n}`.
fn is_inner_step(pattern: &str, name: &str) -> bool {
    let number = pattern
        .split_once("{n}")
        .and_then(|(before, after)| name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A `[metrics]` that says what the names of a run say, to be edited by hand.
pub(super) fn written(names: &[String], primary: Option<&str>) -> String {
    let mut text =
        String::from("# What the names in this log say; change what they say wrongly.\n[metrics]\n");
    if let Some(primary) = primary {
        text.push_str(&format!("primary = {}\n", quoted(primary)));
    }
    let mut counters = Vec::new();
    let mut keys = String::new();
    for name in names {
        let traits = read_name(name);
        if traits.role == Role::Counter {
            counters.push(quoted(name));
            continue;
        }
        let mut said = vec![format!("role = \"{}\"", words::in_json(&traits.role))];
        if traits.direction != curves::judge::schema::Direction::Unknown {
            said.push(format!("direction = \"{}\"", words::in_json(&traits.direction)));
        }
        if traits.split != Split::Unsaid {
            said.push(format!("split = \"{}\"", words::in_json(&traits.split)));
        }
        keys.push_str(&format!(
            "{} = {{ {} }} # {}\n",
            quoted(name),
            said.join(", "),
            words::ascii(&traits.reason)
        ));
    }
    if !counters.is_empty() {
        text.push_str(&format!("# counts of steps and epochs: {}\n", counters.join(", ")));
    }
    if !keys.is_empty() {
        text.push_str(&format!("\n[metrics.keys]\n{keys}"));
    }
    text
}

/// Text as a basic string of TOML, which JSON's are, too; what cannot be seen, or
/// turns the direction of what stands beside it, is spelt out.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for c in serde_json::Value::from(text).to_string().chars() {
        let number = u32::from(c);
        if words::legible(c.encode_utf8(&mut [0; 4])).starts_with(c) {
            out.push(c);
        } else if number <= 0xffff {
            out.push_str(&format!("\\u{number:04x}"));
        } else {
            out.push_str(&format!("\\U{number:08x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests;
