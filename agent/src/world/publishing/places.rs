//! Directories that hold checkpoints and are none: the output directory of a
//! Trainer, `lightning_logs/version_0/checkpoints`, one directory per run. What
//! is in them is told apart from the parts of a checkpoint by its names alone,
//! so the rule is narrow: in doubt a directory is one checkpoint.

use std::path::Path;

use artifacts::complete::{is_temporary, step_of};

use super::local;
use super::look::Spot;

/// Directories within directories.
const DEEPEST: usize = 4;
/// Names of one directory that are looked at.
const NAMES: usize = 1_000;
/// Words before a number that make a checkpoint of it, and no part of one.
const LABELS: [&str; 5] = ["step", "iter", "checkpoint", "ckpt", "epoch="];
/// Files that are whole checkpoints by themselves.
const WHOLE: [&str; 12] =
    ["ckpt", "pt", "pth", "keras", "npz", "npy", "safetensors", "h5", "hdf5", "pkl", "pickle", "joblib"];

/// Parts of a checkpoint: what holds one of them is no place, though it may
/// hold a tag of DeepSpeed.
const PARTS: [&str; 8] = [
    ".metadata",
    "meta.pt",
    "optimizer.pt",
    "scheduler.pt",
    "scheduler.bin",
    "rng_state.pth",
    "rng_state_0.pth",
    "random_states_0.pkl",
];

/// The checkpoints in a directory that is none, or else the spot itself.
pub(super) fn within(spot: Spot) -> Vec<Spot> {
    let mut found = Vec::new();
    if is_place(&spot.path, 1) {
        collect(&spot, 1, &mut found);
    }
    if found.is_empty() { vec![spot] } else { found }
}

fn collect(place: &Spot, depth: usize, found: &mut Vec<Spot>) {
    for name in names(&place.path) {
        let path = place.path.join(&name);
        let spot = Spot { relative: format!("{}/{name}", place.relative), path };
        if is_one(&spot.path) || is_last(&spot.path) {
            found.push(spot);
        } else if is_place(&spot.path, depth + 1) {
            collect(&spot, depth + 1, found);
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let names = entries.take(NAMES).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| !is_temporary(name)).collect()
}

fn is_labelled(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    step_of(&name).is_some() && LABELS.iter().any(|label| name.contains(label))
}

/// Whether it holds checkpoints and is none: it is called like none, and so is
/// nothing in it a part of one.
fn is_place(dir: &Path, depth: usize) -> bool {
    let name = local::name_of(dir);
    let is_called_one = is_labelled(name) || name.bytes().all(|byte| byte.is_ascii_digit());
    let is_dir = dir.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    if depth > DEEPEST || !is_dir || is_called_one {
        return false;
    }
    let inside = names(dir);
    if inside.iter().any(|name| PARTS.contains(&name.as_str())) {
        return false;
    }
    inside.iter().any(|name| is_one(&dir.join(name)))
        || inside.iter().any(|name| is_place(&dir.join(name), depth + 1))
}

/// Whether it is one checkpoint among others, by its name.
fn is_one(path: &Path) -> bool {
    let name = local::name_of(path);
    let Ok(meta) = path.symlink_metadata() else { return false };
    if meta.is_dir() {
        let is_orbax = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_digit())
            && ["_CHECKPOINT_METADATA", "commit_success.txt"].iter().any(|file| path.join(file).exists());
        return is_orbax || is_labelled(name);
    }
    meta.is_file() && is_labelled(name) && extension(name).is_some_and(|of| WHOLE.contains(&of))
}

/// `last.ckpt` beside others.
fn is_last(path: &Path) -> bool {
    let name = local::name_of(path);
    let stem = name.split('.').next().unwrap_or_default();
    let is_file = || path.symlink_metadata().is_ok_and(|meta| meta.is_file());
    matches!(stem, "last" | "best" | "latest")
        && extension(name).is_some_and(|of| WHOLE.contains(&of))
        && is_file()
}

fn extension(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(_, extension)| extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(paths: &[&str], top: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let spots = within(Spot { path: dir.path().join(top), relative: format!("@/{top}") });
        let mut found: Vec<String> = spots.into_iter().map(|spot| spot.relative).collect();
        found.sort();
        found
    }

    #[test]
    fn checkpoints_in_places_that_are_none() {
        let trainer = ["out/checkpoint-10/a", "out/checkpoint-20/a", "out/config.json", "out/runs/x/events"];
        assert_eq!(found(&trainer, "out"), ["@/out/checkpoint-10", "@/out/checkpoint-20"]);
        let place = "lightning_logs/version_0/checkpoints";
        let files = [format!("{place}/epoch=1-step=20.ckpt"), format!("{place}/last.ckpt")];
        let mut paths: Vec<&str> = files.iter().map(String::as_str).collect();
        paths.push("lightning_logs/version_0/hparams.yaml");
        assert_eq!(found(&paths, "lightning_logs"), files.clone().map(|file| format!("@/{file}")));
        assert_eq!(found(&["run1/7/_CHECKPOINT_METADATA", "run1/7/default/d"], "run1"), ["@/run1/7"]);
        assert_eq!(found(&["ds/global_step5/a_states.pt", "ds/latest"], "ds"), ["@/ds/global_step5"]);
    }

    #[test]
    fn a_checkpoint_is_not_taken_apart() {
        for (paths, top) in [
            (&["checkpoint-10/global_step10/a", "checkpoint-10/latest"][..], "checkpoint-10"),
            (&["last/layer_00.bin", "last/layer_01.bin"], "last"),
            (&["model/model-00001-of-00002.safetensors"], "model"),
            (&["7/default/checkpoint_1/a"], "7"),
            (&["tf/ckpt-5.index", "tf/ckpt-5.data-00000-of-00001", "tf/checkpoint"], "tf"),
            (&["final/global_step9/a_states.pt", "final/latest", "final/scheduler.pt"], "final"),
            (&["a/b/c/d/e/checkpoint-1/x"], "a"),
            (&["plain.pt"], "plain.pt"),
        ] {
            assert_eq!(found(paths, top), [format!("@/{top}")]);
        }
    }
}
