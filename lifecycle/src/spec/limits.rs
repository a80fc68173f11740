//! What a program may use at most. `None` everywhere is no limit of ours; the
//! machine's own limits hold in any case. A limit that a machine cannot apply
//! is said in a note, never silently dropped.

use serde::{Deserialize, Serialize};

/// Upper bounds for the program and everything it starts, together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitSpec {
    /// Bytes of memory; beyond it the kernel ends a process of the tree.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Processors, fractions allowed.
    #[serde(default)]
    pub cpus: Option<f64>,
    /// Processes and threads.
    #[serde(default)]
    pub pids: Option<u64>,
    /// Open files of each process (`RLIMIT_NOFILE`).
    #[serde(default)]
    pub open_files: Option<u64>,
}

impl LimitSpec {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
