//! Programs and machines that behave badly: every answer is defined, nothing
//! is lost by it, and the product goes on.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::processes::is_alive;
use super::stage::{Stage, program as program_file, touch, variable, wait};

const PLAIN: &str = "[run]\ncommand = [\"python3\", \"train.py\"]\n[environment]\nkind = \"none\"\n[checkpoints]\nquiet = \"1s\"\n";

/// A project whose program is this Python text.
fn program(stage: &Stage, name: &str, text: &str) -> PathBuf {
    stage.project(name, &[("outlast.toml", PLAIN), ("train.py", text)])
}

/// Saves whole, or says why not.
const SAVE: &str = r#"
import json, os, sys, time
where = os.environ["OUTLAST_CHECKPOINT_DIR"]
resume = os.environ["OUTLAST_RESUME_FROM"]
def save(step, extra=b""):
    path = os.path.join(where, f"step-{step:06d}.json")
    with open(path + ".tmp", "wb") as file:
        file.write(json.dumps({"step": step}).encode() + extra)
    os.rename(path + ".tmp", path)
"#;

fn points(stage: &Stage, run: &str) -> Vec<Value> {
    let path = stage.home.join("runs").join(run).join("1/points.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether a note of the run says this.
fn is_told(stage: &Stage, run: &str, what: &str) -> bool {
    let events = stage.events(run);
    events.iter().any(|e| e["verb"] == "note" && e["detail_json"].to_string().contains(what))
}

#[test]
fn metrics_that_are_no_numbers_or_too_many_are_kept_bounded_and_told() {
    let stage = Stage::new();
    let root = program(
        &stage,
        "numbers",
        r#"
print('{"step": 1, "loss": NaN, "grad": Infinity}')
print("step=2 loss=nan grad=-inf")
print("step=3 loss=1e308 grad=1e400")
print("step=3 loss=0.5 grad=1")
print("step=2 loss=0.25 grad=2")
for i in range(100000):
    print(f"step=4 name{i}=1.5")
print("step=5 loss=0.125 grad=3", flush=True)
"#,
    );
    let run = stage.submit(&root, &[]);
    let detail = stage.ends_as(&run, "SUCCEEDED");
    let rows = points(&stage, &run);
    let of = |name: &str| -> Vec<(u64, Value)> {
        let rows = rows.iter().filter(|row| row["name"] == name);
        rows.map(|row| (row["step"].as_u64().unwrap(), row["value"].clone())).collect()
    };
    let text = |value: &Value| value.as_str().unwrap().to_lowercase();
    let loss = of("loss");
    assert_eq!(loss.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 2, 3, 3, 2, 5], "{loss:?}");
    assert_eq!((text(&loss[0].1), text(&loss[1].1)), ("nan".into(), "nan".into()));
    assert_eq!(loss[2].1.as_f64(), Some(1e308));
    let grad = of("grad");
    assert_eq!(text(&grad[0].1), "inf");
    assert_eq!(text(&grad[1].1), "-inf");
    // More names than any training has: the first thousand are counted.
    let metrics = detail["metrics"].as_array().unwrap();
    assert!(metrics.len() <= 1_000, "{} metrics", metrics.len());
    let last = |name: &str| metrics.iter().find(|m| m["name"] == name).unwrap()["last"].as_f64();
    assert_eq!(
        (last("loss"), last("grad")),
        (Some(0.125), Some(3.0)),
        "the ones that matter are not crowded out"
    );
    let notes = detail["notes"].to_string();
    assert!(notes.contains("metric"), "nobody is told that names were left out: {notes}");
}

#[test]
fn a_program_that_closes_its_output_goes_on_and_its_saves_count() {
    let stage = Stage::new();
    let text = format!(
        "{SAVE}\nprint('step=1 loss=2', flush=True)\nos.close(1)\nos.close(2)\nsave(10)\ntime.sleep(2)\nsave(20)\nos._exit(7)\n"
    );
    let root = program(&stage, "mute", &text);
    let run = stage.submit(&root, &["retry.failures=0"]);
    let detail = stage.ends_as(&run, "FAILED");
    assert_eq!(detail["run"]["exit_code"], 7, "{detail:#}");
    assert_eq!(detail["run"]["durable_step"], 20, "{detail:#}");
    assert_eq!(stage.ok(&["logs", &run, "--stdout"]).text(), "step=1 loss=2\n");
}

#[test]
fn a_removed_checkpoint_directory_is_told_and_what_was_durable_stays() {
    let stage = Stage::new();
    let body = r#"
import shutil
if resume:
    print('resumed', json.load(open(resume))['step'], flush=True)
    sys.exit(0)
def hold(name):
    while not os.path.exists(os.path.join(os.environ['PLACE'], name)):
        time.sleep(0.02)
save(10)
hold('durable')
shutil.rmtree(where)
hold('told')
sys.exit(3)
"#;
    let place = stage.path("place");
    std::fs::create_dir(&place).unwrap();
    let root = program(&stage, "gone", &format!("{SAVE}{body}"));
    let run = stage.submit(&root, &[&variable("PLACE", place.display())]);
    stage.when_durable(&run, 10);
    touch(&place.join("durable"));
    let told = || is_told(&stage, &run, "removed its checkpoint directory").then_some(());
    wait("a note of it", told);
    touch(&place.join("told"));
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert!(stage.ok(&["logs", &run, "--stdout"]).text().contains("resumed 10"), "{detail:#}");
}

#[test]
fn files_of_another_user_are_published_or_told() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: files_of_another_user_are_published_or_told: only root can become another user");
        return;
    }
    let stage = Stage::new();
    let text = format!(
        "{SAVE}\nos.chmod(where, 0o777)\nfor up in (where, os.path.dirname(where), os.path.dirname(os.path.dirname(where))):\n    pass\nif resume:\n    print('resumed', json.load(open(resume))['step'], flush=True)\n    sys.exit(0)\nfd = os.open(where, os.O_RDONLY)\nos.setgid(65534)\nos.setuid(65534)\nos.fchdir(fd)\nwhere = '.'\nos.umask(0o077)\nsave(10)\ntime.sleep(2)\nsys.exit(3)\n"
    );
    let root = program(&stage, "other", &text);
    let run = stage.submit(&root, &[]);
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert!(stage.ok(&["logs", &run, "--stdout"]).text().contains("resumed 10"), "{detail:#}");
}

#[test]
fn a_flood_of_files_does_not_hide_the_newest_checkpoint_nor_silence_the_machine() {
    let stage = Stage::new();
    let body = r#"
import threading
if resume:
    print('resumed', json.load(open(resume))['step'], flush=True)
    sys.exit(0)
gap, last = 0.0, time.monotonic()
disk = 0.0
def witness():
    global disk
    fd = os.open(os.environ['GO'] + '.witness', os.O_WRONLY | os.O_CREAT)
    while True:
        began = time.monotonic()
        os.pwrite(fd, b'x', 0)
        os.fsync(fd)
        disk = max(disk, time.monotonic() - began)
        time.sleep(0.05)
threading.Thread(target=witness, daemon=True).start()
def turn():
    global gap, last
    now = time.monotonic()
    gap, last = max(gap, now - last), now
for i in range(60000):
    with open(os.path.join(where, 'junk-' + os.urandom(6).hex() + 'x'), 'w') as file:
        file.write('x')
    turn()
save(10)
while not os.path.exists(os.environ['GO']):
    time.sleep(0.02)
    turn()
print('gap', gap, flush=True)
print('disk', disk, flush=True)
sys.exit(3)
"#;
    let go = stage.path("go");
    let root = program(&stage, "flood", &format!("{SAVE}{body}"));
    let run = stage.submit(&root, &[&variable("GO", go.display())]);
    stage.when_durable(&run, 10);
    wait("a note of it", || is_told(&stage, &run, "entries: only the newest").then_some(()));
    touch(&go);
    let detail = stage.ends_as(&run, "SUCCEEDED");
    let said = stage.ok(&["logs", &run, "--stdout"]).text();
    assert!(said.contains("resumed 10"), "{detail:#}");
    let told =
        |prefix: &str| said.lines().find_map(|line| line.strip_prefix(prefix)?.parse::<f64>().ok()).unwrap();
    let (gap, disk) = (told("gap "), told("disk "));
    let events = stage.events(&run);
    let count = |verb: &str| events.iter().filter(|e| e["verb"] == verb).count();
    assert_eq!((count("lost"), count("given-up")), (0, 0), "{events:#?}");
    // Where the program itself stood still, so may the agent have. And where the
    // disk did, so has the controller, which stores facts before it listens on.
    let excused = gap > 0.5 || disk > 1.0;
    assert!(
        count("suspect") == 0 || excused,
        "silent, though the program ran on ({gap} s, its disk {disk} s): {events:#?}"
    );
}

#[test]
fn a_state_directory_that_turns_read_only_loses_no_end() {
    let place = tempfile::Builder::new().prefix("ol").tempdir_in("/tmp").unwrap();
    let mount = |options: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(place.path());
        mount.output().is_ok_and(|done| done.status.success())
    };
    if !mount("size=32m") {
        eprintln!(
            "skipped: a_state_directory_that_turns_read_only_loses_no_end: a disk cannot be mounted here"
        );
        return;
    }
    let attempt = place.path().join("attempt");
    std::fs::create_dir(&attempt).unwrap();
    std::fs::set_permissions(&attempt, std::fs::Permissions::from_mode(0o700)).unwrap();
    let go = place.path().join("go");
    let spec = serde_json::json!({
        "attempt_id": "a", "machine_id": "m", "cwd": "/", "env": {"PATH": std::env::var("PATH").unwrap()},
        "argv": ["sh", "-c", format!("echo on; while [ ! -e {0} ] && [ -w {1} ]; do sleep 0.05; done; exit 5", go.display(), place.path().display())],
        "spool_bytes": 1 << 20, "grace_ms": 1000
    });
    std::fs::write(attempt.join("keeper.json"), spec.to_string()).unwrap();
    let mut keeper = Command::new(program_file())
        .args(["keeper", "--attempt"])
        .arg(&attempt)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait("the program", || attempt.join("child.json").exists().then_some(()));
    let remount = |how: &str| {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(place.path()).status();
        assert!(done.unwrap().success());
    };
    // Open files stop a plain remount; what is written from now on is refused.
    let read_only = Command::new("mount").args(["-o", "remount,ro"]).arg(place.path()).output().unwrap();
    let done = if read_only.status.success() {
        let child: Value =
            serde_json::from_slice(&std::fs::read(attempt.join("child.json")).unwrap()).unwrap();
        let child = i32::try_from(child["pid"].as_i64().unwrap()).unwrap();
        // It is not reaped before its end is on the disk, or is.
        wait("the program's end", || (!is_alive(child)).then_some(()));
        assert!(!attempt.join("exit.json").exists());
        remount("rw");
        std::fs::write(&go, "").unwrap();
        true
    } else {
        std::fs::write(&go, "").unwrap();
        false
    };
    let status = keeper.wait().unwrap();
    assert!(status.success(), "{status}, read-only: {done}");
    let exit: Value = serde_json::from_slice(&std::fs::read(attempt.join("exit.json")).unwrap()).unwrap();
    assert_eq!((&exit["exit"]["code"], &exit["final"]), (&5.into(), &true.into()), "{exit:#}");
    let _ = Command::new("umount").arg("-l").arg(place.path()).status();
}

#[test]
fn without_a_process_table_nothing_is_started_and_the_reason_is_plain() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = dir.path().join("attempt");
    std::fs::create_dir(&attempt).unwrap();
    let mark = dir.path().join("ran");
    let spec = serde_json::json!({
        "attempt_id": "a", "machine_id": "m", "cwd": "/", "env": {},
        "argv": ["/bin/sh", "-c", format!("echo ran > {}", mark.display())], "spool_bytes": 0, "grace_ms": 0
    });
    std::fs::write(attempt.join("keeper.json"), spec.to_string()).unwrap();
    let script = format!(
        "mount -t tmpfs none /proc && exec {} keeper --attempt {}",
        program_file().display(),
        attempt.display()
    );
    let done = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output();
    let Ok(done) = done else {
        eprintln!("skipped: without_a_process_table_...: there is no unshare here");
        return;
    };
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    if told.contains("unshare failed") || told.contains("permission denied") && told.contains("mount") {
        eprintln!("skipped: without_a_process_table_...: a namespace cannot be made here: {told}");
        return;
    }
    assert!(!done.status.success(), "{told}");
    assert!(told.contains("/proc"), "{told}");
    assert!(!told.contains("panicked"), "{told}");
    assert!(!mark.exists(), "it ran though nobody could have watched it");
}
