//! Accelerate's `save_state`: models and optimizers, perhaps by FSDP or
//! DeepSpeed in directories of their own with a seal inside, then the schedule,
//! and at the end the random state of every rank. No rank waits for another,
//! and how many there are is written nowhere.

use std::collections::BTreeSet;

use super::directory::{Listing, number, unless_missing};
use super::example::{Examples, kinds};
use super::{Completeness, Reason, unknown};

const LAST: &str = "random_states_0.pkl";

/// Whether it is no other framework's: its names say so. The Trainer of Hugging
/// Face saves through Accelerate, too, and puts its own names beside.
pub(super) fn is_own(dir: &Listing) -> bool {
    const NAMES: [&str; 4] = ["optimizer.bin", "scheduler.bin", "sampler.bin", "dl_state_dict.bin"];
    const TRAINERS: [&str; 5] =
        ["trainer_state.json", "training_args.bin", "scheduler.pt", "rng_state.pth", "rng_state_0.pth"];
    if TRAINERS.iter().any(|name| dir.has(name)) {
        return false;
    }
    // A tag of DeepSpeed that is called so, or a second model's.
    let tag = |path: &str| path.starts_with("pytorch_model/") || path.starts_with("pytorch_model_1/");
    dir.names_in("").any(|name| NAMES.contains(&name) || rank(name).is_some())
        || dir.files.iter().any(|file| tag(&file.path))
}

fn rank(name: &str) -> Option<u64> {
    number(name, "random_states_", ".pkl")
}

pub(super) fn judge(dir: &Listing, examples: &Examples) -> Option<Completeness> {
    if !is_own(dir) {
        return None;
    }
    let ranks: BTreeSet<u64> = dir.names_in("").filter_map(rank).collect();
    if ranks.is_empty() {
        // Others call their files so, too: this must not wait for ever.
        return unknown(Reason::may_follow(LAST));
    }
    if let Some((rank, _)) = (0..).zip(&ranks).find(|(expected, rank)| expected != *rank) {
        return unless_missing(Some(format!("`random_states_{rank}.pkl`")), "accelerate");
    }
    let Some(example) = examples.of(dir) else {
        return unknown(Reason::Ranks { ranks: ranks.len() as u64 });
    };
    let here = kinds(dir);
    match example.kinds.iter().find(|kind| !here.contains(*kind)) {
        Some(kind) => unknown(Reason::unlike(&format!("`{kind}`"), &example.name)),
        None => unless_missing(None, "accelerate"),
    }
}
