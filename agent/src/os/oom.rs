//! The kernel's counters of out-of-memory kills. Tells what has risen and how
//! much that proves; never that a SIGKILL was one.

use std::path::Path;

use super::{Cgroup, cgroup, read_bounded};

/// How often the kernel's out-of-memory killer has struck, by who counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OomCounters {
    attempt_v2: Option<u64>,
    attempt_v1: Option<u64>,
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
    pub fn read(own: Option<&Cgroup>) -> Self {
        let v2 = |dir: &Path| counter(&dir.join("memory.events"));
        let v1 = |dir: &Path| counter(&dir.join("memory.oom_control"));
        Self {
            attempt_v2: own.and_then(|c| v2(c.unified_path()?)),
            attempt_v1: own.and_then(|c| v1(c.legacy_path("memory")?)),
            machine_v2: cgroup::machine().and_then(|dir| v2(&dir)),
            machine_v1: cgroup::legacy("memory").and_then(|dir| v1(&dir)),
            host: counter("/proc/vmstat".as_ref()),
        }
    }

    fn rise(now: Option<u64>, then: Option<u64>) -> u64 {
        now.zip(then).map_or(0, |(n, t)| n.saturating_sub(t))
    }

    /// What the attempt's own cgroup counts since `before`, in words: it
    /// speaks of nobody else.
    #[must_use]
    pub fn certain_since(&self, before: &Self) -> Option<String> {
        let found = [
            (Self::rise(self.attempt_v2, before.attempt_v2), "memory.events"),
            (Self::rise(self.attempt_v1, before.attempt_v1), "memory.oom_control"),
        ];
        let (n, file) = found.into_iter().find(|(n, _)| *n > 0)?;
        Some(format!("certain: {file} of the attempt's cgroup counts {n} more oom_kill"))
    }

    /// What others count since `before`, strongest evidence first, in words:
    /// they speak of everything on the machine.
    #[must_use]
    pub fn likely_since(&self, before: &Self) -> Option<String> {
        let found = [
            (Self::rise(self.machine_v2, before.machine_v2), "likely: memory.events of the machine's cgroup"),
            (
                Self::rise(self.machine_v1, before.machine_v1),
                "likely: memory.oom_control of the machine's cgroup",
            ),
            (Self::rise(self.host, before.host), "probable: /proc/vmstat of the host"),
        ];
        let (n, source) = found.into_iter().find(|(n, _)| *n > 0)?;
        Some(format!("{source} counts {n} more oom_kill"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_counter_that_rose_is_the_evidence() {
        let before =
            OomCounters { attempt_v2: Some(0), machine_v1: Some(2), host: Some(7), ..Default::default() };
        assert_eq!((before.certain_since(&before), before.likely_since(&before)), (None, None));
        let host = OomCounters { host: Some(8), ..before };
        assert!(host.likely_since(&before).unwrap().starts_with("probable"));
        assert_eq!(host.certain_since(&before), None, "the host's counter proves nothing about the attempt");
        let machine = OomCounters { machine_v1: Some(3), ..host };
        assert!(machine.likely_since(&before).unwrap().starts_with("likely: memory.oom_control"));
        let own = OomCounters { attempt_v2: Some(1), ..host };
        assert!(own.certain_since(&before).unwrap().contains("attempt's cgroup counts 1 more"));
        // A counter that was not there before tells nothing.
        let appeared = OomCounters { attempt_v1: Some(5), ..before };
        assert_eq!(appeared.certain_since(&before), None);
    }
}
