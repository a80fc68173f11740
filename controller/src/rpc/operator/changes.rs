//! What operators change of runs: submissions and single rows, each by
//! compare-and-set until nobody was faster.

use std::collections::BTreeMap;

use artifacts::{Manifest, ObjectKey};
use lifecycle::{Generation, RunEvent, RunId, RunSpec, RunState};
use proto::v1;
use serde_json::json;
use tonic::{Response, Status};

use super::super::{select, views};
use super::OperatorService;
use crate::core::{Changes, Core, CoreError};
use crate::model::{Attempt, Checkpoint, Fork, Machine, ManifestRef, Run, Versioned, Wish};
use crate::secrets;

const SPEC_LIMIT: usize = 256 << 10;

/// A run that is wanted.
pub(super) struct Submission {
    pub(super) spec: RunSpec,
    pub(super) source: ManifestRef,
    pub(super) token: String,
    pub(super) parent: Option<RunId>,
    pub(super) fork: Option<Fork>,
    pub(super) work: String,
    /// What the source tree names.
    pub(super) packs: Vec<String>,
    /// Those that came with it; a run that comes of another has the other's.
    pub(super) secrets: Vec<v1::Secret>,
}

impl Submission {
    pub(super) fn new(spec: RunSpec, source: ManifestRef, token: String) -> Self {
        let (work, packs, secrets) = (String::new(), Vec::new(), Vec::new());
        Self { spec, source, token, parent: None, fork: None, work, packs, secrets }
    }
}

impl OperatorService {
    /// A source tree that was put into the store. Its chunks are known from now
    /// on: the next unchanged tree moves no file bytes.
    pub(super) async fn source(
        &self,
        key: String,
        digest: String,
    ) -> Result<(ManifestRef, Manifest), Status> {
        let core = &self.core;
        let object: ObjectKey = key.parse().map_err(|e| Status::invalid_argument(format!("source: {e}")))?;
        if core.objects.size(&object).await.map_err(CoreError::from)?.is_none() {
            return Err(Status::failed_precondition("the source tree is not in the store"));
        }
        let expected = digest.parse().map_err(|_| Status::invalid_argument("source digest"))?;
        let tree = artifacts::restore::load_manifest(&*core.objects, &object, Some(expected))
            .await
            .map_err(|e| Status::invalid_argument(format!("source: {e}")))?;
        let mut changes = Changes::default();
        changes.0.chunks = crate::durable::chunk_rows(&tree);
        core.commit(changes).await?;
        Ok((ManifestRef { key, digest, step: None }, tree))
    }

    /// Ends the machine of a run as a power cut would, telling nobody.
    pub(super) async fn sabotaged(&self, actor: &str, text: &str) -> Result<Machine, Status> {
        let run = select::run(&self.core, text).await?.body;
        let machines: Vec<Versioned<Machine>> = self.core.of_run(run.id).await?;
        let bound = match run.bound {
            Some(id) => self.core.load::<Attempt>(&id.to_string()).await?.map(|a| a.body.machine),
            None => None,
        };
        let target = machines.into_iter().find(|m| Some(m.body.id) == bound && m.body.status.is_up());
        let Some(machine) = target else {
            return Err(Status::failed_precondition(format!("{} has no machine to end now", run.name)));
        };
        let instance = machine.body.instance.clone().unwrap_or_default();
        let provider = self.core.provider(&machine.body.provider)?;
        let detail = json!({"instance": instance});
        let id = machine.body.id;
        self.core
            .commit(Changes::default().note(&self.core, actor, "sabotage", id, Some(run.id), detail))
            .await?;
        provider.sabotage(&instance).await.map_err(Status::failed_precondition)?;
        Ok(machine.body)
    }

    pub(super) async fn submit_run(&self, actor: &str, wish: Submission) -> Result<Run, Status> {
        let core = &self.core;
        let secrets = match wish.parent {
            Some(parent) if wish.secrets.is_empty() => secrets::of(core, parent, &wish.spec).await?,
            _ => wish.secrets.clone(),
        };
        secrets::check(&wish.spec, &secrets).map_err(Status::failed_precondition)?;
        let provider = core.provider(&wish.spec.provider)?;
        crate::money::is_capped(&wish.spec, provider.is_paid()).map_err(Status::failed_precondition)?;
        crate::money::is_enough(&wish.spec, provider.is_paid()).map_err(Status::failed_precondition)?;
        provider.ready().map_err(Status::failed_precondition)?;
        // Two that are asked for at once must see each other.
        let _alone = self.submitting.lock().await;
        let all: Vec<Versioned<Run>> = core.all().await?;
        if let Some(same) = all.iter().find(|r| r.body.token == wish.token) {
            return Ok(same.body.clone());
        }
        if let Some(parent) = wish.parent.filter(|_| wish.fork.is_none()) {
            goes_on_once(&all, parent)?;
        }
        let id = RunId::from_bytes(core.entropy.bytes().map_err(CoreError::from)?);
        let (parent, packs) = (wish.parent, wish.packs.clone());
        let mut run = Versioned::new(row(core, id, Submission { packs: Vec::new(), ..wish })?);
        if let Some(parent) = parent {
            // It goes on with the same data, too.
            run.body.pins = core.need::<Run>(&parent.to_string()).await?.body.pins;
        }
        let sealed = secrets::seal(core, id, &secrets)?;
        let origin = run.body.fork.as_ref().map(|fork| &fork.checkpoint.key);
        let detail = json!({"name": run.body.name, "parent": parent, "forked_from": origin});
        // Its source was looked for a moment ago, and source trees are not deleted.
        let mut looked = crate::retain::looking(core).await?;
        for _ in 0..8 {
            let mut changes =
                Changes::default().put(&run).note(core, actor, "submitted", id, Some(id), detail.clone());
            if let Some(sealed) = &sealed {
                changes = changes.put(sealed);
            }
            if let Some(fork) = &run.body.fork {
                let from = core.load::<Checkpoint>(&fork.checkpoint.key).await?;
                let Some(from) = from.filter(|row| row.body.status.is_durable()) else {
                    return Err(Status::not_found(
                        "the checkpoint was let go meanwhile; fork from another one",
                    ));
                };
                // Written as it is: whoever lets go of it meanwhile has read
                // another version, and must look again.
                changes = changes.put(&from);
            }
            let Ok(changes) = crate::retain::naming(core, changes, &packs, &mut looked).await? else {
                return Err(Status::aborted("a part of the source tree is being deleted; submit again"));
            };
            if core.commit(changes).await? {
                return Ok(run.body);
            }
        }
        Err(Status::aborted("an id was drawn twice; submit again"))
    }

    /// Changes a run until nobody was faster.
    pub(super) async fn change_run(
        &self,
        text: &str,
        actor: &str,
        verb: &str,
        change: impl Fn(&mut Run) -> Result<(), Status>,
    ) -> Result<Run, Status> {
        for _ in 0..8 {
            let mut run = select::run(&self.core, text).await?;
            change(&mut run.body)?;
            if run.body.status.is_final() && run.body.ended_ms == 0 {
                run.body.ended_ms = self.core.clock.wall_ms();
            }
            let id = run.body.id;
            let changes = Changes::default().put(&run).note(&self.core, actor, verb, id, Some(id), json!({}));
            if self.core.commit(changes).await? {
                self.poke(&run.body).await?;
                return Ok(run.body);
            }
        }
        Err(Status::aborted("the run kept changing; try again"))
    }

    pub(super) async fn poke(&self, run: &Run) -> Result<(), Status> {
        if let Some(bound) = run.bound
            && let Some(attempt) = self.core.load::<Attempt>(&bound.to_string()).await?
        {
            self.core.poke(attempt.body.machine);
        }
        Ok(())
    }

    pub(super) async fn view(&self, run: &Run) -> Result<Response<v1::RunView>, Status> {
        Ok(Response::new(views::run(&self.core, run).await?))
    }
}

/// Only one run at a time goes on from another: whoever asks again after a lost
/// answer would rent twice for the same work.
fn goes_on_once(all: &[Versioned<Run>], parent: RunId) -> Result<(), Status> {
    let goes_on = |run: &Run| run.parent == Some(parent) && run.fork.is_none() && !run.status.is_final();
    let Some(next) = all.iter().map(|row| &row.body).find(|run| goes_on(run)) else { return Ok(()) };
    let old = all.iter().find(|row| row.body.id == parent).map_or("it", |row| row.body.name.as_str());
    Err(Status::failed_precondition(format!(
        "{old} goes on as {} already: end that one first, or fork a checkpoint for one beside it",
        next.name
    )))
}

/// The row of a run that was just handed in.
pub(super) fn row(core: &Core, id: RunId, wish: Submission) -> Result<Run, CoreError> {
    let Submission { spec, source, token, parent, fork, work, packs: _, secrets: _ } = wish;
    Ok(Run {
        id,
        name: format!("{}-{}", spec.name, id.short()),
        spec,
        status: RunState::Draft.apply(RunEvent::Submit)?,
        created_ms: core.clock.wall_ms(),
        ended_ms: 0,
        generation: Generation::NONE,
        bound: None,
        attempts: 0,
        source,
        head: None,
        head_bytes: 0,
        told_percent: 0,
        outputs: None,
        produced_step: None,
        endings: Vec::new(),
        wish: Wish::Run,
        stop_grace: 0,
        stop_reason: None,
        stopped_by: String::new(),
        creates_ms: Vec::new(),
        rejections: 0,
        retry_at_ms: 0,
        steer: crate::model::Steer::default(),
        token,
        exit: None,
        parent,
        fork,
        work,
        pins: BTreeMap::new(),
    })
}

/// Reads a run's description from the wire.
pub(super) fn spec_of(json: &str) -> Result<RunSpec, Status> {
    if json.len() > SPEC_LIMIT {
        return Err(Status::invalid_argument("the run's description is too long"));
    }
    let spec: RunSpec = serde_json::from_str(json)
        .map_err(|e| Status::invalid_argument(format!("the run's description: {e}")))?;
    let named = |s: &str| {
        !s.is_empty()
            && s.len() <= 63
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if !named(&spec.name) || !named(&spec.project) {
        return Err(Status::invalid_argument("names are 1 to 63 characters of a-z, 0-9 and -"));
    }
    if spec.command.is_empty() {
        return Err(Status::invalid_argument("the run has no command"));
    }
    spec.data.check().map_err(|why| Status::invalid_argument(format!("[data]: {why}")))?;
    Ok(spec)
}
