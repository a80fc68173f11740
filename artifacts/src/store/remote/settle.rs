//! Puts an object and finds out what became of it. An answer that is lost, a
//! 409, a 412 and a timeout all leave it open who wrote what is there: it is
//! read back, never assumed. A request that was given up may still arrive, and
//! then finds the key taken like any other.

use object_store::{Attribute, AttributeValue, ObjectStore, PutMode, PutOptions, PutPayload, WriteMultipart};

use super::answer::Answer;
use super::{RemoteStore, Writes};
use crate::key::ObjectKey;
use crate::offload::random_name;
use crate::store::Put;
use crate::store::trouble::Trouble;

/// Metadata that says which call wrote an object. Letters alone: Azure takes no
/// hyphen, and proxies drop headers with an underscore.
const WRITER: &str = "outlastwriter";

/// Questions after what became of one request: then it is sent again, which
/// is settled in the same way.
const LOOKS: u32 = 2;

/// Objects above this go up in parts where nothing asks for create-only.
const PART: usize = 16 << 20;

/// Parts on their way at once.
const PARTS_AT_ONCE: usize = 3;

/// Read at once when contents are compared.
const PIECE: usize = 4 << 20;

/// What the key holds.
enum Held {
    /// What this very call wrote.
    Ours,
    Same,
    Different,
    Nothing,
}

pub(super) async fn put(store: &RemoteStore, key: &ObjectKey, payload: PutPayload) -> Result<Put, Trouble> {
    let writer = format!("{}{}", random_name(), random_name());
    let mut last = Trouble::TimedOut;
    // Of requests that were sent, and of which nobody knows what became.
    let mut open = None;
    for attempt in 0..store.patience.attempts.max(1) {
        if attempt > 0 {
            tracing::debug!(store = %store.named, trouble = %last, attempt, "putting again");
            tokio::time::sleep(store.patience.before(attempt)).await;
        }
        match send(store, key, &payload, &writer).await {
            Ok(true) => return Ok(Put::Created),
            // Written, or there before: which, only a look can tell.
            Ok(false) | Err(Answer::Taken) => {}
            Err(Answer::Trouble(trouble)) if trouble.passes() => {
                if !matches!(trouble, Trouble::Unreachable(_)) {
                    open = Some(trouble.clone());
                }
                last = trouble;
            }
            // "Nothing was stored" can be said only of all requests together.
            Err(other) => {
                return Err(match other.into_trouble() {
                    Trouble::Full(_) if open.is_some() => open.unwrap_or(last),
                    trouble => trouble,
                });
            }
        }
        match store.ask_up_to(LOOKS, || held(store, key, &payload, &writer)).await {
            Ok(Held::Ours) => return Ok(Put::Created),
            Ok(Held::Same) => return Ok(Put::Same),
            Ok(Held::Different) => return Ok(Put::Different),
            // The request was never carried out, or is still on its way.
            Ok(Held::Nothing) => {}
            Err(answer) => match answer.into_trouble() {
                trouble if trouble.passes() => last = trouble,
                trouble => return Err(trouble),
            },
        }
    }
    Err(last)
}

/// Sends the object once; `true` where the answer alone settles it.
async fn send(
    store: &RemoteStore,
    key: &ObjectKey,
    payload: &PutPayload,
    writer: &str,
) -> Result<bool, Answer> {
    let size = payload.content_length();
    let path = store.path(key)?;
    let mark = (Attribute::Metadata(WRITER.into()), AttributeValue::from(writer.to_owned()));
    let attributes = [mark].into_iter().collect();
    let mut options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
    if store.writes == Writes::CreateOnly {
        store.once(size as u64, store.bucket.put_opts(&path, payload.clone(), options)).await?;
        return Ok(true);
    }
    if store.head(key).await?.is_some() {
        return Ok(false);
    }
    if size > PART {
        store.once(size as u64, in_parts(store, &path, payload, options)).await?;
    } else {
        options.mode = PutMode::Overwrite;
        store.once(size as u64, store.bucket.put_opts(&path, payload.clone(), options)).await?;
    }
    Ok(false)
}

async fn in_parts(
    store: &RemoteStore,
    path: &object_store::path::Path,
    payload: &PutPayload,
    options: PutOptions,
) -> object_store::Result<()> {
    let options = object_store::PutMultipartOptions {
        attributes: options.attributes,
        ..object_store::PutMultipartOptions::default()
    };
    let upload = store.bucket.put_multipart_opts(path, options).await?;
    let mut parts = WriteMultipart::new_with_chunk_size(upload, PART);
    for bytes in payload {
        for part in bytes.chunks(PART) {
            parts.wait_for_capacity(PARTS_AT_ONCE).await?;
            parts.write(part);
        }
    }
    // A failure takes the parts away again.
    parts.finish().await.map(|_| ())
}

async fn held(
    store: &RemoteStore,
    key: &ObjectKey,
    payload: &PutPayload,
    writer: &str,
) -> Result<Held, Answer> {
    let Some(found) = store.head(key).await? else { return Ok(Held::Nothing) };
    if found.meta.size != payload.content_length() as u64 {
        return Ok(Held::Different);
    }
    let mark = found.attributes.get(&Attribute::Metadata(WRITER.into()));
    if mark.is_some_and(|mark| mark.as_ref() == writer) {
        return Ok(Held::Ours);
    }
    // Somebody else's, or a store that keeps no metadata: the bytes decide.
    let mut offset = 0;
    for bytes in payload {
        for own in bytes.chunks(PIECE) {
            let end = offset + own.len() as u64;
            let (piece, size) = store.range(key, offset, end).await?;
            if size != found.meta.size || piece != own {
                return Ok(Held::Different);
            }
            offset = end;
        }
    }
    Ok(Held::Same)
}
