//! What of a generation is stored and not yet committed: chunks that are not
//! sent a second time, whether a publish failed or this agent was started
//! again. Never what led to a commit that was not taken, time after time: what
//! the store no longer has is sent again then.

use std::sync::Arc;
use std::time::Duration;

use artifacts::index::Unfinished;
use artifacts::{Manifest, StoreError};
use proto::v1;

use super::Publishing;
use crate::booklets::Way;
use crate::world::{Commit, SharedGateway};

/// Commits in a row that may fail before nothing of them is believed.
const TRIES: u32 = 3;
/// For reading what was left: the ends of thousands of packs, perhaps.
const PATIENCE: Duration = Duration::from_mins(5);

/// What was left, and how often its commit failed.
#[derive(Default)]
pub(super) struct Left {
    chunks: Option<Arc<Unfinished>>,
    failed: u32,
}

impl Publishing {
    /// What earlier publishes of this generation left; read from the store
    /// where this agent does not remember.
    pub(super) async fn left(
        &self,
        work: &v1::Work,
        gateway: &SharedGateway,
        way: &Way,
    ) -> Result<Arc<Unfinished>, artifacts::StoreError> {
        if let Some(known) = self.tell(&work.attempt_id, |told| told.left.chunks.clone()) {
            return Ok(known);
        }
        if way.is_alone() {
            // What an agent before this one left is sent again.
            let none = Arc::<Unfinished>::default();
            self.tell(&work.attempt_id, |told| told.left.chunks = Some(none.clone()));
            return Ok(none);
        }
        let recall = Unfinished::recall(&**gateway, &work.run_id, work.generation);
        let read = match tokio::time::timeout(PATIENCE, recall).await {
            Ok(Err(_)) | Err(_) if way.has_booklet() => return Ok(Arc::default()),
            Ok(read) => Arc::new(read?),
            Err(_) => return Err(StoreError::Remote("what was left unfinished is not told in time".into())),
        };
        self.tell(&work.attempt_id, |told| told.left.chunks = Some(read.clone()));
        Ok(read)
    }

    /// What was published and asked to be committed: what is durable, the index
    /// knows; what nobody answered for is not sent again.
    pub(super) fn committed(&self, work: &v1::Work, manifest: &Manifest, outcome: &Commit) {
        self.tell(&work.attempt_id, |told| {
            let Some(chunks) = &told.left.chunks else { return };
            told.left.failed = if matches!(outcome, Commit::Again(_)) { told.left.failed + 1 } else { 0 };
            let waits = matches!(outcome, Commit::Unknown(_));
            if waits || (1..TRIES).contains(&told.left.failed) {
                chunks.add(manifest, &work.run_id, work.generation);
            } else {
                chunks.clear();
                told.left.failed = 0;
            }
        });
    }
}
