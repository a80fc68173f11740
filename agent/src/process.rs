//! The agent's view of a keeper: asks the guard to start it, reads its state from
//! its files and the process table, and passes stops on. It holds no pipe and no
//! child, so the agent may end at any moment and the training does not notice.
#![cfg(target_os = "linux")]

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::guard::GUARD_SOCKET;
use crate::keeper::{
    ATTEMPT_MARKER, ChildFile, EXIT_FILE, ExitRecord, KeeperSpec, LOG_FILE, Request, SOCKET_FILE, SPEC_FILE,
    STARTED_FILE,
};
use crate::os::{self, Cgroup, ProcessRef, Tree};
use crate::secrets::Values;

const ASK: Duration = Duration::from_secs(5);
/// How long a keeper may take to come up: it makes its start durable first, and
/// a disk that stands still for some seconds must not cost an attempt.
const START: Duration = Duration::from_mins(1);
/// How long the guard may take to answer who asks for a keeper.
const ASK_GUARD: Duration = Duration::from_secs(30);
const MAX_FILE: usize = 64 * 1024;

/// Where an attempt stands on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeeperState {
    /// No keeper ever began it.
    NotStarted,
    /// Its keeper lives and is about to start the program.
    Starting,
    /// The program runs, or its keeper is still ending what it left behind.
    Running {
        /// The number of the program's main process.
        child_pid: i32,
    },
    /// It has ended and its output is whole, or will not become more whole.
    Exited(ExitRecord),
    /// It was started, its keeper is gone, and nobody recorded the end.
    Vanished,
}

/// Why a keeper could not be started or told something.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The request itself is not usable.
    #[error("cannot start the attempt: {0}")]
    Refused(String),
    /// A file of the attempt could not be written or read.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody answered at a socket.
    #[error("{who} does not answer at {}: {source}", path.display())]
    Unreachable {
        /// The guard or the keeper.
        who: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The keeper was begun and did not come up.
    #[error("the keeper did not come up within {} s; see {}", START.as_secs(), log.display())]
    NotUp {
        /// Where it says why.
        log: PathBuf,
    },
}

/// One attempt's keeper, seen from the agent.
#[derive(Debug, Clone)]
pub struct KeeperClient {
    dir: PathBuf,
}

impl KeeperClient {
    /// The keeper of the attempt in this directory, started or not.
    #[must_use]
    pub fn new(attempt_dir: PathBuf) -> Self {
        Self { dir: attempt_dir }
    }

    fn file<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&os::read_bounded(&self.dir.join(name), MAX_FILE).ok()?).ok()
    }

    fn keeper_lives(&self) -> bool {
        self.file::<ProcessRef>(STARTED_FILE).is_some_and(|k| k.is_alive())
    }

    /// Lets a keeper that somebody stopped go on: its program's end would
    /// neither be recorded nor waited for.
    pub fn wake(&self) {
        if let Some(keeper) = self.file::<ProcessRef>(STARTED_FILE) {
            os::send_continue(&keeper);
        }
    }

    /// Where the attempt stands now. Processes are recognised by number, start
    /// time and boot, never by number alone.
    #[must_use]
    pub fn state(&self) -> KeeperState {
        match self.dir.join(STARTED_FILE).try_exists() {
            Ok(true) => {}
            Ok(false) => return KeeperState::NotStarted,
            // A disk that fails for a moment says nothing about the program.
            Err(_) => return KeeperState::Starting,
        }
        // Asked before the record is read: a keeper that was already gone then
        // has written all it will ever write.
        let lives = self.keeper_lives();
        if let Some(record) = self.file::<ExitRecord>(EXIT_FILE)
            && (record.is_final || !lives)
        {
            return KeeperState::Exited(record);
        }
        match self.file::<ChildFile>(crate::keeper::CHILD_FILE) {
            _ if !lives => KeeperState::Vanished,
            Some(child) => KeeperState::Running { child_pid: child.process.pid },
            None => KeeperState::Starting,
        }
    }

    /// The end of the main process as its keeper recorded it, also while the
    /// keeper still ends what it left.
    #[must_use]
    pub fn exit_seen(&self) -> Option<ExitRecord> {
        self.file(EXIT_FILE)
    }

    /// Whether its keeper belonged to a boot that is over.
    #[must_use]
    pub fn is_of_another_boot(&self) -> bool {
        self.file::<ProcessRef>(STARTED_FILE).is_some_and(|keeper| keeper.boot_id != os::boot_id())
    }

    /// The program's main process if it still runs, also without its keeper.
    #[must_use]
    pub fn live_child(&self) -> Option<i32> {
        let child: ChildFile = self.file(crate::keeper::CHILD_FILE)?;
        child.process.is_alive().then_some(child.process.pid)
    }

    /// Limits that could not be applied to the program, in words; empty until
    /// it runs.
    #[must_use]
    pub fn unapplied_limits(&self) -> Vec<String> {
        let child: Option<ChildFile> = self.file(crate::keeper::CHILD_FILE);
        child.map(|c| c.unapplied_limits).unwrap_or_default()
    }

    fn ask(&self, request: &Request) -> Result<(), ProcessError> {
        let path = self.dir.join(SOCKET_FILE);
        let line = serde_json::to_string(request).map_err(|e| ProcessError::Refused(e.to_string()))?;
        let until = Instant::now() + ASK;
        loop {
            let Err(source) = os::ask(&path, &line, ASK) else { return Ok(()) };
            // A keeper that ended while it was asked has done what was asked.
            if !self.keeper_lives() || matches!(self.state(), KeeperState::Exited(_)) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(ProcessError::Unreachable { who: "the keeper", path, source });
            }
            // Between its marker and its socket there is a short while.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn spec(&self) -> Option<KeeperSpec> {
        let spec: KeeperSpec =
            serde_json::from_slice(&os::read_bounded(&self.dir.join(SPEC_FILE), 8 << 20).ok()?).ok()?;
        spec.validate().is_ok().then_some(spec)
    }

    /// What is left of the attempt when its keeper is gone.
    fn remains(&self) -> Option<Tree> {
        let tree = match self.spec() {
            Some(spec) => {
                Tree::marked(ATTEMPT_MARKER, &spec.attempt_id).with_cgroup(Cgroup::find(&spec.cgroup_name()))
            }
            // Its directory, which is named like it, was taken away.
            None if !self.dir.exists() => Tree::marked(ATTEMPT_MARKER, self.dir.file_name()?.to_str()?),
            None => return None,
        };
        Some(match self.live_child() {
            Some(pid) => tree.with_root(pid),
            None => tree,
        })
    }

    /// Has the keeper end the whole tree: SIGTERM now, SIGKILL after the grace;
    /// the keeper goes on with it though the caller ends. A second stop only
    /// shortens the grace. Where the keeper is gone, what is left gets SIGTERM
    /// and the caller must follow up with `kill`.
    ///
    /// # Errors
    /// When the keeper lives and does not answer.
    pub fn stop(&self, grace: Duration) -> Result<(), ProcessError> {
        if self.keeper_lives() {
            self.wake();
            let grace_ms = Some(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
            return self.ask(&Request::Stop { grace_ms });
        }
        if let Some(tree) = self.remains() {
            tree.terminate();
        }
        Ok(())
    }

    /// Has the keeper end the whole tree at once, or does it itself where the
    /// keeper is gone.
    ///
    /// # Errors
    /// When the keeper lives and does not answer.
    pub fn kill(&self) -> Result<(), ProcessError> {
        if self.keeper_lives() {
            self.wake();
            let Err(error) = self.ask(&Request::Kill {}) else { return Ok(()) };
            // One that a debugger holds neither answers nor goes on; what it
            // keeps must end all the same.
            let held = self.file::<ProcessRef>(STARTED_FILE).filter(ProcessRef::is_stopped).ok_or(error)?;
            os::send_kill(&held);
        }
        let spec = self.spec();
        let remove = || {
            if let Some((container, env)) = spec.as_ref().and_then(|s| Some((s.container.as_ref()?, &s.env)))
            {
                container.remove(env, ASK);
            }
        };
        remove();
        if let Some(tree) = self.remains() {
            let until = Instant::now() + ASK;
            while tree.kill_pass() > 0 && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        remove();
        Ok(())
    }

    /// As [`Self::start_with`], of an attempt without secrets.
    ///
    /// # Errors
    /// As there.
    pub fn start(state_dir: &Path, attempt_dir: &Path, spec: &KeeperSpec) -> Result<(), ProcessError> {
        Self::start_with(state_dir, attempt_dir, spec.clone(), &Values::default())
    }

    /// Starts an attempt: writes `keeper.json`, asks the guard, and returns once
    /// the start is on disk. Asking again changes nothing. Secrets go to the
    /// keeper through memory alone.
    ///
    /// # Errors
    /// When the spec is not usable, the guard does not answer or refuses, or the
    /// keeper does not come up.
    pub fn start_with(
        state_dir: &Path,
        attempt_dir: &Path,
        mut spec: KeeperSpec,
        secrets: &Values,
    ) -> Result<(), ProcessError> {
        let started = attempt_dir.join(STARTED_FILE);
        if started.exists() {
            return Ok(());
        }
        spec.validate().map_err(ProcessError::Refused)?;
        spec.secrets = secrets.hand_over(&spec.attempt_id).map_err(ProcessError::Refused)?;
        let path = attempt_dir.join(SPEC_FILE);
        let text = serde_json::to_vec_pretty(&spec).map_err(|e| ProcessError::Refused(e.to_string()))?;
        os::make_private_dir(attempt_dir)
            .and_then(|()| os::write_durable(&path, &text))
            .map_err(|source| ProcessError::Io { action: "write", path, source })?;
        if let Err(error) = ask_guard(state_dir, attempt_dir) {
            return forestall(&started, error);
        }
        let until = Instant::now() + START;
        while !started.exists() {
            if Instant::now() >= until {
                return forestall(&started, ProcessError::NotUp { log: attempt_dir.join(LOG_FILE) });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// A start that failed must not happen later, unseen: the marker that allows
/// one start is taken away from a keeper that may still be on its way. Where
/// that keeper was faster, the start has succeeded after all.
fn forestall(started: &Path, error: ProcessError) -> Result<(), ProcessError> {
    let on_its_way = match &error {
        ProcessError::NotUp { .. } => true,
        // Where nobody listened, nobody was asked.
        ProcessError::Unreachable { source, .. } => {
            !matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        }
        _ => false,
    };
    if !on_its_way {
        return Err(error);
    }
    match os::create_durable_once(started, b"null") {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(error),
    }
}

fn ask_guard(state_dir: &Path, attempt_dir: &Path) -> Result<(), ProcessError> {
    let socket = state_dir.join(GUARD_SOCKET);
    let request = serde_json::json!({ "keeper": { "attempt_dir": attempt_dir } }).to_string();
    let answer = os::ask(&socket, &request, ASK_GUARD).map_err(|source| ProcessError::Unreachable {
        who: "the guard",
        path: socket,
        source,
    })?;
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    match answer.get("error").and_then(serde_json::Value::as_str) {
        Some(reason) => Err(ProcessError::Refused(reason.to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(process: &ProcessRef) -> Vec<u8> {
        serde_json::to_vec(process).unwrap()
    }

    #[test]
    fn a_reused_pid_is_not_taken_for_the_keeper() {
        let dir = tempfile::tempdir().unwrap();
        let client = KeeperClient::new(dir.path().to_path_buf());
        assert_eq!(client.state(), KeeperState::NotStarted);
        let own = ProcessRef::own().unwrap();
        std::fs::write(dir.path().join(STARTED_FILE), marker(&own)).unwrap();
        assert_eq!(client.state(), KeeperState::Starting);
        let reused = ProcessRef { start_time: own.start_time + 1, ..own.clone() };
        std::fs::write(dir.path().join(STARTED_FILE), marker(&reused)).unwrap();
        assert_eq!(client.state(), KeeperState::Vanished);
        let rebooted = ProcessRef { boot_id: "an earlier boot".to_owned(), ..own };
        assert!(!client.is_of_another_boot());
        std::fs::write(dir.path().join(STARTED_FILE), marker(&rebooted)).unwrap();
        assert_eq!(client.state(), KeeperState::Vanished);
        assert!(client.is_of_another_boot());
    }

    #[test]
    fn a_start_without_a_guard_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let attempt = dir.path().join("attempts/a");
        let spec = KeeperSpec {
            attempt_id: "a".to_owned(),
            machine_id: "m".to_owned(),
            argv: vec!["true".to_owned()],
            cwd: "/".into(),
            env: std::collections::BTreeMap::new(),
            spool_bytes: 0,
            grace_ms: 0,
            limits: lifecycle::spec::LimitSpec::default(),
            pty: false,
            container: None,
            secrets: None,
        };
        let error = KeeperClient::start(dir.path(), &attempt, &spec).unwrap_err().to_string();
        assert!(error.contains("the guard does not answer"), "{error}");
        assert_eq!(KeeperClient::new(attempt).state(), KeeperState::NotStarted);
    }
}
