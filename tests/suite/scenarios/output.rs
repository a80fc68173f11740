//! What a program wrote is what is kept of it: byte for byte, once, in order
//! and with its times, whatever happens to agents, links, controllers and
//! machines meanwhile; and what is lost is said to be lost, exactly.
//! `OUTPUT_MB` says how much is written (64), `OUTPUT_SEED` repeats a failure.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::processes::{Standing, kill_one, only};
use super::stage::{Stage, machine_of, records, touch, variable, wait};

/// Writes what no reader likes to both streams and the same to two files
/// outside of every machine. It ends when it may.
const AWKWARD: &str = r##"
import os, random, sys, time
if os.environ["OUTLAST_GENERATION"] != "1":
    sys.exit(0)
while not os.path.exists(os.environ["MAY_WRITE"]):
    time.sleep(0.02)
rng = random.Random(int(os.environ["SEED"]))
total, seconds = int(os.environ["BYTES"]), float(os.environ["SECONDS_TO_WRITE"])
truth = [open(os.path.join(os.environ["RECORD"], name), "wb", buffering=0) for name in ("stdout", "stderr")]

def words(count):
    return b" ".join(rng.choice([b"loss=0.5", b"step", b"\xf0\x9f\x94\xa5", b"NaN", b"1e400"]) for _ in range(count))

def piece(kind):
    size = rng.randrange(1, 150_000)
    if kind == 0:
        return rng.randbytes(size)
    if kind == 1:
        return b"".join(b"\r%3d%%|%s| %d/100" % (i, b"#" * (i // 4), i) for i in range(100)) + b"\n"
    if kind == 2:
        return b"".join(b"\x1b[%dm%s\x1b[0m\x1b]0;t\x07\x1b[2J\n" % (rng.randrange(30, 38), words(3)) for _ in range(200))
    if kind == 3:
        return b"\0" * rng.randrange(1, 5_000) + b"\xff\xfe\xc3(\xed\xa0\x80" * 100 + b"\r\n"
    return b"".join(words(rng.randrange(1, 12)) + b"\n" for _ in range(500))

def put(stream, data):
    truth[stream].write(data)
    view = memoryview(data)
    while view:
        view = view[os.write(stream + 1, view):]

written = [0, 0]
began = time.monotonic()
for stream in (0, 1):
    # A line of 10 MB, as large as fits.
    line = rng.randbytes(min(10 << 20, total // 6)).replace(b"\n", b" ") + b"\n"
    put(stream, line)
    written[stream] += len(line)
while sum(written) < total:
    stream = 0 if written[0] <= written[1] else 1
    data = piece(rng.randrange(5))[:max(1, total - sum(written))]
    put(stream, data)
    written[stream] += len(data)
    time.sleep(max(0.0, began + seconds * sum(written) / total - time.monotonic()))
open(os.path.join(os.environ["RECORD"], "written"), "w").close()
while not os.path.exists(os.environ["MAY_END"]):
    time.sleep(0.02)
"##;

/// Numbered lines with the time of each, for two attempts. Each waits until the
/// one before was read and noted.
const LINES: &str = r#"
import os, sys, time
generation = os.environ["OUTLAST_GENERATION"]
attempt = os.path.dirname(os.environ["OUTLAST_CHECKPOINT_DIR"])
spool, written = os.path.join(attempt, "spool", "stdout.0000000000000000"), 0
for i in range(int(os.environ["COUNT"])):
    written += sys.stdout.write(f"{generation} {i} {int(time.time() * 1000)}\n")
    sys.stdout.flush()
    while not os.path.exists(spool) or os.path.getsize(spool) < written:
        time.sleep(0.005)
    time.sleep(float(os.environ["PAUSE"]))
    while i == int(os.environ.get("HOLD_AT", "-1")) and not os.path.exists(os.environ["MAY_END"]):
        time.sleep(0.02)
"#;

const BARE: &str = "[run]\ncommand = [\"python3\", \"program.py\"]\n[environment]\nkind = \"none\"\n";

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A run of the awkward program, and what it wrote.
struct Awkward {
    run: String,
    record: PathBuf,
    may_write: PathBuf,
    may_end: PathBuf,
}

impl Awkward {
    /// It writes nothing before it may.
    fn begin(stage: &Stage, seed: u64, bytes: u64, seconds: f64, more: &[&str]) -> Self {
        let root = stage.project("awkward", &[("program.py", AWKWARD), ("outlast.toml", BARE)]);
        let [record, may_write, may_end] = ["record", "may-write", "may-end"].map(|name| stage.path(name));
        fs::create_dir_all(&record).unwrap();
        let settings = [
            variable("SEED", seed),
            variable("BYTES", bytes),
            variable("SECONDS_TO_WRITE", seconds),
            variable("RECORD", record.display()),
            variable("MAY_WRITE", may_write.display()),
            variable("MAY_END", may_end.display()),
        ];
        let all: Vec<&str> = settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Self { run: stage.submit(&root, &all), record, may_write, may_end }
    }

    fn truth(&self, stream: &str) -> Vec<u8> {
        fs::read(self.record.join(stream)).unwrap()
    }

    /// Waits until it has written everything, for as long as it gets on.
    fn when_written(&self) {
        let len = |stream: &str| fs::metadata(self.record.join(stream)).map_or(0, |about| about.len());
        while_it_grows("the end of the writing", || {
            let done = self.record.join("written").exists();
            (done, len("stdout") + len("stderr"))
        });
    }
}

/// The file of an attempt's stream at the controller.
fn log(stage: &Stage, run: &str, attempt: u32, stream: &str) -> PathBuf {
    stage.home.join(format!("runs/{run}/{attempt}/{stream}.log"))
}

/// A stretch of network between agents and the controller that can be cut.
struct Wire {
    port: u16,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    /// Leads to this address.
    fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Self { port: listener.local_addr().unwrap().port(), open: Arc::default() };
        let open = wire.open.clone();
        // Ends with the test's process; each test has one of its own.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(&target) else { continue };
                let mut all = open.lock().unwrap();
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    all.push(from.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        wire
    }

    /// Cuts every connection that goes through it now, and says how many.
    fn cut(&self) -> usize {
        let all: Vec<TcpStream> = self.open.lock().unwrap().drain(..).collect();
        all.iter().filter(|end| end.shutdown(Shutdown::Both).is_ok()).count()
    }
}

/// Has a machine's agents go through a wire from their next start on.
fn lead_through(stage: &Stage, machine: &str) -> Wire {
    let path = stage.home.join("machines").join(machine).join("machine.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let wire = Wire::to(file["endpoints"][0].as_str().unwrap().to_owned());
    file["endpoints"] = serde_json::json!([format!("127.0.0.1:{}", wire.port)]);
    let fresh = path.with_extension("new");
    fs::write(&fresh, file.to_string()).unwrap();
    fs::rename(fresh, path).unwrap();
    wire
}

/// Kills the agent of a machine.
fn kill_agent(machine: &str) {
    kill_one(only(machine, "agent"));
}

/// Waits until a machine is not silent: one that nobody hears for too long, as
/// through cut after cut, is given up.
fn when_heard(stage: &Stage, machine: &str) {
    wait("a machine that is heard", || {
        let all = stage.ok(&["machines", "--json"]).json();
        let own = all.as_array().unwrap().iter().find(|m| m["id"] == machine)?;
        (own["state"] == "READY").then_some(())
    });
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap().as_millis()).unwrap()
}

fn pass(random: &mut fastrand::Rng, ms: std::ops::Range<u64>) {
    let until = Instant::now() + Duration::from_millis(random.u64(ms));
    wait("a moment", || (Instant::now() >= until).then_some(()));
}

/// Waits until it is so, and fails where a number of bytes grows no more.
#[track_caller]
fn while_it_grows(what: &str, look: impl Fn() -> (bool, u64)) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let (done, now) = look();
        if done {
            return;
        }
        if now > last {
            (last, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < super::stage::PATIENCE, "{now} bytes and no more: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the controller has so much.
#[track_caller]
fn when_long(path: &Path, len: u64) {
    while_it_grows(&format!("{len} of {}", path.display()), || {
        let now = fs::metadata(path).map_or(0, |about| about.len());
        (now >= len, now)
    });
}

/// The gaps that were journalled of a run: stream, from, to.
fn gaps(stage: &Stage, run: &str) -> Vec<(String, u64, u64)> {
    let entry = |event: &Value| {
        let detail: Value = serde_json::from_str(event["detail_json"].as_str().unwrap()).unwrap();
        (
            detail["stream"].as_str().unwrap().to_owned(),
            detail["from"].as_u64().unwrap(),
            detail["to"].as_u64().unwrap(),
        )
    };
    stage.events(run).iter().filter(|event| event["verb"] == "gap").map(entry).collect()
}

#[track_caller]
fn same(kept: &[u8], truth: &[u8], what: &str) {
    let differs = kept.iter().zip(truth).position(|(a, b)| a != b);
    assert_eq!((kept.len(), differs), (truth.len(), None), "{what} is not what was written");
}

#[test]
fn every_byte_arrives_once_and_in_order_through_kills_and_cuts() {
    let seed = number("OUTPUT_SEED", fastrand::u64(0..1_000_000));
    let bytes = number("OUTPUT_MB", 64) << 20;
    println!("OUTPUT_SEED={seed} OUTPUT_MB={}", bytes >> 20);
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = Stage::new();
    // Twelve disturbances, half a second or so apart.
    let awkward = Awkward::begin(&stage, seed, bytes, 6.0, &[]);
    let run = awkward.run.clone();
    let machine = machine_of(&stage.when(&run, "running", |detail| detail["run"]["phase"] == "running"));
    let wire = lead_through(&stage, &machine);
    kill_agent(&machine);
    touch(&awkward.may_write);
    let (mut kills, mut cuts, mut restarted) = (1, 0, false);
    while kills < 6 || cuts < 5 {
        pass(&mut random, 200..800);
        if kills < 6 && (cuts >= 5 || random.bool()) {
            // A machine that nobody hears for too long is given up.
            stage.when_welcomed(&machine);
            kill_agent(&machine);
            kills += 1;
        } else {
            when_heard(&stage, &machine);
            // Only a connection that was there counts.
            cuts += usize::from(wire.cut() > 0);
        }
        // Once, also where the next cut finds nothing to cut.
        if kills + cuts == 6 && !restarted {
            restarted = true;
            stage.kill_controller();
            stage.ok(&["status"]);
        }
    }
    awkward.when_written();
    for stream in ["stdout", "stderr"] {
        let len = fs::metadata(awkward.record.join(stream)).unwrap().len();
        when_long(&log(&stage, &run, 1, stream), len);
    }
    touch(&awkward.may_end);
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    for stream in ["stdout", "stderr"] {
        let truth = awkward.truth(stream);
        same(&fs::read(log(&stage, &run, 1, stream)).unwrap(), &truth, stream);
        same(&stage.ok(&["logs", &run, &format!("--{stream}")]).stdout, &truth, stream);
    }
    // Metrics that are read out of a gigabyte of noise are thinned, and say so; what was written never is.
    let (metrics, output): (Vec<_>, Vec<_>) =
        gaps(&stage, &run).into_iter().partition(|gap| gap.0 == "metrics" && bytes > 64 << 20);
    assert_eq!(output, []);
    println!("{} gaps of metrics", metrics.len());
    println!("{kills} kills, {cuts} cuts and 1 controller: {bytes} bytes are the same");
    stage.verify();
}

#[test]
fn what_a_dead_keeper_had_written_arrives_and_what_its_disk_lost_is_one_exact_gap() {
    let stage = Stage::new();
    let awkward = Awkward::begin(&stage, 7, 24 << 20, 0.5, &["logs.spool=64MiB"]);
    let run = awkward.run.clone();
    let machine = machine_of(&stage.when(&run, "running", |detail| detail["run"]["phase"] == "running"));
    // Nobody reads the spool while it is written, and nobody minds, however
    // long that takes.
    let controller = Standing::still(stage.one_controller());
    let guard = Standing::still(only(&machine, "guard"));
    let agent = only(&machine, "agent");
    let still = Standing::still(agent);
    touch(&awkward.may_write);
    awkward.when_written();
    let attempts = stage.home.join("machines").join(&machine).join("attempts");
    let attempt = fs::read_dir(&attempts).unwrap().next().unwrap().unwrap().path();
    let truth = awkward.truth("stdout");
    let spooled = || -> u64 {
        let entries = fs::read_dir(attempt.join("spool")).unwrap().flatten();
        let of = entries.filter(|e| e.file_name().to_str().unwrap().starts_with("stdout.0"));
        of.map(|e| e.metadata().unwrap().len()).sum()
    };
    let kept = fs::metadata(log(&stage, &run, 1, "stdout")).map_or(0, |about| about.len());
    assert_eq!(kept, 0, "something was sent already");
    while_it_grows("all of it in the spool", || (spooled() == truth.len() as u64, spooled()));
    kill_one(only(&machine, "keeper"));
    touch(&awkward.may_end);
    // A power cut takes the end of a file that was never synced.
    let first = attempt.join("spool/stdout.0000000000000000");
    let segment = fs::metadata(&first).unwrap().len();
    let lost = (segment - 1_000, segment);
    OpenOptions::new().write(true).open(&first).unwrap().set_len(lost.0).unwrap();
    kill_one(agent);
    drop((still, guard, controller));

    let detail = stage.ended(&run);
    let ending = detail["attempts"][0]["ending"].as_str().unwrap_or_default();
    assert!(ending.contains("unknown"), "{detail:#}");
    assert_eq!(gaps(&stage, &run), [("stdout".to_owned(), lost.0, lost.1)]);
    let mut expected = truth;
    let (from, to) = (usize::try_from(lost.0).unwrap(), usize::try_from(lost.1).unwrap());
    expected[from..to].fill(0);
    same(&fs::read(log(&stage, &run, 1, "stdout")).unwrap(), &expected, "stdout");
    expected.drain(from..to);
    let said = stage.ok(&["logs", &run, "--stdout", "--attempt", "1"]);
    same(&said.stdout, &expected, "what is printed");
    assert!(said.stderr.contains("[1000 bytes of stdout of attempt 1 are missing]"), "{}", said.stderr);
}

/// A run of numbered lines.
fn numbered(stage: &Stage, count: u32, pause: f64, more: &[String]) -> String {
    let root = stage.project("lines", &[("program.py", LINES), ("outlast.toml", BARE)]);
    let own = [
        variable("COUNT", count),
        variable("PAUSE", pause),
        variable("MAY_END", stage.path("may-end").display()),
    ];
    let all: Vec<&str> = own.iter().chain(more).map(String::as_str).collect();
    stage.submit(&root, &all)
}

#[test]
fn who_follows_sees_the_next_attempt_and_the_next_controller_and_each_byte_once() {
    let stage = Stage::new();
    let run = numbered(&stage, 60, 0.05, &[variable("HOLD_AT", 40)]);
    let follower = stage.begin(&["logs", &run, "-f"]);
    let length = |attempt| fs::metadata(log(&stage, &run, attempt, "stdout")).map_or(0, |about| about.len());
    wait("output of the first attempt", || (length(1) > 100).then_some(()));
    let machine = machine_of(&stage.status(&run));
    stage.kill_machine(&machine);
    wait("output of the second attempt", || (length(2) > 50).then_some(()));
    stage.kill_controller();
    touch(&stage.path("may-end"));
    let said = follower.end().ends_with(0);
    stage.ends_as(&run, "SUCCEEDED");
    let both: Vec<u8> = [1, 2]
        .into_iter()
        .flat_map(|attempt| fs::read(log(&stage, &run, attempt, "stdout")).unwrap())
        .collect();
    same(&said.stdout, &both, "what was followed");
    let second = String::from_utf8(fs::read(log(&stage, &run, 2, "stdout")).unwrap()).unwrap();
    assert_eq!(second.lines().count(), 60);
    stage.verify();
}

#[test]
fn output_keeps_its_times_though_it_is_sent_late_and_can_be_asked_for_by_them() {
    let stage = Stage::new();
    let run = numbered(&stage, 6, 1.2, &[variable("HOLD_AT", 4)]);
    wait("the first line", || fs::metadata(log(&stage, &run, 1, "stdout")).ok().filter(|m| m.len() > 0));
    let machine = machine_of(&stage.status(&run));
    let controller = Standing::still(stage.one_controller());
    let guard = Standing::still(only(&machine, "guard"));
    let agent = Standing::still(only(&machine, "agent"));
    let spool = stage.home.join("machines").join(&machine).join("attempts");
    let spooled = || {
        let attempt = fs::read_dir(&spool).unwrap().next()?.unwrap().path();
        let text = fs::read_to_string(attempt.join("spool/stdout.0000000000000000")).ok()?;
        (text.lines().count() >= 5).then_some(text)
    };
    let held = wait("five lines in the spool", spooled).lines().count();
    // What was noted before now is not the time at which it is sent.
    let before_sending = unix_ms();
    drop((agent, guard, controller));
    touch(&stage.path("may-end"));
    stage.ends_as(&run, "SUCCEEDED");

    let text = stage.ok(&["logs", &run, "--timestamps"]).text();
    let mut own = Vec::new();
    for line in text.lines() {
        let (stamp, rest) = line.split_once(' ').unwrap();
        let written: u64 = rest.rsplit_once(' ').unwrap().1.parse().unwrap();
        let noted = cli::commands::unix_ms_of(stamp).unwrap_or_else(|| panic!("no time: {line}"));
        // The program takes its time, then writes, then the keeper reads: before
        // the program writes again, and before anything of it was sent.
        assert!(noted >= written, "{line}: noted {noted}");
        assert!(own.last().is_none_or(|(earlier, _)| *earlier < written), "{line}: {own:?}");
        assert!(own.len() >= held || noted <= before_sending, "{line}: sent after {before_sending}");
        own.push((noted, rest.to_owned()));
    }
    assert_eq!(own.len(), 6, "{text}");
    let since = cli::commands::moment(own[3].0);
    let late = stage.ok(&["logs", &run, "--since", &since]).text();
    let expected: Vec<&str> = own[3..].iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(late.lines().collect::<Vec<_>>(), expected);
    assert_eq!(stage.ok(&["logs", &run, "--since", "1h"]).text().lines().count(), 6);
    assert_eq!(stage.ok(&["logs", &run, "--grep", "^1 [24] "]).text().lines().count(), 2);
    assert_eq!(stage.ok(&["logs", &run, "--grep", "^1 [24] ", "--invert"]).text().lines().count(), 4);
    assert!(stage.call(&["logs", &run, "--grep", "("]).code != 0);
    let marks = records(&log(&stage, &run, 1, "stdout").with_extension("times.jsonl"));
    assert_eq!(marks.len(), 6, "{marks:?}");
}

/// The tool itself.
#[test]
fn a_cut_wire_ends_both_directions() {
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let wire = Wire::to(far.local_addr().unwrap().to_string());
    let mut near = TcpStream::connect(("127.0.0.1", wire.port)).unwrap();
    let (mut other, _) = far.accept().unwrap();
    near.write_all(b"up").unwrap();
    let mut two = [0; 2];
    other.read_exact(&mut two).unwrap();
    assert_eq!(&two, b"up");
    assert!(wire.cut() > 0);
    assert!(near.read(&mut two).unwrap_or(0) == 0 && other.read(&mut two).unwrap_or(0) == 0);
    assert_eq!(wire.cut(), 0);
}
