//! Bills against the ledger, as people's tools ask for them. Translates and
//! decides nothing.

use lifecycle::bill::Reckoning;
use proto::v1;
use tonic::Status;

use crate::bill::{self, Bill};
use crate::core::Core;

/// Days back at most.
const DAYS_MOST: u32 = 90;

/// Compares, or tells what was found last.
///
/// # Errors
/// Where the days are too many or the store fails.
pub(super) async fn bill(core: &Core, days: u32) -> Result<v1::BillReply, Status> {
    if days > DAYS_MOST {
        return Err(Status::invalid_argument(format!("{days} days back are too many; at most {DAYS_MOST}")));
    }
    let bills = if days == 0 { core.bills.last() } else { bill::compare(core, days, true).await? };
    Ok(v1::BillReply { bills: bills.into_iter().map(view).collect() })
}

fn view(bill: Bill) -> v1::BillView {
    let (reckoning, complete, problem) = match bill.outcome {
        Ok((reckoning, complete)) => (reckoning, complete, String::new()),
        Err(why) => (Reckoning::default(), false, why),
    };
    let finding = |found: &lifecycle::bill::Finding| {
        let owner = bill.owners.get(&found.instance);
        v1::BillFinding {
            provider: bill.provider.clone(),
            instance: found.instance.clone(),
            machine: owner.map(|(machine, _)| machine.to_string()).unwrap_or_default(),
            run: owner.map(|(_, run)| run.to_string()).unwrap_or_default(),
            billed_usd: found.billed_usd,
            ledger_usd: found.ledger_usd,
            text: bill::sentence(found),
        }
    };
    v1::BillView {
        provider: bill.provider.clone(),
        asked_ms: bill.asked_ms,
        from_ms: bill.from_ms,
        billed_usd: reckoning.billed_usd,
        ledger_usd: reckoning.ledger_usd,
        unexplained_usd: reckoning.unexplained_usd(),
        foreign_usd: reckoning.foreign_usd,
        other_usd: reckoning.other_usd,
        complete,
        findings: reckoning.findings.iter().take(bill::FINDINGS).map(finding).collect(),
        problem,
    }
}
