//! Which runs hung on this machine, and how far they were.

use std::collections::BTreeMap;
use std::path::Path;

use proto::v1;

use crate::os;

/// In the machine's state directory: run -> number of the attempt that hung
/// last, and the durable step then.
const HANGS: &str = "hangs.json";

/// Remembers that a run hangs with this durable step; whether it did so before
/// without a newer one since.
pub(super) fn again(state: &Path, work: &v1::Work, durable: Option<u64>) -> bool {
    let path = &state.join(HANGS);
    let known = os::read_bounded(path, 1 << 20).ok();
    let mut known: BTreeMap<String, (u32, Option<u64>)> =
        known.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    if known.len() > 1_000 {
        known.clear();
    }
    let resumed = work.resume.iter().filter_map(|offer| offer.step).max();
    // What the attempt before saved was perhaps not durable yet when it
    // hung: then this one must have saved something itself.
    let again = known.insert(work.run_id.clone(), (work.number, durable)).is_some_and(|(number, before)| {
        before >= durable || number.saturating_add(1) == work.number && resumed >= durable
    });
    // Not kept: then the next one counts as the first once more.
    if let Err(error) = os::write_durable(path, &serde_json::to_vec(&known).unwrap_or_default()) {
        tracing::warn!(%error, "that a run hangs could not be remembered");
    }
    again
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hang_without_progress_since_the_last_is_one_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(HANGS);
        let hang = |run: &str, number: u32, resumed: Option<u64>, durable: Option<u64>| {
            let offer = |step| v1::ManifestRef { step: Some(step), ..v1::ManifestRef::default() };
            let resume = resumed.map(offer).into_iter().collect();
            again(
                dir.path(),
                &v1::Work { run_id: run.into(), number, resume, ..v1::Work::default() },
                durable,
            )
        };
        assert!(!hang("a", 1, None, Some(10)));
        assert!(hang("a", 2, Some(10), Some(10)));
        assert!(!hang("a", 3, Some(10), Some(20)), "it saved in between");
        assert!(!hang("b", 1, None, None), "another run");
        // What it saved before the first hang became durable with its end.
        assert!(hang("b", 2, Some(10), Some(10)));
        assert!(!hang("c", 1, None, None));
        assert!(!hang("c", 3, Some(10), Some(10)), "an attempt in between made progress");
        std::fs::write(&path, "not JSON").unwrap();
        assert!(!hang("a", 4, Some(20), Some(20)));
        assert!(hang("a", 5, Some(20), Some(20)));
    }
}
