//! Hugging Face `checkpoint-N`: rank 0 writes `trainer_state.json` last, but
//! without waiting for the other ranks' random states. How many ranks there
//! are is written nowhere, so the checkpoint before tells: the one that was
//! complete last, or the newest that lies beside this one.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;

use serde::Deserialize;

use super::directory::{Listing, number, unless_missing};
use super::example::{Examples, kind, kinds};
use super::{Completeness, Reason, accelerate, incomplete, json, reason, unknown};

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

/// A longer index is not followed.
const INDEX: u64 = 16 << 20;
const TRAINER: &str = "trainer_state.json";
/// Names beside this one that are looked at.
const BESIDE: usize = 10_000;

pub(super) fn judge(dir: &Listing, examples: &Examples) -> Option<Completeness> {
    let step = number(&dir.name, "checkpoint-", "");
    if !dir.has(TRAINER) {
        return step.and_then(|_| without_state(dir));
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
    if let Some(newer) = newer_than_state(dir) {
        return unknown(Reason::overwritten(newer, TRAINER));
    }
    as_before(dir, step, examples, ranks.len() as u64)
}

/// A name of the Trainer and no state: it comes last, if it is the Trainer
/// that saves. Accelerate's own saves bear such names too and never have one.
fn without_state(dir: &Listing) -> Option<Completeness> {
    if accelerate::is_own(dir) {
        return None;
    }
    let trainers = ["training_args.bin", "config.json", "scheduler.pt", "optimizer.pt", "rng_state.pth"];
    if trainers.iter().any(|name| dir.has(name)) || dir.has("rng_state_0.pth") {
        return unless_missing(Some(format!("`{TRAINER}`")), "huggingface");
    }
    let sharded = ["pytorch_model_fsdp_", "global_step"];
    let is_sharded = dir.files.iter().any(|file| sharded.iter().any(|begin| file.path.starts_with(begin)));
    is_sharded.then(|| unknown(Reason::may_follow(TRAINER)))?
}

/// A file that is saved before the Trainer's state and is newer than it: it is
/// of a save into the same directory that has not come to its end.
fn newer_than_state(dir: &Listing) -> Option<&str> {
    const BEFORE: [&str; 7] =
        ["model", "adapter_model", "pytorch_model", "optimizer", "scheduler", "scaler", "global_step"];
    let state = dir.get(TRAINER)?;
    let sealed = dir.files.iter().filter(|file| BEFORE.iter().any(|begin| file.path.starts_with(begin)));
    sealed.filter(|file| file.changed > state.changed).map(|file| file.path.as_str()).next()
}

/// Which of these files the Trainer saves depends on the program and does not
/// change from save to save.
fn is_kind(kind: &str) -> bool {
    const BEGIN: [&str; 7] = [
        "optimizer",
        "scheduler.",
        "scaler.",
        "rng_state",
        "training_args.",
        "pytorch_model_fsdp_",
        "global_step",
    ];
    BEGIN.iter().any(|begin| kind.starts_with(begin))
}

fn as_before(dir: &Listing, step: Option<u64>, examples: &Examples, ranks: u64) -> Option<Completeness> {
    let example = match examples.of(dir) {
        Some(example) => Some((example.name.clone(), example.kinds.clone())),
        None => step.and_then(|step| beside(dir.path.parent()?, step)),
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
    match before.iter().find(|kind| is_kind(kind) && !here.contains(*kind)) {
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
    older.into_iter().rev().find_map(|step| {
        let name = format!("checkpoint-{step}");
        let entries = std::fs::read_dir(parent.join(&name)).ok()?.flatten().take(BESIDE);
        let files: BTreeSet<String> = entries
            .filter_map(|entry| {
                let slash = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
                Some(kind(&format!("{}{slash}", entry.file_name().to_str()?), Some(step)))
            })
            .collect();
        // One that was never finished teaches nothing.
        files.contains(TRAINER).then_some((name, files))
    })
}

/// Whether all that an index of weights names is there.
pub(super) fn weights(dir: &Listing, name: &str) -> Result<(), Reason> {
    if dir.get(name).is_some_and(|member| member.size > INDEX) {
        return Ok(());
    }
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
