//! At which commit all attempts of a run take a repository of the hub. The first
//! attempt that resolves a branch proposes its commit; that one stands, however
//! the branch moves. A machine may ask for repositories of its own run alone.

use lifecycle::Generation;
use lifecycle::spec::is_commit;
use proto::{convert, v1};
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::core::{Changes, Core};
use crate::model::{Attempt, Run, Versioned};

/// Answers one request.
///
/// # Errors
/// As a status for the peer: not its attempt, not its run's repository, or no
/// commit.
pub(super) async fn pin(
    core: &Core,
    request: Request<v1::PinDataRequest>,
) -> Result<Response<v1::PinDataReply>, Status> {
    let (machine, _) = super::machine_of(core, &request)?;
    let ask = request.into_inner();
    let attempt = convert::attempt_id(&ask.attempt_id)?;
    let row: Versioned<Attempt> = core.need(&attempt.to_string()).await?;
    if row.body.machine != machine {
        return Err(Status::permission_denied("that attempt is another machine's"));
    }
    if !ask.commit.is_empty() && !is_commit(&ask.commit) {
        return Err(Status::invalid_argument("a commit has 40 hexadecimal digits"));
    }
    for _ in 0..8 {
        let mut run: Versioned<Run> = core.need(&row.body.run.to_string()).await?;
        let is_bound =
            run.body.bound == Some(attempt) && Generation::from_u64(ask.generation) == run.body.generation;
        if !is_bound {
            return Err(Status::failed_precondition("another attempt is bound to the run"));
        }
        if !run.body.spec.data.hf.iter().any(|repo| repo.to_string() == ask.repository) {
            return Err(Status::permission_denied("the run names no such repository"));
        }
        if let Some(commit) = run.body.pins.get(&ask.repository) {
            return Ok(Response::new(v1::PinDataReply { commit: commit.clone() }));
        }
        if ask.commit.is_empty() {
            return Ok(Response::new(v1::PinDataReply::default()));
        }
        run.body.pins.insert(ask.repository.clone(), ask.commit.clone());
        let detail = json!({"repository": ask.repository, "commit": ask.commit});
        let (actor, id) = (format!("machine:{machine}"), run.body.id);
        let changes = Changes::default().put(&run).note(core, &actor, "data-pinned", id, Some(id), detail);
        if core.commit(changes).await? {
            return Ok(Response::new(v1::PinDataReply { commit: ask.commit }));
        }
    }
    Err(Status::aborted("the run kept changing; try again"))
}
