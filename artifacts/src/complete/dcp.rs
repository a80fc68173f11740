//! PyTorch distributed checkpoints: `.metadata` is renamed into place last.
//! When a save goes into a directory that holds an older one, the old
//! `.metadata` stays until the end; only its age gives that away. It is a
//! pickle and is never read.

use std::collections::BTreeSet;

use super::directory::{Listing, number, unless_missing};
use super::{Completeness, incomplete};
use crate::path::{leaf, parent};

pub(super) fn judge(dir: &Listing) -> Option<Completeness> {
    let data = dir.files.iter().filter(|member| member.path.ends_with(".distcp"));
    let places: BTreeSet<&str> = data.map(|member| parent(&member.path)).collect();
    let mut verdict = None;
    for place in places {
        match judge_one(dir, place) {
            no @ Some(Completeness::Incomplete { .. }) => return no,
            other => verdict = other,
        }
    }
    verdict
}

fn judge_one(dir: &Listing, place: &str) -> Option<Completeness> {
    let at = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}/{name}") };
    let here = || dir.files.iter().filter(|member| parent(&member.path) == place);
    let data = || here().filter(|member| member.path.ends_with(".distcp"));
    let mut written = Vec::new();
    if let Some(whole) = dir.get(&at(".metadata")) {
        written.push(whole);
    } else {
        // Without collectives each rank commits its own.
        let ranks = data().filter_map(|member| rank(leaf(&member.path)));
        for rank in ranks.collect::<BTreeSet<_>>() {
            let name = at(&format!("__{rank}.metadata"));
            match dir.get(&name) {
                Some(part) => written.push(part),
                None => return unless_missing(Some(format!("`{}` or `{name}`", at(".metadata"))), "dcp"),
            }
        }
    }
    let Some(committed) = written.iter().map(|member| member.changed).max() else {
        return unless_missing(Some(format!("`{}`", at(".metadata"))), "dcp");
    };
    if let Some(newer) = data().find(|member| member.changed > committed) {
        return incomplete(format!("`{}` is newer than the metadata: it is being overwritten", newer.path));
    }
    unless_missing(None, "dcp")
}

/// The rank in `__3_0.distcp`.
fn rank(name: &str) -> Option<u64> {
    let (rank, _) = name.strip_prefix("__")?.split_once('_')?;
    number(rank, "", "")
}
