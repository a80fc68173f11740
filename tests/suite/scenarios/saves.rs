//! How programs really save: the last file at the very end, one file over and
//! over, a best one that must stay.

use super::stage::{Stage, exchange, variable};

const CONFIG: &str = "[run]\ncommand = [\"python3\", \"train.py\"]\n[environment]\nkind = \"none\"\n";

const HEAD: &str = r#"
import json, os, signal, sys, time
where = os.environ["OUTLAST_CHECKPOINT_DIR"]
def save(name, text):
    temporary = os.path.join(where, "." + name + ".tmp")
    with open(temporary, "w") as f:
        f.write(text); f.flush(); os.fsync(f.fileno())
    time.sleep(0.02)
    os.rename(temporary, os.path.join(where, name))
def step(n):
    print(json.dumps({"step": n, "loss": 1 / (n + 1)}), flush=True)
"#;

fn names(stage: &Stage, run: &str) -> Vec<String> {
    let listed = stage.ok(&["checkpoints", run, "--json"]).json();
    let all = listed.as_array().expect("a list");
    all.iter().map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// How many of them are durable.
fn durable(stage: &Stage, run: &str) -> usize {
    let listed = stage.ok(&["checkpoints", run, "--json"]).json();
    listed.as_array().expect("a list").iter().filter(|c| c["state"] == "COMMITTED").count()
}

#[test]
fn what_a_program_saves_just_before_it_ends_is_kept_whatever_its_name() {
    let stage = Stage::new();
    let program = format!("{HEAD}\nstep(1)\nsave('step-1.bin', 'one')\nsave('final.bin', 'the weights')\n");
    let root = stage.project("ends", &[("outlast.toml", CONFIG), ("train.py", &program)]);
    let run = stage.submit(&root, &[]);
    stage.ends_as(&run, "SUCCEEDED");
    let mut kept = names(&stage, &run);
    kept.sort();
    assert_eq!(kept, ["final.bin", "step-1.bin"]);
}

#[test]
fn what_is_saved_again_or_under_a_lower_step_right_before_the_end_is_kept_once() {
    let stage = Stage::new();
    let body = r#"
step(5)
save("step-5.bin", "first")
while int(open(os.environ["DURABLE"]).read()) < 5:
    time.sleep(0.02)
save("step-5.bin", "again, and longer")
save("phase2-step-1.bin", "of the second phase")
"#;
    let root = stage.project("again", &[("outlast.toml", CONFIG), ("train.py", &format!("{HEAD}{body}"))]);
    let durable = stage.path("durable");
    exchange(&durable, "0");
    let run = stage.submit(&root, &[&variable("DURABLE", durable.display())]);
    exchange(&durable, &stage.when_durable(&run, 5).to_string());
    stage.ends_as(&run, "SUCCEEDED");
    let mut kept = names(&stage, &run);
    kept.sort();
    assert_eq!(kept, ["phase2-step-1.bin", "step-5.bin", "step-5.bin"]);
    let told = stage.ok(&["events", &run]).text();
    assert!(told.contains("the steps went back: checkpoint `phase2-step-1.bin`"), "{told}");
}

#[test]
fn a_file_saved_over_and_over_is_resumed_from_as_it_was_saved_last() {
    let stage = Stage::new();
    let body = r#"
resume = os.environ["OUTLAST_RESUME_FROM"]
if resume:
    print("resumed: " + open(resume).read(), flush=True)
    sys.exit(0)
def asked(*_):
    save("last.bin", "saved at the stop")
    sys.exit(143)
signal.signal(signal.SIGTERM, asked)
for n in range(10):
    step(n)
save("last.bin", "saved on the way")
while True:
    time.sleep(0.1)
"#;
    let program = format!("{HEAD}{body}");
    let root = stage.project("over", &[("outlast.toml", CONFIG), ("train.py", &program)]);
    // A save and its way home may take long on a slow disk.
    let run = stage.submit(&root, &["run.grace=120s"]);
    super::stage::wait("the first one durable", || (durable(&stage, &run) > 0).then_some(()));
    stage.ok(&["stop", &run]);
    stage.ends_as(&run, "CANCELLED");
    let next = stage.ok(&["resume", &run, "-d"]).text().trim().to_owned();
    stage.ends_as(&next, "SUCCEEDED");
    let said = stage.ok(&["logs", &next, "--stdout"]).text();
    assert!(said.contains("resumed: saved at the stop"), "{said}");
}

#[test]
fn a_best_file_is_never_pruned_from_the_programs_own_directory() {
    let stage = Stage::new();
    let body = r#"
save("best.bin", "best")
for n in range(1, 9):
    step(n)
    save(f"step-{n}.bin", str(n))
    # Each one becomes durable by itself.
    while int(open(os.environ["DURABLE"]).read()) < n:
        time.sleep(0.02)
# What may go is asked for only now and then.
until = time.monotonic() + 150
while os.path.exists(os.path.join(where, "step-1.bin")) and time.monotonic() < until:
    time.sleep(0.02)
left = sorted(os.listdir(where))
print("left: " + " ".join(left), flush=True)
"#;
    let program = format!("{HEAD}{body}");
    let root = stage.project("best", &[("outlast.toml", CONFIG), ("train.py", &program)]);
    let durable = stage.path("durable");
    exchange(&durable, "0");
    let run = stage.submit(&root, &["checkpoints.keep_local=2", &variable("DURABLE", durable.display())]);
    for step in 1..=8 {
        exchange(&durable, &stage.when_durable(&run, step).to_string());
    }
    stage.ends_as(&run, "SUCCEEDED");
    let said = stage.ok(&["logs", &run, "--stdout"]).text();
    let left = said.lines().find(|l| l.starts_with("left: ")).expect("what was left");
    assert!(left.contains("best.bin") && left.contains("step-8.bin"), "{left}");
    assert!(!left.contains("step-1.bin"), "nothing was pruned: {left}");
}

#[test]
fn a_durable_checkpoint_whose_bytes_rot_is_passed_over_for_the_one_before() {
    let stage = Stage::new();
    let body = r#"
resume = os.environ["OUTLAST_RESUME_FROM"]
if resume:
    print("resumed: " + open(resume).read()[:6], flush=True)
    sys.exit(0)
step(10)
save("step-10.bin", "ten   " * 1000)
step(20)
save("step-20.bin", "twenty" + os.urandom(20000).hex())
while True:
    time.sleep(0.1)
"#;
    let root = stage.project("rot", &[("outlast.toml", CONFIG), ("train.py", &format!("{HEAD}{body}"))]);
    let run = stage.submit(&root, &[]);
    stage.when_durable(&run, 20);
    super::stage::wait("both durable", || (durable(&stage, &run) == 2).then_some(()));
    let detail = stage.status(&run);
    let objects = stage.home.join("objects").join(detail["run"]["id"].as_str().unwrap());
    // What was saved last says the most, and so takes the larger pack.
    let generations = std::fs::read_dir(&objects).unwrap().flatten();
    let stored = generations.flat_map(|entry| std::fs::read_dir(entry.path()).unwrap().flatten());
    let is_pack = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('p');
    let mut packs: Vec<_> = stored.map(|entry| entry.path()).filter(is_pack).collect();
    packs.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
    assert_eq!(packs.len(), 2, "one for each save: {packs:?}");
    let mut bytes = std::fs::read(&packs[1]).unwrap();
    bytes[3] ^= 1;
    std::fs::write(&packs[1], bytes).unwrap();
    stage.kill_machine(&super::stage::machine_of(&detail));
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["attempts"][1]["resumed_step"], 10, "{detail:#}");
    assert!(stage.ok(&["logs", &run, "--stdout"]).text().contains("resumed: ten"));
    assert!(stage.events(&run).iter().any(|e| e["verb"] == "corrupt"), "{}", stage.story(&run));
    let listed = stage.ok(&["checkpoints", &run, "--json"]).json();
    let state = |step: u64| {
        let all = listed.as_array().unwrap();
        all.iter().find(|c| c["step"] == step).map(|c| c["state"].as_str().unwrap().to_owned())
    };
    assert_eq!((state(10).as_deref(), state(20).as_deref()), (Some("COMMITTED"), Some("CORRUPT")));
    stage.verify();
}
