//! Hugging Face `checkpoint-N`: rank 0 writes `trainer_state.json` last, but
//! without waiting for the other ranks' random states. How many ranks there
//! are is written nowhere, so the checkpoint before tells: the one that was
//! complete last, or the newest that lies beside this one.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;

use serde::Deserialize;

use super::directory::{Listing, number, unless_missing};
use super::example::Examples;
use super::{Completeness, Reason, incomplete, json, reason, unknown};

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

const TRAINER: &str = "trainer_state.json";
/// Names beside this one that are looked at.
const BESIDE: usize = 10_000;

pub(super) fn judge(dir: &Listing, examples: &Examples) -> Option<Completeness> {
    let step = number(&dir.name, "checkpoint-", "");
    if !dir.has(TRAINER) {
        // Others use this name too; what the Trainer writes first gives it away.
        let trainers = step.is_some() && (dir.has("training_args.bin") || dir.has("config.json"));
        return trainers.then(|| unless_missing(Some(format!("`{TRAINER}`")), "huggingface"))?;
    }
    let state: TrainerState = match read(dir, TRAINER) {
        Ok(state) => state,
        Err(why) => return incomplete(Reason::torn(TRAINER, &why)),
    };
    if step.is_some_and(|step| step != state.global_step) {
        return incomplete(Reason::OtherStep { file: TRAINER.into(), step: state.global_step });
    }
    for name in dir.names_in("").filter(|name| name.ends_with(".index.json")) {
        if let Err(why) = weights(dir, name) {
            return incomplete(why);
        }
    }
    let adapter = ["adapter_model.safetensors", "adapter_model.bin"].iter().any(|name| dir.has(name));
    if adapter && !dir.has("adapter_config.json") {
        return unless_missing(Some("`adapter_config.json`".into()), "huggingface");
    }
    let ranks: BTreeSet<u64> =
        dir.names_in("").filter_map(|name| number(name, "rng_state_", ".pth")).collect();
    if let Some((rank, _)) = (0..).zip(&ranks).find(|(expected, rank)| expected != *rank) {
        return unless_missing(Some(format!("`rng_state_{rank}.pth`")), "huggingface");
    }
    as_before(dir, step, examples, ranks.len() as u64)
}

/// The files that the Trainer saves beside the weights. Which ones depends on
/// the program and does not change from save to save.
pub(super) fn kinds(dir: &Listing) -> BTreeSet<String> {
    if !dir.has(TRAINER) {
        return BTreeSet::new();
    }
    dir.names_in("").filter(|name| is_kind(name)).map(str::to_owned).collect()
}

fn is_kind(name: &str) -> bool {
    const BEGIN: [&str; 5] = ["optimizer.", "scheduler.", "scaler.", "rng_state", "training_args."];
    BEGIN.iter().any(|begin| name.starts_with(begin))
}

fn as_before(dir: &Listing, step: Option<u64>, examples: &Examples, ranks: u64) -> Option<Completeness> {
    let parent = dir.path.parent()?;
    let known = examples.of(parent, "huggingface");
    let example = match known.filter(|example| example.name != dir.name) {
        Some(example) => Some((example.name.clone(), example.kinds.clone())),
        None => step.and_then(|step| beside(parent, step)),
    };
    let Some((like, before)) = example else {
        // The first one of a run: its ranks are all, if they rest.
        return if ranks == 0 {
            unless_missing(None, "huggingface")
        } else {
            unknown(Reason::Ranks { ranks })
        };
    };
    let here = kinds(dir);
    match before.iter().find(|kind| !here.contains(*kind)) {
        Some(kind) => unknown(Reason::unlike(&format!("`{kind}`"), &like)),
        None => unless_missing(None, "huggingface"),
    }
}

/// The newest older checkpoint that lies in the same directory.
fn beside(parent: &Path, step: u64) -> Option<(String, BTreeSet<String>)> {
    let names = std::fs::read_dir(parent).ok()?.flatten().take(BESIDE);
    let steps = names.filter_map(|entry| number(entry.file_name().to_str()?, "checkpoint-", ""));
    let mut older: Vec<u64> = steps.filter(|other| *other < step).collect();
    older.sort_unstable();
    older.into_iter().rev().map(|step| format!("checkpoint-{step}")).find_map(|name| {
        let entries = std::fs::read_dir(parent.join(&name)).ok()?.flatten().take(BESIDE);
        let files: BTreeSet<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        // One that was never finished teaches nothing.
        files.contains(TRAINER).then(|| (name, files.into_iter().filter(|file| is_kind(file)).collect()))
    })
}

/// Whether all that an index of weights names is there.
fn weights(dir: &Listing, name: &str) -> Result<(), Reason> {
    let index: Index = read(dir, name).map_err(|why| Reason::torn(name, &why))?;
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    let mut sum = 0;
    for shard in shards {
        let member = dir.get(shard);
        sum += member.ok_or_else(|| Reason::waits_for(&format!("`{shard}`, which `{name}` names")))?.size;
    }
    let total = index.metadata.total_size.unwrap_or_default();
    if (sum as f64) < total {
        let what = format!("the weights that it names have {sum} of {total} bytes");
        return Err(Reason::Torn { file: reason::cut(name), what });
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(dir: &Listing, name: &str) -> Result<T, String> {
    let path = dir.path.join(name);
    let read = File::open(path).and_then(|file| json::read(&file, file.metadata()?.len()));
    read.map_err(|error| error.to_string()).flatten()
}
