//! The end of each metric out of `points.jsonl`, the ones that people look at
//! first in front.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use super::MetricPart;
use super::bounds::{Budget, clip_value};
use super::text::clip;

/// Points kept of one metric.
const POINTS: usize = 50;
/// Metrics kept.
const METRICS: usize = 30;
/// Metrics that are looked at: as many as a run may have.
const SEEN: usize = 1_000;

/// Loss first, then what measures quality and pace, then the rest by name.
fn rank(name: &str) -> (usize, &str) {
    let lower = name.to_lowercase();
    let order = [
        "loss",
        "acc",
        "reward",
        "perplexity",
        "f1",
        "grad_norm",
        "lr",
        "learning_rate",
        "throughput",
        "tokens",
    ];
    (order.iter().position(|part| lower.contains(part)).unwrap_or(order.len()), name)
}

pub(super) fn ends(bytes: &[u8], budget: &mut Budget) -> Vec<MetricPart> {
    let mut series: BTreeMap<String, VecDeque<(Option<u64>, Value)>> = BTreeMap::new();
    for line in bytes.split(|b| *b == b'\n') {
        let Ok(point) = serde_json::from_slice::<Value>(line) else { continue };
        let (Some(name), Some(value)) = (point.get("name").and_then(Value::as_str), point.get("value"))
        else {
            continue;
        };
        let name = clip(name, 120);
        if !value.is_number() && !value.is_string() || series.len() >= SEEN && !series.contains_key(&name) {
            continue;
        }
        let points = series.entry(name).or_default();
        if points.len() == POINTS {
            points.pop_front();
        }
        points.push_back((point.get("step").and_then(Value::as_u64), clip_value(value.clone(), 40)));
    }
    let mut parts: Vec<MetricPart> =
        series.into_iter().map(|(name, points)| MetricPart { name, points: points.into() }).collect();
    parts.sort_by(|a, b| rank(&a.name).cmp(&rank(&b.name)));
    // The budget keeps the last ones: the main ones are put there.
    parts.reverse();
    let mut kept = budget.newest("metrics", parts, METRICS, 72 << 10);
    kept.reverse();
    kept
}
