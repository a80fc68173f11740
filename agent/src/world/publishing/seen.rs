//! What is remembered of one attempt's checkpoints. What must outlive the
//! agent is a cache all the same: the disk and the store tell it again, at the
//! price of publishing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::asked::Answers;
use super::look::{Look, look};
use super::standing::Standing;
use super::verdicts::{GRAVE, Verdicts};
use super::word::Words;
use super::{copy, local};
use crate::os;
use crate::world::layout::AttemptDir;

/// What so many checkpoints were made of is remembered.
const MOST: usize = 10_000;
/// Texts told of one attempt's checkpoints.
const TEXTS: usize = 16;

/// A checkpoint that was seen and is not published.
pub(super) struct Open {
    /// The very bytes.
    pub(super) token: String,
    /// Since when they have been so.
    pub(super) since: Instant,
    /// Tells it from another one after a rename.
    pub(super) inode: (u64, u64),
    /// It was complete, or only its rest was missing.
    pub(super) was_fit: bool,
    /// Its program or its user said that it is finished.
    pub(super) is_said: bool,
    /// How many files it has, and when one of them was last written.
    files: Files,
    /// It has lost files and gained none.
    shrinks: bool,
    /// It was fit and was saved over before it was published.
    is_again: bool,
    /// The size of all its files.
    bytes: u64,
    /// How often it was saved over while it rested, since it was taken last.
    pub(super) rewrites: u32,
    /// That it is not taken was told.
    pub(super) is_told: bool,
}

type Files = (usize, (i64, i64));

/// How long a checkpoint has been as it is.
pub(super) enum Rest {
    /// It needs no publishing.
    Known,
    /// It is being removed.
    Shrinks,
    /// It was not seen so before.
    New,
    /// So long.
    For(Duration),
}

/// An attempt's, locked; perhaps while a disk is waited for.
pub(super) fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
pub(super) struct Seen {
    /// Relative path -> what is not published yet.
    pub(super) open: BTreeMap<String, Open>,
    /// Tokens that need no publishing; kept on disk.
    pub(super) known: BTreeMap<String, String>,
    /// Relative path -> files and newest write of what was published: a
    /// directory that has only lost files since is being removed.
    pub(super) parts: BTreeMap<String, Files>,
    /// What the user's own check said.
    pub(super) answers: Answers,
    /// The program's words, as of the last change of their directory.
    pub(super) words: Words,
    loaded: bool,
    /// Known, stored, and not said to be durable yet.
    pub(super) stored: BTreeSet<String>,
    /// Copies of what is durable, oldest first: relative path and the very
    /// bytes; kept on disk.
    pub(super) durable: Vec<(String, String)>,
    /// When the newest durable one was last written.
    pub(super) newest: Option<(i64, i64)>,
    /// For people, not told yet; and which kinds were told.
    pub(super) remarks: Vec<String>,
    pub(super) remarked: [bool; 3],
    /// Texts that name something by itself, told once each.
    pub(super) told_texts: BTreeSet<String>,
    /// How many were told of that are not taken.
    pub(super) refusals: usize,
    /// Fit ones that went away before they were published.
    pub(super) missed: u64,
    /// Where each one stood at the last look.
    pub(super) standings: BTreeMap<String, Standing>,
    /// Locked for as long as files are read: never while this is.
    pub(super) verdicts: Arc<Mutex<Verdicts>>,
    /// Entries of the checkpoint directory, where there are too many.
    pub(super) flood: Option<usize>,
    /// Tells whether anything changed; `None` within: nothing can tell.
    pub(super) tree: Option<Option<os::TreeChanges>>,
    /// When all places were looked at last, how long that took, and whether
    /// something has changed since.
    pub(super) looked: Option<(Instant, Duration)>,
    pub(super) changed: bool,
}

impl Seen {
    pub(super) fn load(&mut self, dir: &AttemptDir) {
        if !self.loaded {
            self.loaded = true;
            copy::sweep(dir);
            if let Ok(bytes) = os::read_bounded(&dir.known(), 16 << 20) {
                self.known = serde_json::from_slice(&bytes).unwrap_or_default();
            }
            if let Ok(bytes) = os::read_bounded(&dir.durable(), 16 << 20) {
                self.durable = serde_json::from_slice(&bytes).unwrap_or_default();
            }
            if let Ok(bytes) = os::read_bounded(&parts(dir), 16 << 20) {
                self.parts = serde_json::from_slice(&bytes).unwrap_or_default();
            }
            let kept = self.durable.iter().filter_map(|(relative, token)| {
                look(&local::path_of(dir, relative)).filter(|look| look.token == *token)
            });
            self.newest = kept.map(|look| look.written).max();
        }
    }

    /// How long a checkpoint has been as it is; what is found new begins now.
    pub(super) fn rest(&mut self, relative: &str, look: &Look, quiet: Duration) -> Rest {
        if self.known.get(relative) == Some(&look.token) {
            return Rest::Known;
        }
        // What is left of it while it is being removed is no checkpoint.
        let (files, newest) = look.files;
        let fewer = |had: &Files| files < had.0 && newest <= had.1;
        if self.parts.get(relative).is_some_and(fewer) {
            return Rest::Known;
        }
        let before = self.open.get(relative);
        if let Some(open) = before.filter(|open| open.token == look.token) {
            let rested = open.since.elapsed();
            // A removal that came to nothing: what is left is judged as it is.
            let stays = rested >= quiet.saturating_mul(GRAVE);
            return if open.shrinks && !stays { Rest::Shrinks } else { Rest::For(rested) };
        }
        let shrinks = before.is_some_and(|open| fewer(&open.files));
        // What grows is being written for the first time.
        let rested = matches!(self.standings.get(relative), Some(Standing::Rests { .. }));
        let is_rewritten = rested && before.is_some_and(|open| look.bytes <= open.bytes);
        let open = Open {
            token: look.token.clone(),
            since: Instant::now(),
            inode: look.inode,
            was_fit: shrinks && before.is_some_and(|open| open.was_fit),
            is_said: false,
            files: look.files,
            shrinks,
            is_again: before.is_some_and(|open| open.is_again || open.was_fit && !shrinks),
            bytes: look.bytes,
            rewrites: before.map_or(0, |open| open.rewrites) + u32::from(is_rewritten && !shrinks),
            is_told: before.is_some_and(|open| open.is_told),
        };
        self.open.insert(relative.to_owned(), open);
        if shrinks { Rest::Shrinks } else { Rest::New }
    }

    /// Whether its program saves over it again and again.
    pub(super) fn is_rewritten(&self, relative: &str, token: &str) -> bool {
        self.known.get(relative).is_some_and(|known| known != token)
            || self.open.get(relative).is_some_and(|open| open.is_again)
    }

    /// Keeps a text for people, unless it was told already or there were too
    /// many.
    pub(super) fn remark_once(&mut self, text: String) {
        if self.told_texts.len() < TEXTS && self.told_texts.insert(text.clone()) {
            self.remarks.push(text);
        }
    }

    /// Copies in the contract's own directory.
    pub(super) fn in_contract(&self) -> usize {
        self.durable.iter().filter(|(relative, _)| relative.starts_with("@/")).count()
    }

    pub(super) fn save_durable(&mut self, dir: &AttemptDir) {
        if self.parts.len() > MOST {
            let kept = &self.durable;
            self.parts.retain(|path, _| kept.iter().any(|(durable, _)| durable == path));
        }
        // Losing it costs only that these copies stay.
        let bytes = serde_json::to_vec(&self.durable).unwrap_or_default();
        if let Err(error) = os::write_durable(&dir.durable(), &bytes) {
            tracing::warn!(%error, "which local copies are durable could not be written");
        }
        // Without it what is left of a removed one may be taken for a new one.
        let bytes = serde_json::to_vec(&self.parts).unwrap_or_default();
        if let Err(error) = os::write_durable(&parts(dir), &bytes) {
            tracing::warn!(%error, "what durable checkpoints are made of could not be written");
        }
    }

    pub(super) fn save(&self, dir: &AttemptDir) {
        // Losing it costs a second publish of what is there already.
        let bytes = serde_json::to_vec(&self.known).unwrap_or_default();
        if let Err(error) = os::write_durable(&dir.known(), &bytes) {
            tracing::warn!(%error, "which checkpoints are known could not be written");
        }
    }
}

/// What durable checkpoints are made of.
fn parts(dir: &AttemptDir) -> PathBuf {
    dir.durable().with_file_name("parts.json")
}
