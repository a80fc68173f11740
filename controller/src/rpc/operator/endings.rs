//! How people end runs and machines at once. Nothing is saved, and rows say so
//! before anything is asked of a provider.

use lifecycle::{AttemptEvent, LossCause, RunEvent};
use serde_json::json;
use tonic::Status;

use super::OperatorService;
use crate::core::{Changes, CoreError};
use crate::model::{Attempt, Machine, Run, Wish};
use crate::rpc::select;

impl OperatorService {
    /// Ends a run with all its machines.
    pub(super) async fn destroyed_run(&self, actor: &str, text: &str) -> Result<Run, Status> {
        let core = &self.core;
        for _ in 0..8 {
            let mut run = select::run(core, text).await?;
            let mut changes = Changes::default();
            if !run.body.status.is_final() {
                run.body.status = run.body.status.apply(RunEvent::Cancel).map_err(CoreError::from)?;
                run.body.wish = Wish::Kill;
                run.body.ended_ms = core.clock.wall_ms();
                if let Some(id) = run.body.bound
                    && let Some(mut attempt) = core.load::<Attempt>(&id.to_string()).await?
                    && !attempt.body.status.is_final()
                {
                    let event = AttemptEvent::Lose(LossCause::Operator);
                    attempt.body.status = attempt.body.status.apply(event).map_err(CoreError::from)?;
                    attempt.body.ended_ms = core.clock.wall_ms();
                    changes = changes.put(&attempt);
                }
            }
            let id = run.body.id;
            if core
                .commit(changes.put(&run).note(core, actor, "destroy-run", id, Some(id), json!({})))
                .await?
            {
                if let Some(attempt) = run.body.bound {
                    core.capsules.add(attempt);
                }
                self.poke(&run.body).await?;
                return Ok(run.body);
            }
        }
        Err(Status::aborted("the run kept changing; try again"))
    }

    /// Has one machine destroyed.
    pub(super) async fn destroyed_machine(&self, actor: &str, text: &str) -> Result<Machine, Status> {
        for _ in 0..8 {
            let mut machine = select::machine(&self.core, text).await?;
            machine.body.condemned = true;
            machine.body.reason = "destroyed by a person".into();
            let (id, run) = (machine.body.id, machine.body.run);
            let changes = Changes::default().put(&machine).note(
                &self.core,
                actor,
                "destroy-machine",
                id,
                Some(run),
                json!({}),
            );
            if self.core.commit(changes).await? {
                return Ok(machine.body);
            }
        }
        Err(Status::aborted("the machine kept changing; try again"))
    }
}
