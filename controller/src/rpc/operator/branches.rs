//! New runs out of old work: a fork from any checkpoint, and a checkpoint that
//! was made elsewhere as a run of its own. And whether a finished run can stand
//! for a new one that would do the same.

use artifacts::{Digest, Kind, ObjectKey};
use lifecycle::spec::difference::{Change, apply, difference};
use lifecycle::{AttemptId, Generation, RunId, RunState};
use proto::v1;
use serde_json::json;
use tonic::Status;

use super::OperatorService;
use super::changes::{Submission, spec_of};
use crate::core::{Changes, CoreError};
use crate::durable;
use crate::model::{Fork, ManifestRef, Run, Versioned};
use crate::rpc::{select, views};
use crate::secrets;

const CHANGES_LIMIT: usize = 256 << 10;

impl OperatorService {
    /// A new run, or a finished one that did the same work.
    pub(super) async fn submitted(&self, actor: &str, ask: v1::SubmitRequest) -> Result<v1::RunView, Status> {
        let spec = spec_of(&ask.spec_json)?;
        if ask.token.is_empty() || ask.token.len() > 64 {
            return Err(Status::invalid_argument("the submission has no usable token"));
        }
        let (source, tree) = self.source(ask.source_key, ask.source_digest).await?;
        let work = crate::work::name(&spec, &tree.content_digest());
        let runs: Vec<Run> = self.core.all::<Run>().await?.into_iter().map(|row| row.body).collect();
        let same = crate::work::done(runs.iter(), &work).filter(|run| run.token != ask.token);
        if let Some(same) = same.filter(|_| ask.reuse)
            && self.is_whole(same).await?
        {
            let reused = views::run(&self.core, same).await?;
            return Ok(v1::RunView { reused: true, ..reused });
        }
        let same_as = same.map(|run| run.name.clone()).unwrap_or_default();
        let packs = crate::durable::packs(&tree);
        let wish =
            Submission { work, packs, secrets: ask.secrets, ..Submission::new(spec, source, ask.token) };
        let run = self.submit_run(actor, wish).await?;
        let view = views::run(&self.core, &run).await?;
        Ok(v1::RunView { same_as, ..view })
    }

    pub(super) async fn forked(&self, actor: &str, ask: v1::ForkRequest) -> Result<Run, Status> {
        let (parent, from) = select::checkpoint(&self.core, &ask.checkpoint).await?;
        if ask.token.is_empty() || ask.token.len() > 64 {
            return Err(Status::invalid_argument("the fork has no usable token"));
        }
        if ask.changes_json.len() > CHANGES_LIMIT {
            return Err(Status::invalid_argument("the changes are too long"));
        }
        let wanted: Vec<Change> = match ask.changes_json.as_str() {
            "" => Vec::new(),
            text => serde_json::from_str(text)
                .map_err(|e| Status::invalid_argument(format!("the changes: {e}")))?,
        };
        let spec = apply(&parent.spec, &wanted).map_err(|e| Status::invalid_argument(e.to_string()))?;
        if spec.project != parent.spec.project {
            let why = "a fork stays in its project: machines of another one may not read the checkpoint";
            return Err(Status::failed_precondition(why));
        }
        let spec = spec_of(&serde_json::to_string(&spec).map_err(|e| Status::internal(e.to_string()))?)?;
        let (source, packs) = if ask.source_key.is_empty() {
            (parent.source.clone(), Vec::new())
        } else {
            let (source, tree) = self.source(ask.source_key, ask.source_digest).await?;
            (source, durable::packs(&tree))
        };
        let fork = Fork {
            checkpoint: from.manifest.clone(),
            changes: difference(&parent.spec, &spec),
            other_source: self.differs(&parent.source, &source).await?,
        };
        let wish = Submission::new(spec, source, ask.token);
        let wish = Submission { parent: Some(parent.id), fork: Some(fork), packs, ..wish };
        self.submit_run(actor, wish).await
    }

    /// Whether two trees hold something else.
    async fn differs(&self, one: &ManifestRef, other: &ManifestRef) -> Result<bool, Status> {
        if one.digest == other.digest {
            return Ok(false);
        }
        let (one, other) = (self.content(one).await?, self.content(other).await?);
        Ok(one.is_none() || one != other)
    }

    /// What a tree holds; `None`: it cannot be read.
    async fn content(&self, tree: &ManifestRef) -> Result<Option<Digest>, Status> {
        let Ok(key) = tree.key.parse::<ObjectKey>() else { return Ok(None) };
        match artifacts::restore::load_manifest(&*self.core.objects, &key, tree.digest.parse().ok()).await {
            Ok(tree) => Ok(Some(tree.content_digest())),
            Err(error) if durable::is_passing(&error) => Err(Status::unavailable(error.to_string())),
            Err(_) => Ok(None),
        }
    }

    /// Whether what a finished run left is there: its results, if it has any.
    pub(super) async fn is_whole(&self, run: &Run) -> Result<bool, Status> {
        let Some(outputs) = &run.outputs else { return Ok(true) };
        let Ok(key) = outputs.key.parse::<ObjectKey>() else { return Ok(false) };
        Ok(durable::check_stored(&self.core, &key, &outputs.digest).await?.is_ok())
    }

    pub(super) async fn imported(&self, actor: &str, ask: v1::ImportRequest) -> Result<Run, Status> {
        let core = &self.core;
        let id: RunId = ask.run_id.parse().map_err(|_| Status::invalid_argument("the run's id is none"))?;
        let spec = spec_of(&ask.spec_json)?;
        core.provider(&spec.provider)?;
        secrets::check(&spec, &ask.secrets).map_err(Status::failed_precondition)?;
        let sealed = secrets::seal(core, id, &ask.secrets)?;
        let key: ObjectKey =
            ask.manifest_key.parse().map_err(|e| Status::invalid_argument(format!("the checkpoint: {e}")))?;
        if key.scope() != id.to_string() || key.generation() != Some(0) {
            return Err(Status::invalid_argument("the checkpoint was put under another run"));
        }
        let (source, mut packs) = {
            let (source, tree) = self.source(ask.source_key, ask.source_digest).await?;
            (source, durable::packs(&tree))
        };
        let mut looked = crate::retain::looking(core).await?;
        let tree = durable::check_stored(core, &key, &ask.manifest_digest)
            .await?
            .map_err(|why| Status::failed_precondition(format!("the checkpoint: {why}")))?;
        if tree.kind != Kind::Checkpoint {
            return Err(Status::invalid_argument("what was put into the store is no checkpoint"));
        }
        packs.extend(tree.packs.iter().cloned());
        if let Some(same) = core.load::<Run>(&id.to_string()).await? {
            return Ok(same.body);
        }
        let manifest = ManifestRef { key: ask.manifest_key, digest: ask.manifest_digest, step: tree.step };
        let nobody = (id, AttemptId::from_bytes([0; 16]), Generation::NONE);
        let new_bytes = durable::added(core, None, &key, &tree.packs).await?;
        let row = Versioned::new(tree.committed(manifest.clone(), nobody, core.clock.wall_ms(), new_bytes));
        let mut run = super::changes::row(core, id, Submission::new(spec, source, id.to_string()))?;
        run.status = run.status.apply(lifecycle::RunEvent::Pause).map_err(CoreError::from)?;
        run.head = Some(manifest.clone());
        run.produced_step = tree.step;
        debug_assert!(run.status == RunState::Paused, "nothing is bound to it");
        let run = Versioned::new(run);
        let detail = json!({"name": run.body.name, "step": tree.step, "bytes": row.body.bytes});
        for _ in 0..8 {
            let mut changes = Changes::default().put(&run).put(&row);
            if let Some(sealed) = &sealed {
                changes = changes.put(sealed);
            }
            changes.0.chunks.clone_from(&tree.chunks);
            let changes = changes.note(core, actor, "imported", &manifest.key, Some(id), detail.clone());
            let Ok(changes) = crate::retain::naming(core, changes, &packs, &mut looked).await? else {
                return Err(Status::aborted("a part of it is being deleted; import it again"));
            };
            if core.commit(changes).await? {
                return Ok(run.body);
            }
        }
        Err(Status::aborted("the rows kept changing; import it again"))
    }
}
