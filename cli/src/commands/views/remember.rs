//! How the views answer that write down what people say of runs, and show it.

use curves::view::date;
use serde_json::json;

use super::Answer;
use super::budget::Lines;
use super::notes::{Entry, Kind, Notes};
use super::remarks;
use crate::commands::analyze::words;

/// After a line was written.
pub(super) fn written(notes: &Notes, entry: &Entry, tokens: u32) -> Answer {
    let text = format!(
        "{} {} of {} is kept",
        words::in_json(&entry.kind),
        entry.id,
        words::path(notes.run.as_ref())
    );
    let mut lines = Lines::new("");
    lines.push(0, &text);
    Answer { text: lines.fit(tokens as usize), json: json!({ "file": notes.file, "written": entry }) }
}

/// The tags of a run as they stand.
pub(super) fn tags_of(notes: &Notes, tokens: u32) -> Answer {
    let tags = notes.tags();
    let mut lines = Lines::new("");
    lines.push(
        0,
        &format!(
            "{}: {} given here",
            words::path(notes.run.as_ref()),
            super::numbers::count(tags.len(), "tag", "tags")
        ),
    );
    tags.iter().for_each(|tag| lines.push(1, &format!("  {}", words::name(tag))));
    notes.group().iter().for_each(|group| lines.push(1, &format!("  group {}", words::name(group))));
    Answer {
        text: lines.fit(tokens as usize),
        json: json!({ "file": notes.file, "run": notes.run, "tags": tags, "group": notes.group() }),
    }
}

/// Hypotheses with how they stand, the newest first: of several verdicts on one
/// the newest holds. The JSON has every line.
pub(super) fn standing(notes: &Notes, tokens: u32) -> Answer {
    let kinds = |entry: &&Entry| matches!(entry.kind, Kind::Hypothesis | Kind::Confirmed | Kind::Refuted);
    let mut entries: Vec<&Entry> = notes.mine().filter(kinds).collect();
    entries.reverse();
    let all: Vec<&Entry> = entries.iter().copied().filter(|entry| entry.kind == Kind::Hypothesis).collect();
    let mut lines = Lines::new("");
    let count = super::numbers::count(all.len(), "hypothesis", "hypotheses");
    lines.push(0, &format!("{}: {count}", words::path(notes.run.as_ref())));
    unreadable(notes, &mut lines);
    for (index, entry) in all.iter().enumerate() {
        let (state, why) = remarks::standing(notes, entry);
        let why = why.strip_prefix("; ").map(|why| format!(": {}", words::quoted(why))).unwrap_or_default();
        lines.push(
            2 + u8::try_from(index / 3).unwrap_or(200).min(200),
            &format!(
                "  {} {}, {}: {}; {state}{why}",
                date(entry.time as f64),
                words::name(&entry.id),
                words::path(entry.run.as_ref()),
                words::quoted(&entry.text)
            ),
        );
    }
    let states: Vec<_> = all
        .iter()
        .map(|entry| {
            let verdict = notes.verdict(entry);
            let state = verdict.map_or("open".to_owned(), |verdict| words::in_json(&verdict.kind));
            json!({ "hypothesis": entry, "state": state, "verdict": verdict })
        })
        .collect();
    let json = json!({
        "file": notes.file, "run": notes.run, "entries": entries, "unreadable": notes.unreadable,
        "hypotheses": states,
    });
    Answer { text: lines.fit(tokens as usize), json }
}

fn unreadable(notes: &Notes, lines: &mut Lines) {
    if notes.unreadable > 0 {
        let count = super::numbers::count(notes.unreadable, "line", "lines");
        lines.push(1, &format!("  {count} of {} cannot be read", words::path(&notes.file)));
    }
}

/// What was written, the newest first.
pub(super) fn listed(notes: &Notes, is: impl Fn(&Entry) -> bool, tokens: u32) -> Answer {
    let mut entries: Vec<&Entry> = notes.mine().filter(|entry| is(entry)).collect();
    entries.reverse();
    let mut lines = Lines::new("");
    let count = super::numbers::count(entries.len(), "entry", "entries");
    lines.push(0, &format!("{}: {count}", words::path(notes.run.as_ref())));
    unreadable(notes, &mut lines);
    for (index, entry) in entries.iter().enumerate() {
        let rank = 2 + u8::try_from(index / 3).unwrap_or(200).min(200);
        let about = match (&entry.about, entry.kind) {
            (Some(why), Kind::Decision) => format!("; since {}", words::quoted(why)),
            (Some(id), _) => format!(" of {}", words::name(id)),
            (None, _) => String::new(),
        };
        lines.push(
            rank,
            &format!(
                "  {} {} {}, {}: {}{about}",
                date(entry.time as f64),
                words::in_json(&entry.kind),
                words::name(&entry.id),
                words::path(entry.run.as_ref()),
                words::quoted(&entry.text)
            ),
        );
    }
    let json =
        json!({ "file": notes.file, "run": notes.run, "entries": entries, "unreadable": notes.unreadable });
    Answer { text: lines.fit(tokens as usize), json }
}
