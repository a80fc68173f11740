//! Why an attempt ended, asked of the real program: the cause, the program's
//! own last words, and not one secret.

use std::fs;

use super::stage::{Stage, lines, wait};

/// Fits no pattern of keys: it is known only because the run was given it.
const CANARY: &str = "tulip-meadow-otter";

const FAILING: &str = r#"import os, sys, time
for step in range(1, 6):
    print(f"step {step} loss {1 / step:.3f}", flush=True)
    time.sleep(0.02)
print("logged in with " + os.environ["API_TOKEN"], flush=True)
print("token=" + os.environ["API_TOKEN"], file=sys.stderr, flush=True)
rows = []
print(rows[3])
"#;

#[test]
fn a_program_that_fails_is_told_with_its_cause_and_without_its_secrets() {
    let stage = Stage::new();
    let root = stage.project("broken", &[("outlast.toml", ""), ("train.py", FAILING)]);
    let secret = format!("run.env.API_TOKEN={CANARY}");
    let args = ["run", root.to_str().unwrap(), "--set", &secret, "--set", "environment.kind=none"];
    let said = stage.call(&[&args[..], &["--", "python3", "train.py"]].concat()).ends_with(1);
    assert!(said.stderr.contains("error in the program"), "the report names no cause:\n{}", said.stderr);
    let runs = stage.ok(&["status", "--all", "--json"]).json();
    let run = runs[0]["name"].as_str().unwrap().to_owned();
    stage.ended(&run);

    let short = stage.ok(&["why", &run]).text();
    assert!(short.contains("error in the program, certain"), "{short}");
    assert!(short.contains("IndexError: list index out of range"), "{short}");
    assert!(short.contains("step 5") && short.contains("try: "), "{short}");
    assert!(short.chars().count() <= 1_200, "{} characters:\n{short}", short.chars().count());

    let full = stage.ok(&["why", &run, "--full", "--attempt", "1"]).text();
    let json = stage.ok(&["why", &run, "--json"]);
    for text in [&short, &full, &json.text()] {
        assert!(!text.contains(CANARY), "the secret is told:\n{text}");
    }
    assert!(full.contains("print(rows[3])") && full.contains("token=[masked]"), "{full}");
    let capsule = json.json();
    assert_eq!(capsule["verdict"]["cause"], "user-error", "{capsule:#}");
    assert_eq!(capsule["exit"]["exit"]["code"], 1, "{capsule:#}");
    assert!(capsule["metrics"].as_array().is_some_and(|m| !m.is_empty()), "{capsule:#}");
    assert!(capsule["timeline"].as_array().is_some_and(|t| t.len() >= 3), "{capsule:#}");

    let export = stage.path("capsule.json");
    let file = export.to_str().unwrap();
    stage.ok(&["why", &run, "--export", file]);
    stage.call(&["why", &run, "--export", file]).ends_with(73);
    stage.ok(&["why", &run, "--export", file, "--yes"]);
    let exported: serde_json::Value = serde_json::from_slice(&fs::read(&export).unwrap()).unwrap();
    assert_eq!(exported["verdict"], capsule["verdict"]);
    stage.call(&["why", &run, "--attempt", "9"]).ends_with(66);

    // Each attempt's capsule stays beside its logs, readable without the program.
    let kept = stage.home.join("runs").join(&run).join("1").join("capsule.json");
    let text = wait("the kept capsule", || fs::read_to_string(&kept).ok());
    assert!(text.contains("\"user-error\"") && !text.contains(CANARY), "{text}");
    stage.verify();
}

#[test]
fn a_run_that_goes_on_says_what_is_known_so_far_and_a_stopped_one_who_stopped_it() {
    let stage = Stage::new();
    let log = stage.path("steps");
    let program = format!(
        "import time\nwhile True:\n    open({:?}, 'a').write('x\\n')\n    print('step 1 loss 0.5', flush=True)\n    time.sleep(0.05)\n",
        log.to_str().unwrap()
    );
    let root = stage.project("endless", &[("outlast.toml", ""), ("train.py", &program)]);
    let args =
        ["run", root.to_str().unwrap(), "-d", "--set", "environment.kind=none", "--", "python3", "train.py"];
    let run = stage.ok(&args).text().trim().to_owned();
    wait("its first steps", || (lines(&log).len() > 3).then_some(()));
    // The controller hears of its start by another way.
    stage.when(&run, "running", |detail| detail["run"]["phase"] == "running");
    let short = stage.ok(&["why", &run]).text();
    assert!(short.contains("still running") && short.contains("it has not ended"), "{short}");
    stage.ok(&["stop", &run]);
    stage.ends_as(&run, "CANCELLED");
    let short = stage.ok(&["why", &run]).text();
    assert!(short.contains("ended by a person, certain"), "{short}");
    assert!(short.contains(&format!("outlast resume {run}")), "{short}");
    let status = stage.ok(&["status", &run]).text();
    assert!(status.contains("ended by a person"), "{status}");
    stage.verify();
}
