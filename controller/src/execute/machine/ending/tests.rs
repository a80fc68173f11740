//! A provider that says one thing and lists another: what is believed of it,
//! and what is never touched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use artifacts::store::MemoryStore;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::bench::{MACHINE, at_work, parts};
use crate::core::Parts;
use crate::execute::machine::sweep;
use crate::provider::{CreateRequest, InstanceState, Reach};

/// What it answers now.
struct Says {
    order: DestroyOutcome,
    listed: Option<Instance>,
    shown: bool,
    label: Option<String>,
    orders: Vec<String>,
}

struct Liar(Mutex<Says>);

impl Liar {
    fn says(&self) -> MutexGuard<'_, Says> {
        self.0.lock().unwrap()
    }
}

#[async_trait]
impl Provider for Liar {
    fn name(&self) -> &'static str {
        "liar"
    }
    fn reach(&self) -> Reach {
        Reach::ControllerDials
    }
    fn idempotency(&self) -> Idempotency {
        Idempotency::LabelOnly
    }
    fn usd_per_hour(&self) -> f64 {
        1.0
    }
    fn settle_window_ms(&self) -> u64 {
        1_000
    }
    async fn create(&self, _: &CreateRequest) -> CreateOutcome {
        CreateOutcome::rejected("full")
    }
    async fn list(&self, _: &str) -> Listing {
        Listing::Complete(self.says().listed.clone().into_iter().collect())
    }
    async fn get(&self, _: &str) -> Presence {
        if self.says().shown { Presence::Present(InstanceState::Up) } else { Presence::Absent }
    }
    async fn label(&self, _: &str) -> Option<String> {
        self.says().label.clone()
    }
    async fn destroy(&self, instance: &str) -> DestroyOutcome {
        let mut says = self.says();
        says.orders.push(instance.to_owned());
        says.order.clone()
    }
}

struct Bench {
    core: Arc<Core>,
    liar: Arc<Liar>,
    label: String,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// One machine, `77`, in a state; its provider lists and shows it.
    async fn new(state: MachineState) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bare = parts(dir.path(), Arc::new(MemoryStore::default()));
        let label = label::write(bare.hub, MACHINE, &bare.label_key);
        let listed = Instance { id: "77".into(), label: label.clone(), state: InstanceState::Up };
        let liar = Arc::new(Liar(Mutex::new(Says {
            order: DestroyOutcome::Absent,
            listed: Some(listed),
            shown: true,
            label: Some(label.clone()),
            orders: Vec::new(),
        })));
        let providers = BTreeMap::from([("liar".to_owned(), liar.clone() as Arc<dyn Provider>)]);
        let core = Core::new(Parts { providers, ..bare });
        let (run, _, rows) = at_work("liar");
        let now = core.clock.wall_ms();
        let row = json!({
            "id": MACHINE, "provider": "liar", "label": label, "run": run, "status": state, "instance": "77",
            "created_ms": now, "called_ms": now, "usd_per_hour": 1.0,
        });
        let mut row: Versioned<Machine> = Versioned::new(serde_json::from_value(row).unwrap());
        row.body.meter.begin(now, lifecycle::meter::Rates::flat(1.0));
        if row.body.status.is_final() {
            row.body.meter.end(now);
            row.body.ended_ms = now;
        }
        assert!(core.commit(rows.put(&row)).await.unwrap());
        Self { core, liar, label, _dir: dir }
    }

    async fn row(&self) -> Machine {
        self.core.need::<Machine>(&MACHINE.to_string()).await.unwrap().body
    }

    async fn destroy(&self) -> MachineState {
        tokio::time::sleep(Duration::from_secs(1)).await;
        destroy(&self.core, MACHINE).await.unwrap();
        self.row().await.status
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_finds_nothing_proves_nothing_while_the_machine_is_shown_or_listed() {
    let bench = Bench::new(MachineState::Destroying).await;
    for (shown, listed) in [(true, true), (false, true), (true, false)] {
        for _ in 0..5 {
            let one = Instance { id: "77".into(), label: bench.label.clone(), state: InstanceState::Up };
            bench.liar.says().shown = shown;
            bench.liar.says().listed = listed.then_some(one);
            assert_eq!(bench.destroy().await, MachineState::Destroying, "shown {shown}, listed {listed}");
        }
    }
    assert!(bench.core.alerts().iter().any(|alert| alert.contains("not confirmed gone")));
    // A list with it, and whatever lacked it before counts no more.
    let one = Instance { id: "77".into(), label: bench.label.clone(), state: InstanceState::Up };
    bench.liar.says().listed = Some(one);
    assert_eq!(bench.destroy().await, MachineState::Destroying);
    {
        let mut says = bench.liar.says();
        (says.shown, says.listed) = (false, None);
    }
    assert_eq!(bench.destroy().await, MachineState::Destroying, "one list");
    assert_eq!(bench.destroy().await, MachineState::Destroyed, "two lists and a question");
    assert!(bench.core.alerts().is_empty(), "{:?}", bench.core.alerts());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_alive_after_its_end_costs_and_is_destroyed_again_and_told_of() {
    let bench = Bench::new(MachineState::Destroyed).await;
    tokio::time::sleep(Duration::from_hours(2)).await;
    bench.liar.says().shown = false;
    sweep(&bench.core).await.unwrap();
    assert_eq!(bench.row().await.status, MachineState::Destroyed, "a list alone is no proof either");
    bench.liar.says().shown = true;
    sweep(&bench.core).await.unwrap();
    let row = bench.row().await;
    assert_eq!(row.status, MachineState::Destroying);
    let cost = row.cost_usd(bench.core.clock.wall_ms());
    assert!((cost - 2.0).abs() < 0.01, "{cost}");
    // Another machine under the same label is an orphan, and no part of this one.
    let other = Bench::new(MachineState::Destroyed).await;
    tokio::time::sleep(Duration::from_hours(2)).await;
    {
        let mut says = other.liar.says();
        let twin = Instance { id: "79".into(), label: other.label.clone(), state: InstanceState::Up };
        (says.listed, says.shown) = (Some(twin), true);
    }
    sweep(&other.core).await.unwrap();
    assert_eq!(
        (other.row().await.status, other.liar.says().orders.clone()),
        (MachineState::Destroyed, vec!["79".to_owned()])
    );
    assert!(bench.core.alerts().iter().any(|alert| alert.contains("destroyed again")));
    bench.liar.says().orders.clear();
    bench.destroy().await;
    assert_eq!(bench.liar.says().orders, ["77"]);
}

#[tokio::test(start_paused = true)]
async fn what_carries_another_label_is_never_destroyed_and_the_right_one_is() {
    let bench = Bench::new(MachineState::Destroying).await;
    {
        let mut says = bench.liar.says();
        says.label = Some("precious".into());
        let right = Instance { id: "78".into(), label: bench.label.clone(), state: InstanceState::Up };
        says.listed = Some(right);
    }
    assert_eq!(bench.destroy().await, MachineState::Destroying);
    assert!(bench.liar.says().orders.is_empty());
    assert_eq!(bench.row().await.instance.as_deref(), Some("78"));
    bench.liar.says().label = Some(bench.label.clone());
    bench.destroy().await;
    assert_eq!(bench.liar.says().orders, ["78"]);
    // Nothing carries ours: what there was is gone, and theirs stays.
    let bench = Bench::new(MachineState::Destroying).await;
    {
        let mut says = bench.liar.says();
        (says.label, says.listed) = (Some("precious".into()), None);
    }
    assert_eq!(bench.destroy().await, MachineState::Destroying);
    assert_eq!(bench.destroy().await, MachineState::Destroyed);
    assert!(bench.liar.says().orders.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_number_that_another_row_has_is_not_believed() {
    let bench = Bench::new(MachineState::Ready).await;
    let mut other = bench.row().await;
    other.id = MachineId::from_bytes([77; 16]);
    for (named, refused) in [("77", true), ("78", false)] {
        let made = CreateOutcome::Created { instance: named.into() };
        let told = unshared(&bench.core, &other, made.clone()).await.unwrap();
        assert_eq!(matches!(told, CreateOutcome::Unknown { .. }), refused, "{told:?}");
        assert_eq!(unshared(&bench.core, &bench.row().await, made.clone()).await.unwrap(), made);
    }
}

#[tokio::test(start_paused = true)]
async fn a_destroy_that_is_not_answered_is_tried_for_ever_and_ever_more_rarely() {
    let bench = Bench::new(MachineState::Destroying).await;
    bench.liar.says().order = DestroyOutcome::Unknown("rejected key".into());
    let work = async |secs: u64| {
        let looping = crate::reconcile::run(bench.core.clone(), CancellationToken::new());
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(secs)) => {}
            () = looping => panic!("the loop ended"),
        }
    };
    work(75).await;
    let tries = bench.liar.says().orders.len();
    assert!((4..8).contains(&tries), "{tries} within 75 s");
    let alert = bench.core.alerts().into_iter().find(|alert| alert.contains("rejected key")).unwrap();
    assert!(alert.contains("tried again in"), "{alert}");
    work(600).await;
    let more = bench.liar.says().orders.len() - tries;
    assert!((9..13).contains(&more), "{more} within ten minutes");
}
