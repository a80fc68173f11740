//! Orbax renames the finished directory to its number and, where a rename is
//! not atomic, puts `commit_success.txt` into it. Its metadata tell when it was
//! begun and, written again at the end, when it was committed.
//!
//! Old steps are deleted file by file and under their name (`max_to_keep`).
//! What is left then, or after a program that died at it, tells nothing by
//! itself: a later step beside it tells what it has lost. The last one is never
//! measured by another: it may be the first that was saved with other settings.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::directory::{Listing, number, unless_missing};
use super::{Completeness, Reason, incomplete};
use crate::path::parent;

pub(super) const FORMAT: &str = "orbax";
const METADATA: &str = "_CHECKPOINT_METADATA";
const COMMITTED: &str = "commit_success.txt";
/// What one release writes into each step, or into each item of one.
const MARKS: [&str; 4] = [METADATA, COMMITTED, "_METADATA", "manifest.ocdbt"];
/// Where an item, or a process for it, writes its data.
const DATA: &str = "d";
/// Entries looked at beside a step, and the newest steps of these.
const BESIDE: usize = 10_000;
const NEWEST: usize = 4;

#[derive(Deserialize)]
struct Times {
    init_timestamp_nsecs: Option<u64>,
    commit_timestamp_nsecs: Option<u64>,
    /// By the names of the items; of older releases it is a text or not there.
    #[serde(default)]
    item_handlers: serde_json::Value,
}

pub(super) fn judge(dir: &Listing) -> Option<Completeness> {
    if let Some(lost) = lost(dir) {
        return incomplete(Reason::waits_for(&lost));
    }
    if dir.has(COMMITTED) {
        return unless_missing(None, FORMAT);
    }
    if !dir.has(METADATA) {
        return None;
    }
    // Earlier releases tell no times: there, the name without its temporary
    // ending came by rename.
    match times(dir) {
        Some(Times { init_timestamp_nsecs: Some(_), commit_timestamp_nsecs: None, .. }) => {
            incomplete(Reason::Uncommitted { file: METADATA.into() })
        }
        _ => unless_missing(None, FORMAT),
    }
}

fn times(dir: &Listing) -> Option<Times> {
    serde_json::from_str(&dir.text(METADATA)?).ok()
}

/// What is not there and what the step beside it has in the same place: a mark,
/// all data of an item, or all of an item that it says to have.
fn lost(dir: &Listing) -> Option<String> {
    let beside = beside(dir)?;
    let mut places = BTreeSet::from([""]);
    for member in &dir.files {
        let mut place = parent(&member.path);
        while places.insert(place) {
            place = parent(place);
        }
    }
    let items = times(dir).map(|times| times.item_handlers).unwrap_or_default();
    let items = items.as_object().into_iter().flat_map(|items| items.keys());
    let items = items.filter(|item| !matches!(item.as_str(), "" | "." | "..") && !item.contains('/'));
    // Both lie in the step, in an item, or in what one process wrote of it.
    let above = |place: &&&str| place.matches('/').count() < 2;
    let data = places.iter().filter(above).map(|place| within(place, DATA));
    let mut gone = items.cloned().chain(data).filter(|place| !places.contains(place.as_str()));
    let gone = gone.find(|place| fs::read_dir(beside.join(place)).is_ok_and(|mut any| any.next().is_some()));
    let marks = places.iter().filter(above).flat_map(|place| MARKS.map(|mark| within(place, mark)));
    let mut marks = marks.filter(|path| !dir.has(path) && beside.join(path).is_file());
    let name = beside.file_name().unwrap_or_default().to_string_lossy();
    gone.or_else(|| marks.next()).map(|path| format!("`{path}`, which `{name}` beside it has"))
}

/// The newest later step that Orbax saved in the same place under such a name.
fn beside(dir: &Listing) -> Option<PathBuf> {
    let label = dir.name.trim_end_matches(|c: char| c.is_ascii_digit());
    if label == dir.name {
        return None;
    }
    let own = number(&dir.name, label, "")?;
    let above = dir.path.parent().filter(|above| *above != Path::new(""))?;
    let entries = fs::read_dir(above).ok()?.take(BESIDE).flatten();
    let mut steps: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((number(&name, label, "")?, entry.path()))
        })
        .filter(|(step, _)| *step > own)
        .collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    steps.into_iter().take(NEWEST).map(|(_, path)| path).find(|path| path.join(METADATA).is_file())
}

fn within(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}/{name}") }
}
