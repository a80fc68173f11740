//! The store of a machine that has a booklet: puts go to the store itself
//! under signed URLs, and by way of the gateway where there is no URL or it is
//! refused. What is read comes through the gateway.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Booklet, BookletError, Leaf, SignedUrl};
use crate::key::ObjectKey;
use crate::store::trouble::Trouble;
use crate::store::{Put, Store, StoreError};

/// Requests for one put, before the gateway is tried.
const ATTEMPTS: u32 = 4;

/// Where a store cannot be reached from here, the gateway comes first for so
/// long: nobody waits for the same silence with every object.
const REST: Duration = Duration::from_mins(5);

/// What a look under a signed URL found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The very bytes.
    Same,
    /// Others.
    Different,
    /// The store says that there is no such object.
    Absent,
    /// The URL is refused, with this status.
    Refused(u16),
}

/// Sends single requests under signed URLs and tells what was answered.
#[async_trait]
pub trait SignedRequests: Send + Sync {
    /// Puts `bytes`, asking the store to create only; the status of the answer.
    ///
    /// # Errors
    /// Where no answer came: what became of the object is open.
    async fn put(&self, url: &SignedUrl, bytes: &[u8]) -> Result<u16, Trouble>;

    /// Compares what is there with `bytes`.
    ///
    /// # Errors
    /// Where no answer came, or none that says anything.
    async fn look(&self, url: &SignedUrl, bytes: &[u8]) -> Result<Look, Trouble>;
}

/// Puts under signed URLs, everything else through the gateway.
pub struct BookletStore {
    gateway: Arc<dyn Store>,
    requests: Arc<dyn SignedRequests>,
    scope: String,
    generation: u64,
    pause: Duration,
    leaves: Mutex<BTreeMap<ObjectKey, Leaf>>,
    /// Until when the store itself is asked last.
    resting: Mutex<Option<Instant>>,
}

impl fmt::Debug for BookletStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BookletStore")
            .field("scope", &self.scope)
            .field("generation", &self.generation)
            .field("left", &self.left())
            .finish()
    }
}

impl BookletStore {
    /// A store for one generation of one run, without a URL yet.
    #[must_use]
    pub fn new(
        scope: &str,
        generation: u64,
        gateway: Arc<dyn Store>,
        requests: Arc<dyn SignedRequests>,
    ) -> Self {
        Self {
            gateway,
            requests,
            scope: scope.to_owned(),
            generation,
            pause: Duration::from_millis(500),
            leaves: Mutex::default(),
            resting: Mutex::default(),
        }
    }

    /// The same with other pauses between the requests for one object.
    #[must_use]
    pub fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Takes a booklet in place of the one before.
    ///
    /// # Errors
    /// Where it is not for this run and generation, or malformed; the one
    /// before stays.
    pub fn renew(&self, booklet: &Booklet) -> Result<(), BookletError> {
        let leaves = booklet.leaves(&self.scope, self.generation)?;
        *self.lock() = leaves.into_iter().collect();
        self.rest_until(None);
        Ok(())
    }

    /// URLs that have neither been used nor refused.
    #[must_use]
    pub fn left(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ObjectKey, Leaf>> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest_until(&self, until: Option<Instant>) {
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn rests(&self) -> bool {
        let until = *self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// What became of the object, or why the URL did not do.
    async fn put_signed(&self, leaf: &Leaf, bytes: &[u8]) -> Result<Put, Trouble> {
        let mut last = Trouble::TimedOut;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(self.pause.saturating_mul(1 << attempt.min(5))).await;
            }
            match self.requests.put(&leaf.put, bytes).await {
                Ok(200..=299) => return Ok(Put::Created),
                // Perhaps taken by an earlier request whose answer was lost.
                Ok(409 | 412) => {}
                Ok(status @ (408 | 429 | 500..=599)) => last = Trouble::Failing(status),
                Ok(status) => return Err(Trouble::Denied(format!("status {status}"))),
                Err(trouble) if trouble.passes() => last = trouble,
                Err(trouble) => return Err(trouble),
            }
            match self.requests.look(&leaf.look, bytes).await {
                Ok(Look::Same) => return Ok(Put::Same),
                Ok(Look::Different) => return Ok(Put::Different),
                Ok(Look::Absent) => {}
                Ok(Look::Refused(status)) => return Err(Trouble::Denied(format!("status {status}"))),
                Err(trouble) => last = trouble,
            }
        }
        Err(last)
    }
}

#[async_trait]
impl Store for BookletStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        let leaf = self.lock().get(key).cloned();
        if leaf.is_some() && self.rests() {
            match self.gateway.put_if_absent(key, bytes).await {
                Err(StoreError::Remote(_)) => {}
                answer => return answer,
            }
        }
        let why = match leaf {
            None => "no signed URL is left for it".to_owned(),
            Some(leaf) => match self.put_signed(&leaf, bytes).await {
                Ok(put) => {
                    self.lock().remove(key);
                    self.rest_until(None);
                    return Ok(put);
                }
                Err(trouble) => {
                    // A refused URL stays refused; the store may come back.
                    if trouble.passes() {
                        self.rest_until(Some(Instant::now() + REST));
                    } else {
                        self.lock().remove(key);
                    }
                    trouble.to_string()
                }
            },
        };
        tracing::debug!(%key, why, "putting through the gateway");
        match self.gateway.put_if_absent(key, bytes).await {
            // Both ways are told: one of them has to be mended.
            Err(StoreError::Remote(gateway)) => {
                Err(StoreError::Remote(format!("by its signed URL: {why}; through the gateway: {gateway}")))
            }
            other => other,
        }
    }

    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.gateway.get(key, offset, len).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.gateway.size(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        self.gateway.list(prefix).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.gateway.delete(key).await
    }
}
