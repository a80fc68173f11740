//! Ending whole process trees: everything below a process, everything in a
//! cgroup and everything that carries a marker in its environment. Never
//! touches the caller, its ancestors, or a number that was reused meanwhile.

use std::collections::{HashMap, HashSet};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Cgroup, Process, ProcessRef, marked_processes, process, processes};

/// How often one pass looks again for processes forked while it stopped others.
const FREEZE_ROUNDS: usize = 16;

/// Sends a signal to exactly this process, if it still runs.
pub(super) fn send(target: Process, signal: Signal) {
    // Checked as late as possible: the number may belong to another by now.
    if target.pid > 1 && process(target.pid).is_some_and(|p| p.started == target.started) {
        let _ = kill(Pid::from_raw(target.pid), signal);
    }
}

fn send_to(target: &ProcessRef, signal: Signal) {
    if target.is_alive() {
        send(Process { pid: target.pid, parent: 0, state: 0, started: target.start_time }, signal);
    }
}

/// Asks exactly this process to end, if it still runs.
pub fn send_term(target: &ProcessRef) {
    send_to(target, Signal::SIGTERM);
}

/// Ends exactly this process, if it still runs.
pub fn send_kill(target: &ProcessRef) {
    send_to(target, Signal::SIGKILL);
}

/// Lets exactly this process go on, if it was stopped.
pub fn send_continue(target: &ProcessRef) {
    send_to(target, Signal::SIGCONT);
}

/// What belongs together and ends together.
#[derive(Debug, Default)]
pub struct Tree {
    root: Option<i32>,
    marker: Option<(String, String)>,
    cgroup: Option<Cgroup>,
}

impl Tree {
    /// Everything below this process, and everything that carries the marker.
    #[must_use]
    pub fn below_self(name: &str, value: &str) -> Self {
        Self { root: i32::try_from(std::process::id()).ok(), ..Self::marked(name, value) }
    }

    /// Only what carries the marker.
    #[must_use]
    pub fn marked(name: &str, value: &str) -> Self {
        Self { root: None, marker: Some((name.to_owned(), value.to_owned())), cgroup: None }
    }

    /// The same tree together with a process and all that is below it.
    #[must_use]
    pub fn with_root(mut self, pid: i32) -> Self {
        self.root = Some(pid);
        self
    }

    /// The same tree together with the processes of a cgroup.
    #[must_use]
    pub fn with_cgroup(mut self, cgroup: Option<Cgroup>) -> Self {
        self.cgroup = cgroup;
        self
    }

    /// The cgroup, if there is one.
    #[must_use]
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Those that live now.
    #[must_use]
    pub fn members(&self) -> Vec<Process> {
        let all = processes();
        let parents: HashMap<i32, i32> = all.iter().map(|p| (p.pid, p.parent)).collect();
        let spared = self_and_ancestors(&parents);
        let mut found: HashMap<i32, Process> = HashMap::new();
        if let Some(root) = self.root {
            found.extend(descendants(root, &all).into_iter().map(|p| (p.pid, p)));
        }
        if let Some((name, value)) = &self.marker {
            found.extend(marked_processes(&all, name, value).into_iter().map(|p| (p.pid, p)));
        }
        if let Some(cgroup) = &self.cgroup {
            let inside = cgroup.members();
            found.extend(all.iter().filter(|p| inside.contains(&p.pid)).map(|p| (p.pid, *p)));
        }
        found.into_values().filter(|p| !p.is_zombie() && !spared.contains(&p.pid)).collect()
    }

    /// Whether a process belongs to the tree by its descent, its cgroup or its
    /// marker; also while it is a zombie.
    #[must_use]
    pub fn holds(&self, pid: i32) -> bool {
        if self.cgroup.as_ref().is_some_and(|c| c.members().contains(&pid)) {
            return true;
        }
        let own = i32::try_from(std::process::id()).ok();
        let mut at = pid;
        while let Some(found) = process(at).filter(|p| p.parent > 0) {
            if self.root == Some(at) && self.root != own || self.root == Some(found.parent) {
                return true;
            }
            at = found.parent;
        }
        let found = process(pid).into_iter().collect::<Vec<_>>();
        self.marker.as_ref().is_some_and(|(name, value)| !marked_processes(&found, name, value).is_empty())
    }

    /// Asks every member to end, stopped ones included.
    pub fn terminate(&self) {
        for member in self.members() {
            send(member, Signal::SIGTERM);
            send(member, Signal::SIGCONT);
        }
    }

    /// One pass of ending everything at once: first all members are stopped,
    /// until a look finds no new one (a fork storm cannot outrun that), then
    /// all are killed. Gives how many were found; call it until that is 0.
    pub fn kill_pass(&self) -> usize {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        let mut stopped: HashSet<(i32, u64)> = HashSet::new();
        let mut victims = Vec::new();
        for _ in 0..FREEZE_ROUNDS {
            let fresh: Vec<Process> =
                self.members().into_iter().filter(|p| stopped.insert((p.pid, p.started))).collect();
            if fresh.is_empty() {
                break;
            }
            for member in fresh {
                send(member, Signal::SIGSTOP);
                victims.push(member);
            }
        }
        for victim in &victims {
            send(*victim, Signal::SIGKILL);
        }
        victims.len()
    }
}

fn self_and_ancestors(parents: &HashMap<i32, i32>) -> HashSet<i32> {
    let mut spared = HashSet::from([0, 1]);
    let mut pid = i32::try_from(std::process::id()).unwrap_or(0);
    while spared.insert(pid) {
        pid = parents.get(&pid).copied().unwrap_or(0);
    }
    spared
}

/// The process itself and all below it.
fn descendants(root: i32, all: &[Process]) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(*process);
    }
    let mut found: Vec<Process> = all.iter().filter(|p| p.pid == root).copied().collect();
    let mut seen = HashSet::from([root]);
    let mut at = 0;
    while let Some(pid) = found.get(at).map(|p| p.pid) {
        at += 1;
        for child in children.remove(&pid).unwrap_or_default() {
            if seen.insert(child.pid) {
                found.push(child);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_marked_process_is_ended_and_an_unmarked_one_is_not() {
        let value = format!("tree-test-{}-{}", std::process::id(), fastrand::u64(..));
        let mut marked = Command::new("sleep")
            .arg("600")
            .env("OUTLAST_TEST", &value)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut other = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let tree = Tree::marked("OUTLAST_TEST", &value);
        // Until exec the new process still shows this process's environment.
        while !tree.members().iter().any(|p| p.pid == marked.id().cast_signed()) {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert_eq!(tree.kill_pass(), 1);
        assert_eq!(marked.wait().unwrap().signal(), Some(9));
        assert!(other.try_wait().unwrap().is_none());
        assert!(tree.members().is_empty());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_fork_storm_cannot_outrun_the_kill_without_a_cgroup() {
        let value = format!("storm-{}-{}", std::process::id(), fastrand::u64(..));
        let script = "f() { while :; do (sleep 0.01; :) & done; }; f & f & echo on; wait";
        let mut storm = Command::new("sh")
            .args(["-c", script])
            .env("OUTLAST_TEST", &value)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 3];
        std::io::Read::read_exact(storm.stdout.as_mut().unwrap(), &mut said).unwrap();
        let tree = Tree::marked("OUTLAST_TEST", &value).with_root(storm.id().cast_signed());
        // One that was killed still counts until the kernel comes to end it; one
        // that is just becoming `sleep` shows no marker for that moment.
        let until = Instant::now() + Duration::from_mins(3);
        while tree.kill_pass() > 0 || !tree.members().is_empty() {
            assert!(Instant::now() < until, "it still forks");
        }
        assert_eq!(storm.wait().unwrap().signal(), Some(9));
        while !tree.members().is_empty() {
            tree.kill_pass();
            assert!(Instant::now() < until, "something of it is left");
        }
    }
}
