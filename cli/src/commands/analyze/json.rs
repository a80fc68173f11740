//! Everything that is known of a run, as JSON: names as the log has them, and
//! nothing cut.

use std::collections::BTreeMap;

use curves::judge::Report;
use serde::Serialize;

use super::ending::Ending;
use super::read::{Losses, Run};
use super::summary::Summary;
use super::words;

/// One run.
#[derive(Serialize)]
pub(super) struct Object<'a> {
    path: String,
    name: String,
    format: &'static str,
    why: &'a str,
    files: Vec<String>,
    first_step: Option<u64>,
    last_step: Option<u64>,
    planned_steps: Option<u64>,
    values: u64,
    facts: &'a BTreeMap<&'static str, String>,
    exit_code: Option<i32>,
    ending: Option<&'a Ending>,
    alerts: u64,
    resumed: u64,
    read: &'a Losses,
    notes: &'a [String],
    summary: &'a Summary,
    report: &'a Report,
}

pub(super) fn object(run: &Run) -> Object<'_> {
    let path = run.source.path.to_string_lossy().into_owned();
    Object {
        name: run.facts.get("name").cloned().unwrap_or_else(|| path.clone()),
        path,
        format: words::format(run.source.format),
        why: &run.source.why,
        files: run.source.parts.iter().map(|part| part.path.to_string_lossy().into_owned()).collect(),
        first_step: run.steps.map(|(first, _)| first),
        last_step: run.steps.map(|(_, last)| last),
        planned_steps: run.planned,
        values: run.values,
        facts: &run.facts,
        exit_code: run.exit_code,
        ending: run.ending.as_ref(),
        alerts: run.alerts,
        resumed: run.resumed,
        read: &run.losses,
        notes: &run.notes,
        summary: &run.summary,
        report: &run.report,
    }
}
