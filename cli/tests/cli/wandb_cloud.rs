//! `wandb://ENTITY/PROJECT/RUN` against a server that answers as W&B's does, in
//! good order and, in `disorder`, in every other. That it answers as W&B's does
//! is checked by W&B's own client, where `OUTLAST_TEST_WANDB_PYTHON` names a
//! Python that has it (`pip install wandb`).

#[path = "wandb_cloud/disorder.rs"]
mod disorder;
#[path = "wandb_cloud/vendor.rs"]
mod vendor;

use std::process::{Child, Command, Stdio};

use super::text;
use serde_json::{Value, json};
use vendor::{KEY, Vendor, are, history, loss, points, row, run};

#[test]
fn every_row_of_a_run_is_read_once_and_only_new_ones_later() {
    let vendor = Vendor::start();
    let rows = vendor.rows("rows", (0..25_000).map(row));
    vendor.has(&[run("ab12", "running", &rows)]);
    are(&history(&vendor, "ab12"), 0..25_000);
    assert_eq!(vendor.asked(), [(0, 10_000), (10_000, 20_000), (20_000, 25_000)]);
    // It goes on: only what is new travels.
    vendor.rows("rows", (0..25_300).map(row));
    are(&history(&vendor, "ab12"), 0..25_300);
    assert_eq!(vendor.asked(), [(25_000, 25_300)]);
    // It has ended: nothing does.
    vendor.has(&[run("ab12", "finished", &rows)]);
    are(&history(&vendor, "ab12"), 0..25_300);
    assert_eq!(vendor.asked(), []);
    // It went back, and another run has its name: all is read again.
    vendor.rows("rows", (0..9_000).map(row));
    are(&history(&vendor, "ab12"), 0..9_000);
    assert_eq!(vendor.asked(), [(0, 9_000)]);
    let mut other = run("ab12", "finished", &rows);
    other["createdAt"] = json!("2026-02-01T00:00:00");
    vendor.has(&[other]);
    vendor.rows("rows", (100..9_000).map(row));
    are(&history(&vendor, "ab12"), 100..9_000);
}

#[test]
fn rows_that_are_far_apart_cost_few_questions_and_none_is_lost() {
    let vendor = Vendor::start();
    // A run that was resumed from another begins late; one part is dense.
    let steps = || (0..3_000).map(|row| 61_010 + row * 500).chain(2_000_000..2_030_000).chain([1 << 40]);
    let rows = vendor.rows("rows", steps().map(row));
    vendor.has(&[run("ab12", "finished", &rows)]);
    are(&history(&vendor, "ab12"), steps());
    let asked = vendor.asked().len();
    assert!(asked < 80, "{asked} questions");
}

#[test]
fn what_the_server_counts_and_did_not_give_is_asked_for_as_the_vendor_does() {
    let vendor = Vendor::start();
    let rows = vendor.rows("rows", (0..3_000).map(row));
    let mut one = run("ab12", "finished", &rows);
    one["counted"] = json!(3_001);
    vendor.has(&[one]);
    are(&history(&vendor, "ab12"), 0..3_000);
    assert_eq!(vendor.asked(), [(0, 3_000), (0, 1_000), (1_000, 2_000), (2_000, 3_000)]);
    are(&history(&vendor, "ab12"), 0..3_000);
    assert_eq!(vendor.asked(), [], "what was made sure of is not asked for again");
    let found = &vendor.json(&["analyze", "wandb://e/p/ab12"])[0];
    assert_eq!(
        (found["values"].as_u64(), found["read"]["skipped"]["count"].as_u64()),
        (Some(3_000), Some(1))
    );
}

#[test]
fn a_run_is_judged_and_described_as_its_file_would_be() {
    let vendor = Vendor::start();
    let spoilt = |step: u64| match step {
        400 => row(step).replace(&format!("{}}}", loss(step)), "NaN}"),
        401 => {
            row(step).replace(&format!("{}}}", loss(step)), "\"Infinity\", \"deep\": {\"a\": {\"b\": 3}}}")
        }
        _ => row(step),
    };
    let rows = vendor.rows("rows", (0..500).map(spoilt));
    let event = |at: u64| format!("{{\"_timestamp\": {at}, \"_runtime\": 1, \"system.gpu.0.gpu\": 93.5}}");
    let events = vendor.rows("events", (0..20).map(event));
    let mut one = run("ab12", "crashed", &rows);
    one["events"] = json!(events);
    one["config"]["_wandb"] = json!({"cli_version": "0.16.6", "m": [{"1": "train/loss", "8": 1}]});
    vendor.has(&[one]);
    let found = &vendor.json(&["analyze", "wandb://e/p/ab12"])[0];
    assert_eq!((found["format"].as_str(), found["path"].as_str()), (Some("wandb"), Some("wandb://e/p/ab12")));
    assert_eq!(found["values"], 501);
    for (fact, value) in [("run_id", "ab12"), ("name", "run-ab12"), ("project", "p"), ("status", "crashed")] {
        assert_eq!(found["facts"][fact], value, "{found}");
    }
    let finding = found["report"]["findings"].to_string();
    assert!(finding.contains("non_finite") && finding.contains("400"), "{finding}");
    let metric = vendor.json(&["metrics", "wandb://e/p/ab12"]).to_string();
    assert!(metric.contains("deep/a/b") && metric.contains("system/gpu.0.gpu"), "{metric}");
    let config = vendor.json(&["settings", "wandb://e/p/ab12"]).to_string();
    assert!(config.contains("0.1") && !config.contains("_wandb"), "{config}");
    // What a browser shows of it is the same run.
    let shown = format!("{}/e/p/runs/ab12?nw=x#top", vendor.base());
    assert_eq!(vendor.json(&["analyze", &shown])[0]["path"], "wandb://e/p/ab12");
    // W&B's own words for its endings.
    let output = vendor.outlast(&["watch", "--once", "wandb://e/p/ab12"]);
    let said = text(&output.stdout);
    assert!(said.contains("the run has ended: crashed"), "{said}{}", text(&output.stderr));
}

#[test]
fn a_project_is_listed_filtered_and_compared() {
    let vendor = Vendor::start();
    let short = vendor.rows("short", (0..100).map(row));
    let long = vendor.rows("long", (0..400).map(row));
    let runs = [
        run("a", "finished", &short),
        run("bb", "running", &long),
        run("ccc", "crashed", &long),
        run("dddd", "killed", &long),
    ];
    vendor.has(&runs);
    let listed = |args: &[&str]| -> Vec<String> {
        let found = vendor.json(&[&["runs", "wandb://e/p"], args].concat());
        let runs = found["runs"].as_array().unwrap_or_else(|| panic!("{found}")).iter();
        let mut names: Vec<String> = runs.map(|run| run["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(listed(&[]), ["run-a", "run-bb", "run-ccc", "run-dddd"]);
    assert_eq!(listed(&["state == finished"]), ["run-a"]);
    assert_eq!(listed(&["state == running"]), ["run-bb"]);
    assert_eq!(listed(&["state == failed or state == stopped"]), ["run-ccc", "run-dddd"]);
    assert_eq!(listed(&["tag:base and group == g and train/loss < 0.3"]), ["run-bb", "run-ccc", "run-dddd"]);
    let compared = vendor.json(&["compare", "wandb://e/p/a@50", "wandb://e/p/ccc"]).to_string();
    assert!(compared.contains("wandb://e/p/a") && compared.contains("wandb://e/p/ccc"), "{compared}");
    // One of several, by its id.
    let one =
        vendor.json(&["history", "wandb://e/p", "--run", "ccc", "-m", "train/loss", "--samples", "9999"]);
    are(&points(&one), 0..400);
    // One that is of no shape is told; the others are read.
    let mut odd = run("eeeee", "finished", &long);
    odd["tags"] = json!("no list");
    vendor.has(&[odd, runs[0].clone()]);
    let output = vendor.outlast(&["analyze", "wandb://e/p", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((found.as_array().unwrap().len(), found[0]["path"].as_str()), (1, Some("wandb://e/p/a")));
    let told = text(&output.stderr);
    assert!(told.contains("wandb://e/p/eeeee") && told.contains("not as W&B's server gives it"), "{told}");
    // A run that was deleted is not listed, although its copy is here.
    vendor.has(&runs[1..]);
    assert_eq!(listed(&[]), ["run-bb", "run-ccc", "run-dddd"]);
    vendor.has(&[]);
    let said = vendor.refused(&["runs", "wandb://e/p"], 66);
    assert!(said.contains("has no runs"), "{said}");
}

#[test]
fn the_newest_200_runs_of_many_are_read_and_the_others_are_told() {
    let vendor = Vendor::start();
    let rows = vendor.rows("rows", (0..12).map(row));
    let runs: Vec<Value> = (0..230)
        .map(|index| {
            let mut one = run(&format!("r{index}"), "finished", &rows);
            one["createdAt"] = json!(format!("2026-01-31T{:02}:{:02}:00", index / 60, index % 60));
            one
        })
        .collect();
    vendor.has(&runs);
    let output = vendor.outlast(&["analyze", "wandb://e/p", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let paths: Vec<&str> =
        found.as_array().unwrap().iter().map(|run| run["path"].as_str().unwrap()).collect();
    assert!(paths.len() == 200 && paths.contains(&"wandb://e/p/r229") && !paths.contains(&"wandb://e/p/r29"));
    assert!(text(&output.stderr).contains("more than 200 runs"), "{}", text(&output.stderr));
}

#[test]
fn many_processes_read_the_same_run_at_once() {
    let vendor = Vendor::start();
    let rows = vendor.rows("rows", (0..30_000).map(row));
    vendor.has(&[run("ab12", "running", &rows)]);
    let args = ["history", "wandb://e/p/ab12", "-m", "train/loss", "--samples", "1000000", "--json"];
    let begun = (0..6).map(|_| vendor.command(&args).stdout(Stdio::piped()).spawn().unwrap());
    let begun: Vec<Child> = begun.collect();
    for child in begun {
        let output = child.wait_with_output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        are(&points(&found), 0..30_000);
    }
    // Whoever came second found the rows here.
    assert_eq!(vendor.asked(), [(0, 10_000), (10_000, 20_000), (20_000, 30_000)]);
}

#[test]
fn the_vendors_own_client_reads_the_same_from_this_server() {
    let Some(python) = std::env::var_os("OUTLAST_TEST_WANDB_PYTHON") else {
        println!("skipped: OUTLAST_TEST_WANDB_PYTHON names no Python with W&B's client (pip install wandb)");
        return;
    };
    let vendor = Vendor::start();
    let rows = vendor.rows("rows", (0..12_345).map(row));
    vendor.has(&[run("ab12", "finished", &rows), run("c", "running", &vendor.rows("few", (0..3).map(row)))]);
    let script = format!(
        "import json, wandb\n\
         api = wandb.Api(overrides={{'base_url': '{}'}}, timeout=60)\n\
         runs = [[run.id, run.name, run.state, run.config, dict(run.summary), run.tags] for run in api.runs('e/p')]\n\
         rows = [[row['_step'], row['train/loss']] for row in api.run('e/p/ab12').scan_history()]\n\
         print(json.dumps([runs, rows]))\n",
        vendor.base()
    );
    let mut client = Command::new(python);
    client.args(["-c", &script]).current_dir(vendor.home()).env("HOME", vendor.home());
    client.env("WANDB_API_KEY", KEY).env("WANDB_SILENT", "true").env("WANDB_ERROR_REPORTING", "false");
    let output = client.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let theirs: Vec<(u64, f64)> = found[1]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row[0].as_u64().unwrap(), row[1].as_f64().unwrap()))
        .collect();
    are(&theirs, 0..12_345);
    assert!(theirs == history(&vendor, "ab12"));
    let config = json!({"lr": 0.1, "seed": "ab12"});
    let first = json!(["ab12", "run-ab12", "finished", config, {"train/loss": 0.5, "_step": 7}, ["base"]]);
    assert_eq!((found[0].as_array().unwrap().len(), &found[0][0]), (2, &first));
}
