//! `outlast cost --bill`: what providers charged, against the ledger. Money that
//! the ledger cannot explain ends it with a code of its own.

use proto::v1;

use super::{answer, short};
use crate::app::Context;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::money;

/// Does it.
///
/// # Errors
/// Where the controller cannot be asked, or no provider answers.
pub async fn perform(ctx: &Context, days: u32, json: bool) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::ensure(ctx, true)).await?;
    let bills = answer(client.operator.clone().bill(v1::BillRequest { days }).await)?.bills;
    if json {
        ctx.printer.json(&bills);
    } else if bills.is_empty() {
        ctx.printer.note("no provider sends a bill");
    } else {
        show(ctx, &bills, days);
    }
    if let Some(silent) = bills.iter().find(|bill| !bill.problem.is_empty()) {
        let why = format!(
            "{} did not say what it charged: {}",
            silent.provider,
            crate::printer::safe(&silent.problem)
        );
        return Err(Failure::new(ExitCode::Unreachable, why).into());
    }
    let clean = bills.iter().all(|bill| bill.findings.is_empty());
    Ok(if clean { ExitCode::Ok } else { ExitCode::Unexplained })
}

fn show(ctx: &Context, bills: &[v1::BillView], days: u32) {
    let sums: Vec<Vec<String>> = bills
        .iter()
        .filter(|bill| bill.problem.is_empty())
        .map(|bill| {
            vec![
                bill.provider.clone(),
                money(bill.billed_usd),
                money(bill.ledger_usd),
                money(bill.unexplained_usd),
                money(bill.foreign_usd),
                money(bill.other_usd),
            ]
        })
        .collect();
    if sums.is_empty() {
        return;
    }
    let head = ["PROVIDER", "CHARGED", "LEDGER", "UNEXPLAINED", "OTHER INSTALLATIONS", "NOT OUTLAST'S"];
    ctx.printer.table(&head, &sums);
    for bill in bills.iter().filter(|bill| bill.problem.is_empty() && !bill.complete) {
        ctx.printer
            .warn(&format!("{}: some charges could not be read; the sums may be too low", bill.provider));
    }
    let findings: Vec<Vec<String>> = bills
        .iter()
        .flat_map(|bill| &bill.findings)
        .map(|found| {
            let machine = if found.machine.is_empty() { "unknown" } else { short(&found.machine) };
            vec![
                format!("{}/{}", found.provider, found.instance),
                machine.to_owned(),
                money(found.billed_usd),
                money(found.ledger_usd),
            ]
        })
        .collect();
    if findings.is_empty() {
        ctx.printer.note(&format!("every charge of the last {days} days is explained"));
        return;
    }
    ctx.printer.line("");
    ctx.printer.table(&["CHARGED FOR", "MACHINE", "CHARGED", "LEDGER"], &findings);
}
