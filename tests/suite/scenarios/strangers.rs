//! Programs that know nothing of the product, and trees that did not change.

use std::collections::BTreeMap;
use std::path::Path;

use super::programs::Training;
use super::stage::{Stage, machine_of};

#[test]
fn a_program_that_knows_nothing_goes_on_in_place_and_its_tables_too() {
    let stage = Stage::new();
    let training = Training::stranger(&stage, 60).gated(25);
    let run = training.submit(&stage);
    let durable = |detail: &serde_json::Value| detail["run"]["durable_step"].as_u64();
    let detail = stage.when(&run, "durable at step 20", |detail| durable(detail) >= Some(20));
    // With whichever checkpoint they went: all that was written up to step 20.
    let rows: usize = (1..=20).map(|step| format!("1,{step}\n").len()).sum();
    let published = |events: &[serde_json::Value]| {
        let bytes = |event: &serde_json::Value| {
            let detail: serde_json::Value = serde_json::from_str(event["detail_json"].as_str()?).ok()?;
            detail["bytes"].as_u64()
        };
        let last = events.iter().rfind(|event| event["verb"] == "outputs-durable");
        last.and_then(bytes) >= Some((rows + "1\n".len()) as u64)
    };
    super::stage::wait("the tables durable", || published(&stage.events(&run)).then_some(()));
    let known = durable(&stage.status(&run)).unwrap();
    assert_eq!(known, 20, "the last one before the gate");
    let machine = machine_of(&detail);
    stage.kill_machine(&machine);
    training.may_end();
    stage.ends_as(&run, "SUCCEEDED");

    let starts = training.starts();
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert_eq!(starts[0]["resume"], serde_json::Value::Null);
    let resumed = starts[1]["resume_step"].as_u64().expect("a checkpoint");
    assert!(resumed >= known, "from {resumed}, though {known} was durable");
    // In place: where it saved it, seen from where it runs.
    let here = Path::new(starts[1]["here"].as_str().unwrap());
    let given = Path::new(starts[1]["resume"].as_str().unwrap());
    assert_eq!(here.join(given), here.join(format!("saves/step-{resumed}.json")));

    let place = stage.path("pulled");
    stage.ok(&["pull", &run, place.to_str().unwrap()]);
    let read = |name: &str| std::fs::read_to_string(place.join("tables").join(name)).unwrap();
    assert_eq!(read("lives.txt"), "1\n2\n", "the second life read what the first had written");
    let mut lives: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in read("log.csv").lines() {
        let (life, step) = line.split_once(',').unwrap();
        lives.entry(life.parse().unwrap()).or_default().push(step.parse().unwrap());
    }
    let kept = lives[&1].len() as u64;
    assert!(kept >= known, "rows of the first life up to {kept}, though {known} was durable");
    assert_eq!(lives[&1], (1..=kept).collect::<Vec<_>>());
    assert_eq!(lives[&2], (resumed + 1..=60).collect::<Vec<_>>());
    stage.is_gone(&machine);
    stage.verify();
}

#[test]
fn a_second_run_of_an_unchanged_tree_sends_no_file() {
    let stage = Stage::new();
    let root = stage.project(
        "still",
        &[
            ("outlast.toml", "[run]\ncommand = [\"true\"]\n[environment]\nkind = \"none\"\n"),
            ("data.bin", &"0123456789abcdef\n".repeat(20_000)),
        ],
    );
    let root = root.to_str().unwrap();
    let objects = || {
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        let mut todo = vec![stage.home.join("objects/source")];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    todo.push(entry.path());
                } else {
                    found.insert(entry.path().display().to_string(), entry.metadata().unwrap().len());
                }
            }
        }
        found
    };
    let first = stage.ok(&["run", root, "-d"]);
    assert!(first.stderr.contains("were new") && !first.stderr.contains("0 B were new"), "{}", first.stderr);
    let before = objects();
    let second = stage.ok(&["run", root, "-d"]);
    // At most a list of the files is new, never a byte of them.
    let grown: u64 =
        objects().iter().filter(|(path, _)| !before.contains_key(*path)).map(|(_, len)| len).sum();
    assert!(grown < 2_000, "{grown} bytes were sent again: {}", second.stderr);
    for said in [first, second] {
        let run = said.text().trim().to_owned();
        stage.ends_as(&run, "SUCCEEDED");
    }
}
