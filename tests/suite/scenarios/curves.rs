//! What a run's metrics say while it goes on and when it is over, and runs that
//! their own rules end.

use serde_json::Value;

use super::programs::Training;
use super::stage::{Stage, machine_of, wait};

/// One run as `outlast analyze` knows it.
fn analysed(stage: &Stage, run: &str) -> Value {
    stage.ok(&["analyze", run, "--json"]).json()[0].clone()
}

/// Steps, and how often the run went on.
fn course(said: &Value) -> (Option<u64>, Option<u64>, Option<u64>) {
    (said["first_step"].as_u64(), said["last_step"].as_u64(), said["resumed"].as_u64())
}

#[test]
fn a_run_is_analysed_by_its_name_while_it_goes_on_and_when_it_is_over() {
    let stage = Stage::new();
    let training = Training::new(&stage, &[("STEPS", "60"), ("STEP_MS", "10")]).gated(30);
    let run = training.submit(&stage);
    stage.when_durable(&run, 20);
    let half = wait("points up to the gate", || {
        let said = analysed(&stage, &run);
        (said["last_step"].as_u64() >= Some(29)).then_some(said)
    });
    assert_eq!((&half["facts"]["status"], &half["resumed"]), (&"running".into(), &0.into()), "{half:#}");
    let held = held(&stage, &run);

    stage.kill_machine(&machine_of(&stage.status(&run)));
    stage.when(&run, "on another machine", |detail| detail["run"]["generation"] == 2);
    training.may_end();
    stage.ends_as(&run, "SUCCEEDED");
    let whole = analysed(&stage, &run);
    assert_eq!(course(&whole), (half["first_step"].as_u64(), Some(60), Some(1)), "{whole:#}");
    assert_eq!(whole["facts"]["status"], "succeeded");
    // What was there was not fetched again, and stands before what came.
    let now = super::stage::lines(&cache(&stage, &run).join("00001-points.jsonl"));
    assert_eq!(now[..held.len()], held, "the first attempt's points are those that were fetched first");
    let text = stage.ok(&["analyze", &run]).text();
    assert!(text.contains(&run) && text.contains("loss"), "{text}");

    // What is written of a run outlives the copy of its points.
    stage.ok(&["note", &run, "worth keeping"]);
    stage.ok(&["tag", &run, "base"]);
    stage.ok(&["link", &run, "--pr", "https://example.org/pull/3"]);
    std::fs::remove_dir_all(stage.home.join("cache")).unwrap();
    let noted = stage.ok(&["note", &run, "--json"]).json();
    assert_eq!(
        (&noted["entries"][0]["run"], &noted["entries"][2]["text"]),
        (&run.as_str().into(), &"worth keeping".into())
    );
    let listed = stage.ok(&["report", &run, "--json"]).json();
    assert_eq!(listed["runs"][0]["tags"], serde_json::json!(["base"]), "{listed:#}");
    assert_eq!(listed["runs"][0]["pull_request"], "https://example.org/pull/3");
    stage.call(&["note", "no-such-run", "x"]).ends_with(66);

    // A new controller says the same.
    stage.kill_controller();
    assert_eq!(analysed(&stage, &run)["report"], whole["report"]);
    let said = stage.call(&["analyze", "no-such-run"]).ends_with(66);
    assert!(said.stderr.contains("no-such-run"), "{}", said.stderr);
    stage.verify();
}

fn cache(stage: &Stage, run: &str) -> std::path::PathBuf {
    stage.home.join("cache/curves").join(run)
}

fn held(stage: &Stage, run: &str) -> Vec<String> {
    let lines = super::stage::lines(&cache(stage, run).join("00001-points.jsonl"));
    assert!(!lines.is_empty());
    lines
}

/// Trains well until `LOST`, if that is given, and never again; saves when it is
/// asked to end.
const STEADY: &str = r#"
import math, os, signal, sys, time
lost, steps = int(os.environ.get("LOST", "0")), int(os.environ.get("STEPS", "0"))
step = 0
def end(*_):
    with open(os.path.join(os.environ["OUTLAST_CHECKPOINT_DIR"], "last.tmp"), "w") as file:
        file.write(f"step={step}")
    os.rename(file.name, os.path.join(os.environ["OUTLAST_CHECKPOINT_DIR"], f"step-{step:06}.txt"))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
while not steps or step < steps:
    step += 1
    loss = float("nan") if lost and step >= lost else 0.1 + 2 * math.exp(-step / 40)
    print(f"step {step} loss {loss:.6f} accuracy {min(0.9, step / 100):.3f}", flush=True)
    time.sleep(0.01)
"#;

fn steady(stage: &Stage, name: &str, rules: &str) -> std::path::PathBuf {
    let toml = format!(
        "[project]\nname = \"steady\"\n[run]\ncommand = [\"python3\", \"train.py\", \"--max-steps\", \"100000\"]\n\
         [environment]\nkind = \"none\"\n[early_stop]\nrules = {rules}\n[local]\nusd_per_hour = 3.6\n"
    );
    stage.project(name, &[("outlast.toml", &toml), ("train.py", STEADY)])
}

#[test]
fn a_run_whose_loss_is_lost_is_saved_and_ended_by_its_rule_and_its_like_goes_on() {
    let stage = Stage::new();
    let root = steady(&stage, "lost", r#"["loss < 0.01 after 10", "acuracy < 0.1 after 9", "nan"]"#);
    let lost = stage.submit(&root, &["run.env.LOST=60"]);
    let well = stage.submit(&root, &["run.env.STEPS=150"]);
    let detail = stage.ends_as(&lost, "CANCELLED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    let reason = detail["run"]["reason"].as_str().unwrap();
    assert!(reason.contains("non finite since step 60") && reason.contains("rule `nan`"), "{reason}");
    assert!(reason.contains("are not spent"), "{reason}");
    assert!(detail["run"]["durable_step"].as_u64() >= Some(60), "what it had is kept: {detail:#}");
    let events = stage.events(&lost);
    let stop = events.iter().find(|event| event["verb"] == "early-stop").expect("it is journalled");
    let stop: Value = serde_json::from_str(stop["detail_json"].as_str().unwrap()).unwrap();
    let (spared, usd) = (stop["spared_seconds"].as_f64().unwrap(), stop["spared_usd"].as_f64().unwrap());
    assert!(spared > 60.0 && (usd - spared / 1_000.0).abs() < 1e-6, "{stop:#}");
    let why = stage.ok(&["why", &lost, "--json"]).json();
    assert_eq!(why["verdict"]["cause"], "early-stop", "{why:#}");
    stage.ends_as(&well, "SUCCEEDED");
    let noted = |note: &Value| note.as_str().is_some_and(|note| note.contains("did you mean `accuracy`?"));
    // It is said when the run is over.
    let told = || stage.status(&well)["notes"].as_array().unwrap().iter().any(noted).then_some(());
    wait("what a rule waited for in vain", told);
    stage.verify();
}

#[test]
fn rules_outlive_the_controller_and_read_what_came_before_it() {
    let stage = Stage::new();
    let run = stage.submit(&steady(&stage, "late", r#"["accuracy >= 0.9 after 150"]"#), &[]);
    stage.when(&run, "trained", |detail| detail["run"]["step"].as_u64() >= Some(20));
    stage.kill_controller();
    let detail = stage.ends_as(&run, "CANCELLED");
    assert!(detail["run"]["reason"].as_str().unwrap().contains("accuracy is 0.9 at step"), "{detail:#}");
    stage.verify();
}

#[test]
fn a_run_behind_the_median_of_its_like_is_ended() {
    let stage = Stage::new();
    let root = steady(&stage, "group", r#"["accuracy worse than median after 40"]"#);
    // Three that are better than the fourth can become.
    for _ in 0..3 {
        let other = stage.submit(&root, &["run.env.STEPS=300"]);
        stage.ends_as(&other, "SUCCEEDED");
    }
    // It stands still after enough steps: it cannot end before its rule was looked at.
    let poor = STEADY.replace("min(0.9, step / 100)", "0.01");
    let poor = poor.replace("sleep(0.01)", "sleep(0.01 if step < 100 else 3600)");
    std::fs::write(root.join("train.py"), poor).unwrap();
    let run = stage.submit(&root, &["run.env.STEPS=299"]);
    let detail = stage.ends_as(&run, "CANCELLED");
    assert!(detail["run"]["reason"].as_str().unwrap().contains("3 other runs"), "{detail:#}");
}

#[test]
fn the_runs_of_the_controller_are_listed_searched_and_compared_without_a_path() {
    let stage = Stage::new();
    let root = steady(&stage, "listed", "[]");
    let first = stage.submit(&root, &["run.env.STEPS=60", "run.env.SEED=1"]);
    stage.ends_as(&first, "SUCCEEDED");
    let second = stage.submit(&root, &["run.env.STEPS=90", "run.env.SEED=2"]);
    stage.ends_as(&second, "SUCCEEDED");
    let (one, other) = (std::slice::from_ref(&first), std::slice::from_ref(&second));
    let listed = |args: &[&str]| {
        let found = stage.ok(&[&["runs"], args, &["--json"]].concat()).json();
        let runs = found["runs"].as_array().unwrap().iter();
        runs.map(|run| run["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]), [second.clone(), first.clone()], "the newest comes first");
    assert_eq!(listed(&["steady-*"]).len(), 2);
    assert_eq!(listed(&["steps < 80"]), one);
    assert_eq!(listed(&["--all", "finished"]).len(), 2);
    assert_eq!(listed(&["highest", "accuracy"]), other);
    assert_eq!(listed(&["--sort", "steps"]), [first.clone(), second.clone()]);
    assert!(stage.call(&["runs", "other-*"]).ends_with(66).stderr.contains("name like"));

    // What people say of it is found, and its name without the random suffix is its arm.
    stage.ok(&["tag", &first, "kept", "--group", "pair"]);
    assert_eq!(listed(&["tag:kept"]), one);
    assert_eq!(listed(&["group:pair"]), one);
    let arms = stage.ok(&["group", &first, &second, "--json"]).json();
    assert_eq!((arms["arms"].as_array().unwrap().len(), &arms["arms"][0]["name"]), (1, &"steady".into()));

    // What changed among all of them is asked without a path, too.
    assert_eq!(stage.ok(&["changes", "--json"]).json()["first"], true);
    let changes = stage.ok(&["changes", "--json"]).json();
    assert_eq!((&changes["first"], &changes["changed"]), (&false.into(), &Value::Array(Vec::new())));

    // Of both the source is known to be the same, and the seed not to be.
    let same = stage.ok(&["reproduce", &first, &second, "--json"]).json();
    let check = |name: &str| {
        let checks = same["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).map(|check| check["same"].clone())
    };
    assert_eq!((check("source"), check("program")), (Some(true.into()), Some(true.into())), "{same:#}");
    assert_eq!((check("seed"), check("commit")), (Some(false.into()), None), "{same:#}");
}

#[test]
fn rules_that_are_none_are_told_all_at_once_and_nothing_begins() {
    let stage = Stage::new();
    let root = steady(&stage, "wrong", r#"["loss boring", "loss < many", "nan"]"#);
    let said = stage.call(&["run", root.to_str().unwrap(), "-d"]).ends_with(78);
    assert!(
        said.stderr.contains("loss boring") && said.stderr.contains("`many` is no number"),
        "{}",
        said.stderr
    );
    assert_eq!(stage.controllers(), [0; 0]);
}

#[test]
fn who_watches_a_run_is_told_of_its_end_and_of_what_went_wrong() {
    let stage = Stage::new();
    let root = steady(&stage, "watched", "[]");
    let run = stage.submit(&root, &["run.env.LOST=60", "run.env.STEPS=300"]);
    let told = stage.path("told");
    let exec = format!("cat >> {}; echo >> {0}", told.display());
    let said =
        stage.call(&["watch", &run, "--rule", "nan", "--interval", "200ms", "--exec", &exec, "--json"]);
    let said = said.ends_with(93);
    let alerts: Vec<Value> = said.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = alerts.iter().filter_map(|alert| alert["kind"].as_str()).collect();
    assert_eq!(kinds, ["rule", "ended"], "{alerts:#?}");
    assert!(alerts[0]["text"].as_str().unwrap().contains("non finite since step 60"), "{alerts:#?}");
    assert_eq!(super::stage::records(&told), alerts, "the command got what was printed");
}

#[test]
fn a_run_is_shown_to_tensorboard_and_to_wandb_as_it_was() {
    let stage = Stage::new();
    let training = Training::new(&stage, &[("STEPS", "60"), ("STEP_MS", "10")]).gated(30);
    let run = training.submit(&stage);
    stage.when_durable(&run, 20);
    stage.kill_machine(&machine_of(&stage.status(&run)));
    training.may_end();
    stage.ends_as(&run, "SUCCEEDED");
    let own = analysed(&stage, &run);
    for tool in ["tensorboard", "wandb"] {
        let place = stage.path(tool);
        let file =
            stage.ok(&["forward", &run, &format!("--{tool}"), place.to_str().unwrap(), "--follow"]).text();
        let read = stage.ok(&["analyze", file.trim(), "--json"]).json()[0].clone();
        assert_eq!(
            (&read["format"], &read["read"]["corrupt"]["count"]),
            (&tool.into(), &0.into()),
            "{read:#}"
        );
        assert_eq!(read["last_step"], own["last_step"], "{read:#}");
        let primary = |said: &Value| said["report"]["metrics"].as_array().unwrap().len();
        assert_eq!(primary(&read), primary(&own), "{read:#}");
    }
}
