//! What operators change of runs: submissions and single rows, each by
//! compare-and-set until nobody was faster.

use lifecycle::{Generation, RunEvent, RunId, RunSpec, RunState};
use proto::v1;
use serde_json::json;
use tonic::{Response, Status};

use super::super::{select, views};
use super::OperatorService;
use crate::core::{Changes, CoreError};
use crate::model::{Attempt, ManifestRef, Run, Versioned, Wish};

const SPEC_LIMIT: usize = 256 << 10;

impl OperatorService {
    pub(super) async fn submit_run(
        &self,
        actor: &str,
        spec: RunSpec,
        source: ManifestRef,
        token: String,
        parent: Option<RunId>,
        packs: &[String],
    ) -> Result<Run, Status> {
        let core = &self.core;
        core.provider(&spec.provider)?;
        let all: Vec<Versioned<Run>> = core.all().await?;
        if let Some(same) = all.iter().find(|r| r.body.token == token) {
            return Ok(same.body.clone());
        }
        let id = RunId::from_bytes(core.entropy.bytes().map_err(CoreError::from)?);
        let run = Versioned::new(Run {
            id,
            name: format!("{}-{}", spec.name, id.short()),
            spec,
            status: RunState::Draft.apply(RunEvent::Submit).map_err(CoreError::from)?,
            created_ms: core.clock.wall_ms(),
            ended_ms: 0,
            generation: Generation::NONE,
            bound: None,
            attempts: 0,
            source,
            head: None,
            outputs: None,
            produced_step: None,
            endings: Vec::new(),
            wish: Wish::Run,
            stop_grace: 0,
            stop_reason: None,
            creates_ms: Vec::new(),
            rejections: 0,
            retry_at_ms: 0,
            token,
            exit: None,
            parent,
        });
        let detail = json!({"name": run.body.name, "parent": parent});
        for _ in 0..8 {
            let changes =
                Changes::default().put(&run).note(core, actor, "submitted", id, Some(id), detail.clone());
            let Ok(changes) = crate::retain::naming(core, changes, packs).await? else {
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
    Ok(spec)
}
