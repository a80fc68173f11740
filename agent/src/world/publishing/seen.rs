//! What is remembered of one attempt's checkpoints. What must outlive the
//! agent is a cache all the same: the disk and the store tell it again, at the
//! price of publishing twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use artifacts::KeySpace;

use super::local;
use super::look::look;
use super::standing::Standing;
use super::verdicts::Verdicts;
use crate::os;
use crate::world::layout::AttemptDir;

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
}

#[derive(Default)]
pub(super) struct Seen {
    /// Relative path -> what is not published yet.
    pub(super) open: BTreeMap<String, Open>,
    /// Tokens that need no publishing; kept on disk.
    pub(super) known: BTreeMap<String, String>,
    /// Relative path -> files and newest write of what was published: a
    /// directory that has only lost files since is being removed.
    pub(super) parts: BTreeMap<String, (usize, (i64, i64))>,
    loaded: bool,
    /// Copies of what is durable, oldest first: relative path and the very
    /// bytes; kept on disk.
    pub(super) durable: Vec<(String, String)>,
    /// When the newest durable one was last written.
    pub(super) newest: Option<(i64, i64)>,
    /// For people, not told yet; and which kinds were told.
    pub(super) remarks: Vec<String>,
    pub(super) remarked: [bool; 2],
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
    /// When all places were looked at last.
    pub(super) looked: Option<Instant>,
    pub(super) keys: Option<KeySpace>,
    /// Names the result files that were published last.
    pub(super) outputs: Option<String>,
}

impl Seen {
    pub(super) fn load(&mut self, dir: &AttemptDir) {
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
    pub(super) fn in_contract(&self) -> usize {
        self.durable.iter().filter(|(relative, _)| relative.starts_with("@/")).count()
    }

    pub(super) fn save_durable(&self, dir: &AttemptDir) {
        // Losing it costs only that these copies stay.
        let bytes = serde_json::to_vec(&self.durable).unwrap_or_default();
        if let Err(error) = os::write_durable(&dir.durable(), &bytes) {
            tracing::warn!(%error, "which local copies are durable could not be written");
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
