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

/// What a checkpoint has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Became {
    /// The controller has it.
    Durable,
    /// The store has it, and the controller did not say so yet.
    Stored,
    /// It is none, whatever it is.
    Refused,
}

/// Takes note of what an agent before this one stored and nobody answered for.
pub(super) fn waits(seen: &Arc<Mutex<Seen>>, relatives: Vec<String>) -> Vec<v1::CheckpointStanding> {
    let mut seen = seen::lock(seen);
    for relative in relatives {
        if let Some(standing) = seen.standings.get_mut(&relative) {
            *standing = Standing::Stored;
        }
        seen.stored.insert(relative);
    }
    standing::told(seen.standings.iter())
}

/// Remembers what became of a checkpoint that was stored earlier; `None`: it
/// is to be published again. What the files are meanwhile counts: a copy that
/// was saved over is not the one that is durable.
pub(super) fn settled(
    seen: &Arc<Mutex<Seen>>,
    dir: &AttemptDir,
    relative: &str,
    token: &str,
    spec: &RunSpec,
    became: Option<Became>,
) -> Option<Vec<v1::CheckpointStanding>> {
    let look = look(&local::path_of(dir, relative)).filter(|look| look.token == token);
    {
        let mut seen = seen::lock(seen);
        seen.load(dir);
        seen.stored.remove(relative);
        if became.is_none() && seen.known.get(relative).is_some_and(|known| known == token) {
            seen.known.remove(relative);
            seen.changed = true;
            seen.save(dir);
        }
    }
    let chosen = Chosen { relative: relative.to_owned(), token: token.to_owned(), look: look? };
    became.map(|became| done(seen, dir, &chosen, spec, became))
}

/// Remembers a checkpoint that needs no publishing any more; returns where
/// everything stands then.
pub(super) fn done(
    seen: &Arc<Mutex<Seen>>,
    dir: &AttemptDir,
    chosen: &Chosen,
    spec: &RunSpec,
    became: Became,
) -> Vec<v1::CheckpointStanding> {
    let Chosen { relative, token, look } = chosen;
    let is_durable = became == Became::Durable;
    let known = seen::lock(seen).verdicts.clone();
    if is_durable {
        verdicts::lock(&known).published(&local::path_of(dir, relative), token);
    }
    let mut seen = seen::lock(seen);
    seen.known.insert(relative.clone(), token.clone());
    // What was saved over it meanwhile is looked at as it is.
    if seen.open.get(relative).is_some_and(|open| open.token == *token) {
        seen.open.remove(relative);
    } else if let Some(open) = seen.open.get_mut(relative) {
        open.rewrites = 0;
    }
    if became == Became::Stored {
        seen.stored.insert(relative.clone());
        seen.standings.insert(relative.clone(), Standing::Stored);
    } else {
        seen.stored.remove(relative);
        seen.standings.insert(relative.clone(), Standing::Known);
    }
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
