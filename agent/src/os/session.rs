//! What a supervising process asks of the kernel for itself and its children.
//! Never lowers its own protection against the out-of-memory killer.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;

use super::table;

/// Leaves the caller's session, so that no terminal can end this process. A
/// process that leads a group already cannot and need not.
pub fn lead_session() {
    let _ = nix::unistd::setsid();
}

/// From now on orphans below this process become its children.
///
/// # Errors
/// When the kernel is too old for it.
pub fn adopt_orphans() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(())
}

/// Core files of children are off unless the child raises the limit itself:
/// a dump of a large model fills the disk.
pub fn no_core_dumps() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    }
}

/// Makes the kernel's out-of-memory killer take this process before those that
/// supervise it.
pub fn prefer_as_oom_victim(pid: i32) {
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "500");
}

/// The largest resident size of any child reaped so far.
#[must_use]
pub fn max_child_rss_bytes() -> Option<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?;
    u64::try_from(usage.max_rss()).ok().filter(|kib| *kib > 0).map(|kib| kib * 1024)
}

/// Reaps every ended child that is not in `known`; the ends of known children
/// stay for their owners to read.
pub fn reap_orphans(known: &[i32]) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::All, look).ok().and_then(|status| status.pid()) {
            // None has ended: the usual case, without a look at all processes.
            None => return,
            Some(pid) if !known.contains(&pid.as_raw()) => {
                let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            }
            // It is told first for ever, whoever ended after it.
            Some(_) => break,
        }
    }
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for process in table::processes() {
        if process.parent == own && process.is_zombie() && !known.contains(&process.pid) {
            while let Err(Errno::EINTR) = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG)) {}
        }
    }
}
