//! Hugging Face `checkpoint-N`: rank 0 writes `trainer_state.json` last, but
//! without waiting for the other ranks' random states.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;

use serde::Deserialize;

use super::directory::{Listing, number, unless_missing};
use super::{Completeness, incomplete, json};

#[derive(Deserialize)]
struct TrainerState {
    global_step: u64,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    metadata: Metadata,
    weight_map: HashMap<String, String>,
}

#[derive(Deserialize, Default)]
struct Metadata {
    total_size: Option<f64>,
}

pub(super) fn judge(dir: &Listing) -> Option<Completeness> {
    let step = number(&dir.name, "checkpoint-", "");
    let trainer = "trainer_state.json";
    if !dir.has(trainer) {
        // Others use this name too; what the Trainer writes first gives it away.
        let trainers = step.is_some() && (dir.has("training_args.bin") || dir.has("config.json"));
        return trainers.then(|| unless_missing(Some(format!("`{trainer}`")), "huggingface"))?;
    }
    let state: TrainerState = match read(dir, trainer) {
        Ok(state) => state,
        Err(why) => return incomplete(why),
    };
    if step.is_some_and(|step| step != state.global_step) {
        return incomplete(format!("`{trainer}` is of step {}", state.global_step));
    }
    for name in dir.names_in("").filter(|name| name.ends_with(".index.json")) {
        if let Some(why) = missing_weights(dir, name) {
            return incomplete(why);
        }
    }
    let adapter = ["adapter_model.safetensors", "adapter_model.bin"].iter().any(|name| dir.has(name));
    if adapter && !dir.has("adapter_config.json") {
        return unless_missing(Some("`adapter_config.json`".into()), "huggingface");
    }
    random_states(dir)
}

/// With several ranks, how many there are is not written anywhere: without a
/// gap it is still only a guess, which a quiet period confirms.
fn random_states(dir: &Listing) -> Option<Completeness> {
    if dir.has("rng_state.pth") {
        return unless_missing(None, "huggingface");
    }
    let ranks = dir.names_in("").filter_map(|name| number(name, "rng_state_", ".pth"));
    let ranks: BTreeSet<u64> = ranks.collect();
    let gap = (0..).zip(&ranks).find(|(expected, rank)| expected != *rank);
    match gap {
        Some((rank, _)) => unless_missing(Some(format!("`rng_state_{rank}.pth`")), "huggingface"),
        None => Some(Completeness::Unknown),
    }
}

fn missing_weights(dir: &Listing, name: &str) -> Option<String> {
    let index: Index = match read(dir, name) {
        Ok(index) => index,
        Err(why) => return Some(why),
    };
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    let mut sum = 0;
    for shard in shards {
        match dir.get(shard) {
            Some(member) => sum += member.size,
            None => return Some(format!("`{shard}`, which `{name}` names, is missing")),
        }
    }
    let total = index.metadata.total_size.unwrap_or_default();
    ((sum as f64) < total).then(|| format!("the weights of `{name}` have {sum} of {total} bytes"))
}

fn read<T: serde::de::DeserializeOwned>(dir: &Listing, name: &str) -> Result<T, String> {
    let path = dir.path.join(name);
    let read = File::open(path).and_then(|file| json::read(&file, file.metadata()?.len()));
    read.map_err(|error| error.to_string()).flatten().map_err(|why| format!("`{name}`: {why}"))
}
