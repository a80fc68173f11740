//! The artifact gateway. A machine writes only under the keys of its own
//! attempts and reads only what belongs to its run's project; an operator
//! writes only sources.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use artifacts::codec::Codec;
use artifacts::seal::has_sealed_shape;
use artifacts::{ObjectKey, Put, StoreError};
use lifecycle::{Generation, MachineId, MachineState};
use proto::convert;
use proto::identity::Identity;
use proto::v1::{self, artifact_gateway_server::ArtifactGateway, commit_reply, put_frame};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::core::{Core, CoreError};
use crate::durable::{self, Outcome};
use crate::model::{Attempt, Machine, ManifestRef, Run, Versioned};

const OBJECT_LIMIT: u64 = 64 << 20;
const DIGESTS: usize = 1_024;
const FRAME: usize = 256 << 10;
/// Objects of source trees live under this scope.
pub const SOURCE: &str = "source";

/// The service.
pub struct Gateway {
    core: Arc<Core>,
    tasks: TaskTracker,
    /// Booklets that are made at once: each is thousands of signatures.
    signing: Semaphore,
}

/// What a peer may touch.
struct Reach {
    /// Writes: exactly these (scope, generation) pairs; `None` is sources and
    /// what is imported.
    write: Option<BTreeSet<(String, u64)>>,
    /// Reads; `None` is everything.
    read: Option<BTreeSet<String>>,
    /// Writes nothing but what is sealed.
    seals: bool,
    actor: String,
}

impl Reach {
    fn may_write(&self, key: &ObjectKey) -> bool {
        match &self.write {
            // No machine ever has generation 0: what a person brings goes there.
            None => key.scope() == SOURCE || key.generation() == Some(0),
            Some(own) => {
                key.generation().is_some_and(|generation| own.contains(&(key.scope().to_owned(), generation)))
            }
        }
    }
    fn may_read(&self, scope: &str) -> bool {
        self.read.as_ref().is_none_or(|scopes| scopes.contains(scope))
    }
}

impl Gateway {
    /// Serves for `core`; its streams run on `tasks`.
    #[must_use]
    pub fn new(core: Arc<Core>, tasks: TaskTracker) -> Self {
        Self { core, tasks, signing: Semaphore::new(1) }
    }

    async fn reach<T>(&self, request: &Request<T>) -> Result<Reach, Status> {
        let peer = super::peer_of(request)?;
        super::current(&self.core, &peer)?;
        match peer.identity {
            Identity::Operator(name) => {
                Ok(Reach { write: None, read: None, seals: false, actor: format!("operator:{name}") })
            }
            Identity::Machine(id) => Ok(self.machine_reach(id).await?),
            Identity::Controller => Err(Status::permission_denied("a controller is no client")),
        }
    }

    async fn machine_reach(&self, id: MachineId) -> Result<Reach, CoreError> {
        let machine: Versioned<Machine> = self.core.need(&id.to_string()).await?;
        if matches!(
            machine.body.status,
            MachineState::Destroying | MachineState::Destroyed | MachineState::Abandoned
        ) {
            return Err(CoreError::Impossible("this machine is not wanted any more".into()));
        }
        let run: Versioned<Run> = self.core.need(&machine.body.run.to_string()).await?;
        let attempts: Vec<Versioned<Attempt>> = self.core.of_run(run.body.id).await?;
        let own = attempts.iter().filter(|a| a.body.machine == id);
        let write = own.map(|a| (a.body.run.to_string(), a.body.generation.as_u64())).collect();
        let project = &run.body.spec.project;
        let mut read: BTreeSet<String> = self
            .core
            .all::<Run>()
            .await?
            .into_iter()
            .filter(|r| r.body.spec.project == *project)
            .map(|r| r.body.id.to_string())
            .collect();
        read.insert(SOURCE.to_owned());
        let seals = crate::keys::is_sealed_run(&self.core, &run.body.spec);
        Ok(Reach { write: Some(write), read: Some(read), seals, actor: format!("machine:{id}") })
    }
}

fn key_of(text: &str) -> Result<ObjectKey, Status> {
    text.parse().map_err(|e: artifacts::key::KeyError| Status::invalid_argument(e.to_string()))
}

fn store_status(error: StoreError) -> Status {
    match &error {
        StoreError::Missing(_) => Status::not_found(error.to_string()),
        _ => CoreError::from(error).into(),
    }
}

#[tonic::async_trait]
impl ArtifactGateway for Gateway {
    type GetStream = Pin<Box<dyn Stream<Item = Result<v1::Chunk, Status>> + Send>>;
    type BookletStream = Pin<Box<dyn Stream<Item = Result<v1::BookletPart, Status>> + Send>>;

    async fn booklet(
        &self,
        request: Request<v1::BookletRequest>,
    ) -> Result<Response<Self::BookletStream>, Status> {
        let (machine, _) = super::machine_of(&self.core, &request)?;
        let turn = self.signing.acquire().await.map_err(|_| Status::unavailable("it ends"))?;
        let parts = super::booklet::booklet(&self.core, machine, request.get_ref()).await?;
        drop(turn);
        Ok(Response::new(Box::pin(tokio_stream::iter(parts.into_iter().map(Ok)))))
    }

    async fn locate(&self, request: Request<v1::LocateRequest>) -> Result<Response<v1::LocateReply>, Status> {
        let reach = self.reach(&request).await?;
        let ask = request.into_inner();
        if ask.digests.len() > DIGESTS {
            return Err(Status::invalid_argument(format!("more than {DIGESTS} digests")));
        }
        let digests: Vec<[u8; 32]> = ask
            .digests
            .iter()
            .map(|d| {
                d.as_slice().try_into().map_err(|_| Status::invalid_argument("a digest is not 32 bytes"))
            })
            .collect::<Result<_, _>>()?;
        let mut found = self.core.store.locate(&digests).await.map_err(CoreError::from)?;
        let reads =
            |codec: u8| Codec::try_from(codec).is_ok_and(|codec| codec.version() <= ask.format.max(1));
        // A chunk of another project is as good as absent.
        let scope = |pack: &str| pack.split('/').next().unwrap_or_default().to_owned();
        // And a source may rest on sources alone, whoever reads it later.
        let usable = |h: &crate::store::ChunkPut| match reach.write {
            None => scope(&h.pack) == SOURCE,
            Some(_) => reach.may_read(&scope(&h.pack)),
        };
        found.iter_mut().for_each(|hit| *hit = hit.take().filter(|h| usable(h) && reads(h.codec)));
        let own = |pack: &ObjectKey| reach.write.is_some() && reach.may_write(pack);
        let found = durable::reliable(&self.core, found, own).await?;
        let told = |h: crate::store::ChunkPut| v1::ChunkLocation {
            pack: h.pack,
            offset: h.offset,
            len: h.len,
            stored: h.stored,
            codec: u32::from(h.codec),
            cipher: h.cipher.map(|cipher| cipher.to_vec()).unwrap_or_default(),
        };
        let locations = found.into_iter().map(|hit| hit.map_or_else(v1::ChunkLocation::default, told));
        let locations = locations.collect();
        Ok(Response::new(v1::LocateReply { locations, format: artifacts::manifest::VERSION }))
    }

    async fn put(&self, request: Request<Streaming<v1::PutFrame>>) -> Result<Response<v1::PutReply>, Status> {
        let reach = self.reach(&request).await?;
        let mut frames = request.into_inner();
        let Some(v1::PutFrame { body: Some(put_frame::Body::Head(head)) }) =
            frames.next().await.transpose()?
        else {
            return Err(Status::invalid_argument("the first frame must be the head"));
        };
        let key = key_of(&head.key)?;
        if !reach.may_write(&key) {
            return Err(Status::permission_denied(format!("{} may not write {key}", reach.actor)));
        }
        if head.size > OBJECT_LIMIT {
            return Err(Status::invalid_argument(format!("more than {OBJECT_LIMIT} bytes in one object")));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(head.size).unwrap_or(0));
        while let Some(frame) = frames.next().await.transpose()? {
            let Some(put_frame::Body::Data(data)) = frame.body else {
                return Err(Status::invalid_argument("a frame has no data"));
            };
            if bytes.len() as u64 + data.len() as u64 > head.size {
                return Err(Status::invalid_argument("more bytes than announced"));
            }
            bytes.extend_from_slice(&data);
        }
        if bytes.len() as u64 != head.size {
            return Err(Status::invalid_argument("fewer bytes than announced"));
        }
        // An agent of a version that does not know how: nothing of it is stored.
        if reach.seals && !has_sealed_shape(&key, &bytes) {
            return Err(Status::failed_precondition(
                "the run's trees are to be sealed, and this object is not",
            ));
        }
        let outcome = match self.core.objects.put_owned(&key, bytes).await.map_err(store_status)? {
            Put::Created => v1::PutOutcome::Created,
            Put::Same => v1::PutOutcome::Same,
            Put::Different => v1::PutOutcome::Different,
        };
        Ok(Response::new(v1::PutReply { outcome: outcome.into() }))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let reach = self.reach(&request).await?;
        let ask = request.into_inner();
        let key = key_of(&ask.key)?;
        if !reach.may_read(key.scope()) {
            return Err(Status::permission_denied(format!("{} may not read {key}", reach.actor)));
        }
        if ask.len > OBJECT_LIMIT {
            return Err(Status::invalid_argument(format!("more than {OBJECT_LIMIT} bytes asked at once")));
        }
        let bytes = self.core.objects.get(&key, ask.offset, ask.len).await.map_err(store_status)?;
        let (sender, receiver) = mpsc::channel(4);
        self.tasks.spawn(async move {
            for frame in bytes.chunks(FRAME) {
                if sender.send(Ok(v1::Chunk { data: frame.to_vec() })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn size(&self, request: Request<v1::SizeRequest>) -> Result<Response<v1::SizeReply>, Status> {
        let reach = self.reach(&request).await?;
        let key = key_of(&request.into_inner().key)?;
        if !reach.may_read(key.scope()) {
            return Err(Status::permission_denied(format!("{} may not read {key}", reach.actor)));
        }
        let size = self.core.objects.size(&key).await.map_err(store_status)?;
        Ok(Response::new(v1::SizeReply { size }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListReply>, Status> {
        let reach = self.reach(&request).await?;
        let prefix = request.into_inner().prefix;
        let scope = prefix.split('/').next().unwrap_or_default();
        if !reach.may_read(scope) || (reach.write.is_some() && scope == SOURCE) {
            return Err(Status::permission_denied(format!("{} may not list `{scope}`", reach.actor)));
        }
        let keys = self.core.objects.list(&prefix).await.map_err(store_status)?;
        Ok(Response::new(v1::ListReply { keys: keys.iter().map(ToString::to_string).collect() }))
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitReply>, Status> {
        let (machine, _) = super::machine_of(&self.core, &request)?;
        let ask = request.into_inner();
        let attempt = convert::attempt_id(&ask.attempt_id)?;
        let row: Versioned<Attempt> = self.core.need(&attempt.to_string()).await?;
        if row.body.machine != machine {
            return Err(Status::permission_denied("that attempt is another machine's"));
        }
        let manifest = ManifestRef { key: ask.manifest_key, digest: ask.manifest_digest, step: None };
        let generation = Generation::from_u64(ask.generation);
        let outcome = match durable::commit(&self.core, attempt, generation, &manifest).await? {
            Outcome::Durable => commit_reply::Outcome::Durable(true),
            Outcome::Superseded(by) => commit_reply::Outcome::SupersededBy(by.as_u64()),
            Outcome::Refused(why) => commit_reply::Outcome::Refused(why),
            Outcome::Again(why) => return Err(Status::aborted(format!("{why}: it is published again"))),
        };
        Ok(Response::new(v1::CommitReply { outcome: Some(outcome) }))
    }

    async fn condemn(
        &self,
        request: Request<v1::CondemnRequest>,
    ) -> Result<Response<v1::CondemnReply>, Status> {
        let (machine, _) = super::machine_of(&self.core, &request)?;
        let ask = request.into_inner();
        let attempt = convert::attempt_id(&ask.attempt_id)?;
        let row: Versioned<Attempt> = self.core.need(&attempt.to_string()).await?;
        let offered = row.body.resume.iter().any(|r| r.key == ask.manifest_key);
        if row.body.machine != machine || !offered {
            return Err(Status::permission_denied("that checkpoint was not offered to this machine"));
        }
        // A machine's word alone condemns nothing: it is checked here.
        let key = key_of(&ask.manifest_key)?;
        let checked = match artifacts::restore::load_description(&*self.core.objects, &key, None).await {
            Ok(tree) => durable::verified(&self.core, &key, tree).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &checked
            && durable::is_passing(error)
        {
            return Err(Status::unavailable(format!("the checkpoint cannot be checked now: {error}")));
        }
        if let Err(error) = &checked {
            let (actor, blamed) = (format!("machine:{machine}"), durable::blamed(error));
            durable::condemn(&self.core, &actor, &ask.manifest_key, &ask.detail, blamed).await?;
        }
        Ok(Response::new(v1::CondemnReply {}))
    }

    async fn pin_data(
        &self,
        request: Request<v1::PinDataRequest>,
    ) -> Result<Response<v1::PinDataReply>, Status> {
        super::pin::pin(&self.core, request).await
    }

    async fn unseal(&self, request: Request<v1::UnsealRequest>) -> Result<Response<v1::UnsealReply>, Status> {
        super::unseal::unseal(&self.core, request).await
    }
}
