//! What of a generation is stored and not yet committed: chunks that are not
//! sent a second time, whether a publish failed or this agent was started
//! again. Never what led to a commit that was not taken, time after time: what
//! the store no longer has is sent again then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use artifacts::index::Unfinished;
use artifacts::seal::Sealing;
use artifacts::{Digest, Kind, ObjectKey, Published, StoreError};
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
    /// What the secret that its chunks are named with makes of nothing; `None`:
    /// they are not sealed.
    named: Option<Digest>,
    /// The newest save and the newest results that nobody answered for.
    waiting: Vec<Waiting>,
}

/// A tree that is stored and waits for its commit.
struct Waiting {
    key: String,
    kind: Kind,
    packs: BTreeSet<ObjectKey>,
}

impl Left {
    fn waits(&mut self, published: &Published) {
        let (key, kind) = (published.manifest_key.to_string(), published.manifest.kind);
        self.waiting.retain(|other| other.kind != kind);
        self.waiting.push(Waiting { key, kind, packs: published.manifest.packs().into_iter().collect() });
    }

    /// What was stored earlier became durable: once nothing waits any more, packs
    /// that only older trees name may be deleted, and are not referred to.
    pub(super) fn settled(&mut self, key: &str) {
        if self.waiting.last().is_none_or(|last| last.key != key) {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let packs: BTreeSet<ObjectKey> = waiting.into_iter().flat_map(|waiting| waiting.packs).collect();
        if let Some(chunks) = &self.chunks {
            // What a later publish left lies in packs with higher numbers.
            chunks.retain(|pack| packs.contains(pack) || packs.last().is_none_or(|last| pack > last));
        }
    }

    /// Nothing of it is believed any more.
    pub(super) fn forget(&mut self) {
        if let Some(chunks) = &self.chunks {
            chunks.clear();
        }
    }

    /// Chunks are sealed with this now: what was stored under another secret,
    /// or in the clear, is of no use then. Whether that changed.
    fn seal(&mut self, sealing: Option<&Sealing>) -> bool {
        let named = sealing.map(|sealing| sealing.name(&Digest::of(b"")));
        let changed = self.named != named;
        if changed {
            self.named = named;
            self.forget();
        }
        changed
    }
}

impl Publishing {
    /// Must be called before anything is published: no place of a chunk
    /// outlives the secret that it was sealed under.
    pub(super) fn sealed_with(&self, attempt: &str, sealing: Option<&Sealing>) {
        if self.tell(attempt, |told| told.left.seal(sealing)) {
            self.keyframes.unsure(attempt);
        }
    }

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
            // Sent again, and not looked for each time.
            Ok(Err(_)) | Err(_) if way.has_booklet() => Arc::default(),
            Ok(read) => Arc::new(read?),
            Err(_) => return Err(StoreError::Remote("what was left unfinished is not told in time".into())),
        };
        self.tell(&work.attempt_id, |told| told.left.chunks = Some(read.clone()));
        Ok(read)
    }

    /// What was published and asked to be committed: what is durable, the index
    /// knows; what nobody answered for is not sent again.
    pub(super) fn committed(&self, work: &v1::Work, published: &Published, outcome: &Commit) {
        self.tell(&work.attempt_id, |told| {
            let Some(chunks) = told.left.chunks.clone() else { return };
            told.left.failed = if matches!(outcome, Commit::Again(_)) { told.left.failed + 1 } else { 0 };
            let waits = matches!(outcome, Commit::Unknown(_));
            if waits || (1..TRIES).contains(&told.left.failed) {
                chunks.add(&published.manifest, &work.run_id, work.generation);
            } else {
                chunks.clear();
                told.left.failed = 0;
                told.left.waiting.clear();
            }
            if waits {
                told.left.waits(published);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use artifacts::seal::{PrivateKey, ProjectSecret};

    use super::*;

    #[test]
    fn no_place_of_a_chunk_outlives_the_secret_it_was_sealed_under() {
        let recipients = [PrivateKey::generate().unwrap().public().unwrap()];
        let sealing =
            |secret: u8| Sealing::new(&ProjectSecret::of_project(&[secret; 32], "p"), &recipients).unwrap();
        let mut left = Left::default();
        assert!(left.seal(Some(&sealing(1))), "nothing was sealed before");
        assert!(!left.seal(Some(&sealing(1))));
        assert!(left.seal(Some(&sealing(2))) && left.seal(None) && !left.seal(None));
    }
}
