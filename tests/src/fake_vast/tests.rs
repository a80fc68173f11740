//! The core of the fake Vast, without a socket: what it promises to the tests
//! that believe it.

mod faulty;
mod lists;
mod money;
mod protocol;
mod searches;
mod times;

use serde_json::{Value, json};

use super::{Request, Response, World, advance, handle};

/// A moment to begin at: not a round day.
const START: u64 = 1_790_000_123_456;
const KEY: &str = "k";

/// A world with time in hand.
struct Lab {
    world: World,
    now: u64,
}

impl Lab {
    /// One machine, `machine_id` 1: an hour of it costs 0.36 $, a GB of disk
    /// 0.72 $ a month, twice that when stopped.
    fn new() -> Self {
        let mut lab = Self { world: World::new(START, KEY, 7), now: START };
        lab.world.options_mut().limits = false;
        lab.machine(&json!({"machine_id": 1}));
        lab
    }

    /// A machine, the given values apart as that of `new`.
    fn machine(&mut self, given: &Value) {
        let mut machine = json!({"gpu_name": "RTX 4090", "num_gpus": 1, "price": 0.36, "min_bid": 0.1,
            "storage_cost": 0.72, "storage_cost_stopped": 1.44, "inet_up_cost": 0.01, "inet_down_cost": 0.02,
            "disk_space": 500, "reliability": 0.99, "verification": "verified", "direct_port_count": 10,
            "duration": 8_640_000});
        for (key, value) in given.as_object().expect("an object") {
            machine[key] = value.clone();
        }
        self.control("offers", &json!({"machines": [machine]}));
    }

    fn call(&mut self, method: &str, path: &str, body: &Value) -> Response {
        handle(&mut self.world, self.now, &Request::new(method, path, KEY, body))
    }

    fn control(&mut self, what: &str, body: &Value) {
        let answer = self.call("POST", &format!("/control/{what}"), body);
        assert_eq!(answer.status, 200, "{what}: {}", answer.value());
    }

    fn fault(&mut self, on: &str, fault: &Value) {
        self.control("faults", &json!({"add": [{"on": [on], "times": 1, "fault": fault}]}));
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        advance(&mut self.world, self.now);
    }

    /// The ask of a machine as it stands now.
    fn ask(&mut self, machine: u64) -> u64 {
        let found = self.call("POST", "/api/v0/bundles/", &json!({"machine_id": {"eq": machine}})).value();
        found["offers"][0]["id"].as_u64().expect("an offer")
    }

    fn create(&mut self, machine: u64, more: &Value) -> Response {
        let mut body = json!({"image": "i", "disk": 10, "label": "l", "runtype": "ssh_direc ssh_proxy",
            "cancel_unavail": true});
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let ask = self.ask(machine);
        self.call("PUT", &format!("/api/v0/asks/{ask}/"), &body)
    }

    fn created(&mut self, machine: u64, more: &Value) -> u64 {
        let answer = self.create(machine, more);
        assert_eq!(answer.status, 200, "{}", answer.value());
        answer.value()["new_contract"].as_u64().expect("an id")
    }

    fn show(&mut self, id: u64) -> Value {
        self.call("GET", &format!("/api/v0/instances/{id}/?owner=me"), &Value::Null).value()["instances"]
            .take()
    }

    fn status(&mut self, id: u64) -> Value {
        self.show(id)["actual_status"].clone()
    }

    fn destroy(&mut self, id: u64) {
        let answer = self.call("DELETE", &format!("/api/v0/instances/{id}/"), &json!({}));
        assert_eq!(answer.value()["success"], true);
    }

    fn set(&mut self, id: u64, body: &Value) -> Response {
        self.call("PUT", &format!("/api/v0/instances/{id}/"), body)
    }

    fn state(&mut self) -> Value {
        self.call("GET", "/control/state", &Value::Null).value()
    }

    /// What an instance has cost, in dollars.
    fn cost(&mut self, id: u64) -> f64 {
        let state = self.state();
        let all = state["instances"].as_array().into_iter().chain(state["ended"].as_array()).flatten();
        let found = all.into_iter().find(|row| row["id"] == id).expect("the instance is known");
        found["cost"]["total"].as_f64().expect("a number")
    }
}

#[track_caller]
fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} is not {b}");
}
