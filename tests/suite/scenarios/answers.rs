//! What is answered to questions that cannot be answered, and to programs.

use serde_json::Value;

use super::stage::{Said, Stage};

fn quick(stage: &Stage) -> std::path::PathBuf {
    let toml = "[project]\nname = \"quick\"\n\
                [run]\ncommand = [\"sh\", \"-c\", \"echo hello | tee results/said.txt\"]\n\
                [environment]\nkind = \"none\"\n";
    stage.project("quick", &[("outlast.toml", toml)])
}

#[test]
fn a_prefix_of_several_runs_names_them_and_an_unknown_one_none() {
    let stage = Stage::new();
    // Before anything ever ran there is nothing, and no controller is started.
    stage.call(&["status", "nothing"]).ends_with(66);
    assert_eq!(stage.controllers(), [0; 0]);

    let root = quick(&stage);
    let runs = [stage.submit(&root, &[]), stage.submit(&root, &[])];
    for verb in
        [&["status", "quick-"][..], &["logs", "quick-"], &["stop", "quick-"], &["destroy", "quick-", "--yes"]]
    {
        let said = stage.call(verb).ends_with(66);
        for run in &runs {
            assert!(said.stderr.contains(run), "{verb:?} does not name {run}: {}", said.stderr);
        }
    }
    for verb in ["status", "logs", "stop", "checkpoints", "pull", "resume", "cost"] {
        let said = stage.call(&[verb, "no-such-run"]).ends_with(66);
        assert!(said.stderr.contains("no-such-run"), "{verb}: {}", said.stderr);
        assert_eq!(said.stdout, b"", "{verb}");
    }
    stage.call(&["destroy", "no-such-thing", "--yes"]).ends_with(66);
    for run in &runs {
        stage.ends_as(run, "SUCCEEDED");
        // A whole name and the beginning of an id are enough.
        let id = stage.status(run)["run"]["id"].as_str().unwrap().to_owned();
        assert_eq!(stage.status(&id[..12])["run"]["name"], run.as_str());
    }
}

#[test]
fn everything_that_is_asked_as_json_is_one_json_value() {
    let stage = Stage::new();
    let root = quick(&stage);
    let root = root.to_str().unwrap();
    // Also where nothing ever ran.
    for verb in
        [&["status", "--json"][..], &["machines", "--json"], &["events", "--json"], &["cost", "--json"]]
    {
        assert!(matches!(stage.ok(verb).json(), Value::Array(_) | Value::Object(_)), "{verb:?}");
    }
    let report = stage.ok(&["run", root, "--json"]).json();
    assert_eq!((&report["state"], &report["exit_code"]), (&"SUCCEEDED".into(), &0.into()), "{report:#}");
    assert_eq!(report["machines_released"], true, "{report:#}");
    let run = report["run"].as_str().unwrap();
    let detached = stage.ok(&["run", root, "-d", "--json"]).json();
    stage.ends_as(detached["name"].as_str().unwrap(), "SUCCEEDED");
    let asked: [&[&str]; 12] = [
        &["status", "--json"],
        &["status", "--all", "--json"],
        &["status", run, "--json"],
        &["machines", "--all", "--json"],
        &["checkpoints", run, "--json"],
        &["pull", run, "--json"],
        &["events", "--json"],
        &["events", run, "--verify", "--json"],
        &["cost", "--json"],
        &["cost", run, "--json"],
        &["controller", "status", "--json"],
        &["version", "--json"],
    ];
    for verb in asked {
        let said: Said = stage.ok(verb);
        assert!(matches!(said.json(), Value::Array(_) | Value::Object(_)), "{verb:?}: {}", said.text());
    }
    assert_eq!(stage.ok(&["logs", run, "--stdout"]).text(), "hello\n");
}
