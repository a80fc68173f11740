//! How rows name what lies in the store of objects. It never opens it.

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
