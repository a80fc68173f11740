//! What people said of a run in sentences, as its pages show it: notes,
//! decisions with their reason, and hypotheses with how they stand.

use curves::view::date;

use super::load::Run;
use super::notes::{Entry, Kind, Notes};
use crate::commands::analyze::words;

/// Remarks of one page, the newest.
const MOST: usize = 100;

/// Those of a run, the oldest first. Notes that cannot be read are told by
/// `outlast note`; a page goes on without.
pub(super) fn of(run: &Run) -> Vec<(String, String)> {
    Notes::of(run.gathered.place()).map(|notes| shown(&notes)).unwrap_or_default()
}

fn shown(notes: &Notes) -> Vec<(String, String)> {
    let mine = notes.entries.iter().filter(|entry| entry.run == notes.run);
    let mut all: Vec<(String, String)> = mine.filter_map(|entry| one(notes, entry)).collect();
    all.drain(..all.len().saturating_sub(MOST));
    all
}

fn one(notes: &Notes, entry: &Entry) -> Option<(String, String)> {
    let day = date(entry.time as f64);
    Some(match entry.kind {
        Kind::Note => (format!("Note of {day}"), entry.text.clone()),
        Kind::Decision => {
            let why = entry.about.as_ref().map(|why| format!("; since {why}")).unwrap_or_default();
            (format!("Decision of {day}"), format!("{}{why}", entry.text))
        }
        Kind::Hypothesis => {
            let (state, why) = standing(notes, entry);
            (format!("Hypothesis of {day}, {state}"), format!("{}{why}", entry.text))
        }
        _ => return None,
    })
}

/// How a hypothesis stands, and what was said in telling so if that is anything
/// new: of several verdicts the newest holds.
pub(super) fn standing(notes: &Notes, hypothesis: &Entry) -> (String, String) {
    let Some(verdict) = notes.verdict(hypothesis) else { return ("open".into(), String::new()) };
    let state = format!("{} {}", words::in_json(&verdict.kind), date(verdict.time as f64));
    let why = if verdict.text == hypothesis.text { String::new() } else { format!("; {}", verdict.text) };
    (state, why)
}
