//! Money and machines that nobody here remembers: what a lost installation left
//! behind is found and ended by another one, and what the vendor charges beside
//! the ledger is told.

use std::fs;

use serde_json::{Value, json};

use super::carried::give_agent;
use super::money;
use super::stage::{Stage, wait};
use super::vast::{CAPS, Project, Vendor};

#[test]
fn what_a_lost_installation_left_is_found_by_another_and_ended_only_when_meant_twice() {
    let stage = Stage::new();
    let test = "what_a_lost_installation_left_is_found_by_another_and_ended_only_when_meant_twice";
    let Some(vendor) = Vendor::start(&stage, test) else { return };
    let stage = stage.with(vendor.environment());
    give_agent(&stage.home);
    let project = Project::new(&stage, CAPS);
    let run = stage.submit(&project.root, &[]);
    stage.when_durable(&run, 20);
    let own = stage.ok(&["machines", "--foreign", "--json"]).json();
    assert_eq!(own, json!({"machines": [], "problems": []}), "its own machine is none of another");

    let other = Stage::new().with(vendor.environment());
    let listed = other.ok(&["machines", "--foreign", "--json"]).json();
    let machine = &listed["machines"][0];
    assert_eq!(listed["machines"].as_array().unwrap().len(), 1, "{listed:#}");
    assert!(machine["usd_per_hour"].as_f64().unwrap() > 0.0 && machine["billed"] == "all", "{listed:#}");
    let target = format!("vast/{}", machine["instance"].as_str().unwrap());
    let whose = machine["installation"].as_str().unwrap().to_owned();
    assert_eq!(vendor.rented()[0]["label"], machine["label"]);

    // Its data directory is lost.
    stage.kill_controller();
    // Its SSH clients end after it, and may write there until then.
    wait("its data directory gone", || {
        let _ = fs::remove_dir_all(&stage.home);
        (!stage.home.exists()).then_some(())
    });
    other.call(&["destroy", "--foreign", &target]).ends_with(64);
    other.call(&["destroy", "--foreign", &target, "--yes"]).ends_with(64);
    let wrong = ["destroy", "--foreign", &target, "--yes", "--installation", "aaaaaaaa"];
    let said = other.call(&wrong).ends_with(65);
    assert!(said.stderr.contains(&whose), "{}", said.stderr);
    other.call(&["destroy", "--foreign", "vast/1", "--yes", "--installation", &whose]).ends_with(66);
    assert_eq!(vendor.rented().len(), 1, "nothing was destroyed");
    other.ok(&["destroy", "--foreign", &target, "--yes", "--installation", &whose]);
    assert!(vendor.rented().is_empty());
    let events = other.ok(&["events", "--json"]).json();
    let verbs: Vec<&str> = events.as_array().unwrap().iter().filter_map(|e| e["verb"].as_str()).collect();
    assert!(verbs.contains(&"destroy-foreign") && verbs.contains(&"foreign-destroyed"), "{verbs:?}");
    // Somebody paid for it, and it was not this installation.
    let bills = other.ok(&["cost", "--bill", "--json"]).json();
    assert!(bills[0]["foreign_usd"].as_f64().unwrap() > 0.0, "{bills:#}");
    assert_eq!(
        (bills[0]["billed_usd"].as_f64(), &bills[0]["findings"]),
        (Some(0.0), &json!([])),
        "{bills:#}"
    );
}

#[test]
fn what_the_vendor_charges_beside_the_ledger_is_told() {
    let stage = Stage::new();
    let Some(vendor) = money::dear(&stage, "what_the_vendor_charges_beside_the_ledger_is_told") else {
        return;
    };
    let stage = stage.with(vendor.environment());
    give_agent(&stage.home);
    let project = Project::new(&stage, "[budget]\nmax_usd = 180\nmax_usd_per_hour = 360\n");
    fs::write(&project.gate, "60").unwrap();
    let run = stage.submit(&project.root, &[]);
    stage.ends_as(&run, "SUCCEEDED");
    let bills = stage.ok(&["cost", "--bill", "--json"]).json();
    let (billed, ledger) =
        (bills[0]["billed_usd"].as_f64().unwrap(), bills[0]["ledger_usd"].as_f64().unwrap());
    assert!(billed > 0.0 && billed <= ledger && bills[0]["complete"] == true, "{bills:#}");
    assert_eq!(bills[0]["findings"], json!([]), "{bills:#}");

    // A second machine under the same label, that no row knows; the sweep must not
    // end it before it has cost something.
    stage.kill_controller();
    let label = vendor.state()["ended"][0]["label"].clone();
    let offers = vendor.ask("POST", "/api/v0/bundles/", &json!({"limit": 1, "type": "on-demand"}));
    let ask = offers["offers"][0]["id"].as_u64().unwrap();
    let order = json!({"client_id": "me", "image": "x", "disk": 10, "label": label, "cancel_unavail": true,
        "runtype": "ssh_direc ssh_proxy", "onstart": "true"});
    let made = vendor.ask("PUT", &format!("/api/v0/asks/{ask}/"), &order);
    let extra = made["new_contract"].as_u64().unwrap();
    let running =
        || vendor.rented().iter().any(|one| one["id"] == extra && one["burns_per_hour"].as_f64() > Some(0.0));
    wait("it to bill", || running().then_some(()));
    vendor.control("POST", "account", &json!({"deposit": 10_000.0}));
    vendor.control("POST", "advance", &json!({"ms": 7_200_000}));
    let said = stage.call(&["cost", "--bill", "--json"]).ends_with(95);
    let findings = said.json()[0]["findings"].clone();
    let found: Vec<&Value> = findings.as_array().unwrap().iter().collect();
    assert_eq!(found.len(), 1, "{findings:#}");
    assert_eq!((&found[0]["instance"], &found[0]["machine"]), (&json!(extra.to_string()), &json!("")));
    assert!(found[0]["billed_usd"].as_f64().unwrap() > 0.01, "{findings:#}");
    // It is an alert and news, once.
    stage.call(&["cost", "--bill"]).ends_with(95);
    let events = stage.ok(&["events", "--json"]).json();
    let news = events.as_array().unwrap().iter().filter(|e| e["verb"] == "bill-unexplained").count();
    assert_eq!(news, 1, "{events:#}");
    let status = stage.ok(&["controller", "status", "--json"]).json();
    assert!(status["controller"]["alerts"].to_string().contains("does not explain"), "{status:#}");
    // And it does not stay: the next sweep ends it.
    wait("nothing rented", || vendor.rented().is_empty().then_some(()));
}
