//! A machine beside a silent one: what was planned is looked at once more
//! before money could flow, since the silent one may have been heard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use artifacts::store::MemoryStore;
use lifecycle::{MachineId, MachineState, RunId};
use serde_json::json;
use tokio::time::advance;

use crate::bench::{MACHINE, at_work, parts};
use crate::clock::Clock;
use crate::core::{BootSettings, Core, Parts};
use crate::execute::perform;
use crate::model::{Machine, Versioned};
use crate::plan::{Action, plan};
use crate::provider::{Provider, SimulatedConfig, SimulatedProvider};
use crate::reconcile::snapshot;

struct Bench {
    core: Arc<Core>,
    provider: Arc<SimulatedProvider>,
    run: RunId,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// A run whose machine was heard and has been silent for ten seconds.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock =
            Clock::following_runtime(std::time::SystemTime::UNIX_EPOCH + Duration::from_hours(480_000));
        let of_provider = clock.clone();
        let provider =
            Arc::new(SimulatedProvider::new(SimulatedConfig::new(1, move || of_provider.mono_ms())));
        let common = parts(dir.path(), Arc::new(MemoryStore::default()));
        let endpoints = vec!["127.0.0.1:1".to_owned()];
        let boot = BootSettings { endpoints: endpoints.clone(), join_endpoints: endpoints, ..common.boot };
        let core = Core::new(Parts {
            boot,
            providers: BTreeMap::from([("simulated".to_owned(), provider.clone() as Arc<dyn Provider>)]),
            clock,
            ..common
        });
        let (run, _, rows) = at_work("simulated");
        let row = json!({
            "id": MACHINE, "provider": "simulated", "label": "l", "run": run, "status": MachineState::Suspect,
            "instance": "i", "created_ms": 1, "usd_per_hour": 0.0,
        });
        let machine: Versioned<Machine> = Versioned::new(serde_json::from_value(row).unwrap());
        assert!(core.commit(rows.put(&machine)).await.unwrap());
        advance(Duration::from_secs(5)).await;
        let (session, _) = core.attach(MACHINE);
        core.detach(MACHINE, session, false);
        advance(Duration::from_secs(10)).await;
        Self { core, provider, run, _dir: dir }
    }

    async fn planned(&self) -> Vec<Action> {
        plan(&snapshot(&self.core).await.unwrap(), &self.core.clocks)
    }

    /// The machine is heard again.
    async fn heard(&self) {
        self.core.attach(MACHINE);
        let mut row: Versioned<Machine> = self.core.need(&MACHINE.to_string()).await.unwrap();
        row.body.status = MachineState::Ready;
        assert!(self.core.commit(crate::core::Changes::default().put(&row)).await.unwrap());
    }

    async fn other(&self) -> Option<Machine> {
        let all = self.core.all::<Machine>().await.unwrap();
        all.into_iter().map(|row| row.body).find(|m| m.id != MACHINE)
    }

    async fn wished(&self) -> MachineId {
        assert!(self.planned().await.contains(&Action::Intend(self.run)));
        perform(&self.core, &Action::Intend(self.run)).await.unwrap();
        let other = self.other().await.expect("a wish");
        assert_eq!(other.status, MachineState::Intent);
        other.id
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_beside_a_silent_one_is_made_and_the_journal_says_for_whom() {
    let bench = Bench::new().await;
    let other = bench.wished().await;
    let told = bench.core.store.journal(0, 100, None).await.unwrap();
    let wish = told.iter().find(|entry| entry.verb == "intent").expect("it is journalled");
    assert_eq!(wish.detail["in_place_of"], json!(MACHINE));
    assert_eq!(wish.detail["silent_ms"], 10_000);
    perform(&bench.core, &Action::Create(other)).await.unwrap();
    assert_eq!(bench.provider.made(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_wished_for_beside_a_machine_that_was_heard_since() {
    let bench = Bench::new().await;
    bench.heard().await;
    perform(&bench.core, &Action::Intend(bench.run)).await.unwrap();
    assert!(bench.other().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_a_provider_beside_a_machine_that_was_heard_since() {
    let bench = Bench::new().await;
    let other = bench.wished().await;
    bench.heard().await;
    perform(&bench.core, &Action::Create(other)).await.unwrap();
    assert_eq!(bench.provider.made(), 0, "nothing is rented");
    assert_eq!(bench.other().await.unwrap().status, MachineState::Intent);
    assert!(matches!(bench.planned().await[..], [Action::Release(id, _)] if id == other));
}
