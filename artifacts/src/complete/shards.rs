//! Weights in parts: `model-00001-of-00002.safetensors` says how many there
//! are, so that fewer are never all, however long they rest. What names the
//! parts (`*.index.json`) is written last and must find them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::directory::{Listing, number};
use super::{Completeness, Reason, huggingface, incomplete, reason};
use crate::path::{leaf, parent};

/// What weights are stored in; data in parts may well be elsewhere.
const ENDINGS: [&str; 7] = ["safetensors", "bin", "pt", "pth", "msgpack", "h5", "gguf"];
/// Digits of a part's number. Ranks that each save on a disk of their own count
/// otherwise.
const DIGITS: usize = 5;
/// More parts are not looked for.
const MOST: u64 = 10_000;

/// A part: what is the same in all, its number, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Part<'a> {
    begin: &'a str,
    at: u64,
    of: u64,
    ending: &'a str,
}

impl Part<'_> {
    fn name(&self, at: u64) -> String {
        let Self { begin, of, ending, .. } = self;
        format!("{begin}-{at:0DIGITS$}-of-{of:0DIGITS$}.{ending}")
    }
}

fn part(name: &str) -> Option<Part<'_>> {
    let (stem, ending) = name.rsplit_once('.')?;
    let (front, of) = stem.rsplit_once("-of-")?;
    let (begin, at) = front.rsplit_once('-')?;
    let is_number = |digits: &str| digits.len() == DIGITS;
    if !ENDINGS.contains(&ending) || !is_number(at) || !is_number(of) {
        return None;
    }
    let (at, of) = (number(at, "", "")?, number(of, "", "")?);
    (at <= of && (1..=MOST).contains(&of)).then_some(Part { begin, at, of, ending })
}

/// The first part that is not among `numbers`, which begin at 0 or at 1.
fn missing(like: Part<'_>, numbers: &BTreeSet<u64>) -> Option<String> {
    let first = u64::from(!numbers.contains(&0));
    let lacking = (first..first + like.of).find(|at| !numbers.contains(at))?;
    Some(like.name(lacking))
}

/// Whether a set of parts in a directory is short of one.
pub(super) fn judge(dir: &Listing) -> Option<Completeness> {
    let mut sets: BTreeMap<(&str, Part<'_>), BTreeSet<u64>> = BTreeMap::new();
    for member in &dir.files {
        let Some(part) = part(leaf(&member.path)) else { continue };
        let set = (parent(&member.path), Part { at: 0, ..part });
        sets.entry(set).or_default().insert(part.at);
    }
    let names_parts = !sets.is_empty();
    for ((place, like), numbers) in sets {
        if let Some(name) = missing(like, &numbers) {
            let path = if place.is_empty() { name } else { format!("{place}/{name}") };
            return incomplete(Reason::waits_for(&format!("`{path}`")));
        }
    }
    let indexes = dir.names_in("").filter(|name| names_parts && name.ends_with(".index.json"));
    // Another program's index is none of this.
    let lacking = indexes.filter_map(|name| huggingface::weights(dir, name).err());
    lacking.filter(|why| matches!(why, Reason::WaitsFor { .. })).find_map(incomplete)
}

/// The part that is missing beside one that lies by itself.
pub(super) fn beside(path: &Path, name: &str) -> Option<Reason> {
    let like = part(name)?;
    let there = |at: &u64| path.with_file_name(like.name(*at)).symlink_metadata().is_ok();
    let numbers = (0..=like.of).filter(there).collect();
    let lacking = missing(like, &numbers)?;
    Some(Reason::waits_for(&format!("`{}`: it is one part of {}", reason::cut(&lacking), like.of)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_their_names() {
        for (name, at, of) in [
            ("model-00001-of-00002.safetensors", 1, 2),
            ("diffusion_pytorch_model-00003-of-00003.bin", 3, 3),
            ("a-b-00000-of-00001.msgpack", 0, 1),
        ] {
            assert_eq!(part(name).map(|part| (part.at, part.of)), Some((at, of)), "{name}");
            assert_eq!(part(name).unwrap().name(at), name);
        }
        for name in [
            "model.safetensors",
            "model-00003-of-00002.bin",
            "rank-0-of-8.pt",
            "train-00001-of-00002.parquet",
            "model-00001-of-00000.bin",
            "model-+0001-of-00002.bin",
            "ckpt-5.data-00000-of-00002",
            "",
        ] {
            assert_eq!(part(name), None, "{name}");
        }
    }
}
