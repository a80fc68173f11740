//! The keeper: parent of one training process for its whole life. It holds the
//! pipes, writes the spool, sees the exit and makes it durable, and finishes a
//! stop once begun. It never talks to the network, never starts the same
//! attempt twice, never blocks the training, and nothing but SIGKILL ends it
//! before the training has ended.
#![cfg(target_os = "linux")]

mod container;
mod evidence;
mod kernel;
mod launch;
mod record;
mod stop;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use lifecycle::spec::LimitSpec;
use serde::{Deserialize, Serialize};

use crate::os;
use crate::secrets::Values;

pub use container::ContainerRef;
pub use kernel::OomProcess;
pub use record::{ExitRecord, StopKind};

/// The variable by which every process of an attempt is recognised.
pub const ATTEMPT_MARKER: &str = "OUTLAST_ATTEMPT";
/// The variable by which every process of a machine is recognised.
pub const MACHINE_MARKER: &str = "OUTLAST_MACHINE_ID";

pub(crate) const SPEC_FILE: &str = "keeper.json";
pub(crate) const STARTED_FILE: &str = "started";
pub(crate) const KEEPER_PID_FILE: &str = "keeper.pid";
pub(crate) const CHILD_FILE: &str = "child.json";
pub(crate) const EXIT_FILE: &str = "exit.json";
pub(crate) const SOCKET_FILE: &str = "keeper.sock";
pub(crate) const LOG_FILE: &str = "keeper.log";
/// What the kernel said while the program ran, below the attempt's directory.
pub const KERNEL_LOG_FILE: &str = "kernel.log";
const MAX_SPEC: usize = 8 << 20;

/// What one keeper is to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeeperSpec {
    /// The attempt, as the controller names it.
    pub attempt_id: String,
    /// The machine that it runs on.
    pub machine_id: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The directory in which it starts.
    pub cwd: PathBuf,
    /// The complete environment of the program; nothing is inherited. The two
    /// markers are added to it.
    pub env: BTreeMap<String, String>,
    /// Bytes of unreleased output that are kept; 0 is 10 % of the free disk, at
    /// most 8 GiB.
    pub spool_bytes: u64,
    /// Milliseconds between SIGTERM and SIGKILL where a stop names none.
    pub grace_ms: u64,
    /// What the program and all that it starts may use at most.
    #[serde(default)]
    pub limits: LimitSpec,
    /// Whether the program gets a terminal instead of two pipes.
    #[serde(default)]
    pub pty: bool,
    /// The container that `argv` starts, if it starts one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerRef>,
    /// The file in memory that holds more of the environment; the keeper takes
    /// it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<PathBuf>,
}

impl KeeperSpec {
    /// Whether this can be run at all.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn validate(&self) -> Result<(), String> {
        let id = &self.attempt_id;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.bytes().all(plain) {
            return Err("attempt_id must be 1 to 128 letters, digits, '-', '_' or '.'".to_owned());
        }
        if self.argv.first().is_none_or(String::is_empty) {
            return Err("argv must name a program".to_owned());
        }
        if self.argv.iter().chain([&self.machine_id]).any(|a| a.contains('\0')) {
            return Err("arguments must not contain NUL".to_owned());
        }
        let bad = |(k, v): (&String, &String)| k.is_empty() || k.contains(['=', '\0']) || v.contains('\0');
        if self.env.iter().any(bad) {
            return Err("env has a name that is empty or holds '=', or a NUL".to_owned());
        }
        Ok(())
    }

    /// The name of the attempt's cgroup, where there can be one.
    pub(crate) fn cgroup_name(&self) -> String {
        format!("outlast-{}", self.attempt_id)
    }

    fn read(attempt_dir: &Path) -> Result<Self, KeeperError> {
        let path = attempt_dir.join(SPEC_FILE);
        let bytes = os::read_bounded(&path, MAX_SPEC).map_err(|e| KeeperError::io("read", &path, e))?;
        let spec: Self = serde_json::from_slice(&bytes)
            .map_err(|e| KeeperError::Spec { path: path.clone(), reason: e.to_string() })?;
        spec.validate().map_err(|reason| KeeperError::Spec { path, reason })?;
        Ok(spec)
    }
}

/// Why a keeper did not come to run its training.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The attempt was started before; it is never started twice.
    #[error("the attempt at {} was already started; make a new attempt", dir.display())]
    AlreadyStarted {
        /// The directory of the attempt.
        dir: PathBuf,
    },
    /// What is to be run is not usable.
    #[error("{} is not usable: {reason}", path.display())]
    Spec {
        /// The file that says it.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused something that a keeper cannot do without.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl KeeperError {
    fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// What can be asked of a running keeper: one JSON line per connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// End the tree: SIGTERM, and SIGKILL after the grace.
    Stop {
        #[serde(default)]
        grace_ms: Option<u64>,
    },
    /// End the tree at once.
    Kill {},
    /// Say what runs.
    Status {},
}

/// The started program, as `child.json` tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChildFile {
    #[serde(flatten)]
    pub(crate) process: os::ProcessRef,
    pub(crate) started_ms: u64,
    /// Limits that could not be applied, in words.
    #[serde(default)]
    pub(crate) unapplied_limits: Vec<String>,
}

/// The whole life of the keeper process: starts what `keeper.json` in the
/// directory says, at most once ever, and returns when `exit.json` is final.
///
/// # Errors
/// Only for what happened before the attempt counted as started; from then on
/// every failure is an exit record.
pub fn run(attempt_dir: &Path) -> Result<(), KeeperError> {
    let dir = attempt_dir.canonicalize().map_err(|e| KeeperError::io("open", attempt_dir, e))?;
    let spec = KeeperSpec::read(&dir)?;
    os::lead_session();
    os::no_core_dumps();
    os::adopt_orphans().map_err(|e| KeeperError::io("adopt the orphans of", &dir, e))?;
    let signals = os::Signals::install().map_err(|e| KeeperError::io("handle signals for", &dir, e))?;
    claim(&dir)?;
    let secrets = spec.secrets.as_deref().map_or_else(|| Ok(Values::default()), Values::take);
    let begun = secrets.and_then(|secrets| watch::Watch::begin(&dir, &spec, &secrets, signals));
    match begun {
        Ok(watch) => watch.run(),
        Err(reason) => record::persist(&dir, &ExitRecord::not_started(reason)),
    }
    Ok(())
}

/// Takes the right to start this attempt. The marker appears whole and durable
/// or not at all, and only one process can ever make it.
fn claim(dir: &Path) -> Result<(), KeeperError> {
    let path = dir.join(STARTED_FILE);
    let own = os::ProcessRef::own()
        .ok_or_else(|| KeeperError::io("find in /proc", dir, io::ErrorKind::NotFound.into()))?;
    let own = serde_json::to_vec(&own).map_err(|e| KeeperError::io("encode", &path, e.into()))?;
    os::create_durable_once(&path, &own).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => KeeperError::AlreadyStarted { dir: dir.to_path_buf() },
        _ => KeeperError::io("write", &path, e),
    })?;
    // The marker already says who we are; this file is for people and tools.
    let _ = os::write_durable(&dir.join(KEEPER_PID_FILE), &own);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> KeeperSpec {
        KeeperSpec {
            attempt_id: "a-1".to_owned(),
            machine_id: "m".to_owned(),
            argv: vec!["true".to_owned()],
            cwd: "/".into(),
            env: BTreeMap::new(),
            spool_bytes: 0,
            grace_ms: 0,
            limits: LimitSpec::default(),
            pty: false,
            container: None,
            secrets: None,
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused_before_it_counts_as_started() {
        assert_eq!(spec().validate(), Ok(()));
        assert!(KeeperSpec { attempt_id: "../x".to_owned(), ..spec() }.validate().is_err());
        assert!(KeeperSpec { attempt_id: "..".to_owned(), ..spec() }.validate().is_err());
        assert!(KeeperSpec { argv: Vec::new(), ..spec() }.validate().is_err());
        let env = BTreeMap::from([("A=B".to_owned(), String::new())]);
        assert!(KeeperSpec { env, ..spec() }.validate().is_err());
    }

    #[test]
    fn a_file_of_an_older_agent_still_says_what_to_run() {
        let older = r#"{"attempt_id":"a-1","machine_id":"m","argv":["true"],"cwd":"/","env":{},"spool_bytes":0,"grace_ms":0}"#;
        assert_eq!(serde_json::from_str::<KeeperSpec>(older).unwrap(), spec());
        let child = r#"{"pid":7,"start_time":1,"boot_id":"b","started_ms":5}"#;
        assert!(serde_json::from_str::<ChildFile>(child).unwrap().unapplied_limits.is_empty());
    }

    #[test]
    fn requests_have_the_documented_form() {
        let stop: Request = serde_json::from_str(r#"{"stop":{"grace_ms":250}}"#).unwrap();
        assert!(matches!(stop, Request::Stop { grace_ms: Some(250) }));
        assert!(matches!(serde_json::from_str(r#"{"kill":{}}"#).unwrap(), Request::Kill {}));
        assert!(matches!(serde_json::from_str(r#"{"status":{}}"#).unwrap(), Request::Status {}));
        assert!(serde_json::from_str::<Request>(r#"{"burn":{}}"#).is_err());
    }

    #[test]
    fn an_attempt_can_be_claimed_once() {
        let dir = tempfile::tempdir().unwrap();
        claim(dir.path()).unwrap();
        assert!(matches!(claim(dir.path()), Err(KeeperError::AlreadyStarted { .. })));
    }
}
