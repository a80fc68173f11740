//! Orbax renames the finished directory to its number and, where a rename is
//! not atomic, puts `commit_success.txt` into it. Its metadata tell when it was
//! begun and, written again at the end, when it was committed.

use serde::Deserialize;

use super::directory::{Listing, unless_missing};
use super::{Completeness, Reason, incomplete};

pub(super) const FORMAT: &str = "orbax";
const METADATA: &str = "_CHECKPOINT_METADATA";

#[derive(Deserialize)]
struct Times {
    init_timestamp_nsecs: Option<u64>,
    commit_timestamp_nsecs: Option<u64>,
}

pub(super) fn judge(dir: &Listing) -> Option<Completeness> {
    if dir.has("commit_success.txt") {
        return unless_missing(None, FORMAT);
    }
    if !dir.has(METADATA) {
        return None;
    }
    // Earlier releases tell no times: there, the name without its temporary
    // ending came by rename.
    let times: Option<Times> = dir.text(METADATA).and_then(|text| serde_json::from_str(&text).ok());
    match times {
        Some(Times { init_timestamp_nsecs: Some(_), commit_timestamp_nsecs: None }) => {
            incomplete(Reason::Uncommitted { file: METADATA.into() })
        }
        _ => unless_missing(None, FORMAT),
    }
}
