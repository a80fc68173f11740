//! DeepSpeed: a directory per tag, and a text file `latest` that rank 0 writes
//! at the end, before it waits for the other ranks. Until then `latest` names
//! the checkpoint before, or this very one where a tag is saved over again.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use super::directory::{Listing, number, text, unless_missing};
use super::example::{Example, Examples};
use super::{Completeness, Reason, incomplete, unknown};
use crate::path::{check_path, leaf, parent};

/// Names beside a tag that are looked at.
const BESIDE: usize = 10_000;
const LATEST: &str = "latest";

/// One tag's files of the ranks.
struct Tag<'a> {
    name: &'a str,
    /// The directory that `latest` lies in.
    above: &'a Path,
    states: Vec<(&'a str, SystemTime)>,
}

pub(super) fn judge(dir: &Listing, examples: &Examples) -> Option<Completeness> {
    let tag = Tag { name: &dir.name, above: dir.path.parent()?, states: states_in(dir, "") };
    if !tag.states.is_empty() {
        return judge_tag(&tag, examples.of(dir));
    }
    dir.files.iter().find(|member| is_state(&member.path) && !parent(&member.path).is_empty())?;
    let Some(newest) = dir.text(LATEST).filter(|tag| !tag.contains('/') && check_path(tag).is_ok()) else {
        return unless_missing(Some(format!("`{LATEST}`")), "deepspeed");
    };
    let tag = Tag { name: &newest, above: &dir.path, states: states_in(dir, &newest) };
    let judged = judge_tag(&tag, examples.of(dir));
    // It seals the tag. Whether that is all is for whoever called DeepSpeed,
    // if there is more than DeepSpeed's own.
    const OWN: [&str; 3] = [LATEST, "latest_universal", "zero_to_fp32.py"];
    let is_all = dir.names_in("").all(|name| OWN.contains(&name));
    match judged {
        Some(Completeness::Complete { .. }) if !is_all || is_of_accelerate(&newest) => None,
        judged => judged,
    }
}

/// Accelerate saves its models under such tags, and more after them.
fn is_of_accelerate(tag: &str) -> bool {
    tag.starts_with("pytorch_model")
}

fn states_in<'a>(dir: &'a Listing, place: &str) -> Vec<(&'a str, SystemTime)> {
    let here = dir.files.iter().filter(|member| parent(&member.path) == place && is_state(&member.path));
    here.map(|member| (leaf(&member.path), member.changed)).collect()
}

/// The directory of one tag, `latest` standing beside it.
fn judge_tag(tag: &Tag<'_>, example: Option<&Example>) -> Option<Completeness> {
    if let Some(what) = missing(&tag.states, tag.name) {
        return unless_missing(Some(what), "deepspeed");
    }
    let beside = tag.above.join(LATEST);
    let written = beside.metadata().and_then(|meta| meta.modified()).ok();
    match text(&beside) {
        None if step(tag.name).is_some_and(|(before, _)| before == "global_step") => {
            unless_missing(Some(format!("`{LATEST}` beside it")), "deepspeed")
        }
        // A program may do without.
        None => unknown(Reason::may_follow("latest")),
        Some(says) if says == tag.name => sealed(tag, example, written),
        // A newer one that is sealed seals this one, if none is short.
        Some(says) if is_newer(tag, &says) && count_states(&tag.above.join(&says)) == tag.states.len() => {
            match tag.states.iter().find(|(_, changed)| written.is_some_and(|written| *changed > written)) {
                // Who goes on from an earlier one saves over the later ones.
                Some((file, _)) => unknown(Reason::overwritten(file, LATEST)),
                None => unless_missing(None, "deepspeed"),
            }
        }
        Some(says) => incomplete(Reason::tracker(LATEST, &says)),
    }
}

/// `latest` names it: whether every rank was done by then.
fn sealed(tag: &Tag<'_>, example: Option<&Example>, written: Option<SystemTime>) -> Option<Completeness> {
    let after = |(_, changed): &&(&str, SystemTime)| written.is_some_and(|written| *changed > written);
    // Rank 0 saves its own before it writes `latest`: what is newer is of
    // another save under the same tag.
    let first = |(name, _): &&(&str, SystemTime)| {
        !name.contains("zero_pp_rank_") && name.starts_with("mp_rank_00_")
            || name.contains("zero_pp_rank_0_mp_rank_00_")
    };
    if let Some((file, _)) = tag.states.iter().filter(first).find(after) {
        return unknown(Reason::overwritten(file, LATEST));
    }
    if let Some(fewer) = fewer_than_before(tag, example) {
        return unknown(fewer);
    }
    // A rank that was late, or one that is early in the next save.
    match tag.states.iter().any(|state| after(&state)) {
        true => unknown(Reason::Ranks { ranks: ranks(tag) }),
        false => unless_missing(None, "deepspeed"),
    }
}

/// Whether the tag `other` is of a later save.
fn is_newer(tag: &Tag<'_>, other: &str) -> bool {
    if other.contains('/') || check_path(other).is_err() {
        return false;
    }
    match (step(tag.name), step(other)) {
        (Some((before, own)), Some((same, other))) if before == same => other > own,
        // Tags of one's own: their times tell.
        _ => {
            let newest = |states: &mut dyn Iterator<Item = SystemTime>| states.max();
            let files = std::fs::read_dir(tag.above.join(other)).into_iter().flatten().flatten().take(BESIDE);
            let times = files.filter_map(|file| {
                file.file_name().to_str().filter(|name| is_state(name))?;
                file.metadata().ok()?.modified().ok()
            });
            newest(&mut tag.states.iter().map(|state| state.1)) < newest(&mut { times })
        }
    }
}

/// The word and the number of a tag such as `global_step10` or `epoch3`.
fn step(tag: &str) -> Option<(&str, u64)> {
    let word = tag.trim_end_matches(|c: char| c.is_ascii_digit());
    Some((word, number(tag, word, "")?))
}

/// A full grid may still be a smaller one than that of the tag before: the
/// highest ranks are the ones that are late. Where there is none before,
/// nothing tells how many there are.
fn fewer_than_before(tag: &Tag<'_>, example: Option<&Example>) -> Option<Reason> {
    if let Some(example) = example {
        let here: BTreeSet<&str> = tag.states.iter().map(|(name, _)| *name).collect();
        let mut states = example.kinds.iter().filter(|kind| is_state(kind)).map(|kind| leaf(kind));
        let late = states.find(|state| !here.contains(state))?;
        return Some(Reason::unlike(&format!("`{late}`"), &example.name));
    }
    let older = |(word, own): (&str, u64)| {
        let entries = std::fs::read_dir(tag.above).ok()?.flatten().take(BESIDE);
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let tags = names.filter_map(|name| step(&name).filter(|of| of.0 == word).map(|of| of.1));
        let before = tags.filter(|tag| *tag < own).max()?;
        Some(format!("{word}{before}"))
    };
    let Some(before) = step(tag.name).and_then(older).filter(|b| count_states(&tag.above.join(b)) > 0) else {
        let is_split = tag.states.iter().any(|(name, _)| name.contains("zero_pp_rank_"));
        return is_split.then(|| Reason::Ranks { ranks: ranks(tag) });
    };
    let fewer = count_states(&tag.above.join(&before)) > tag.states.len();
    fewer.then(|| Reason::unlike("`*_states.pt` of some rank", &before))
}

fn ranks(tag: &Tag<'_>) -> u64 {
    tag.states.iter().filter(|(name, _)| name.ends_with("optim_states.pt")).count() as u64
}

/// Whether a file holds a rank's part of the states.
pub(super) fn is_state(path: &str) -> bool {
    let name = leaf(path);
    name.ends_with("model_states.pt") || name.ends_with("optim_states.pt")
}

fn count_states(dir: &Path) -> usize {
    let Ok(found) = std::fs::read_dir(dir) else { return 0 };
    found.flatten().take(BESIDE).filter(|entry| entry.file_name().to_str().is_some_and(is_state)).count()
}

/// What a full grid of ranks would have besides.
fn missing(states: &[(&str, SystemTime)], tag: &str) -> Option<String> {
    let names = || states.iter().map(|(name, _)| *name);
    if !names().any(|name| name.ends_with("model_states.pt")) {
        return Some(format!("`*model_states.pt` of `{tag}`"));
    }
    let mut grid = BTreeSet::new();
    for name in names() {
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
