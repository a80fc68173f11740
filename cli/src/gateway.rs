//! The artifact store as people's tools see it: the controller's gateway.
//! Keys and authority are checked there; here bytes are framed, and a call
//! whose connection broke is made again, since every call may be repeated.

use std::future::Future;
use std::time::Duration;

use artifacts::{ChunkIndex, Digest, Location, ObjectKey, Put, Store, StoreError};
use proto::v1::{self, put_frame};
use tonic::{Code, Status};

use crate::client::{Bulk, passing};

const FRAME: usize = 256 << 10;
const DIGESTS: usize = 1_024;
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);

/// The controller's store.
#[derive(Debug, Clone)]
pub struct RemoteStore {
    client: Bulk,
}

impl RemoteStore {
    /// Goes through this connection.
    #[must_use]
    pub fn new(client: Bulk) -> Self {
        Self { client }
    }

    async fn retry<T, F>(
        &self,
        key: Option<&ObjectKey>,
        call: impl Fn(Bulk) -> F + Sync,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            match call(self.client.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) if passing(&status) && tries < TRIES => {
                    tokio::time::sleep(PAUSE * 2_u32.pow(tries)).await;
                }
                Err(status) => return Err(refusal(key, &status)),
            }
        }
    }
}

fn refusal(key: Option<&ObjectKey>, status: &Status) -> StoreError {
    match (status.code(), key) {
        (Code::NotFound, Some(key)) => StoreError::Missing(key.clone()),
        (Code::ResourceExhausted, _) => StoreError::Full(status.message().to_owned()),
        _ => StoreError::Remote(status.message().to_owned()),
    }
}

fn frames(key: &ObjectKey, bytes: &[u8]) -> impl Iterator<Item = v1::PutFrame> + Send + 'static {
    let head = v1::PutHead { key: key.to_string(), size: bytes.len() as u64 };
    let bytes = bytes.to_vec();
    let parts = (0..bytes.len().div_ceil(FRAME)).map(move |part| {
        let end = bytes.len().min((part + 1) * FRAME);
        put_frame::Body::Data(bytes[part * FRAME..end].to_vec())
    });
    std::iter::once(put_frame::Body::Head(head)).chain(parts).map(|body| v1::PutFrame { body: Some(body) })
}

#[tonic::async_trait]
impl Store for RemoteStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        let call = |mut client: Bulk| async move { client.put(tokio_stream::iter(frames(key, bytes))).await };
        let reply = self.retry(Some(key), call).await?.into_inner();
        match reply.outcome() {
            v1::PutOutcome::Created => Ok(Put::Created),
            v1::PutOutcome::Same => Ok(Put::Same),
            v1::PutOutcome::Different => Ok(Put::Different),
            v1::PutOutcome::Unspecified => {
                Err(StoreError::Remote("the answer to a put is not known to this version".into()))
            }
        }
    }

    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let call = |mut client: Bulk| async move {
            let ask = v1::GetRequest { key: key.to_string(), offset, len };
            let mut stream = client.get(ask).await?.into_inner();
            let mut bytes: Vec<u8> = Vec::new();
            while let Some(chunk) = stream.message().await? {
                if bytes.len() as u64 + chunk.data.len() as u64 > len {
                    return Err(Status::data_loss("more bytes came than were asked for"));
                }
                bytes.extend_from_slice(&chunk.data);
            }
            // A stream that was cut off ends like one that is whole.
            if (bytes.len() as u64) < len {
                return Err(Status::unavailable("fewer bytes came than were asked for"));
            }
            Ok(bytes)
        };
        self.retry(Some(key), call).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        let call =
            |mut client: Bulk| async move { client.size(v1::SizeRequest { key: key.to_string() }).await };
        Ok(self.retry(Some(key), call).await?.into_inner().size)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        let call = |mut client: Bulk| async move {
            client.list(v1::ListRequest { prefix: prefix.to_owned() }).await
        };
        let keys = self.retry(None, call).await?.into_inner().keys;
        let parsed: Result<_, _> = keys.iter().map(|key| key.parse()).collect();
        parsed.map_err(|error: artifacts::key::KeyError| StoreError::Remote(error.to_string()))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        Err(StoreError::Remote(format!("{key}: objects are not deleted through the gateway")))
    }
}

#[tonic::async_trait]
impl ChunkIndex for RemoteStore {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        let mut found = Vec::with_capacity(digests.len());
        for part in digests.chunks(DIGESTS) {
            let ask = || part.iter().map(|digest| digest.as_bytes().to_vec()).collect();
            let call = |mut client: Bulk| {
                let digests = ask();
                async move { client.locate(v1::LocateRequest { digests }).await }
            };
            let reply = self.retry(None, call).await?.into_inner();
            if reply.locations.len() != part.len() {
                return Err(StoreError::Remote("the gateway answered another question".into()));
            }
            found.extend(reply.locations.into_iter().map(|place| {
                // What cannot be a place is no hint: the bytes are sent.
                let pack = place.pack.parse().ok()?;
                Some(Location { pack, offset: place.offset, len: place.len })
            }));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_comes_first_and_no_byte_is_lost() {
        let key: ObjectKey = "source/g0000000000000001/p00000001".parse().unwrap();
        let bytes: Vec<u8> = (0..FRAME * 2 + 5).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut got = Vec::new();
        for (index, frame) in frames(&key, &bytes).enumerate() {
            match frame.body.unwrap() {
                put_frame::Body::Head(head) => assert_eq!((index, head.size), (0, bytes.len() as u64)),
                put_frame::Body::Data(data) => {
                    assert!(index > 0 && data.len() <= FRAME);
                    got.extend(data);
                }
            }
        }
        assert_eq!(got, bytes);
        assert_eq!(frames(&key, &[]).count(), 1);
    }
}
