//! PyTorch distributed checkpoints: `.metadata` is renamed into place last.
//! When a save goes into a directory that holds an older one, the old
//! `.metadata` stays until the end; only its age gives that away. It is a
//! pickle and is never loaded; the names of the shards stand in it as text.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;

use super::directory::{Listing, number, unless_missing};
use super::{Completeness, Reason, incomplete};
use crate::path::{leaf, parent};

/// More of a `.metadata` is not searched.
const MOST: u64 = 64 << 20;

pub(super) fn judge(dir: &Listing) -> Option<Completeness> {
    let data = dir.files.iter().filter(|member| member.path.ends_with(".distcp"));
    let places: BTreeSet<&str> = data.map(|member| parent(&member.path)).collect();
    let mut verdict = None;
    for place in places {
        match judge_one(dir, place) {
            no @ Some(Completeness::Incomplete { .. }) => return no,
            // A seal further down tells of what lies there, not of all.
            other if place.is_empty() => verdict = other,
            _ => {}
        }
    }
    verdict
}

fn judge_one(dir: &Listing, place: &str) -> Option<Completeness> {
    let at = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}/{name}") };
    let here = dir.files.iter().filter(|member| parent(&member.path) == place);
    let mut seals = BTreeSet::new();
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
        seals.insert(seal.path.as_str());
    }
    for seal in seals {
        if let Some(shard) = named(dir, seal).into_iter().map(|name| at(&name)).find(|name| !dir.has(name)) {
            return incomplete(Reason::waits_for(&format!("`{shard}`, which `{seal}` names")));
        }
    }
    unless_missing(None, "dcp")
}

/// The files that a seal names: their names stand in it as they are. It is a
/// pickle, and only ever looked at as bytes.
fn named(dir: &Listing, seal: &str) -> BTreeSet<String> {
    const ENDING: &[u8] = b".distcp";
    const LONGEST: usize = 64;
    let small = dir.get(seal).is_some_and(|member| member.size <= MOST);
    let file = small.then(|| File::open(dir.path.join(seal)).ok()).flatten();
    let mut bytes = Vec::new();
    // One that cannot be read names nothing; the reading of all files meets it.
    let read = file.map(|file| file.take(MOST).read_to_end(&mut bytes));
    if !matches!(read, Some(Ok(_))) {
        return BTreeSet::new();
    }
    let mut names = BTreeSet::new();
    let mut from = 0;
    while let Some(dot) = bytes[from..].iter().position(|byte| *byte == b'.').map(|at| from + at) {
        from = dot + 1;
        if !bytes[dot..].starts_with(ENDING) {
            continue;
        }
        let before = &bytes[dot.saturating_sub(LONGEST)..dot];
        let digits = |bytes: &[u8]| bytes.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let part = digits(before);
        let Some(rest) = before[..before.len() - part].strip_suffix(b"_").filter(|_| part > 0) else {
            continue;
        };
        let of = digits(rest);
        if of > 0 && rest[..rest.len() - of].ends_with(b"__") {
            let name = &before[before.len() - part - 1 - of - 2..];
            names.insert(format!("{}.distcp", String::from_utf8_lossy(name)));
        }
    }
    names
}

/// The rank in `__3_0.distcp`.
fn rank(name: &str) -> Option<u64> {
    let (rank, _) = name.strip_prefix("__")?.split_once('_')?;
    number(rank, "", "")
}
