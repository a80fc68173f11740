//! Which agents a machine has, so that a guard finds what a killed one left
//! behind. One file each, named by process number: a record never hides another.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::GUARD_PID;
use crate::os::{self, ProcessRef};

/// Below the state directory.
const RECORDS: &str = "agents";
/// Where guards of older builds named their only agent.
const FORMER: &str = "agent.json";
const LONGEST: usize = 4096;
const GRACE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

fn file(state_dir: &Path, pid: i32) -> PathBuf {
    state_dir.join(RECORDS).join(format!("{pid}.json"))
}

/// Records an agent. One that cannot be recorded works as well; it could be
/// left behind.
pub(super) fn register(state_dir: &Path, agent: &ProcessRef) {
    let path = file(state_dir, agent.pid);
    let text = serde_json::to_vec(agent).unwrap_or_default();
    let done = os::make_private_dir(&state_dir.join(RECORDS)).and_then(|()| os::write_durable(&path, &text));
    if let Err(e) = done {
        tracing::warn!(path = %path.display(), error = %e, "the agent cannot be recorded");
    }
}

/// An agent has ended.
pub(super) fn forget(state_dir: &Path, pid: u32) {
    let _ = fs::remove_file(file(state_dir, pid.cast_signed()));
}

/// Ends every agent that an earlier guard left behind: SIGTERM to all, SIGKILL
/// after the grace. Comes back when none is left.
pub(super) fn end_all(state_dir: &Path) {
    let listed = fs::read_dir(state_dir.join(RECORDS)).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
    files.push(state_dir.join(FORMER));
    let read = |path: &PathBuf| serde_json::from_slice(&os::read_bounded(path, LONGEST).ok()?).ok();
    let agents: Vec<ProcessRef> = files.iter().filter_map(read).collect();
    for agent in &agents {
        os::send_term(agent);
    }
    let until = Instant::now() + GRACE;
    for agent in &agents {
        while agent.is_alive() {
            if Instant::now() >= until {
                os::send_kill(agent);
            }
            std::thread::sleep(LOOK);
        }
    }
    for path in files {
        let _ = fs::remove_file(path);
    }
}

/// What an agent does first of all: it records itself, and only then looks
/// whether the guard that started it is still its parent. A guard that ended
/// before the look leaves no agent behind, and one that ends after it is
/// followed by one that reads the record. A guard that recorded its agent only
/// after it had started it could be killed in between, and the machine would
/// have two agents for ever.
///
/// `false`: its guard is gone, and the agent must go as well. One that no
/// guard started is its own master.
pub(crate) fn is_owned(state_dir: &Path) -> bool {
    let Some(guard) = std::env::var(GUARD_PID).ok().and_then(|pid| pid.parse::<i32>().ok()) else {
        return true;
    };
    if let Some(own) = ProcessRef::own() {
        register(state_dir, &own);
    }
    if os::parent() != guard {
        forget(state_dir, std::process::id());
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn every_recorded_agent_is_ended_and_whatever_else_is_recorded_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let mut children: Vec<_> =
            (0..3).map(|_| Command::new("sleep").arg("600").spawn().unwrap()).collect();
        let agents: Vec<ProcessRef> =
            children.iter().map(|c| ProcessRef::of(c.id().cast_signed()).unwrap()).collect();
        register(dir.path(), &agents[0]);
        register(dir.path(), &agents[1]);
        fs::write(dir.path().join(FORMER), serde_json::to_vec(&agents[2]).unwrap()).unwrap();
        // Another process by now, and no record at all.
        let stranger = ProcessRef { start_time: 1, ..ProcessRef::own().unwrap() };
        register(dir.path(), &stranger);
        fs::write(dir.path().join(RECORDS).join("x"), b"{").unwrap();
        end_all(dir.path());
        for child in &mut children {
            assert!(!child.wait().unwrap().success());
        }
        assert_eq!(fs::read_dir(dir.path().join(RECORDS)).unwrap().count(), 0);
        assert!(!dir.path().join(FORMER).exists());
    }
}
