//! Programs that fail, and how the end is told.

use std::time::{Duration, Instant};

use super::processes::is_alive;
use super::programs::Training;
use super::stage::{Said, Stage, wait};

/// Attends a run to its end.
fn attend(stage: &Stage, training: &Training) -> Said {
    let root = training.root.to_str().unwrap().to_owned();
    let mut args = vec!["run", root.as_str()];
    args.extend(training.settings().into_iter().flat_map(|setting| ["--set", setting]));
    stage.call(&args)
}

fn failing(stage: &Stage, how: &str) -> Training {
    Training::hf_style(stage, 12, 40, 50)
        .set("run.env.TOY_FAIL_AT_STEP=6")
        .set(format!("run.env.TOY_FAIL_HOW={how}"))
}

/// The only run there is.
fn only(stage: &Stage) -> serde_json::Value {
    let runs = stage.ok(&["status", "--all", "--json"]).json();
    assert_eq!(runs.as_array().unwrap().len(), 1, "{runs:#}");
    stage.ended(runs[0]["id"].as_str().unwrap())
}

/// Attends a program that fails so each time, and sees it given up.
#[track_caller]
fn given_up(how: &str, code: i32, told: &str) {
    let stage = Stage::new();
    let training = failing(&stage, how);
    let said = attend(&stage, &training).ends_with(code);
    assert!(said.stderr.contains(told), "`{told}` is not told:\n{}", said.stderr);
    let detail = only(&stage);
    assert_eq!(detail["run"]["state"], "FAILED", "{detail:#}");
    assert_eq!(detail["run"]["exit_code"], code, "{detail:#}");
    let attempts = detail["attempts"].as_array().unwrap();
    assert!(attempts.len() <= 2, "the same failure again and again: {detail:#}");
    assert_eq!(training.starts().len(), attempts.len());
    assert_eq!(detail["machines"].as_array().unwrap().len(), 1, "the machine is not at fault: {detail:#}");
    for attempt in attempts {
        assert_eq!((&attempt["exit_code"], &attempt["last_step"]), (&code.into(), &6.into()), "{detail:#}");
        assert!(attempt["ending"].as_str().unwrap().contains(told), "{detail:#}");
    }
    stage.verify();
}

#[test]
fn a_program_that_fails_the_same_way_twice_is_given_up_with_its_own_code() {
    given_up("exit1", 1, "exit code 1");
}

#[test]
fn a_program_that_exits_with_137_was_not_killed() {
    given_up("exit137", 137, "exit code 137");
}

#[test]
fn a_program_that_crashes_ends_with_139_and_its_signal_is_told() {
    given_up("segv", 139, "SIGSEGV");
}

#[test]
fn a_program_that_ignores_sigterm_is_killed_after_the_grace() {
    let stage = Stage::new();
    let training = Training::hf_style(&stage, 1_000_000, 40, 5_000_000)
        .set("run.env.TOY_FAIL_AT_STEP=2")
        .set("run.env.TOY_FAIL_HOW=ignore-term");
    let root = training.root.to_str().unwrap().to_owned();
    let mut args = vec!["run", root.as_str()];
    args.extend(training.settings().into_iter().flat_map(|setting| ["--set", setting]));
    let attached = stage.begin(&args);
    training.when_done(4);
    let runs = stage.ok(&["status", "--json"]).json();
    let run = runs[0]["name"].as_str().unwrap();
    let program = i32::try_from(training.starts()[0]["pid"].as_i64().unwrap()).unwrap();
    let asked = Instant::now();
    stage.ok(&["stop", run, "--grace", "3s"]);
    wait("its end", || (!is_alive(program)).then_some(()));
    // However late that was seen, it came no earlier.
    assert!(asked.elapsed() >= Duration::from_secs(3), "killed after {:?}", asked.elapsed());
    let said = attached.end().ends_with(92);
    assert!(said.stderr.contains("SIGKILL"), "{}", said.stderr);
    let detail = stage.ends_as(run, "CANCELLED");
    assert!(detail["attempts"][0]["ending"].as_str().unwrap().contains("SIGKILL"), "{detail:#}");
    assert_eq!(training.starts().len(), 1);
    stage.verify();
}

#[test]
fn a_failure_that_passes_is_tried_again_on_the_same_machine() {
    let stage = Stage::new();
    let once = stage.path("once");
    let training = failing(&stage, "exit1").set(format!("run.env.TOY_FAIL_ONCE={}", once.display()));
    attend(&stage, &training).ends_with(0);
    let detail = only(&stage);
    assert_eq!(detail["run"]["state"], "SUCCEEDED", "{detail:#}");
    let attempts = detail["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{detail:#}");
    assert_eq!(attempts[0]["machine_id"], attempts[1]["machine_id"], "{detail:#}");
    assert_eq!(detail["machines"].as_array().unwrap().len(), 1, "{detail:#}");
    let last = attempts[0]["last_error_line"].as_str().unwrap();
    assert!(last.contains("rehearsed failure at step 6"), "{detail:#}");
    stage.verify();
}

/// Attends a program of one line that may fail once only, and sees how it ended.
#[track_caller]
fn ends_as(python: &str, code: i32, told: &str) {
    let stage = Stage::new();
    let root = stage.path("line");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("t.py"), format!("import os, shutil, signal\n{python}\n")).unwrap();
    let args = ["run", root.to_str().unwrap(), "--set", "retry.failures=0", "--", "python3", "t.py"];
    let said = stage.call(&args).ends_with(code);
    assert!(said.stderr.contains(told), "`{told}` is not told:\n{}", said.stderr);
    let detail = only(&stage);
    assert_eq!((&detail["run"]["state"], &detail["run"]["exit_code"]), (&"FAILED".into(), &code.into()));
    assert!(detail["attempts"][0]["ending"].as_str().unwrap().contains(told), "{detail:#}");
    stage.verify();
}

#[test]
fn a_program_that_stops_its_keeper_still_ends_with_its_own_code() {
    ends_as("os.kill(os.getppid(), signal.SIGSTOP)\nos._exit(4)", 4, "exit code 4");
}

#[test]
fn a_program_that_removes_its_own_directory_ends() {
    ends_as(
        "shutil.rmtree(os.path.dirname(os.environ['OUTLAST_CHECKPOINT_DIR']))\nos._exit(2)",
        125,
        "directory of its attempt was removed",
    );
}
