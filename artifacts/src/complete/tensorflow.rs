//! TensorFlow: data parts, then the `.index`, then the text file `checkpoint`
//! that names the newest one.

use super::Completeness;
use super::directory::{Listing, number, unless_missing};

pub(super) fn judge(dir: &Listing) -> Option<Completeness> {
    let indexed: Vec<&str> = dir.names_in("").filter_map(|name| name.strip_suffix(".index")).collect();
    let shards: Vec<(&str, u64, u64)> = dir.names_in("").filter_map(shard).collect();
    if shards.is_empty() {
        return None;
    }
    for (prefix, _, of) in &shards {
        if !indexed.contains(prefix) {
            return unless_missing(Some(format!("`{prefix}.index`")), "tensorflow");
        }
        let there = shards.iter().filter(|(other, _, _)| other == prefix).count() as u64;
        if there < *of {
            return unless_missing(Some(format!("a data part of `{prefix}`")), "tensorflow");
        }
    }
    let Some(newest) = dir.text("checkpoint") else {
        return unless_missing(Some("`checkpoint`".into()), "tensorflow");
    };
    let named = newest.lines().find_map(|line| line.trim().strip_prefix("model_checkpoint_path:"));
    let named = named.map(|path| path.trim().trim_matches('"'));
    let named = named.map(|path| path.rsplit_once('/').map_or(path, |(_, leaf)| leaf));
    let missing = named.filter(|named| !indexed.contains(named)).map(|named| format!("`{named}.index`"));
    unless_missing(missing, "tensorflow")
}

/// Prefix, number and count of `ckpt-5.data-00000-of-00002`.
fn shard(name: &str) -> Option<(&str, u64, u64)> {
    let (prefix, part) = name.rsplit_once(".data-")?;
    let (at, of) = part.split_once("-of-")?;
    Some((prefix, number(at, "", "")?, number(of, "", "")?))
}
