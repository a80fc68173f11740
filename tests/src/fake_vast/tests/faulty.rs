//! Faults do what they are called.

use serde_json::{Value, json};

use super::super::Delivery;
use super::Lab;

#[test]
fn a_lost_reply_has_its_effect_or_not() {
    for (kind, effect) in [
        (json!({"kind": "lost_reply", "effect": true}), 1),
        (json!({"kind": "lost_reply", "effect": false}), 0),
        (json!({"kind": "timeout", "effect": true, "ms": 5}), 1),
        (json!({"kind": "timeout", "effect": false, "ms": 5}), 0),
        (json!({"kind": "status", "code": 502, "html": true, "effect": true}), 1),
        (json!({"kind": "status", "code": 500}), 0),
    ] {
        let mut lab = Lab::new();
        lab.fault("create", &kind);
        let answer = lab.create(1, &json!({}));
        assert!(matches!(answer.delivery, Delivery::Close { .. }) || answer.status >= 500, "{kind}");
        let state = lab.state();
        assert_eq!(state["instances"].as_array().map(Vec::len), Some(effect), "{kind}");
        assert_eq!(state["journal"]["calls"][1]["fault"], kind["kind"]);
        // Once means once.
        lab.machine(&json!({"machine_id": 2}));
        assert_eq!(lab.create(2, &json!({})).status, 200, "{kind}");
    }
}

#[test]
fn refusals_come_in_the_vendors_shapes() {
    let mut lab = Lab::new();
    for (fault, status, content_type, text) in [
        (json!({"kind": "too_many", "body": "detail"}), 429, "application/json", "{\"detail\":"),
        (json!({"kind": "too_many", "body": "text"}), 429, "text/plain", "API requests too frequent"),
        (json!({"kind": "too_many", "body": "quota"}), 429, "application/json", "search_quota_exceeded"),
        (json!({"kind": "status", "code": 503}), 503, "application/json", "injected"),
        (json!({"kind": "status", "code": 502, "html": true}), 502, "text/html", "<html>"),
        (json!({"kind": "offer_gone", "code": 404}), 404, "application/json", "no_such_ask"),
        (json!({"kind": "offer_gone", "code": 410}), 410, "application/json", "no_such_ask"),
        (
            json!({"kind": "body", "code": 200, "content_type": "text/html", "text": "<p>", "repeat": 3}),
            200,
            "text/html",
            "<p><p><p>",
        ),
    ] {
        lab.fault("create", &fault);
        let answer = lab.create(1, &json!({}));
        assert_eq!((answer.status, answer.content_type.as_str()), (status, content_type), "{fault}");
        assert!(String::from_utf8_lossy(&answer.body).contains(text), "{fault}");
    }
    assert_eq!(lab.state()["instances"], json!([]));
}

#[test]
fn a_contract_in_an_error_is_a_stopped_instance_that_costs() {
    let mut lab = Lab::new();
    lab.fault("create", &json!({"kind": "contract_in_error"}));
    let answer = lab.create(1, &json!({}));
    assert_eq!((answer.status, answer.value()["success"].clone()), (400, json!(false)));
    let id = answer.value()["new_contract"].as_u64().expect("a contract");
    lab.pass(3_600_000);
    assert_eq!(lab.status(id), "stopped");
    super::near(lab.cost(id), 0.02);
}

#[test]
fn lists_can_lie() {
    let mut lab = Lab::new();
    for machine in 1..=4 {
        lab.machine(&json!({"machine_id": machine}));
        lab.created(machine, &json!({}));
    }
    let list = |lab: &mut Lab, fault: Value| {
        lab.fault("list", &fault);
        lab.call("GET", "/api/v1/instances/", &Value::Null).value()
    };
    let page = list(&mut lab, json!({"kind": "empty_list"}));
    assert_eq!((page["success"].clone(), page["total_instances"].clone()), (json!(true), json!(0)));
    let page = list(&mut lab, json!({"kind": "partial_list", "lacks": 1}));
    assert_eq!((page["total_instances"].clone(), page["next_token"].clone()), (json!(3), Value::Null));
    let page = list(&mut lab, json!({"kind": "null_status"}));
    assert!(page["instances"].as_array().expect("a list").iter().all(|row| row["actual_status"].is_null()));
    let page = list(&mut lab, json!({"kind": "slow", "ms": 1}));
    assert_eq!(page["total_instances"], 4);
}

#[test]
fn rules_count_and_draw() {
    let mut lab = Lab::new();
    lab.control(
        "faults",
        &json!({"add": [
        {"on": ["show"], "skip": 1, "times": 2, "fault": {"kind": "status", "code": 500}}]}),
    );
    let show = |lab: &mut Lab| lab.call("GET", "/api/v0/instances/1/", &Value::Null).status;
    let seen: Vec<u16> = (0..5).map(|_| show(&mut lab)).collect();
    assert_eq!(seen, [200, 500, 500, 200, 200]);
    // The same seed draws the same, and one of two is about one of two.
    let draw = || {
        let mut lab = Lab::new();
        lab.control(
            "faults",
            &json!({"seed": 5, "add": [
            {"on": ["*"], "probability": 0.5, "fault": {"kind": "status", "code": 500}}]}),
        );
        (0..1000).map(|_| show(&mut lab)).collect::<Vec<u16>>()
    };
    let drawn = draw();
    assert_eq!(drawn, draw());
    let failed = drawn.iter().filter(|status| **status == 500).count();
    assert!((400..600).contains(&failed), "{failed}");
    for bad in [
        json!({"add": [{"on": ["*"], "fault": {"kind": "nonsense"}}]}),
        json!({"add": [{"on": ["*"], "probability": 2.0, "fault": {"kind": "slow", "ms": 1}}]}),
        json!({"add": [{"on": ["*"], "fualt": {"kind": "slow", "ms": 1}}]}),
    ] {
        assert_eq!(lab.call("POST", "/control/faults", &bad).status, 400, "{bad}");
    }
}
