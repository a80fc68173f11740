//! What happens by time and by other people's bids.

use serde_json::{Value, json};

use super::Lab;

#[test]
fn an_instance_comes_up_step_by_step() {
    let mut lab = Lab::new();
    let id = lab.created(1, &json!({}));
    for (ms, status, ports) in
        [(0, Value::Null, false), (2_000, json!("loading"), false), (20_000, json!("running"), true)]
    {
        lab.pass(ms);
        let row = lab.show(id);
        assert_eq!(row["actual_status"], status);
        assert_eq!(row["intended_status"], "running");
        assert_eq!(row["ports"]["22/tcp"][0]["HostPort"].is_string(), ports);
    }
}

#[test]
fn fates_end_where_they_say() {
    let failed = "Error response from daemon: OCI runtime create failed: runc create failed";
    for (fate, status, message) in [
        (json!({"kind": "stays_null"}), Value::Null, ""),
        (json!({"kind": "stuck_loading"}), json!("loading"), ""),
        (json!({"kind": "startup_failure", "message": failed}), json!("created"), failed),
        (json!({"kind": "becomes", "status": "exited", "after_ms": 5000}), json!("exited"), ""),
        (json!({"kind": "becomes", "status": "unknown", "after_ms": 5000}), json!("unknown"), ""),
        (json!({"kind": "becomes", "status": "offline", "after_ms": 5000}), json!("offline"), ""),
        (json!({"kind": "outbid", "after_ms": 5000}), json!("stopped"), "outbid"),
    ] {
        let mut lab = Lab::new();
        lab.fault("create", &json!({"kind": "fate", "fate": fate}));
        let id = lab.created(1, &json!({"price": 0.2}));
        lab.pass(3_600_000);
        let row = lab.show(id);
        assert_eq!(row["actual_status"], status, "{fate}");
        assert!(row["status_msg"].as_str().unwrap_or_default().contains(message), "{fate}: {row}");
        // What is terminal never becomes running by itself, nor by asking.
        if matches!(status.as_str(), Some("exited" | "unknown" | "offline")) {
            lab.set(id, &json!({"state": "running"}));
            lab.pass(3_600_000);
            assert_eq!(lab.status(id), status);
        }
    }
}

#[test]
fn the_higher_bid_has_the_machine_and_the_loser_comes_back_by_itself() {
    let mut lab = Lab::new();
    let low = lab.created(1, &json!({"price": 0.15}));
    lab.pass(60_000);
    assert_eq!(lab.status(low), "running");
    let high = lab.created(1, &json!({"price": 0.2}));
    lab.pass(60_000);
    assert_eq!((lab.status(low), lab.status(high)), (json!("stopped"), json!("running")));
    let row = lab.show(low);
    for key in ["cur_state", "intended_status", "next_state"] {
        assert_eq!(row[key], "stopped", "{key} of who is outbid");
    }
    // On demand outranks every bid.
    let demand = lab.created(1, &json!({}));
    lab.pass(60_000);
    assert_eq!((lab.status(high), lab.status(demand)), (json!("stopped"), json!("running")));
    lab.destroy(demand);
    lab.pass(60_000);
    assert_eq!((lab.status(low), lab.status(high)), (json!("stopped"), json!("running")));
    // And a raised bid wins at once.
    let raised = lab.call(
        "PUT",
        &format!("/api/v0/instances/bid_price/{low}/"),
        &json!({"client_id": "me", "price": 0.3}),
    );
    assert_eq!(raised.value()["success"], true);
    lab.pass(60_000);
    assert_eq!((lab.status(low), lab.status(high)), (json!("running"), json!("stopped")));
    let state = lab.state();
    let starts = state["instances"].as_array().expect("a list").iter().map(|row| row["starts"].as_u64());
    assert_eq!(starts.collect::<Vec<_>>(), [Some(2), Some(2)], "onstart runs at each start");
}

#[test]
fn a_rival_outbids_and_goes() {
    let mut lab = Lab::new();
    let id = lab.created(1, &json!({"price": 0.2}));
    lab.pass(60_000);
    lab.control("offers", &json!({"machines": [{"machine_id": 1, "rival": 0.2}]}));
    assert_eq!(lab.status(id), "stopped");
    // The winning bid is what the rival's leaves.
    lab.call(
        "PUT",
        &format!("/api/v0/instances/bid_price/{id}/"),
        &json!({"client_id": "me", "price": null}),
    );
    lab.pass(60_000);
    assert_eq!(lab.status(id), "running");
    assert_eq!(lab.show(id)["dph_base"], 0.201);
    lab.control("offers", &json!({"machines": [{"machine_id": 1, "rival": 0.3}]}));
    assert_eq!(lab.status(id), "stopped");
    lab.control("offers", &json!({"machines": [{"machine_id": 1, "rival": null}]}));
    lab.pass(60_000);
    assert_eq!(lab.status(id), "running", "by itself");
}

#[test]
fn a_stopped_instance_waits_for_gpus_that_are_taken() {
    let mut lab = Lab::new();
    let first = lab.created(1, &json!({}));
    lab.pass(60_000);
    lab.set(first, &json!({"state": "stopped"}));
    let second = lab.created(1, &json!({}));
    lab.set(first, &json!({"state": "running"}));
    lab.pass(3_600_000);
    let row = lab.show(first);
    assert_eq!(
        (row["actual_status"].clone(), row["intended_status"].clone(), row["cur_state"].clone()),
        (json!("stopped"), json!("running"), json!("stopped"))
    );
    lab.destroy(second);
    lab.pass(60_000);
    assert_eq!(lab.status(first), "running");
}

#[test]
fn a_contract_ends_and_is_removed_two_days_later() {
    let mut lab = Lab::new();
    lab.machine(&json!({"machine_id": 1, "duration": 3600}));
    let id = lab.created(1, &json!({}));
    lab.pass(3_600_000);
    assert_eq!(lab.status(id), "stopped");
    assert_eq!(lab.set(id, &json!({"state": "running"})).status, 400);
    lab.pass(48 * 3_600_000);
    assert!(lab.show(id).is_null());
}

#[test]
fn the_control_plane_moves_the_clock() {
    let mut lab = Lab::new();
    let id = lab.created(1, &json!({}));
    lab.control("advance", &json!({"ms": 3_622_000}));
    assert_eq!(lab.status(id), "running");
    super::near(lab.cost(id), 0.36 + 0.01 * 3622.0 / 3600.0);
    lab.pass(1000);
    assert_eq!(lab.state()["now_ms"], super::START + 3_623_000);
}

#[test]
fn machines_are_told_what_happens_to_them() {
    let mut lab = Lab::new();
    lab.world.options_mut().machines = true;
    lab.call("POST", "/api/v0/ssh/", &json!({"ssh_key": "ssh-ed25519 AAAA me"}));
    let id = lab.created(1, &json!({"env": {"A": "b"}, "onstart": "true"}));
    lab.pass(60_000);
    let told = lab.world.take_boots();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].event, told[0].instance), ("start", id));
    assert_eq!(told[0].details["ssh_keys"], json!(["ssh-ed25519 AAAA me"]));
    assert_eq!(told[0].details["env"]["CONTAINER_ID"], id.to_string());
    assert!(lab.show(id)["ports"].is_null(), "no address before the command answers");
    lab.world.booted(id, Ok(Some(super::super::Ssh { ssh_host: "127.0.0.1".to_owned(), ssh_port: 4122 })));
    let row = lab.show(id);
    assert_eq!(row["ports"]["22/tcp"][0]["HostPort"], "4122");
    assert_eq!((row["public_ipaddr"].clone(), row["ssh_port"].clone()), (json!("127.0.0.1"), json!(4122)));
    lab.set(id, &json!({"state": "stopped"}));
    lab.destroy(id);
    let events: Vec<&str> = lab.world.take_boots().iter().map(|boot| boot.event).collect();
    assert_eq!(events, ["stop", "destroy"]);
}
