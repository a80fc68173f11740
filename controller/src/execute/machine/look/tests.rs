//! A provider whose price is a lie once, and one that goes on lying.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artifacts::store::MemoryStore;
use async_trait::async_trait;
use lifecycle::meter::Billed;
use tokio::time::sleep;

use super::*;
use crate::bench::{MACHINE, at_work, parts};
use crate::core::Parts;
use crate::provider::{
    CreateOutcome, CreateRequest, DestroyOutcome, Idempotency, Listing, Presence, Provider, Reach, Terms,
};

struct Dear(Mutex<f64>);

#[async_trait]
impl Provider for Dear {
    fn name(&self) -> &'static str {
        "dear"
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
    async fn terms(&self, _: &str) -> Option<Terms> {
        let rates = Some(Rates::flat(*self.0.lock().unwrap()));
        Some(Terms { rates, billed: Billed::All, said: "running".into() })
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
        DestroyOutcome::Accepted
    }
}

/// A machine at $0.42/h that works, under $0.50/h; what it is said to cost each
/// minute. Its row, what it has cost, what is alerted.
async fn said(works: bool, prices: &[f64]) -> (Machine, f64, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let dear = Arc::new(Dear(Mutex::new(0.42)));
    let providers = BTreeMap::from([("dear".to_owned(), dear.clone() as Arc<dyn Provider>)]);
    let core = Core::new(Parts { providers, ..parts(dir.path(), Arc::new(MemoryStore::default())) });
    let (run, attempt, rows) = at_work("dear");
    let now = core.clock.wall_ms();
    let row = json!({
        "id": MACHINE, "provider": "dear", "label": "l", "run": run, "status": {"state": "ready"},
        "instance": "77", "created_ms": now, "called_ms": now, "usd_per_hour": 0.42,
    });
    let mut row: Versioned<Machine> = Versioned::new(serde_json::from_value(row).unwrap());
    row.body.meter.begin(now, Rates::flat(0.42));
    assert!(core.commit(rows.put(&row)).await.unwrap());
    let mut run: Versioned<Run> = core.need(&run.to_string()).await.unwrap();
    run.body.spec.max_usd_per_hour = Some(0.5);
    let mut attempt: Versioned<Attempt> = core.need(&attempt.to_string()).await.unwrap();
    attempt.body.program_started = works;
    assert!(core.commit(Changes::default().put(&run).put(&attempt)).await.unwrap());
    for usd in prices {
        sleep(Duration::from_secs(60)).await;
        *dear.0.lock().unwrap() = *usd;
        look(&core, MACHINE).await.unwrap();
    }
    let row = core.need::<Machine>(&MACHINE.to_string()).await.unwrap().body;
    let cost = row.cost_usd(core.clock.wall_ms());
    (row, cost, core.alerts())
}

#[tokio::test(start_paused = true)]
async fn a_price_that_cannot_be_ends_no_work_uses_up_no_cap_and_is_told() {
    let (row, cost, alerts) = said(true, &[0.42, 900_000.0]).await;
    assert!(!row.condemned && cost < 0.02 && row.usd_per_hour < 0.43, "{cost} {row:?}");
    assert!(alerts.iter().any(|alert| alert.contains("$900000.0000/h")), "{alerts:?}");
    // It goes on saying so: bounded.
    let (row, cost, alerts) = said(true, &[0.42, 9e5, 9e5, 9e5, 9e5]).await;
    assert!(!row.condemned && cost < 2.1 * 5.0 / 60.0 && cost > 0.05, "{cost}");
    assert!((row.usd_per_hour - 2.0).abs() < 1e-9 && alerts[0].contains("said so again"), "{alerts:?}");
    // The truth is back: the lies cost nothing.
    let (row, cost, alerts) = said(true, &[0.42, 9e5, 9e5, 9e5, 0.42]).await;
    assert!(cost < 0.42 * 5.0 / 60.0 + 1e-6 && alerts.is_empty(), "{cost} {alerts:?}");
    assert!(row.usd_per_hour < 0.43 && row.conduct.lied, "{row:?}");
    // Nothing is lost with one that has not begun.
    let (row, cost, _) = said(false, &[9e5]).await;
    assert!(row.condemned && row.reason.starts_with(plan::UNFIT) && cost < 0.01, "{row:?}");
}
