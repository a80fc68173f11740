//! Bills: exact, however time is cut, and nothing after the end.

use proptest::prelude::*;
use serde_json::json;

use super::super::{Amount, Rate};
use super::{Lab, near};

const HOUR: u64 = 3_600_000;

#[test]
fn each_state_costs_what_the_vendor_says() {
    // Disk: 10 GB at 0.72 $ a month are 0.01 $ an hour; stopped, 0.02 $.
    // (what is done, milliseconds until the bill, dollars of GPUs and disk)
    for (status, gpu, disk) in [
        ("running", 0.36, 0.01),
        ("frozen", 0.36, 0.01),
        ("rebooting", 0.36, 0.01),
        ("loading", 0.0, 0.01),
        ("created", 0.0, 0.01),
        ("stopped", 0.0, 0.02),
        ("exited", 0.0, 0.02),
        ("unknown", 0.0, 0.02),
        ("offline", 0.0, 0.0),
    ] {
        let mut lab = Lab::new();
        let id = lab.created(1, &json!({}));
        lab.control(&format!("instances/{id}"), &json!({"fate": {"kind": "stays_null"}}));
        lab.control(&format!("instances/{id}"), &json!({"status": status}));
        lab.pass(HOUR);
        assert_eq!(lab.status(id), status);
        near(lab.cost(id), gpu + disk);
    }
}

#[test]
fn gpus_cost_from_running_and_disk_from_creation() {
    let mut lab = Lab::new();
    let id = lab.created(1, &json!({}));
    // 2 s null and 20 s loading, of which only the disk is billed.
    lab.pass(22_000);
    near(lab.cost(id), 0.01 * 22.0 / 3600.0);
    lab.pass(HOUR);
    near(lab.cost(id), 0.01 * 3622.0 / 3600.0 + 0.36);
    lab.set(id, &json!({"state": "stopped"}));
    lab.pass(HOUR);
    near(lab.cost(id), 0.01 * 3622.0 / 3600.0 + 0.36 + 0.02);
    lab.control(
        &format!("instances/{id}"),
        &json!({"traffic": {"up": 3_000_000_000_u64, "down": 500_000_000}}),
    );
    near(lab.cost(id), 0.01 * 3622.0 / 3600.0 + 0.36 + 0.02 + 0.03 + 0.01);
}

#[test]
fn a_destroyed_instance_costs_nothing_more() {
    let mut lab = Lab::new();
    let id = lab.created(1, &json!({}));
    lab.pass(HOUR);
    lab.destroy(id);
    let (cost, credit) = (lab.cost(id), lab.state()["credit"].clone());
    lab.pass(1000 * HOUR);
    near(lab.cost(id), cost);
    assert_eq!(lab.state()["credit"], credit);
    assert!(lab.show(id).is_null());
}

#[test]
fn credit_that_runs_out_stops_all_at_its_millisecond_and_disks_go_on() {
    let mut lab = Lab::new();
    lab.machine(&json!({"machine_id": 2}));
    let first = lab.created(1, &json!({}));
    let second = lab.created(2, &json!({}));
    lab.pass(60_000);
    lab.control("account", &json!({"credit": 0.37}));
    // Two at 0.37 $ an hour: half an hour.
    lab.pass(HOUR / 2 - 1);
    assert_eq!(lab.status(first), "running");
    lab.pass(1);
    for id in [first, second] {
        assert_eq!(lab.status(id), "stopped");
        assert_eq!(lab.show(id)["intended_status"], "stopped");
    }
    near(lab.state()["credit"].as_f64().expect("a number"), 0.0);
    lab.pass(HOUR);
    near(lab.state()["credit"].as_f64().expect("a number"), -0.04);
    assert_eq!(lab.set(first, &json!({"state": "running"})).status, 403);
    assert_eq!(lab.create(1, &json!({})).status, 403, "nothing new without credit");
    // Money alone starts nothing.
    lab.control("account", &json!({"deposit": 5.0}));
    lab.pass(HOUR);
    assert_eq!(lab.status(first), "stopped");
    assert_eq!(lab.set(first, &json!({"state": "running"})).status, 200);
    lab.pass(HOUR);
    assert_eq!(lab.status(first), "running");
}

#[test]
fn a_jump_over_the_end_of_credit_bills_no_more_than_small_steps() {
    let mut lab = Lab::new();
    let id = lab.created(1, &json!({}));
    lab.pass(60_000);
    lab.control("account", &json!({"credit": 0.37}));
    // An hour of running, then 99 of a stopped disk.
    lab.pass(100 * HOUR);
    assert_eq!(lab.status(id), "stopped");
    near(lab.state()["credit"].as_f64().expect("a number"), -1.98);
}

#[test]
fn a_lie_about_the_price_shows_in_the_instance() {
    let mut lab = Lab::new();
    lab.fault("create", &json!({"kind": "dearer", "factor": 1.5}));
    let id = lab.created(1, &json!({}));
    near(lab.show(id)["dph_base"].as_f64().expect("a number"), 0.54);
    lab.pass(22_000 + HOUR);
    near(lab.cost(id), 0.54 + 0.01 * 3622.0 / 3600.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_bill_does_not_depend_on_how_time_is_cut(
        steps in prop::collection::vec(1_u64..500_000, 1..40),
        acts in prop::collection::vec(0_u8..5, 1..6),
        poor: bool,
    ) {
        // The same moments for what is done; once straight, once step by step.
        let whole: u64 = steps.iter().sum();
        let run = |cut: bool| {
            let mut lab = Lab::new();
            let id = lab.created(1, &json!({"price": 0.2, "cancel_unavail": false}));
            if poor {
                lab.control("account", &json!({"credit": 0.05}));
            }
            for act in &acts {
                if cut {
                    for step in &steps { lab.pass(*step); }
                } else {
                    lab.pass(whole);
                }
                match act {
                    0 => { lab.set(id, &json!({"state": "stopped"})); }
                    1 => { lab.set(id, &json!({"state": "running"})); }
                    2 => lab.control("offers", &json!({"machines": [{"machine_id": 1, "rival": 0.5}]})),
                    3 => lab.control("offers", &json!({"machines": [{"machine_id": 1, "rival": null}]})),
                    _ => { lab.call("PUT", &format!("/api/v0/instances/reboot/{id}/"), &json!({})); }
                }
            }
            lab.pass(whole);
            let state = lab.state();
            (state["instances"][0]["meter"].clone(), state["credit"].clone(), lab.status(id))
        };
        prop_assert_eq!(run(true), run(false));
    }

    #[test]
    fn a_rate_over_parts_is_the_rate_over_the_whole(
        rate in 0.0_f64..100.0, parts in prop::collection::vec(0_u64..1 << 40, 0..50),
    ) {
        let rate = Rate::dollars(rate);
        let whole = rate.over(parts.iter().sum());
        let sum = parts.iter().fold(Amount::ZERO, |sum, part| sum + rate.over(*part));
        prop_assert_eq!(whole, sum);
    }

    #[test]
    fn credit_lasts_exactly_so_long(rate in 0.0001_f64..100.0, credit in 0.01_f64..1000.0) {
        let (rate, credit) = (Rate::dollars(rate), Amount::dollars(credit));
        let ms = credit.lasts(rate).expect("it ends");
        prop_assert!(rate.over(ms) >= credit);
        prop_assert!(rate.over(ms - 1) < credit);
    }
}
