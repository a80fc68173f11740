//! Runs one build command: its output line by line as it appears, its end on
//! cancellation, its last words when it fails. Never leaves a cancelled
//! command's processes behind.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::{EnvironmentError, diagnosis};
use crate::os::{self, Tree};

/// The variable by which the processes of a build are recognised.
pub(super) const BUILD_MARKER: &str = "OUTLAST_BUILD";
const LOOK: Duration = Duration::from_millis(100);
/// A command may leave a child behind that holds its output open.
const LINGER: Duration = Duration::from_millis(500);
const KILL_FOR: Duration = Duration::from_secs(10);
const LINE_MAX: usize = 64 * 1024;
/// Lines remembered to judge a failure by, and lines shown of these.
const REMEMBERED: usize = 400;
const SHOWN: usize = 20;

pub(super) struct Runner<'a> {
    pub(super) dir: &'a Path,
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) marker: &'a str,
    pub(super) machine_id: &'a str,
    pub(super) output: &'a mut dyn FnMut(&[u8]),
    pub(super) cancelled: &'a dyn Fn() -> bool,
}

/// Ends every process of a build, however it was started.
pub(super) fn end_build(marker: &str, root: Option<i32>) {
    let mut tree = Tree::marked(BUILD_MARKER, marker);
    if let Some(root) = root {
        tree = tree.with_root(root);
    }
    let until = Instant::now() + KILL_FOR;
    while tree.kill_pass() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Splits output into lines and keeps the last ones.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    last: VecDeque<String>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], output: &mut dyn FnMut(&[u8])) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") || self.partial.len() >= LINE_MAX {
                self.flush(output);
            }
        }
    }

    fn flush(&mut self, output: &mut dyn FnMut(&[u8])) {
        if self.partial.is_empty() {
            return;
        }
        output(&self.partial);
        let shown = &self.partial[..self.partial.len().min(2000)];
        self.last.push_back(String::from_utf8_lossy(shown).trim_end().to_owned());
        if self.last.len() > REMEMBERED {
            self.last.pop_front();
        }
        self.partial.clear();
    }
}

impl Runner<'_> {
    /// Runs a program to its end.
    pub(super) fn run(&mut self, program: &Path, args: &[OsString]) -> Result<(), EnvironmentError> {
        let shown = std::iter::once(program.as_os_str()).chain(args.iter().map(OsString::as_os_str));
        let shown = shown.map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
        if (self.cancelled)() {
            return Err(EnvironmentError::Cancelled);
        }
        (self.output)(format!("$ {shown}\n").as_bytes());
        let (mut child, mut pipe) =
            self.spawn(program, args).map_err(EnvironmentError::io("run", program))?;
        let mut lines = Lines::default();
        let followed = self.follow(&mut child, &mut pipe, &mut lines);
        lines.flush(self.output);
        let status = match followed {
            Ok(Some(status)) => status,
            ended => {
                end_build(self.marker, Some(child.id().cast_signed()));
                let _ = child.wait();
                ended.map_err(EnvironmentError::io("follow", program))?;
                return Err(EnvironmentError::Cancelled);
            }
        };
        if status.success() {
            return Ok(());
        }
        let all: Vec<String> = lines.last.into();
        Err(EnvironmentError::Failed {
            command: shown,
            exit: status.to_string(),
            retryable: diagnosis::is_retryable(&all),
            hint: diagnosis::hint(&all),
            last_lines: all[all.len().saturating_sub(SHOWN)..].to_vec(),
        })
    }

    fn spawn(&self, program: &Path, args: &[OsString]) -> io::Result<(Child, io::PipeReader)> {
        // One pipe for both outputs keeps their order.
        let (reader, writer) = io::pipe()?;
        os::set_nonblocking(&reader)?;
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .envs(self.env)
            .env(BUILD_MARKER, self.marker)
            .env(crate::keeper::MACHINE_MARKER, self.machine_id)
            .current_dir(self.dir)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()?;
        Ok((child, reader))
    }

    /// Follows the command to its end; `None` when cancelled.
    fn follow(
        &mut self,
        child: &mut Child,
        pipe: &mut io::PipeReader,
        lines: &mut Lines,
    ) -> io::Result<Option<ExitStatus>> {
        let mut buffer = vec![0; 16 * 1024];
        let mut ended: Option<(ExitStatus, Instant)> = None;
        let mut is_open = true;
        loop {
            if (self.cancelled)() {
                return Ok(None);
            }
            if ended.is_none() {
                ended = child.try_wait()?.map(|status| (status, Instant::now()));
            }
            if let Some((status, at)) = ended
                && (!is_open || at.elapsed() >= LINGER)
            {
                return Ok(Some(status));
            }
            if is_open {
                os::wait_readable(&[std::os::fd::AsFd::as_fd(pipe)], LOOK)?;
                is_open = drain(pipe, &mut buffer, |bytes| lines.push(bytes, self.output))?;
            } else {
                std::thread::sleep(LOOK / 10);
            }
        }
    }
}

/// Takes what is there, up to a bound; false at the end of the pipe.
fn drain(pipe: &mut io::PipeReader, buffer: &mut [u8], mut take: impl FnMut(&[u8])) -> io::Result<bool> {
    for _ in 0..64 {
        match pipe.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => take(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}
