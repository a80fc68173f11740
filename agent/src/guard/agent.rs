//! The one agent of a guard: started, restarted with back-off, logged, ended.
//! Never two at a time: one that an earlier guard left behind is ended first.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{GuardConfig, open_log};
use crate::os::{self, ProcessRef};

const FIRST_DELAY: Duration = Duration::from_millis(500);
/// Below the silence that makes a machine suspect, and far below the one after
/// which it is given up: an agent that dies again and again must never cost a
/// training that goes on.
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// An agent that lived this long starts the back-off anew.
const PROVEN: Duration = Duration::from_secs(60);
const LOG_MAX: u64 = 8 << 20;
const LOG_CHECK: Duration = Duration::from_secs(10);
const PREDECESSOR_GRACE: Duration = Duration::from_secs(10);
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

pub(super) struct Agent {
    config: GuardConfig,
    running: Option<(Child, Instant)>,
    start_at: Instant,
    backoff: Backoff,
    log_checked: Instant,
}

impl Agent {
    pub(super) fn new(config: &GuardConfig) -> Self {
        let now = Instant::now();
        let agent = Self {
            config: config.clone(),
            running: None,
            start_at: now,
            backoff: Backoff::new(),
            log_checked: now,
        };
        agent.end_predecessor();
        agent
    }

    fn file(&self) -> PathBuf {
        self.config.state_dir.join("agent.json")
    }

    /// Ends the agent that a killed guard left behind.
    fn end_predecessor(&self) {
        let Some(old) = os::read_bounded(&self.file(), 4096)
            .ok()
            .and_then(|b| serde_json::from_slice::<ProcessRef>(&b).ok())
        else {
            return;
        };
        os::send_term(&old);
        let until = Instant::now() + PREDECESSOR_GRACE;
        while old.is_alive() {
            if Instant::now() >= until {
                os::send_kill(&old);
            }
            std::thread::sleep(LOOK);
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|(child, _)| child.id())
    }

    /// How long until `turn` has something to do.
    pub(super) fn next_turn(&self, now: Instant) -> Duration {
        let at = if self.running.is_some() { self.log_checked + LOG_CHECK } else { self.start_at };
        at.saturating_duration_since(now)
    }

    /// Starts the agent when it is due, and keeps its log short.
    pub(super) fn turn(&mut self, now: Instant) {
        if self.running.is_none() && now >= self.start_at {
            self.start(now);
        } else if now >= self.log_checked + LOG_CHECK {
            self.log_checked = now;
            self.shorten_log();
        }
    }

    fn start(&mut self, now: Instant) {
        self.rotate_log();
        match self.spawn() {
            Ok(child) => {
                if let Some(process) = ProcessRef::of(child.id().cast_signed())
                    && let Ok(text) = serde_json::to_vec(&process)
                {
                    let _ = os::write_durable(&self.file(), &text);
                }
                self.running = Some((child, now));
            }
            Err(e) => {
                tracing::warn!(exe = %self.config.exe.display(), error = %e, "cannot start the agent");
                self.start_at = now + self.backoff.after(Duration::ZERO);
            }
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let log = open_log(&self.config.log)?;
        let errors = log.try_clone()?;
        // A group of its own: a terminal's interrupt is for the guard to pass on.
        Command::new(&self.config.exe)
            .args(["agent", "--state"])
            .arg(&self.config.state_dir)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
    }

    /// Notices that the agent ended and plans its next start.
    pub(super) fn notice_end(&mut self, now: Instant) {
        let Some((child, since)) = &mut self.running else { return };
        let ended = match child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => status.to_string(),
            Err(e) => format!("end not seen: {e}"),
        };
        let delay = self.backoff.after(now.saturating_duration_since(*since));
        tracing::warn!(%ended, restart_in_ms = delay.as_millis(), "the agent ended");
        self.start_at = now + delay;
        self.running = None;
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

    /// Ends the agent for good: SIGTERM, and SIGKILL after the grace.
    pub(super) fn end(&mut self, grace: Duration) {
        let Some((mut child, _)) = self.running.take() else { return };
        if let Some(process) = ProcessRef::of(child.id().cast_signed()) {
            os::send_term(&process);
        }
        let until = Instant::now() + grace;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= until {
                let _ = child.kill();
            }
            std::thread::sleep(LOOK);
        }
        let _ = fs::remove_file(self.file());
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
        let agent = Agent::new(&config);
        let mut writer = open_log(&log).unwrap();
        std::io::Write::write_all(&mut writer, &vec![b'x'; usize::try_from(LOG_MAX).unwrap() + 1]).unwrap();
        agent.shorten_log();
        std::io::Write::write_all(&mut writer, b"after").unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"after");
        assert_eq!(fs::metadata(dir.path().join("agent.log.1")).unwrap().len(), LOG_MAX + 1);
    }
}
