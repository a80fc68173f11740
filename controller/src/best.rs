//! What the checkpoints of a run are worth by the metric that its configuration
//! names. Reads the points that are kept of its attempts; what they mean is
//! [`lifecycle::retention::score`]'s to say. Nothing is remembered.

use std::collections::BTreeMap;

use lifecycle::AttemptId;
use lifecycle::retention::score::{Best, Way, values};
use serde::Deserialize;

use crate::core::{Core, CoreError};
use crate::model::{Attempt, Checkpoint, Run, Versioned};

const FILE: &str = "points.jsonl";
const BLOCK: usize = 1 << 20;
/// Of longer files the end is looked at.
const MOST: u64 = 512 << 20;
/// Measurements of one attempt; the newest stay.
const MEASURED: usize = 1_000_000;

/// The value of the metric for each checkpoint, by its key. Empty where the
/// run names no metric.
///
/// # Errors
/// Where a store or a file fails.
pub async fn of(core: &Core, run: &Run, rows: &[Checkpoint]) -> Result<BTreeMap<String, f64>, CoreError> {
    let Some(best) = &run.spec.checkpoints.best else { return Ok(BTreeMap::new()) };
    let attempts: Vec<Versioned<Attempt>> = core.of_run(run.id).await?;
    let numbers: BTreeMap<AttemptId, u32> = attempts.iter().map(|a| (a.body.id, a.body.number)).collect();
    let made: BTreeMap<&str, u32> =
        rows.iter().filter_map(|c| Some((c.manifest.key.as_str(), *numbers.get(&c.attempt)?))).collect();
    let mut ways = BTreeMap::new();
    for attempt in attempts.iter().map(|a| &a.body) {
        let restored = attempt.restored.as_ref();
        let from = restored.and_then(|r| Some((*made.get(r.key.as_str())?, r.step?)));
        let measured = measured(core, &run.name, attempt.number, best).await?;
        ways.insert(attempt.number, Way { from, measured });
    }
    let usable = |c: &&Checkpoint| c.status.is_durable() && c.manifest.step.is_some();
    let saves: Vec<&Checkpoint> =
        rows.iter().filter(usable).filter(|c| made.contains_key(c.manifest.key.as_str())).collect();
    let places: Vec<(u32, u64)> =
        saves.iter().map(|c| (made[c.manifest.key.as_str()], c.manifest.step.unwrap_or(0))).collect();
    let named = values(&places, &ways).into_iter();
    Ok(named.map(|(at, value)| (saves[at].manifest.key.clone(), value)).collect())
}

async fn measured(core: &Core, run: &str, attempt: u32, best: &Best) -> Result<Vec<(u64, f64)>, CoreError> {
    let mut points = Vec::new();
    let (mut at, mut rest) = (core.files.size(run, attempt, FILE)?.saturating_sub(MOST), Vec::new());
    loop {
        let block = core.files.read(run, attempt, FILE, at, BLOCK)?;
        if block.is_empty() {
            return Ok(points);
        }
        at += block.len() as u64;
        rest.extend_from_slice(&block);
        let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        points.extend(rest[..end].split(|byte| *byte == b'\n').filter_map(|line| point(line, &best.metric)));
        rest.drain(..end);
        // No line of ours is as long.
        if rest.len() > BLOCK {
            rest.clear();
        }
        let surplus = points.len().saturating_sub(MEASURED);
        points.drain(..surplus);
        tokio::task::yield_now().await;
    }
}

/// A value that is no number is kept as text, and is none here.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    name: std::borrow::Cow<'a, str>,
    step: Option<u64>,
    value: serde_json::Value,
}

fn point(line: &[u8], metric: &str) -> Option<(u64, f64)> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    (line.name == metric).then_some(())?;
    Some((line.step?, line.value.as_f64().unwrap_or(f64::NAN)))
}
