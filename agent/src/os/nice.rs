//! How strong a claim to the processor threads of this agent have. Only its own
//! threads and a session that it or its guard leads are ever changed: never a
//! program, and never the session of a person's shell.

use std::io;

/// What the kernel tells of how sessions share the processor.
const SESSION: &str = "/proc/self/autogroup";

/// Sets the claim of the calling thread, 0 (as anybody) to 19 (the least).
/// Whatever it starts inherits that.
///
/// # Errors
/// Where the system refuses.
pub fn set_thread_nice(nice: i32) -> io::Result<()> {
    // Of the calling thread: for Linux "this process" is this thread.
    rustix::process::setpriority_process(None, nice)?;
    Ok(())
}

/// Sets the claim of this process's session where sessions share the processor
/// evenly.
///
/// # Errors
/// `WouldBlock` where it was changed a moment ago; others where sessions are
/// not grouped, or this one is not the agent's own.
pub fn set_session_nice(nice: i32) -> io::Result<()> {
    let leader = nix::unistd::getsid(None)?;
    if leader != nix::unistd::getpid() && leader != nix::unistd::getppid() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the session is somebody else's"));
    }
    std::fs::write(SESSION, nice.to_string())
}
