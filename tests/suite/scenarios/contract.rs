//! The contract of providers over the adapter for Vast.ai and the fake vendor,
//! over real HTTP: as it works, and with each of the vendor's faults at each
//! kind of call. The other providers run the same suite in their own tests.

use std::sync::Mutex;
use std::time::Duration;

use controller::provider::contract;
use controller::provider::{VastConfig, VastProvider};
use serde_json::{Value, json};

use super::double::Double;

fn provider(double: &Double, keys: &tempfile::TempDir) -> VastProvider {
    let config = VastConfig {
        url: Some(format!("http://127.0.0.1:{}", double.port)),
        keys: keys.path().to_owned(),
        boot_deadline: Duration::from_mins(10),
        // The vendor counts its intervals 2,000 times as fast.
        pace_percent: 1,
    };
    VastProvider::new(config, |name| (name == "VAST_API_KEY").then(|| "test-key".to_owned())).unwrap()
}

/// A minute of the vendor's passes in 30 ms.
const MARKET: [&str; 6] = ["--offers", "200", "--seed", "5", "--speed", "2000"];

#[tokio::test(flavor = "multi_thread")]
async fn the_adapter_for_vast_keeps_the_contract() {
    let (double, keys) = (vendor(), tempfile::tempdir().unwrap());
    contract::run_where(&provider(&double, &keys), "", "987654321").await;
    let left = double.control("GET", "state", &json!({}));
    assert_eq!(left["instances"], json!([]), "nothing stays rented");
}

/// The vendor, with more money than any number of its hours costs: seconds of a
/// slow computer are days there.
fn vendor() -> Double {
    let double = Double::start("fake-vast", MARKET);
    double.control("POST", "account", &json!({"deposit": 10_000.0}));
    double
}

/// Each at the calls where it can be, once or as often as it is met.
fn faults() -> Vec<Value> {
    let all = ["search", "create", "list", "show", "destroy"];
    let plain = |fault: Value, times: u32| json!({"on": all, "times": times, "fault": fault});
    let mut rules = Vec::new();
    for effect in [false, true] {
        rules.push(plain(json!({"kind": "lost_reply", "effect": effect}), 1));
        for code in [500, 502, 503] {
            rules.push(plain(
                json!({"kind": "status", "code": code, "html": code == 502, "effect": effect}),
                1,
            ));
        }
    }
    for body in ["detail", "text", "quota"] {
        rules.push(plain(json!({"kind": "too_many", "body": body}), 1));
    }
    for text in [
        "",
        "null",
        "[]",
        "{}",
        "{\"success\":true}",
        "<html>no</html>",
        "{\"instances\":{\"id\":\"x\"}}",
        "\u{0}",
    ] {
        let body = |code: u16| json!({"kind": "body", "code": code, "content_type": "application/json", "text": text});
        rules.push(plain(body(200), 1));
        rules.push(plain(body(404), 1));
    }
    let huge = json!({"kind": "body", "code": 200, "content_type": "text/html", "text": "[[[[[[[[", "repeat": 4_000_000});
    rules.push(plain(huge, 1));
    for code in [404, 410] {
        rules.push(json!({"on": ["create"], "times": 2, "fault": {"kind": "offer_gone", "code": code}}));
    }
    rules.push(json!({"on": ["create"], "times": 1, "fault": {"kind": "contract_in_error"}}));
    rules.push(json!({"on": ["list"], "times": 1, "fault": {"kind": "empty_list"}}));
    rules.push(json!({"on": ["list"], "times": 1, "fault": {"kind": "partial_list", "lacks": 1}}));
    rules.push(json!({"on": ["list", "show"], "times": 1, "fault": {"kind": "null_status"}}));
    rules
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_no_fault_of_the_vendor_makes_the_adapter_break_the_contract() {
    let (double, keys) = (vendor(), tempfile::tempdir().unwrap());
    let rules = faults();
    let double = Mutex::new(double);
    let vendor = |fault: Option<usize>| {
        let double = double.lock().unwrap();
        let set: Vec<&Value> = fault.map(|n| &rules[n]).into_iter().collect();
        double.control("POST", "faults", &json!({"clear": true, "add": set}));
        let state = double.control("GET", "state", &json!({}));
        let rows = state["instances"].as_array().unwrap();
        rows.iter().filter_map(|row| row["label"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let under = provider(&double.lock().unwrap(), &keys);
    contract::hold_under(&under, rules.len(), vendor).await;
}
