//! What a name alone says: that something is still being written, and the
//! step it was written at. A name is a hint from a stranger's program; it
//! never says that something is whole.

/// True for names that writers give to what is not finished.
#[must_use]
pub fn is_temporary(name: &str) -> bool {
    let name = name.trim_end_matches('/');
    let name = name.rsplit_once('/').map_or(name, |(_, leaf)| leaf);
    let begins = ["tmp-", "tmp_", ".tmp"].iter().any(|start| name.starts_with(start));
    let ends = [".tmp", ".part", ".partial", ".incomplete", "-unfinished", ".swp", "~"];
    begins
        || ends.iter().any(|end| name.ends_with(end))
        || name.contains(".orbax-checkpoint-tmp")
        || name.contains(".tmp.")
}

/// The step that a checkpoint's name tells, such as `step-000120`,
/// `checkpoint-220`, `epoch=1-step=200.ckpt`, `model-0005.keras` or `120`.
///
/// A number that is labelled as an epoch, counts shards or is part of a word
/// is no step.
#[must_use]
pub fn step_of(name: &str) -> Option<u64> {
    let name = name.trim_end_matches('/');
    let name = name.rsplit_once('/').map_or(name, |(_, leaf)| leaf);
    let lower = name.to_ascii_lowercase();
    for label in ["step", "iteration", "iter", "checkpoint", "ckpt"] {
        if let Some(step) = labelled(&lower, label) {
            return Some(step);
        }
    }
    unlabelled(stem(&lower))
}

/// The number right after the last use of a label.
fn labelled(name: &str, label: &str) -> Option<u64> {
    name.rmatch_indices(label).find_map(|(at, _)| {
        let rest = name[at + label.len()..].trim_start_matches('s');
        whole_number(rest.strip_prefix(['-', '_', '=', ':', '.']).unwrap_or(rest))
    })
}

/// A number at the beginning that ends where the word ends.
fn whole_number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let ends = !rest.starts_with(|c: char| c.is_alphanumeric()) && !is_shard(rest);
    ends.then(|| digits.parse().ok())?
}

/// `-of-00002` counts parts.
fn is_shard(rest: &str) -> bool {
    rest.starts_with("-of-") || rest.starts_with("_of_")
}

/// The name without its extensions, which begin with a letter.
fn stem(name: &str) -> &str {
    let mut stem = name;
    while let Some((front, extension)) = stem.rsplit_once('.') {
        if front.is_empty() || !extension.starts_with(|c: char| c.is_ascii_alphabetic()) {
            break;
        }
        stem = front;
    }
    stem
}

/// A bare number, or one at the end after a separator.
fn unlabelled(stem: &str) -> Option<u64> {
    let front = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &stem[front.len()..];
    if front.is_empty() {
        return digits.parse().ok();
    }
    let word = front.strip_suffix(['-', '_', '=', '.'])?;
    let other = ["epoch", "ep", "e", "of", "rank", "part", "shard", "fold", "seed", "v"];
    let label = word.rsplit(['-', '_', '=', '.']).next()?;
    if other.contains(&label) || label.is_empty() {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_from_the_names_in_use() {
        for (name, step) in [
            ("step-000120", 120),
            ("step_120.npz", 120),
            ("steps_7", 7),
            ("checkpoint-220", 220),
            ("ckpt_100.pt", 100),
            ("ckpt-1000.index", 1000),
            ("epoch=1-step=200.ckpt", 200),
            ("epoch=1-step=200-v1.ckpt", 200),
            ("iter_0000100", 100),
            ("global_step100", 100),
            ("120", 120),
            ("0", 0),
            ("model-0005.keras", 5),
            ("model.0005.weights.h5", 5),
            ("model_state-42.pt", 42),
            ("runs/a/checkpoint-9/", 9),
            ("Step120.pt", 120),
            ("000120.pt", 120),
        ] {
            assert_eq!(step_of(name), Some(step), "{name}");
        }
        for name in [
            "last.ckpt",
            "model.safetensors",
            "resnet50.pt",
            "llama-7b.pt",
            "epoch_3.pt",
            "epoch=3.ckpt",
            "model-00001-of-00002.safetensors",
            "checkpoint-00001-of-00002.pt",
            "step-10k",
            "step-99999999999999999999999",
            "",
            "best",
            "mp_rank_00",
        ] {
            assert_eq!(step_of(name), None, "{name}");
        }
    }

    #[test]
    fn temporary_names() {
        for name in [
            "tmp-checkpoint-3",
            ".tmpAb12",
            "a.tmp",
            "a.part",
            "a.partial",
            "a.incomplete",
            ".incomplete",
            "5.orbax-checkpoint-tmp-17",
            "x-unfinished",
            "dir/.metadata.tmp",
            "a.tmp.npz",
        ] {
            assert!(is_temporary(name), "{name}");
        }
        for name in ["step-1", "template.pt", "a.pt", ".metadata", "party", "atmp"] {
            assert!(!is_temporary(name), "{name}");
        }
    }
}
