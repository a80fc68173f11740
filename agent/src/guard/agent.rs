//! The one agent of a guard: started, restarted with back-off, watched, logged,
//! exchanged for another program and ended. Never two at a time: one that an
//! earlier guard left behind is ended first.

use std::fs;
use std::io::{PipeReader, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::program::{Outcome, Programs};
use super::watch::Watch;
use super::{GUARD_PID, GuardConfig, SIGN_EVERY, Timing, notify, open_log, record};
use crate::os::{self, ProcessRef};

const FIRST_DELAY: Duration = Duration::from_millis(500);
/// Below the silence that makes a machine suspect, and far below the one after
/// which it is given up: an agent that dies again and again must never cost a
/// training that goes on.
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// An agent that lived this long starts the back-off anew.
const PROVEN: Duration = Duration::from_secs(60);
/// `ENOEXEC`: the file is of no format that can be run.
const NOT_EXECUTABLE: i32 = 8;
const LOG_MAX: u64 = 8 << 20;
const LOG_CHECK: Duration = Duration::from_secs(10);
/// An agent's time to end by itself when another program takes its place.
const RETIRE_GRACE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// How long to wait before the next start. Pure.
#[derive(Debug)]
struct Backoff {
    next: Duration,
}

impl Backoff {
    fn new() -> Self {
        Self { next: FIRST_DELAY }
    }

    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= PROVEN {
            self.next = FIRST_DELAY;
        }
        let delay = self.next;
        self.next = (self.next * 2).min(LONGEST_DELAY);
        delay
    }
}

struct Running {
    child: Child,
    since: Instant,
    watch: Watch,
    /// Its signs of life; `None`: it closed the pipe.
    signs: Option<PipeReader>,
    /// It runs a program that is being tried.
    trial: bool,
    /// It was welcomed by the controller.
    ready: bool,
    /// It was told to end, and is ended for sure at this moment.
    ends_at: Option<Instant>,
}

pub(super) struct Agent {
    config: GuardConfig,
    timing: Timing,
    programs: Programs,
    running: Option<Running>,
    start_at: Instant,
    backoff: Backoff,
    log_checked: Instant,
}

impl Agent {
    pub(super) fn new(config: &GuardConfig, timing: Timing) -> Self {
        let now = Instant::now();
        record::end_all(&config.state_dir);
        Self {
            config: config.clone(),
            timing,
            programs: Programs::open(&config.state_dir, &config.exe),
            running: None,
            start_at: now,
            backoff: Backoff::new(),
            log_checked: now,
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// Whether the controller has welcomed the agent that runs.
    pub(super) fn is_ready(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.ready && running.ends_at.is_none())
    }

    /// What new keepers are started from, the most wanted first.
    pub(super) fn programs(&self) -> [PathBuf; 2] {
        [self.programs.program(), self.config.exe.clone()]
    }

    /// Becomes readable when the agent gives a sign of life.
    pub(super) fn signs(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref()?.signs.as_ref().map(PipeReader::as_fd)
    }

    /// How long until `turn` has something to do.
    pub(super) fn next_turn(&self, now: Instant) -> Duration {
        let Some(running) = &self.running else { return self.start_at.saturating_duration_since(now) };
        let next = [Some(self.log_checked + LOG_CHECK), running.ends_at, self.trial_ends(running)];
        let next = next.into_iter().flatten().min().map(|at| at.saturating_duration_since(now));
        running.watch.next_look(now).min(next.unwrap_or(LOG_CHECK))
    }

    fn trial_ends(&self, running: &Running) -> Option<Instant> {
        (running.trial && !running.ready && running.ends_at.is_none())
            .then(|| running.since + self.timing.trial)
    }

    /// Starts the agent when it is due, ends it when it hangs or must make
    /// place, and keeps its log short.
    pub(super) fn turn(&mut self, now: Instant) {
        self.listen();
        if self.running.is_none() {
            if now >= self.start_at {
                self.start(now);
            }
            return;
        }
        if now >= self.log_checked + LOG_CHECK {
            self.log_checked = now;
            self.shorten_log();
        }
        self.judge(now);
    }

    fn judge(&mut self, now: Instant) {
        let Some(running) = &self.running else { return };
        if self.trial_ends(running).is_some_and(|at| now >= at) {
            let waited = self.timing.trial.as_secs_f32();
            self.programs.fail(&format!("it was not welcomed by the controller within {waited} s"));
            self.retire(now);
        }
        let Some(running) = &mut self.running else { return };
        let late = running.ends_at.is_some_and(|at| now >= at);
        let hangs = running.watch.hangs(now);
        if hangs && !late {
            let pid = running.child.id();
            let state = os::process(pid.cast_signed()).map_or('?', |p| char::from(p.state));
            let limit = self.timing.watchdog;
            tracing::warn!(pid, %state, ?limit, "the agent hangs and is ended");
            running.ends_at = Some(now);
        }
        if hangs || late {
            let _ = running.child.kill();
        }
    }

    /// Takes the agent's signs of life.
    fn listen(&mut self) {
        let Some(running) = &mut self.running else { return };
        let Some(signs) = &mut running.signs else { return };
        let mut bytes = [0_u8; 64];
        loop {
            match signs.read(&mut bytes) {
                Ok(0) => break,
                Ok(_) => running.watch.heard(),
                Err(_) => return,
            }
        }
        // A closed pipe is readable for ever.
        running.signs = None;
    }

    /// Has the agent end, so that another program takes its place.
    fn retire(&mut self, now: Instant) {
        let Some(running) = &mut self.running else { return };
        if let Some(process) = ProcessRef::of(running.child.id().cast_signed()) {
            os::send_term(&process);
        }
        running.ends_at = Some(now + RETIRE_GRACE);
    }

    /// Begins to try another program; `false`: it is in use already.
    ///
    /// # Errors
    /// Why it is not tried.
    pub(super) fn upgrade(&mut self, program: &Path, now: Instant) -> Result<bool, String> {
        let begun = self.programs.begin(program)?;
        if begun {
            tracing::info!(program = %program.display(), "another program is tried");
            self.retire(now);
        }
        Ok(begun)
    }

    /// An agent was welcomed by the controller. Gives how the newest upgrade
    /// went.
    ///
    /// # Errors
    /// Where it is not this guard's agent.
    pub(super) fn ready(&mut self, pid: u32, now: Instant) -> Result<Option<Outcome>, String> {
        let Some(running) = self.running.as_mut().filter(|running| running.child.id() == pid) else {
            return Err(format!("{pid} is not the agent of this guard"));
        };
        running.ready = true;
        if running.trial && self.programs.is_trial() {
            match self.programs.commit() {
                Ok(()) => tracing::info!("the upgrade is done"),
                Err(problem) => {
                    self.programs.fail(&problem);
                    self.retire(now);
                }
            }
        }
        self.programs.proven();
        // An agent that is about to end must not take the answer with it.
        let stays = self.running.as_ref().is_some_and(|running| running.ends_at.is_none());
        Ok(self.programs.last().filter(|_| stays).cloned())
    }

    fn start(&mut self, now: Instant) {
        self.rotate_log();
        let trial = self.programs.is_trial();
        match self.spawn() {
            Ok((child, signs)) => {
                // The agent says so itself, and first of all; one of an older
                // build does not.
                if let Some(process) = ProcessRef::of(child.id().cast_signed()) {
                    record::register(&self.config.state_dir, &process);
                }
                let watch = Watch::new(self.timing.watchdog, self.programs.is_own(), now);
                let running = Running {
                    child,
                    since: now,
                    watch,
                    signs: Some(signs),
                    trial,
                    ready: false,
                    ends_at: None,
                };
                self.running = Some(running);
            }
            Err(e) => {
                tracing::warn!(exe = %self.programs.program().display(), error = %e, "cannot start the agent");
                // Too few processes, files or memory are no fault of the program.
                let kinds = [std::io::ErrorKind::NotFound, std::io::ErrorKind::PermissionDenied];
                let its_own = kinds.contains(&e.kind()) || e.raw_os_error() == Some(NOT_EXECUTABLE);
                if !its_own {
                    self.start_at = now + self.backoff.after(Duration::ZERO);
                    return;
                }
                if trial {
                    self.programs.fail(&format!("it cannot be started: {e}"));
                } else {
                    self.programs.spoil();
                }
                self.start_at = now + self.backoff.after(Duration::ZERO);
            }
        }
    }

    fn spawn(&self) -> std::io::Result<(Child, PipeReader)> {
        let log = open_log(&self.config.log)?;
        let errors = log.try_clone()?;
        let (signs, sign) = std::io::pipe()?;
        os::set_nonblocking(&signs)?;
        let mut command = Command::new(self.programs.program());
        command.args(["agent", "--state"]).arg(&self.config.state_dir);
        for name in notify::VARIABLES {
            command.env_remove(name);
        }
        command.env(GUARD_PID, std::process::id().to_string());
        command.env(SIGN_EVERY, (self.timing.watchdog.as_millis() / 6).to_string());
        // A group of its own: a terminal's interrupt is for the guard to pass on.
        let child = command.stdin(sign).stdout(log).stderr(errors).process_group(0).spawn()?;
        Ok((child, signs))
    }

    /// Notices that the agent ended and plans its next start.
    pub(super) fn notice_end(&mut self, now: Instant) {
        let Some(running) = &mut self.running else { return };
        let ended = match running.child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => status.to_string(),
            Err(e) => format!("end not seen: {e}"),
        };
        let (trial, ready, retired) = (running.trial, running.ready, running.ends_at.is_some());
        let lived = now.saturating_duration_since(running.since);
        record::forget(&self.config.state_dir, running.child.id());
        self.running = None;
        if trial && !ready {
            self.programs.fail(&format!("it ended before the controller welcomed it: {ended}"));
        } else if !ready && !retired && lived < PROVEN {
            self.programs.ended_early();
        }
        // What makes place for another program does so at once.
        let at_once = retired || (trial && !ready);
        let delay = if at_once { Duration::ZERO } else { self.backoff.after(lived) };
        tracing::warn!(%ended, restart_in_ms = delay.as_millis(), "the agent ended");
        self.start_at = now + delay;
    }

    fn older_log(&self) -> PathBuf {
        let mut name = self.config.log.clone().into_os_string();
        name.push(".1");
        name.into()
    }

    fn log_is_long(&self) -> bool {
        fs::metadata(&self.config.log).is_ok_and(|m| m.len() > LOG_MAX)
    }

    fn rotate_log(&self) {
        if self.log_is_long() {
            let _ = fs::rename(&self.config.log, self.older_log());
        }
    }

    /// A running agent holds the file open, so it is copied and emptied; the
    /// agent appends and goes on at the new beginning.
    fn shorten_log(&self) {
        if self.log_is_long() && fs::copy(&self.config.log, self.older_log()).is_ok() {
            let _ = fs::OpenOptions::new().write(true).open(&self.config.log).and_then(|f| f.set_len(0));
        }
    }

    /// Ends the agent for good: SIGTERM, and SIGKILL after the grace. `meanwhile`
    /// is called again and again.
    pub(super) fn end(&mut self, grace: Duration, mut meanwhile: impl FnMut()) {
        let Some(Running { mut child, .. }) = self.running.take() else { return };
        if let Some(process) = ProcessRef::of(child.id().cast_signed()) {
            os::send_term(&process);
        }
        let until = Instant::now() + grace;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= until {
                let _ = child.kill();
            }
            meanwhile();
            std::thread::sleep(LOOK);
        }
        record::forget(&self.config.state_dir, child.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_slow_down_and_recover() {
        let mut backoff = Backoff::new();
        let millis: Vec<u128> = (0..5).map(|_| backoff.after(Duration::from_secs(1)).as_millis()).collect();
        assert_eq!(millis, [500, 1000, 2000, 2000, 2000]);
        assert_eq!(backoff.after(PROVEN), FIRST_DELAY);
    }

    #[test]
    fn a_long_log_is_kept_once_and_emptied_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("agent.log");
        let config = GuardConfig { state_dir: dir.path().into(), exe: "/bin/false".into(), log: log.clone() };
        let agent = Agent::new(&config, Timing::default());
        let mut writer = open_log(&log).unwrap();
        std::io::Write::write_all(&mut writer, &vec![b'x'; usize::try_from(LOG_MAX).unwrap() + 1]).unwrap();
        agent.shorten_log();
        std::io::Write::write_all(&mut writer, b"after").unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"after");
        assert_eq!(fs::metadata(dir.path().join("agent.log.1")).unwrap().len(), LOG_MAX + 1);
    }
}
