//! Finds and ends the processes of one machine.
//!
//! A process belongs to a machine if it carries the machine's marker in its
//! environment, descends from one that does, or is in the machine's cgroup. A
//! pid alone names nothing: it is always taken together with the start time.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::cgroup;

/// How long a tree may take to end.
const BOUND: Duration = Duration::from_secs(10);
/// How much of an environment is searched.
const MAX_ENVIRON: u64 = 4 << 20;

/// A process that can be told from a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Its process id.
    pub(super) pid: i32,
    /// When it started, in clock ticks since the host did.
    pub(super) start_time: u64,
}

struct Stat {
    parent: i32,
    start_time: u64,
    /// It has ended and only waits to be reaped.
    ended: bool,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name before may hold anything, closing brackets too.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
        ended: matches!(*fields.first()?, "Z" | "X" | "x"),
    })
}

/// When a process started, if it runs.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    stat(pid).filter(|stat| !stat.ended).map(|stat| stat.start_time)
}

/// Whether this very process still runs.
pub(super) fn alive(stamp: &Stamp) -> bool {
    stamp.pid > 0 && start_time(stamp.pid) == Some(stamp.start_time)
}

fn carries(pid: i32, marker: &str) -> bool {
    let mut environ = Vec::new();
    // What cannot be read belongs to somebody else, or has just ended.
    let read =
        File::open(format!("/proc/{pid}/environ")).map(|f| f.take(MAX_ENVIRON).read_to_end(&mut environ));
    read.is_ok() && environ.split(|b| *b == 0).any(|entry| entry == marker.as_bytes())
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

/// The running processes that carry the marker, and their descendants.
pub(super) fn marked(marker: &str) -> Vec<Stamp> {
    let own = own_pid();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let all: HashMap<i32, Stat> = pids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let mut belongs: HashSet<i32> =
        all.keys().copied().filter(|pid| *pid > 1 && *pid != own && carries(*pid, marker)).collect();
    loop {
        let before = belongs.len();
        let children = all.iter().filter(|(_, stat)| belongs.contains(&stat.parent)).map(|(pid, _)| *pid);
        let children: Vec<i32> = children.filter(|pid| *pid != own).collect();
        belongs.extend(children);
        if belongs.len() == before {
            break;
        }
    }
    let running = all.into_iter().filter(|(pid, stat)| belongs.contains(pid) && !stat.ended);
    running.map(|(pid, stat)| Stamp { pid, start_time: stat.start_time }).collect()
}

fn find(marker: &str, groups: &[PathBuf]) -> Vec<Stamp> {
    let mut found = marked(marker);
    let in_groups =
        groups.iter().flat_map(|group| cgroup::members(group)).filter(|pid| *pid > 1 && *pid != own_pid());
    found.extend(in_groups.filter_map(|pid| Some(Stamp { pid, start_time: start_time(pid)? })));
    found
}

fn send(stamp: &Stamp, signal: Signal) {
    if alive(stamp) {
        // One that has just ended, or may not be signalled, is seen by the next look.
        let _ = kill(Pid::from_raw(stamp.pid), signal);
    }
}

/// Ends all of them and says how many there were, or who is left after a while.
///
/// All are stopped before the first is killed, so that none can fork away or
/// see another die; one whose environment and parent are lost that way is still
/// remembered.
pub(super) fn end(marker: &str, groups: &[PathBuf]) -> Result<usize, String> {
    let deadline = Instant::now() + BOUND;
    let mut targets: HashMap<i32, Stamp> = HashMap::new();
    let (mut total, mut quiet) = (0, 0);
    loop {
        let mut grew = true;
        for _ in 0..20 {
            if !grew {
                break;
            }
            grew = false;
            for stamp in find(marker, groups) {
                if targets.insert(stamp.pid, stamp) != Some(stamp) {
                    send(&stamp, Signal::SIGSTOP);
                    (grew, total) = (true, total + 1);
                }
            }
        }
        for group in groups {
            cgroup::kill(group);
        }
        for stamp in targets.values() {
            send(stamp, Signal::SIGKILL);
        }
        targets.retain(|_, stamp| alive(stamp));
        // A fork may slip past one look through /proc, not past two.
        quiet = if targets.is_empty() { quiet + 1 } else { 0 };
        if quiet >= 2 {
            return Ok(total);
        }
        if Instant::now() >= deadline {
            let left: Vec<String> = targets.keys().map(ToString::to_string).collect();
            return Err(format!("pid {}", left.join(", ")));
        }
        if !targets.is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
