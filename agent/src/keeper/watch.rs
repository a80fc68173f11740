//! The keeper's loop: one thread, nothing in it waits for a reader. The order at
//! the end is fixed: the exit is durable first, then the rest of the tree is
//! ended and the pipes are drained, then the record becomes final.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use lifecycle::Exit;

use super::container::{self, ContainerRef};
use super::evidence::Evidence;
use super::launch::{Launched, Pipe, launch};
use super::record::{self, ExitRecord};
use super::stop::Stopping;
use super::{ATTEMPT_MARKER, CHILD_FILE, ChildFile, KeeperSpec, Request, SOCKET_FILE};
use crate::os::{self, LineServer, ProcessRef, Signals, Tree};
use crate::secrets::Values;
use crate::spool::{SpoolWriter, Stream};

const CHUNK: usize = 64 * 1024;
/// Chunks taken from one pipe before anything else gets its turn.
const CHUNKS_PER_TURN: usize = 32;
const IDLE: Duration = Duration::from_secs(1);
const PRESSING: Duration = Duration::from_millis(20);
const REAP_EVERY: Duration = Duration::from_millis(200);
/// How long what outlives the main process may take to end by itself.
const SURVIVOR_GRACE: Duration = Duration::from_secs(2);
/// The same for what a container tool has to clear away.
const CLEARING: Duration = Duration::from_secs(10);
/// How long the tool may take to pass a signal on.
const ASKING: Duration = Duration::from_secs(3);
/// How long the tool may take to remove a container that is left.
const REMOVING: Duration = Duration::from_secs(20);
/// How long a pipe is drained that somebody outside the tree holds open.
const DRAIN: Duration = Duration::from_secs(2);
/// After this a process that SIGKILL does not end is left and counted.
const UNKILLABLE_AFTER: Duration = Duration::from_secs(10);

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
    evidence: Evidence,
    unapplied_limits: Vec<String>,
    container: Option<(ContainerRef, BTreeMap<String, String>)>,
    last_words: Vec<u8>,
    is_asking: bool,
    cleared: bool,
    stopping: Stopping,
    ending: Option<Ending>,
    reaped: Instant,
}

impl Watch {
    /// Starts the program. An error is the reason why it was not started.
    pub(super) fn begin(
        dir: &Path,
        spec: &KeeperSpec,
        secrets: &Values,
        signals: Signals,
    ) -> Result<Self, String> {
        record::reserve(dir);
        let spool = SpoolWriter::create(dir, spec.spool_bytes).map_err(|e| e.to_string())?;
        let server = LineServer::bind(&dir.join(SOCKET_FILE))
            .map_err(|e| format!("cannot listen at {}: {e}", dir.join(SOCKET_FILE).display()))?;
        let Launched { child, pipes, cgroup, unapplied_limits, oom_before, kernel_log, started_ms } =
            launch(spec, secrets)?;
        let pid = child.id().cast_signed();
        if let Some(process) = ProcessRef::of(pid) {
            let said = ChildFile { process, started_ms, unapplied_limits: unapplied_limits.clone() };
            if let Ok(text) = serde_json::to_vec(&said) {
                let _ = os::write_durable(&dir.join(CHILD_FILE), &text);
            }
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
            evidence: Evidence::new(dir, spec.cgroup_name(), pid, oom_before, kernel_log),
            unapplied_limits,
            container: spec.container.clone().map(|container| (container, spec.env.clone())),
            last_words: Vec::new(),
            is_asking: false,
            cleared: false,
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
            self.ask_container();
            self.pump();
            self.evidence.listen(&self.tree);
            self.notice_exit();
            self.press();
            self.reap();
            self.spool.tick();
        }
        let Some(mut ending) = self.ending.take() else { return };
        self.remove_container();
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
        if self.ending.is_some() || self.is_asking || matches!(self.stopping, Stopping::Killing { .. }) {
            timeout = PRESSING;
        }
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd()];
        fds.extend(self.server.fds());
        fds.extend(self.evidence.fd());
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
                        self.terminate();
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

    fn remove_container(&self) {
        if let Some((container, env)) = &self.container {
            container.remove(env, REMOVING);
        }
    }

    /// Asks the program to end. In a container its tool does that, as soon as
    /// the program runs.
    fn terminate(&mut self) {
        match self.container {
            Some(_) => self.is_asking = true,
            None => self.tree.terminate(),
        }
    }

    fn ask_container(&mut self) {
        if let (true, None, Some((container, env))) = (self.is_asking, &self.ending, &self.container) {
            self.is_asking = !container.terminate(env, ASKING);
        }
    }

    /// Moves what is in the pipes into the spool; forgets pipes that ended.
    fn pump(&mut self) {
        let (spool, buffer) = (&mut self.spool, &mut self.buffer);
        let mut last_words = self.container.is_some().then_some(&mut self.last_words);
        self.pipes.retain_mut(|pipe| {
            for _ in 0..CHUNKS_PER_TURN {
                match pipe.end.read(buffer) {
                    Ok(0) => return false,
                    Ok(n) => {
                        spool.write(pipe.stream, &buffer[..n]);
                        if let Some(tail) = &mut last_words {
                            container::remember(tail, &buffer[..n]);
                        }
                    }
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
        // What it wrote just before may explain the end.
        self.pump();
        let exit = match &self.container {
            Some((container, _)) => container.exit(exit, &self.last_words),
            None => exit,
        };
        let mut record = ExitRecord::new(exit, self.started_ms);
        record.stopped_by = self.stopping.kind();
        record.max_rss_bytes = os::max_child_rss_bytes();
        record.unapplied_limits.clone_from(&self.unapplied_limits);
        record.stdout_len = self.spool.position(Stream::Stdout);
        record.stderr_len = self.spool.position(Stream::Stderr);
        record::persist(&self.dir, &record);
        self.evidence.listen(&self.tree);
        let was_stopped = record.stopped_by.is_some();
        (record.oom, record.oom_process) = self.evidence.explain(&record.exit, was_stopped, &self.tree);
        if record.oom.is_some() {
            record::persist(&self.dir, &record);
        }
        let now = Instant::now();
        let grace = now + if self.container.is_some() { CLEARING } else { SURVIVOR_GRACE };
        let kill_at = self.stopping.until().map_or(grace, |until| until.min(grace));
        let mut ending = Ending { record, survivors: HashSet::new(), kill_at, tree_gone: None };
        ending.look(&self.tree, self.container.is_none());
        // Under a stop they have been asked already; many programs take a second
        // SIGTERM for impatience.
        let is_asked = self.stopping != Stopping::No || self.container.is_some();
        if ending.tree_gone.is_none() && !is_asked {
            self.tree.terminate();
        }
        self.ending = Some(ending);
    }

    /// Kills where the stop, or the end of the main process, demands it.
    fn press(&mut self) {
        let now = Instant::now();
        let is_killing = self.stopping.is_killing(now);
        if is_killing && !std::mem::replace(&mut self.cleared, true) {
            self.remove_container();
        }
        match &mut self.ending {
            None if is_killing => {
                self.tree.kill_pass();
            }
            None => {}
            Some(ending) if ending.tree_gone.is_some() => {}
            Some(ending) => {
                let is_due = is_killing || now >= ending.kill_at;
                if is_due {
                    ending.kill_at = ending.kill_at.min(now);
                    self.tree.kill_pass();
                }
                let left = ending.look(&self.tree, is_due || self.container.is_none());
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
    /// Looks who is still there, and counts them where they are not expected;
    /// once nobody is, the tree is gone.
    fn look(&mut self, tree: &Tree, is_unexpected: bool) -> usize {
        let members = tree.members();
        if is_unexpected {
            self.survivors.extend(members.iter().map(|p| (p.pid, p.started)));
        }
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
