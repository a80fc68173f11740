//! Where the processes of a program wait: what the kernel tells of each of
//! their threads, and what py-spy tells of the interpreter. Bounded in number,
//! size and time; it must never stop, signal or slow what it looks at.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{set_nonblocking, wait_readable};

/// Processes of one tree that are looked at.
const PROCESSES: usize = 40;
/// Threads of one process.
const THREADS: usize = 24;
const TEXT: u64 = 2_048;
/// What is kept of py-spy's words.
const PY_SPY_TEXT: usize = 8 << 10;

/// Where one thread waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Thread {
    /// Its number.
    pub tid: i32,
    /// Its name.
    pub name: String,
    /// The kernel's letter for its state.
    pub state: String,
    /// The kernel function that it waits in; empty: it does not, or nobody says.
    pub wchan: String,
    /// Number of the system call, its arguments; "running" is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub syscall: String,
    /// The kernel's stack; empty where this user may not see it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stack: String,
}

/// Where one process waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stack {
    /// Its number.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// Processor ticks so far: user and system.
    pub ticks: u64,
    /// Its threads, the main one first.
    pub threads: Vec<Thread>,
    /// Threads that are not listed.
    #[serde(skip_serializing_if = "is_none_left")]
    pub more_threads: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_none_left(count: &usize) -> bool {
    *count == 0
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(TEXT).read_to_end(&mut bytes));
    if read.is_err() { String::new() } else { String::from_utf8_lossy(&bytes).trim_end().to_owned() }
}

/// Name, state and ticks of one line of the table.
fn parse(stat: &str) -> Option<(String, String, u64)> {
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let name = stat.get(open + 1..close)?.to_owned();
    let mut fields = stat.get(close + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.to_owned();
    let ticks = fields.skip(10).take(2).filter_map(|f| f.parse::<u64>().ok()).fold(0, u64::saturating_add);
    Some((name, state, ticks))
}

fn thread(dir: &Path, tid: i32) -> Option<Thread> {
    let (name, state, _) = parse(&text(&dir.join("stat")))?;
    let wchan = Some(text(&dir.join("wchan"))).filter(|w| w != "0").unwrap_or_default();
    Some(Thread {
        tid,
        name,
        state,
        wchan,
        syscall: text(&dir.join("syscall")),
        stack: text(&dir.join("stack")),
    })
}

fn process(pid: i32) -> Option<Stack> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let (name, _, ticks) = parse(&text(&dir.join("stat")))?;
    let mut tids: Vec<i32> = std::fs::read_dir(dir.join("task"))
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .take(1 << 12)
        .collect();
    tids.sort_unstable_by_key(|tid| (*tid != pid, *tid));
    let threads: Vec<Thread> = tids
        .iter()
        .take(THREADS)
        .filter_map(|tid| thread(&dir.join("task").join(tid.to_string()), *tid))
        .collect();
    Some(Stack { pid, name, ticks, more_threads: tids.len().saturating_sub(THREADS), threads })
}

/// Where these processes wait; the first forty that are still there.
#[must_use]
pub fn stacks(pids: &[i32]) -> Vec<Stack> {
    pids.iter().take(PROCESSES).filter_map(|pid| process(*pid)).collect()
}

/// The first `name` that can be run in the directories of `path`.
#[must_use]
pub fn find_in_path(path: &str, name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let runs =
        |file: &PathBuf| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    std::env::split_paths(path).take(64).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(runs)
}

/// What `py-spy dump` tells of a process within `limit`: its words, or why
/// there are none.
///
/// # Errors
/// Where it cannot be started, fails, or says nothing in time.
pub fn py_spy(tool: &Path, pid: i32, limit: Duration) -> Result<String, String> {
    let mut command = Command::new(tool);
    command.args(["dump", "--nonblocking", "--pid", &pid.to_string()]);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(|e| format!("{}: {e}", tool.display()))?;
    let said = listen(&mut child, Instant::now() + limit);
    // In time or not: nothing of it is left behind.
    let _ = child.kill();
    let status = child.wait();
    let said = said.map_err(|e| format!("{}: {e}", tool.display()))?;
    let text = String::from_utf8_lossy(&said).trim().to_owned();
    match status {
        Ok(status) if text.is_empty() => Err(format!("{} said nothing ({status})", tool.display())),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("{}: {error}", tool.display())),
    }
}

fn listen(child: &mut Child, until: Instant) -> std::io::Result<Vec<u8>> {
    use std::os::fd::AsFd as _;
    let Some(mut pipe) = child.stdout.take() else { return Ok(Vec::new()) };
    set_nonblocking(&pipe)?;
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match pipe.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => said.extend(&piece[..n.min(PY_SPY_TEXT - said.len())]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                let left = until.saturating_duration_since(Instant::now());
                wait_readable(&[pipe.as_fd()], left.min(Duration::from_millis(200)))?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if said.len() >= PY_SPY_TEXT || Instant::now() >= until {
            break;
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_sleeping_process_is_seen_waiting() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id().cast_signed();
        let found = loop {
            let found = stacks(&[pid, i32::MAX]);
            if found.first().is_some_and(|p| p.name == "sleep" && p.threads[0].state == "S") {
                break found;
            }
        };
        assert_eq!((found.len(), found[0].threads.len(), found[0].threads[0].tid), (1, 1, pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            parse("7 (a) b (c)) D 42 7 7 0 -1 0 1 2 3 4 50 6 7"),
            Some(("a) b (c)".into(), "D".into(), 56))
        );
        assert_eq!(parse("7 a S"), None);
    }

    #[test]
    fn a_tool_that_says_too_much_or_nothing_is_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let tool = |name: &str, body: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let limit = Duration::from_mins(3);
        let good = tool("py-spy", "echo \"of $4\"");
        assert_eq!(py_spy(&good, 7, limit), Ok("of 7".into()));
        assert_eq!(find_in_path(&format!("rel:/nowhere:{}", dir.path().display()), "py-spy"), Some(good));
        let flood = tool("flood", "exec /usr/bin/yes");
        // The last newline is cut off.
        assert_eq!(py_spy(&flood, 7, limit).unwrap().len(), PY_SPY_TEXT - 1);
        assert!(py_spy(&tool("fails", "exit 3"), 7, limit).unwrap_err().contains("said nothing"));
        let begun = Instant::now();
        let hangs = tool("hangs", "trap '' TERM; exec /bin/sleep 1000000");
        assert!(py_spy(&hangs, 7, Duration::from_millis(300)).is_err());
        assert!(begun.elapsed() < limit);
        assert!(py_spy(Path::new("/nowhere"), 7, limit).is_err());
    }
}
