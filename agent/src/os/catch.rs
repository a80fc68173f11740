//! Asking a program to save by a signal, and never ending it by that: the
//! usual action of these signals is the end of a process, so they go only to
//! those that catch them.

use std::collections::{HashMap, HashSet};

use nix::sys::signal::Signal;

use super::tree::send;
use super::{Process, processes};

/// Bytes of a process's status that are read.
const STATUS: usize = 64 << 10;

/// The signal that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGHUP.
    Hup,
}

impl Asking {
    fn signal(self) -> Signal {
        match self {
            Self::Usr1 => Signal::SIGUSR1,
            Self::Usr2 => Signal::SIGUSR2,
            Self::Hup => Signal::SIGHUP,
        }
    }
}

/// Sends the signal to the topmost processes from `root` down that catch it;
/// how many those are. What is below one of them is its own affair: a worker
/// that was forked carries the handler too, and must not save beside its parent.
#[must_use]
pub fn ask_to_save(root: i32, asking: Asking) -> usize {
    let asked = topmost(root, &processes(), |pid| catches(pid, asking.signal()));
    for process in &asked {
        send(*process, asking.signal());
    }
    asked.len()
}

fn topmost(root: i32, all: &[Process], catches: impl Fn(i32) -> bool) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(*process);
    }
    let mut look: Vec<Process> = all.iter().filter(|p| p.pid == root).copied().collect();
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    while let Some(process) = look.pop() {
        if !seen.insert(process.pid) || process.is_zombie() {
            continue;
        }
        if catches(process.pid) {
            found.push(process);
        } else {
            look.extend(children.get(&process.pid).into_iter().flatten());
        }
    }
    found
}

fn catches(pid: i32, signal: Signal) -> bool {
    let status = super::read_bounded(format!("/proc/{pid}/status").as_ref(), STATUS).unwrap_or_default();
    mask(&String::from_utf8_lossy(&status)).is_some_and(|mask| (mask >> (signal as i32 - 1)) & 1 == 1)
}

/// The signals that a process catches, as its status says.
fn mask(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    fn row(pid: i32, parent: i32) -> Process {
        Process { pid, parent, state: b'S', started: 1 }
    }

    #[test]
    fn those_below_one_that_catches_are_left_alone() {
        let all = [row(1, 0), row(5, 1), row(6, 5), row(7, 5), row(8, 6), row(9, 8), row(10, 1)];
        let pids = |catching: &[i32]| {
            let mut pids: Vec<i32> =
                topmost(5, &all, |pid| catching.contains(&pid)).iter().map(|p| p.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids(&[6, 7, 8, 9, 10]), [6, 7], "a launcher's ranks, and not their workers");
        assert_eq!(pids(&[5, 6]), [5]);
        assert_eq!(pids(&[]), Vec::<i32>::new());
        let looped = [row(5, 6), row(6, 5)];
        assert!(topmost(5, &looped, |_| false).is_empty());
    }

    #[test]
    fn the_mask_is_read_and_nothing_else_is() {
        let status = "Name:\tx\nSigIgn:\t0000000000000200\nSigCgt:\t0000000000000200\n";
        assert_eq!(mask(status), Some(0x200));
        assert_eq!(mask("SigCgt:\tzz"), None);
        assert_eq!(mask(""), None);
    }

    #[test]
    fn a_process_that_catches_hears_it_and_one_that_does_not_lives_on() {
        let sh = |line: &str| {
            let mut child = Command::new("sh")
                .args(["-c", line])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "ready");
            (child, lines)
        };
        let (mut hears, mut lines) =
            sh("trap 'echo asked; exit 7' USR1; echo ready; while :; do sleep 0.02; done");
        assert_eq!(ask_to_save(hears.id().cast_signed(), Asking::Usr1), 1);
        assert_eq!(lines.next().unwrap().unwrap(), "asked");
        assert_eq!(hears.wait().unwrap().code(), Some(7));
        let (mut deaf, _lines) = sh("echo ready; exec sleep 600");
        assert_eq!(ask_to_save(deaf.id().cast_signed(), Asking::Usr1), 0);
        assert!(deaf.try_wait().unwrap().is_none());
        deaf.kill().unwrap();
        deaf.wait().unwrap();
    }
}
