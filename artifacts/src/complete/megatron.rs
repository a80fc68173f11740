//! Megatron-LM: `iter_0000100`, sealed by the tracker file beside it once its
//! number has reached that iteration.

use super::directory::{Listing, number, text, unless_missing};
use super::{Completeness, Reason, incomplete, unknown};

/// The tracker's word for weights without an iteration.
const RELEASE: &str = "release";
const TRACKER: &str = "latest_checkpointed_iteration.txt";

pub(super) fn judge(dir: &Listing) -> Option<Completeness> {
    let tracker = dir.path.parent()?.join(TRACKER);
    if dir.name == RELEASE && tracker.exists() {
        return match text(&tracker) {
            Some(says) if says == RELEASE => unless_missing(None, "megatron"),
            says => incomplete(Reason::tracker(TRACKER, &says.unwrap_or_default())),
        };
    }
    let iteration = number(&dir.name, "iter_", "").filter(|_| dir.name.len() == "iter_".len() + 7)?;
    let Some(says) = text(&tracker) else {
        return unless_missing(Some(format!("`{TRACKER}` beside it")), "megatron");
    };
    let Some(reached) = says.parse::<u64>().ok().filter(|reached| *reached >= iteration) else {
        return incomplete(Reason::tracker(TRACKER, &says));
    };
    // Who goes on from an earlier one (`--ckpt-step`) saves over the later
    // ones, of which the tracker speaks already.
    let written = tracker.metadata().and_then(|meta| meta.modified()).ok()?;
    match dir.files.iter().find(|file| reached > iteration && file.changed > written) {
        Some(newer) => unknown(Reason::overwritten(&newer.path, TRACKER)),
        None => unless_missing(None, "megatron"),
    }
}
