//! Orbax renames the finished directory to its number and, on object stores,
//! puts `commit_success.txt` into it.

use super::Completeness;
use super::directory::{Listing, unless_missing};

pub(super) fn judge(dir: &Listing) -> Option<Completeness> {
    let committed = dir.has("commit_success.txt");
    // The name without its temporary ending came by rename.
    let described = dir.has("_CHECKPOINT_METADATA");
    (committed || described).then(|| unless_missing(None, "orbax"))?
}
