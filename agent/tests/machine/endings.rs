//! How attempts end, with real processes: limits, the out-of-memory killer,
//! terminals, and trees that do not want to end.

use super::*;

/// The directories of an attempt's cgroups, in whatever hierarchy.
fn cgroups_of(attempt: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().filter_map(Result::ok) {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy() == format!("outlast-{attempt}") {
                found.push(entry.path());
            } else {
                open.push(entry.path());
            }
        }
    }
    found
}

fn no_cgroup_is_left(attempt: &str) {
    until("the end of the cgroups", || cgroups_of(attempt).is_empty().then_some(()));
}

/// Whether the kernel lets us read its log, from which victims are named.
fn log_is_readable() -> bool {
    os::KernelLog::from_now().is_some_and(|mut log| log.read(1).is_ok())
}

/// Runs a spec to its end; `None`, said by name, where this machine could not
/// apply its limits.
fn limited(machine: &Machine, test: &str, spec: &KeeperSpec) -> Option<ExitRecord> {
    let client = machine.start_spec(spec);
    let record = end_of(&client);
    assert_eq!(record.unapplied_limits, client.unapplied_limits(), "told at the start as at the end");
    no_cgroup_is_left(&spec.attempt_id);
    if record.unapplied_limits.is_empty() {
        return Some(record);
    }
    println!("{test} is skipped: {}", record.unapplied_limits.join("; "));
    assert!(record.unapplied_limits.iter().all(|said| said.contains(" not ")), "a sentence each");
    None
}

#[test]
fn a_program_beyond_its_memory_is_killed_and_told_for_certain() {
    let test = "a_program_beyond_its_memory_is_killed_and_told_for_certain";
    let mut machine = Machine::new();
    let mut spec = machine.spec("echo before; exec tail /dev/zero");
    spec.limits.memory_bytes = Some(64 << 20);
    let Some(record) = limited(&machine, test, &spec) else { return };
    assert!(matches!(record.exit, Exit::Signal { signal: 9, .. }), "{record:?}");
    assert_eq!(record.stopped_by, None);
    assert!(record.oom.as_ref().unwrap().starts_with("certain: memory."), "{record:?}");
    assert!(record.max_rss_bytes.unwrap() < 80 << 20, "{record:?}");
    assert_eq!(output(&machine.dir(&spec), Stream::Stdout).0, b"before\n");
    if log_is_readable() {
        let victim = record.oom_process.unwrap();
        let child: serde_json::Value =
            serde_json::from_slice(&fs::read(machine.dir(&spec).join("child.json")).unwrap()).unwrap();
        assert_eq!(
            (i64::from(victim.pid), victim.command.as_str()),
            (child["pid"].as_i64().unwrap(), "tail")
        );
        let log = fs::read_to_string(machine.dir(&spec).join("kernel.log")).unwrap();
        assert!(log.contains("Killed process"), "{log}");
    } else {
        println!("{test}: the kernel's log cannot be read here: whom it killed is not checked");
    }
}

#[test]
fn a_worker_that_memory_ended_explains_the_error_of_the_program() {
    let test = "a_worker_that_memory_ended_explains_the_error_of_the_program";
    let mut machine = Machine::new();
    let mut spec = machine.spec("tail /dev/zero; sleep 0.2; exit 7");
    spec.limits.memory_bytes = Some(64 << 20);
    let Some(record) = limited(&machine, test, &spec) else { return };
    // With version 2 the whole group ends; with version 1 only the worker.
    assert!(matches!(record.exit, Exit::Code { code: 7 } | Exit::Signal { signal: 9, .. }), "{record:?}");
    assert!(record.oom.as_ref().unwrap().starts_with("certain"), "{record:?}");
    if log_is_readable() && record.exit == (Exit::Code { code: 7 }) {
        assert_eq!(record.oom_process.unwrap().command, "tail");
    }
}

#[test]
fn an_end_without_the_killer_has_no_such_evidence() {
    let mut machine = Machine::new();
    let mut spec = machine.spec("exit 1");
    spec.limits.memory_bytes = Some(64 << 20);
    let record = end_of(&machine.start_spec(&spec));
    assert_eq!((record.exit, record.oom, record.oom_process), (Exit::Code { code: 1 }, None, None));
}

#[test]
fn a_fork_storm_stays_within_its_processes_and_is_ended() {
    let test = "a_fork_storm_stays_within_its_processes_and_is_ended";
    let mut machine = Machine::new();
    // The program forks once, before the storm: a fork of its own that was
    // refused would end it.
    let mut spec = machine.spec(
        "trap '' TERM; (for i in 1 2 3; do (while :; do sleep 5 & done) & done) 2>> refused & exec sleep 600",
    );
    spec.limits.pids = Some(40);
    let client = machine.start_spec(&spec);
    let tree = Tree::marked("OUTLAST_ATTEMPT", &spec.attempt_id);
    until("the storm", || {
        let refused = fs::read_to_string(machine.state.join("refused")).unwrap_or_default();
        (!client.unapplied_limits().is_empty() || !refused.is_empty()).then_some(())
    });
    let is_limited = client.unapplied_limits().is_empty();
    for _ in 0..20 {
        // A look takes a while, in which one ends and another is forked: those
        // that are there still afterwards are there at once.
        let is_there = |p: &os::Process| os::process(p.pid).is_some_and(|now| now.started == p.started);
        let n = tree.members().iter().filter(|p| is_there(p)).count();
        assert!(!is_limited || n <= 40, "{n} processes");
    }
    kill(&client);
    let record = end_of(&client);
    assert_eq!((record.stopped_by, record.unkillable), (Some(StopKind::Kill), 0));
    assert!(tree.members().is_empty());
    no_cgroup_is_left(&spec.attempt_id);
    if !is_limited {
        println!("{test}: the limit is skipped: {}", record.unapplied_limits.join("; "));
    }
}

#[test]
fn open_files_are_limited_for_the_program_and_not_for_its_keeper() {
    let mut machine = Machine::new();
    let mut spec = machine.spec("ulimit -Sn; ulimit -Hn; while [ ! -e go ]; do sleep 0.02; done");
    spec.limits.open_files = Some(200);
    let client = machine.start_spec(&spec);
    child_of(&client);
    let own = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = text.lines().find(|l| l.starts_with("Max open files")).unwrap();
        line.split_whitespace().nth(3).unwrap().to_owned()
    };
    let keeper = keeper_of(&machine.dir(&spec)).pid;
    until("the keeper's own limit", || {
        // Where the right to raise it again is missing it stays low, and works.
        (own(keeper) != "200" || own(keeper) == own(child_of(&client).pid)).then_some(())
    });
    fs::write(machine.state.join("go"), "").unwrap();
    let record = end_of(&client);
    assert_eq!(output(&machine.dir(&spec), Stream::Stdout).0, b"200\n200\n");
    assert_eq!((record.exit, record.unapplied_limits.len()), (Exit::Code { code: 0 }, 0));

    // More than anybody may have: what it has instead is said.
    let mut spec = machine.spec("ulimit -Hn");
    spec.limits.open_files = Some(1 << 40);
    let record = end_of(&machine.start_spec(&spec));
    let has = String::from_utf8(output(&machine.dir(&spec), Stream::Stdout).0).unwrap();
    assert_eq!(record.unapplied_limits.len(), 1);
    let said = &record.unapplied_limits[0];
    assert!(said.contains(&format!("limited to {} and not to {}", has.trim(), 1_u64 << 40)), "{said}");
}

#[test]
fn a_program_with_a_terminal_sees_one_and_is_recorded_byte_by_byte() {
    let mut machine = Machine::new();
    let script = "\
import os, sys
print(*(os.isatty(fd) for fd in (0, 1, 2)), *os.get_terminal_size(), repr(sys.stdin.read()), repr(sys.stdin.read()))
print('to stderr', file=sys.stderr, flush=True)
with open('/dev/tty', 'w') as tty: tty.write('to its terminal\\n')
sys.stdout.write('a\\rb\\n'); sys.stdout.flush()
os.kill(os.getpid(), 11)
";
    let mut spec = machine.spec("");
    spec.argv = vec!["python3".into(), "-c".into(), script.into()];
    spec.env.insert("PATH".into(), std::env::var("PATH").unwrap());
    spec.env.insert("HOME".into(), std::env::var("HOME").unwrap_or_default());
    spec.env.insert("COLUMNS".into(), "132".into());
    spec.pty = true;
    let record = end_of(&machine.start_spec(&spec));
    let text = String::from_utf8(output(&machine.dir(&spec), Stream::Stdout).0).unwrap();
    assert_eq!(text, "True True True 132 24 '' ''\nto stderr\nto its terminal\na\rb\n");
    assert_eq!(record.exit, Exit::Signal { signal: 11, core: false });
    assert_eq!((record.stdout_len, record.stderr_len), (text.len() as u64, 0));
}

#[test]
fn a_terminal_that_outlives_the_program_ends_with_the_tree() {
    let mut machine = Machine::new();
    let mut spec = machine.spec(
        "trap 'echo saved; exit 5' TERM; (trap '' HUP TERM; echo $$ > up; sleep 600) & while :; do sleep 0.02; done",
    );
    spec.pty = true;
    let client = machine.start_spec(&spec);
    file_in(&machine.state, "up");
    stop(&client, LONG);
    let record = end_of(&client);
    assert_eq!((record.exit, record.stopped_by), (Exit::Code { code: 5 }, Some(StopKind::Term)));
    assert!(record.is_final && record.survivors_killed >= 1);
    // The shell may tell of the helpers that it lost.
    assert!(output(&machine.dir(&spec), Stream::Stdout).0.ends_with(b"saved\n"));
}

#[test]
fn whatever_hides_ends_with_the_program() {
    // Each writes its number and means to stay.
    let hiders = [
        ("double-fork", "setsid sh -c '(exec sh -c \"echo \\$\\$ > ID; exec sleep 600\") & exit';"),
        (
            "closes-all",
            "setsid sh -c 'exec <&- >&- 2>&-; trap \"\" TERM HUP; echo $$ > ID; while :; do sleep 1; done' &",
        ),
        ("holds-pipe", "(trap '' TERM; echo $$ > ID; while :; do echo noise; sleep 0.05; done) &"),
        ("stopped", "sh -c 'echo $$ > ID; kill -STOP $$; sleep 600' &"),
        (
            "forgets-everything",
            "(setsid env -i PATH=/usr/bin:/bin sh -c '(sh -c \"echo \\$\\$ > ID; trap \\\"\\\" TERM; while :; do sleep 1; done\") & exit') &",
        ),
        ("ignores-term", "sh -c 'trap \"\" TERM; echo $$ > ID; while :; do sleep 1; done' &"),
    ];
    let mut machine = Machine::new();
    for (name, script) in hiders {
        let script =
            format!("{} while [ ! -s {name} ]; do sleep 0.01; done; exit 4", script.replace("ID", name));
        let (client, _) = machine.start(&script);
        let hidden = fs::canonicalize(&machine.state).map(|dir| dir.join(name)).unwrap();
        let pid = until(name, || {
            let text = fs::read_to_string(&hidden).ok()?;
            text.trim().parse().ok().map(|pid: i32| ProcessRef::of(pid))
        });
        let record = end_of(&client);
        assert_eq!((&record.exit, record.stopped_by), (&Exit::Code { code: 4 }, None), "{name}");
        assert_eq!(record.unkillable, 0, "{name}");
        assert!(pid.is_none_or(|p| !p.is_alive()), "{name} is still there");
        if name != "double-fork" && name != "holds-pipe" {
            assert!(record.survivors_killed >= 1, "{name}: {record:?}");
        }
    }
}

#[test]
fn a_stop_that_is_obeyed_is_a_term() {
    let mut machine = Machine::new();
    let (client, _) =
        machine.start("trap 'echo saved; exit 5' TERM; echo ready > ready; while :; do sleep 0.05; done");
    file_in(&machine.state, "ready");
    stop(&client, LONG);
    let record = end_of(&client);
    assert_eq!((record.exit, record.stopped_by), (Exit::Code { code: 5 }, Some(StopKind::Term)));
}

#[test]
fn a_stop_that_is_ignored_ends_the_whole_tree_after_the_grace() {
    let mut machine = Machine::new();
    let (client, _) = machine.start(
        "trap '' TERM; sh -c 'echo $$ > inner; while :; do sleep 1; done' & echo $$ > outer; wait; sleep 600",
    );
    let (inner, outer) = (pid_in(&machine.state, "inner"), pid_in(&machine.state, "outer"));
    let begun = Instant::now();
    stop(&client, Duration::from_secs(600));
    assert!(outer.is_alive() && inner.is_alive());
    stop(&client, Duration::from_millis(300));
    let record = end_of(&client);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(matches!(record.exit, Exit::Signal { signal: 9, .. }));
    assert_eq!(record.stopped_by, Some(StopKind::TermThenKill));
    assert!(!inner.is_alive() && !outer.is_alive());
}

#[test]
fn a_program_that_was_stopped_by_a_signal_obeys_a_stop() {
    let mut machine = Machine::new();
    let (client, _) =
        machine.start("trap 'exit 6' TERM; echo $$ > me; kill -STOP $$; while :; do sleep 0.02; done");
    let me = pid_in(&machine.state, "me");
    until("the standstill", || os::process(me.pid).is_some_and(|p| p.state == b'T').then_some(()));
    stop(&client, LONG);
    let record = end_of(&client);
    assert_eq!((record.exit, record.stopped_by), (Exit::Code { code: 6 }, Some(StopKind::Term)));
}

#[test]
fn an_end_is_durable_before_the_tree_is_cleared_and_outlives_its_keeper() {
    let mut machine = Machine::new();
    // What is left has two seconds. Where the keeper was through with it before
    // we came to look, a further attempt shows what lies between.
    let (client, dir, left) = until("a keeper that still waits for what is left", || {
        let (client, dir) = machine.start(
            "rm -f left; setsid sh -c 'trap \"\" TERM; echo $$ > left; while :; do sleep 1; done' & \
             while [ ! -s left ]; do sleep 0.01; done; cp left \"left-$OUTLAST_ATTEMPT\"; exit 3",
        );
        let id = dir.file_name().unwrap().to_str().unwrap().to_owned();
        let left: i32 = file_in(&machine.state, &format!("left-{id}")).trim().parse().unwrap();
        let left = ProcessRef::of(left)?;
        until("the first record", || dir.join("exit.json").exists().then_some(()));
        os::send_kill(&keeper_of(&dir));
        until("the keeper's end", || (!keeper_of(&dir).is_alive()).then_some(()));
        left.is_alive().then_some((client, dir, left))
    });
    let first: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("exit.json")).unwrap()).unwrap();
    assert_eq!(first["final"], false);
    let KeeperState::Exited(record) = client.state() else { panic!("{:?}", client.state()) };
    assert_eq!(record.exit, Exit::Code { code: 3 });
    // Who comes later reads the same, and can still clear what is left.
    assert!(left.is_alive());
    let later = KeeperClient::new(dir.clone());
    kill(&later);
    until("the end of what was left", || (!left.is_alive()).then_some(()));
    assert_eq!(later.state(), KeeperState::Exited(record));
    let id = dir.file_name().unwrap().to_str().unwrap().to_owned();
    no_cgroup_is_left(&id);
}

#[test]
fn a_core_dump_is_told_where_the_program_asked_for_one() {
    let mut machine = Machine::new();
    let (record, _) = machine.finish("ulimit -c unlimited 2> refused || exit 9; kill -SEGV $$");
    match record.exit {
        Exit::Signal { signal: 11, core } => {
            let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
            if pattern.trim() == "core" {
                let files = fs::read_dir(&machine.state).unwrap().filter_map(Result::ok);
                let is_there = files.map(|e| e.file_name()).any(|n| n.to_string_lossy().starts_with("core"));
                assert_eq!(core, is_there);
            } else {
                println!("core dumps go to {}: only the signal is checked", pattern.trim());
            }
        }
        other => {
            assert_eq!(other, Exit::Code { code: 9 }, "the limit could not be raised");
            println!(
                "a_core_dump_is_told_where_the_program_asked_for_one is skipped: no right to raise the limit"
            );
        }
    }
}
