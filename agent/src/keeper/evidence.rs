//! What speaks for the out-of-memory killer at the end of an attempt, strongest
//! first: the attempt's own cgroup, the kernel's log, the machine's cgroup, the
//! host's counter. Never calls a SIGKILL that nobody explains one of these, and
//! never changes what the exit was.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use lifecycle::Exit;

use super::kernel::{KernelEvidence, Kill};
use super::{KERNEL_LOG_FILE, OomProcess};
use crate::os::{KernelLog, OomCounters, Tree};

/// Records taken before anything else gets its turn.
const RECORDS: usize = 256;

/// The kernel's counters and log over the life of one attempt.
pub(super) struct Evidence {
    before: OomCounters,
    log: Option<KernelLog>,
    seen: KernelEvidence,
    file: PathBuf,
    cgroup: String,
    child: i32,
}

impl Evidence {
    pub(super) fn new(
        dir: &Path,
        cgroup: String,
        child: i32,
        before: OomCounters,
        log: Option<KernelLog>,
    ) -> Self {
        Self { before, log, seen: KernelEvidence::default(), file: dir.join(KERNEL_LOG_FILE), cgroup, child }
    }

    /// What to wait on.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.log.as_ref().map(AsFd::as_fd)
    }

    /// Takes what the kernel said since; called as soon as it said something,
    /// while whom it killed can still be found in the tree.
    pub(super) fn listen(&mut self, tree: &Tree) {
        let Some(log) = &mut self.log else { return };
        let Ok(records) = log.read(RECORDS) else {
            self.log = None;
            return;
        };
        let (cgroup, child) = (&self.cgroup, self.child);
        let is_ours = |kill: &Kill| {
            let inside = |path: &String| path.split('/').any(|part| part == cgroup);
            kill.process.pid == child
                || kill.cgroup.as_ref().is_some_and(inside)
                || tree.holds(kill.process.pid)
        };
        let mut is_new = false;
        for record in records {
            is_new |= self.seen.take(&record, is_ours);
        }
        if is_new {
            // For people: where the disk refuses it, the exit is told all the same.
            let _ = std::fs::write(&self.file, self.seen.text());
        }
    }

    /// What explains this end: the evidence in words, and whom the killer took.
    pub(super) fn explain(
        &self,
        exit: &Exit,
        was_stopped: bool,
        tree: &Tree,
    ) -> (Option<String>, Option<OomProcess>) {
        if exit.is_success() {
            return (None, None);
        }
        let now = OomCounters::read(tree.cgroup());
        let victim = self.seen.victim(self.child);
        let words =
            judge(exit, was_stopped, now.certain_since(&self.before), victim, now.likely_since(&self.before));
        (words, victim.cloned())
    }
}

fn judge(
    exit: &Exit,
    was_stopped: bool,
    certain: Option<String>,
    victim: Option<&OomProcess>,
    likely: Option<String>,
) -> Option<String> {
    if certain.is_some() {
        return certain;
    }
    if let Some(OomProcess { pid, command }) = victim {
        return Some(format!("certain: the kernel's log says that it killed process {pid} ({command})"));
    }
    // 137 is what a container tool makes of SIGKILL. Any other end explains
    // itself, and others on the machine may be whom the counters mean.
    let looks_killed = matches!(exit, Exit::Signal { signal: 9, .. } | Exit::Code { code: 137 });
    likely.filter(|_| looks_killed && !was_stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_evidence_speaks_and_an_unexplained_kill_has_none() {
        let killed = Exit::Signal { signal: 9, core: false };
        let failed = Exit::Code { code: 1 };
        let worker = OomProcess { pid: 12, command: "pt_data_worker".into() };
        let (own, host) = (|| Some("own".to_owned()), || Some("host".to_owned()));
        assert_eq!(judge(&killed, false, None, None, None), None, "a SIGKILL alone proves nothing");
        assert_eq!(judge(&killed, false, own(), Some(&worker), host()), own());
        assert!(judge(&killed, false, None, Some(&worker), host()).unwrap().contains("12 (pt_data_worker)"));
        assert_eq!(judge(&killed, false, None, None, host()), host());
        assert_eq!(judge(&Exit::Code { code: 137 }, false, None, None, host()), host());
        // A child that was killed explains the error of its parent; a counter
        // that speaks of the whole machine does not.
        assert!(judge(&failed, false, None, Some(&worker), None).is_some());
        assert_eq!(judge(&failed, false, own(), None, host()), own());
        assert_eq!(judge(&failed, false, None, None, host()), None);
        assert_eq!(judge(&killed, true, None, None, host()), None, "we killed it ourselves");
    }
}
