//! Ends groups of processes that this controller itself started, for the
//! modules that may not speak with the system.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Kills a process group by its leader, which must not have been waited for:
/// otherwise its number may be another's.
pub(crate) fn end_group(leader: u32) {
    if let Ok(leader) = i32::try_from(leader)
        && leader > 1
    {
        // It may be gone already.
        let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
    }
}
