//! `outlast machines`: what exists, as the providers see it.

use proto::v1;

use super::{answer, short, span};
use crate::app::Context;
use crate::daemon;
use crate::exit_code::ExitCode;
use crate::printer::money;

/// Does it.
///
/// # Errors
/// Where the controller cannot be asked.
pub async fn perform(ctx: &Context, all: bool, json: bool) -> anyhow::Result<ExitCode> {
    let machines = match Box::pin(daemon::existing(ctx)).await? {
        Some(client) => {
            answer(client.operator.clone().list_machines(v1::ListMachinesRequest { all }).await)?.machines
        }
        None => Vec::new(),
    };
    if json {
        ctx.printer.json(&machines);
    } else if machines.is_empty() {
        ctx.printer.note("there are no machines");
    } else {
        table(ctx, &machines);
    }
    Ok(ExitCode::Ok)
}

/// Prints machines.
pub fn table(ctx: &Context, machines: &[v1::MachineView]) {
    let rows: Vec<Vec<String>> = machines.iter().map(row).collect();
    ctx.printer.table(&["MACHINE", "PROVIDER", "STATE", "SAYS", "RUN", "AGE", "COST", "REASON"], &rows);
}

fn row(machine: &v1::MachineView) -> Vec<String> {
    let says = if machine.provider_says.is_empty() { "-" } else { &machine.provider_says };
    vec![
        machine.id.clone(),
        machine.provider.clone(),
        machine.state.clone(),
        says.to_owned(),
        short(&machine.run_id).to_owned(),
        span(machine.created_ms, machine.ended_ms),
        money(machine.cost_usd),
        machine.reason.clone(),
    ]
}
