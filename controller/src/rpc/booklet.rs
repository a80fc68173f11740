//! Hands a machine signed URLs for the next objects of its attempt. Only the
//! attempt that is bound gets any, for its own generation: presigning stops
//! with the bind of the next one. What is signed is a permission: it is in no
//! log, no error and no row, only the numbers are.

use std::time::Duration;

use artifacts::store::booklet::plan::{self, Measured, Next, OFFLINE_COVER};
use artifacts::store::booklet::{Booklet, Leaf, NoBooklet, Plan};
use lifecycle::{Generation, MachineId, MachineState};
use proto::convert;
use proto::v1;
use serde_json::json;
use tonic::Status;

use crate::core::{Changes, Core, CoreError};
use crate::model::{Attempt, Machine, Run, Versioned};

/// Leaves of a kind in one part: it stays far below the limit of a message.
const PART: usize = 128;
/// No generation has numbers above; a booklet must end below, too.
const LAST: u64 = 99_999_999;

/// Makes the parts of a booklet for a machine.
pub(super) async fn booklet(
    core: &Core,
    machine: MachineId,
    ask: &v1::BookletRequest,
) -> Result<Vec<v1::BookletPart>, Status> {
    let attempt = bound(core, machine, ask).await?;
    let next = Next { pack: ask.next_pack, manifest: ask.next_manifest };
    let plan = plan::plan(measured(ask), OFFLINE_COVER, next);
    if plan.packs.end > LAST || plan.manifests.end > LAST {
        return Err(Status::invalid_argument("a generation has no numbers as high as these"));
    }
    let (run, generation) = (attempt.run, attempt.generation);
    let signed =
        core.objects.sign_ahead(&run.to_string(), generation.as_u64(), &plan, core.clock.wall_ms()).await;
    let booklet = signed.map_err(|why| match why {
        NoBooklet::Never(why) => Status::failed_precondition(why),
        NoBooklet::Store(error) => Status::from(CoreError::from(error)),
    })?;
    // Once more: another generation may have been bound meanwhile.
    bound(core, machine, ask).await?;
    let detail = json!({
        "generation": generation, "packs": [plan.packs.start, plan.packs.end],
        "manifests": [plan.manifests.start, plan.manifests.end], "hours": plan.valid.as_secs() / 3_600,
    });
    let (actor, object) = (format!("machine:{machine}"), attempt.id.to_string());
    let note = Changes::default().note(core, &actor, "booklet", &object, Some(run), detail);
    core.commit(note).await?;
    Ok(parts(booklet, &plan))
}

fn measured(ask: &v1::BookletRequest) -> Option<Measured> {
    (ask.between_saves_ms > 0).then(|| Measured {
        between_saves: Duration::from_millis(ask.between_saves_ms),
        packs_per_save: ask.packs_per_save,
    })
}

/// The attempt, if it is this machine's, bound, and its generation is current.
async fn bound(core: &Core, machine: MachineId, ask: &v1::BookletRequest) -> Result<Attempt, Status> {
    let id = convert::attempt_id(&ask.attempt_id)?;
    let attempt: Versioned<Attempt> = core.need(&id.to_string()).await?;
    if attempt.body.machine != machine {
        return Err(Status::permission_denied("that attempt is another machine's"));
    }
    let row: Versioned<Machine> = core.need(&machine.to_string()).await?;
    let run: Versioned<Run> = core.need(&attempt.body.run.to_string()).await?;
    let generation = Generation::from_u64(ask.generation);
    let is_gone = matches!(
        row.body.status,
        MachineState::Destroying | MachineState::Destroyed | MachineState::Abandoned
    );
    let is_current = run.body.bound == Some(id)
        && run.body.generation == generation
        && attempt.body.generation == generation
        && !run.body.status.is_final();
    if is_gone || !is_current {
        return Err(Status::failed_precondition("that attempt is not the one that counts"));
    }
    Ok(attempt.body)
}

fn leaf(leaf: &Leaf) -> v1::BookletLeaf {
    v1::BookletLeaf { seq: leaf.seq, put: leaf.put.reveal().to_owned(), look: leaf.look.reveal().to_owned() }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn parts(booklet: Booklet, plan: &Plan) -> Vec<v1::BookletPart> {
    let count = |leaves: &[Leaf]| u32::try_from(leaves.len()).unwrap_or(u32::MAX);
    let head = v1::BookletHead {
        packs: count(&booklet.packs),
        manifests: count(&booklet.manifests),
        valid_ms: millis(plan.valid),
        covers_ms: millis(plan.covers),
        ca_pem: booklet.trust.ca_pem,
        allow_http: booklet.trust.allow_http,
    };
    let first = v1::BookletPart { head: Some(head), ..v1::BookletPart::default() };
    let packs = booklet.packs.chunks(PART).map(|leaves| v1::BookletPart {
        packs: leaves.iter().map(leaf).collect(),
        ..v1::BookletPart::default()
    });
    let manifests = booklet.manifests.chunks(PART).map(|leaves| v1::BookletPart {
        manifests: leaves.iter().map(leaf).collect(),
        ..v1::BookletPart::default()
    });
    std::iter::once(first).chain(packs).chain(manifests).collect()
}

#[cfg(test)]
mod tests;
