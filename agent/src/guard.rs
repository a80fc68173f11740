//! The guard: one per machine, the process that is always there. It restarts the
//! agent, exchanges its program and takes that back where it fails, starts
//! keepers on request and reaps. It knows no network and no run; it never ends
//! a keeper, and a training survives its end.
#![cfg(target_os = "linux")]

mod agent;
mod notify;
pub(crate) mod program;
mod record;
mod shutdown;
mod slot;
mod watch;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::keeper::{LOG_FILE, SPEC_FILE, STARTED_FILE};
use crate::os::{self, FileLock, LineServer, Signals};
use agent::Agent;
use notify::Notifier;
pub(crate) use program::Outcome;
pub(crate) use record::is_owned;
use shutdown::Place;
pub use shutdown::{Farewell, PREEMPTED};

/// The guard's socket, below the state directory.
pub(crate) const GUARD_SOCKET: &str = "guard.sock";
const GUARD_FILE: &str = "guard.json";
const LOCK_FILE: &str = "guard.lock";
const IDLE: Duration = Duration::from_secs(5);
/// The agent's time to end by itself when the guard ends.
const AGENT_GRACE: Duration = Duration::from_secs(10);
/// More than the agent was granted when the machine ends, to end by itself.
const FAREWELL_SLACK: Duration = Duration::from_secs(2);
/// Tells the agent how often its guard wants a sign of life, in milliseconds.
pub(crate) const SIGN_EVERY: &str = "OUTLAST_SIGN_EVERY_MS";
/// Tells the agent which process must be its parent.
const GUARD_PID: &str = "OUTLAST_GUARD_PID";

/// The guard's limits. Whatever they end is silent meanwhile, and what follows
/// must have spoken before the controller gives the machine up, which it does
/// after 30 s unless told otherwise.
#[derive(Debug, Clone, Copy)]
struct Timing {
    /// Silence after which an agent counts as hung.
    watchdog: Duration,
    /// How long a program that is tried may take until the controller has
    /// welcomed its agent.
    trial: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { watchdog: Duration::from_secs(10), trial: Duration::from_secs(10) }
    }
}

/// What a guard needs to know.
#[derive(Debug, Clone)]
pub struct GuardConfig {
    /// The machine's state directory.
    pub state_dir: PathBuf,
    /// The program that is run as `exe agent --state DIR` and as
    /// `exe keeper --attempt DIR` where no upgrade brought another one; looked
    /// up afresh at every start, so that it can be replaced in place.
    pub exe: PathBuf,
    /// Where the agent's own output goes.
    pub log: PathBuf,
}

/// Why a guard ended.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// There may be only one per state directory.
    #[error("another guard already serves {}", state_dir.display())]
    AlreadyRunning {
        /// The directory.
        state_dir: PathBuf,
    },
    /// There may be only one per slot of a host.
    #[error("another guard holds the slot of {}", lock.display())]
    SlotTaken {
        /// The slot's lock.
        lock: PathBuf,
    },
    /// The host gave the slot to no machine, or to another one.
    #[error("the slot is not claimed by this machine: {}", claim.display())]
    SlotNotOurs {
        /// The slot's claim.
        claim: PathBuf,
    },
    /// The system refused something that a guard cannot do without.
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

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Request {
    Keeper {
        attempt_dir: PathBuf,
    },
    Status {},
    /// The agent of this process number was welcomed by the controller.
    Ready {
        pid: u32,
    },
    /// Try this file as the agent's program.
    Upgrade {
        program: PathBuf,
    },
}

#[derive(Serialize)]
struct Status {
    agent_pid: Option<u32>,
    /// The controller has welcomed that agent.
    ready: bool,
    keepers: usize,
}

struct Guard {
    config: GuardConfig,
    signals: Signals,
    server: LineServer,
    notifier: Notifier,
    agent: Agent,
    keepers: Vec<(PathBuf, Child)>,
}

/// Serves one machine until SIGTERM or SIGINT; then the agent is ended and
/// keepers and trainings stay. One thread.
///
/// # Errors
/// When another guard serves the directory, or it cannot be served at all.
pub fn run(config: GuardConfig) -> Result<(), GuardError> {
    let io = |action: &'static str, path: &Path| {
        let path = path.to_path_buf();
        move |source| GuardError::Io { action, path, source }
    };
    let mut config = config;
    os::make_private_dir(&config.state_dir.join("attempts")).map_err(io("make", &config.state_dir))?;
    config.state_dir = config.state_dir.canonicalize().map_err(io("open", &config.state_dir))?;
    let state_dir = config.state_dir.clone();
    let lock = state_dir.join(LOCK_FILE);
    let Some(_lock) = FileLock::try_take(&lock).map_err(io("lock", &lock))? else {
        return Err(GuardError::AlreadyRunning { state_dir });
    };
    let _slot = slot::of_environment()?;
    os::adopt_orphans().map_err(io("adopt the orphans of", &state_dir))?;
    let signals = Signals::install().map_err(io("handle signals for", &state_dir))?;
    let own = os::ProcessRef::own().and_then(|own| serde_json::to_vec(&own).ok()).unwrap_or_default();
    let file = state_dir.join(GUARD_FILE);
    // Whoever looks for this machine's guard finds it from here on; until then
    // the machine seems to have none. It names a process: no boot needs it.
    os::write_whole(&file, &own).map_err(io("write", &file))?;
    let socket = state_dir.join(GUARD_SOCKET);
    let server = LineServer::bind(&socket).map_err(io("listen at", &socket))?;
    let place = Place::look(&state_dir);
    let agent = Agent::new(&config, Timing::default());
    let notifier = Notifier::from_env();
    notifier.say("READY=1");
    let mut guard = Guard { config, signals, server, notifier, agent, keepers: Vec::new() };
    guard.serve();
    guard.notifier.say("STOPPING=1");
    let grace = place.farewell().map_or(AGENT_GRACE, |granted| granted + FAREWELL_SLACK);
    let Guard { agent, notifier, .. } = &mut guard;
    agent.end(grace, || notifier.turn(Instant::now()));
    Ok(())
}

impl Guard {
    fn serve(&mut self) {
        while !self.signals.take_end_asked() {
            self.agent.turn(Instant::now());
            self.notifier.turn(Instant::now());
            self.sleep();
            self.signals.drain();
            self.reap();
            for request in self.server.requests() {
                let answer = self.answer(&request.line);
                request.answer(&answer);
            }
        }
    }

    fn sleep(&self) {
        let limit = if self.server.is_busy() { IDLE / 10 } else { IDLE };
        let now = Instant::now();
        let timeout = self.agent.next_turn(now).min(limit);
        let timeout = timeout.min(self.notifier.next_turn(now).unwrap_or(limit));
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd()];
        fds.extend(self.server.fds());
        fds.extend(self.agent.signs());
        if os::wait_readable(&fds, timeout).is_err() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn reap(&mut self) {
        self.agent.notice_end(Instant::now());
        self.keepers.retain_mut(|(_, child)| matches!(child.try_wait(), Ok(None)));
        let known = self.keepers.iter().map(|(_, c)| c.id()).chain(self.agent.pid());
        os::reap_orphans(&known.map(u32::cast_signed).collect::<Vec<_>>());
    }

    fn answer(&mut self, line: &str) -> String {
        let answer = match serde_json::from_str(line) {
            Ok(Request::Keeper { attempt_dir }) => match self.start_keeper(&attempt_dir) {
                Ok(()) => serde_json::json!({ "ok": true }),
                Err(reason) => serde_json::json!({ "error": reason }),
            },
            Ok(Request::Status {}) => {
                serde_json::json!(Status {
                    agent_pid: self.agent.pid(),
                    ready: self.agent.is_ready(),
                    keepers: self.keepers.len()
                })
            }
            Ok(Request::Ready { pid }) => match self.agent.ready(pid, Instant::now()) {
                Ok(upgraded) => serde_json::json!({ "ok": true, "upgraded": upgraded }),
                Err(reason) => serde_json::json!({ "error": reason }),
            },
            Ok(Request::Upgrade { program }) => match self.agent.upgrade(&program, Instant::now()) {
                Ok(begun) => serde_json::json!({ "ok": true, "already": !begun }),
                Err(reason) => serde_json::json!({ "error": reason }),
            },
            Err(e) => serde_json::json!({ "error": format!("not a request: {e}") }),
        };
        answer.to_string()
    }

    /// Starts a keeper unless the attempt was started before.
    fn start_keeper(&mut self, asked: &Path) -> Result<(), String> {
        let dir = asked.canonicalize().map_err(|e| format!("cannot open {}: {e}", asked.display()))?;
        if dir.parent() != Some(&self.config.state_dir.join("attempts")) {
            return Err(format!("{} is no attempt of this machine", asked.display()));
        }
        if dir.join(STARTED_FILE).exists() || self.keepers.iter().any(|(d, _)| *d == dir) {
            return Ok(());
        }
        os::open_nofollow(&dir.join(SPEC_FILE)).map_err(|e| format!("{SPEC_FILE} is not usable: {e}"))?;
        let log = open_log(&dir.join(LOG_FILE)).map_err(|e| format!("cannot open {LOG_FILE}: {e}"))?;
        let child = self.spawn_keeper(&dir, &log)?;
        self.keepers.push((dir, child));
        Ok(())
    }

    /// A keeper from the agent's own program, so that the two are of one
    /// build; where that cannot be run, from the guard's.
    fn spawn_keeper(&self, dir: &Path, log: &File) -> Result<Child, String> {
        let open = || log.try_clone().map_err(|e| format!("cannot open {LOG_FILE}: {e}"));
        let mut refused = String::new();
        for program in self.agent.programs() {
            let mut command = Command::new(&program);
            for name in notify::VARIABLES {
                command.env_remove(name);
            }
            command.args(["keeper", "--attempt"]).arg(dir).stdin(Stdio::null());
            match command.stdout(open()?).stderr(open()?).spawn() {
                Ok(child) => return Ok(child),
                Err(e) => refused = format!("cannot run {}: {e}", program.display()),
            }
        }
        Err(refused)
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
