//! What lies beside checkpoints and is none itself: the small files that say
//! which one is the newest. One that seals a checkpoint goes with it, or whoever
//! restores it could not load it; one that names another stays.

use std::ffi::OsString;
use std::path::Path;

use super::local;
use crate::os;

const LATEST: &str = "latest";
const TRACKER: &str = "latest_checkpointed_iteration.txt";
/// Such a file holds a name.
const LONGEST: usize = 4 << 10;

/// Whether a file describes checkpoints and is none.
pub(super) fn is_none_itself(path: &Path) -> bool {
    let name = local::name_of(path);
    let small = || os::read_bounded(path, LONGEST).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match name {
        TRACKER | "latest_universal" | "zero_to_fp32.py" | "config.json" | "metrics.json" => true,
        // A program may call what it saves so: then it is no name of a neighbour.
        LATEST => small().is_some_and(|text| {
            let named = text.trim();
            !named.is_empty() && !named.contains('/') && path.with_file_name(named).is_dir()
        }),
        "checkpoint" => small().is_some_and(|text| text.starts_with("model_checkpoint_path:")),
        _ => false,
    }
}

/// A description and the weights that it describes, as Hugging Face's
/// `save_pretrained` writes them into one directory.
pub(super) fn parts_of_one(names: &[OsString]) -> Option<(String, String)> {
    const DESCRIPTIONS: [&str; 3] = ["config.json", "adapter_config.json", "trainer_state.json"];
    const WEIGHTS: [&str; 6] = [
        "model.safetensors",
        "pytorch_model.bin",
        "adapter_model.safetensors",
        "adapter_model.bin",
        "model.safetensors.index.json",
        "pytorch_model.bin.index.json",
    ];
    let first = |wanted: &[&str]| {
        let found = wanted.iter().find(|wanted| names.iter().any(|name| name == *wanted))?;
        Some((*found).to_owned())
    };
    Some((first(&DESCRIPTIONS)?, first(&WEIGHTS)?))
}

/// The file beside a checkpoint that seals it, by name.
pub(super) fn seal_of(path: &Path) -> Option<&'static str> {
    let name = local::name_of(path);
    let says = |file: &str| {
        let text = os::read_bounded(&path.with_file_name(file), LONGEST).ok()?;
        Some(String::from_utf8(text).ok()?.trim().to_owned())
    };
    if !path.is_dir() {
        return None;
    }
    if says(LATEST).is_some_and(|tag| tag == name) {
        return Some(LATEST);
    }
    let iteration = name.strip_prefix("iter_").and_then(|digits| digits.parse::<u64>().ok());
    let names_it = says(TRACKER).is_some_and(|text| match iteration {
        Some(iteration) => text.parse() == Ok(iteration),
        None => name == "release" && text == name,
    });
    names_it.then_some(TRACKER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_no_checkpoint_and_goes_with_what_it_seals() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        put("global_step10/mp_rank_00_model_states.pt", "x");
        put("global_step20/mp_rank_00_model_states.pt", "x");
        put("iter_0000010/common.pt", "x");
        let latest = put("latest", "weights of somebody\n");
        assert!(!is_none_itself(&latest), "a file of one's own");
        put("latest", "global_step20\n");
        let tracker = put(TRACKER, "10");
        assert!(is_none_itself(&latest) && is_none_itself(&tracker));
        assert!(is_none_itself(&put("checkpoint", "model_checkpoint_path: \"ckpt-5\"\n")));
        assert!(!is_none_itself(&put("checkpoint", "state")));
        assert!(!is_none_itself(&put("state.json", "{}")));
        let seal = |name: &str| seal_of(&dir.path().join(name));
        assert_eq!((seal("global_step20"), seal("global_step10")), (Some("latest"), None));
        assert_eq!(seal("iter_0000010"), Some(TRACKER));
        put(TRACKER, "20");
        assert_eq!(seal("iter_0000010"), None);
    }
}
