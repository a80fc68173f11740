//! What a provider charged, against machines of each age.

use std::collections::BTreeMap;

use artifacts::store::MemoryStore;
use async_trait::async_trait;
use lifecycle::meter::{Billed, Rates};

use super::*;
use crate::bench::{MACHINE, at_work, parts};
use crate::core::Parts;
use crate::provider::{
    Charge, CreateOutcome, CreateRequest, DestroyOutcome, Idempotency, Listing, Presence, Reach,
};

const HOUR: u64 = 3_600_000;

struct Biller(Charges);

#[async_trait]
impl Provider for Biller {
    fn name(&self) -> &'static str {
        "biller"
    }
    fn reach(&self) -> Reach {
        Reach::ControllerDials
    }
    fn idempotency(&self) -> Idempotency {
        Idempotency::LabelOnly
    }
    fn is_paid(&self) -> bool {
        true
    }
    fn usd_per_hour(&self) -> f64 {
        0.0
    }
    fn settle_window_ms(&self) -> u64 {
        1_000
    }
    async fn charges(&self, _: u64, _: u64) -> Result<Option<Charges>, String> {
        Ok(Some(self.0.clone()))
    }
    async fn create(&self, _: &CreateRequest) -> CreateOutcome {
        CreateOutcome::rejected("full")
    }
    async fn list(&self, _: &str) -> Listing {
        Listing::Complete(Vec::new())
    }
    async fn get(&self, _: &str) -> Presence {
        Presence::Absent
    }
    async fn destroy(&self, _: &str) -> DestroyOutcome {
        DestroyOutcome::Absent
    }
}

/// A machine of a dollar an hour that began so many hours ago and ended so many
/// hours later (`None`: it is there), looked at each hour, and what was charged.
/// Its cost by the ledger afterwards, and the findings' dollars.
async fn compared(ago: u64, lasted: Option<u64>, charged: f64, complete: bool) -> (f64, Vec<f64>) {
    let dir = tempfile::tempdir().unwrap();
    let charge = Charge { instance: "77".into(), label: String::new(), usd: charged };
    let biller: Arc<dyn Provider> = Arc::new(Biller(Charges { rows: vec![charge], complete }));
    let providers = BTreeMap::from([("biller".to_owned(), biller)]);
    let core = Core::new(Parts { providers, ..parts(dir.path(), Arc::new(MemoryStore::default())) });
    let (run, _, rows) = at_work("biller");
    let now = core.clock.wall_ms();
    let begun = now - ago * HOUR;
    let status = if lasted.is_some() { MachineState::Destroyed } else { MachineState::Ready };
    let row = json!({
        "id": MACHINE, "provider": "biller", "label": "l", "run": run, "status": status, "instance": "77",
        "created_ms": begun, "called_ms": begun, "usd_per_hour": 1.0,
        "ended_ms": lasted.map_or(0, |hours| begun + hours * HOUR),
    });
    let mut row: Versioned<Machine> = Versioned::new(serde_json::from_value(row).unwrap());
    row.body.meter.begin(begun, Rates::flat(1.0));
    for hour in 1..lasted.unwrap_or(ago) {
        row.body.meter.look(begun + hour * HOUR, Billed::All, Rates::flat(1.0));
    }
    if let Some(hours) = lasted {
        row.body.meter.end(begun + hours * HOUR);
    }
    assert!(core.commit(rows.put(&row)).await.unwrap());
    let bills = compare(&core, DAYS, false).await.unwrap();
    let (reckoning, _) = bills[0].outcome.clone().unwrap();
    let found: Vec<f64> = reckoning.findings.iter().map(Finding::unexplained_usd).collect();
    assert_eq!(core.alerts().is_empty(), found.is_empty(), "{:?}", core.alerts());
    let row = core.need::<Machine>(&MACHINE.to_string()).await.unwrap().body;
    (row.cost_usd(now), found)
}

#[tokio::test(start_paused = true)]
async fn n23_a_machine_is_compared_whatever_its_age() {
    // It ended long before the time of the bill, and bills on.
    assert_eq!(compared(20 * 24, Some(2), 0.16, true).await.1, [0.16]);
    // It began before and is there: seven days and the hours since midnight.
    let now = parts(tempfile::tempdir().unwrap().path(), Arc::new(MemoryStore::default())).clock.wall_ms();
    let hours = (7 * 24 + now % DAY_MS / HOUR) as f64;
    assert!(compared(20 * 24, None, hours, true).await.1.is_empty());
    let found = compared(20 * 24, None, hours + 30.0, true).await.1;
    assert!((found[0] - 30.0).abs() < 1.1, "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn the_ledger_comes_down_to_the_last_word_once_that_is_final() {
    for (ago, lasted, charged, complete, cost) in [
        (40, Some(10), 7.0, true, 7.0),
        // Not all was read; it ended too short ago; it is there; it began before the bill.
        (40, Some(10), 7.0, false, 10.0),
        (30, Some(10), 7.0, true, 10.0),
        (40, None, 7.0, true, 40.0),
        (20 * 24, Some(10 * 24), 1.0, true, 240.0),
        // More than the ledger has is a finding, and stays one.
        (40, Some(10), 17.0, true, 10.0),
    ] {
        let (now, found) = compared(ago, lasted, charged, complete).await;
        assert!((now - cost).abs() < 1e-9, "{ago} {lasted:?} {charged}: {now}");
        assert_eq!(found.is_empty(), charged < 17.0 && ago < 400, "{found:?}");
    }
}
