//! Metrics: points into their file, and what they say of the attempt's steps.

use proto::v1;
use serde_json::json;

use super::{NOTES, Scene, clip};
use crate::core::{Core, CoreError};
use crate::model::{Attempt, Metrics, Position, Versioned};
use crate::runfiles::Write;

/// Moments by which the pace is reckoned.
const PACE: usize = 32;

/// Takes a batch of points into the scene; how long the file is then.
pub(super) async fn take(
    core: &Core,
    scene: &mut Scene,
    at: &Position,
    at_ms: u64,
    points: &v1::Points,
) -> Result<u64, CoreError> {
    if scene.metrics.is_none() {
        let id = scene.attempt.body.id;
        let fresh = Metrics { attempt: id, run: scene.run.body.id, metrics: curves::RunMetrics::default() };
        scene.metrics = Some(core.load(&id.to_string()).await?.unwrap_or(Versioned::new(fresh)));
    }
    let mut lines = String::new();
    let attempt = &mut scene.attempt.body;
    if let Some(row) = scene.metrics.as_mut() {
        for point in &points.points {
            let name: String = point.name.chars().take(200).collect();
            let point = curves::Point { name, step: point.step, value: point.value };
            if !row.body.metrics.push(&point) && row.body.metrics.dropped_names == 1 {
                let text = format!(
                    "more than {} metrics: `{}` and later new names are kept in points.jsonl and not counted",
                    curves::MAX_SERIES,
                    clip(&point.name)
                );
                if attempt.notes.len() < NOTES {
                    attempt.notes.push(text.clone());
                }
                scene.journal.push(("note", json!({"level": "warning", "text": text})));
            }
            // A value that JSON has no number for is kept as text.
            let value =
                if point.value.is_finite() { json!(point.value) } else { json!(point.value.to_string()) };
            lines.push_str(
                &json!({"t": at_ms, "name": point.name, "step": point.step, "value": value}).to_string(),
            );
            lines.push('\n');
            if let Some(step) = point.step {
                stepped(attempt, step, at_ms, core.clock.wall_ms());
            }
        }
    }
    if let Some(step) = points.step {
        stepped(attempt, step, at_ms, core.clock.wall_ms());
    }
    let surplus = attempt.pace.len().saturating_sub(PACE);
    attempt.pace.drain(..surplus);
    scene.attempt_changed = true;
    scene.metrics_changed = true;
    let len = at.file_len + lines.len() as u64;
    scene.writes.push(Write {
        run: scene.run.body.name.clone(),
        attempt: scene.attempt.body.number,
        file: "points.jsonl",
        offset: at.file_len,
        bytes: lines.into_bytes(),
        at_ms: 0,
    });
    Ok(len)
}

/// The program reported a step.
fn stepped(attempt: &mut Attempt, step: u64, at_ms: u64, now_ms: u64) {
    if attempt.first_step.is_none() {
        attempt.first_step = Some(step);
        attempt.first_step_ms = now_ms;
    }
    if attempt.last_step != Some(step) {
        attempt.pace.push((at_ms, step));
    }
    attempt.last_step = Some(attempt.last_step.map_or(step, |s| s.max(step)));
}
