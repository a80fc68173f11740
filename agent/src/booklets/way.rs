//! What one publish is given for a store and for an index. Objects go to the
//! store itself where a signed URL is held, and through the controller where
//! none is. Nobody who does not answer may hold a publish up that can do
//! without: then this machine's own knowledge answers, and what it does not
//! know counts as absent and is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use artifacts::index::MemoryIndex;
use artifacts::store::booklet::BookletStore;
use artifacts::{ChunkIndex, Digest, Location, ObjectKey, Put, Store, StoreError};
use async_trait::async_trait;

use super::courier::Courier;
use crate::world::SharedGateway;

/// For an answer of the controller while a booklet is held, besides the time
/// that the bytes take.
const ANSWER: Duration = Duration::from_secs(8);
/// A link may be this slow, in bytes per second.
const SLOWEST: u64 = 64 << 10;
/// Digests that are asked for in a second.
const DIGESTS: usize = 1_024;

/// The way of one publish.
pub struct Way {
    courier: Arc<Courier>,
    signed: Option<Arc<BookletStore>>,
    known: Arc<MemoryIndex>,
    /// The controller did not answer this publish: it is not asked again.
    silent: AtomicBool,
}

impl Way {
    pub(super) fn new(
        courier: Arc<Courier>,
        signed: Option<Arc<BookletStore>>,
        known: Arc<MemoryIndex>,
    ) -> Self {
        Self { courier, signed, known, silent: AtomicBool::new(false) }
    }

    /// Whether it puts under signed URLs.
    #[must_use]
    pub fn has_booklet(&self) -> bool {
        self.signed.is_some()
    }

    /// Whether it must do without the controller, and can.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        let silent = self.silent.load(Ordering::Relaxed) || !self.courier.gateway().reachable();
        self.signed.is_some() && silent
    }
}

#[async_trait]
impl ChunkIndex for Way {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        let gateway = self.courier.gateway();
        if self.signed.is_none() {
            return gateway.locate(digests).await;
        }
        if !self.is_alone() {
            let limit = ANSWER + Duration::from_secs((digests.len() / DIGESTS) as u64);
            match tokio::time::timeout(limit, gateway.locate(digests)).await {
                Ok(Err(StoreError::Remote(why))) => {
                    tracing::info!(why, "the controller cannot be asked what it has");
                }
                Ok(answer) => return answer,
                Err(_) => tracing::info!("the controller does not answer what it has"),
            }
            self.silent.store(true, Ordering::Relaxed);
        }
        self.known.locate(digests).await
    }

    fn format(&self) -> u32 {
        self.courier.gateway().format()
    }
}

#[async_trait]
impl Store for Way {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        self.courier.reserve(key).await;
        match &self.signed {
            Some(signed) => signed.put_if_absent(key, bytes).await,
            None => self.courier.gateway().put_if_absent(key, bytes).await,
        }
    }

    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.courier.gateway().get(key, offset, len).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.courier.gateway().size(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        self.courier.gateway().list(prefix).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.courier.gateway().delete(key).await
    }
}

/// The controller for objects without a good URL: where it is not there, that
/// is known at once, and it is not waited for longer than bytes take.
pub(super) struct Hasty(pub(super) SharedGateway);

#[async_trait]
impl Store for Hasty {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        if !self.0.reachable() {
            return Err(StoreError::Remote("the controller is not connected".into()));
        }
        let limit = ANSWER + Duration::from_secs(bytes.len() as u64 / SLOWEST);
        let put = tokio::time::timeout(limit, self.0.put_if_absent(key, bytes)).await;
        put.unwrap_or_else(|_| Err(StoreError::Remote("the controller did not answer".into())))
    }

    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.0.get(key, offset, len).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.0.size(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        self.0.list(prefix).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.0.delete(key).await
    }
}
