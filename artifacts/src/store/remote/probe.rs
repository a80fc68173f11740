//! Tries a store out when it is set up: whether what later must not fail
//! works, above all that it refuses to overwrite. Leaves nothing behind.

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

/// Tries the store out.
///
/// # Errors
/// With what keeps it from being used; the text of it names no secret.
pub async fn probe(store: &RemoteStore, now_ms: i64) -> Result<Findings, Trouble> {
    let key: ObjectKey = format!("probe/{}", random_name())
        .parse()
        .map_err(|_| Trouble::Senseless("the probe's own key".into()))?;
    let tried = attempt(store, &key, now_ms).await;
    let removed = remove(store, &key).await;
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

async fn attempt(store: &RemoteStore, key: &ObjectKey, now_ms: i64) -> Result<Findings, Trouble> {
    if let Err(answer) = store.ask(|| create(store, key, b"first")).await {
        let trouble = match answer {
            // An answer was lost, and the second request found the first's.
            Answer::Taken => None,
            other => Some(other.into_trouble()),
        };
        if let Some(trouble) = trouble {
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
    let path = store.path(key).map_err(Answer::into_trouble)?;
    let (listed, _) = store.ask(|| store.page(path.as_ref(), None)).await.map_err(Answer::into_trouble)?;
    if !listed.contains(&path) {
        return Err(Trouble::Senseless("its listing misses what was just put".into()));
    }
    Ok(Findings { create_only, skew_ms: found.meta.last_modified.timestamp_millis().saturating_sub(now_ms) })
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
