//! Which checkpoints are complete, and their way to the store. A checkpoint is
//! taken when its format says that it is whole, or, where the format says
//! nothing, when it was renamed into place or has been at rest for the quiet
//! period; in any case only when nobody can write to it; and never twice. All
//! of that is asked again when it was read, before it is committed. What went
//! away before it could be taken is counted and told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use artifacts::complete;
use artifacts::publish::PublishError;
use artifacts::{KeySpace, Kind, ObjectKey, Selection};
use lifecycle::RunSpec;
use proto::v1;

mod local;
mod look;
mod missed;
mod seen;
mod standing;
mod verdicts;
mod watch;
mod word;

pub use local::Relief;
use look::{Look, Spots, look, spots};
use seen::{Open, Seen};
use standing::Standing;
use verdicts::{Facts, Still};
pub use word::{WordError, say};

use super::layout::AttemptDir;
use super::{Candidate, Commit, Published, SharedGateway};
use crate::os;

/// Names looked at in one scan; more are counted, not read.
const NAMES: usize = 10_000;
const FILES: usize = 200_000;

/// The checkpoints of every attempt on the machine.
#[derive(Default)]
pub struct Publishing {
    seen: Mutex<BTreeMap<String, Seen>>,
    /// Made at the first scan; `None` too where the system has no watches left.
    renames: Mutex<Option<os::Renames>>,
}

impl Publishing {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there before the program starts came with the attempt.
    pub fn baseline(&self, dir: &AttemptDir, attempt: &str, spec: &RunSpec) {
        self.watch(dir, std::iter::empty());
        let mut all = self.lock();
        let seen = all.entry(attempt.to_owned()).or_default();
        seen.load(dir);
        for spot in spots(dir, spec).found {
            if let Some(look) = look(&spot.path) {
                seen.known.insert(spot.relative, look.token);
            }
        }
        seen.save(dir);
    }

    /// Forgets an attempt.
    pub fn forget(&self, attempt: &str) {
        self.lock().remove(attempt);
        let mut renames = self.renames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(renames) = &mut *renames {
            renames.keep(Path::exists);
        }
    }

    /// Complete and unpublished, newest first. Reads files, so it blocks.
    pub fn candidates(&self, dir: &AttemptDir, attempt: &str, spec: &RunSpec, last: bool) -> Vec<Candidate> {
        let quiet = Duration::from_secs(spec.checkpoints.quiet_seconds);
        let mut found: Vec<(Option<u64>, (i64, i64), Candidate)> = Vec::new();
        // Watched before it is listed: what comes meanwhile is told.
        let is_full = self.is_due(dir, attempt, spec) || last;
        let places = if is_full { spots(dir, spec) } else { self.open_spots(dir, attempt) };
        let Spots { found: places, gone, flood, links, temporary } = places;
        self.remark(attempt, gone, flood);
        self.watch(dir, places.iter().map(|spot| spot.path.as_path()));
        let words = word::words(dir);
        let mut standings = BTreeMap::new();
        let verdicts = self.lock().entry(attempt.to_owned()).or_default().verdicts.clone();
        for spot in &places {
            let Some(look) = look(&spot.path) else { continue };
            let Some(rested) = self.rested(dir, attempt, &spot.relative, &look) else {
                standings.insert(spot.relative.clone(), Standing::Known);
                continue;
            };
            let rested =
                if last { rested.unwrap_or_default().max(quiet) } else { rested.unwrap_or_default() };
            if rested.is_zero() {
                standings.insert(spot.relative.clone(), Standing::New);
                continue;
            }
            let word = words.get(&spot.relative).filter(|word| word.at >= look.written);
            let is_said = word.is_some();
            let was_moved = look.moved || look.is_file && self.was_renamed(&spot.path);
            let token = &look.token;
            let facts = Facts { path: &spot.path, token, rested, quiet, was_moved, ended: last, is_said };
            let (standing, whole) = {
                let mut verdicts = verdicts::lock(&verdicts);
                let standing = verdicts.standing(&facts);
                (standing, is_said || verdicts.is_whole(&look.token))
            };
            let is_ready = matches!(standing, Standing::Ready { .. });
            standings.insert(spot.relative.clone(), standing);
            if !is_ready {
                continue;
            }
            let name = local::name_of(&spot.path).to_owned();
            let step = word.and_then(|word| word.step).or_else(|| complete::step_of(&name));
            if step.is_none() && flood.is_some() && !whole {
                continue;
            }
            let older = step.is_none() && self.is_older(attempt, &spot.relative, look.written);
            let token = format!("{} {}", look.token, spot.relative);
            found.push((step, look.written, Candidate { token, name, step, older }));
        }
        let temporary = temporary.into_iter().map(|relative| {
            let name = relative.rsplit('/').next().unwrap_or_default().to_owned();
            (relative, Standing::Waits { why: complete::Reason::TemporaryName { name } })
        });
        let links = links.into_iter().map(|(relative, to)| (relative, Standing::Link { to }));
        self.look_back(attempt, standings, temporary.chain(links), (is_full, last));
        found.sort_by_key(|(step, modified, c)| (c.older, std::cmp::Reverse((*step, *modified))));
        found.into_iter().map(|(_, _, candidate)| candidate).collect()
    }

    /// How long a checkpoint has been as it is; `None` within: it was not seen
    /// before. `None`: it needs no publishing.
    fn rested(
        &self,
        dir: &AttemptDir,
        attempt: &str,
        relative: &str,
        look: &Look,
    ) -> Option<Option<Duration>> {
        let mut all = self.lock();
        let seen = all.entry(attempt.to_owned()).or_default();
        seen.load(dir);
        if seen.known.get(relative) == Some(&look.token) {
            return None;
        }
        // It has lost files and gained none since it was published: what is
        // left of it while it is being removed is no checkpoint.
        let (files, newest) = look.files;
        if seen.parts.get(relative).is_some_and(|(had, written)| files < *had && newest <= *written) {
            return None;
        }
        match seen.open.get(relative) {
            Some(open) if open.token == look.token => Some(Some(open.since.elapsed())),
            _ => {
                let (token, inode) = (look.token.clone(), look.inode);
                let open = Open { token, since: Instant::now(), inode, was_fit: false };
                seen.open.insert(relative.to_owned(), open);
                Some(None)
            }
        }
    }

    /// Keeps what people should know of the places, each remark once.
    fn remark(&self, attempt: &str, gone: bool, flood: Option<usize>) {
        let mut all = self.lock();
        let seen = all.entry(attempt.to_owned()).or_default();
        seen.flood = flood;
        let text = match flood {
            Some(entries) => format!(
                "the checkpoint directory holds {entries} entries: only the newest {NAMES} are looked at, and of \
                 those only what a name or a format says to be a checkpoint"
            ),
            None if gone => {
                "the program removed its checkpoint directory ($OUTLAST_CHECKPOINT_DIR): what was \
                             durable stays so, nothing new can be saved there"
                    .to_owned()
            }
            None => return,
        };
        let kind = if gone { 0 } else { 1 };
        if !std::mem::replace(&mut seen.remarked[kind], true) {
            seen.remarks.push(text);
        }
    }

    /// What people should know and were not told yet.
    pub fn remarks(&self, attempt: &str) -> Vec<String> {
        self.lock().get_mut(attempt).map(|seen| std::mem::take(&mut seen.remarks)).unwrap_or_default()
    }

    /// Whether a save without a step was written before what is durable. A
    /// file that is saved over is newer than it was, whatever the clock says.
    fn is_older(&self, attempt: &str, relative: &str, written: (i64, i64)) -> bool {
        let all = self.lock();
        let Some(seen) = all.get(attempt) else { return false };
        !seen.known.contains_key(relative) && seen.newest.is_some_and(|newest| written < newest)
    }

    async fn keys(
        &self,
        work: &v1::Work,
        gateway: &SharedGateway,
    ) -> Result<KeySpace, artifacts::StoreError> {
        if let Some(keys) = self.lock().get_mut(&work.attempt_id).and_then(|s| s.keys.take()) {
            return Ok(keys);
        }
        // An agent before this one may have used numbers of this generation.
        let prefix = ObjectKey::prefix(&work.run_id, work.generation);
        let used = gateway.list(&prefix).await?;
        let next = |class| {
            used.iter().filter_map(ObjectKey::seq).filter(|(c, _)| *c == class).map(|(_, n)| n + 1).max()
        };
        Ok(KeySpace {
            scope: work.run_id.clone(),
            generation: work.generation,
            pack_seq: next(artifacts::key::ObjectClass::Pack).unwrap_or(1),
            manifest_seq: next(artifacts::key::ObjectClass::Manifest).unwrap_or(1),
        })
    }

    fn put_back(&self, attempt: &str, keys: KeySpace) {
        if let Some(seen) = self.lock().get_mut(attempt) {
            seen.keys = Some(keys);
        }
    }

    /// Stores a selection and, if what must still hold then does, commits it.
    async fn send(
        &self,
        work: &v1::Work,
        selection: &Selection,
        gateway: &SharedGateway,
        still: Option<Still>,
    ) -> Published {
        let mut keys = match self.keys(work, gateway).await {
            Ok(keys) => keys,
            Err(error) => return Published::Later(error.to_string()),
        };
        let published = artifacts::publish(selection, &mut keys, &**gateway, &**gateway).await;
        self.put_back(&work.attempt_id, keys);
        let published = match published {
            Ok(published) => published,
            Err(PublishError::Changed { .. }) => return Published::Gone,
            Err(error @ (PublishError::Unfit { .. } | PublishError::Path(_) | PublishError::Manifest(_))) => {
                return Published::Refused(error.to_string());
            }
            Err(error @ PublishError::Io { .. }) => return Published::Local(error.to_string()),
            Err(error) => return Published::Later(error.to_string()),
        };
        let key = published.manifest_key.to_string();
        if let Some(still) = still {
            // What was stored for nothing is never referred to.
            match tokio::task::spawn_blocking(move || still.holds()).await {
                Ok(true) => {}
                Ok(false) => return Published::Gone,
                Err(error) => return Published::Later(error.to_string()),
            }
        }
        match gateway.commit(work, &key, &published.manifest_digest.to_string()).await {
            Commit::Durable => Published::Durable { key, step: published.manifest.step },
            Commit::Superseded => Published::Superseded,
            Commit::Refused(why) => Published::Refused(why),
            Commit::Unknown(why) => Published::Later(why),
        }
    }

    /// Publishes one checkpoint, then the result files that go with it.
    pub async fn checkpoint(
        &self,
        dir: &AttemptDir,
        work: &v1::Work,
        spec: &RunSpec,
        candidate: &Candidate,
        gateway: &SharedGateway,
    ) -> Published {
        let Some((token, relative)) = candidate.token.split_once(' ') else { return Published::Gone };
        let now = os::unix_ms();
        let selection = match relative.strip_prefix("@/") {
            Some(name) => Selection::checkpoint(&dir.checkpoints().join(name), candidate.step, now),
            None => in_source(dir, relative, candidate, now),
        };
        let selection = match selection {
            Ok(selection) => selection,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Published::Gone,
            Err(error) => return Published::Local(error.to_string()),
        };
        let still = Still {
            verdicts: self.lock().entry(work.attempt_id.clone()).or_default().verdicts.clone(),
            path: local::path_of(dir, relative),
            token: token.to_owned(),
            is_said: word::words(dir).contains_key(relative),
        };
        let outcome = self.send(work, &selection, gateway, Some(still)).await;
        if matches!(outcome, Published::Durable { .. } | Published::Refused(_)) {
            let durable = matches!(outcome, Published::Durable { .. });
            self.done(dir, &work.attempt_id, (relative, token), spec, durable);
        }
        if matches!(outcome, Published::Durable { .. }) {
            self.learn(dir, &work.attempt_id, relative, token).await;
            // Results are a service beside the checkpoint: their failure is
            // met again with the next one and at the end.
            let _ = self.outputs(dir, work, spec, gateway).await;
        }
        outcome
    }

    /// What was published teaches what the next one needs.
    async fn learn(&self, dir: &AttemptDir, attempt: &str, relative: &str, token: &str) {
        let Some(verdicts) = self.lock().get(attempt).map(|seen| seen.verdicts.clone()) else { return };
        let (path, token) = (local::path_of(dir, relative), token.to_owned());
        let learned =
            tokio::task::spawn_blocking(move || verdicts::lock(&verdicts).published(&path, &token)).await;
        if let Err(error) = learned {
            tracing::debug!(%error, "a published checkpoint taught nothing");
        }
    }

    fn done(
        &self,
        dir: &AttemptDir,
        attempt: &str,
        (relative, token): (&str, &str),
        spec: &RunSpec,
        is_durable: bool,
    ) {
        let mut all = self.lock();
        let Some(seen) = all.get_mut(attempt) else { return };
        seen.known.insert(relative.to_owned(), token.to_owned());
        seen.open.remove(relative);
        seen.standings.insert(relative.to_owned(), Standing::Known);
        seen.save(dir);
        if !is_durable {
            return;
        }
        if let Some(look) = look(&local::path_of(dir, relative)) {
            seen.newest = seen.newest.max(Some(look.written));
            seen.parts.insert(relative.to_owned(), look.files);
        }
        seen.durable.retain(|(other, _)| other != relative);
        seen.durable.push((relative.to_owned(), token.to_owned()));
        // Only what is durable, never the newest; only in the contract's own
        // directory: what lies elsewhere is the program's to keep.
        let step = |relative: &str| complete::step_of(local::name_of(&local::path_of(dir, relative)));
        let newest = seen.durable.iter().filter_map(|(relative, _)| step(relative)).max();
        let mut surplus = seen.in_contract().saturating_sub(spec.checkpoints.keep_local.max(1) as usize);
        seen.durable.retain(|(old, token)| {
            // The files of one step belong together.
            if surplus == 0 || old == relative || !old.starts_with("@/") || step(old) == newest {
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
                local::remove(&path);
            }
            false
        });
        seen.save_durable(dir);
    }

    /// Publishes the result files, if there are any and they changed.
    pub async fn outputs(
        &self,
        dir: &AttemptDir,
        work: &v1::Work,
        spec: &RunSpec,
        gateway: &SharedGateway,
    ) -> Published {
        let mut globs = spec.artifacts.clone();
        globs.push("results/**".to_owned());
        let root = dir.source();
        let listed = tokio::task::spawn_blocking(move || {
            let paths = artifacts::source::select_globs(&root, &globs)?;
            let mut hasher = blake3::Hasher::new();
            for path in &paths {
                let look = look(&root.join(path)).map_or_else(String::new, |l| l.token);
                hasher.update(look.as_bytes());
            }
            Ok::<_, artifacts::source::SourceError>((paths, root, hasher.finalize().to_hex().to_string()))
        })
        .await;
        let (paths, root, token) = match listed {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Published::Refused(error.to_string()),
            Err(error) => return Published::Later(error.to_string()),
        };
        let same = |seen: &Seen| seen.outputs.as_ref() == Some(&token);
        if paths.is_empty() || self.lock().get(&work.attempt_id).is_some_and(same) {
            // There are none, or the store has these very ones.
            return Published::Gone;
        }
        let selection = Selection {
            root,
            paths,
            kind: Kind::Outputs,
            step: None,
            name: String::new(),
            single_file: false,
            created_ms: os::unix_ms(),
        };
        let outcome = self.send(work, &selection, gateway, None).await;
        if matches!(outcome, Published::Durable { .. }) {
            self.lock().entry(work.attempt_id.clone()).or_default().outputs = Some(token);
        }
        outcome
    }
}

/// A checkpoint saved inside the source tree: its paths start at the root of
/// that tree, so that it can go back in place.
fn in_source(
    dir: &AttemptDir,
    relative: &str,
    candidate: &Candidate,
    now: u64,
) -> std::io::Result<Selection> {
    let glob = globset::escape(relative);
    let root = dir.source();
    std::fs::symlink_metadata(root.join(relative))?;
    let paths = artifacts::source::select_globs(&root, &[glob]).map_err(std::io::Error::other)?;
    Ok(Selection {
        root,
        paths,
        kind: Kind::Checkpoint,
        step: candidate.step,
        name: candidate.name.clone(),
        single_file: false,
        created_ms: now,
    })
}

#[cfg(test)]
mod tests;
