//! What a person asks of a run or a machine that is at work.

use super::programs::Training;
use super::stage::{Stage, machine_of, wait};

fn training(stage: &Stage) -> Training {
    Training::new(stage, &[("STEPS", "60"), ("STEP_MS", "60"), ("EVERY", "10")])
}

#[test]
fn a_machine_that_a_person_destroys_is_replaced_and_its_run_goes_on() {
    let stage = Stage::new();
    let training = training(&stage);
    let run = training.submit(&stage);
    let durable = stage.when_durable(&run, 10);
    let machine = machine_of(&stage.status(&run));
    stage.ok(&["destroy", &machine[..8], "--yes"]);
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_ne!(machine_of(&detail), machine);
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 2, "{detail:#}");
    assert_eq!(training.starts().len(), 2);
    let resumed = training.starts()[1]["resume_step"].as_u64();
    assert!(resumed >= Some(durable), "from {resumed:?}, though {durable} was durable");
    stage.is_gone(&machine);
    stage.verify();
}

#[test]
fn a_run_that_a_person_destroys_ends_at_once_with_its_machine() {
    let stage = Stage::new();
    let training = training(&stage);
    let run = training.submit(&stage);
    wait("step 3", || training.steps().iter().any(|(_, step)| *step == 3).then_some(()));
    let machine = machine_of(&stage.status(&run));
    stage.ok(&["destroy", &run, "--yes"]);
    let detail = stage.ends_as(&run, "CANCELLED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    stage.is_gone(&machine);
    assert_eq!(training.noted("asked"), [""; 0], "it was to end at once");
    stage.verify();
}

#[test]
fn without_yes_nothing_is_destroyed_where_nobody_can_be_asked() {
    let stage = Stage::new();
    let training = Training::new(&stage, &[("STEPS", "12"), ("STEP_MS", "60"), ("EVERY", "10")]);
    let run = training.submit(&stage);
    let said = stage.call(&["destroy", &run]).ends_with(64);
    assert!(said.stderr.contains("--yes"), "{}", said.stderr);
    stage.ends_as(&run, "SUCCEEDED");
}

#[test]
fn a_run_that_is_stopped_saves_and_a_resumed_one_goes_on_from_there() {
    let stage = Stage::new();
    let training = training(&stage);
    let run = training.submit(&stage);
    wait("step 13", || training.steps().iter().any(|(_, step)| *step == 13).then_some(()));
    stage.ok(&["stop", &run]);
    let detail = stage.ends_as(&run, "CANCELLED");
    let asked = training.noted("asked");
    let [saved] = asked.as_slice() else { panic!("it was asked once: {asked:?}") };
    let saved: u64 = saved.parse().unwrap();
    assert_eq!(detail["run"]["durable_step"], saved, "what it saved when asked is durable: {detail:#}");
    assert!(!detail["attempts"][0]["ending"].as_str().unwrap().contains("SIGKILL"), "{detail:#}");

    let next = stage.ok(&["resume", &run, "-d"]).text().trim().to_owned();
    assert_ne!(next, run);
    let detail = stage.ends_as(&next, "SUCCEEDED");
    assert_eq!(detail["attempts"][0]["resumed_step"], saved, "{detail:#}");
    let starts = training.starts();
    assert_eq!(starts.len(), 2);
    assert_eq!(starts[1]["resume_step"], saved);
    assert_eq!(starts[1]["resume_sha256"], training.saved(saved));
    let steps: Vec<u64> = training.steps().into_iter().map(|(_, step)| step).collect();
    assert_eq!(steps, (1..=60).collect::<Vec<_>>(), "every step once, over both runs");
    assert_eq!(stage.status(&run)["run"]["state"], "CANCELLED");
    stage.verify();
}
