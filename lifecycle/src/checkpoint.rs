//! A checkpoint: a saved state of the program, from its discovery on the
//! machine to its deletion in the store.
//!
//! ```text
//! DISCOVERED -> HASHED -> UPLOADING -> UPLOADED -> COMMITTED <-> PINNED
//!                                                      |
//!                                                      +-> UNLINKED -> DELETED
//!                                                      +-> CORRUPT -> COMMITTED
//! ```
//!
//! UPLOADED is *stored* (the manifest is in the store); COMMITTED is *durable*
//! (the controller accepted it from the bound attempt). The states before
//! COMMITTED are the machine's own and are never rows of the controller.

use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// Where a checkpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointState {
    /// Seen on the machine's disk, complete.
    Discovered,
    /// Its chunks are known.
    Hashed,
    /// Its missing chunks are on their way.
    Uploading,
    /// Its manifest is in the store: *stored*.
    Uploaded,
    /// The controller committed it: *durable*.
    Committed,
    /// Durable, and kept whatever retention says.
    Pinned,
    /// No longer reachable; its objects wait for the grace period.
    Unlinked,
    /// Its objects are gone.
    Deleted,
    /// What the store holds is not what the manifest says.
    Corrupt,
}

/// What can happen to a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointEvent {
    /// Its files were read and cut.
    Hash,
    /// The first chunk goes out.
    Upload,
    /// The manifest was put.
    Store,
    /// The controller accepted it.
    Commit,
    /// A person or policy keeps it.
    Pin,
    /// It is kept no longer.
    Unpin,
    /// Retention lets it go.
    Unlink,
    /// Its objects were deleted after the grace period.
    Delete,
    /// Verification failed.
    Condemn,
    /// All of it was read again and was right after all.
    Reinstate,
}

impl CheckpointState {
    /// The state's name as the diagram writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Discovered => "DISCOVERED",
            Self::Hashed => "HASHED",
            Self::Uploading => "UPLOADING",
            Self::Uploaded => "UPLOADED",
            Self::Committed => "COMMITTED",
            Self::Pinned => "PINNED",
            Self::Unlinked => "UNLINKED",
            Self::Deleted => "DELETED",
            Self::Corrupt => "CORRUPT",
        }
    }

    /// Whether a run may be resumed from it.
    #[must_use]
    pub fn is_durable(self) -> bool {
        matches!(self, Self::Committed | Self::Pinned)
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// A [`Refusal`] where the diagram has no such edge.
    pub fn apply(self, event: CheckpointEvent) -> Result<Self, Refusal> {
        use CheckpointEvent as E;
        use CheckpointState as S;
        let next = match (self, event) {
            (S::Discovered, E::Hash) => S::Hashed,
            (S::Hashed, E::Upload) => S::Uploading,
            (S::Uploading, E::Store) => S::Uploaded,
            (S::Uploaded, E::Commit) | (S::Pinned, E::Unpin) => S::Committed,
            (S::Committed, E::Pin) => S::Pinned,
            (S::Committed, E::Unlink) => S::Unlinked,
            (S::Unlinked, E::Delete) => S::Deleted,
            (S::Committed | S::Pinned, E::Condemn) => S::Corrupt,
            (S::Corrupt, E::Reinstate) => S::Committed,
            _ => {
                let event = match event {
                    E::Hash => "hash",
                    E::Upload => "upload",
                    E::Store => "store",
                    E::Commit => "commit",
                    E::Pin => "pin",
                    E::Unpin => "unpin",
                    E::Unlink => "unlink",
                    E::Delete => "delete",
                    E::Condemn => "condemn",
                    E::Reinstate => "reinstate",
                };
                let ended = matches!(self, S::Deleted);
                return Err(Refusal::new("checkpoint", self.name(), event, ended));
            }
        };
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::names_in_diagram;

    const ALL: [CheckpointState; 9] = [
        CheckpointState::Discovered,
        CheckpointState::Hashed,
        CheckpointState::Uploading,
        CheckpointState::Uploaded,
        CheckpointState::Committed,
        CheckpointState::Pinned,
        CheckpointState::Unlinked,
        CheckpointState::Deleted,
        CheckpointState::Corrupt,
    ];

    #[test]
    fn diagram_and_enum_name_the_same_states() {
        let states = ALL.iter().map(|s| s.name().to_owned()).collect();
        assert_eq!(names_in_diagram(include_str!("checkpoint.rs")), states);
    }

    #[test]
    fn nothing_is_durable_before_its_manifest_is_stored() {
        for state in ALL {
            if let Ok(next) = state.apply(CheckpointEvent::Commit) {
                assert_eq!(state, CheckpointState::Uploaded);
                assert!(next.is_durable());
            }
        }
    }

    #[test]
    fn a_pinned_checkpoint_cannot_be_unlinked() {
        assert!(CheckpointState::Pinned.apply(CheckpointEvent::Unlink).is_err());
    }
}
