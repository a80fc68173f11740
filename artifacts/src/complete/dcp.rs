//! PyTorch distributed checkpoints: `.metadata` is renamed into place last.
//! When a save goes into a directory that holds an older one, the old
//! `.metadata` stays until the end; only its age gives that away. It is a
//! pickle and is never read.

use std::collections::BTreeSet;

use super::directory::{Listing, number, unless_missing};
use super::{Completeness, Reason, incomplete};
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
    let here = dir.files.iter().filter(|member| parent(&member.path) == place);
    for data in here.filter(|member| member.path.ends_with(".distcp")) {
        // Without collectives each rank commits its own.
        let own = rank(leaf(&data.path)).map(|rank| at(&format!("__{rank}.metadata")));
        let whole = dir.get(&at(".metadata"));
        let seal = whole.or_else(|| dir.get(own.as_deref()?));
        let Some(seal) = seal else {
            let whole = at(".metadata");
            let what = own.map_or(format!("`{whole}`"), |own| format!("`{whole}` or `{own}`"));
            return unless_missing(Some(what), "dcp");
        };
        if data.changed > seal.changed {
            return incomplete(Reason::overwritten(&data.path, &seal.path));
        }
    }
    unless_missing(None, "dcp")
}

/// The rank in `__3_0.distcp`.
fn rank(name: &str) -> Option<u64> {
    let (rank, _) = name.strip_prefix("__")?.split_once('_')?;
    number(rank, "", "")
}
