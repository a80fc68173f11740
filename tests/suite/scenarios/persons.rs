//! What a person asks of a run or a machine that is at work.

use super::programs::Training;
use super::stage::{Stage, exchange, machine_of, touch, variable, wait};

fn training(stage: &Stage) -> Training {
    // Two saves and what is asked of it then may take long on a slow disk.
    Training::new(stage, &[("STEPS", "60"), ("STEP_MS", "60"), ("EVERY", "10")])
        .set("run.grace=120s")
        .gated(40)
}

#[test]
fn a_machine_that_a_person_destroys_is_replaced_and_its_run_goes_on() {
    let stage = Stage::new();
    let training = training(&stage);
    let run = training.submit(&stage);
    let durable = stage.when_durable(&run, 10);
    let machine = machine_of(&stage.status(&run));
    stage.ok(&["destroy", &machine[..8], "--yes"]);
    // It is ended after that answer: meanwhile its program must not come to its end.
    stage.when(&run, "in its second generation", |detail| detail["run"]["generation"] == 2);
    training.may_end();
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
    training.when_done(3);
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
    let training = training(&stage);
    let run = training.submit(&stage);
    let said = stage.call(&["destroy", &run]).ends_with(64);
    assert!(said.stderr.contains("--yes"), "{}", said.stderr);
    training.may_end();
    stage.ends_as(&run, "SUCCEEDED");
}

#[test]
fn a_run_that_is_stopped_saves_and_a_resumed_one_goes_on_from_there() {
    let stage = Stage::new();
    let training = training(&stage);
    let run = training.submit(&stage);
    training.when_done(13);
    stage.ok(&["stop", &run]);
    let detail = stage.ends_as(&run, "CANCELLED");
    let asked = training.noted("asked");
    let [saved] = asked.as_slice() else { panic!("it was asked once: {asked:?}") };
    let saved: u64 = saved.parse().unwrap();
    assert_eq!(detail["run"]["durable_step"], saved, "what it saved when asked is durable: {detail:#}");
    assert!(!detail["attempts"][0]["ending"].as_str().unwrap().contains("SIGKILL"), "{detail:#}");

    training.may_end();
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

/// Writes to both streams in turn, as two ranks, then a bar without an end,
/// and holds until it may end. Each piece waits until the one before is in the
/// controller's directory, which `KEPT` names, then for longer than times of
/// one stream are noted apart: which of two pipes was written first is known
/// only to who reads one before the other.
const IN_TURN: &str = r#"
import os, sys, time
while not os.path.exists(os.environ["KEPT"]):
    time.sleep(0.02)
kept, written = open(os.environ["KEPT"]).read(), {"stdout": 0, "stderr": 0}
def put(name, text):
    stream = getattr(sys, name)
    stream.write(text)
    stream.flush()
    written[name] += len(text)
    path = os.path.join(kept, name + ".log")
    while not os.path.exists(path) or os.path.getsize(path) < written[name]:
        time.sleep(0.02)
    time.sleep(0.15)
for i in range(4):
    for name, rank in (("stdout", 0), ("stderr", 1)):
        put(name, f"[rank{rank}]: {i} ")
        put(name, "whole\n")
for i in range(8):
    put("stderr", f"\r{i * 10}%")
open(os.environ["WRITTEN"], "w").close()
while not os.path.exists(os.environ["MAY_END"]):
    time.sleep(0.02)
"#;

#[test]
fn output_of_both_streams_is_read_as_it_was_written() {
    let stage = Stage::new();
    let bare = "[run]\ncommand = [\"python3\", \"program.py\"]\n[environment]\nkind = \"none\"\n";
    let root = stage.project("turns", &[("program.py", IN_TURN), ("outlast.toml", bare)]);
    let (written, may_end) = (stage.path("written"), stage.path("may-end"));
    let settings = [variable("WRITTEN", written.display()), variable("MAY_END", may_end.display())];
    let with = |name: &str| {
        let kept = stage.path(&format!("{name}-kept"));
        let more = [variable("KEPT", kept.display()), format!("run.name={name}")];
        let all: Vec<&str> = settings.iter().chain(&more).map(String::as_str).collect();
        let run = stage.submit(&root, &all);
        exchange(&kept, stage.home.join("runs").join(&run).join("1").to_str().unwrap());
        run
    };
    let run = with("many");
    wait("all of it", || written.exists().then_some(()));
    touch(&may_end);
    stage.ends_as(&run, "SUCCEEDED");
    let other = with("manyout");
    stage.ends_as(&other, "SUCCEEDED");

    let lines: Vec<String> =
        (0..4).flat_map(|i| [0, 1].map(|rank| format!("[rank{rank}]: {i} whole"))).collect();
    // By the name of the run alone, though another's begins like it.
    let text = |more: &[&str]| stage.ok(&[&["logs", "many"], more].concat()).text();
    let whole = text(&[]);
    let bar = "\r0%\r10%\r20%\r30%\r40%\r50%\r60%\r70%";
    assert_eq!(whole, format!("{}\n{bar}", lines.join("\n")));
    assert_eq!(text(&["--tail", "3"]), format!("{}\n{bar}", lines[6..].join("\n")));
    assert_eq!(text(&["--tail", "3", "--grep", "whole"]), format!("{}\n", lines[5..].join("\n")));
    assert_eq!(text(&["--tail", "1", "--stdout"]), format!("{}\n", lines[6]));
    assert_eq!(text(&["--tail", "1", "--rank", "0"]), format!("{}\n", lines[6]));
    assert_eq!(text(&["--tail", "2", "--rank", "1", "-f"]), format!("{}\n{}\n", lines[5], lines[7]));

    let said = stage.call(&["logs", "many", "--rank", "99"]).ends_with(66);
    assert!(said.stderr.contains("ranks with lines: 0-1") && said.stdout.is_empty(), "{}", said.stderr);
    let ambiguous = stage.call(&["logs", "man"]).ends_with(66);
    assert!(ambiguous.stderr.contains(&run) && ambiguous.stderr.contains(&other), "{}", ambiguous.stderr);

    // Of a line that never ends, what came since then.
    let marks = super::stage::records(&stage.home.join(format!("runs/{run}/1/stderr.times.jsonl")));
    let at = marks[marks.len() - 2]["at_ms"].as_u64().unwrap();
    let since = text(&["--since", &cli::commands::moment(at), "--stderr"]);
    // A slow machine may have noted the time of two pieces at once.
    assert!(since.len() < bar.len() / 2 + 4 && since.ends_with("70%") && bar.ends_with(&since), "{since:?}");

    let status = stage.ok(&["status", &run]).text();
    assert!(status.contains("SUCCEEDED (0)"), "{status}");
    let health = stage.call(&["health", &run]).ends_with(66);
    assert!(health.stderr.contains("has ended (SUCCEEDED)"), "{}", health.stderr);
}
