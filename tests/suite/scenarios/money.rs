//! Caps of runs on rented machines, held in the vendor's own books: with a
//! controller, and without one.

use std::fs;

use serde_json::{Value, json};

use super::carried::give_agent;
use super::stage::{Stage, wait};
use super::vast::{Project, Vendor};

/// So dear that seconds count: what is kept back is 15 minutes and the grace.
/// What is left of the cap is a minute, in which a busy computer boots a machine
/// and its first steps become durable.
const PRICE: f64 = 359.0;
const CAP: f64 = 99.5;
const CAPS: &str = "[budget]\nmax_usd = 99.5\nmax_usd_per_hour = 360\n";

/// A market of machines that cost so much, and nothing for disk and traffic.
pub(super) fn dear(stage: &Stage, test: &str) -> Option<Vendor> {
    let vendor = Vendor::with(stage, test, &["--offers", "0", "--speed", "1"])?;
    let machines: Vec<Value> = (1..4)
        .map(|id| {
            json!({
                "machine_id": id, "price": PRICE, "storage_cost": 0.0, "storage_cost_stopped": 0.0,
                "inet_up_cost": 0.0, "inet_down_cost": 0.0, "reliability": 0.99, "direct_port_count": 50,
                "disk_space": 200.0, "num_gpus": 1
            })
        })
        .collect();
    vendor.control("POST", "offers", &json!({"machines": machines}));
    Some(vendor)
}

/// What the vendor billed for everything, dollars.
fn billed(vendor: &Vendor) -> f64 {
    let state = vendor.state();
    let all = ["instances", "ended"].iter().flat_map(|list| state[*list].as_array().unwrap().clone());
    all.map(|one| one["cost"]["total"].as_f64().unwrap()).sum()
}

fn verbs(stage: &Stage, run: &str) -> Vec<String> {
    let events = stage.ok(&["events", run, "--json"]).json();
    events.as_array().unwrap().iter().map(|e| e["verb"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_cap_ends_a_run_after_its_save_and_holds_in_the_vendors_books() {
    let stage = Stage::new();
    let Some(vendor) = dear(&stage, "a_cap_ends_a_run_after_its_save_and_holds_in_the_vendors_books") else {
        return;
    };
    let stage = stage.with(vendor.environment());
    give_agent(&stage.home);
    let project = Project::new(&stage, CAPS);
    let run = stage.submit(&project.root, &[]);
    stage.when_durable(&run, 20);
    stage.ends_as(&run, "BUDGET_STOPPED");
    wait("nothing rented", || vendor.rented().is_empty().then_some(()));
    let (billed, books) = (billed(&vendor), stage.ok(&["cost", &run, "--json"]).json());
    let ledger = wait("the ledger to close", || {
        let now = stage.ok(&["cost", &run, "--json"]).json()["cost_usd"].as_f64().unwrap();
        let after = stage.ok(&["cost", &run, "--json"]).json()["cost_usd"].as_f64().unwrap();
        (now.to_bits() == after.to_bits()).then_some(now)
    });
    assert!(billed > 1.0 && billed <= ledger && ledger <= CAP, "billed {billed}, ledger {ledger}: {books:#}");
    // Not more than a look and an end apart.
    assert!(ledger - billed < PRICE * 60.0 / 3600.0, "billed {billed}, ledger {ledger}");
    assert!(verbs(&stage, &run).contains(&"budget-crossed".to_owned()), "{:?}", verbs(&stage, &run));
    stage.verify();
}

#[test]
fn a_cap_holds_without_a_controller() {
    let stage = Stage::new();
    let Some(vendor) = dear(&stage, "a_cap_holds_without_a_controller") else { return };
    let stage = stage.with(vendor.environment());
    give_agent(&stage.home);
    let project = Project::new(&stage, CAPS);
    let run = stage.submit(&project.root, &[]);
    stage.when_durable(&run, 20);
    stage.kill_controller();
    // Nobody speaks to the machine any more. Its program ends, and since its end
    // and its output are nowhere else it stops and keeps its disk, which is free here.
    wait("the machine's own end", || {
        let rented = vendor.rented();
        assert_eq!(rented.len(), 1, "{rented:#?}");
        (rented[0]["burns_per_hour"].as_f64() == Some(0.0)).then_some(())
    });
    let total = billed(&vendor);
    assert!(total > 1.0 && total <= CAP, "{total}");
    // Whoever runs a controller again fetches first what is on its disk alone, for
    // minutes and within the cap, and then gives it back.
    let detail = stage.ends_as(&run, "BUDGET_STOPPED");
    assert_eq!(detail["run"]["durable_step"], 20, "{detail:#}");
    assert!(verbs(&stage, &run).contains(&"return-asked".to_owned()), "{:?}", verbs(&stage, &run));
    wait("nothing rented", || vendor.rented().is_empty().then_some(()));
    assert_eq!(vendor.state()["ended"].as_array().unwrap().len(), 1);
    let after = billed(&vendor);
    assert!(after >= total && after <= CAP, "{total} {after}");
    let last = &detail["attempts"][0];
    assert!(last["exit_code"].is_number() || last["exit"].is_object(), "its end was told: {detail:#}");
}

#[test]
fn runs_of_a_project_do_not_rent_more_at_once_than_its_cap_can_end() {
    let stage = Stage::new();
    let Some(vendor) = dear(&stage, "runs_of_a_project_do_not_rent_more_at_once_than_its_cap_can_end") else {
        return;
    };
    let stage = stage.with(vendor.environment());
    give_agent(&stage.home);
    // Each machine keeps back about 93 dollars: two do not fit below this cap.
    let project =
        Project::new(&stage, "[budget]\nmax_usd = 180\nmax_usd_project = 185\nmax_usd_per_hour = 360\n");
    fs::write(&project.gate, "60").unwrap();
    let runs: Vec<String> = (0..3).map(|_| stage.submit(&project.root, &[])).collect();
    let mut most = 0;
    // One after the other, so each has its time.
    for ended in 1..=runs.len() {
        wait(&format!("the end of {ended} of them"), || {
            most = most.max(vendor.rented().len());
            let rows = stage.ok(&["status", "--all", "--json"]).json();
            let over = rows.as_array().unwrap().iter().filter(|run| run["ended_ms"].as_u64().unwrap() > 0);
            (over.count() >= ended).then_some(())
        });
    }
    assert_eq!(most, 1);
    for run in &runs {
        stage.ends_as(run, "SUCCEEDED");
    }
    assert!(billed(&vendor) <= 185.0);
}
