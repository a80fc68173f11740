//! The keeper's loop: one thread, nothing in it waits for a reader. The order at
//! the end is fixed: the exit is durable first, then the rest of the tree is
//! ended and the pipes are drained, then the record becomes final.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lifecycle::Exit;

use super::record::{self, ExitRecord};
use super::stop::Stopping;
use super::{ATTEMPT_MARKER, CHILD_FILE, ChildFile, KeeperSpec, MACHINE_MARKER, Request, SOCKET_FILE};
use crate::os::{self, Cgroup, LineServer, OomCounters, Signals, Tree};
use crate::spool::{SpoolWriter, Stream};

const PIPE_BYTES: i32 = 1 << 20;
const CHUNK: usize = 128 * 1024;
/// Chunks taken from one pipe before anything else gets its turn.
const CHUNKS_PER_TURN: usize = 16;
const IDLE: Duration = Duration::from_secs(1);
const PRESSING: Duration = Duration::from_millis(20);
const REAP_EVERY: Duration = Duration::from_millis(200);
/// How long what outlives the main process may take to end by itself.
const SURVIVOR_GRACE: Duration = Duration::from_secs(2);
/// How long a pipe is drained that somebody outside the tree holds open.
const DRAIN: Duration = Duration::from_secs(2);
/// After this a process that SIGKILL does not end is left and counted.
const UNKILLABLE_AFTER: Duration = Duration::from_secs(10);

struct Pipe {
    stream: Stream,
    end: std::fs::File,
}

/// What remains to be done once the main process has ended.
struct Ending {
    record: ExitRecord,
    survivors: HashSet<(i32, u64)>,
    kill_at: Instant,
    tree_gone: Option<Instant>,
}

pub(super) struct Watch {
    dir: PathBuf,
    grace: Duration,
    signals: Signals,
    server: LineServer,
    spool: SpoolWriter,
    pipes: Vec<Pipe>,
    buffer: Vec<u8>,
    child: Child,
    started_ms: u64,
    tree: Tree,
    oom_before: OomCounters,
    stopping: Stopping,
    ending: Option<Ending>,
    reaped: Instant,
}

fn spawn(spec: &KeeperSpec, cgroup: &mut Option<Cgroup>) -> Result<Child, String> {
    let [program, args @ ..] = spec.argv.as_slice() else { return Err("argv is empty".to_owned()) };
    if !spec.cwd.is_dir() {
        return Err(format!("the working directory {} does not exist", spec.cwd.display()));
    }
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(&spec.env);
    command.env(ATTEMPT_MARKER, &spec.attempt_id).env(MACHINE_MARKER, &spec.machine_id);
    command.current_dir(&spec.cwd).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(cgroup) = cgroup {
        cgroup.enter();
    }
    let child = command.spawn();
    if let Some(cgroup) = cgroup {
        cgroup.leave();
    }
    child.map_err(|e| format!("cannot run {program:?}: {e}"))
}

fn pipe(stream: Stream, end: Option<OwnedFd>) -> Result<Pipe, String> {
    let end = end.ok_or_else(|| format!("{} is not a pipe", stream.as_str()))?;
    os::grow_pipe(&end, PIPE_BYTES);
    os::set_nonblocking(&end).map_err(|e| format!("cannot read {}: {e}", stream.as_str()))?;
    Ok(Pipe { stream, end: end.into() })
}

impl Watch {
    /// Starts the program. An error is the reason why it was not started.
    pub(super) fn begin(dir: &Path, spec: &KeeperSpec, signals: Signals) -> Result<Self, String> {
        record::reserve(dir);
        let spool = SpoolWriter::create(dir, spec.spool_bytes).map_err(|e| e.to_string())?;
        let server = LineServer::bind(&dir.join(SOCKET_FILE))
            .map_err(|e| format!("cannot listen at {}: {e}", dir.join(SOCKET_FILE).display()))?;
        let mut cgroup = Cgroup::create(&spec.cgroup_name());
        let oom_before = OomCounters::read(cgroup.as_ref());
        let started_ms = os::unix_ms();
        let mut child = spawn(spec, &mut cgroup)?;
        let pid = child.id().cast_signed();
        os::prefer_as_oom_victim(pid);
        let pipes = [
            pipe(Stream::Stdout, child.stdout.take().map(OwnedFd::from)),
            pipe(Stream::Stderr, child.stderr.take().map(OwnedFd::from)),
        ];
        let pipes = match pipes.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(pipes) => pipes,
            Err(reason) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(reason);
            }
        };
        if let Some(process) = os::ProcessRef::of(pid)
            && let Ok(text) = serde_json::to_vec(&ChildFile { process, started_ms })
        {
            let _ = os::write_durable(&dir.join(CHILD_FILE), &text);
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            grace: Duration::from_millis(spec.grace_ms),
            signals,
            server,
            spool,
            pipes,
            buffer: vec![0; CHUNK],
            child,
            started_ms,
            tree: Tree::below_self(ATTEMPT_MARKER, &spec.attempt_id).with_cgroup(cgroup),
            oom_before,
            stopping: Stopping::default(),
            ending: None,
            reaped: Instant::now(),
        })
    }

    /// Watches until nothing is left to do; then `exit.json` is final.
    pub(super) fn run(mut self) {
        while !self.is_done() {
            self.sleep();
            self.signals.drain();
            self.answer();
            self.pump();
            self.notice_exit();
            self.press();
            self.reap();
            self.spool.tick();
        }
        let Some(mut ending) = self.ending.take() else { return };
        let [stdout_len, stderr_len] = self.spool.finish();
        ending.record.stdout_len = stdout_len;
        ending.record.stderr_len = stderr_len;
        ending.record.survivors_killed = u32::try_from(ending.survivors.len()).unwrap_or(u32::MAX);
        ending.record.max_rss_bytes = os::max_child_rss_bytes();
        ending.record.is_final = true;
        record::persist(&self.dir, &ending.record);
    }

    fn sleep(&self) {
        let now = Instant::now();
        let mut timeout = if self.spool.has_pending() { IDLE / 4 } else { IDLE };
        if self.server.is_busy() {
            timeout = IDLE / 4;
        }
        if let Some(until) = self.stopping.until() {
            timeout = timeout.min(until.saturating_duration_since(now));
        }
        if self.ending.is_some() || matches!(self.stopping, Stopping::Killing { .. }) {
            timeout = PRESSING;
        }
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd()];
        fds.extend(self.server.fds());
        fds.extend(self.pipes.iter().map(|p| p.end.as_fd()));
        if os::wait_readable(&fds, timeout).is_err() {
            // Without poll the loop still turns, only less promptly.
            std::thread::sleep(PRESSING);
        }
    }

    fn answer(&mut self) {
        for request in self.server.requests() {
            let answer = match serde_json::from_str(&request.line) {
                Ok(Request::Stop { grace_ms }) => {
                    let grace = grace_ms.map_or(self.grace, Duration::from_millis);
                    if self.stopping.stop(Instant::now(), grace) {
                        self.tree.terminate();
                    }
                    serde_json::json!({ "ok": true })
                }
                Ok(Request::Kill {}) => {
                    self.stopping.kill();
                    serde_json::json!({ "ok": true })
                }
                Ok(Request::Status {}) => {
                    serde_json::json!({ "child_pid": self.child.id(), "running": self.ending.is_none() })
                }
                Err(e) => serde_json::json!({ "error": format!("not a request: {e}") }),
            };
            request.answer(&answer.to_string());
        }
    }

    /// Moves what is in the pipes into the spool; forgets pipes that ended.
    fn pump(&mut self) {
        let (spool, buffer) = (&mut self.spool, &mut self.buffer);
        self.pipes.retain_mut(|pipe| {
            for _ in 0..CHUNKS_PER_TURN {
                match pipe.end.read(buffer) {
                    Ok(0) => return false,
                    Ok(n) => spool.write(pipe.stream, &buffer[..n]),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                    Err(_) => return false,
                }
            }
            true
        });
    }

    fn notice_exit(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let exit = match self.child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => exit_of(status),
            Err(e) => Exit::Unknown { reason: format!("waiting for the process failed: {e}") },
        };
        let mut record = ExitRecord::new(exit, self.started_ms);
        record.stopped_by = self.stopping.kind();
        record.max_rss_bytes = os::max_child_rss_bytes();
        if matches!(record.exit, Exit::Signal { signal: 9, .. }) && record.stopped_by.is_none() {
            record.oom = OomCounters::read(self.tree.cgroup()).evidence_since(&self.oom_before);
        }
        record.stdout_len = self.spool.position(Stream::Stdout);
        record.stderr_len = self.spool.position(Stream::Stderr);
        record::persist(&self.dir, &record);
        let now = Instant::now();
        let grace = now + SURVIVOR_GRACE;
        let kill_at = self.stopping.until().map_or(grace, |until| until.min(grace));
        let mut ending = Ending { record, survivors: HashSet::new(), kill_at, tree_gone: None };
        ending.look(&self.tree);
        // Under a stop they have been asked already; many programs take a second
        // SIGTERM for impatience.
        if ending.tree_gone.is_none() && self.stopping == Stopping::No {
            self.tree.terminate();
        }
        self.ending = Some(ending);
    }

    /// Kills where the stop, or the end of the main process, demands it.
    fn press(&mut self) {
        let now = Instant::now();
        let is_killing = self.stopping.is_killing(now);
        match &mut self.ending {
            None if is_killing => {
                self.tree.kill_pass();
            }
            None => {}
            Some(ending) if ending.tree_gone.is_some() => {}
            Some(ending) => {
                if is_killing || now >= ending.kill_at {
                    ending.kill_at = ending.kill_at.min(now);
                    self.tree.kill_pass();
                }
                let left = ending.look(&self.tree);
                if left > 0 && now >= ending.kill_at + UNKILLABLE_AFTER {
                    ending.record.unkillable = u32::try_from(left).unwrap_or(u32::MAX);
                    ending.tree_gone = Some(now);
                }
            }
        }
    }

    /// Orphans of the tree become our children and would stay as zombies.
    fn reap(&mut self) {
        if self.reaped.elapsed() >= REAP_EVERY {
            os::reap_orphans(&[self.child.id().cast_signed()]);
            self.reaped = Instant::now();
        }
    }

    fn is_done(&self) -> bool {
        let gone = self.ending.as_ref().and_then(|e| e.tree_gone);
        gone.is_some_and(|at| self.pipes.is_empty() || at.elapsed() >= DRAIN)
    }
}

impl Ending {
    /// Counts who is still there; once nobody is, the tree is gone.
    fn look(&mut self, tree: &Tree) -> usize {
        let members = tree.members();
        self.survivors.extend(members.iter().map(|p| (p.pid, p.started)));
        if members.is_empty() {
            self.tree_gone = Some(Instant::now());
        }
        members.len()
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code { code },
        (None, Some(signal)) => Exit::Signal { signal, core: status.core_dumped() },
        (None, None) => Exit::Unknown { reason: format!("the kernel reported {status}") },
    }
}
