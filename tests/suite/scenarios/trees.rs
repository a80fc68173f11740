//! Trees in both directions: what is sent, and what comes back into
//! directories that people work in.

use std::fs;

use super::stage::{Stage, wait};

const CONFIG: &str = "[run]\ncommand = [\"python3\", \"train.py\"]\n[environment]\nkind = \"none\"\n";

/// Writes results with each checkpoint, when it is told to go on.
const PROGRAM: &str = r#"
import json, os, sys, time
where = os.environ["OUTLAST_CHECKPOINT_DIR"]
os.makedirs("results", exist_ok=True)
def save(n):
    with open("results/seen.txt", "w") as f:
        f.write("after %d" % n)
    with open(os.path.join(where, ".tmp"), "w") as f:
        f.write("state %d" % n)
    os.rename(os.path.join(where, ".tmp"), os.path.join(where, "step-%d.bin" % n))
    print(json.dumps({"step": n, "loss": 1.0}), flush=True)
save(1)
while not os.path.exists(GATE):
    time.sleep(0.05)
save(2)
"#;

#[test]
fn what_would_be_sent_is_told_and_sending_twice_sends_nothing() {
    let stage = Stage::new();
    let files = [
        ("outlast.toml", CONFIG),
        ("train.py", "print(1)\n"),
        ("notes.txt", "n"),
        (".gitignore", "data/\n"),
        (".outlastignore", "notes.txt\n"),
    ];
    let root = stage.project("sent", &files);
    fs::create_dir(root.join("data")).unwrap();
    fs::write(root.join("data/big.bin"), "0123456789").unwrap();
    let root = root.to_str().unwrap();
    let told = stage.ok(&["sync", root, "--dry-run", "--json"]).json();
    let paths = |told: &serde_json::Value| -> Vec<String> {
        told["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["path"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(paths(&told), [".gitignore", ".outlastignore", "outlast.toml", "train.py"]);
    let left = told["left_out"].to_string();
    assert!(
        left.contains("data/") && left.contains(".gitignore:1") && left.contains(".outlastignore:1"),
        "{left}"
    );
    assert_eq!(told["new_bytes"], told["total_bytes"]);
    let again = stage.ok(&["sync", root, "--dry-run", "--json"]).json();
    assert_eq!(again, told, "showing sends nothing");
    let more = stage.ok(&["sync", root, "-n", "--json", "--include", "data", "--exclude", "train.py"]).json();
    assert_eq!(paths(&more), [".gitignore", ".outlastignore", "data/big.bin", "outlast.toml"]);
    let sent = stage.ok(&["sync", root, "--json"]).json();
    assert_eq!((&sent["files"], &sent["new_bytes"]), (&4.into(), &told["new_bytes"]));
    assert_eq!(stage.ok(&["sync", root, "-n", "--json"]).json()["new_bytes"], 0);
    let said = stage.ok(&["run", root, "-d"]);
    assert!(said.stderr.contains("nothing to send"), "{}", said.stderr);
    stage.ends_as(said.text().trim(), "SUCCEEDED");
}

#[test]
fn a_watching_pull_brings_each_result_and_keeps_what_was_changed_here() {
    let stage = Stage::new();
    let gate = stage.path("gate");
    let program = PROGRAM.replace("GATE", &format!("{:?}", gate.to_str().unwrap()));
    let root = stage.project("watched", &[("outlast.toml", CONFIG), ("train.py", &program)]);
    let run = stage.submit(&root, &[]);
    let (place, other) = (stage.path("pulled"), stage.path("other"));
    let watch = stage.begin(&["pull", &run, place.to_str().unwrap(), "--watch"]);
    let seen = |dir: &std::path::Path| fs::read_to_string(dir.join("results/seen.txt")).ok();
    wait("the first results", || seen(&place).filter(|text| text == "after 1"));
    stage.ok(&["pull", &run, other.to_str().unwrap()]);
    fs::write(other.join("results/seen.txt"), "mine").unwrap();
    fs::write(&gate, "").unwrap();
    watch.end().ends_with(0);
    assert_eq!(seen(&place).as_deref(), Some("after 2"), "the last results came before the watch ended");
    let said = stage.call(&["pull", &run, other.to_str().unwrap(), "--json"]).ends_with(94);
    assert_eq!(seen(&other).as_deref(), Some("mine"));
    let kept = said.json()["conflicts"][0]["kept_as"].as_str().unwrap().to_owned();
    assert_eq!(fs::read_to_string(other.join(kept)).unwrap(), "after 2");
    let nothing = stage.project("none", &[("outlast.toml", CONFIG), ("train.py", "print(1)\n")]);
    let run = stage.submit(&nothing, &[]);
    stage.ends_as(&run, "SUCCEEDED");
    let said = stage.call(&["pull", &run]).ends_with(0);
    assert!(said.stderr.contains("warning") && said.stderr.contains("no result files"), "{}", said.stderr);
}
