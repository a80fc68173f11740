//! Guard, keeper and client together, as real processes. The test binary plays
//! the agent's three faces itself: a small script turns `keeper --attempt DIR`
//! and the other verbs into a run of the one test that acts as that process.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed; one that is passed over says so"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::guard::{self, GuardConfig, GuardError};
use agent::keeper::{self, ExitRecord, KeeperSpec, StopKind};
use agent::os::{self, ProcessRef, Tree};
use agent::process::{KeeperClient, KeeperState, ProcessError};
use agent::spool::{Piece, SpoolReader, Stream};
use lifecycle::Exit;
use lifecycle::spec::LimitSpec;

#[path = "machine/containers.rs"]
mod containers;
#[path = "machine/endings.rs"]
mod endings;

const ROLE: &str = "OUTLAST_TEST_ROLE";
const DIR: &str = "OUTLAST_TEST_DIR";
const EXE: &str = "OUTLAST_TEST_EXE";
/// However slow the machine and its disk are, nothing here takes as long.
const LONG: Duration = Duration::from_mins(3);

/// Not a check of its own: the body of the processes that the tests start.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = PathBuf::from(std::env::var(DIR).unwrap());
    let code = match role.as_str() {
        "keeper" => i32::from(keeper::run(&dir).is_err()),
        "guard" => {
            let exe = std::env::var(EXE).unwrap().into();
            match guard::run(GuardConfig { log: dir.join("agent.log"), state_dir: dir, exe }) {
                Ok(()) => 0,
                Err(GuardError::AlreadyRunning { .. }) => 17,
                Err(_) => 1,
            }
        }
        _ => 2,
    };
    std::process::exit(code);
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A machine with its guard, all of whose processes end with it.
struct Machine {
    _root: tempfile::TempDir,
    state: PathBuf,
    exe: PathBuf,
    id: String,
    guard: Child,
    attempts: Vec<String>,
}

impl Machine {
    fn new() -> Self {
        Self::named("state")
    }

    fn named(name: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().canonicalize().unwrap().join(name);
        fs::create_dir(&state).unwrap();
        let exe = root.path().join("outlast-agent");
        let own = std::env::current_exe().unwrap();
        // The agent of these tests says that it lives, gives its number and waits.
        let script = format!(
            "#!/bin/sh\ncase $1 in\nagent) echo agent says; echo $$ >> \"$3/began\"; exec sleep 1000000;;\n\
             *) {ROLE}=$1 {DIR}=\"$3\" {EXE}=\"$0\" exec '{}' --exact role --nocapture --test-threads=1;;\nesac\n",
            own.display()
        );
        fs::write(&exe, script).unwrap();
        fs::set_permissions(&exe, fs::Permissions::from_mode(0o755)).unwrap();
        let id = format!("m-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let guard = start_guard(&exe, &state, &id);
        until("the guard's socket", || state.join("guard.sock").exists().then_some(()));
        Self { _root: root, state, exe, id, guard, attempts: Vec::new() }
    }

    fn spec(&mut self, script: &str) -> KeeperSpec {
        let attempt_id = format!("{}-a{}", self.id, self.attempts.len());
        self.attempts.push(attempt_id.clone());
        KeeperSpec {
            attempt_id,
            machine_id: self.id.clone(),
            argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
            cwd: self.state.clone(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            spool_bytes: 0,
            grace_ms: 30_000,
            limits: LimitSpec::default(),
            pty: false,
            container: None,
            secrets: None,
        }
    }

    fn dir(&self, spec: &KeeperSpec) -> PathBuf {
        self.state.join("attempts").join(&spec.attempt_id)
    }

    fn start_spec(&self, spec: &KeeperSpec) -> KeeperClient {
        KeeperClient::start(&self.state, &self.dir(spec), spec).unwrap();
        KeeperClient::new(self.dir(spec))
    }

    fn start(&mut self, script: &str) -> (KeeperClient, PathBuf) {
        let spec = self.spec(script);
        (self.start_spec(&spec), self.dir(&spec))
    }

    /// Runs a script to its end.
    fn finish(&mut self, script: &str) -> (ExitRecord, PathBuf) {
        let (client, dir) = self.start(script);
        (end_of(&client), dir)
    }

    fn agent_pids(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.state.join("began")).unwrap_or_default();
        text.lines().filter_map(|l| l.parse().ok()).collect()
    }
}

fn start_guard(exe: &Path, state: &Path, id: &str) -> Child {
    Command::new(exe)
        .args(["guard", "--state"])
        .arg(state)
        .env("OUTLAST_MACHINE_ID", id)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let end = Instant::now() + LONG;
        let trees = self.attempts.iter().map(|a| Tree::marked("OUTLAST_ATTEMPT", a));
        for tree in trees.chain([Tree::marked("OUTLAST_MACHINE_ID", &self.id)]) {
            while tree.kill_pass() > 0 && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Asks as the agent does: again while the keeper waits for its disk.
fn stop(client: &KeeperClient, grace: Duration) {
    until("the keeper to take the stop", || client.stop(grace).ok());
}

fn kill(client: &KeeperClient) {
    until("the keeper to take the kill", || client.kill().ok());
}

fn end_of(client: &KeeperClient) -> ExitRecord {
    until("the end of the attempt", || match client.state() {
        KeeperState::Exited(record) => Some(record),
        KeeperState::Vanished => panic!("the keeper vanished"),
        _ => None,
    })
}

fn child_of(client: &KeeperClient) -> ProcessRef {
    until("the child", || match client.state() {
        KeeperState::Running { child_pid } => ProcessRef::of(child_pid),
        _ => None,
    })
}

fn file_in(dir: &Path, name: &str) -> String {
    until(name, || fs::read_to_string(dir.join(name)).ok().filter(|t| t.ends_with('\n')))
}

fn pid_in(dir: &Path, name: &str) -> ProcessRef {
    ProcessRef::of(file_in(dir, name).trim().parse().unwrap()).unwrap()
}

fn keeper_of(dir: &Path) -> ProcessRef {
    serde_json::from_slice(&fs::read(dir.join("started")).unwrap()).unwrap()
}

/// Everything a stream gave: the bytes and the gaps.
fn output(dir: &Path, stream: Stream) -> (Vec<u8>, Vec<(u64, u64)>) {
    let mut reader = SpoolReader::open(dir);
    let (mut all, mut gaps, mut at) = (Vec::new(), Vec::new(), 0);
    loop {
        match reader.read(stream, at, 1 << 20).unwrap() {
            Piece::Bytes { offset, bytes } => {
                assert_eq!(offset, at);
                at += bytes.len() as u64;
                all.extend(bytes);
            }
            Piece::Gap { from, to } => {
                gaps.push((from, to));
                at = to;
            }
            Piece::End => return (all, gaps),
        }
    }
}

#[test]
fn the_guard_of_a_slot_holds_its_lock_as_long_as_it_lives() {
    let machine = Machine::new();
    let slot = machine.state.with_file_name("slot");
    let lock = machine.state.with_file_name("0.lock");
    fs::create_dir(&slot).unwrap();
    fs::write(lock.with_extension("claim"), format!("machine {}\n", machine.id)).unwrap();
    let mut guard = Command::new(&machine.exe)
        .args(["guard", "--state"])
        .arg(&slot)
        .env("OUTLAST_MACHINE_ID", &machine.id)
        .env("OUTLAST_SLOT_LOCK", &lock)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let agent = pid_in(&slot, "began");
    let held = || os::FileLock::try_take(&lock).unwrap().is_none();
    assert!(held());
    guard.kill().unwrap();
    guard.wait().unwrap();
    assert!(agent.is_alive() && !held(), "no other process has it from its guard");
}

#[test]
fn exit_codes_and_signals_are_those_of_the_program() {
    let mut machine = Machine::new();
    for code in [0, 1, 42, 255] {
        let (record, _) = machine.finish(&format!("exit {code}"));
        assert_eq!(record.exit, Exit::Code { code });
        assert!(record.is_final && record.stopped_by.is_none() && record.oom.is_none());
        assert!(record.started_ms > 0 && record.ended_ms >= record.started_ms);
    }
    let (record, _) = machine.finish("kill -SEGV $$");
    assert_eq!(record.exit, Exit::Signal { signal: 11, core: false }, "no core file is written");
    let (record, _) = machine.finish("kill -KILL $$");
    assert!(matches!(record.exit, Exit::Signal { signal: 9, .. }));
    let (record, _) = machine.finish("kill -40 $$");
    assert!(matches!(record.exit, Exit::Signal { signal: 40, .. }), "real-time signals too: {record:?}");
}

#[test]
fn what_cannot_be_started_is_recorded_as_not_started() {
    let mut machine = Machine::new();
    let missing = KeeperSpec { argv: vec!["/nonexistent/program".to_owned()], ..machine.spec("") };
    let record = end_of(&machine.start_spec(&missing));
    assert!(matches!(&record.exit, Exit::NotStarted { reason } if reason.contains("/nonexistent/program")));
    let nowhere = KeeperSpec { cwd: "/nonexistent".into(), ..machine.spec("true") };
    let record = end_of(&machine.start_spec(&nowhere));
    assert!(matches!(&record.exit, Exit::NotStarted { reason } if reason.contains("working directory")));
}

#[test]
fn output_is_byte_exact_on_both_streams() {
    let mut machine = Machine::new();
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend(std::iter::repeat_with(|| fastrand::u8(..)).take(9_000_000));
    fs::write(machine.state.join("blob"), &bytes).unwrap();
    let (record, dir) = machine.finish("cat blob; printf 'a\\0b\\377' >&2");
    assert_eq!(record.exit, Exit::Code { code: 0 });
    let (stdout, gaps) = output(&dir, Stream::Stdout);
    assert!(stdout == bytes && gaps.is_empty(), "{} of {} bytes", stdout.len(), bytes.len());
    assert_eq!(output(&dir, Stream::Stderr).0, b"a\0b\xff");
    assert_eq!((record.stdout_len, record.stderr_len), (bytes.len() as u64, 4));
    assert!(fs::read_dir(dir.join("spool")).unwrap().count() >= 4, "long output lies in several segments");
}

#[test]
fn the_environment_is_exactly_what_was_asked_for() {
    let mut machine = Machine::new();
    let mut spec = machine.spec("env; readlink /proc/self/fd/0; echo; ulimit -c");
    spec.env.insert("GIVEN".to_owned(), "yes".to_owned());
    let record = end_of(&machine.start_spec(&spec));
    assert_eq!(record.exit, Exit::Code { code: 0 });
    let text = String::from_utf8(output(&machine.dir(&spec), Stream::Stdout).0).unwrap();
    assert!(text.contains("GIVEN=yes\n") && text.contains(&format!("OUTLAST_ATTEMPT={}\n", spec.attempt_id)));
    assert!(text.contains(&format!("OUTLAST_MACHINE_ID={}\n", machine.id)));
    assert!(!text.contains(ROLE) && !text.contains("HOME="), "nothing is inherited: {text}");
    assert!(text.ends_with("/dev/null\n\n0\n"), "{text}");
}

#[test]
fn output_over_the_quota_becomes_one_exact_gap_and_never_blocks() {
    let mut machine = Machine::new();
    let mut spec = machine.spec("head -c 3000000 /dev/zero; touch written; sleep 600");
    spec.spool_bytes = 1 << 20;
    let client = machine.start_spec(&spec);
    let dir = machine.dir(&spec);
    until("the program to have written all of it", || machine.state.join("written").exists().then_some(()));
    let mut reader = SpoolReader::open(&dir);
    until("the gap on disk", || (reader.len(Stream::Stdout) == 3_000_000).then_some(()));
    assert_eq!(
        reader.read(Stream::Stdout, 2_000_000, 1).unwrap(),
        Piece::Gap { from: 2_000_000, to: 3_000_000 }
    );
    kill(&client);
    let record = end_of(&client);
    assert_eq!((record.stdout_len, record.stopped_by), (3_000_000, Some(StopKind::Kill)));
    let (bytes, gaps) = output(&dir, Stream::Stdout);
    assert_eq!(bytes, vec![0; 1 << 20]);
    assert_eq!(gaps, [(1 << 20, 3_000_000)]);
}

#[test]
fn a_fork_storm_is_ended() {
    let mut machine = Machine::new();
    let (client, dir) = machine.start(
        "trap '' TERM; f() { while :; do (sleep 0.01; : ) & done; }; echo go > go; (f) & (f) & while :; do sleep 0.02; done",
    );
    file_in(&machine.state, "go");
    kill(&client);
    let record = end_of(&client);
    assert_eq!((record.stopped_by, record.unkillable), (Some(StopKind::Kill), 0));
    let id = dir.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(Tree::marked("OUTLAST_ATTEMPT", &id).members().is_empty());
}

#[test]
fn daemons_that_hold_the_output_open_end_with_the_run() {
    let mut machine = Machine::new();
    let (client, _) = machine.start(
        "setsid sh -c '(trap \"\" TERM HUP; echo $$ > group; while :; do echo noise; sleep 0.05; done) & \
         echo $! > daemon' ; while [ ! -e seen ]; do sleep 0.02; done; exit 3",
    );
    let daemon = pid_in(&machine.state, "daemon");
    fs::write(machine.state.join("seen"), b"").unwrap();
    let record = end_of(&client);
    assert_eq!((record.exit, record.stopped_by), (Exit::Code { code: 3 }, None));
    assert!(record.survivors_killed >= 1 && record.is_final);
    assert!(!daemon.is_alive());
}

#[test]
fn a_keeper_shrugs_off_signals_and_the_death_of_its_guard() {
    let mut machine = Machine::new();
    let (client, dir) =
        machine.start("i=0; while [ ! -e end ]; do echo $i; i=$((i+1)); sleep 0.02; done; exit 9");
    let (child, keeper) = (child_of(&client), keeper_of(&dir));
    os::send_term(&keeper);
    machine.guard.kill().unwrap();
    machine.guard.wait().unwrap();
    let before = SpoolReader::open(&dir).len(Stream::Stdout);
    until("further output", || (SpoolReader::open(&dir).len(Stream::Stdout) > before + 20).then_some(()));
    assert!(keeper.is_alive() && child.is_alive());
    assert_eq!(client.state(), KeeperState::Running { child_pid: child.pid });
    fs::write(machine.state.join("end"), b"").unwrap();
    let record = end_of(&client);
    assert_eq!(record.exit, Exit::Code { code: 9 });
    let text = String::from_utf8(output(&dir, Stream::Stdout).0).unwrap();
    assert!(text.lines().enumerate().all(|(i, line)| line == i.to_string()), "no line is lost or doubled");
}

#[test]
fn a_lost_keeper_is_never_taken_for_an_end_and_its_program_can_still_be_ended() {
    let mut machine = Machine::new();
    let (client, dir) = machine.start("trap '' PIPE TERM; while :; do sleep 0.1; done");
    let (child, keeper) = (child_of(&client), keeper_of(&dir));
    os::send_kill(&keeper);
    until("the keeper's end", || (!keeper.is_alive()).then_some(()));
    assert_eq!(client.state(), KeeperState::Vanished);
    assert_eq!(client.live_child(), Some(child.pid), "the program outlives its keeper");
    kill(&client);
    until("the program's end", || (!child.is_alive()).then_some(()));
    assert_eq!(client.live_child(), None);
}

#[test]
fn an_attempt_is_started_at_most_once() {
    let mut machine = Machine::new();
    let spec = machine.spec("echo run >> runs");
    for _ in 0..3 {
        machine.start_spec(&spec);
    }
    let dir = machine.dir(&spec);
    assert_eq!(end_of(&KeeperClient::new(dir.clone())).exit, Exit::Code { code: 0 });
    machine.start_spec(&spec);
    // Also a keeper that is started by hand refuses.
    let by_hand = Command::new(&machine.exe).args(["keeper", "--attempt"]).arg(&dir).output().unwrap();
    assert_eq!(by_hand.status.code(), Some(1));
    assert_eq!(fs::read_to_string(machine.state.join("runs")).unwrap(), "run\n");
}

#[test]
fn the_guard_restarts_the_agent_and_leaves_trainings_when_it_ends() {
    let mut machine = Machine::new();
    let (client, _) = machine.start("while :; do sleep 0.1; done");
    let child = child_of(&client);
    let first = until("the agent", || machine.agent_pids().first().copied());
    os::send_kill(&ProcessRef::of(first).unwrap());
    let second = until("the next agent", || machine.agent_pids().get(1).copied());
    let second = ProcessRef::of(second).unwrap();
    let log = fs::read_to_string(machine.state.join("agent.log")).unwrap();
    assert!(log.starts_with("agent says\n"), "{log}");
    let guard = ProcessRef::of(machine.guard.id().cast_signed()).unwrap();
    os::send_term(&guard);
    assert_eq!(machine.guard.wait().unwrap().code(), Some(0));
    assert!(!second.is_alive(), "the agent ends with the guard");
    assert!(child.is_alive(), "the training does not");
    machine.guard = start_guard(&machine.exe, &machine.state, &machine.id);
    until("a third agent", || machine.agent_pids().get(2).copied());
    assert_eq!(client.state(), KeeperState::Running { child_pid: child.pid });
    kill(&client);
    assert_eq!(end_of(&client).stopped_by, Some(StopKind::Kill));
}

#[test]
fn an_agent_that_a_killed_guard_left_is_ended_before_the_next() {
    let mut machine = Machine::new();
    let first = until("the agent", || machine.agent_pids().first().copied());
    let first = ProcessRef::of(first).unwrap();
    until("the agent's record", || {
        machine.state.join(format!("agents/{}.json", first.pid)).exists().then_some(())
    });
    machine.guard.kill().unwrap();
    machine.guard.wait().unwrap();
    assert!(first.is_alive());
    machine.guard = start_guard(&machine.exe, &machine.state, &machine.id);
    until("the next agent", || machine.agent_pids().get(1).copied());
    assert!(!first.is_alive());
}

#[test]
fn an_agent_whose_guard_is_gone_before_it_began_goes_as_well() {
    let root = tempfile::tempdir().unwrap();
    let agent = |guard: u32| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast-agent"));
        command.args(["agent", "--state"]).arg(root.path()).env("OUTLAST_GUARD_PID", guard.to_string());
        let said = command.output().unwrap();
        (said.status.code(), String::from_utf8(said.stdout).unwrap() + &String::from_utf8_lossy(&said.stderr))
    };
    let (code, said) = agent(1);
    assert!(code == Some(1) && said.contains("the guard that started this agent is gone"), "{code:?} {said}");
    assert_eq!(fs::read_dir(root.path().join("agents")).unwrap().count(), 0);
    // One that is owned comes further: to the identity that it lacks here.
    let (code, said) = agent(std::process::id());
    assert!(code == Some(1) && said.contains("machine.json"), "{code:?} {said}");
    assert_eq!(fs::read_dir(root.path().join("agents")).unwrap().count(), 1);
}

#[test]
fn a_second_guard_is_refused() {
    let machine = Machine::new();
    let mut second = start_guard(&machine.exe, &machine.state, &machine.id);
    assert_eq!(second.wait().unwrap().code(), Some(17));
}

#[test]
fn the_guard_starts_nothing_outside_its_attempts() {
    let mut machine = Machine::new();
    let spec = machine.spec("touch outside");
    let outside = machine.state.join("elsewhere");
    let refused = KeeperClient::start(&machine.state, &outside, &spec);
    assert!(matches!(refused, Err(ProcessError::Refused(_))), "{refused:?}");
    let link = machine.state.join("attempts").join("link");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    let refused = KeeperClient::start(&machine.state, &link, &spec);
    assert!(matches!(refused, Err(ProcessError::Refused(_))), "{refused:?}");
    assert!(!outside.join("started").exists());
}

#[test]
fn a_state_directory_longer_than_a_socket_address_works() {
    let mut machine = Machine::named(&"d".repeat(150));
    let (client, _) = machine.start("while :; do sleep 0.1; done");
    let child = child_of(&client);
    stop(&client, LONG);
    let record = end_of(&client);
    assert_eq!(record.stopped_by, Some(StopKind::Term));
    assert!(!child.is_alive());
}
