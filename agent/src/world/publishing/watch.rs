//! When to look, and at what: everything when something changed or may have,
//! else only what is open. Watched before it is listed, so that nothing comes
//! in between; and whatever the watches tell, everything is looked at now and
//! then.

use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use lifecycle::RunSpec;

use super::look::{Spot, Spots};
use super::{NAMES, Publishing, local};
use crate::os;
use crate::world::layout::AttemptDir;

/// All places are looked at after this whatever the watches tell: writes
/// through a mapping, and other computers', are told to nobody.
const RESCAN: Duration = Duration::from_secs(15);

impl Publishing {
    /// Hears of renames in the places of checkpoints from now on.
    pub(super) fn watch<'a>(&self, dir: &AttemptDir, paths: impl Iterator<Item = &'a Path>) {
        let mut renames = self.renames.lock().unwrap_or_else(PoisonError::into_inner);
        if renames.is_none() {
            *renames = os::Renames::new().ok();
        }
        let Some(renames) = &mut *renames else { return };
        renames.watch(&dir.checkpoints());
        for parent in paths.take(NAMES).filter_map(Path::parent) {
            renames.watch(parent);
        }
    }

    pub(super) fn was_renamed(&self, path: &Path) -> bool {
        let mut renames = self.renames.lock().unwrap_or_else(PoisonError::into_inner);
        renames.as_mut().is_some_and(|renames| renames.has(path))
    }

    /// Whether all places must be looked at: something changed in them, nothing
    /// can tell, or it is long ago.
    pub(super) fn is_due(&self, dir: &AttemptDir, attempt: &str, spec: &RunSpec) -> bool {
        let mut all = self.lock();
        let seen = all.entry(attempt.to_owned()).or_default();
        let tree = seen.tree.get_or_insert_with(|| {
            let mut roots = vec![dir.checkpoints()];
            if !spec.checkpoints.paths.is_empty() {
                roots.push(dir.source());
            }
            os::TreeChanges::of(roots).ok()
        });
        let changed = tree.as_mut().is_none_or(os::TreeChanges::changed);
        let now = Instant::now();
        let due = changed || seen.looked.is_none_or(|at| now.duration_since(at) >= RESCAN);
        if due {
            seen.looked = Some(now);
        }
        due
    }

    /// Only what is open: nothing else can have become a checkpoint.
    pub(super) fn open_spots(&self, dir: &AttemptDir, attempt: &str) -> Spots {
        let all = self.lock();
        let open = all.get(attempt).into_iter().flat_map(|seen| seen.open.keys());
        let found =
            open.map(|relative| Spot { path: local::path_of(dir, relative), relative: relative.clone() });
        let flood = all.get(attempt).and_then(|seen| seen.flood);
        Spots { found: found.collect(), flood, ..Spots::default() }
    }
}
