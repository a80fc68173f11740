//! Leaves a training its part of the link. Nobody knows how fast a link is or
//! what else wants it, so what is given is time: for each put, a pause that is
//! as long as the rest of it would have been. No put is ever cut short, refused
//! or reordered by this.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Put, Store, StoreError};
use crate::key::ObjectKey;

/// No pause is longer: a put that hung for minutes used no link meanwhile.
const LONGEST: Duration = Duration::from_secs(10);

/// So often it is asked whether anybody still needs the link.
const LOOK: Duration = Duration::from_millis(250);

/// The pause after a put, so that puts take `percent` of the time. `percent` is
/// taken as at least 1; 100 and more is no pause.
#[must_use]
pub fn pause(took: Duration, percent: u32) -> Duration {
    let percent = percent.clamp(1, 100);
    (took * (100 - percent) / percent).min(LONGEST)
}

/// One link, shared by everything that is published over it.
#[derive(Debug, Default)]
pub struct Link {
    free_at: Mutex<Option<Instant>>,
}

impl Link {
    fn left(&self, now: Instant) -> Duration {
        let free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        free_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    fn used(&self, now: Instant, took: Duration, percent: u32) {
        let until = now + pause(took, percent);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = Some(free_at.map_or(until, |at| at.max(until)));
    }
}

/// A store whose puts take at most their part of the link's time.
pub struct Sharing<'a> {
    store: &'a dyn Store,
    link: &'a Link,
    percent: u32,
    alone: &'a (dyn Fn() -> bool + Send + Sync),
}

impl<'a> Sharing<'a> {
    /// Puts take `percent` of the time, except while `alone` says that there is
    /// nobody to leave the rest to. It is asked now and then and must not block.
    #[must_use]
    pub fn new(
        store: &'a dyn Store,
        link: &'a Link,
        percent: u32,
        alone: &'a (dyn Fn() -> bool + Send + Sync),
    ) -> Self {
        Self { store, link, percent, alone }
    }

    async fn turn(&self) {
        loop {
            let left = self.link.left(Instant::now());
            if left.is_zero() || (self.alone)() {
                return;
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }
}

#[async_trait]
impl Store for Sharing<'_> {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        self.turn().await;
        let began = Instant::now();
        let put = self.store.put_if_absent(key, bytes).await;
        let now = Instant::now();
        self.link.used(now, now - began, self.percent);
        put
    }

    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.store.get(key, offset, len).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.store.size(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        self.store.list(prefix).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.store.delete(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn a_pause_leaves_the_rest_of_the_time() {
        let ms = Duration::from_millis;
        for (took, percent, expected) in [
            (800, 80, 200),
            (100, 50, 100),
            (10, 1, 990),
            (10, 0, 990),
            (500, 100, 0),
            (500, 1_000, 0),
            (0, 10, 0),
            (120_000, 80, 10_000),
        ] {
            assert_eq!(pause(ms(took), percent), ms(expected), "{took} ms at {percent} %");
        }
    }

    /// Takes as long for each put as a link of some speed would.
    struct Slow(MemoryStore, Duration);

    #[async_trait]
    impl Store for Slow {
        async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
            tokio::time::sleep(self.1).await;
            self.0.put_if_absent(key, bytes).await
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

    /// Puts of 20 ms each, at a quarter of the link: 60 ms between them.
    #[tokio::test]
    async fn puts_leave_the_link_to_others() {
        let store = Slow(MemoryStore::default(), Duration::from_millis(20));
        let link = Link::default();
        let sharing = Sharing::new(&store, &link, 25, &|| false);
        let began = Instant::now();
        for number in 1..=3 {
            sharing.put_if_absent(&ObjectKey::pack("scope", 1, number).unwrap(), b"x").await.unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(3 * 20 + 2 * 60), "{:?}", began.elapsed());
        assert_eq!(store.list("scope/").await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn nothing_is_left_to_nobody() {
        let link = Link::default();
        // Longer than anybody needs who does not wait for it.
        *link.free_at.lock().unwrap() = Some(Instant::now() + Duration::from_hours(1));
        let store = MemoryStore::default();
        let sharing = Sharing::new(&store, &link, 50, &|| true);
        let key = ObjectKey::pack("scope", 1, 1).unwrap();
        let put = tokio::time::timeout(Duration::from_mins(3), sharing.put_if_absent(&key, b"x")).await;
        put.expect("it waits for nobody").unwrap();
    }
}
