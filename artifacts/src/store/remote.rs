//! Stores across the network. Each request is made once and judged by its
//! answer; what is tried again is decided here and not in the client library,
//! because a put that was sent twice blindly could not be told from a second
//! writer. An object counts as absent only when the store has said so of a
//! bucket that is there.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt};

use super::booklet::{Booklet, NoBooklet, Plan, Trust};
use super::trouble::Trouble;
use super::{Put, Store, StoreError, check_prefix};
use crate::key::ObjectKey;

mod answer;
#[cfg(feature = "azure")]
pub mod azure;
#[cfg(feature = "s3")]
mod connect;
#[cfg(feature = "s3")]
mod credentials;
#[cfg(feature = "gcs")]
pub mod gcs;
pub mod probe;
#[cfg(feature = "s3")]
pub mod s3;
mod settle;
pub mod sign;

use answer::Answer;

/// What is needed of a client library.
pub(crate) trait Bucket: ObjectStore + PaginatedListStore + Signer {}
impl<T: ObjectStore + PaginatedListStore + Signer> Bucket for T {}

/// No listing of one generation comes near.
const MOST_PAGES: usize = 10_000;

/// How long a store is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Requests for one call, the first included.
    pub attempts: u32,
    /// Before the second request; doubled before each further one.
    pub pause: Duration,
    /// For a connection.
    pub connect: Duration,
    /// For an answer, besides the time that the bytes take.
    pub answer: Duration,
    /// A body may be this slow, in bytes per second.
    pub slowest: u64,
    /// For one call with all its requests and pauses, besides the time that the
    /// bytes take.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 6,
            pause: Duration::from_millis(200),
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            slowest: 128 << 10,
            total: Duration::from_secs(120),
        }
    }
}

impl Patience {
    /// Of somebody who waits at a terminal while a store is tried out.
    #[must_use]
    pub fn of_a_person() -> Self {
        Self {
            attempts: 2,
            answer: Duration::from_secs(5),
            total: Duration::from_secs(10),
            ..Self::default()
        }
    }

    fn whole(&self, bytes: u64) -> Duration {
        self.total + Duration::from_secs(bytes / self.slowest.max(1))
    }

    fn limit(&self, bytes: u64) -> Duration {
        self.answer + Duration::from_secs(bytes / self.slowest.max(1))
    }

    /// Grows, is bounded, and differs between those who wait for one store.
    fn before(&self, attempt: u32) -> Duration {
        use std::hash::{BuildHasher, Hasher};
        let longest = self.pause.saturating_mul(1 << attempt.min(6)).min(Duration::from_secs(10));
        let share = std::hash::RandomState::new().build_hasher().finish() % 1000;
        longest.mul_f64(0.5 + share as f64 / 2000.0)
    }
}

/// Whether the store keeps the promise to create only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// It does: `If-None-Match: *` is honoured.
    CreateOnly,
    /// It overwrites, and whoever set it up said that there is one writer:
    /// what is there is looked at first.
    Overwriting,
}

/// Objects in a bucket. Clones share the connections.
#[derive(Clone)]
pub struct RemoteStore {
    bucket: Arc<dyn Bucket>,
    /// Before every key: empty, or ending in `/`.
    prefix: Arc<str>,
    writes: Writes,
    patience: Patience,
    page: usize,
    named: Arc<str>,
    fleeting: Fleeting,
    signs: bool,
    trust: Trust,
}

impl fmt::Debug for RemoteStore {
    /// The client library's own text may hold more than a log should.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore").field("named", &self.named).field("writes", &self.writes).finish()
    }
}

/// What a store is put together from.
pub(crate) struct Parts {
    pub(crate) bucket: Arc<dyn Bucket>,
    pub(crate) prefix: String,
    pub(crate) writes: Writes,
    pub(crate) patience: Patience,
    pub(crate) page: usize,
    pub(crate) named: String,
    /// Whether the credentials run out by themselves, and with them what they
    /// signed.
    pub(crate) fleeting: Fleeting,
    /// Whether a signed URL can carry the condition that creates only.
    pub(crate) signs: bool,
    /// What whoever holds a signed URL needs to trust.
    pub(crate) trust: Trust,
}

/// Asked each time: credentials are renewed.
pub(crate) type Fleeting = Arc<dyn Fn() -> bool + Send + Sync>;

impl RemoteStore {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { bucket, prefix, writes, patience, page, named, fleeting, signs, trust } = parts;
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self {
            bucket,
            prefix: prefix.into(),
            writes,
            patience,
            page: page.clamp(1, 1000),
            named: named.into(),
            fleeting,
            signs,
            trust,
        }
    }

    /// What to call it, such as `s3://bucket/prefix`.
    #[must_use]
    pub fn named(&self) -> &str {
        &self.named
    }

    /// The same store for somebody who waits as long as this.
    #[must_use]
    pub fn with_patience(&self, patience: Patience) -> Self {
        Self { patience, ..self.clone() }
    }

    /// One call as a whole, within its time.
    async fn whole<T, E: From<Trouble>>(
        &self,
        bytes: u64,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let done = tokio::time::timeout(self.patience.whole(bytes), call).await;
        done.unwrap_or_else(|_| Err(Trouble::TimedOut.into()))
    }

    fn path(&self, key: &ObjectKey) -> Result<Path, Answer> {
        Path::parse(format!("{}{key}", self.prefix))
            .map_err(|_| Trouble::Senseless("the prefix makes no key".into()).into())
    }

    /// One request, within its time.
    async fn once<T>(
        &self,
        bytes: u64,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Answer> {
        match tokio::time::timeout(self.patience.limit(bytes), request).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(answer::read(&error)),
            Err(_) => Err(Trouble::TimedOut.into()),
        }
    }

    /// A question, asked again while what is wrong may pass: it changes
    /// nothing, however often it is heard.
    async fn ask<T, F: Future<Output = Result<T, Answer>>>(
        &self,
        question: impl FnMut() -> F,
    ) -> Result<T, Answer> {
        self.ask_up_to(self.patience.attempts, question).await
    }

    async fn ask_up_to<T, F: Future<Output = Result<T, Answer>>>(
        &self,
        attempts: u32,
        mut question: impl FnMut() -> F,
    ) -> Result<T, Answer> {
        let mut attempt = 0;
        loop {
            match question().await {
                Err(Answer::Trouble(trouble)) if trouble.passes() && attempt + 1 < attempts => {
                    attempt += 1;
                    tracing::debug!(store = %self.named, %trouble, attempt, "asking the store again");
                    tokio::time::sleep(self.patience.before(attempt)).await;
                }
                other => return other,
            }
        }
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<GetResult>, Answer> {
        let path = self.path(key)?;
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.once(0, self.bucket.get_opts(&path, options)).await {
            Ok(found) => Ok(Some(found)),
            Err(Answer::Absent) => Ok(None),
            // The answer to HEAD has no body: a bucket that is not there
            // looks like an object that is not there.
            Err(Answer::Nothing) => match self.page(path.as_ref(), None).await? {
                (keys, _) if keys.contains(&path) => {
                    Err(Trouble::Senseless("it lists an object and has none".into()).into())
                }
                _ => Ok(None),
            },
            Err(other) => Err(other),
        }
    }

    /// One page of the keys that begin with `prefix`, and where the next is.
    async fn page(&self, prefix: &str, token: Option<String>) -> Result<(Vec<Path>, Option<String>), Answer> {
        self.page_of(self.page, prefix, token).await
    }

    async fn page_of(
        &self,
        most: usize,
        prefix: &str,
        token: Option<String>,
    ) -> Result<(Vec<Path>, Option<String>), Answer> {
        let options = PaginatedListOptions {
            max_keys: Some(most),
            page_token: token,
            ..PaginatedListOptions::default()
        };
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        let page = self.once(0, self.bucket.list_paginated(prefix, options)).await?;
        Ok((page.result.objects.into_iter().map(|object| object.location).collect(), page.page_token))
    }

    async fn range(&self, key: &ObjectKey, offset: u64, end: u64) -> Result<(Vec<u8>, u64), Answer> {
        let path = self.path(key)?;
        let options = GetOptions { range: Some(GetRange::Bounded(offset..end)), ..GetOptions::default() };
        let wanted = end - offset;
        let read = async {
            let found = self.bucket.get_opts(&path, options).await?;
            let size = found.meta.size;
            // Nothing of a shorter object is read: it will be refused.
            let bytes = if size < end { Vec::new() } else { found.bytes().await?.into() };
            Ok((bytes, size))
        };
        let (bytes, size): (Vec<u8>, u64) = self.once(wanted, read).await?;
        if size >= end && bytes.len() as u64 != wanted {
            return Err(Trouble::Torn.into());
        }
        Ok((bytes, size))
    }

    async fn sized(&self, key: &ObjectKey) -> Result<Option<u64>, Answer> {
        let asked = self.ask(|| async { Ok(self.head(key).await?.map(|found| found.meta.size)) });
        self.whole(0, asked).await
    }
}

fn failed(key: &ObjectKey, answer: Answer) -> StoreError {
    match answer {
        Answer::Absent => StoreError::Missing(key.clone()),
        other => other.into_trouble().into_error(),
    }
}

#[async_trait]
impl Store for RemoteStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        self.put_owned(key, bytes.to_vec()).await
    }

    async fn put_owned(&self, key: &ObjectKey, bytes: Vec<u8>) -> Result<Put, StoreError> {
        let size = bytes.len() as u64;
        let put = Box::pin(settle::put(self, key, bytes.into()));
        self.whole(size, put).await.map_err(Trouble::into_error)
    }

    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let end = offset.saturating_add(len);
        let found = if len == 0 || end == u64::MAX {
            Err(Answer::BadRange)
        } else {
            self.whole(len, self.ask(|| self.range(key, offset, end))).await
        };
        let size = match found {
            Ok((bytes, size)) if size >= end => return Ok(bytes),
            Ok((_, size)) => size,
            Err(Answer::BadRange | Answer::Nothing) => match self.sized(key).await {
                Ok(Some(size)) => size,
                Ok(None) => return Err(StoreError::Missing(key.clone())),
                Err(other) => return Err(failed(key, other)),
            },
            Err(other) => return Err(failed(key, other)),
        };
        if end > size {
            Err(StoreError::OutOfRange { key: key.clone(), end, size })
        } else if len == 0 {
            Ok(Vec::new())
        } else {
            Err(failed(key, Answer::BadRange))
        }
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.sized(key).await.map_err(|answer| failed(key, answer))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        check_prefix(prefix)?;
        let whole = format!("{}{prefix}", self.prefix);
        let (mut keys, mut token) = (Vec::new(), None::<String>);
        for _ in 0..MOST_PAGES {
            let page = self.whole(0, self.ask(|| self.page(&whole, token.clone()))).await;
            let (found, next) = page.map_err(|answer| answer.into_trouble().into_error())?;
            // Others may keep things in the same bucket.
            keys.extend(found.iter().filter_map(|path| {
                let key = path.as_ref().strip_prefix(&*self.prefix)?;
                key.starts_with(prefix).then(|| key.parse::<ObjectKey>().ok())?
            }));
            if next.is_none() {
                keys.sort_unstable();
                keys.dedup();
                return Ok(keys);
            }
            if next == token {
                break;
            }
            token = next;
        }
        Err(Trouble::Senseless("a listing without an end".into()).into_error())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        if self.size(key).await?.is_none() {
            return Ok(false);
        }
        let path = self.path(key).map_err(|answer| failed(key, answer))?;
        match self.whole(0, self.ask(|| self.once(0, self.bucket.delete(&path)))).await {
            // Removed by a request whose answer was lost.
            Ok(()) | Err(Answer::Absent | Answer::Nothing) => Ok(true),
            Err(other) => Err(failed(key, other)),
        }
    }

    async fn sign_ahead(
        &self,
        scope: &str,
        generation: u64,
        plan: &Plan,
        now_ms: u64,
    ) -> Result<Booklet, NoBooklet> {
        let signed = self.booklet(scope, generation, plan, now_ms).await;
        signed.map_err(|error| NoBooklet::Never(error.to_string()))
    }
}
