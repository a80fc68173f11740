//! Programs that read what this one does not: `outlast-reader-NAME`, found on
//! `PATH`, prints records as lines of JSON.
//!
//! It is a stranger: it has so much time and may print so much, and then it ends
//! with everything that it began. What it prints is data; what it complains of is
//! quoted and nothing more.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use agent::os::Tree;
use curves::format::Format;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::find::Found;
use super::words;

/// What the names of plug-ins begin with.
pub const PREFIX: &str = "outlast-reader-";
/// The variable by which everything that a plug-in began is found again.
const MARK: &str = "OUTLAST_READER";
/// The variable that sets another time limit, in seconds.
pub(super) const LIMIT: &str = "OUTLAST_READER_SECONDS";

/// What a plug-in may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    time: Duration,
    bytes: u64,
}

const USUAL: Bounds = Bounds { time: Duration::from_secs(120), bytes: 1 << 30 };
const LONGEST: u64 = 24 * 60 * 60;
/// How long what came out before its end is waited for: nobody writes any more,
/// but for those that hid from us.
const REST: Duration = Duration::from_secs(5);
/// Bytes of complaints that are kept.
const MAX_COMPLAINT: usize = 4096;

/// The plug-in of a name in the directories of a `PATH`.
#[must_use]
pub fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return None;
    }
    let file = format!("{PREFIX}{name}");
    std::env::split_paths(path)
        // An empty or relative entry would run what lies where somebody stands.
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(&file))
        .find(|path| {
            fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

/// Takes in what a plug-in prints of a path.
///
/// # Errors
/// Where it cannot be started, or printed nothing.
pub(super) fn add(
    found: &mut Found,
    program: &Path,
    path: &Path,
    env: &BTreeMap<String, String>,
) -> io::Result<()> {
    fs::metadata(path)?;
    let Printed { dir, lines, note } = print(program, path, env.get(LIMIT).map(String::as_str))?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let why = format!("as the program {} printed it", words::name(&name));
    if fs::metadata(&lines)?.len() == 0 {
        let note = note.unwrap_or_else(|| "it printed nothing".to_owned());
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{}: {note}", words::name(&name))));
    }
    found.push_elsewhere(path, lines, dir, (Format::Plugin, why));
    if let Some(note) = note {
        found.skip(path, format!("{}: {note}", words::name(&name)));
    }
    Ok(())
}

/// What a plug-in printed.
pub(super) struct Printed {
    pub(super) dir: TempDir,
    pub(super) lines: PathBuf,
    /// Why there may be less than there could be.
    pub(super) note: Option<String>,
}

/// Runs a plug-in on a path.
///
/// # Errors
/// Where it cannot be started.
pub(super) fn print(program: &Path, path: &Path, seconds: Option<&str>) -> io::Result<Printed> {
    let seconds =
        seconds.and_then(|text| text.parse().ok()).filter(|seconds| (1..=LONGEST).contains(seconds));
    let time = seconds.map_or(USUAL.time, Duration::from_secs);
    print_within(program, path, Bounds { time, ..USUAL })
}

fn print_within(program: &Path, path: &Path, bounds: Bounds) -> io::Result<Printed> {
    let dir = tempfile::tempdir()?;
    let lines = dir.path().join("lines");
    let to = File::create_new(&lines)?;
    let mark = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
    // An absolute path cannot be taken for an option.
    let mut child = Command::new(program)
        .arg(std::path::absolute(path)?)
        .env(MARK, &mark)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let deadline = Instant::now() + bounds.time;
    let copying = child.stdout.take().map(|from| apart(move || copy(from, to, bounds.bytes)));
    let complaints = child.stderr.take().map(|from| apart(move || last(from)));
    let out = copying.as_ref().and_then(|out| within(out, deadline));
    let status = if matches!(out, Some(Ok(_))) { ended(&mut child, deadline) } else { None };
    end(&mut child, status.is_some(), &mark);
    // What it printed before that is still on its way.
    let soon = Instant::now() + REST;
    if let (None, Some(copying)) = (&out, &copying) {
        within(copying, soon);
    }
    let complaint = complaints.and_then(|said| within(&said, soon)).unwrap_or_default();
    let mut note = match (out, status) {
        (Some(Err(error)), _) => Some(error.to_string()),
        (None, _) | (_, None) => Some(format!("it was ended after {} seconds", bounds.time.as_secs())),
        (_, Some(status)) if status.success() => None,
        (_, Some(status)) => Some(match (status.code(), status.signal()) {
            (Some(code), _) => format!("it ended with exit code {code}"),
            (None, signal) => format!("it was ended by signal {}", signal.unwrap_or_default()),
        }),
    };
    if let (Some(note), Some(line)) =
        (&mut note, complaint.lines().rev().find(|line| !line.trim().is_empty()))
    {
        note.push_str(&format!(", and last said {}", words::quoted(line.trim())));
    }
    Ok(Printed { dir, lines, note })
}

/// How it ended, if it came to an end in time: what prints no more may go on.
fn ended(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        let status = child.try_wait().ok().flatten();
        if status.is_some() || Instant::now() >= deadline {
            return status;
        }
        thread::park_timeout(Duration::from_millis(5));
    }
}

fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (send, receive) = sync_channel(1);
    thread::spawn(move || send.send(work()));
    receive
}

fn within<T>(from: &Receiver<T>, deadline: Instant) -> Option<T> {
    from.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

fn copy(from: impl Read, mut to: File, most: u64) -> io::Result<u64> {
    let copied = io::copy(&mut from.take(most + 1), &mut to)?;
    if copied > most {
        return Err(io::Error::other(format!("it printed more than {} MiB", most >> 20)));
    }
    Ok(copied)
}

/// The last bytes, however many there are.
fn last(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        kept.extend_from_slice(&piece[..read]);
        let over = kept.len().saturating_sub(MAX_COMPLAINT);
        kept.drain(..over);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Ends it and all that it began, also what left its group.
fn end(child: &mut Child, waited_for: bool, mark: &str) {
    // Once it was waited for, its number may be another's.
    if let Ok(group) = i32::try_from(child.id()).map(Pid::from_raw)
        && !waited_for
    {
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
    }
    let tree = Tree::marked(MARK, mark);
    for _ in 0..10 {
        if tree.kill_pass() == 0 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(format!("{PREFIX}{name}"));
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_plugin_is_what_may_be_run_under_an_absolute_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = program(dir.path(), "paper", "true");
        assert_eq!(find("paper", dir.path().as_os_str()), Some(path.clone()));
        for name in ["", "Paper", "a/b", "..", "paper ", &"a".repeat(65)] {
            assert_eq!(find(name, dir.path().as_os_str()), None, "{name:?}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(find("paper", dir.path().as_os_str()), None);
        assert_eq!(find("paper", OsStr::new("")), None);
    }

    #[test]
    fn time_and_output_are_bounded_and_all_that_was_begun_ends() {
        let dir = tempfile::tempdir().unwrap();
        let bounds = |ms, bytes| Bounds { time: Duration::from_millis(ms), bytes };
        let left = dir.path().join("left");
        let text = format!(
            "echo '{{\"type\":\"exit\",\"code\":3}}'; setsid sleep 1000 & echo $! > {}; sleep 1000",
            left.display()
        );
        let slow = program(dir.path(), "slow", &text);
        // Where its time was over before it had begun, it is given more.
        let printed = [1_500, 15_000, 150_000].into_iter().find_map(|ms| {
            let printed = print_within(&slow, dir.path(), bounds(ms, 1 << 20)).unwrap();
            assert!(printed.note.as_ref().unwrap().contains("ended after"), "the time is bounded");
            fs::read_to_string(&left).is_ok_and(|pid| pid.ends_with('\n')).then_some(printed)
        });
        let lines = fs::read_to_string(printed.expect("it began").lines).unwrap();
        assert_eq!(lines.lines().count(), 1);
        let pid: i32 = fs::read_to_string(left).unwrap().trim().parse().unwrap();
        // Killed it is; that it is gone may take the kernel a moment.
        let until = Instant::now() + Duration::from_mins(3);
        while agent::os::process(pid).is_some_and(|process| !process.is_zombie()) {
            assert!(Instant::now() < until, "it ended, too");
            thread::park_timeout(Duration::from_millis(5));
        }
        let endless = program(dir.path(), "endless", "yes");
        let printed = print_within(&endless, dir.path(), bounds(60_000, 1 << 20)).unwrap();
        assert!(printed.note.unwrap().contains("more than 1 MiB"));
        let angry = program(dir.path(), "angry", "printf 'first\\n\\033[31mno \"such\" run\\n' >&2; exit 3");
        let printed = print_within(&angry, dir.path(), bounds(60_000, 1 << 20)).unwrap();
        assert_eq!(
            printed.note.as_deref(),
            Some("it ended with exit code 3, and last said \"\\u{1b}[31mno \\\"such\\\" run\"")
        );
    }

    #[test]
    fn views_gather_what_a_plugin_prints() {
        let dir = tempfile::tempdir().unwrap();
        let lines = r#"echo '{"type":"row","step":3,"values":{"loss":0.5}}'"#;
        let plugin = program(dir.path(), "foo", lines);
        let data = dir.path().join("data.foo");
        fs::write(&data, "anything").unwrap();
        let read_as = crate::args::ReadAs::Plugin(plugin);
        let found = super::super::gather::gather(std::slice::from_ref(&data), Some(&read_as)).unwrap();
        let mut log = curves::log::Collected::default();
        let [run] = found.runs.as_slice() else { panic!("{} runs", found.runs.len()) };
        assert_eq!(run.read(&mut log), Vec::<String>::new());
        assert_eq!(log.column("loss").unwrap().values, [0.5]);
        assert_eq!(run.path(), data);
    }
}
