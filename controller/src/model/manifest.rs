//! How rows name what lies in the store of objects. It never opens it.

use lifecycle::{AttemptId, CheckpointState, Generation, RunId};
use serde::{Deserialize, Serialize};

/// Where a manifest is and what it must hash to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRef {
    /// Object key.
    pub key: String,
    /// BLAKE3 of its bytes, hex.
    pub digest: String,
    /// The step it was saved at.
    #[serde(default)]
    pub step: Option<u64>,
}

/// A durable checkpoint (or one that was).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Manifest's key and digest.
    pub manifest: ManifestRef,
    /// Its run.
    pub run: RunId,
    /// Its attempt.
    pub attempt: AttemptId,
    /// Its attempt's generation.
    pub generation: Generation,
    /// Where it stands.
    pub status: CheckpointState,
    /// Base name of the file or directory.
    pub name: String,
    /// Its whole size.
    pub bytes: u64,
    /// What it took in the store, besides what was there; 0: not known.
    #[serde(default)]
    pub new_bytes: u64,
    /// Unix milliseconds.
    pub committed_ms: u64,
    /// It came from an attempt whose work does not count.
    #[serde(default)]
    pub stray: bool,
    /// The packs that its manifest names; empty in rows of older builds.
    #[serde(default)]
    pub packs: Vec<String>,
    /// "directory", or the kind of its one file; empty in rows of older builds.
    #[serde(default)]
    pub kind: String,
    /// When it was last verified here, unix milliseconds; 0: never.
    #[serde(default)]
    pub verified_ms: u64,
    /// How much of it was read then, in percent.
    #[serde(default)]
    pub verified_percent: u32,
    /// Why it is corrupt, if it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}
