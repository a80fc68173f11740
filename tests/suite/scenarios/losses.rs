//! A machine is taken away at the worst moments: every process of it is killed
//! and its disk erased. What is durable is never done again, and what the next
//! attempt begins with came from the store.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::programs::Training;
use super::stage::{Stage, lines, machine_of, wait};

/// What was known when a machine was taken away.
pub(super) struct Loss {
    pub(super) durable: Option<u64>,
    pub(super) machine: String,
}

/// Takes the machine of a run away.
pub(super) fn lose(stage: &Stage, run: &str) -> Loss {
    let detail = stage.status(run);
    let machine = machine_of(&detail);
    stage.kill_machine(&machine);
    Loss { durable: detail["run"]["durable_step"].as_u64(), machine }
}

/// What must hold after one loss, whenever it was. Returns the step that was
/// gone on from.
#[track_caller]
pub(super) fn check(stage: &Stage, run: &str, training: &Training, loss: &Loss, last: u64) -> Option<u64> {
    let detail = stage.ends_as(run, "SUCCEEDED");
    assert_eq!(detail["run"]["generation"], 2, "{detail:#}");
    assert_eq!(detail["machines"].as_array().unwrap().len(), 2, "{detail:#}");
    for machine in detail["machines"].as_array().unwrap() {
        stage.is_gone(machine["id"].as_str().unwrap());
    }
    assert_ne!(machine_of(&detail), loss.machine);

    let starts = training.starts();
    let generations: Vec<u64> = starts.iter().map(|start| start["generation"].as_u64().unwrap()).collect();
    assert!(generations == [1, 2] || generations == [2], "one start per generation: {starts:?}");
    let resumed = starts.last().unwrap()["resume_step"].as_u64();
    assert!(resumed >= loss.durable, "from {resumed:?}, though {:?} was durable", loss.durable);

    let steps = training.steps();
    let of = |wanted: u64| steps.iter().filter(move |(generation, _)| *generation == wanted).map(|(_, s)| *s);
    let again: Vec<u64> = of(2).collect();
    let expected: Vec<u64> = (resumed.unwrap_or(0) + 1..=last).collect();
    assert_eq!(again, expected, "the second generation's steps");
    let once: BTreeSet<u64> = of(1).collect();
    let repeated = again.iter().filter(|step| once.contains(step)).count() as u64;
    let reached = once.last().copied().unwrap_or(0);
    assert_eq!(repeated, reached - resumed.unwrap_or(0).min(reached));
    stage.verify();
    resumed
}

/// The checkpoint that the second attempt went on from, as the controller
/// lists it and as the attempt itself saw it.
#[track_caller]
pub(super) fn came_from_the_store(stage: &Stage, run: &str, training: &Training, step: u64) -> String {
    let detail = stage.status(run);
    assert_eq!(detail["attempts"][1]["resumed_step"], step, "{detail:#}");
    let listed = stage.ok(&["checkpoints", run, "--json"]).json();
    let of_first = |c: &&serde_json::Value| c["step"] == step && c["generation"] == 1;
    assert!(listed.as_array().unwrap().iter().any(|c| of_first(&c)), "step {step} is not listed: {listed:#}");
    training.starts().last().unwrap()["resume_sha256"].as_str().unwrap().to_owned()
}

/// The same training without any product: its checkpoint after a step as the
/// program's own sum, and its final weights.
pub(super) fn undisturbed(stage: &Stage, steps: u32, every: u32, step: u64) -> (String, Vec<u8>) {
    let root = stage.hf_style();
    let here = stage.path("undisturbed");
    std::fs::create_dir_all(&here).unwrap();
    let python = |args: &[&str]| {
        let mut python = Command::new("python3");
        python.args(args).current_dir(&here).env("PYTHONPATH", &root).env("TOY_STEPS", steps.to_string());
        let made =
            python.env("TOY_STEP_MS", "0.001").env("TOY_SAVE_EVERY", every.to_string()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap()
    };
    python(&[root.join("train.py").to_str().unwrap()]);
    let sum = format!("import train; print(train.tree_sha256('runs/a/checkpoint-{step}'))");
    let sum = python(&["-c", &sum]).trim().to_owned();
    (sum, std::fs::read(here.join("results/weights.json")).unwrap())
}

pub(super) fn results(stage: &Stage, run: &str, file: &str) -> Vec<u8> {
    let place = stage.path("pulled");
    stage.ok(&["pull", run, place.to_str().unwrap()]);
    let found = [place.join(file), place.join("results").join(file)];
    std::fs::read(found.iter().find(|path| path.exists()).expect("the result is there")).unwrap()
}

#[test]
fn a_machine_lost_while_its_environment_is_made_is_replaced() {
    let stage = Stage::new();
    let marks = stage.path("setups");
    let line = format!(
        "echo begun >> {0}; grep -c begun {0} | grep -qx 1 && sleep 3600; echo done >> {0}",
        marks.display()
    );
    let training = Training::hf_style(&stage, 10, 40, 5)
        .set("environment.kind=venv")
        .set(format!("environment.setup=[{line:?}]"));
    let run = training.submit(&stage);
    // The line itself: the file alone is there before it.
    wait("the set-up", || (lines(&marks) == ["begun"]).then_some(()));
    let loss = lose(&stage, &run);
    assert_eq!(check(&stage, &run, &training, &loss, 10), None);
    // Begun twice, and only the second came to its end.
    assert_eq!(lines(&marks), ["begun", "begun", "done"]);
    assert_eq!(training.starts().len(), 1);
    let (_, weights) = undisturbed(&stage, 10, 5, 10);
    assert_eq!(results(&stage, &run, "weights.json"), weights);
}

#[test]
fn a_machine_lost_before_the_first_checkpoint_costs_the_steps_since_the_start() {
    let stage = Stage::new();
    let training = Training::hf_style(&stage, 25, 80, 20).gated(15);
    let run = training.submit(&stage);
    training.when_done(6);
    let loss = lose(&stage, &run);
    training.may_end();
    assert_eq!(loss.durable, None);
    assert_eq!(check(&stage, &run, &training, &loss, 25), None);
    assert_eq!(training.starts().len(), 2);
    let (_, weights) = undisturbed(&stage, 25, 20, 20);
    assert_eq!(results(&stage, &run, "weights.json"), weights);
}

#[test]
fn a_machine_lost_after_a_checkpoint_costs_one_interval_at_most() {
    let stage = Stage::new();
    // Nearly a whole interval is done while that checkpoint is on its way.
    let training = Training::hf_style(&stage, 50, 80, 10).gated(19);
    let run = training.submit(&stage);
    assert_eq!(stage.when_durable(&run, 10), 10);
    let loss = lose(&stage, &run);
    let reached = training.steps().iter().filter(|(g, _)| *g == 1).map(|(_, s)| *s).max().unwrap();
    training.may_end();
    let resumed = check(&stage, &run, &training, &loss, 50).expect("a checkpoint");
    assert!(reached - resumed < 10, "{reached} reached, {resumed} resumed");
    let (sum, weights) = undisturbed(&stage, 50, 10, resumed);
    assert_eq!(came_from_the_store(&stage, &run, &training, resumed), sum);
    assert_eq!(results(&stage, &run, "weights.json"), weights);
}

/// `how` a checkpoint is written; the machine is lost in the middle of the
/// second.
#[track_caller]
fn lost_while_writing(how: &str) {
    let stage = Stage::new();
    let training = Training::new(
        &stage,
        &[
            ("HOW", how),
            ("HALF", "20"),
            ("STEPS", "30"),
            ("STEP_MS", "60"),
            ("EVERY", "10"),
            ("SLOW", "0.4"),
            ("SIZE", "800000"),
        ],
    );
    let run = training.submit(&stage);
    stage.when_durable(&run, 10);
    // A torn file lies there from now on, and at rest.
    let torn = |path: &Path| {
        let found = std::fs::read_dir(path).into_iter().flatten().flatten();
        found
            .filter(|e| e.file_name().to_string_lossy().starts_with("step-000020"))
            .find_map(|e| e.metadata().ok().filter(|meta| meta.len() >= 400_000)?.modified().ok())
    };
    let machine = machine_of(&stage.status(&run));
    wait("half of the second checkpoint, at rest for longer than it must be", || {
        let attempts = stage.home.join("machines").join(&machine).join("attempts");
        let attempts = std::fs::read_dir(attempts).into_iter().flatten().flatten();
        let written = attempts.map(|a| a.path().join("checkpoints")).find_map(|path| torn(&path))?;
        // `quiet` is a second; a disk's clock ticks more coarsely than another.
        (written.elapsed().unwrap_or_default() > Duration::from_millis(1_500)).then_some(())
    });
    let loss = lose(&stage, &run);
    let first: Vec<_> = training.saves().into_iter().filter(|s| s["generation"] == "1").collect();
    assert!(!first.iter().any(|s| s["step"] == 20 && s["state"] == "done"), "it was whole: {first:?}");
    assert_eq!(check(&stage, &run, &training, &loss, 30), Some(10));
    assert_eq!(came_from_the_store(&stage, &run, &training, 10), training.saved(10));
    assert_eq!(results(&stage, &run, "end.txt"), b"30\n");
}

#[test]
fn a_machine_lost_while_a_checkpoint_is_written_in_place_goes_on_from_the_one_before() {
    lost_while_writing("place");
}

#[test]
fn a_machine_lost_while_a_checkpoint_has_a_temporary_name_goes_on_from_the_one_before() {
    lost_while_writing("temporary");
}

#[test]
fn a_machine_lost_while_a_large_checkpoint_is_published_goes_on_from_a_whole_one() {
    let stage = Stage::new();
    let training =
        Training::new(&stage, &[("STEPS", "32"), ("STEP_MS", "120"), ("EVERY", "10"), ("SIZE", "24000000")])
            .gated(25);
    let run = training.submit(&stage);
    let durable = stage.when_durable(&run, 10);
    let on_its_way = |event: &serde_json::Value| {
        let detail: serde_json::Value =
            serde_json::from_str(event["detail_json"].as_str().unwrap_or_default()).unwrap_or_default();
        event["verb"] == "produced" && detail["step"].as_u64() > Some(10)
    };
    wait("a later checkpoint on its way", || stage.events(&run).iter().any(on_its_way).then_some(()));
    // Its program sums it up before it says that it is done: it may be durable by then.
    let is_later = |save: &serde_json::Value| save["state"] == "done" && save["step"].as_u64() > Some(10);
    wait("its program's word on it", || training.saves().iter().any(is_later).then_some(()));
    let loss = lose(&stage, &run);
    training.may_end();
    let resumed = check(&stage, &run, &training, &loss, 32).expect("a checkpoint");
    assert!(resumed >= durable);
    assert_eq!(came_from_the_store(&stage, &run, &training, resumed), training.saved(resumed));
    assert_eq!(results(&stage, &run, "end.txt"), b"32\n");
}

#[test]
fn a_machine_lost_after_the_last_checkpoint_repeats_no_step() {
    let stage = Stage::new();
    let training = Training::new(&stage, &[("STEPS", "20"), ("STEP_MS", "40"), ("EVERY", "5")]).gated(20);
    let run = training.submit(&stage);
    stage.when_durable(&run, 20);
    wait("the end of its steps", || (training.noted("finished") == ["1"]).then_some(()));
    let loss = lose(&stage, &run);
    training.may_end();
    assert_eq!(check(&stage, &run, &training, &loss, 20), Some(20));
    assert_eq!(came_from_the_store(&stage, &run, &training, 20), training.saved(20));
    assert_eq!(results(&stage, &run, "end.txt"), b"20\n");
}
