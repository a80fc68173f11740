//! Tries a store out when it is set up: whether what later must not fail
//! works, above all that it refuses to overwrite. Leaves nothing behind.

use std::sync::atomic::{AtomicI64, Ordering};

use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};

use super::answer::Answer;
use super::{RemoteStore, Writes};
use crate::key::ObjectKey;
use crate::offload::random_name;
use crate::store::trouble::Trouble;

/// Signatures are refused beyond a quarter of an hour; long before, something
/// is wrong with a clock.
const MOST_SKEW_MS: i64 = 5 * 60 * 1000;

/// What was found out about a store that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Whether it refuses to overwrite.
    pub create_only: bool,
    /// The store's clock less this computer's.
    pub skew_ms: i64,
}

/// Tries the store out, within the time of a call as a whole. `clock`: this
/// computer's, in milliseconds since 1970; it is read right before the request
/// whose time the store notes.
///
/// # Errors
/// With what keeps it from being used; the text of it names no secret.
pub async fn probe(
    store: &RemoteStore,
    clock: &(dyn Fn() -> i64 + Send + Sync),
) -> Result<Findings, Trouble> {
    store.whole(0, Box::pin(all(store, clock))).await
}

async fn all(store: &RemoteStore, clock: &(dyn Fn() -> i64 + Send + Sync)) -> Result<Findings, Trouble> {
    let scope = format!("probe/{}", random_name());
    let key = |name: &str| {
        let parsed = format!("{scope}/{name}").parse::<ObjectKey>();
        parsed.map_err(|_| Trouble::Senseless("the probe's own key".into()))
    };
    let (first, second) = (key("a")?, key("b")?);
    let mut written = Vec::new();
    let tried = attempt(store, &first, &second, clock, &mut written).await;
    let mut removed = Ok(());
    for key in written {
        removed = removed.and(remove(store, key).await);
    }
    let findings = tried?;
    removed?;
    if findings.skew_ms.abs() > MOST_SKEW_MS {
        return Err(Trouble::ClockSkew(Some(findings.skew_ms)));
    }
    if !findings.create_only && store.writes == Writes::CreateOnly {
        return Err(Trouble::Overwrites);
    }
    Ok(findings)
}

/// `written`: what may be there afterwards.
async fn attempt<'a>(
    store: &RemoteStore,
    key: &'a ObjectKey,
    beside: &'a ObjectKey,
    clock: &(dyn Fn() -> i64 + Send + Sync),
    written: &mut Vec<&'a ObjectKey>,
) -> Result<Findings, Trouble> {
    let sent_ms = AtomicI64::new(0);
    let made = store.ask(|| {
        sent_ms.store(clock(), Ordering::Relaxed);
        create(store, key, b"first")
    });
    match made.await {
        // An answer was lost, and the second request found the first's.
        Ok(()) | Err(Answer::Taken) => written.push(key),
        Err(other) => {
            let trouble = other.into_trouble();
            // Where nobody was reached, or the answer was no, there is nothing.
            if trouble.passes() && !matches!(trouble, Trouble::Unreachable(_)) {
                written.push(key);
            }
            return Err(can_it_read(store, trouble).await);
        }
    }
    let second = store.ask(|| create(store, key, b"other")).await;
    let found = store.ask(|| store.head(key)).await.map_err(Answer::into_trouble)?;
    let found = found.ok_or_else(|| Trouble::Senseless("what was just put is not there".into()))?;
    let (bytes, _) = store.ask(|| store.range(key, 0, 5)).await.map_err(Answer::into_trouble)?;
    let create_only = match second {
        Err(Answer::Taken) => bytes == b"first",
        Ok(()) => false,
        Err(other) => return Err(other.into_trouble()),
    };
    if bytes != b"first" && bytes != b"other" {
        return Err(Trouble::Senseless("it gives other bytes than it was given".into()));
    }
    written.push(beside);
    match store.ask(|| create(store, beside, b"first")).await {
        Ok(()) | Err(Answer::Taken) => {}
        Err(other) => return Err(other.into_trouble()),
    }
    lists(store, [key, beside]).await?;
    let stored_ms = found.meta.last_modified.timestamp_millis();
    // A store that tells no time is not asked what time it is.
    let skew_ms = if stored_ms == 0 { 0 } else { stored_ms - sent_ms.load(Ordering::Relaxed) };
    Ok(Findings { create_only, skew_ms })
}

/// A page of one key must say that there is more: what is listed in part and
/// taken for all would be what is saved and taken for lost.
async fn lists(store: &RemoteStore, keys: [&ObjectKey; 2]) -> Result<(), Trouble> {
    let [first, second] = keys.map(|key| store.path(key));
    let (first, second) = (first.map_err(Answer::into_trouble)?, second.map_err(Answer::into_trouble)?);
    let prefix = first.as_ref().strip_suffix('a').unwrap_or_default();
    let (mut found, mut token) = (Vec::new(), None::<String>);
    for _ in 0..4 {
        let page = store.ask(|| store.page_of(1, prefix, token.clone())).await;
        let (keys, next) = page.map_err(Answer::into_trouble)?;
        found.extend(keys);
        token = next;
        if token.is_none() {
            break;
        }
    }
    if found.contains(&first) && found.contains(&second) {
        return Ok(());
    }
    Err(Trouble::Senseless("its listing misses what was just put".into()))
}

async fn create(store: &RemoteStore, key: &ObjectKey, bytes: &[u8]) -> Result<(), Answer> {
    let path = store.path(key)?;
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    store.once(0, store.bucket.put_opts(&path, PutPayload::from(bytes.to_vec()), options)).await.map(|_| ())
}

/// Writing was refused: whether reading would be, too.
async fn can_it_read(store: &RemoteStore, trouble: Trouble) -> Trouble {
    let Trouble::Denied(why) = &trouble else { return trouble };
    match store.ask(|| store.page(&store.prefix, None)).await {
        Ok(_) => Trouble::ReadOnly(why.clone()),
        Err(_) => trouble,
    }
}

async fn remove(store: &RemoteStore, key: &ObjectKey) -> Result<(), Trouble> {
    let path = store.path(key).map_err(Answer::into_trouble)?;
    match store.ask(|| store.once(0, object_store::ObjectStoreExt::delete(&*store.bucket, &path))).await {
        Ok(()) | Err(Answer::Absent | Answer::Nothing) => Ok(()),
        Err(other) => Err(other.into_trouble()),
    }
}
