//! Recorded reports and tools that hang, lie or flood.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;

const TWO: &str = "0, GPU-a, 550.54, 00000000:65:00.0, 5, 100, 50, 10, 20, 30, 0, 0, 0x0, NVIDIA A\n\
                   1, GPU-b, 550.54, 00000000:B4:00.0, 6, 100, 50, 10, 20, 30, 0, 0, 0x0, NVIDIA A\n";
/// One sample that waited for a tool would not be back by then: they go on for
/// days. A machine that stands still for a while is no such sample.
const AT_ONCE: Duration = Duration::from_mins(1);
/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_mins(3);

/// A tool that is this shell script, and the GPUs as it tells them. Time is the
/// test's own: `at` only goes on where the test says so.
struct Rig {
    dir: tempfile::TempDir,
    gpus: Nvidia,
    at: u64,
}

impl Rig {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gpus = Nvidia::with_tool(Tool::at(dir.path().join("nvidia-smi")), EVERY_MS);
        let rig = Self { dir, gpus, at: 1_000_000 };
        rig.becomes(script);
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn becomes(&self, script: &str) {
        let (new, tool) = (self.path("new"), self.path("nvidia-smi"));
        let text = format!("#!/bin/sh\ncd {}\necho $$ >> pids\n{script}\n", self.dir.path().display());
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(new, tool).unwrap();
    }

    fn pids(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.path("pids")).unwrap_or_default();
        text.lines().map(|l| l.parse().unwrap()).collect()
    }

    fn living(&self) -> usize {
        self.pids().into_iter().filter(|p| crate::os::process(*p).is_some_and(|p| !p.is_zombie())).count()
    }

    fn sample(&mut self) {
        let begun = Instant::now();
        self.gpus.sample(self.at);
        assert!(begun.elapsed() < AT_ONCE, "a sample took {:?}", begun.elapsed());
        assert!(self.living() <= 1, "more than one tool at a time: {:?}", self.pids());
    }

    /// Samples at the same moment until it is so.
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        loop {
            self.sample();
            if is_so(self) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "never: {what}; {:?}", self.gpus);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// One more answer of the tool.
    fn answer(&mut self) {
        self.at += EVERY_MS;
        self.until("an answer", |r| r.gpus.is_fresh());
    }
}

fn tells(text: &str) -> String {
    format!("cat <<'END'\n{text}END")
}

#[test]
fn the_gpus_are_there_one_sample_after_the_tool_was_asked() {
    let mut rig = Rig::new(&tells(TWO));
    rig.sample();
    assert!(rig.gpus.gpus().is_empty() && rig.gpus.problem().is_empty());
    rig.until("an answer", |r| r.gpus.is_fresh());
    assert_eq!(rig.gpus.gpus().iter().map(|g| g.uuid.as_str()).collect::<Vec<_>>(), ["GPU-a", "GPU-b"]);
    assert_eq!(rig.gpus.leave(), None);
    let asked = rig.pids().len();
    rig.at += 1000;
    rig.sample();
    assert_eq!(rig.pids().len(), asked, "not asked again within five seconds");
}

#[test]
fn a_machine_without_the_tool_has_no_gpu_and_no_problem() {
    let mut gpus = Nvidia::with_tool(Tool::at("/nonexistent/nvidia-smi".into()), EVERY_MS);
    for at in 0..10 {
        gpus.sample(at * EVERY_MS);
    }
    assert!(gpus.gpus().is_empty());
    assert_eq!((gpus.problem(), gpus.leave()), ("", None));
}

/// Two deadlines without an answer: told, and the machine is to be left.
fn hangs(script: &str) {
    let mut rig = Rig::new(&tells(TWO));
    rig.until("an answer", |r| r.gpus.is_fresh());
    rig.becomes(script);
    rig.at += EVERY_MS;
    let before = rig.pids().len();
    rig.until("the tool runs", |r| r.pids().len() > before);
    rig.at += 9_000;
    rig.sample();
    assert_eq!((rig.gpus.misses, rig.gpus.gpus().len()), (0, 2));
    rig.at += 1_000;
    rig.until("the first miss", |r| r.gpus.misses == 1);
    assert_eq!(rig.gpus.problem(), "");
    rig.until("it is asked again", |r| r.pids().len() > before + 1);
    rig.at += 10_000;
    rig.until("the second miss", |r| r.gpus.misses == 2);
    assert_eq!(rig.gpus.problem(), "nvidia-smi hangs");
    assert!(rig.gpus.leave().unwrap().starts_with("GPU lost: nvidia-smi"), "{:?}", rig.gpus.leave());
    assert!(rig.gpus.gpus().is_empty());
    for _ in 0..5 {
        rig.at += 10_000;
        rig.sample();
    }
    rig.becomes(&tells(TWO));
    rig.at += 10_000;
    rig.sample();
    rig.at += 10_000;
    rig.until("it answers again", |r| r.gpus.gpus().len() == 2);
    assert_eq!((rig.gpus.problem(), rig.gpus.leave()), ("", None));
    let pids = rig.pids();
    drop(rig);
    let begun = Instant::now();
    while pids.iter().any(|p| crate::os::process(*p).is_some_and(|p| !p.is_zombie())) {
        assert!(begun.elapsed() < PATIENCE, "left behind");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_tool_that_sleeps_for_ever() {
    hangs("exec sleep 1000000");
}

#[test]
fn a_tool_that_ignores_sigterm() {
    hangs("trap '' TERM HUP INT; while :; do sleep 1000000; done");
}

#[test]
fn a_tool_that_is_stopped() {
    hangs("kill -STOP $$");
}

#[test]
fn a_tool_that_prints_without_end_costs_no_memory() {
    let mut rig = Rig::new("exec head -c 100000000 /dev/zero");
    for misses in 1..=2 {
        rig.at += EVERY_MS;
        rig.until("a miss", |r| r.gpus.misses == misses);
    }
    assert!(rig.gpus.leave().unwrap().contains("printed without end"));
}

#[test]
fn a_tool_that_prints_garbage_is_a_problem_and_no_loss() {
    let mut rig = Rig::new("head -c 5000 /dev/urandom; echo; echo ', , , ,'");
    rig.until("an answer", |r| r.gpus.is_fresh());
    assert!(rig.gpus.problem().starts_with("nvidia-smi printed no GPU"), "{}", rig.gpus.problem());
    assert!(!rig.gpus.problem().contains(char::is_control));
    for _ in 0..3 {
        rig.answer();
    }
    assert_eq!(rig.gpus.leave(), None);
}

#[test]
fn a_driver_that_is_not_loaded_is_a_problem_and_a_loss_only_where_there_was_a_gpu() {
    let failed =
        "echo \"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\"; exit 9";
    let mut rig = Rig::new(failed);
    for _ in 0..3 {
        rig.answer();
    }
    assert!(rig.gpus.problem().starts_with("nvidia-smi ended with 9"), "{}", rig.gpus.problem());
    assert_eq!(rig.gpus.leave(), None);
    rig.becomes(&tells(TWO));
    rig.answer();
    rig.answer();
    rig.becomes(failed);
    // The first of these may still be an answer of the script before.
    for _ in 0..3 {
        rig.answer();
    }
    assert!(rig.gpus.leave().unwrap().contains("gpu0 (GPU-a) is no longer there"), "{:?}", rig.gpus.leave());
}

#[test]
fn a_gpu_that_goes_missing_or_asks_for_a_reset_is_lost() {
    let mut rig = Rig::new(&tells(TWO));
    rig.answer();
    rig.becomes(&tells(TWO.lines().next().map(|l| format!("{l}\n")).unwrap().as_str()));
    for _ in 0..3 {
        rig.answer();
    }
    assert!(rig.gpus.leave().unwrap().contains("gpu1 (GPU-b)"));
    rig.becomes(&tells(TWO));
    rig.answer();
    rig.answer();
    assert_eq!(rig.gpus.leave(), None, "it is back");
    rig.becomes(&tells(&TWO.replace(", 6, ", ", [GPU requires reset], ")));
    rig.answer();
    rig.answer();
    assert_eq!(rig.gpus.leave().as_deref(), Some("GPU lost: gpu1: it requires a reset"));
    rig.becomes("echo 'Unable to determine the device handle for GPU 0000:65:00.0: GPU is lost.'; exit 15");
    rig.answer();
    rig.answer();
    assert!(rig.gpus.leave().unwrap().contains("GPU is lost"));
}

#[test]
fn an_older_or_newer_driver_is_asked_for_what_it_knows() {
    let script = "case \"$1\" in *clocks_throttle*) echo 'Field \"clocks_throttle_reasons.active\" is not a valid \
                  field to query.'; echo; exit 2;; esac\n";
    let mut rig = Rig::new(&format!("{script}{}", tells(&TWO.replace("0x0,", "0x40,"))));
    rig.until("an answer", |r| r.gpus.is_fresh());
    assert_eq!(rig.gpus.gpus()[0].throttle, ["hw-thermal"]);
    assert_eq!(rig.pids().len(), 2, "asked again at once");
}

#[test]
fn an_xid_belongs_to_its_gpu_and_is_new_once() {
    let mut rig = Rig::new(&tells(TWO));
    rig.answer();
    let of = |line: &str| xid::from_record(&format!("4,1,2,-;NVRM: Xid (PCI:{line}")).unwrap();
    let new = rig.gpus.take_xids(vec![
        of("0000:b4:00): 31, x"),
        of("0000:b4:00): 31, y"),
        of("0000:01:00): 13, z"),
    ]);
    let subjects: Vec<_> = new.iter().map(|(s, x)| (s.as_str(), x.number)).collect();
    assert_eq!(subjects, [("gpu1", 31), ("PCI 0000:01:00", 13)]);
    assert_eq!(rig.gpus.gpus()[1].xids, [31]);
    assert!(rig.gpus.gpus()[0].xids.is_empty());
    assert_eq!(rig.gpus.leave(), None, "the program's own fault");
    rig.gpus.take_xids(vec![of("0000:65:00): 79, GPU has fallen off the bus.")]);
    assert_eq!(rig.gpus.leave().as_deref(), Some("Xid 79 on gpu0: GPU has fallen off the bus."));
}

/// A process in a frozen version 1 cgroup does not die of SIGKILL, as one that
/// hangs in the driver does not.
struct Freezer(PathBuf);

impl Freezer {
    fn new() -> Option<Self> {
        let path = Path::new("/sys/fs/cgroup/freezer").join(format!("outlast-health-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn set(&self, state: &str) {
        std::fs::write(self.0.join("freezer.state"), state).unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_tool_that_cannot_be_killed_is_left_alone_counted_and_the_only_one() {
    let Some(freezer) = Freezer::new() else {
        println!("skipped: a_tool_that_cannot_be_killed: no version 1 freezer cgroup can be made here");
        return;
    };
    let mut rig = Rig::new("exec sleep 1000000");
    rig.until("the tool runs", |r| r.pids().len() == 1);
    std::fs::write(freezer.0.join("cgroup.procs"), rig.pids()[0].to_string()).unwrap();
    freezer.set("FROZEN");
    for _ in 0..6 {
        rig.at += 10_000;
        rig.sample();
    }
    assert_eq!(rig.pids().len(), 1, "no second one beside it");
    assert_eq!((rig.gpus.abandoned(), rig.gpus.problem()), (1, "nvidia-smi hangs"));
    assert!(rig.gpus.leave().unwrap().contains("cannot be killed"), "{:?}", rig.gpus.leave());
    rig.becomes(&tells(TWO));
    freezer.set("THAWED");
    rig.at += 1_000;
    rig.until("it answers again", |r| r.gpus.gpus().len() == 2);
    assert_eq!(rig.gpus.leave(), None);
}

/// Prints what the answers of eight GPUs cost this process, the tool's own time left out.
#[test]
fn the_cost_of_eight_gpus() {
    use nix::sys::resource::{UsageWho, getrusage};
    const ANSWERS: usize = 50;
    let recorded = include_str!("../recorded/nvidia-535.txt");
    let mut rig = Rig::new(&tells(recorded));
    rig.answer();
    let busy = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
        [usage.user_time(), usage.system_time()]
            .map(|t| t.tv_sec() * 1_000_000 + t.tv_usec())
            .iter()
            .sum::<i64>()
    };
    let mut spent = 0;
    let first = rig.pids().len();
    for asked in first..first + ANSWERS {
        rig.at += EVERY_MS;
        let before = busy();
        rig.gpus.sample(rig.at);
        spent += busy() - before;
        // The next sample takes this answer and asks again.
        let begun = Instant::now();
        while rig.pids().len() == asked || rig.living() > 0 {
            assert!(begun.elapsed() < PATIENCE, "the tool does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    println!(
        "eight GPUs cost {} us of processor time each time they are asked for",
        spent / i64::try_from(ANSWERS).unwrap()
    );
    assert_eq!(rig.gpus.gpus().len(), 8);
}
