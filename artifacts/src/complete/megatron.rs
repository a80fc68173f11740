//! Megatron-LM: `iter_0000100`, sealed by the tracker file beside it once its
//! number has reached that iteration.

use super::directory::{Listing, number, text, unless_missing};
use super::{Completeness, Reason, incomplete};

/// The tracker's word for weights without an iteration.
const RELEASE: &str = "release";
const TRACKER: &str = "latest_checkpointed_iteration.txt";

pub(super) fn judge(dir: &Listing) -> Option<Completeness> {
    let beside = |name: &str| text(&dir.path.parent()?.join(name));
    if dir.name == RELEASE && dir.path.parent()?.join(TRACKER).exists() {
        return match beside(TRACKER) {
            Some(says) if says == RELEASE => unless_missing(None, "megatron"),
            says => incomplete(Reason::tracker(TRACKER, &says.unwrap_or_default())),
        };
    }
    let iteration = number(&dir.name, "iter_", "").filter(|_| dir.name.len() == "iter_".len() + 7)?;
    match beside(TRACKER) {
        None => unless_missing(Some(format!("`{TRACKER}` beside it")), "megatron"),
        Some(reached) => match reached.parse::<u64>() {
            Ok(reached) if reached >= iteration => unless_missing(None, "megatron"),
            _ => incomplete(Reason::tracker(TRACKER, &reached)),
        },
    }
}
