//! A bucket in memory that signs URLs and honours them as a real one does, for
//! simulations and tests: what was not signed, was signed for another object
//! or request, or has run out is refused, and nothing is overwritten.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Booklet, Leaf, Look, NoBooklet, Plan, SignedRequests, SignedUrl, Trust};
use crate::key::ObjectKey;
use crate::store::memory::MemoryStore;
use crate::store::trouble::Trouble;
use crate::store::{Put, Store, StoreError};

/// Where its URLs lead.
const HOST: &str = "https://bucket.simulated/";

/// A bucket; clones share it.
#[derive(Clone)]
pub struct SimulatedBucket {
    objects: MemoryStore,
    secret: [u8; 32],
    now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl SimulatedBucket {
    /// Signs for `objects`, by this clock.
    #[must_use]
    pub fn new(
        objects: MemoryStore,
        secret: [u8; 32],
        now_ms: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self { objects, secret, now_ms: Arc::new(now_ms) }
    }

    fn url(&self, method: &str, key: &ObjectKey, until_ms: u64) -> SignedUrl {
        let mac = blake3::keyed_hash(&self.secret, format!("{method} {key} {until_ms}").as_bytes());
        SignedUrl::new(format!("{HOST}{key}?{until_ms}.{}", mac.to_hex()))
    }

    /// The object that a request may reach.
    fn permitted(&self, method: &str, url: &SignedUrl) -> Option<ObjectKey> {
        let (key, query) = url.reveal().strip_prefix(HOST)?.split_once('?')?;
        let (key, until_ms) = (key.parse().ok()?, query.split_once('.')?.0.parse().ok()?);
        (self.url(method, &key, until_ms) == *url && (self.now_ms)() < until_ms).then_some(key)
    }
}

#[async_trait]
impl SignedRequests for SimulatedBucket {
    async fn put(&self, url: &SignedUrl, bytes: &[u8]) -> Result<u16, Trouble> {
        let Some(key) = self.permitted("PUT", url) else { return Ok(403) };
        match self.objects.put_if_absent(&key, bytes).await {
            Ok(Put::Created) => Ok(200),
            Ok(Put::Same | Put::Different) => Ok(412),
            Err(error) => Err(Trouble::Unreachable(error.to_string())),
        }
    }

    async fn look(&self, url: &SignedUrl, bytes: &[u8]) -> Result<Look, Trouble> {
        let Some(key) = self.permitted("GET", url) else { return Ok(Look::Refused(403)) };
        let unreachable = |error: StoreError| Trouble::Unreachable(error.to_string());
        let Some(size) = self.objects.size(&key).await.map_err(unreachable)? else { return Ok(Look::Absent) };
        let found = self.objects.get(&key, 0, size).await.map_err(unreachable)?;
        Ok(if found == bytes { Look::Same } else { Look::Different })
    }
}

#[async_trait]
impl Store for SimulatedBucket {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        self.objects.put_if_absent(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.objects.get(key, offset, len).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.objects.size(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        self.objects.list(prefix).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.objects.delete(key).await
    }

    async fn sign_ahead(
        &self,
        scope: &str,
        generation: u64,
        plan: &Plan,
        now_ms: u64,
    ) -> Result<Booklet, NoBooklet> {
        let expires_ms = now_ms.saturating_add(u64::try_from(plan.valid.as_millis()).unwrap_or(u64::MAX));
        let leaf = |seq, key: &ObjectKey| Leaf {
            seq,
            put: self.url("PUT", key, expires_ms),
            look: self.url("GET", key, expires_ms),
        };
        let leaves = |range: std::ops::Range<u64>, manifest: bool| {
            range.map(move |seq| match manifest {
                true => ObjectKey::manifest(scope, generation, seq).map(|key| leaf(seq, &key)),
                false => ObjectKey::pack(scope, generation, seq).map(|key| leaf(seq, &key)),
            })
        };
        let failed = |error: crate::key::KeyError| NoBooklet::Never(error.to_string());
        Ok(Booklet {
            scope: scope.to_owned(),
            generation,
            expires_ms,
            trust: Trust::default(),
            packs: leaves(plan.packs.clone(), false).collect::<Result<_, _>>().map_err(failed)?,
            manifests: leaves(plan.manifests.clone(), true).collect::<Result<_, _>>().map_err(failed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::store::booklet::plan::{Next, plan};

    #[tokio::test]
    async fn only_what_was_signed_and_still_holds_is_done() {
        let now = Arc::new(AtomicU64::new(1_000));
        let clock = now.clone();
        let objects = MemoryStore::default();
        let bucket = SimulatedBucket::new(objects.clone(), [1; 32], move || clock.load(Ordering::Relaxed));
        let plan = plan(None, Duration::from_hours(1), Next { pack: 1, manifest: 1 });
        let booklet = bucket.sign_ahead("run", 1, &plan, 1_000).await.unwrap();
        assert_eq!(booklet.leaves("run", 1).unwrap().len(), booklet.packs.len() + booklet.manifests.len());
        let leaf = &booklet.packs[0];
        assert_eq!(bucket.put(&leaf.put, b"a").await, Ok(200));
        assert_eq!(bucket.put(&leaf.put, b"b").await, Ok(412), "never overwritten");
        assert_eq!(bucket.look(&leaf.look, b"a").await, Ok(Look::Same));
        assert_eq!(bucket.put(&leaf.look, b"a").await, Ok(403), "signed for reading");
        let forged = leaf.put.reveal().replace("p00000001", "p00000009");
        assert_eq!(bucket.put(&SignedUrl::new(forged), b"a").await, Ok(403));
        now.store(booklet.expires_ms, Ordering::Relaxed);
        assert_eq!(bucket.put(&booklet.packs[1].put, b"a").await, Ok(403), "it has run out");
        assert_eq!(objects.list("").await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn it_keeps_the_contract_of_a_store() {
        let bucket = SimulatedBucket::new(MemoryStore::default(), [1; 32], || 1);
        crate::store::contract::contract(&bucket).await;
    }
}
