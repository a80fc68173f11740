//! What tells of changes on disk; it never says what changed.

use crate::os;

/// Both kinds of changes that are waited for.
pub(super) struct Watches {
    /// Output and all else.
    pub(super) any: os::Changes,
    /// Records that were renamed into place.
    pub(super) records: os::Changes,
}

impl Watches {
    pub(super) fn begin() -> Option<Self> {
        Some(Self { any: os::Changes::new().ok()?, records: os::Changes::renames().ok()? })
    }
}
