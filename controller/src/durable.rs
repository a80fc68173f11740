//! The commit protocol's last step: a *stored* manifest becomes *durable* in
//! one transaction, only if its attempt is the bound one, its generation is
//! the current one and its run has not ended. And the step before a new bind:
//! what the old machine stored and nobody heard of is found and committed.

use artifacts::key::ObjectClass;
use artifacts::manifest::{Description, ManifestError};
use artifacts::restore::RestoreError;
use artifacts::{Digest, Kind as TreeKind, ObjectKey};
use lifecycle::{AttemptId, CheckpointState, Generation, RunId};
use serde_json::json;

use crate::core::{Changes, Core, CoreError};
use crate::model::{Attempt, Checkpoint, ManifestRef, Run, Versioned};

mod rest;
mod stored;
mod told;

pub(crate) use rest::reliable;
pub(crate) use stored::{Unfit, absent, added, check_stored};
pub use told::chunk_rows;
pub(crate) use told::{Opened, Told, chunks, opened, packs};

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Durable now, or already.
    Durable,
    /// A newer generation is bound.
    Superseded(Generation),
    /// It is not what it claims to be.
    Refused(String),
    /// What it rests on is not in the store any more: published again it rests
    /// on something else.
    Again(String),
}

/// Commits a stored manifest of an attempt.
///
/// # Errors
/// Where a store fails; then nothing changed.
pub async fn commit(
    core: &Core,
    attempt: AttemptId,
    generation: Generation,
    manifest: &ManifestRef,
) -> Result<Outcome, CoreError> {
    let Ok(key) = manifest.key.parse::<ObjectKey>() else {
        return Ok(Outcome::Refused("not an object key".into()));
    };
    let row: Versioned<Attempt> = core.need(&attempt.to_string()).await?;
    if row.body.generation != generation {
        return Ok(Outcome::Refused("the attempt has another generation".into()));
    }
    if key.scope() != row.body.run.to_string() || key.generation() != Some(generation.as_u64()) {
        return Ok(Outcome::Refused("the key is not of this run and generation".into()));
    }
    // Machines put without asking: another store in its place takes everything.
    core.objects.is_own().await?;
    let mut looked = crate::retain::looking(core).await?;
    let tree = match check_stored(core, &key, &manifest.digest).await? {
        Ok(checked) => checked,
        Err(unfit) => {
            let why = unfit.to_string();
            let Unfit::Lacks(packs) = unfit else { return Ok(Outcome::Refused(why)) };
            rest::forget(core, &packs).await?;
            return Ok(Outcome::Again(why));
        }
    };
    for _ in 0..8 {
        let run: Versioned<Run> = core.need(&row.body.run.to_string()).await?;
        if let Some(fenced) = fenced(&run.body, attempt, generation) {
            note_stray(core, &row.body, manifest, &tree, looked).await?;
            return Ok(fenced);
        }
        // An agent that does not know how to seal; what it stored counts for nothing.
        if !tree.sealed && crate::keys::is_sealed_run(core, &run.body.spec) {
            return Ok(Outcome::Refused("the run's trees are to be sealed, and this one is not".into()));
        }
        let known: Option<Versioned<Checkpoint>> = core.load(&manifest.key).await?;
        if known.is_some() {
            return Ok(Outcome::Durable);
        }
        let new_bytes = added(core, run.body.head.as_ref(), &key, &tree.packs).await?;
        let changes = changes_for(core, run, &row.body, manifest, (&tree, new_bytes));
        let changes = match crate::retain::naming(core, changes, &tree.packs, &mut looked).await? {
            Ok(changes) => changes,
            // Not the checkpoint's fault: published again it refers to others.
            Err(pack) => {
                tracing::info!(pack, "a commit names a pack that is deleted or being deleted");
                return Err(CoreError::Contended);
            }
        };
        if core.commit(changes).await? {
            let now = core.clock.mono_ms();
            let packs = tree.packs.iter().filter_map(|pack| pack.parse().ok());
            packs.for_each(|pack| core.known.named(&pack, now));
            return Ok(Outcome::Durable);
        }
    }
    Err(CoreError::Contended)
}

/// The commit fence (I7).
fn fenced(run: &Run, attempt: AttemptId, generation: Generation) -> Option<Outcome> {
    if run.status.is_final() {
        return Some(Outcome::Refused("the run has ended".into()));
    }
    (run.bound != Some(attempt) || run.generation != generation)
        .then_some(Outcome::Superseded(run.generation))
}

/// Whether a manifest is a later version's.
pub(crate) const fn is_later(error: &ManifestError) -> bool {
    matches!(error, ManifestError::Version(_) | ManifestError::Codec(_))
}

fn changes_for(
    core: &Core,
    mut run: Versioned<Run>,
    attempt: &Attempt,
    manifest: &ManifestRef,
    (tree, new_bytes): (&Told, u64),
) -> Changes {
    let reference = ManifestRef { step: tree.step, ..manifest.clone() };
    let run_id = run.body.id;
    let mut changes = Changes::default();
    let verb = if tree.kind == TreeKind::Outputs {
        // Keys of one run rise with generation and number: a late commit of
        // older results does not replace newer ones.
        if run.body.outputs.as_ref().is_none_or(|o| o.key < reference.key) {
            run.body.outputs = Some(reference.clone());
        }
        "outputs-durable"
    } else {
        let head = run.body.head.as_ref();
        // I8: within a generation the head follows the order of commits
        // upwards; a lower step from an older file never takes it back.
        if head.is_none_or(|h| reference.step >= h.step) {
            run.body.head = Some(reference.clone());
            run.body.head_bytes = tree.bytes;
        }
        run.body.produced_step = run.body.produced_step.max(reference.step);
        let whose = (run_id, attempt.id, attempt.generation);
        changes = changes.put(&Versioned::new(tree.committed(
            reference.clone(),
            whose,
            core.clock.wall_ms(),
            new_bytes,
        )));
        "durable"
    };
    changes.0.chunks.clone_from(&tree.chunks);
    let detail = json!({"step": tree.step, "bytes": tree.bytes, "generation": attempt.generation});
    changes.put(&run).note(
        core,
        &format!("machine:{}", attempt.machine),
        verb,
        &manifest.key,
        Some(run_id),
        detail,
    )
}

/// A complete checkpoint of an attempt whose work does not count is kept and
/// listed, and never the head.
async fn note_stray(
    core: &Core,
    attempt: &Attempt,
    manifest: &ManifestRef,
    tree: &Told,
    mut looked: crate::retain::Looked,
) -> Result<(), CoreError> {
    if tree.kind != TreeKind::Checkpoint || core.load::<Checkpoint>(&manifest.key).await?.is_some() {
        return Ok(());
    }
    let stray = Versioned::new(Checkpoint {
        manifest: ManifestRef { step: tree.step, ..manifest.clone() },
        run: attempt.run,
        attempt: attempt.id,
        generation: attempt.generation,
        status: CheckpointState::Committed,
        name: tree.name.clone(),
        bytes: tree.bytes,
        new_bytes: 0,
        committed_ms: core.clock.wall_ms(),
        stray: true,
        packs: tree.packs.clone(),
        kind: tree.word.clone(),
        verified_ms: 0,
        verified_percent: 0,
        trouble: String::new(),
    });
    let actor = format!("machine:{}", attempt.machine);
    let Ok(changes) = crate::retain::naming(core, Changes::default(), &tree.packs, &mut looked).await? else {
        return Ok(());
    };
    let changes = changes.put(&stray).note(
        core,
        &actor,
        "stray",
        &manifest.key,
        Some(attempt.run),
        json!({"step": tree.step, "generation": attempt.generation}),
    );
    // A conflict means that it was recorded meanwhile.
    core.commit(changes).await.map(|_| ())
}

/// Whether a failure to verify is the store's or this program's, and not the
/// checkpoint's: what a later version wrote is whole, and is asked again once
/// this program was upgraded.
#[must_use]
pub fn is_passing(error: &RestoreError) -> bool {
    matches!(
        error,
        RestoreError::Io { .. }
            | RestoreError::Remote(_)
            | RestoreError::Full(_)
            | RestoreError::Unsupported { .. }
            | RestoreError::Sealed { .. }
    ) || matches!(error, RestoreError::Manifest(error) if is_later(error))
}

/// Section 5, rule 7: before a new bind, whatever the bound attempt stored
/// and nobody committed is verified in full and committed.
///
/// # Errors
/// Where a store fails; the bind must wait then.
pub async fn adopt_stored(core: &Core, run: &Run, attempt: AttemptId) -> Result<u32, CoreError> {
    let prefix = ObjectKey::prefix(&run.id.to_string(), run.generation.as_u64());
    let mut adopted = 0;
    for key in core.objects.list(&prefix).await? {
        if !matches!(key.seq(), Some((ObjectClass::Manifest, _))) {
            continue;
        }
        if core.load::<Checkpoint>(&key.to_string()).await?.is_some() {
            continue;
        }
        let Some(size) = core.objects.size(&key).await? else { continue };
        if size > artifacts::manifest::MAX_BYTES {
            tracing::warn!(%key, size, "a stored manifest is too large to be one and is left alone");
            continue;
        }
        let bytes = core.objects.get(&key, 0, size).await?;
        let tree = match Description::parse(&bytes) {
            Ok(tree) => tree,
            // The newest work, maybe: binding now would lose it for good.
            Err(error) if is_later(&error) => {
                return Err(CoreError::Impossible(format!("{key} cannot be taken over: {error}")));
            }
            Err(_) => continue,
        };
        let step = tree.step();
        if tree.kind() == TreeKind::Outputs && run.outputs.as_ref().is_some_and(|o| o.key >= key.to_string())
        {
            continue;
        }
        let digest = Digest::of(&bytes);
        let verified = match core.known.is_verified(&key, digest) {
            true => Ok(()),
            false => verified(core, &key, tree).await,
        };
        match verified {
            // What follows may have to be done again; the reading need not.
            Ok(()) => core.known.verified(&key, digest),
            // A store that cannot be asked says nothing of the checkpoint: the
            // bind waits, or the newest work would be lost for good.
            Err(error) if is_passing(&error) => {
                return Err(CoreError::Impossible(format!("{key} cannot be verified now: {error}")));
            }
            Err(error) => {
                tracing::warn!(%key, %error, "a stored manifest does not verify and is left alone");
                continue;
            }
        }
        let reference = ManifestRef { key: key.to_string(), digest: digest.to_string(), step };
        if commit(core, attempt, run.generation, &reference).await? == Outcome::Durable {
            adopted += 1;
        }
    }
    Ok(adopted)
}

/// Whether all of a tree is as it was stored: what it holds where a key opens
/// it, else its stored bytes.
///
/// # Errors
/// What is wrong with it, or why that could not be found out.
pub async fn verified(core: &Core, key: &ObjectKey, tree: Description) -> Result<(), RestoreError> {
    match opened(core, key, tree)? {
        Opened::Tree(tree) => artifacts::restore::verify(&*core.objects, &tree).await.map(drop),
        Opened::Closed(sealed) => artifacts::restore::verify_stored(&*core.objects, &sealed).await.map(drop),
    }
}

/// The object that a failure to verify blames.
#[must_use]
pub fn blamed(error: &RestoreError) -> Option<&ObjectKey> {
    match error {
        RestoreError::Missing { key } | RestoreError::Corrupt { key, .. } => Some(key),
        _ => None,
    }
}

/// Marks a durable checkpoint that does not verify: it is never chosen again.
/// Chunks of the object that is to blame are offered to nobody any more, or
/// the next checkpoint would rest on them too.
///
/// # Errors
/// Where the store fails.
pub async fn condemn(
    core: &Core,
    actor: &str,
    key: &str,
    detail: &str,
    blamed: Option<&ObjectKey>,
) -> Result<(), CoreError> {
    for _ in 0..8 {
        let Some(mut row) = core.load::<Checkpoint>(key).await? else { return Ok(()) };
        let Ok(next) = row.body.status.apply(lifecycle::CheckpointEvent::Condemn) else { return Ok(()) };
        let detail: String = detail.chars().take(300).collect();
        row.body.status = next;
        row.body.trouble.clone_from(&detail);
        let mut run: Versioned<Run> = core.need(&row.body.run.to_string()).await?;
        let mut changes = Changes::default();
        changes.0.forget_packs = blamed.iter().map(ToString::to_string).collect();
        if run.body.head.as_ref().is_some_and(|h| h.key == key) {
            run.body.head = newest(core, row.body.run, Some(key)).await?.into_iter().next();
            changes = changes.put(&run);
        }
        let changes = changes.put(&row).note(
            core,
            actor,
            "corrupt",
            key,
            Some(row.body.run),
            json!({"detail": detail}),
        );
        if core.commit(changes).await? {
            return Ok(());
        }
    }
    Err(CoreError::Contended)
}

/// Takes a condemnation back: all of the checkpoint was read and is right. What
/// was damaged was brought back, or it was the way from the store that lied. A
/// pin was lost with it.
///
/// # Errors
/// Where the store fails, or its objects are being deleted.
pub async fn reinstate(core: &Core, actor: &str, key: &str) -> Result<(), CoreError> {
    let mut looked = crate::retain::looking(core).await?;
    for _ in 0..8 {
        let Some(mut row) = core.load::<Checkpoint>(key).await? else { return Ok(()) };
        let Ok(next) = row.body.status.apply(lifecycle::CheckpointEvent::Reinstate) else { return Ok(()) };
        row.body.status = next;
        row.body.trouble.clear();
        let mut run: Versioned<Run> = core.need(&row.body.run.to_string()).await?;
        let mut changes = Changes::default();
        let (reference, head) = (&row.body.manifest, run.body.head.as_ref());
        if !row.body.stray && head.is_none_or(|head| reference.step > head.step) {
            run.body.head = Some(reference.clone());
            run.body.head_bytes = row.body.bytes;
            changes = changes.put(&run);
        }
        let named: Vec<String> = row.body.packs.iter().cloned().chain([key.to_owned()]).collect();
        let Ok(changes) = crate::retain::naming(core, changes, &named, &mut looked).await? else {
            return Err(CoreError::Impossible("its objects are being deleted".into()));
        };
        let detail = json!({"step": row.body.manifest.step});
        let changes = changes.put(&row).note(core, actor, "reinstated", key, Some(row.body.run), detail);
        if core.commit(changes).await? {
            return Ok(());
        }
    }
    Err(CoreError::Contended)
}

/// The durable checkpoints of a run, the one to resume from first: newest
/// step, then newest generation, then last committed.
///
/// # Errors
/// Where the store fails.
pub async fn newest(core: &Core, run: RunId, but: Option<&str>) -> Result<Vec<ManifestRef>, CoreError> {
    let mut rows: Vec<Checkpoint> = core
        .of_run::<Checkpoint>(run)
        .await?
        .into_iter()
        .map(|row| row.body)
        .filter(|c| c.status.is_durable() && !c.stray && but.is_none_or(|key| c.manifest.key != key))
        .collect();
    rows.sort_by_key(|c| {
        std::cmp::Reverse((c.manifest.step, c.generation, c.committed_ms, c.manifest.key.clone()))
    });
    Ok(rows.into_iter().map(|c| c.manifest).collect())
}

/// What an attempt of this run may go on from, the first choice first: its own
/// checkpoints; while there are none, the one that it was forked from and the
/// older ones of that run, or all of the run that it goes on from.
///
/// # Errors
/// Where the store fails.
pub async fn offered(core: &Core, run: &Run) -> Result<Vec<ManifestRef>, CoreError> {
    let mut found = newest(core, run.id, None).await?;
    let (mut fork, mut parent) = (run.fork.clone(), run.parent);
    let mut seen = std::collections::BTreeSet::from([run.id]);
    while let (true, Some(above)) = (found.is_empty(), parent.filter(|id| seen.insert(*id))) {
        found = newest(core, above, None).await?;
        if let Some(fork) = &fork {
            // Named by a person, and never a later one instead; a stray too.
            let origin = &fork.checkpoint;
            found.retain(|other| other.step < origin.step);
            let row = core.load::<Checkpoint>(&origin.key).await?;
            if row.is_some_and(|row| row.body.status.is_durable()) {
                found.insert(0, origin.clone());
            }
            break;
        }
        let row = core.load::<Run>(&above.to_string()).await?.map(|row| row.body);
        (fork, parent) = row.map_or((None, None), |row| (row.fork, row.parent));
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests;
