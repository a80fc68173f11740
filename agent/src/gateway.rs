//! The artifact store as a machine sees it: the controller's gateway over the
//! bulk connection. Keys and authority are checked there; here only bytes are
//! framed.

use artifacts::{ChunkIndex, Digest, Location, ObjectKey, Put, Store, StoreError};
use async_trait::async_trait;
use proto::channel::Channel;
use proto::v1::artifact_gateway_client::ArtifactGatewayClient;
use proto::v1::{self, commit_reply, put_frame};
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::world::{Commit, Gateway};

const FRAME: usize = 256 << 10;
const GET: u64 = 32 << 20;
/// How long a call waits for a connection before it counts as unanswered.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// The gateway over whichever bulk connection is up.
#[derive(Clone)]
pub struct RemoteGateway {
    channel: watch::Receiver<Option<Channel>>,
}

impl RemoteGateway {
    /// Follows the newest connection.
    #[must_use]
    pub fn new(channel: watch::Receiver<Option<Channel>>) -> Self {
        Self { channel }
    }

    async fn client(&self) -> Result<ArtifactGatewayClient<Channel>, StoreError> {
        let mut channel = self.channel.clone();
        let up = tokio::time::timeout(PATIENCE, channel.wait_for(Option::is_some)).await;
        match up {
            Ok(Ok(found)) => match found.as_ref() {
                Some(channel) => Ok(ArtifactGatewayClient::new(channel.clone())),
                None => Err(StoreError::Remote("no connection to the controller".into())),
            },
            _ => Err(StoreError::Remote("no connection to the controller".into())),
        }
    }
}

fn failed(key: Option<&ObjectKey>, status: &Status) -> StoreError {
    match (status.code(), key) {
        (Code::NotFound, Some(key)) => StoreError::Missing(key.clone()),
        (Code::ResourceExhausted, _) => StoreError::Full(status.message().to_owned()),
        _ => StoreError::Remote(status.message().to_owned()),
    }
}

/// Tries at one call: a controller that is started again is back by then, and
/// every call may be repeated.
const TRIES: u32 = 6;

async fn again<T, F: Future<Output = Result<T, StoreError>>>(call: impl Fn() -> F) -> Result<T, StoreError> {
    let mut tried = 1;
    loop {
        match call().await {
            Err(StoreError::Remote(_)) if tried < TRIES => {
                tokio::time::sleep(std::time::Duration::from_millis(200 << tried)).await;
                tried += 1;
            }
            done => return done,
        }
    }
}

#[async_trait]
impl Store for RemoteGateway {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        again(|| self.put_once(key, bytes)).await
    }

    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        again(|| self.get_once(key, offset, len)).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        again(|| self.size_once(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        again(|| self.list_once(prefix)).await
    }

    async fn delete(&self, _key: &ObjectKey) -> Result<bool, StoreError> {
        Err(StoreError::Remote("only the controller deletes".into()))
    }
}

impl RemoteGateway {
    async fn put_once(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        let head = v1::PutHead { key: key.to_string(), size: bytes.len() as u64 };
        let mut frames = vec![v1::PutFrame { body: Some(put_frame::Body::Head(head)) }];
        frames.extend(
            bytes.chunks(FRAME).map(|part| v1::PutFrame { body: Some(put_frame::Body::Data(part.to_vec())) }),
        );
        let mut client = self.client().await?;
        let reply = client.put(tokio_stream::iter(frames)).await.map_err(|s| failed(Some(key), &s))?;
        match reply.into_inner().outcome() {
            v1::PutOutcome::Created => Ok(Put::Created),
            v1::PutOutcome::Same => Ok(Put::Same),
            v1::PutOutcome::Different => Ok(Put::Different),
            v1::PutOutcome::Unspecified => Err(StoreError::Remote("an outcome of a newer version".into())),
        }
    }

    async fn get_once(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::with_capacity(usize::try_from(len.min(GET)).unwrap_or(0));
        let mut at = offset;
        while at < offset + len {
            let part = (offset + len - at).min(GET);
            let ask = v1::GetRequest { key: key.to_string(), offset: at, len: part };
            let mut client = self.client().await?;
            let mut stream = client.get(ask).await.map_err(|s| failed(Some(key), &s))?.into_inner();
            let before = bytes.len();
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(|s| failed(Some(key), &s))?;
                if (bytes.len() - before + chunk.data.len()) as u64 > part {
                    return Err(StoreError::Remote("more bytes came than were asked for".into()));
                }
                bytes.extend_from_slice(&chunk.data);
            }
            if (bytes.len() - before) as u64 != part {
                return Err(StoreError::Remote("the answer broke off".into()));
            }
            at += part;
        }
        Ok(bytes)
    }

    async fn size_once(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        let ask = v1::SizeRequest { key: key.to_string() };
        let reply = self.client().await?.size(ask).await.map_err(|s| failed(None, &s))?;
        Ok(reply.into_inner().size)
    }

    async fn list_once(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        let ask = v1::ListRequest { prefix: prefix.to_owned() };
        let reply = self.client().await?.list(ask).await.map_err(|s| failed(None, &s))?;
        let keys = reply.into_inner().keys;
        keys.iter()
            .map(|key| key.parse().map_err(|_| StoreError::Remote(format!("`{key:.80}` is no key"))))
            .collect()
    }

    async fn commit_once(&self, work: &v1::Work, key: &str, digest: &str) -> Commit {
        let mut client = match self.client().await {
            Ok(client) => client,
            Err(error) => return Commit::Unknown(error.to_string()),
        };
        let ask = v1::CommitRequest {
            attempt_id: work.attempt_id.clone(),
            generation: work.generation,
            manifest_key: key.to_owned(),
            manifest_digest: digest.to_owned(),
        };
        match client.commit(ask).await.map(tonic::Response::into_inner) {
            Ok(v1::CommitReply { outcome: Some(commit_reply::Outcome::Durable(_)) }) => Commit::Durable,
            Ok(v1::CommitReply { outcome: Some(commit_reply::Outcome::SupersededBy(_)) }) => {
                Commit::Superseded
            }
            Ok(v1::CommitReply { outcome: Some(commit_reply::Outcome::Refused(why)) }) => {
                Commit::Refused(why)
            }
            Ok(_) => Commit::Unknown("an outcome of a newer version".into()),
            Err(status) => Commit::Unknown(status.message().to_owned()),
        }
    }

    async fn locate_once(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        let ask = v1::LocateRequest { digests: digests.iter().map(|d| d.as_bytes().to_vec()).collect() };
        let reply = self.client().await?.locate(ask).await.map_err(|s| failed(None, &s))?;
        let hit = |l: v1::ChunkLocation| {
            let pack = l.pack.parse().ok()?;
            Some(Location { pack, offset: l.offset, len: l.len })
        };
        Ok(reply.into_inner().locations.into_iter().map(hit).collect())
    }
}

#[async_trait]
impl ChunkIndex for RemoteGateway {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        again(|| self.locate_once(digests)).await
    }
}

#[async_trait]
impl Gateway for RemoteGateway {
    async fn commit(&self, work: &v1::Work, key: &str, digest: &str) -> Commit {
        let mut tried = 1;
        loop {
            match self.commit_once(work, key, digest).await {
                Commit::Unknown(_) if tried < TRIES => {
                    tokio::time::sleep(std::time::Duration::from_millis(200 << tried)).await;
                    tried += 1;
                }
                done => return done,
            }
        }
    }

    async fn condemn(&self, work: &v1::Work, key: &str, detail: &str) {
        let ask = v1::CondemnRequest {
            attempt_id: work.attempt_id.clone(),
            generation: work.generation,
            manifest_key: key.to_owned(),
            detail: detail.to_owned(),
        };
        let told = match self.client().await {
            Ok(mut client) => client.condemn(ask).await.map(|_| ()).map_err(|s| s.message().to_owned()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = told {
            tracing::warn!(key, error, "a corrupt checkpoint could not be reported");
        }
    }
}
