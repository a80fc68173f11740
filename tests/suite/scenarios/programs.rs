//! Small training programs for the scenarios, in Python without packages. What
//! they did is written outside of every machine, so that it can be compared
//! with what the product says. What a test acts upon goes on until the test
//! lets it end, however slow the machine is: no program's length is a time.

use std::path::PathBuf;

use serde_json::Value;

use super::stage::{Stage, exchange, lines, records, touch, variable, wait};

/// Writes known noise to its output and numbered lines to its error stream,
/// until `NOISE_END` is there; then it notes how many rounds that were.
const NOISE: &str = r#"
import hashlib, os, sys, time
def note(name, line):
    with open(os.environ[name], "a") as file:
        file.write(line + "\n")
note("NOISE_STARTS", f"{os.environ['OUTLAST_GENERATION']} {os.getpid()}")
i = 0
while not os.path.exists(os.environ["NOISE_END"]):
    due = time.monotonic() + 0.05
    sys.stdout.buffer.write(hashlib.shake_256(b"%d" % i).digest(1500))
    sys.stdout.buffer.flush()
    sys.stderr.write(f"line {i}\n")
    sys.stderr.flush()
    i += 1
    time.sleep(max(0.0, due - time.monotonic()))
note("NOISE_ROUNDS", str(i))
"#;

/// The same noise at once, for comparison.
const NOISE_AT_ONCE: &str = r#"
import hashlib, sys
for i in range(int(sys.argv[1])):
    sys.stdout.buffer.write(hashlib.shake_256(b"%d" % i).digest(1500))
"#;

/// Keeps the contract: saves to `OUTLAST_CHECKPOINT_DIR`, goes on from
/// `OUTLAST_RESUME_FROM`, saves when it is asked to end.
/// `HOW=place`: archives, under their own names while they are written.
/// `HOW=temporary`: free bytes, under a temporary name while they are written.
/// `ON_USR1`: it saves when it is asked to, and does no step after that; `late`:
/// at the gate, once there is a record `late`.
/// `HALF`: the first generation never writes more than half of this step's save.
const TRAINING: &str = r#"
import hashlib, json, os, signal, sys, time, zipfile
get = os.environ.get
STEPS, PAUSE = int(get("STEPS", "30")), float(get("STEP_MS", "100")) / 1000
EVERY, SIZE, SLOW = int(get("EVERY", "10")), int(get("SIZE", "4096")), float(get("SLOW", "0"))
HOW, RECORD, GATE, HALF = get("HOW", "place"), os.environ["RECORD"], get("GATE"), int(get("HALF", "0"))
GENERATION, RESUME = os.environ["OUTLAST_GENERATION"], get("OUTLAST_RESUME_FROM", "")

def note(name, line):
    fd = os.open(os.path.join(RECORD, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(fd, (line + "\n").encode())
    os.fsync(fd)
    os.close(fd)

def sha(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

def slowly(file, payload, step):
    # Pieces that take their time: whoever looks meanwhile sees a part.
    for i in range(8):
        while i == 4 and step == HALF and GENERATION == "1":
            time.sleep(1)
        file.write(payload[i * len(payload) // 8:(i + 1) * len(payload) // 8])
        file.flush()
        time.sleep(SLOW / 8)

def save(step):
    payload = hashlib.shake_256(b"%d" % step).digest(SIZE)
    name = f"step-{step:06}." + ("npz" if HOW == "place" else "weights")
    path = os.path.join(os.environ["OUTLAST_CHECKPOINT_DIR"], name)
    note("saves", json.dumps({"generation": GENERATION, "step": step, "state": "begun"}))
    if HOW == "place":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("step", str(step))
            with archive.open("payload", "w") as file:
                slowly(file, payload, step)
    else:
        with open(path + ".tmp", "wb") as file:
            file.write(b"%012d" % step)
            slowly(file, payload, step)
        os.rename(path + ".tmp", path)
    note("saves", json.dumps({"generation": GENERATION, "step": step, "state": "done", "sha256": sha(path)}))

def load(path):
    if HOW == "place":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            return int(archive.read("step"))
    with open(path, "rb") as file:
        return int(file.read(12))

asked = False
def on_term(*_):
    global asked
    asked = True
signal.signal(signal.SIGTERM, on_term)

wanted = False
def on_usr1(*_):
    global wanted
    wanted = True
if get("ON_USR1") == "yes":
    signal.signal(signal.SIGUSR1, on_usr1)

def save_as_asked():
    save(step)
    note("noticed", str(step))
    while not asked:
        print("holding", flush=True)
        time.sleep(0.02)
    sys.exit(0)

def gate():
    if wanted:
        save_as_asked()
    while GATE and not asked and step >= int(open(GATE).read()):
        if wanted:
            save_as_asked()
        if get("ON_USR1") == "late" and os.path.exists(os.path.join(RECORD, "late")):
            signal.signal(signal.SIGUSR1, on_usr1)
        # What is said meanwhile is said by a program that goes on.
        print("holding", flush=True)
        time.sleep(0.02)

step = load(RESUME) if RESUME else 0
note("starts", json.dumps({"generation": int(GENERATION), "pid": os.getpid(),
    "resume_step": step if RESUME else None, "resume_sha256": sha(RESUME) if RESUME else None}))
while step < STEPS:
    gate()
    due = time.monotonic() + PAUSE
    step += 1
    note("steps", f"{GENERATION} {step}")
    print(f"step={step} loss={1 / step:.4f}", flush=True)
    if step % EVERY == 0 or asked:
        save(step)
    if asked:
        note("asked", str(step))
        sys.exit(0)
    time.sleep(max(0.0, due - time.monotonic()))
note("finished", GENERATION)
gate()
os.makedirs("results", exist_ok=True)
with open("results/end.txt", "w") as file:
    file.write(f"{step}\n")
"#;

/// The example, held at the gate. It knows nothing of gates itself.
pub(super) const GATED: &str = r#"
import os, time
import train
advance = train.Training.advance
def gated(training):
    while training.step >= int(open(os.environ["GATE"]).read()):
        time.sleep(0.02)
    return advance(training)
train.Training.advance = gated
train.main()
"#;

/// Knows nothing at all: saves below its own directory, takes `--resume`, and
/// appends to a table of its own.
const STRANGER: &str = r#"
import json, os, sys, time
RECORD = os.environ["RECORD"]

def note(name, line):
    with open(os.path.join(RECORD, name), "a") as file:
        file.write(line + "\n")

step, resume = 0, None
if sys.argv[1:2] == ["--resume"]:
    resume = sys.argv[2]
    with open(resume) as file:
        step = json.load(file)["step"]
os.makedirs("saves", exist_ok=True)
os.makedirs("tables", exist_ok=True)
life = 1 + len(open("tables/lives.txt").read().split()) if os.path.exists("tables/lives.txt") else 1
with open("tables/lives.txt", "a") as file:
    file.write(f"{life}\n")
note("starts", json.dumps({"resume": resume, "resume_step": step if resume else None, "here": os.getcwd()}))
while step < int(os.environ["STEPS"]):
    while step >= int(open(os.environ["GATE"]).read()):
        time.sleep(0.02)
    step += 1
    with open("tables/log.csv", "a") as file:
        file.write(f"{life},{step}\n")
    if step % 10 == 0:
        with open(f"saves/step-{step}.json", "w") as file:
            json.dump({"step": step}, file)
    note("steps", f"{life} {step}")
    time.sleep(0.06)
"#;

const BARE: &str = "[run]\ncommand = [\"python3\", \"program.py\"]\n[environment]\nkind = \"none\"\n";

/// The known noise: a project, and what its output is.
pub(super) struct Noise {
    pub(super) root: PathBuf,
    settings: Vec<String>,
    starts: PathBuf,
    rounds: PathBuf,
    end: PathBuf,
    script: PathBuf,
}

impl Noise {
    /// One that goes on until it may end.
    pub(super) fn new(stage: &Stage) -> Self {
        let root = stage.project("noise", &[("program.py", NOISE), ("outlast.toml", BARE)]);
        let script = stage.path("at-once.py");
        std::fs::write(&script, NOISE_AT_ONCE).unwrap();
        let (starts, rounds, end) = (stage.path("starts"), stage.path("rounds"), stage.path("end"));
        let settings = vec![
            variable("NOISE_STARTS", starts.display()),
            variable("NOISE_ROUNDS", rounds.display()),
            variable("NOISE_END", end.display()),
        ];
        Self { root, settings, starts, rounds, end, script }
    }

    /// Its settings as arguments want them.
    pub(super) fn settings(&self) -> Vec<&str> {
        self.settings.iter().map(String::as_str).collect()
    }

    /// `generation pid` of each start.
    pub(super) fn starts(&self) -> Vec<String> {
        lines(&self.starts)
    }

    /// From now on it ends when it likes.
    pub(super) fn may_end(&self) {
        touch(&self.end);
    }

    /// How many rounds each one wrote that has ended, in order.
    pub(super) fn rounds(&self) -> Vec<u32> {
        lines(&self.rounds).iter().map(|line| line.parse().unwrap()).collect()
    }

    /// How many rounds the only one wrote.
    #[track_caller]
    fn only(&self) -> u32 {
        let [rounds] = self.rounds()[..] else { panic!("not one has ended: {:?}", self.rounds()) };
        rounds
    }

    /// What so many rounds are on its output.
    pub(super) fn stdout_of(&self, rounds: u32) -> Vec<u8> {
        let mut python = std::process::Command::new("python3");
        let made = python.arg(&self.script).arg(rounds.to_string()).output().unwrap();
        assert!(made.status.success());
        assert_eq!(made.stdout.len(), 1500 * rounds as usize);
        made.stdout
    }

    /// What the only one wrote to its output.
    #[track_caller]
    pub(super) fn stdout(&self) -> Vec<u8> {
        self.stdout_of(self.only())
    }

    /// What the only one wrote to its error stream.
    #[track_caller]
    pub(super) fn stderr(&self) -> String {
        (0..self.only()).map(|i| format!("line {i}\n")).collect()
    }

    /// Fails unless the controller has every byte once.
    #[track_caller]
    pub(super) fn is_whole(&self, stage: &Stage, run: &str) {
        let stdout = stage.ok(&["logs", run, "--stdout"]).stdout;
        let expected = self.stdout();
        let differs = stdout.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!((stdout.len(), differs), (expected.len(), None), "stdout differs");
        assert_eq!(stage.ok(&["logs", run, "--stderr"]).text(), self.stderr());
    }
}

/// A training, and what it wrote of itself.
pub(super) struct Training {
    pub(super) root: PathBuf,
    pub(super) record: PathBuf,
    settings: Vec<String>,
}

impl Training {
    /// One that keeps the contract.
    pub(super) fn new(stage: &Stage, settings: &[(&str, &str)]) -> Self {
        let quick = format!("{BARE}[checkpoints]\nquiet = \"1s\"\n");
        Self::of(stage, TRAINING, &quick, settings)
    }

    /// One that knows nothing.
    pub(super) fn stranger(stage: &Stage, steps: u32) -> Self {
        let toml = format!(
            "{BARE}[checkpoints]\npaths = [\"saves/step-*.json\"]\nrestore = \"in-place\"\n\
             resume_args = [\"--resume\", \"{{path}}\"]\n[artifacts]\nglobs = [\"tables/**\"]\n"
        );
        Self::of(stage, STRANGER, &toml, &[("STEPS", &steps.to_string())])
    }

    fn of(stage: &Stage, program: &str, toml: &str, settings: &[(&str, &str)]) -> Self {
        let root = stage.project("training", &[("program.py", program), ("outlast.toml", toml)]);
        let record = stage.path("record");
        std::fs::create_dir_all(&record).unwrap();
        let mut all = vec![variable("RECORD", record.display())];
        all.extend(settings.iter().map(|(name, value)| variable(name, value)));
        Self { root, record, settings: all }
    }

    /// The example that saves directories, with so many steps of `ms`.
    pub(super) fn hf_style(stage: &Stage, steps: u32, ms: u32, every: u32) -> Self {
        let record = stage.path("record");
        std::fs::create_dir_all(&record).unwrap();
        let settings = vec![
            variable("TOY_STEPS", steps),
            variable("TOY_STEP_MS", ms),
            variable("TOY_SAVE_EVERY", every),
            variable("TOY_START_FILE", record.join("starts").display()),
            variable("TOY_STEP_FILE", record.join("steps").display()),
            // Nothing but rest tells that such a directory is whole.
            "checkpoints.quiet=1s".to_owned(),
        ];
        Self { root: stage.hf_style(), record, settings }
    }

    /// The same with one more setting.
    pub(super) fn set(mut self, setting: impl Into<String>) -> Self {
        self.settings.push(setting.into());
        self
    }

    /// One that begins no step after this one until it may go on. With its last
    /// step it does not end.
    pub(super) fn gated(mut self, step: u64) -> Self {
        exchange(&self.gate(), &step.to_string());
        self.settings.push(variable("GATE", self.gate().display()));
        if self.root.join("gated.py").exists() {
            self.settings.push("run.command=[\"python3\",\"gated.py\"]".to_owned());
        }
        self
    }

    fn gate(&self) -> PathBuf {
        self.record.join("gate")
    }

    /// Opens the gate of it as far as this step.
    pub(super) fn may_go_to(&self, step: u64) {
        exchange(&self.gate(), &step.to_string());
    }

    /// Opens the gate of it for good.
    pub(super) fn may_end(&self) {
        self.may_go_to(1_000_000_000);
    }

    /// Waits until this step was done.
    #[track_caller]
    pub(super) fn when_done(&self, step: u64) {
        wait(&format!("step {step}"), || self.steps().iter().any(|(_, s)| *s == step).then_some(()));
    }

    /// Begins a run.
    #[track_caller]
    pub(super) fn submit(&self, stage: &Stage) -> String {
        stage.submit(&self.root, &self.settings())
    }

    /// Its settings as arguments want them.
    pub(super) fn settings(&self) -> Vec<&str> {
        self.settings.iter().map(String::as_str).collect()
    }

    /// Each start of the program.
    pub(super) fn starts(&self) -> Vec<Value> {
        records(&self.record.join("starts"))
    }

    /// Each save, begun and done.
    pub(super) fn saves(&self) -> Vec<Value> {
        records(&self.record.join("saves"))
    }

    /// What a save of this step was said to be.
    #[track_caller]
    pub(super) fn saved(&self, step: u64) -> String {
        let saves = self.saves();
        let done = saves.iter().find(|save| save["step"] == step && save["state"] == "done");
        done.unwrap_or_else(|| panic!("step {step} was never saved: {saves:?}"))["sha256"]
            .as_str()
            .unwrap()
            .into()
    }

    /// `(generation, step)` of each step done.
    pub(super) fn steps(&self) -> Vec<(u64, u64)> {
        let pair = |line: &String| {
            let (generation, step) = line.split_once(' ').unwrap();
            (generation.parse().unwrap(), step.parse().unwrap())
        };
        lines(&self.record.join("steps")).iter().map(pair).collect()
    }

    /// Lines of another file that it wrote.
    pub(super) fn noted(&self, name: &str) -> Vec<String> {
        lines(&self.record.join(name))
    }
}
