//! W&B's server out of order: busy, slow, broken, hostile, or not the one that
//! the key is for.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::{code, text};
use super::vendor::{KEY, Vendor, are, history, row, run};
use serde_json::{Value, json};

/// Bytes of everything below a directory, without what the server itself keeps.
fn everything(dir: &Path, found: &mut Vec<u8>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            everything(&path, found);
        } else {
            found.extend(fs::read(path).unwrap());
        }
    }
}

#[test]
fn a_server_that_fails_for_a_while_is_asked_again() {
    let vendor = Vendor::start();
    let rows = vendor.rows("rows", (0..12_000).map(row));
    vendor.has(&[run("ab12", "finished", &rows)]);
    vendor.faults(&[
        json!({"on": "run", "kind": "429", "times": 1, "after": "0"}),
        json!({"on": "run", "kind": "502", "times": 1, "after": "0"}),
        json!({"on": "history", "kind": "cut", "times": 1}),
        json!({"on": "history", "kind": "500", "times": 1, "after": "0"}),
        json!({"on": "events", "kind": "cut", "times": 1}),
    ]);
    are(&history(&vendor, "ab12"), 0..12_000);
    assert_eq!(vendor.left(), 0);
    vendor.heard();
    // What came before a failure that lasts is not fetched again.
    vendor.rows("rows", (0..40_000).map(row));
    vendor.faults(&[json!({"on": "history", "kind": "503", "times": 99, "after": "0"})]);
    let said = vendor.refused(&["analyze", "wandb://e/p/ab12"], 69);
    assert!(said.contains("answered 503") && said.contains("5 times"), "{said}");
    assert_eq!(vendor.left(), 94);
    vendor.faults(&[]);
    vendor.heard();
    are(&history(&vendor, "ab12"), 0..40_000);
    assert_eq!(vendor.asked().first(), Some(&(12_000, 22_000)));
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let vendor = Vendor::start();
    vendor.has(&[run("ab12", "finished", &vendor.rows("rows", (0..10).map(row)))]);
    vendor.faults(&[json!({"on": "any", "kind": "slow", "times": 99})]);
    let output =
        vendor.command(&["analyze", "wandb://e/p/ab12"]).env("WANDB_HTTP_TIMEOUT", "1").output().unwrap();
    let said = text(&output.stderr);
    assert!(code(&output) == 69 && said.contains("no answer in time"), "{said}");
}

#[test]
fn answers_that_are_not_as_they_should_be_are_told_as_data() {
    let vendor = Vendor::start();
    let rows = vendor.rows("rows", (0..10).map(row));
    vendor.has(&[run("ab12", "finished", &rows)]);
    let path = "wandb://e/p/ab12";
    let evil = format!("bad \u{1b}[31m {KEY} thing");
    let body =
        |on: &str, body: Value| json!({"on": on, "kind": "body", "body": body.to_string(), "times": 1});
    let history = |rows: Value| body("history", json!({"data": {"project": {"run": {"history": rows}}}}));
    for (fault, word) in [
        (json!({"on": "run", "kind": "errors", "message": evil, "times": 1}), "refused the question"),
        (json!({"on": "run", "kind": "400", "message": evil, "times": 1}), "answered 400"),
        (json!({"on": "run", "kind": "body", "body": "<html>", "times": 1}), "no JSON"),
        (body("run", json!({"data": null})), "without data"),
        (body("run", json!({"data": {"project": {"run": {"name": 7}}}})), "not as W&B's server gives it"),
        (body("run", json!({"data": {"project": {"run": {"name": "a/../../b"}}}})), "none that W&B can have"),
        (history(json!({"a": 1})), "no list"),
        (history(Value::Null), "no list"),
    ] {
        vendor.faults(std::slice::from_ref(&fault));
        let said = vendor.refused(&["analyze", path], 65);
        assert!(said.contains(word), "{fault}: {said}");
        assert_eq!(vendor.left(), 0, "{fault}");
    }
    // Rows that are none are counted; the others count.
    let mut five = run("ab12", "finished", &rows);
    five["counted"] = json!(5);
    vendor.has(&[five]);
    vendor.faults(&[history(json!([row(3), "{", 7, row(4), row(1 << 20), "{\"train/loss\": 3}"]))]);
    let found = &vendor.json(&["analyze", path])[0];
    assert_eq!(
        (found["values"].as_u64(), found["read"]["skipped"]["count"].as_u64()),
        (Some(2), Some(3)),
        "{found}"
    );
    // Neither the one nor the other has the key.
    let mut kept = Vec::new();
    everything(&vendor.home(), &mut kept);
    assert!(!kept.is_empty() && !kept.windows(8).any(|bytes| bytes == b"canary42"));
    for (place, word) in [("wandb://e/p/none", "no run none"), ("wandb://e/none", "no project e/none")] {
        let said = vendor.refused(&["analyze", place], 66);
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn lists_and_histories_without_end_and_answers_without_measure_come_to_an_end() {
    let vendor = Vendor::start();
    let rows = vendor.rows("rows", (0..5_000).map(row));
    vendor.has(&[run("ab12", "finished", &rows)]);
    vendor.faults(&[json!({"on": "runs", "kind": "endless", "times": 1000})]);
    assert_eq!(vendor.json(&["analyze", "wandb://e/p"]).as_array().unwrap().len(), 1);
    // An answer that is too long is asked for in pieces.
    let mut later = run("ab12", "finished", &rows);
    later["createdAt"] = json!("2026-02-01T00:00:00");
    vendor.has(&[later]);
    vendor.faults(&[json!({"on": "history", "kind": "huge", "fits": 700, "times": 1000})]);
    vendor.heard();
    are(&history(&vendor, "ab12"), 0..5_000);
    assert!(vendor.asked().iter().skip(1).all(|(from, to)| to - from <= 700));
    // Steps beyond number cost few questions.
    let mut endless = run("cd34", "finished", &rows);
    (endless["lastStep"], endless["counted"]) = (json!(8_000_000_000_000_000_u64), json!(9_000_000_000_u64));
    vendor.has(&[endless]);
    vendor.faults(&[]);
    vendor.heard();
    are(&history(&vendor, "cd34"), 0..5_000);
    let asked = vendor.asked().len();
    assert!(asked < 60, "{asked} questions");
}

#[test]
fn a_place_that_cannot_be_written_to_is_told() {
    let vendor = Vendor::start();
    vendor.has(&[run("ab12", "finished", &vendor.rows("rows", (0..10).map(row)))]);
    fs::create_dir_all(vendor.home().join(".local/share/outlast/cache")).unwrap();
    fs::write(vendor.home().join(".local/share/outlast/cache/wandb"), "no directory").unwrap();
    for path in ["wandb://e/p/ab12", "wandb://e/p"] {
        let said = vendor.refused(&["analyze", path], 73);
        assert!(said.contains("cannot be kept") && !said.contains("WANDB_API_KEY"), "{said}");
    }
}

#[test]
fn the_key_goes_to_the_named_server_alone() {
    let (vendor, other) = (Vendor::start(), Vendor::start());
    vendor.has(&[run("ab12", "finished", &vendor.rows("rows", (0..10).map(row)))]);
    vendor.faults(&[
        json!({"on": "any", "kind": "redirect", "to": format!("{}/graphql", other.base()), "times": 1}),
    ]);
    let said = vendor.refused(&["analyze", "wandb://e/p/ab12"], 65);
    assert!(said.contains("to which the key is not sent"), "{said}");
    assert_eq!(other.heard(), Vec::<Value>::new());
    // In the clear it goes to this computer alone; it stands in no address.
    for (base, path, word) in [
        ("http://192.0.2.1", "wandb://e/p", "in the clear"),
        ("https://me:canary42@127.0.0.1:1", "wandb://e/p", "WANDB_API_KEY"),
        ("https://w.example", "https://wandb.ai/e/p/runs/a", "unset it"),
    ] {
        let output = vendor.command(&["analyze", path]).env("WANDB_BASE_URL", base).output().unwrap();
        let said = text(&output.stderr);
        assert!(code(&output) == 65 && said.contains(word) && !said.contains("canary42"), "{said}");
    }
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        (code(&output), text(&output.stderr))
    };
    // Without a key, and with one that is not accepted.
    let (code, told) = said(vendor.command(&["analyze", "wandb://e/p/ab12"]).env_remove("WANDB_API_KEY"));
    assert!(code == 77 && told.contains("no key") && told.contains("wandb login"), "{told}");
    let wrong = format!("{KEY}wrong");
    let (code, told) = said(vendor.command(&["analyze", "wandb://e/p/ab12"]).env("WANDB_API_KEY", &wrong));
    assert!(code == 77 && told.contains("does not accept the key") && !told.contains("canary"), "{told}");
    // What `wandb login` wrote serves, for its host and no other.
    let netrc = |host: &str| format!("machine {host}\n  login user\n  password {KEY}\n");
    for (host, expected) in [("127.0.0.1", 0), ("api.wandb.ai", 77)] {
        fs::write(vendor.home().join(".netrc"), netrc(host)).unwrap();
        let (code, told) = said(vendor.command(&["analyze", "wandb://e/p/ab12"]).env_remove("WANDB_API_KEY"));
        assert!(code == expected && !told.contains("canary42"), "{host}: {told}");
    }
}
