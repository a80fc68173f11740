//! A cgroup for one attempt where the system lets us make one, and the kernel's
//! counters of out-of-memory kills. Best effort: a machine without cgroups is a
//! machine like any other. Never moves anything out of the limits it has: the
//! new cgroup lies below the one this process is in.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::read_bounded;

const ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// A version 2 cgroup that this process made.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    home: PathBuf,
    is_ours_alone: bool,
}

/// The path of this process in a hierarchy, as /proc tells it.
fn own_path(controller: Option<&str>) -> Option<PathBuf> {
    let text = String::from_utf8(read_bounded("/proc/self/cgroup".as_ref(), 1 << 16).ok()?).ok()?;
    let path = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        match controller {
            None => (number == "0" && names.is_empty()).then_some(path),
            Some(name) => names.split(',').any(|n| n == name).then_some(path),
        }
    })?;
    let relative = Path::new(path.strip_prefix('/')?);
    relative.components().all(|c| matches!(c, Component::Normal(_))).then(|| relative.to_path_buf())
}

fn home() -> Option<PathBuf> {
    let root = ROOTS.iter().map(Path::new).find(|r| r.join("cgroup.controllers").exists())?;
    let home = root.join(own_path(None)?);
    home.join("cgroup.procs").exists().then_some(home)
}

impl Cgroup {
    /// Makes a cgroup below our own; `None` where that is not possible or where
    /// the kernel cannot end a whole cgroup at once.
    #[must_use]
    pub fn create(name: &str) -> Option<Self> {
        let home = home()?;
        let path = home.join(name);
        fs::create_dir(&path).ok()?;
        let made = Self { path, home, is_ours_alone: true };
        made.path.join("cgroup.kill").exists().then_some(made)
    }

    /// The cgroup of this name that a process before us made and left.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let home = home()?;
        let path = home.join(name);
        let found = Self { is_ours_alone: path.join("cgroup.kill").exists(), path, home };
        let own = i32::try_from(std::process::id()).ok()?;
        (found.is_ours_alone && !found.members().contains(&own)).then_some(found)
    }

    /// Moves this process in, so that what it starts is born inside.
    pub fn enter(&mut self) {
        if fs::write(self.path.join("cgroup.procs"), std::process::id().to_string()).is_ok() {
            self.is_ours_alone = false;
        }
    }

    /// Moves this process back out.
    pub fn leave(&mut self) {
        if fs::write(self.home.join("cgroup.procs"), std::process::id().to_string()).is_ok() {
            self.is_ours_alone = true;
        }
    }

    /// The numbers of the processes inside.
    #[must_use]
    pub fn members(&self) -> HashSet<i32> {
        let Ok(bytes) = fs::read(self.path.join("cgroup.procs")) else { return HashSet::new() };
        String::from_utf8_lossy(&bytes).lines().filter_map(|l| l.trim().parse().ok()).collect()
    }

    /// Ends everything inside at once, unless this process could not leave.
    pub fn kill(&self) {
        if self.is_ours_alone {
            let _ = fs::write(self.path.join("cgroup.kill"), "1");
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// How often the kernel's out-of-memory killer has struck, by who counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OomCounters {
    attempt: Option<u64>,
    machine_v2: Option<u64>,
    machine_v1: Option<u64>,
    host: Option<u64>,
}

fn counter(path: &Path) -> Option<u64> {
    let text = read_bounded(path, 1 << 20).ok()?;
    String::from_utf8_lossy(&text).lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok())
}

impl OomCounters {
    /// The counters now.
    #[must_use]
    pub fn read(cgroup: Option<&Cgroup>) -> Self {
        let v1 = own_path(Some("memory")).and_then(|own| {
            let root = Path::new("/sys/fs/cgroup/memory");
            // Inside a container the path is the host's and the mount is ours.
            counter(&root.join(own).join("memory.oom_control"))
                .or_else(|| counter(&root.join("memory.oom_control")))
        });
        Self {
            attempt: cgroup.and_then(|c| counter(&c.path.join("memory.events"))),
            machine_v2: home().and_then(|h| counter(&h.join("memory.events"))),
            machine_v1: v1,
            host: counter("/proc/vmstat".as_ref()),
        }
    }

    /// What has risen since `before`, strongest evidence first, in words.
    #[must_use]
    pub fn evidence_since(&self, before: &Self) -> Option<String> {
        let rise = |now: Option<u64>, then: Option<u64>| now.zip(then).map(|(n, t)| n.saturating_sub(t));
        let found = [
            (rise(self.attempt, before.attempt), "certain: memory.events of the attempt's cgroup"),
            (rise(self.machine_v2, before.machine_v2), "likely: memory.events of the machine's cgroup"),
            (rise(self.machine_v1, before.machine_v1), "likely: memory.oom_control of the machine's cgroup"),
            (rise(self.host, before.host), "probable: /proc/vmstat of the host"),
        ];
        found.into_iter().find_map(|(n, source)| {
            n.filter(|n| *n > 0).map(|n| format!("{source} counts {n} more oom_kill"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_counter_that_rose_is_the_evidence() {
        let before =
            OomCounters { attempt: Some(0), machine_v1: Some(2), host: Some(7), ..Default::default() };
        assert_eq!(before.evidence_since(&before), None);
        let host = OomCounters { host: Some(8), ..before };
        assert!(host.evidence_since(&before).unwrap().starts_with("probable"));
        let own = OomCounters { attempt: Some(1), ..host };
        assert!(own.evidence_since(&before).unwrap().contains("attempt's cgroup counts 1 more"));
    }
}
