//! When to look, and at what: everything when something changed or may have,
//! else only what is open. Watched before it is listed, so that nothing comes
//! in between; and whatever the watches tell, everything is looked at now and
//! then.

use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lifecycle::RunSpec;

use super::look::{Spot, Spots};
use super::seen::Seen;
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
        if self.forgot.swap(false, Ordering::Relaxed) {
            renames.keep(Path::exists);
        }
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
    /// can tell, or it is long ago. One that takes long is not done again soon.
    pub(super) fn is_due(&self, dir: &AttemptDir, seen: &mut Seen, spec: &RunSpec) -> bool {
        let tree = seen.tree.get_or_insert_with(|| {
            let mut roots = vec![dir.checkpoints()];
            if !spec.checkpoints.paths.is_empty() {
                roots.push(dir.source());
            }
            os::TreeChanges::of(roots).ok()
        });
        seen.changed |= tree.as_mut().is_none_or(os::TreeChanges::changed);
        let Some((at, took)) = seen.looked else { return true };
        let ago = at.elapsed();
        let pause = took.saturating_mul(self.share);
        let pause = pause.min(RESCAN.max(took.saturating_mul(self.share / 5)));
        ago >= pause && (seen.changed || ago >= RESCAN)
    }

    /// Only what is open: nothing else can have become a checkpoint.
    pub(super) fn open_spots(dir: &AttemptDir, seen: &Seen) -> Spots {
        let found = seen
            .open
            .keys()
            .map(|relative| Spot { path: local::path_of(dir, relative), relative: relative.clone() });
        Spots { found: found.collect(), flood: seen.flood, ..Spots::default() }
    }
}
