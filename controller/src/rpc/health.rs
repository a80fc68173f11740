//! What a machine last said of its health, for people and assistants.

use lifecycle::MachineState;
use proto::v1;
use tonic::{Code, Status};

use super::select;
use crate::core::Core;
use crate::health::HISTORY;
use crate::model::{Attempt, Machine};

/// Answers one request: by a machine, or by a run for the machine it is on.
///
/// # Errors
/// As a status for the peer: nothing or several things have that name, the run
/// is on no machine, or the machine has not reported yet.
pub async fn health(core: &Core, asked: v1::HealthOf) -> Result<v1::HealthReply, Status> {
    let machine = machine_of(core, &asked.text).await?;
    let mut reply = v1::HealthReply {
        machine_id: machine.id.to_string(),
        machine_state: machine.status.name().to_owned(),
        endpoint: core.health.endpoint(machine.id),
        ..v1::HealthReply::default()
    };
    if asked.endpoint_only {
        return Ok(reply);
    }
    let history = usize::try_from(asked.history).unwrap_or(HISTORY).min(HISTORY);
    let (at_ms, report, history) = core.health.of(machine.id, history).ok_or_else(|| never(&machine))?;
    reply.age_ms = core.clock.mono_ms().saturating_sub(at_ms);
    reply.report = Some(report);
    reply.history = history;
    Ok(reply)
}

/// A machine by its own id, else the machine of a run.
async fn machine_of(core: &Core, text: &str) -> Result<Machine, Status> {
    let no_machine = match select::machine(core, text).await {
        Ok(row) => return Ok(row.body),
        Err(status) if status.code() == Code::NotFound => status,
        Err(status) => return Err(status),
    };
    let run = match select::run(core, text).await {
        Ok(row) => row.body,
        Err(status) if status.code() == Code::NotFound => {
            let why = format!("there is no machine and no run `{text}`; `outlast machines` lists machines");
            return Err(Status::not_found(why));
        }
        Err(status) => return Err(status),
    };
    if run.status.is_final() {
        let why = format!("run {} has ended ({}) and is on no machine now", run.name, run.status.name());
        return Err(Status::not_found(format!("{why}; `outlast why {}` says how it ended", run.name)));
    }
    let bound = match run.bound {
        Some(id) => core.load::<Attempt>(&id.to_string()).await?,
        None => None,
    };
    let Some(attempt) = bound else {
        let why = format!("run {} is {} and on no machine now", run.name, run.status.name());
        return Err(Status::failed_precondition(format!("{why}; `outlast status {}` says more", run.name)));
    };
    let machine = core.load::<Machine>(&attempt.body.machine.to_string()).await?;
    machine.map(|row| row.body).ok_or(no_machine)
}

/// Why there is no report, and what to do.
fn never(machine: &Machine) -> Status {
    let (id, state) = (machine.id, machine.status.name());
    let text = match &machine.status {
        MachineState::Lost { .. }
        | MachineState::Abandoned
        | MachineState::Rejected { .. }
        | MachineState::Destroying
        | MachineState::Destroyed => {
            format!("machine {id} is gone ({state}); `outlast machines` lists those that exist")
        }
        MachineState::Ready => {
            format!("machine {id} has not reported yet: ask again in a moment, its agent has just connected")
        }
        MachineState::Suspect => {
            format!("machine {id} has been silent since this controller started; see `outlast machines`")
        }
        MachineState::Intent
        | MachineState::Calling
        | MachineState::Unknown
        | MachineState::Created
        | MachineState::Booting => {
            format!("machine {id} has not joined yet ({state}); `outlast machines` shows how far it is")
        }
    };
    Status::failed_precondition(text)
}
