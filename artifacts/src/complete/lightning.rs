//! Lightning where a checkpoint is a directory: the shards as PyTorch saves
//! them, sealed by their `.metadata`, and only then `meta.pt` with all the
//! rest: loops, callbacks, schedules.

use super::directory::Listing;
use super::{Completeness, Reason, unknown};

pub(super) fn judge(dir: &Listing) -> Option<Completeness> {
    let is_own = dir.name.ends_with(".ckpt") && dir.has(".metadata");
    if !is_own {
        return None;
    }
    match (dir.get("meta.pt"), dir.get(".metadata")) {
        // Another program may call its directory so: this must not wait for ever.
        (None, _) => unknown(Reason::may_follow("meta.pt")),
        (Some(meta), Some(seal)) if meta.changed < seal.changed => {
            unknown(Reason::overwritten(".metadata", "meta.pt"))
        }
        _ => Some(Completeness::Complete { format: "lightning" }),
    }
}
