//! Paths, keys, limits of bodies, rate limits, charges.

use serde_json::{Value, json};

use super::super::{Request, handle};
use super::{KEY, Lab};

#[test]
fn slashes_are_as_listed() {
    let mut lab = Lab::new();
    for (method, path, status) in [
        ("GET", "/api/v0/users/current", 200),
        ("GET", "/api/v0/users/current/", 404),
        ("GET", "/api/v1/instances/", 200),
        ("GET", "/api/v1/instances", 404),
        ("GET", "/api/v0/instances?owner=me", 200),
        ("GET", "/api/v0/instances/", 404),
        ("POST", "/api/v0/bundles/", 200),
        ("POST", "/api/v0/bundles", 404),
        ("GET", "/api/v0/instances/7/?owner=me", 200),
        ("GET", "/api/v0/instances/7", 404),
        ("GET", "/api/v0/instances/x/", 404),
        ("PATCH", "/api/v0/instances/7/", 404),
    ] {
        assert_eq!(lab.call(method, path, &json!({})).status, status, "{method} {path}");
    }
    let found = lab.call("POST", "/api/v0/bundles/", &json!({}));
    assert_eq!(found.content_type, "application/json", "exactly, or the official client refuses it");
}

#[test]
fn keys_open_what_they_may() {
    let mut lab = Lab::new();
    lab.control("keys", &json!({"key": "reader", "rights": ["instance_read"]}));
    let mine = lab.create(1, &json!({})).value();
    let (id, own) =
        (mine["new_contract"].clone(), mine["instance_api_key"].as_str().expect("a key").to_owned());
    lab.machine(&json!({"machine_id": 2}));
    let other = lab.created(2, &json!({}));
    let mut ask = |key: &str, method: &str, path: &str| {
        handle(&mut lab.world, lab.now, &Request::new(method, path, key, &json!({"state": "stopped"}))).status
    };
    assert_eq!(ask("nobody", "GET", "/api/v1/instances/"), 401);
    assert_eq!(ask("reader", "GET", "/api/v1/instances/"), 200);
    assert_eq!(ask("reader", "DELETE", &format!("/api/v0/instances/{id}/")), 403);
    assert_eq!(ask(&own, "GET", "/api/v1/instances/"), 403);
    assert_eq!(ask(&own, "GET", &format!("/api/v0/instances/{id}/")), 200);
    assert_eq!(ask(&own, "DELETE", &format!("/api/v0/instances/{other}/")), 403);
    assert_eq!(ask(&own, "PUT", &format!("/api/v0/instances/{id}/")), 200);
    lab.control("options", &json!({"instance_key_may_destroy": false}));
    let mut ask = |key: &str, method: &str, path: &str| {
        handle(&mut lab.world, lab.now, &Request::new(method, path, key, &json!({}))).status
    };
    assert_eq!(ask(&own, "DELETE", &format!("/api/v0/instances/{id}/")), 403);
    assert_eq!(ask(KEY, "DELETE", &format!("/api/v0/instances/{id}/")), 200);
    assert_eq!(ask(&own, "GET", &format!("/api/v0/instances/{id}/")), 401, "it ends with its instance");
}

#[test]
fn creates_keep_the_vendors_bounds() {
    let mut lab = Lab::new();
    let long = |length: usize| "x".repeat(length);
    for (bad, slug) in [
        (json!({"image": null}), "invalid_args"),
        (json!({"image": long(1025)}), "invalid_args"),
        (json!({"label": long(257)}), "invalid_args"),
        (json!({"onstart": long(4049)}), "invalid_args"),
        (json!({"disk": 7}), "invalid_args"),
        (json!({"disk": 501}), "invalid_args"),
        (json!({"price": 0.0001}), "invalid_price"),
        (json!({"price": 129}), "invalid_price"),
        (json!({"env": {long(257): "1"}}), "invalid_args"),
        (json!({"env": []}), "invalid_args"),
        (json!({"vm": true}), "no_ssh_key_for_vm"),
    ] {
        let answer = lab.create(1, &bad);
        assert_eq!((answer.status, answer.value()["error"].clone()), (400, json!(slug)), "{bad}");
    }
    assert_eq!(lab.state()["instances"], json!([]));
    let answer = lab.call("PUT", "/api/v0/asks/1/", &json!([]));
    assert_eq!(answer.status, 400);
}

#[test]
fn a_low_bid_is_refused_or_springs_the_trap() {
    let mut lab = Lab::new();
    let refused = lab.create(1, &json!({"price": 0.05, "cancel_unavail": true}));
    assert_eq!((refused.status, refused.value()["error"].clone()), (410, json!("no_such_ask")));
    assert_eq!(lab.state()["instances"], json!([]));
    for body in
        [json!({"price": 0.05, "cancel_unavail": false}), json!({"price": 0.05, "cancel_unavail": null})]
    {
        let trap = lab.create(1, &body);
        assert_eq!((trap.status, trap.value()["success"].clone()), (400, json!(false)));
        let id = trap.value()["new_contract"].as_u64().expect("a contract in an error");
        lab.pass(3_600_000);
        assert_eq!(lab.status(id), "stopped");
        super::near(lab.cost(id), 0.02);
        lab.destroy(id);
    }
}

#[test]
fn calls_that_come_too_early_are_refused_by_endpoint_and_identity() {
    for (method, path, interval) in [
        ("PUT", "/api/v0/asks/1/", 4_500),
        ("DELETE", "/api/v0/instances/1/", 3_000),
        ("GET", "/api/v0/instances/1/", 2_000),
        ("GET", "/api/v1/instances/", 1_000),
        ("PUT", "/api/v0/instances/1/", 1_000),
        ("PUT", "/api/v0/instances/bid_price/1/", 5_500),
        ("PUT", "/api/v0/instances/command/1/", 1_500),
        ("POST", "/api/v0/ssh/", 1_000),
        ("GET", "/api/v0/charges/", 1_000),
    ] {
        let mut lab = Lab::new();
        lab.world.options_mut().limits = true;
        lab.control("keys", &json!({"key": "other"}));
        let early = |lab: &mut Lab, key: &str| {
            handle(&mut lab.world, lab.now, &Request::new(method, path, key, &json!({}))).status == 429
        };
        assert!(!early(&mut lab, KEY), "{path}");
        assert!(early(&mut lab, KEY), "{path}");
        assert!(!early(&mut lab, "other"), "{path}");
        lab.pass(interval - 1);
        if interval == 4_500 {
            // A create that came too early costs 12 s.
            lab.pass(7_500);
        }
        assert!(early(&mut lab, KEY), "{path}");
        lab.pass(1);
        assert!(!early(&mut lab, KEY), "{path}");
    }
}

#[test]
fn ten_searches_a_minute_and_a_quota_a_day() {
    let mut lab = Lab::new();
    lab.world.options_mut().limits = true;
    let search = |lab: &mut Lab| lab.call("POST", "/api/v0/bundles/", &json!({}));
    for _ in 0..10 {
        assert_eq!(search(&mut lab).status, 200);
        lab.pass(1_000);
    }
    let refused = search(&mut lab);
    assert_eq!(refused.status, 429);
    assert!(refused.value()["detail"].as_str().is_some_and(|text| text.contains("too frequent")));
    lab.pass(50_000);
    assert_eq!(search(&mut lab).status, 200);
    lab.control("options", &json!({"search_quota": 11}));
    let refused = search(&mut lab);
    assert_eq!(refused.value()["error"], "search_quota_exceeded");
    let (name, reset) = &refused.headers[0];
    assert_eq!(*name, "X-RateLimit-Reset");
    let reset: u64 = reset.parse().expect("seconds");
    assert!(reset.is_multiple_of(86_400) && reset * 1000 > lab.now);
    lab.pass(reset * 1000 - lab.now);
    assert_eq!(search(&mut lab).status, 200);
}

#[test]
fn charges_are_what_was_measured() {
    let mut lab = Lab::new();
    let mut ids = Vec::new();
    for machine in 1..=5 {
        lab.machine(&json!({"machine_id": machine}));
        ids.push(lab.created(machine, &json!({"label": format!("l{machine}")})));
    }
    lab.pass(10 * 3_600_000);
    lab.destroy(ids[0]);
    lab.pass(3_600_000);
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v0/charges/?limit=2&latest_first=false&after_token={token}");
        let page = lab.call("GET", &path, &Value::Null).value();
        assert_eq!((page["success"].clone(), page["total"].clone()), (json!(true), json!(5)));
        for row in page["results"].as_array().expect("a list") {
            let id: u64 =
                row["source"].as_str().expect("a source")["instance-".len()..].parse().expect("an id");
            let cost = (lab.cost(id) * 1000.0).round() / 1000.0;
            super::near(row["amount"].as_f64().expect("a number"), cost);
            seen.push(id);
        }
        match page["next_token"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(seen, ids);
    let before = json!({"day": {"gte": 0, "lte": 1000}}).to_string();
    let mut request = Request::new("GET", "/api/v0/charges/", KEY, &Value::Null);
    request.query = vec![("select_filters".to_owned(), before)];
    assert_eq!(handle(&mut lab.world, lab.now, &request).value()["total"], 0);
}

#[test]
fn keys_of_the_account_reach_new_instances_only() {
    let mut lab = Lab::new();
    let before = lab.created(1, &json!({}));
    let added = lab.call("POST", "/api/v0/ssh/", &json!({"ssh_key": "ssh-ed25519 AAAA one"})).value();
    lab.call("POST", "/api/v0/ssh/", &json!({"ssh_key": "ssh-ed25519 AAAA one"}));
    let listed = lab.call("GET", "/api/v0/ssh/", &Value::Null).value();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "the same key twice is one: {listed}");
    lab.machine(&json!({"machine_id": 2}));
    let after = lab.created(2, &json!({}));
    let keys = |lab: &mut Lab, id: u64| {
        let answer = lab.call("GET", &format!("/api/v0/instances/{id}/ssh/"), &Value::Null).value();
        serde_json::from_str::<Vec<Value>>(answer["ssh_keys"].as_str().expect("a string"))
            .expect("JSON")
            .len()
    };
    assert_eq!((keys(&mut lab, before), keys(&mut lab, after)), (0, 1));
    lab.call(
        "POST",
        &format!("/api/v0/instances/{before}/ssh/"),
        &json!({"ssh_key": "ssh-ed25519 AAAA two"}),
    );
    assert_eq!(keys(&mut lab, before), 1);
    let id = &added["key"]["id"];
    assert_eq!(lab.call("DELETE", &format!("/api/v0/instances/{after}/ssh/{id}/"), &json!({})).status, 200);
    assert_eq!(lab.call("DELETE", &format!("/api/v0/instances/{after}/ssh/{id}/"), &json!({})).status, 404);
    let nonsense = lab.call("POST", "/api/v0/ssh/", &json!({"ssh_key": "nonsense"}));
    assert_eq!(nonsense.value()["error"], "no_ssh_key");
}

#[test]
fn every_call_is_written_down() {
    let mut lab = Lab::new();
    let id = lab.created(1, &json!({}));
    lab.call("GET", "/api/v0/nonsense?a=b&api_key=secret", &Value::Null);
    let journal = lab.call("GET", "/control/journal", &Value::Null).value();
    let calls = journal["calls"].as_array().expect("a list");
    let ops: Vec<&str> = calls.iter().filter_map(|call| call["op"].as_str()).collect();
    assert_eq!(ops, ["search", "create", "unknown"]);
    assert_eq!((calls[1]["instance"].as_u64(), calls[1]["body"]["label"].clone()), (Some(id), json!("l")));
    assert_eq!(calls[2]["query"], json!({"a": "b"}), "a key is not written down");
    assert_eq!(journal["counts"]["create"]["200"], 1);
}
