//! A machine says that its provider takes it: the row remembers that, the
//! journal tells it, and the plan acts on it. What is said is bounded by
//! [`crate::model::notice`]; it moves nothing but the machine that says it.

use lifecycle::MachineId;
use proto::v1;
use serde_json::json;
use tonic::Status;

use crate::core::{Changes, Core};
use crate::model::notice::{Notice, Said};
use crate::model::{Machine, Versioned};

/// Takes what the agent of a machine said.
///
/// # Errors
/// Where the store fails, or the row keeps changing: then it is said again.
pub(super) async fn take(core: &Core, machine: MachineId, said: &v1::Notice) -> Result<(), Status> {
    let ends = match v1::NoticeKind::try_from(said.kind) {
        Ok(v1::NoticeKind::Ends) => true,
        Ok(v1::NoticeKind::MayEnd) => false,
        // A newer agent's; this version acts on none that it does not know.
        Ok(v1::NoticeKind::Unspecified) | Err(_) => return Ok(()),
    };
    let said = Said {
        source: said.source.chars().take(16).collect(),
        ends,
        text: said.text.chars().take(400).collect(),
        in_ms: said.in_ms,
        withdrawn: said.withdrawn,
        saved: said.saved,
    };
    for _ in 0..8 {
        let mut row: Versioned<Machine> = core.need(&machine.to_string()).await?;
        let now = core.clock.wall_ms();
        let Some((next, verb)) = Notice::after(row.body.notice.as_ref(), &said, now) else { return Ok(()) };
        let detail = json!({
            "source": next.source, "ends": next.ends, "text": next.text, "saved": next.saved,
            "in_ms": next.until_ms.saturating_sub(now),
        });
        row.body.notice = Some(next);
        let (actor, run) = (format!("machine:{machine}"), Some(row.body.run));
        let changes = Changes::default().put(&row).note(core, &actor, verb, machine, run, detail);
        if core.commit(changes).await? {
            core.wake.notify_one();
            return Ok(());
        }
    }
    Err(Status::aborted("the rows kept changing; try again"))
}
