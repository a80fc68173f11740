//! The GPU tool as a child that may never answer. It hangs in the driver where a
//! GPU is broken, and no signal ends it then. So: at most one child at a time, a
//! deadline of ten seconds, and one that cannot be killed is left alone and
//! counted. Never waits for it, never reads more of it than a little.

use std::ffi::OsStr;
use std::io::{self, PipeReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::os;

/// Names a tool to use in place of the one on the search path.
const VARIABLE: &str = "OUTLAST_NVIDIA_SMI";
const TIMEOUT_MS: u64 = 10_000;
/// 128 GPUs fit.
const OUTPUT_MAX: usize = 64 * 1024;
/// How often a tool that is not there is looked for.
const LOOK_EVERY_MS: u64 = 600_000;
/// Where it lies on machines whose search path does not have it.
const USUAL: [&str; 5] =
    ["/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/opt/nvidia/bin", "/usr/lib/wsl/lib"];
/// A killed process is usually gone within this; nobody waits for longer.
const REAP_WITHIN: Duration = Duration::from_millis(5);

/// The tool and its child, if it runs.
#[derive(Debug)]
pub(super) struct Tool {
    path: Option<PathBuf>,
    is_given: bool,
    looked_ms: Option<u64>,
    running: Option<Running>,
    abandoned: u32,
}

#[derive(Debug)]
struct Running {
    child: Child,
    out: PipeReader,
    output: Vec<u8>,
    /// When it was started, or killed without effect.
    since_ms: u64,
    is_killed: bool,
    is_counted: bool,
}

/// What came of the child since the last look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing yet.
    Nothing,
    /// It ended by itself; `None` is by a signal.
    Finished { code: Option<i32>, output: String },
    /// It did not do as it should, in words that follow its name.
    Missed(&'static str),
}

impl Tool {
    /// The tool as this machine has it.
    pub(super) fn found() -> Self {
        match std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
            Some(path) => Self::at(path.into()),
            None => Self { path: None, is_given: false, looked_ms: None, running: None, abandoned: 0 },
        }
    }

    /// This very program.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path: Some(path), is_given: true, looked_ms: None, running: None, abandoned: 0 }
    }

    pub(super) fn is_there(&self) -> bool {
        self.path.is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// Children that a kill did not end.
    pub(super) fn abandoned(&self) -> u32 {
        self.abandoned
    }

    /// Starts the tool unless it runs; tells whether it was started. A tool that
    /// is not there is no error.
    ///
    /// # Errors
    /// When it is there and cannot be run.
    pub(super) fn start(&mut self, now_ms: u64, arguments: &[String]) -> io::Result<bool> {
        if self.running.is_some() {
            return Ok(false);
        }
        if self.path.is_none() && self.looked_ms.is_none_or(|at| now_ms.saturating_sub(at) >= LOOK_EVERY_MS) {
            self.looked_ms = Some(now_ms);
            self.path = search(std::env::var_os("PATH").as_deref());
        }
        let Some(path) = &self.path else { return Ok(false) };
        match spawn(path, arguments, now_ms) {
            Ok(running) => {
                self.running = Some(running);
                Ok(true)
            }
            Err(e) => {
                if e.kind() == io::ErrorKind::NotFound {
                    self.path = self.path.take().filter(|_| self.is_given);
                    self.looked_ms = Some(now_ms);
                    return Ok(false);
                }
                Err(e)
            }
        }
    }

    /// Looks at the child, and kills it where its time is over.
    pub(super) fn poll(&mut self, now_ms: u64) -> Step {
        let Some(running) = &mut self.running else { return Step::Nothing };
        let is_over_limit = running.drain();
        // An error means that somebody else has reaped it: it has ended all the same.
        if let Some(code) = running.ended() {
            let is_over_limit = running.drain() || is_over_limit;
            let output = String::from_utf8_lossy(&running.output).into_owned();
            let was_killed = running.is_killed;
            self.running = None;
            return match (was_killed, is_over_limit) {
                (true, _) => Step::Nothing,
                (false, true) => Step::Missed("printed without end"),
                (false, false) => Step::Finished { code, output },
            };
        }
        let is_late = now_ms.saturating_sub(running.since_ms) >= TIMEOUT_MS;
        if running.is_killed {
            if !is_late {
                return Step::Nothing;
            }
            running.since_ms = now_ms;
            self.abandoned = self.abandoned.saturating_add(u32::from(!running.is_counted));
            running.is_counted = true;
            return Step::Missed("cannot be killed");
        }
        if !is_late && !is_over_limit {
            return Step::Nothing;
        }
        running.kill(now_ms);
        if running.is_gone_soon() {
            self.running = None;
        }
        Step::Missed(if is_over_limit { "printed without end" } else { "has not answered for 10 s" })
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            running.kill(running.since_ms);
            running.is_gone_soon();
        }
    }
}

impl Running {
    /// Reads what is there; tells whether it is more than any answer can be.
    fn drain(&mut self) -> bool {
        let mut chunk = [0_u8; 4096];
        while self.output.len() < OUTPUT_MAX {
            match self.out.read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => self.output.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Its exit code, once it has one.
    fn ended(&mut self) -> Option<Option<i32>> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.code()),
            Err(_) => Some(None),
        }
    }

    fn kill(&mut self, now_ms: u64) {
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        self.is_killed = true;
        self.since_ms = now_ms;
    }

    fn is_gone_soon(&mut self) -> bool {
        for _ in 0..REAP_WITHIN.as_millis() {
            if self.ended().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ended().is_some()
    }
}

fn spawn(path: &Path, arguments: &[String], now_ms: u64) -> io::Result<Running> {
    let (out, write) = io::pipe()?;
    os::set_nonblocking(&out)?;
    let child = Command::new(path)
        .args(arguments)
        .env("LC_ALL", "C")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(write.try_clone()?)
        .stderr(write)
        .spawn()?;
    Ok(Running { child, out, output: Vec::new(), since_ms: now_ms, is_killed: false, is_counted: false })
}

fn search(path: Option<&OsStr>) -> Option<PathBuf> {
    let listed = path.map(|p| std::env::split_paths(p).collect::<Vec<_>>()).unwrap_or_default();
    listed
        .into_iter()
        .chain(USUAL.iter().map(PathBuf::from))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("nvidia-smi"))
        .find(|file| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_is_searched_on_absolute_places_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nvidia-smi");
        std::fs::write(&file, "").unwrap();
        let on_path = || search(Some(dir.path().as_os_str())).filter(|p| p.starts_with(dir.path()));
        assert_eq!(on_path(), None, "not executable");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(on_path(), Some(file));
        assert_eq!(search(Some(OsStr::new("."))).filter(|p| p.starts_with(".")), None);
    }
}
