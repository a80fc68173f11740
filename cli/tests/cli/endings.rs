//! How runs ended, whatever their metrics were, and what is told of them while they
//! are looked at.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::views::{json, said};
use super::{code, outlast, text};

fn falling(steps: u32) -> String {
    (0..steps).map(|step| format!("step={step} loss={:.4}\n", 3.0 - 0.01 * f64::from(step))).collect()
}

const CRASH: &str = "Traceback (most recent call last):\n  File \"train.py\", line 3, in <module>\n    step()\n\
                     RuntimeError: CUDA out of memory. Tried to allocate 20.00 GiB\n";

/// A run of MLflow's file store with this state.
fn mlflow(dir: &Path, name: &str, status: u32) {
    let run = dir.join(format!("mlruns/0/{name}"));
    fs::create_dir_all(run.join("metrics")).unwrap();
    fs::write(run.join("meta.yaml"), format!("run_id: {name}\nrun_name: {name}\nstatus: {status}\n"))
        .unwrap();
    let rows: String = (0..60_u32)
        .map(|step| format!("{} {} {step}\n", 1_700_000_000_000 + u64::from(step), 2.0 / f64::from(step + 1)))
        .collect();
    fs::write(run.join("metrics/loss"), rows).unwrap();
}

#[test]
fn a_run_that_failed_is_called_failed_whatever_its_metrics_were() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("crash.log"), format!("{}{CRASH}", falling(100))).unwrap();
    let told = said(dir.path(), &["analyze", "crash.log"]);
    assert!(told.starts_with("crash.log: failed, health 100 of 100\n  The run failed: "), "{told}");
    assert!(
        told.contains("\"RuntimeError: CUDA out of memory.") && told.contains("(out of GPU memory); try "),
        "{told}"
    );
    assert!(!told.contains("Nothing is wrong") && !told.contains("Ahead"), "{told}");
    let run = &json(dir.path(), &["analyze", "crash.log"])[0];
    assert_eq!((&run["ending"]["outcome"], &run["report"]["forecast"]), (&"failed".into(), &Value::Null));
    let found = said(dir.path(), &["runs", ".", "label:failed"]);
    assert!(found.starts_with("1 of 1 run"), "{found}");
    // An error that the training went on after is none.
    fs::write(dir.path().join("crash.log"), format!("{CRASH}{}", falling(100))).unwrap();
    assert!(said(dir.path(), &["analyze", "crash.log"]).starts_with("crash.log: healthy"));
    for (name, status) in [("broken", 4), ("done", 3), ("killed", 5)] {
        mlflow(dir.path(), name, status);
    }
    let told = said(dir.path(), &["analyze", "mlruns", "--tokens", "2000"]);
    assert!(
        told.starts_with("3 runs, the worst first; 1 with something wrong\n  1 failed, 2 healthy\nmlruns/0/broken: failed, "),
        "{told}"
    );
    assert!(told.contains("The run failed: its tracker says \"FAILED\"."), "{told}");
    assert!(told.contains("mlruns/0/killed: healthy") && told.contains("The run was stopped: "), "{told}");
    assert!(!told.contains("Ahead"), "nothing is ahead of what has ended: {told}");
}

#[test]
fn only_what_is_wrong_is_told_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("crash.log"), format!("{}{CRASH}", falling(100))).unwrap();
    fs::write(dir.path().join("fine.log"), falling(100)).unwrap();
    assert_eq!(said(dir.path(), &["-q", "analyze", "fine.log"]), "");
    let told = said(dir.path(), &["-q", "analyze", "."]);
    assert!(told.contains("crash.log: failed") && !told.contains("fine.log"), "{told}");
}

#[test]
fn a_watch_of_files_tells_that_they_crashed_ended_or_stand_still() {
    let dir = tempfile::tempdir().unwrap();
    let once = |args: &[&str]| outlast(dir.path(), &[&["watch", "--once"], args].concat());
    fs::write(dir.path().join("crash.log"), format!("{}{CRASH}", falling(100))).unwrap();
    let output = once(&["crash.log", "--json"]);
    let alert: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), &alert["kind"]), (93, &"crashed".into()), "{alert}");
    assert!(alert["text"].as_str().unwrap().contains("CUDA out of memory"), "{alert}");
    mlflow(dir.path(), "done", 3);
    mlflow(dir.path(), "broken", 4);
    let output = once(&["mlruns/0/done"]);
    assert!(code(&output) == 0 && text(&output.stdout).contains("The run has ended."), "{output:?}");
    assert_eq!(code(&once(&["mlruns"])), 93);
    fs::write(dir.path().join("live.log"), falling(100)).unwrap();
    let file = fs::File::options().append(true).open(dir.path().join("live.log")).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(900)).unwrap();
    assert_eq!(code(&once(&["live.log", "--stalled", "1h"])), 0);
    let output = once(&["live.log", "--stalled", "10m"]);
    assert_eq!(code(&output), 93, "{output:?}");
    assert!(text(&output.stdout).contains("no value came for 9"), "{output:?}");
    // Without --once it ends where nothing more can come.
    assert_eq!(code(&outlast(dir.path(), &["watch", "crash.log"])), 93);
}

/// What it shows on a terminal.
fn on_a_terminal(dir: &Path, args: &[&str]) -> String {
    let pair = nix::pty::openpty(None, None).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(args).current_dir(dir).env_clear().env("HOME", dir).env("OUTLAST_HOME", dir.join("home"));
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::from(pair.slave));
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut shown = Vec::new();
    // The terminal's end is an error where its other side is closed.
    let _ = fs::File::from(pair.master).read_to_end(&mut shown);
    child.wait().unwrap();
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn a_person_at_a_terminal_sees_values_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.log"), format!("{}{CRASH}", falling(100))).unwrap();
    let watch = ["watch", "a.log", "--interval", "100ms"];
    let shown = on_a_terminal(dir.path(), &watch);
    assert!(shown.contains("step 99 loss 2.01, the best so far, 100 new"), "{shown}");
    assert!(shown.contains("\u{1b}[") && shown.contains("The run failed: "), "{shown}");
    let quiet = on_a_terminal(dir.path(), &[&["-q"], &watch[..]].concat());
    assert!(!quiet.contains("step 99") && quiet.contains("The run failed: "), "{quiet}");
    // Elsewhere there are neither values nor colours.
    let piped = text(&outlast(dir.path(), &watch).stdout);
    assert!(!piped.contains("step 99") && !piped.contains('\u{1b}'), "{piped}");
}

#[test]
fn stages_units_and_metrics_that_are_asked_for_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.log"), falling(100).replace(" loss", " lr=0.1 tput=12.5 loss")).unwrap();
    let metrics = "[metrics]\nprimary = \"loss\"\nstages = [{ name = \"warm-up\", from = 0 }, { name = \"main\", from = 20 }]\n\
                   [metrics.keys.loss]\nunit = \"nats\"\n";
    fs::write(dir.path().join("outlast.toml"), metrics).unwrap();
    let told = said(dir.path(), &["analyze", "a.log", "--tokens", "900"]);
    assert!(told.contains("  stage warm-up: steps 0 to 19, from 3 to 2.8"), "{told}");
    assert!(told.contains("  stage main: steps 20 to 99, ") && told.contains(" % of the gain"), "{told}");
    assert!(told.contains("  loss: last 2.01 nats"), "{told}");
    let told = said(dir.path(), &["analyze", "a.log", "-m", "tput", "--tokens", "120"]);
    assert!(told.contains("  tput: last 12.5"), "{told}");
    let output = outlast(dir.path(), &["analyze", "a.log", "-m", "nothing"]);
    assert!(
        code(&output) == 65 && text(&output.stderr).contains("no metric \"nothing\"; there are "),
        "{output:?}"
    );
}

#[test]
fn of_several_runs_the_worst_come_first_and_no_sentence_stands_alone() {
    let dir = tempfile::tempdir().unwrap();
    for index in 0..30 {
        fs::write(dir.path().join(format!("fine{index}.log")), falling(100)).unwrap();
    }
    fs::write(dir.path().join("zcrash.log"), format!("{}{CRASH}", falling(100))).unwrap();
    for tokens in ["60", "120", "300"] {
        let told = said(dir.path(), &["analyze", ".", "--tokens", tokens]);
        let sentences =
            told.lines().filter(|line| line.starts_with("  ") && !line.starts_with("  1 failed,"));
        let heads = told.lines().filter(|line| line.contains(", health ")).count();
        assert!(told.starts_with("31 runs, the worst first; 1 with something wrong\n"), "{told}");
        assert!(heads > 0 || sentences.count() == 0, "{told}");
        assert!(told.contains(&format!("cut: {} more runs, ", 31 - heads)), "{told}");
    }
    let told = said(dir.path(), &["analyze", "."]);
    assert!(told.lines().nth(2).unwrap().starts_with("./zcrash.log: failed"), "{told}");
    let told = said(dir.path(), &["analyze", ".", "--explain", "--tokens", "100"]);
    assert!(super::views::tokens(&told) <= 100 && told.contains("cut: "), "{told}");
    let report = said(dir.path(), &["report", "."]);
    let lines: Vec<&str> = report.lines().filter(|line| !line.is_empty()).collect();
    let orphan = lines.windows(2).any(|pair| pair[1].starts_with("Health ") && !pair[0].starts_with("## "));
    let hollow = lines.windows(2).any(|pair| pair[0].starts_with("## ") && !pair[1].starts_with("Health "));
    assert!(!orphan && !hollow, "{report}");
}
