//! Which checkpoints are complete, and their way to the store. A checkpoint is
//! taken when its format says that it is whole, or, where the format says
//! nothing, when it was renamed into place or has been at rest for the quiet
//! period; and never twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use artifacts::complete::{self, Completeness};
use artifacts::publish::PublishError;
use artifacts::{KeySpace, Kind, ObjectKey, Selection};
use lifecycle::RunSpec;
use proto::v1;

mod local;
mod look;

pub use local::Relief;
use look::{Look, Spots, look, spots};

use super::layout::AttemptDir;
use super::{Candidate, Commit, Published, SharedGateway};
use crate::os;

/// Names looked at in one scan; more are counted, not read.
const NAMES: usize = 10_000;
const FILES: usize = 200_000;

/// What is remembered of one attempt's checkpoints.
#[derive(Default)]
struct Seen {
    /// Relative path -> the very bytes, and since when they have been so.
    rest: BTreeMap<String, (String, Instant)>,
    /// Tokens that need no publishing; kept on disk.
    known: BTreeMap<String, String>,
    loaded: bool,
    /// Copies of what is durable, oldest first: relative path and the very
    /// bytes; kept on disk.
    durable: Vec<(String, String)>,
    /// When the newest durable one was last written.
    newest: Option<(i64, i64)>,
    /// For people, not told yet; and which kinds were told.
    remarks: Vec<String>,
    remarked: [bool; 2],
    /// Judged by content already: token -> verdict.
    judged: BTreeMap<String, Judged>,
    keys: Option<KeySpace>,
    /// Names the result files that were published last.
    outputs: Option<String>,
}

/// What the format of some bytes says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    Whole,
    Torn,
    Unknown,
}

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

    /// Hears of renames in the places of checkpoints from now on.
    fn watch<'a>(&self, dir: &AttemptDir, paths: impl Iterator<Item = &'a Path>) {
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

    fn was_renamed(&self, path: &Path) -> bool {
        let mut renames = self.renames.lock().unwrap_or_else(PoisonError::into_inner);
        renames.as_mut().is_some_and(|renames| renames.has(path))
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
        let Spots { found: places, gone, flood } = spots(dir, spec);
        self.remark(attempt, gone, flood);
        self.watch(dir, places.iter().map(|spot| spot.path.as_path()));
        for spot in places {
            let Some(Look { token, written: modified, moved, is_file, .. }) = look(&spot.path) else {
                continue;
            };
            let moved = moved || is_file && self.was_renamed(&spot.path);
            let rested = {
                let mut all = self.lock();
                let seen = all.entry(attempt.to_owned()).or_default();
                seen.load(dir);
                if seen.known.get(&spot.relative) == Some(&token) {
                    continue;
                }
                match seen.rest.get(&spot.relative) {
                    Some((same, since)) if *same == token => Some(since.elapsed()),
                    _ => {
                        seen.rest.insert(spot.relative.clone(), (token.clone(), Instant::now()));
                        None
                    }
                }
            };
            let rested = if last { quiet } else { rested.unwrap_or(Duration::ZERO) };
            let at_rest = moved || rested >= quiet;
            if rested.is_zero() || !self.is_complete(attempt, &spot.path, &token, at_rest) {
                continue;
            }
            let name = spot.path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
            let step = complete::step_of(&name);
            if step.is_none() && flood.is_some() && !self.is_whole(attempt, &token) {
                continue;
            }
            let older = step.is_none() && self.is_older(attempt, &spot.relative, modified);
            let token = format!("{token} {}", spot.relative);
            found.push((step, modified, Candidate { token, name, step, older }));
        }
        found.sort_by_key(|(step, modified, c)| (c.older, std::cmp::Reverse((*step, *modified))));
        found.into_iter().map(|(_, _, candidate)| candidate).collect()
    }

    /// Keeps what people should know of the places, each remark once.
    fn remark(&self, attempt: &str, gone: bool, flood: Option<usize>) {
        let mut all = self.lock();
        let seen = all.entry(attempt.to_owned()).or_default();
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

    /// Whether the format says that these bytes are a whole checkpoint.
    fn is_whole(&self, attempt: &str, token: &str) -> bool {
        self.lock().get(attempt).is_some_and(|seen| seen.judged.get(token) == Some(&Judged::Whole))
    }

    /// Whether a save without a step was written before what is durable. A
    /// file that is saved over is newer than it was, whatever the clock says.
    fn is_older(&self, attempt: &str, relative: &str, written: (i64, i64)) -> bool {
        let all = self.lock();
        let Some(seen) = all.get(attempt) else { return false };
        !seen.known.contains_key(relative) && seen.newest.is_some_and(|newest| written < newest)
    }

    fn is_complete(&self, attempt: &str, path: &Path, token: &str, at_rest: bool) -> bool {
        let cached = self.lock().get(attempt).and_then(|s| s.judged.get(token).copied());
        let judged = cached.unwrap_or_else(|| match complete::judge(path) {
            Completeness::Complete { .. } => Judged::Whole,
            Completeness::Unknown => Judged::Unknown,
            Completeness::Incomplete { .. } => Judged::Torn,
        });
        if cached.is_none()
            && let Some(seen) = self.lock().get_mut(attempt)
        {
            // The same bytes have the same verdict; no file is read twice.
            if seen.judged.len() > NAMES {
                seen.judged.clear();
            }
            seen.judged.insert(token.to_owned(), judged);
        }
        judged == Judged::Whole || judged == Judged::Unknown && at_rest
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

    async fn send(&self, work: &v1::Work, selection: &Selection, gateway: &SharedGateway) -> Published {
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
        let outcome = self.send(work, &selection, gateway).await;
        if matches!(outcome, Published::Durable { .. } | Published::Refused(_)) {
            let durable = matches!(outcome, Published::Durable { .. });
            self.done(dir, &work.attempt_id, (relative, token), spec, durable);
        }
        if matches!(outcome, Published::Durable { .. }) {
            // Results are a service beside the checkpoint: their failure is
            // met again with the next one and at the end.
            let _ = self.outputs(dir, work, spec, gateway).await;
        }
        outcome
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
        seen.judged.remove(token);
        seen.save(dir);
        if !is_durable {
            return;
        }
        if let Some(look) = look(&local::path_of(dir, relative)) {
            seen.newest = seen.newest.max(Some(look.written));
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
        let outcome = self.send(work, &selection, gateway).await;
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

impl Seen {
    fn load(&mut self, dir: &AttemptDir) {
        if !self.loaded {
            self.loaded = true;
            if let Ok(bytes) = os::read_bounded(&dir.known(), 16 << 20) {
                self.known = serde_json::from_slice(&bytes).unwrap_or_default();
            }
            if let Ok(bytes) = os::read_bounded(&dir.durable(), 16 << 20) {
                self.durable = serde_json::from_slice(&bytes).unwrap_or_default();
            }
            let kept = self.durable.iter().filter_map(|(relative, token)| {
                look(&local::path_of(dir, relative)).filter(|look| look.token == *token)
            });
            self.newest = kept.map(|look| look.written).max();
        }
    }

    /// Copies in the contract's own directory.
    fn in_contract(&self) -> usize {
        self.durable.iter().filter(|(relative, _)| relative.starts_with("@/")).count()
    }

    fn save_durable(&self, dir: &AttemptDir) {
        // Losing it costs only that these copies stay.
        let bytes = serde_json::to_vec(&self.durable).unwrap_or_default();
        if let Err(error) = os::write_durable(&dir.durable(), &bytes) {
            tracing::warn!(%error, "which local copies are durable could not be written");
        }
    }

    fn save(&self, dir: &AttemptDir) {
        // Losing it costs a second publish of what is there already.
        let bytes = serde_json::to_vec(&self.known).unwrap_or_default();
        if let Err(error) = os::write_durable(&dir.known(), &bytes) {
            tracing::warn!(%error, "which checkpoints are known could not be written");
        }
    }
}

#[cfg(test)]
mod tests;
