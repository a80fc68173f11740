//! What follows a publish: it is remembered, it teaches what the next one
//! needs, and old local copies of what is durable go. Blocks.

use std::sync::{Arc, Mutex};

use artifacts::complete;
use lifecycle::RunSpec;
use proto::v1;

use super::look::look;
use super::prepare::Chosen;
use super::seen::{self, Seen};
use super::standing::{self, Standing};
use super::{local, verdicts};
use crate::world::layout::AttemptDir;

/// Remembers a checkpoint that needs no publishing any more; returns where
/// everything stands then.
pub(super) fn done(
    seen: &Arc<Mutex<Seen>>,
    dir: &AttemptDir,
    chosen: &Chosen,
    spec: &RunSpec,
    is_durable: bool,
) -> Vec<v1::CheckpointStanding> {
    let Chosen { relative, token, look } = chosen;
    let known = seen::lock(seen).verdicts.clone();
    if is_durable {
        verdicts::lock(&known).published(&local::path_of(dir, relative), token);
    }
    let mut seen = seen::lock(seen);
    seen.known.insert(relative.clone(), token.clone());
    // What was saved over it meanwhile is looked at as it is.
    if seen.open.get(relative).is_some_and(|open| open.token == *token) {
        seen.open.remove(relative);
    }
    seen.standings.insert(relative.clone(), Standing::Known);
    seen.words.forget(relative);
    seen.save(dir);
    if is_durable {
        seen.newest = seen.newest.max(Some(look.written));
        seen.parts.insert(relative.clone(), look.files);
        seen.durable.retain(|(other, _)| other != relative);
        seen.durable.push((relative.clone(), token.clone()));
        let surplus = surplus(&mut seen, dir, relative, spec);
        seen.save_durable(dir);
        for path in surplus {
            local::remove(&path);
        }
    }
    standing::told(seen.standings.iter())
}

/// Takes old local copies out of what is remembered; those that may be removed
/// are returned. Only what is durable, never the newest; only in the contract's
/// own directory: what lies elsewhere is the program's to keep.
fn surplus(seen: &mut Seen, dir: &AttemptDir, newest: &str, spec: &RunSpec) -> Vec<std::path::PathBuf> {
    let step = |relative: &str| complete::step_of(local::name_of(&local::path_of(dir, relative)));
    let last = seen.durable.iter().filter_map(|(relative, _)| step(relative)).max();
    let mut surplus = seen.in_contract().saturating_sub(spec.checkpoints.keep_local.max(1) as usize);
    let mut removed = Vec::new();
    seen.durable.retain(|(old, token)| {
        // The files of one step belong together.
        if surplus == 0 || old == newest || !old.starts_with("@/") || step(old) == last {
            return true;
        }
        let path = local::path_of(dir, old);
        // Never what the program names without a step (its best, its
        // last), and never what was written to since.
        let steps = complete::step_of(local::name_of(&path)).is_some();
        let fit = steps && look(&path).is_some_and(|l| l.token == *token);
        if fit && local::is_linked(&path) {
            return true;
        }
        surplus -= 1;
        if fit {
            removed.push(path);
        }
        false
    });
    removed
}
