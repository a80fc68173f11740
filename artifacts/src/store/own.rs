//! Tells the store of this installation from another in its place: a bucket
//! that was made anew, a disk that is not mounted. Both answer every question,
//! with "not there", and whoever believed it would give all saved work up as
//! lost. So an object with a random name marks the store when it is set up, and
//! no absence is believed, and nothing stored, unless that mark was seen a
//! moment ago.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::booklet::{Booklet, NoBooklet, Plan};
use super::{Put, Store, StoreError};
use crate::key::{KeyError, ObjectKey};
use crate::offload::random_name;

/// The scope of marks: no run has it.
pub const SCOPE: &str = "outlast-store";

/// A mark that was seen is believed for so long.
const BELIEVED: Duration = Duration::from_secs(30);

/// A store that is known by its mark.
pub struct OwnStore {
    inner: Arc<dyn Store>,
    mark: ObjectKey,
    named: String,
    believed: Duration,
    seen: Mutex<Option<Instant>>,
}

/// A new mark's name.
#[must_use]
pub fn new_id() -> String {
    random_name()
}

/// The key of a mark.
///
/// # Errors
/// Where the name is none that [`new_id`] makes.
pub fn mark(id: &str) -> Result<ObjectKey, KeyError> {
    format!("{SCOPE}/{id}").parse()
}

/// What is said of a store without the mark.
#[must_use]
pub fn foreign(named: &str, mark: &ObjectKey) -> String {
    format!(
        "{named} is not the store of this installation, whose mark `{mark}` it lacks: was the bucket made anew, or is \
         a disk not mounted?"
    )
}

impl OwnStore {
    /// `inner`, as long as it holds `mark`. Asks nothing yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, mark: ObjectKey, named: &str) -> Self {
        Self { inner, mark, named: named.to_owned(), believed: BELIEVED, seen: Mutex::new(None) }
    }

    /// Looks for the mark, unless it was seen a moment ago.
    ///
    /// # Errors
    /// Where it is not there, or the store cannot be asked.
    pub async fn check(&self) -> Result<(), StoreError> {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_some_and(|at| at.elapsed() < self.believed) {
            return Ok(());
        }
        let began = Instant::now();
        if self.inner.size(&self.mark).await?.is_none() {
            return Err(StoreError::Remote(foreign(&self.named, &self.mark)));
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
        Ok(())
    }

    async fn unless_foreign<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        self.check().await?;
        answer
    }
}

#[async_trait]
impl Store for OwnStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        self.check().await?;
        self.inner.put_if_absent(key, bytes).await
    }

    async fn put_owned(&self, key: &ObjectKey, bytes: Vec<u8>) -> Result<Put, StoreError> {
        self.check().await?;
        self.inner.put_owned(key, bytes).await
    }

    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        match self.inner.get(key, offset, len).await {
            absent @ Err(StoreError::Missing(_)) => self.unless_foreign(absent).await,
            other => other,
        }
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        match self.inner.size(key).await {
            absent @ Ok(None) => self.unless_foreign(absent).await,
            other => other,
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        // Whatever a listing lacks, it says is not there.
        match self.inner.list(prefix).await {
            listed @ Ok(_) => self.unless_foreign(listed).await,
            other => other,
        }
    }

    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.check().await?;
        self.inner.delete(key).await
    }

    async fn is_own(&self) -> Result<(), StoreError> {
        self.check().await
    }

    async fn sign_ahead(
        &self,
        scope: &str,
        generation: u64,
        plan: &Plan,
        now_ms: u64,
    ) -> Result<Booklet, NoBooklet> {
        // What is signed for a store in its place is put there, unseen.
        self.check().await?;
        self.inner.sign_ahead(scope, generation, plan, now_ms).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use crate::store::booklet::plan;

    fn key(text: &str) -> ObjectKey {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_store_in_its_place_says_nothing_of_objects_and_takes_none() {
        let inner = MemoryStore::default();
        let mark = mark(&new_id()).unwrap();
        let mut own = OwnStore::new(Arc::new(inner.clone()), mark.clone(), "the bucket");
        let told =
            |answer: String| assert!(answer.contains("not the store of this installation"), "{answer}");
        told(format!("{:?}", own.size(&key("a")).await));
        told(format!("{:?}", own.get(&key("a"), 0, 1).await));
        told(format!("{:?}", own.list("").await));
        told(format!("{:?}", own.put_if_absent(&key("a"), b"x").await));
        told(format!("{:?}", own.put_owned(&key("a"), b"x".to_vec()).await));
        told(format!("{:?}", own.delete(&key("a")).await));
        let plan = plan::plan(None, Duration::from_hours(1), plan::Next { pack: 1, manifest: 1 });
        told(format!("{:?}", own.is_own().await));
        told(format!("{:?}", own.sign_ahead("run", 1, &plan, 1).await));
        assert_eq!(inner.total_bytes(), 0);

        inner.put_if_absent(&mark, b"x").await.unwrap();
        assert_eq!(own.size(&key("a")).await.unwrap(), None);
        assert_eq!(own.put_if_absent(&key("a"), b"x").await.unwrap(), Put::Created);
        // Emptied meanwhile: believed for a moment, and no longer.
        for gone in inner.list("").await.unwrap() {
            inner.delete(&gone).await.unwrap();
        }
        assert_eq!(own.size(&key("a")).await.unwrap(), None);
        own.believed = Duration::ZERO;
        told(format!("{:?}", own.size(&key("a")).await));
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        // The suite wants an empty store: the mark is behind it.
        struct Behind(MemoryStore, ObjectKey);
        #[async_trait]
        impl Store for Behind {
            async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
                self.0.put_if_absent(key, bytes).await
            }
            async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
                self.0.get(key, offset, len).await
            }
            async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
                if *key == self.1 { Ok(Some(1)) } else { self.0.size(key).await }
            }
            async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
                self.0.list(prefix).await
            }
            async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
                self.0.delete(key).await
            }
        }
        let mark = mark("m").unwrap();
        let own = OwnStore::new(Arc::new(Behind(MemoryStore::default(), mark.clone())), mark, "it");
        super::super::contract::contract(&own).await;
    }
}
