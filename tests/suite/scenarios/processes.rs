//! The processes of an installation, as the system shows them.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stage::{PATIENCE, wait};

/// A process in words.
pub(super) fn describe(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid}: {}", String::from_utf8_lossy(&line).replace('\0', " "))
}

/// The running processes for which something holds; never this one.
pub(super) fn processes(is: impl Fn(i32) -> bool) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    all.filter(|pid| *pid != own && is_alive(*pid) && is(*pid)).collect()
}

/// Whether a process runs; one that only waits to be reaped does not.
pub(super) fn is_alive(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(')')
        .is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X')))
}

/// The processes that carry a machine's marker.
pub(super) fn marked(machine: &str) -> Vec<i32> {
    let marker = format!("OUTLAST_MACHINE_ID={machine}");
    processes(|pid| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|b| *b == 0).any(|entry| entry == marker.as_bytes())
    })
}

/// The processes of a machine that do one thing: `guard`, `agent`, `keeper`.
pub(super) fn doing(machine: &str, verb: &str) -> Vec<i32> {
    let is = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0).skip(1);
        // One that is only asked for its version does nothing.
        words.next() == Some(verb.as_bytes()) && words.next() != Some(b"--version")
    };
    marked(machine).into_iter().filter(is).collect()
}

/// The one process of a machine that does this. A child that has not become
/// another program yet looks like its parent, on a slow disk for long.
#[track_caller]
pub(super) fn only(machine: &str, verb: &str) -> i32 {
    wait(&format!("one {verb}"), || match doing(machine, verb)[..] {
        [pid] => Some(pid),
        _ => None,
    })
}

/// Kills a process and waits for its end.
#[track_caller]
pub(super) fn kill_one(pid: i32) {
    signal(pid, Signal::SIGKILL);
    wait("the end of a process", || (!is_alive(pid)).then_some(()));
}

/// Lets a process stand still until it is killed or this goes.
pub(super) struct Standing(i32);

impl Standing {
    pub(super) fn still(pid: i32) -> Self {
        signal(pid, Signal::SIGSTOP);
        Self(pid)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        signal(self.0, Signal::SIGCONT);
    }
}

/// Sends a signal to one process.
pub(super) fn signal(pid: i32, which: Signal) {
    assert!(pid > 1);
    // One that has just ended is no failure.
    let _ = kill(Pid::from_raw(pid), which);
}

/// A process that becomes another program has neither arguments nor an
/// environment for a moment: nobody can say yet whose it is.
fn is_nameless(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
        && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty())
}

/// Ends all that are found, until none is found any more.
pub(super) fn kill_all(find: impl Fn() -> Vec<i32>) {
    let until = Instant::now() + PATIENCE;
    // There may be strangers that hide their names for good.
    let unnamed_until = Instant::now() + Duration::from_secs(10);
    loop {
        let nameless = processes(is_nameless);
        let found = find();
        let none = found.is_empty() && (nameless.is_empty() || Instant::now() > unnamed_until);
        if none || Instant::now() > until {
            return;
        }
        for pid in found {
            signal(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
