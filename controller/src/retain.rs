//! Lets go of checkpoints that no rule keeps, and deletes from the artifact
//! store what nothing names any more. Nobody else deletes there. What is
//! decided is [`lifecycle::retention`] and [`lifecycle::sweep`]; this reads the
//! rows, writes what was decided and deletes. It never reads a pack, and a
//! kill at any moment leaves objects too many, never too few.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use artifacts::ObjectKey;
use artifacts::key::ObjectClass;
use artifacts::manifest::Description;
use lifecycle::retention::{self, Need, Reason, Save};
use lifecycle::sweep::Sweep;
use lifecycle::{CheckpointEvent, CheckpointState, RunId};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::core::{Changes, Core, CoreError};
use crate::execute::{OFFERED, SELF};
use crate::model::{Checkpoint, Leaving, ManifestRef, Run, Versioned};

#[cfg(test)]
pub(crate) mod tests;

const DAY_MS: u64 = 86_400_000;
const FIRST: Duration = Duration::from_secs(600);
const EVERY: Duration = Duration::from_secs(3_600);
/// Objects deleted in one turn.
const MOST: usize = 2_000;
/// Of checkpoints named in one journal entry.
const NAMED: usize = 50;

/// How long what nothing names any more is left alone.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    /// What an unlinked checkpoint named.
    pub unlinked_ms: u64,
    /// What no row ever named: it may be a machine's that is still at work.
    pub leaked_ms: u64,
}

impl Default for Grace {
    fn default() -> Self {
        Self { unlinked_ms: DAY_MS, leaked_ms: 7 * DAY_MS }
    }
}

/// What one turn did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Checkpoints let go.
    pub unlinked: u64,
    /// Objects that wait for the end of the grace period.
    pub waiting: u64,
    /// Objects deleted.
    pub deleted: u64,
}

/// One durable checkpoint and why it stays; without a reason it goes.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Its row.
    pub row: Versioned<Checkpoint>,
    /// Why it stays.
    pub reasons: BTreeSet<Reason>,
}

/// How many objects were gone when somebody began to look for packs: that takes
/// minutes where there are thousands, and what was found first may go meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looked(u64);

/// To be asked before packs are looked for that a commit will name.
///
/// # Errors
/// Where the store fails.
pub(crate) async fn looking(core: &Core) -> Result<Looked, CoreError> {
    Ok(Looked(leaving(core).await?.body.sweep.deleted))
}

/// Commits that name these packs take part in the sweep: the changes may only
/// happen while the record is as it was read. If anything was deleted since the
/// packs were looked for, they are looked for again.
///
/// # Errors
/// Where a store fails. `Ok(Err(pack))`: that pack is gone or going, and what
/// names it must be published again.
pub(crate) async fn naming(
    core: &Core,
    changes: Changes,
    packs: &[String],
    looked: &mut Looked,
) -> Result<Result<Changes, String>, CoreError> {
    let mut leaving = leaving(core).await?;
    let changes = match leaving.body.sweep.name(packs.iter().map(String::as_str)) {
        Err(pack) => return Ok(Err(pack.to_owned())),
        Ok(true) => changes.put(&leaving),
        Ok(false) => changes.expect(&leaving),
    };
    if leaving.body.sweep.deleted != looked.0 {
        if let Some(pack) = crate::durable::absent(core, packs).await? {
            return Ok(Err(pack));
        }
        *looked = Looked(leaving.body.sweep.deleted);
    }
    Ok(Ok(changes))
}

async fn leaving(core: &Core) -> Result<Versioned<Leaving>, CoreError> {
    Ok(core.load::<Leaving>("leaving").await?.unwrap_or_else(|| Versioned::new(Leaving::default())))
}

/// Judges the durable checkpoints of a run.
///
/// # Errors
/// Where the store fails.
pub async fn judge(core: &Core, run: &Run, family: &Family) -> Result<Vec<Judged>, CoreError> {
    let mut rows: Vec<Versioned<Checkpoint>> = core.of_run(run.id).await?;
    rows.retain(|row| row.body.status.is_durable());
    let offered = crate::durable::newest(core, run.id, None).await?;
    let offered: BTreeSet<&str> = offered.iter().take(OFFERED).map(|m| m.key.as_str()).collect();
    let forked = family.parents.contains(&run.id);
    let need = |c: &Checkpoint| {
        let key = c.manifest.key.as_str();
        if family.origins.contains(key) {
            return Some(Need::Fork);
        }
        let is_head = run.head.as_ref().is_some_and(|head| head.key == key);
        (offered.contains(key) || is_head)
            .then(|| if run.status.is_final() { forked.then_some(Need::Fork) } else { Some(Need::Live) })
            .flatten()
    };
    let save = |c: &'_ Checkpoint| (c.manifest.key.clone(), need(c));
    let needs: BTreeMap<String, Option<Need>> = rows.iter().map(|row| save(&row.body)).collect();
    let now = core.clock.wall_ms();
    let rule = run.spec.checkpoints.keep;
    let all: Vec<Checkpoint> = rows.iter().map(|row| row.body.clone()).collect();
    let scores = crate::best::of(core, run, &all).await?;
    let best = run.spec.checkpoints.best.as_ref();
    let of = |stray: bool| -> Vec<Save<'_>> {
        let rows = rows.iter().map(|row| &row.body).filter(|c| c.stray == stray);
        rows.map(|c| Save {
            key: &c.manifest.key,
            step: c.manifest.step,
            committed_ms: c.committed_ms,
            pinned: c.status == CheckpointState::Pinned,
            score: scores.get(&c.manifest.key).zip(best).map(|(value, best)| best.turned(*value)),
            needed: needs.get(&c.manifest.key).copied().flatten(),
        })
        .collect()
    };
    let mut reasons: BTreeMap<String, BTreeSet<Reason>> = BTreeMap::new();
    for stray in [false, true] {
        let saves = of(stray);
        for (key, why) in retention::plan(&rule, &saves, now).keep {
            reasons.insert(key.to_owned(), why);
        }
    }
    let judged = |row: Versioned<Checkpoint>| {
        let reasons = reasons.remove(&row.body.manifest.key).unwrap_or_default();
        Judged { row, reasons }
    };
    Ok(rows.into_iter().map(judged).collect())
}

/// What other runs need of a run.
#[derive(Debug, Clone, Default)]
pub struct Family {
    /// Runs whose newest checkpoints one that has not ended may go on from.
    pub parents: BTreeSet<RunId>,
    /// Checkpoints that runs were forked from, by key: they stay as long as
    /// there is such a run, or nobody could tell what it was made of.
    pub origins: BTreeSet<String>,
}

/// What runs need of each other.
#[must_use]
pub fn family(runs: &[Versioned<Run>]) -> Family {
    // A fork has one checkpoint and needs no other.
    let above = |run: &Run| if run.fork.is_some() { None } else { run.parent };
    let parents: BTreeMap<RunId, Option<RunId>> = runs.iter().map(|r| (r.body.id, above(&r.body))).collect();
    let mut found = Family::default();
    for run in runs {
        found.origins.extend(run.body.fork.as_ref().map(|fork| fork.checkpoint.key.clone()));
        if run.body.status.is_final() {
            continue;
        }
        let mut next = above(&run.body);
        while let Some(id) = next
            && found.parents.insert(id)
        {
            next = parents.get(&id).copied().flatten();
        }
    }
    found
}

/// Whoever tidies up. What it remembers of manifests it could read again.
#[derive(Debug, Default)]
pub struct Keeper {
    /// Immutable, so never stale: manifest -> its packs.
    packs: BTreeMap<String, Vec<String>>,
}

/// Tidies up until it is told to end.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut keeper = Keeper::default();
    let mut wait = FIRST;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = EVERY;
        match keeper.turn(&core, Grace::default()).await {
            Ok(report) => tracing::info!(?report, "checkpoints were tidied up"),
            Err(error) => {
                tracing::warn!(%error, "checkpoints could not be tidied up; tried again in an hour");
            }
        }
    }
}

impl Keeper {
    /// Unlinks, looks for what may go, deletes what is due.
    ///
    /// # Errors
    /// Where a store fails; what was done by then is right.
    pub async fn turn(&mut self, core: &Core, grace: Grace) -> Result<Report, CoreError> {
        let unlinked = unlink(core).await?;
        let Some(record) = self.look(core, grace).await? else {
            // Somebody committed meanwhile; the next turn looks again.
            return Ok(Report { unlinked, ..Report::default() });
        };
        let deleted = delete(core, record.going.iter()).await?;
        Ok(Report { unlinked, waiting: record.doomed.len() as u64, deleted })
    }

    /// Looks at everything and writes what is doomed and what goes. The record
    /// is read first: whoever names an object after that has changed it.
    async fn look(&mut self, core: &Core, grace: Grace) -> Result<Option<Sweep>, CoreError> {
        let mut row = leaving(core).await?;
        if row.body.restore_count != core.restore_count {
            // Rows of another time: what seems unnamed may be named in rows
            // that are not there any more. The grace begins anew.
            row.body = Leaving { sweep: Sweep::default(), restore_count: core.restore_count };
        }
        let before = row.body.sweep.clone();
        let live = self.live(core).await?;
        let live: BTreeSet<&str> = live.iter().map(String::as_str).collect();
        let all = deletable(core).await?;
        let unlinked = self.unlinked(core).await?;
        let now = core.clock.wall_ms();
        let sweep = &mut row.body.sweep;
        sweep.doom(all.iter().map(String::as_str), &live, now);
        // An object that is not there any more needs no deletion.
        sweep.doomed.retain(|key, _| all.contains(key));
        let held: BTreeSet<&str> = live
            .iter()
            .copied()
            .chain(all.iter().map(String::as_str).filter(|key| !unlinked.contains(*key)))
            .collect();
        sweep.condemn(&held, now, grace.unlinked_ms, MOST);
        // What is being imported grows: none of it goes before all of it was left
        // alone for so long.
        let imports = imports(core, &all).await?;
        let young =
            |key: &str| sweep.doomed.get(key).is_some_and(|at| now < at.saturating_add(grace.leaked_ms));
        let busy: BTreeSet<&str> =
            imports.iter().filter(|(_, key)| young(key)).map(|(scope, _)| scope.as_str()).collect();
        let growing = imports.iter().filter(|(scope, _)| busy.contains(scope.as_str()));
        let held: BTreeSet<&str> = live.iter().copied().chain(growing.map(|(_, key)| key.as_str())).collect();
        sweep.condemn(&held, now, grace.leaked_ms, MOST);
        if *sweep == before && row.version.is_some() {
            return Ok(Some(before));
        }
        let record = sweep.clone();
        let mut changes = Changes::default().put(&row);
        changes.0.forget_packs = record.going.difference(&before.going).cloned().collect();
        Ok(core.commit_quietly(changes).await?.then_some(record))
    }

    /// Every object that something kept names.
    async fn live(&mut self, core: &Core) -> Result<BTreeSet<String>, CoreError> {
        let mut live = BTreeSet::new();
        for row in core.all::<Checkpoint>().await? {
            if row.body.status.is_durable() {
                live.extend(self.named(core, &row.body.manifest, &row.body.packs).await?);
            }
        }
        for run in core.all::<Run>().await? {
            live.extend(self.named(core, &run.body.source, &[]).await?);
            if let Some(outputs) = &run.body.outputs {
                live.extend(self.named(core, outputs, &[]).await?);
            }
        }
        Ok(live)
    }

    /// What unlinked checkpoints named.
    async fn unlinked(&mut self, core: &Core) -> Result<BTreeSet<String>, CoreError> {
        let mut named = BTreeSet::new();
        for row in core.all::<Checkpoint>().await? {
            if row.body.status == CheckpointState::Unlinked {
                named.extend(self.named(core, &row.body.manifest, &row.body.packs).await?);
            }
        }
        Ok(named)
    }

    /// A manifest's key and its packs. One that cannot be read now is an
    /// error, not a manifest without packs.
    async fn named(
        &mut self,
        core: &Core,
        manifest: &ManifestRef,
        packs: &[String],
    ) -> Result<Vec<String>, CoreError> {
        let own = std::iter::once(manifest.key.clone());
        if !packs.is_empty() {
            return Ok(own.chain(packs.iter().cloned()).collect());
        }
        if let Some(packs) = self.packs.get(&manifest.key) {
            return Ok(own.chain(packs.iter().cloned()).collect());
        }
        let packs = match packs_of(core, &manifest.key).await {
            Ok(packs) => packs,
            // Gone or damaged for good: it keeps nothing.
            Err(Unread::Gone) => Vec::new(),
            Err(Unread::Passing(error)) => return Err(error),
        };
        self.packs.insert(manifest.key.clone(), packs.clone());
        Ok(own.chain(packs).collect())
    }
}

enum Unread {
    Gone,
    Passing(CoreError),
}

async fn packs_of(core: &Core, key: &str) -> Result<Vec<String>, Unread> {
    let key: ObjectKey = key.parse().map_err(|_| Unread::Gone)?;
    let passing = |error: artifacts::StoreError| match error {
        artifacts::StoreError::Missing(_) | artifacts::StoreError::OutOfRange { .. } => Unread::Gone,
        error => Unread::Passing(error.into()),
    };
    let size = core.objects.size(&key).await.map_err(passing)?.ok_or(Unread::Gone)?;
    if size > artifacts::manifest::MAX_BYTES {
        return Err(Unread::Gone);
    }
    let bytes = core.objects.get(&key, 0, size).await.map_err(passing)?;
    // What is sealed names its packs in the clear.
    let tree = Description::parse(&bytes).map_err(|error| match crate::durable::is_later(&error) {
        // It names packs all the same: nothing is deleted until it can be read.
        true => Unread::Passing(CoreError::Impossible(format!("{key}: {error}"))),
        false => Unread::Gone,
    })?;
    Ok(tree.packs().iter().map(ToString::to_string).collect())
}

/// Of objects that may be deleted those of runs that are not there, each with
/// its scope.
async fn imports(core: &Core, all: &BTreeSet<String>) -> Result<Vec<(String, String)>, CoreError> {
    let runs: BTreeSet<String> =
        core.all::<Run>().await?.into_iter().map(|run| run.body.id.to_string()).collect();
    let scoped = all.iter().filter_map(|key| Some((key.split_once('/')?.0.to_owned(), key.clone())));
    Ok(scoped.filter(|(scope, _)| !runs.contains(scope)).collect())
}

/// Every object that may be deleted at all: numbered ones of runs, but not of
/// the generation that a run is at work in; and the packs of an import that came
/// to nothing. An import has generation 0 and no run until it is done; without a
/// manifest nobody can make one of it. One with a manifest stays: its rows may
/// have been lost, and it may be all that is left of a run.
async fn deletable(core: &Core) -> Result<BTreeSet<String>, CoreError> {
    let runs: BTreeMap<String, Run> =
        core.all::<Run>().await?.into_iter().map(|run| (run.body.id.to_string(), run.body)).collect();
    let all = core.objects.list("").await?;
    let is = |key: &ObjectKey, wanted| matches!(key.seq(), Some((class, _)) if class == wanted);
    let described: BTreeSet<&str> =
        all.iter().filter(|key| is(key, ObjectClass::Manifest)).map(ObjectKey::scope).collect();
    let may_go = |key: &ObjectKey| match runs.get(key.scope()) {
        Some(run) => {
            key.seq().is_some() && (run.status.is_final() || key.generation() < Some(run.generation.as_u64()))
        }
        None => {
            is(key, ObjectClass::Pack)
                && key.generation() == Some(0)
                && key.scope().parse::<RunId>().is_ok()
                && !described.contains(key.scope())
                // After a restore from a backup rows may be missing, and what
                // was never adopted may name a part of such an import.
                && core.restore_count == 0
        }
    };
    Ok(all.iter().filter(|key| may_go(key)).map(ToString::to_string).collect())
}

/// Lets go of what no rule keeps.
async fn unlink(core: &Core) -> Result<u64, CoreError> {
    let runs: Vec<Versioned<Run>> = core.all().await?;
    let family = family(&runs);
    let mut count = 0;
    for run in &runs {
        let judged = judge(core, &run.body, &family).await?;
        let mut going: Vec<Versioned<Checkpoint>> =
            judged.into_iter().filter(|j| j.reasons.is_empty()).map(|j| j.row).collect();
        if going.is_empty() {
            continue;
        }
        // The run must be as it was judged.
        let mut changes = Changes::default().expect(run);
        let mut steps = Vec::new();
        for row in &mut going {
            row.body.status = row.body.status.apply(CheckpointEvent::Unlink)?;
            steps.push(row.body.manifest.step);
            changes = changes.put(row);
        }
        let id = run.body.id;
        let named: Vec<_> = steps.iter().take(NAMED).collect();
        let detail = json!({"checkpoints": steps.len(), "steps": named});
        if core.commit(changes.note(core, SELF, "unlinked", id, Some(id), detail)).await? {
            count += steps.len() as u64;
        }
    }
    Ok(count)
}

/// Deletes what goes: packs first, so that a manifest outlives what it names
/// and a kill in between is seen at the next turn.
async fn delete(core: &Core, going: impl Iterator<Item = &String>) -> Result<u64, CoreError> {
    let mut keys: Vec<ObjectKey> = going.filter_map(|key| key.parse().ok()).collect();
    keys.sort_by_key(|key| matches!(key.seq(), Some((ObjectClass::Manifest, _))));
    for key in &keys {
        core.known.forget(key);
        core.objects.delete(key).await?;
    }
    if keys.is_empty() {
        return Ok(0);
    }
    for _ in 0..8 {
        let mut record = leaving(core).await?;
        let mut changes = Changes::default();
        for key in &keys {
            record.body.sweep.gone(key.as_str());
            if !matches!(key.seq(), Some((ObjectClass::Manifest, _))) {
                continue;
            }
            if let Some(mut row) = core.load::<Checkpoint>(key.as_str()).await?
                && let Ok(next) = row.body.status.apply(CheckpointEvent::Delete)
            {
                row.body.status = next;
                row.body.packs.clear();
                changes = changes.put(&row);
            }
        }
        let detail = json!({"objects": keys.len()});
        let changes = changes.put(&record).note(core, SELF, "deleted", "artifacts", None, detail);
        if core.commit_quietly(changes).await? {
            return Ok(keys.len() as u64);
        }
    }
    Err(CoreError::Contended)
}
