//! Whether a stored tree is there in full: its manifest, and every pack that it
//! names, however long ago that was put. What is in the packs is read elsewhere.

use std::collections::BTreeMap;

use artifacts::manifest::Description;
use artifacts::{Digest, ObjectKey};
use tokio::task::JoinSet;

use super::told::{Told, told};
use super::{is_later, is_passing};
use crate::core::{Core, CoreError};
use crate::known::Seen;
use crate::model::{Checkpoint, ManifestRef};

/// Packs of which a commit asks at once.
const ASKED_AT_ONCE: usize = 32;
/// A tree of so few packs has all of them asked for at each commit; one of more
/// believes an earlier answer for a second for each of them.
const ASKED_ALWAYS: usize = 64;

/// Why a stored manifest is no tree that could count.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// It is not what it claims to be.
    Wrong(String),
    /// Packs that it names are gone or cut, and how.
    Lacks(BTreeMap<ObjectKey, String>),
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wrong(why) => f.write_str(why),
            Self::Lacks(packs) => match packs.iter().next() {
                Some((pack, why)) => write!(f, "pack {pack} {why}"),
                None => f.write_str("a pack is missing"),
            },
        }
    }
}

/// What is told of the manifest as stored, if it and every pack it names are there in full.
pub(crate) async fn check_stored(
    core: &Core,
    key: &ObjectKey,
    digest: &str,
) -> Result<Result<Told, Unfit>, CoreError> {
    let wrong = |why: &str| Ok(Err(Unfit::Wrong(why.to_owned())));
    let Some(size) = core.objects.size(key).await? else {
        return wrong("the manifest is not in the store");
    };
    if size > artifacts::manifest::MAX_BYTES {
        return wrong("the manifest is too large");
    }
    let bytes = core.objects.get(key, 0, size).await?;
    if Digest::of(&bytes).to_string() != digest {
        return wrong("the manifest's digest differs");
    }
    let tree = match Description::parse(&bytes) {
        Ok(tree) => tree,
        // Not refused for good: it counts once this program was upgraded.
        Err(error) if is_later(&error) => return Err(CoreError::Impossible(format!("{key}: {error}"))),
        Err(error) => return wrong(&format!("the manifest does not parse: {error}")),
    };
    let mut needed = tree.ends();
    let told = match told(core, key, tree) {
        Ok(told) => told,
        // The same, of what is within a sealed one.
        Err(error) if is_passing(&error) => return Err(CoreError::Impossible(error.to_string())),
        Err(error) => return wrong(&error.to_string()),
    };
    let now = core.clock.mono_ms();
    let believed_ms = if needed.len() <= ASKED_ALWAYS { 0 } else { needed.len() as u64 * 1_000 };
    let is_known = |seen: Seen, end: u64| seen.size >= end && now < seen.asked_ms + believed_ms;
    needed.retain(|pack, end| core.known.seen(pack).is_none_or(|seen| !is_known(seen, *end)));
    let found = sizes(core, needed.keys()).await?;
    let lacks = needed.into_iter().filter_map(|(pack, end)| match found.get(&pack).copied().flatten() {
        Some(size) if size >= end => None,
        Some(size) => Some((pack, format!("has {size} of {end} bytes"))),
        None => Some((pack, "is missing".to_owned())),
    });
    let lacks: BTreeMap<ObjectKey, String> = lacks.collect();
    Ok(if lacks.is_empty() { Ok(told) } else { Err(Unfit::Lacks(lacks)) })
}

/// What a tree took in the store: its own generation's packs that are newer
/// than any that the checkpoint before it names. Their sizes were asked a moment
/// ago, as far as that is remembered.
pub(crate) async fn added(
    core: &Core,
    before: Option<&ManifestRef>,
    key: &ObjectKey,
    packs: &[String],
) -> Result<u64, CoreError> {
    let own = ObjectKey::prefix(key.scope(), key.generation().unwrap_or(0));
    let before = match before {
        Some(before) => core.load::<Checkpoint>(&before.key).await?.map(|row| row.body.packs),
        None => None,
    };
    let last = before.iter().flatten().filter(|pack| pack.starts_with(&own)).max();
    let new = packs.iter().filter(|pack| pack.starts_with(&own) && last.is_none_or(|last| *pack > last));
    let sizes = new.filter_map(|pack| core.known.seen(&pack.parse().ok()?).map(|seen| seen.size));
    Ok(sizes.sum())
}

/// One of these packs that the store does not have, whatever is known of it.
pub(crate) async fn absent(core: &Core, packs: &[String]) -> Result<Option<String>, CoreError> {
    let keys: Vec<ObjectKey> = packs.iter().filter_map(|pack| pack.parse().ok()).collect();
    let found = sizes(core, keys.iter()).await?;
    Ok(found.into_iter().find(|(_, size)| size.is_none()).map(|(pack, _)| pack.to_string()))
}

/// The sizes of packs, asked for side by side: there may be thousands.
pub(super) async fn sizes(
    core: &Core,
    packs: impl Iterator<Item = &ObjectKey>,
) -> Result<BTreeMap<ObjectKey, Option<u64>>, CoreError> {
    let mut waiting = packs.cloned();
    let mut asking = JoinSet::new();
    let mut found = BTreeMap::new();
    loop {
        for pack in waiting.by_ref().take(ASKED_AT_ONCE - asking.len()) {
            let objects = core.objects.clone();
            asking.spawn(async move {
                let size = objects.size(&pack).await;
                (pack, size)
            });
        }
        let Some(answer) = asking.join_next().await else { return Ok(found) };
        let (pack, size) = answer.map_err(|_| CoreError::Impossible("a question was dropped".into()))?;
        let size = size?;
        match size {
            Some(size) => core.known.pack(&pack, size, core.clock.mono_ms()),
            None => core.known.forget(&pack),
        }
        found.insert(pack, size);
    }
}
