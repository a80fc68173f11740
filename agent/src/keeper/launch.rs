//! Starts the program: its limits, its streams or its terminal, its cgroups.
//! Whatever fails before the program runs is a reason in words.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::{ATTEMPT_MARKER, KeeperSpec, MACHINE_MARKER};
use crate::os::{self, Cgroup, KernelLog, OomCounters, Terminal};
use crate::secrets::Values;
use crate::spool::Stream;

const PIPE_BYTES: i32 = 1 << 20;
/// The size of a terminal that nobody names.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

/// Our end of one of the program's streams.
pub(super) struct Pipe {
    pub(super) stream: Stream,
    pub(super) end: std::fs::File,
}

/// A program that was started, and what was noted just before.
pub(super) struct Launched {
    pub(super) child: Child,
    pub(super) pipes: Vec<Pipe>,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) unapplied_limits: Vec<String>,
    pub(super) oom_before: OomCounters,
    pub(super) kernel_log: Option<KernelLog>,
    pub(super) started_ms: u64,
}

/// Starts what the spec says, with these secrets among its variables.
pub(super) fn launch(spec: &KeeperSpec, secrets: &Values) -> Result<Launched, String> {
    let (mut cgroup, mut unapplied_limits) = Cgroup::create(&spec.cgroup_name(), &spec.limits);
    let oom_before = OomCounters::read(cgroup.as_ref());
    let kernel_log = KernelLog::from_now();
    let started_ms = os::unix_ms();
    let (spawned, refused) =
        os::with_open_files(spec.limits.open_files, || spawn(spec, secrets, &mut cgroup));
    unapplied_limits.extend(refused);
    let (mut child, terminal) = spawned?;
    os::prefer_as_oom_victim(child.id().cast_signed());
    let pipes = match terminal {
        Some(terminal) => {
            let master = terminal.hand_over(child.id().cast_signed());
            vec![pipe(Stream::Stdout, Some(master))]
        }
        None => vec![
            pipe(Stream::Stdout, child.stdout.take().map(OwnedFd::from)),
            pipe(Stream::Stderr, child.stderr.take().map(OwnedFd::from)),
        ],
    };
    match pipes.into_iter().collect::<Result<Vec<_>, _>>() {
        Ok(pipes) => {
            Ok(Launched { child, pipes, cgroup, unapplied_limits, oom_before, kernel_log, started_ms })
        }
        Err(reason) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(reason)
        }
    }
}

fn spawn(
    spec: &KeeperSpec,
    secrets: &Values,
    cgroup: &mut Option<Cgroup>,
) -> Result<(Child, Option<Terminal>), String> {
    let [program, args @ ..] = spec.argv.as_slice() else { return Err("argv is empty".to_owned()) };
    if !spec.cwd.is_dir() {
        return Err(format!("the working directory {} does not exist", spec.cwd.display()));
    }
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(&spec.env).envs(secrets.variables());
    command.env(ATTEMPT_MARKER, &spec.attempt_id).env(MACHINE_MARKER, &spec.machine_id);
    command.current_dir(&spec.cwd).process_group(0);
    let mut terminal = None;
    if spec.pty {
        let opened = open_terminal(spec).map_err(|e| format!("cannot open a terminal (pty): {e}"))?;
        let [stdin, stdout, stderr] = opened.1;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        if !spec.env.contains_key("TERM") {
            command.env("TERM", "xterm-256color");
        }
        terminal = Some(opened.0);
    } else {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    if let Some(cgroup) = cgroup {
        cgroup.enter();
    }
    let child = command.spawn();
    if let Some(cgroup) = cgroup {
        cgroup.leave();
    }
    child.map(|child| (child, terminal)).map_err(|e| format!("cannot run {program:?}: {e}"))
}

fn open_terminal(spec: &KeeperSpec) -> std::io::Result<(Terminal, [Stdio; 3])> {
    let size = |name: &str, default: u16| {
        let named = spec.env.get(name).and_then(|text| text.trim().parse().ok());
        named.filter(|n| *n > 0).unwrap_or(default)
    };
    let terminal = Terminal::open(size("COLUMNS", COLUMNS), size("LINES", ROWS))?;
    let streams = terminal.streams()?;
    Ok((terminal, streams))
}

fn pipe(stream: Stream, end: Option<OwnedFd>) -> Result<Pipe, String> {
    let end = end.ok_or_else(|| format!("{} is not a pipe", stream.as_str()))?;
    // A terminal has no such size, and needs none.
    os::grow_pipe(&end, PIPE_BYTES);
    os::set_nonblocking(&end).map_err(|e| format!("cannot read {}: {e}", stream.as_str()))?;
    Ok(Pipe { stream, end: end.into() })
}
