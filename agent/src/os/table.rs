//! The process table as /proc shows it. A process is identified by its number,
//! its start time and the boot: a number alone is reused.

use std::io::Read;

use serde::{Deserialize, Serialize};

const MAX_PROCESSES: usize = 1 << 18;
const MAX_ENVIRON: u64 = 4 << 20;

/// One line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// The number of its parent.
    pub parent: i32,
    /// The kernel's letter for its state.
    pub state: u8,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// Whether it has ended and only waits to be reaped.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// A process that can be recognised again, also after its number was reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
    /// The boot that it belongs to.
    #[serde(default)]
    pub boot_id: String,
}

impl ProcessRef {
    /// Names a process that exists now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start_time: start_time(pid)?, boot_id: super::boot_id().to_owned() })
    }

    /// Names this process.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::of(i32::try_from(std::process::id()).ok()?)
    }

    /// Whether exactly this process is stopped, by a signal or a debugger.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_alive() && process(self.pid).is_some_and(|p| matches!(p.state, b'T' | b't'))
    }

    /// Whether exactly this process still runs; a zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        (self.boot_id.is_empty() || self.boot_id == super::boot_id())
            && process(self.pid).is_some_and(|p| p.started == self.start_time && !p.is_zombie())
    }
}

fn parse(pid: i32, stat: &str) -> Option<Process> {
    // The name is in parentheses and may itself hold blanks and parentheses.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, state, started })
}

/// The process that this one is a child of now.
#[must_use]
pub fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// One process, if it exists.
#[must_use]
pub fn process(pid: i32) -> Option<Process> {
    let mut text = Vec::new();
    std::fs::File::open(format!("/proc/{pid}/stat")).ok()?.take(4096).read_to_end(&mut text).ok()?;
    parse(pid, &String::from_utf8_lossy(&text))
}

/// When a process started, in clock ticks since boot; `None` when there is none.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    process(pid).map(|p| p.started)
}

/// Every process that can be seen now, at most 262,144.
#[must_use]
pub fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(process)
        .take(MAX_PROCESSES)
        .collect()
}

/// Those of `among` that were started with `name=value` in their environment.
#[must_use]
pub fn marked_processes(among: &[Process], name: &str, value: &str) -> Vec<Process> {
    let wanted = format!("{name}={value}");
    among.iter().filter(|p| !p.is_zombie() && has_marker(p.pid, wanted.as_bytes())).copied().collect()
}

fn has_marker(pid: i32, wanted: &[u8]) -> bool {
    any_variable(pid, |entry| entry == wanted)
}

/// Whether a process was started with a variable of this name.
pub(super) fn has_variable(pid: i32, name: &str) -> bool {
    let wanted = format!("{name}=");
    any_variable(pid, |entry| entry.starts_with(wanted.as_bytes()))
}

fn any_variable(pid: i32, is_wanted: impl Fn(&[u8]) -> bool) -> bool {
    let mut environ = Vec::new();
    let read = std::fs::File::open(format!("/proc/{pid}/environ"))
        .and_then(|f| f.take(MAX_ENVIRON).read_to_end(&mut environ));
    read.is_ok() && environ.split(|b| *b == 0).any(is_wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let line = "7 (a) b (c)) S 42 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 11";
        let parsed = parse(7, line).unwrap();
        assert_eq!(parsed, Process { pid: 7, parent: 42, state: b'S', started: 987_654 });
    }

    #[test]
    fn a_reused_number_is_not_the_same_process() {
        let own = ProcessRef::own().unwrap();
        assert!(own.is_alive());
        assert!(!ProcessRef { start_time: own.start_time + 1, ..own.clone() }.is_alive());
        assert!(!ProcessRef { boot_id: "another".to_owned(), ..own }.is_alive());
    }
}
