//! Megatron-LM: `iter_0000100`, sealed by the tracker file beside it once its
//! number has reached that iteration.

use super::directory::{Listing, number, text, unless_missing};
use super::{Completeness, incomplete};

const TRACKER: &str = "latest_checkpointed_iteration.txt";

pub(super) fn judge(dir: &Listing) -> Option<Completeness> {
    let iteration = number(&dir.name, "iter_", "").filter(|_| dir.name.len() == "iter_".len() + 7)?;
    match text(&dir.path.parent()?.join(TRACKER)) {
        None => unless_missing(Some(format!("`{TRACKER}` beside it")), "megatron"),
        Some(reached) => match reached.parse::<u64>() {
            Ok(reached) if reached >= iteration => unless_missing(None, "megatron"),
            _ => incomplete(format!("`{TRACKER}` says `{}`", reached.chars().take(40).collect::<String>())),
        },
    }
}
