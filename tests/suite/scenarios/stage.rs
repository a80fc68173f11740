//! One installation of the program for one test: its data directory, its
//! projects, what it is asked and what it leaves. Ends everything that it
//! started when it goes, and fails the test if the program left something.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::processes::{describe, kill_all, marked, processes, signal};
use super::programs::GATED;

/// Everything that is waited for comes within this, on any machine and disk:
/// it is no statement about speed, and costs nothing where a test passes.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at something; longer where a look itself takes longer, so
/// that on a slow machine the looking leaves time to what is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What has ended or is ending when a test is over is gone within this.
const LINGER: Duration = Duration::from_secs(30);
/// Variables that would change what the program does here.
const FOREIGN: [&str; 3] = ["OUTLAST_", "TOY_", "XDG_"];

/// One installation.
pub(super) struct Stage {
    dir: TempDir,
    exe: PathBuf,
    /// The data directory.
    pub(super) home: PathBuf,
    calls: AtomicU32,
    /// Variables of every call.
    vars: Vec<(String, String)>,
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Said {
    /// Its exit code, or 128 and the signal.
    pub(super) code: i32,
    /// What it printed.
    pub(super) stdout: Vec<u8>,
    /// What it told.
    pub(super) stderr: String,
}

impl Said {
    /// What it printed, as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}\n{}", self.text(), self.stderr))
    }

    /// Fails unless it ended with this code.
    #[track_caller]
    pub(super) fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.text(), self.stderr);
        self
    }
}

/// A call that goes on.
pub(super) struct Call {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    what: String,
}

impl Call {
    /// What it has printed so far.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// Waits for its end.
    #[track_caller]
    pub(super) fn end(mut self) -> Said {
        let status = wait(&self.what.clone(), || self.child.try_wait().unwrap());
        Said {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: fs::read(&self.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned(),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until there is something.
#[track_caller]
pub(super) fn wait<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_or(what, look, String::new)
}

/// As [`wait`]; where it does not come, more is told.
#[track_caller]
pub(super) fn wait_or<T>(
    what: &str,
    mut look: impl FnMut() -> Option<T>,
    tell: impl FnOnce() -> String,
) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        let began = Instant::now();
        if let Some(found) = look() {
            return found;
        }
        if Instant::now() > until {
            panic!("still not there after {PATIENCE:?}: {what}\n{}", tell());
        }
        std::thread::sleep(LOOK.max(began.elapsed()));
    }
}

/// The repository, also where it was moved after the tests were built.
pub(super) fn repository() -> PathBuf {
    let manifest =
        std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    PathBuf::from(manifest).parent().expect("the tests are a folder of the repository").to_owned()
}

/// The program, next to the tests' own directory; built if it is not there.
pub(super) fn program() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let own = std::env::current_exe().unwrap();
            let profile = own.parent().and_then(Path::parent).unwrap().to_owned();
            let exe = profile.join("outlast");
            // Other test processes wait here until one of them has built it.
            let lock = File::create(profile.join(".outlast-for-scenarios.lock")).unwrap();
            lock.lock().unwrap();
            if !exe.exists() {
                let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
                let mut build = Command::new(cargo);
                build.args(["build", "-p", "cli", "--bin", "outlast"]).current_dir(repository());
                if profile.file_name().is_some_and(|name| name == "release") {
                    build.arg("--release");
                }
                assert!(build.status().unwrap().success(), "the program could not be built");
            }
            exe
        })
        .clone()
}

impl Stage {
    /// An empty one below `/tmp`: paths of sockets must be short.
    pub(super) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ol").tempdir_in("/tmp").unwrap();
        let home = dir.path().join("h");
        Self::at(dir, home)
    }

    /// One whose data directory is elsewhere in its directory.
    pub(super) fn at(dir: TempDir, home: PathBuf) -> Self {
        // A name of its own, so that a build that happens meanwhile does not
        // exchange the program under a running test.
        let exe = dir.path().join("outlast");
        let built = program();
        if fs::hard_link(&built, &exe).is_err() {
            fs::copy(&built, &exe).unwrap();
        }
        Self { dir, exe, home, calls: AtomicU32::new(0), vars: Vec::new() }
    }

    /// With more variables for every call, and for what the first one starts.
    pub(super) fn with(mut self, vars: impl IntoIterator<Item = (String, String)>) -> Self {
        self.vars.extend(vars);
        self
    }

    /// The program's own file here.
    pub(super) fn exe(&self) -> &Path {
        &self.exe
    }

    /// A path outside of every machine and of the data directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A project of these files.
    pub(super) fn project(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = self.path(name);
        fs::create_dir_all(&root).unwrap();
        for (path, text) in files {
            fs::write(root.join(path), text).unwrap();
        }
        root
    }

    /// The example that knows nothing of the product.
    pub(super) fn hf_style(&self) -> PathBuf {
        let example = repository().join("examples/hf-style");
        let read = |name: &str| fs::read_to_string(example.join(name)).unwrap();
        let (program, settings) = (read("train.py"), read("outlast.toml"));
        self.project("hf", &[("train.py", &program), ("gated.py", GATED), ("outlast.toml", &settings)])
    }

    /// A call that is not begun, with the variables of this installation alone.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        for (name, _) in std::env::vars_os() {
            if FOREIGN.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes())) {
                command.env_remove(name);
            }
        }
        command.args(args).env("OUTLAST_HOME", &self.home).current_dir(self.dir.path());
        command.env("XDG_CONFIG_HOME", self.path("config")).stdin(Stdio::null());
        command.env_remove("VAST_API_KEY").env_remove("VAST_URL").env("HOME", self.dir.path());
        command.envs(self.vars.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Begins a call.
    pub(super) fn begin(&self, args: &[&str]) -> Call {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let stdout = self.path(&format!("call{number}.out"));
        let stderr = self.path(&format!("call{number}.err"));
        let mut command = self.command(args);
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        let child = command.spawn().unwrap();
        Call { child, stdout, stderr, what: format!("the end of `outlast {}`", args.join(" ")) }
    }

    /// Makes a call and waits for its end.
    #[track_caller]
    pub(super) fn call(&self, args: &[&str]) -> Said {
        self.begin(args).end()
    }

    /// Makes a call that succeeds.
    #[track_caller]
    pub(super) fn ok(&self, args: &[&str]) -> Said {
        self.call(args).ends_with(0)
    }

    /// Begins a run that nobody attends, and gives its name.
    #[track_caller]
    pub(super) fn submit(&self, root: &Path, settings: &[&str]) -> String {
        let mut args = vec!["run", root.to_str().unwrap(), "-d", "--yes"];
        args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        self.ok(&args).text().trim().to_owned()
    }

    /// All that is known of a run.
    #[track_caller]
    pub(super) fn status(&self, run: &str) -> Value {
        self.ok(&["status", run, "--json"]).json()
    }

    /// Waits until a run is as asked.
    #[track_caller]
    pub(super) fn when(&self, run: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let look = || {
            let detail = self.status(run);
            if is(&detail) {
                return Some(detail);
            }
            assert!(!is_over(&detail), "{run} ended before it was {what}: {detail:#}\n{}", self.story(run));
            None
        };
        wait_or(&format!("{run} {what}"), look, || self.story(run))
    }

    /// Waits until a step of a run is durable, and says which.
    #[track_caller]
    pub(super) fn when_durable(&self, run: &str, at_least: u64) -> u64 {
        let durable = |detail: &Value| detail["run"]["durable_step"].as_u64();
        let what = format!("durable at step {at_least}");
        durable(&self.when(run, &what, |detail| durable(detail) >= Some(at_least))).unwrap()
    }

    /// Waits until a run has ended and its machines are confirmed gone.
    #[track_caller]
    pub(super) fn ended(&self, run: &str) -> Value {
        let look = || {
            let detail = self.status(run);
            let gone = detail["machines"].as_array().unwrap().iter().all(|machine| {
                matches!(machine["state"].as_str(), Some("DESTROYED" | "REJECTED" | "ABANDONED"))
            });
            (is_over(&detail) && gone).then_some(detail)
        };
        let tell = || format!("{:#}\n{}", self.status(run), self.story(run));
        wait_or(&format!("the end of {run} and of its machines"), look, tell)
    }

    /// Waits for a run's end, which must be this one.
    #[track_caller]
    pub(super) fn ends_as(&self, run: &str, state: &str) -> Value {
        let detail = self.ended(run);
        assert_eq!(detail["run"]["state"], state, "{detail:#}\n{}", self.story(run));
        detail
    }

    /// What was journalled of a run, for messages.
    pub(super) fn story(&self, run: &str) -> String {
        let log = fs::read_to_string(self.home.join("controller.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("{}\n{}", self.call(&["events", run]).text(), tail.join("\n"))
    }

    /// The journal of a run from an entry on.
    #[track_caller]
    pub(super) fn events(&self, run: &str) -> Vec<Value> {
        self.ok(&["events", run, "--json"]).json().as_array().unwrap().clone()
    }

    /// Fails unless the journal's chain holds.
    #[track_caller]
    pub(super) fn verify(&self) {
        let said = self.ok(&["events", "--verify", "--json"]).json();
        assert_eq!(said["chain_holds"], true, "{said:#}");
    }

    /// The process of the controller that was announced last.
    pub(super) fn controller(&self) -> Option<i32> {
        let text = fs::read(self.home.join("controller.json")).ok()?;
        let pid = serde_json::from_slice::<Value>(&text).ok()?["pid"].as_i64()?;
        i32::try_from(pid).ok()
    }

    /// The controllers that run for this data directory.
    pub(super) fn controllers(&self) -> Vec<i32> {
        let home = self.home.as_os_str().as_bytes();
        processes(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|b| *b == 0);
            words.nth(1) == Some(b"controller-serve") && words.nth(1) == Some(home)
        })
    }

    /// The controller that runs, alone.
    #[track_caller]
    pub(super) fn one_controller(&self) -> i32 {
        wait("one controller", || match self.controllers()[..] {
            [pid] => Some(pid),
            _ => None,
        })
    }

    /// Waits until none runs: one lets go of the data directory before it has ended.
    #[track_caller]
    pub(super) fn no_controller(&self) {
        wait("no controller", || self.controllers().is_empty().then_some(()));
    }

    /// Ends the controller as a power cut would.
    pub(super) fn kill_controller(&self) {
        let pid = wait("a controller", || self.controllers().first().copied());
        signal(pid, Signal::SIGKILL);
        wait("the end of the controller", || (!self.controllers().contains(&pid)).then_some(()));
    }

    /// Takes a machine away: every process that carries its marker and all of
    /// its disk.
    pub(super) fn kill_machine(&self, machine: &str) {
        let directory = self.home.join("machines").join(machine);
        assert!(directory.is_dir(), "the machine {machine} has no directory");
        kill_all(|| marked(machine));
        // The kernel's writes may still be on their way for a moment.
        wait("the machine's directory gone", || {
            let _ = fs::remove_dir_all(&directory);
            (!directory.exists()).then_some(())
        });
    }

    /// Waits until a machine's guard has heard that its agent was welcomed by the
    /// controller.
    #[track_caller]
    pub(super) fn when_welcomed(&self, machine: &str) {
        let socket = self.home.join("machines").join(machine).join("guard.sock");
        wait("an agent that was welcomed", || {
            let mut said = String::new();
            let mut stream = UnixStream::connect(&socket).ok()?;
            stream.write_all(b"{\"status\":{}}\n").ok()?;
            stream.read_to_string(&mut said).ok()?;
            serde_json::from_str::<Value>(&said).is_ok_and(|said| said["ready"] == true).then_some(())
        });
    }

    /// Fails if anything of a machine is left.
    #[track_caller]
    pub(super) fn is_gone(&self, machine: &str) {
        assert_eq!(marked(machine), Vec::<i32>::new(), "processes of {machine} are left");
        assert!(!self.home.join("machines").join(machine).exists(), "the directory of {machine} is left");
    }

    /// All processes that belong to this installation.
    fn left(&self) -> Vec<i32> {
        let mut own = self.home.as_os_str().as_bytes().to_vec();
        own.push(b'/');
        let names = |bytes: &[u8]| {
            let bare = &own[..own.len() - 1];
            bytes.windows(own.len()).any(|part| part == own.as_slice())
                || bytes.split(|b| matches!(b, 0 | b'=')).any(|word| word == bare)
        };
        processes(|pid| {
            let of = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let place = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            names(&of("cmdline")) || names(&of("environ")) || names(place.as_os_str().as_bytes())
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let mut stop = self.command(&["controller", "stop"]);
        let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
        // One that has just ended is seen for a moment yet.
        let until = Instant::now() + LINGER;
        let mut left = self.left();
        while !left.is_empty() && Instant::now() < until {
            std::thread::sleep(LOOK);
            left = self.left();
        }
        let told: Vec<String> = left.iter().map(|pid| describe(*pid)).collect();
        kill_all(|| self.left());
        if !told.is_empty() && !std::thread::panicking() {
            panic!("the program left {} process(es) behind:\n{}", told.len(), told.join("\n"));
        }
    }
}

/// Whether a run has ended.
pub(super) fn is_over(detail: &Value) -> bool {
    detail["run"]["ended_ms"].as_u64().is_some_and(|at| at > 0)
}

/// The machine that a run is on.
#[track_caller]
pub(super) fn machine_of(detail: &Value) -> String {
    detail["run"]["machine"].as_str().filter(|id| !id.is_empty()).expect("a machine").to_owned()
}

/// The lines of a file that a program appends to; none while there is none.
pub(super) fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // A line that is not whole yet is no line.
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
}

/// Lines that are JSON.
#[track_caller]
pub(super) fn records(path: &Path) -> Vec<Value> {
    lines(path).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes a small file that a program may read at any time: it sees the old
/// text or the new one.
pub(super) fn exchange(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, path).unwrap();
}

/// Makes an empty file, for a program that waits for it.
pub(super) fn touch(path: &Path) {
    File::create(path).unwrap().write_all(b"").unwrap();
}

/// A setting of a variable of the command.
pub(super) fn variable(name: &str, value: impl std::fmt::Display) -> String {
    format!("run.env.{name}={value}")
}
