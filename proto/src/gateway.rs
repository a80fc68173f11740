//! The artifact store as its clients see it: the controller's gateway. Keys
//! and authority are checked there; here bytes are framed, and a call whose
//! connection broke is made again, since every call may be repeated.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use artifacts::manifest::{Description, VERSION};
use artifacts::restore::{self, RestoreError};
use artifacts::seal::{Keyring, ManifestKey};
use artifacts::{ChunkIndex, Digest, Location, Manifest, ObjectKey, Put, Store, StoreError};
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::v1::artifact_gateway_client::ArtifactGatewayClient;
use crate::v1::{self, put_frame};

/// The service's client.
pub type Client = ArtifactGatewayClient<Channel>;

const FRAME: usize = 256 << 10;
const DIGESTS: usize = 1_024;
/// A controller that is started again is back within these tries.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);
/// How long a call waits for a connection before it counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no key of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// Nobody answered: ask again.
    #[error("the key of a sealed manifest could not be asked for: {0}")]
    Passing(String),
    /// The controller has it not, or does not give it.
    #[error("{0}")]
    Refused(String),
}

impl UnsealError {
    /// What it means for the manifest at `key`.
    #[must_use]
    pub fn of(self, key: &ObjectKey) -> RestoreError {
        match self {
            Self::Passing(_) => RestoreError::Remote(self.to_string()),
            Self::Refused(what) => RestoreError::Sealed { key: key.clone(), what },
        }
    }
}

/// The controller's store.
#[derive(Debug, Clone)]
pub struct RemoteStore {
    channel: watch::Receiver<Option<Channel>>,
    /// The newest format that the controller said it reads.
    format: Arc<AtomicU32>,
}

/// Whether the same question may be answered later, by this controller or
/// another.
#[must_use]
pub fn passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted => true,
        // How a connection that broke in the middle looks.
        Code::Unknown | Code::Internal => {
            std::error::Error::source(status).is_some() || broken(status.message())
        }
        _ => false,
    }
}

fn broken(message: &str) -> bool {
    ["h2 ", "transport", "connection", "broken pipe", "error reading", "Timeout"]
        .iter()
        .any(|sign| message.contains(sign))
}

impl RemoteStore {
    /// Goes through this connection.
    #[must_use]
    pub fn over(channel: Channel) -> Self {
        Self::newest(watch::channel(Some(channel)).1)
    }

    /// Goes through whichever connection is the newest.
    #[must_use]
    pub fn newest(channel: watch::Receiver<Option<Channel>>) -> Self {
        Self { channel, format: Arc::new(AtomicU32::new(VERSION)) }
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.channel.borrow().is_some()
    }

    async fn client(&self) -> Result<Client, Status> {
        let mut channel = self.channel.clone();
        let up = tokio::time::timeout(PATIENCE, channel.wait_for(Option::is_some)).await;
        let found = up.ok().and_then(Result::ok).and_then(|found| found.clone());
        found.map(Client::new).ok_or_else(|| Status::unavailable("no connection to the controller"))
    }

    /// Makes a call that may be repeated until it is answered or refused.
    ///
    /// # Errors
    /// Where it is refused, or nobody answered any try.
    pub async fn call<T, F>(&self, call: impl Fn(Client) -> F + Sync) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = match self.client().await {
                Ok(client) => call(client).await,
                Err(status) => Err(status),
            };
            match answer {
                Err(status) if passing(&status) && tries < TRIES => {
                    tokio::time::sleep(PAUSE * 2_u32.pow(tries)).await;
                }
                answer => return answer,
            }
        }
    }

    /// The key of a sealed manifest; `attempt` is empty for operators.
    ///
    /// # Errors
    /// Where the controller does not give it, or nobody answered: the latter is
    /// [`StoreError::Remote`].
    pub async fn unseal(&self, attempt: &str, key: &ObjectKey) -> Result<ManifestKey, UnsealError> {
        let call = |mut client: Client| async move {
            let ask = v1::UnsealRequest { attempt_id: attempt.to_owned(), manifest_key: key.to_string() };
            client.unseal(ask).await
        };
        match self.call(call).await {
            Ok(reply) => ManifestKey::try_from(reply.get_ref().manifest_opens.as_slice())
                .map_err(|_| UnsealError::Passing("the controller gave what is no key".into())),
            Err(status) => Err(match status.code() {
                // Nobody here can open it: that no other try changes.
                Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => {
                    UnsealError::Refused(status.message().to_owned())
                }
                // Denied, too: until a newer one that is offered first was
                // found damaged, for one.
                _ => UnsealError::Passing(status.message().to_owned()),
            }),
        }
    }

    /// Reads a manifest, and opens it with the controller's help where it is
    /// sealed.
    ///
    /// # Errors
    /// As for any manifest.
    pub async fn open_manifest(
        &self,
        attempt: &str,
        key: &ObjectKey,
        expect: Digest,
    ) -> Result<Manifest, RestoreError> {
        let found = restore::load_description(self, key, Some(expect)).await?;
        let mut keys = Keyring::default();
        if matches!(found, Description::Sealed(_)) {
            let opens = self.unseal(attempt, key).await.map_err(|error| error.of(key))?;
            keys.add_manifest(key.clone(), opens);
        }
        found.open(key, &keys).map_err(|error| restore::opening_failed(key, error))
    }

    async fn retry<T, F>(
        &self,
        key: Option<&ObjectKey>,
        call: impl Fn(Client) -> F + Sync,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        self.call(call).await.map_err(|status| refusal(key, &status))
    }
}

fn refusal(key: Option<&ObjectKey>, status: &Status) -> StoreError {
    match (status.code(), key) {
        (Code::NotFound, Some(key)) => StoreError::Missing(key.clone()),
        (Code::ResourceExhausted, _) => StoreError::Full(within(status.message())),
        _ => StoreError::Remote(status.message().to_owned()),
    }
}

/// What the store on the other side said, without the words that are put around
/// it there and here.
fn within(text: &str) -> String {
    let whole = StoreError::Full("\0".into()).to_string();
    let (before, after) = whole.split_once('\0').unwrap_or_default();
    let inside = text.split_once(before).and_then(|(_, rest)| rest.rsplit_once(after));
    inside.map_or(text, |(inside, _)| inside).to_owned()
}

/// What may be written for a controller. One that says nothing is older than
/// codecs are; one that reads more than this program writes is no matter.
fn format_of(reply: &v1::LocateReply) -> u32 {
    reply.format.clamp(1, VERSION)
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
        let call =
            |mut client: Client| async move { client.put(tokio_stream::iter(frames(key, bytes))).await };
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
        let call = |mut client: Client| async move {
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
            |mut client: Client| async move { client.size(v1::SizeRequest { key: key.to_string() }).await };
        Ok(self.retry(Some(key), call).await?.into_inner().size)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        let call = |mut client: Client| async move {
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
            let call = |mut client: Client| {
                let digests = ask();
                async move { client.locate(v1::LocateRequest { digests, format: VERSION }).await }
            };
            let reply = self.retry(None, call).await?.into_inner();
            if reply.locations.len() != part.len() {
                return Err(StoreError::Remote("the gateway answered another question".into()));
            }
            self.format.store(format_of(&reply), Ordering::Relaxed);
            found.extend(reply.locations.into_iter().map(|place| {
                // What cannot be a place is no hint: the bytes are sent.
                let pack = place.pack.parse().ok()?;
                let codec = u8::try_from(place.codec).ok()?.try_into().ok()?;
                let stored = if place.stored == 0 { place.len } else { place.stored };
                let cipher = place.cipher.as_slice().try_into().ok().map(Digest::from_bytes);
                Some(Location { pack, offset: place.offset, len: place.len, stored, codec, cipher })
            }));
        }
        Ok(found)
    }

    fn format(&self) -> u32 {
        self.format.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_is_told_once_however_many_pass_it_on() {
        let first = StoreError::Full("write object `packs/a`".into()).to_string();
        let second = refusal(None, &Status::resource_exhausted(&first)).to_string();
        assert_eq!((first.matches("full").count(), &second), (1, &first));
        let other = refusal(None, &Status::resource_exhausted("the database's disk is full"));
        assert!(other.to_string().contains("(the database's disk is full)"), "{other}");
    }

    #[test]
    fn a_controller_that_says_nothing_of_formats_gets_the_first() {
        for (said, written) in [(0, 1), (1, 1), (VERSION, VERSION), (VERSION + 7, VERSION)] {
            let reply = v1::LocateReply { format: said, ..v1::LocateReply::default() };
            assert_eq!(format_of(&reply), written);
        }
    }

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
