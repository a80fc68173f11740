//! DeepSpeed: a directory per tag, and a text file `latest` that rank 0 writes
//! at the end. Until then `latest` names the checkpoint before.

use std::collections::BTreeSet;
use std::path::Path;

use super::directory::{Listing, number, text, unless_missing};
use super::example::Examples;
use super::{Completeness, Reason, incomplete, unknown};
use crate::path::{check_path, leaf, parent};

/// Names beside a tag that are looked at.
const BESIDE: usize = 10_000;

pub(super) fn judge(dir: &Listing, examples: &Examples) -> Option<Completeness> {
    if let Some(step) = number(&dir.name, "global_step", "") {
        return judge_tag(dir, step, examples);
    }
    let nested = dir.files.iter().any(|member| is_state(&member.path) && !parent(&member.path).is_empty());
    if !nested {
        return None;
    }
    let Some(tag) = dir.text("latest").filter(|tag| !tag.contains('/') && check_path(tag).is_ok()) else {
        return unless_missing(Some("`latest`".into()), "deepspeed");
    };
    let names: Vec<&str> = dir.names_in(&tag).collect();
    unless_missing(missing(&names, &tag), "deepspeed")
}

/// The directory of one tag, `latest` standing beside it.
fn judge_tag(dir: &Listing, step: u64, examples: &Examples) -> Option<Completeness> {
    let names: Vec<&str> = dir.names_in("").collect();
    if !names.iter().any(|name| is_state(name)) {
        return None;
    }
    if let Some(what) = missing(&names, &dir.name) {
        return unless_missing(Some(what), "deepspeed");
    }
    let above = dir.path.parent()?;
    // Some write `latest` before every rank is done.
    let sealed = || match fewer_than_before(dir, above, step, examples) {
        Some(fewer) => unknown(fewer),
        None => unless_missing(None, "deepspeed"),
    };
    match text(&above.join("latest")) {
        None => unless_missing(Some("`latest` beside it".into()), "deepspeed"),
        Some(tag) if tag == dir.name => sealed(),
        Some(tag) => {
            // A newer one that is sealed seals this one, if none is short.
            let newer = number(&tag, "global_step", "").is_some_and(|newest| newest > step);
            let same =
                newer && count_states(&above.join(&tag)) == names.iter().filter(|n| is_state(n)).count();
            if same { unless_missing(None, "deepspeed") } else { incomplete(Reason::tracker("latest", &tag)) }
        }
    }
}

/// The states of a tag's ranks.
pub(super) fn kinds(dir: &Listing) -> BTreeSet<String> {
    let is_tag = number(&dir.name, "global_step", "").is_some();
    dir.names_in("").filter(|name| is_tag && is_state(name)).map(str::to_owned).collect()
}

/// A full grid may still be a smaller one than that of the tag before: the
/// highest ranks are the ones that are late.
fn fewer_than_before(dir: &Listing, above: &Path, step: u64, examples: &Examples) -> Option<Reason> {
    let here = kinds(dir);
    let known = examples.of(above, "deepspeed").filter(|example| example.name != dir.name);
    if let Some(example) = known {
        let late = example.kinds.iter().find(|kind| !here.contains(*kind))?;
        return Some(Reason::unlike(&format!("`{late}`"), &example.name));
    }
    let entries = std::fs::read_dir(above).ok()?.flatten().take(BESIDE);
    let tags = entries.filter_map(|entry| number(entry.file_name().to_str()?, "global_step", ""));
    let before = tags.filter(|tag| *tag < step).max().map(|tag| format!("global_step{tag}"))?;
    let fewer = count_states(&above.join(&before)) > here.len();
    fewer.then(|| Reason::unlike("`*_states.pt` of some rank", &before))
}

fn is_state(path: &str) -> bool {
    let name = leaf(path);
    name.ends_with("model_states.pt") || name.ends_with("optim_states.pt")
}

fn count_states(dir: &Path) -> usize {
    let Ok(found) = std::fs::read_dir(dir) else { return 0 };
    found.flatten().take(BESIDE).filter(|entry| entry.file_name().to_str().is_some_and(is_state)).count()
}

/// What a full grid of ranks would have besides.
fn missing(names: &[&str], tag: &str) -> Option<String> {
    if !names.iter().any(|name| name.ends_with("model_states.pt")) {
        return Some(format!("`*model_states.pt` of `{tag}`"));
    }
    let mut grid = BTreeSet::new();
    for name in names {
        let Some(rest) = name.split_once("zero_pp_rank_").map(|(_, rest)| rest) else { continue };
        let Some((data, rest)) = rest.split_once("_mp_rank_") else { continue };
        let (Some(data), Some(model)) = (number(data, "", ""), number(rest, "", "_optim_states.pt")) else {
            continue;
        };
        grid.insert((data, model));
    }
    let widths = grid.iter().fold((0, 0), |(d, m), (data, model)| (d.max(data + 1), m.max(model + 1)));
    let full = widths.0.checked_mul(widths.1) == Some(grid.len() as u64);
    (!full).then(|| format!("`*optim_states.pt` of some rank of `{tag}`"))
}
