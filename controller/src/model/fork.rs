//! What is kept of a fork: where it began and what is different in it. It never
//! changes after the submission.

use lifecycle::spec::difference::Change;
use serde::{Deserialize, Serialize};

use super::ManifestRef;

/// Where a fork began and what is different in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fork {
    /// The very checkpoint.
    pub checkpoint: ManifestRef,
    /// How its description differs from the parent's.
    pub changes: Vec<Change>,
    /// Its source tree is another one.
    #[serde(default)]
    pub other_source: bool,
}
