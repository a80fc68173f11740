//! Waiting without a runtime: signals turned into a readable descriptor, and
//! poll. Handlers are used rather than a signal mask, because a mask would be
//! inherited by the training process and a handler is not.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

/// The signals of one process as a descriptor that becomes readable.
/// From `install` on, SIGTERM, SIGINT and SIGHUP no longer end the process.
#[derive(Debug)]
pub struct Signals {
    end_asked: Arc<AtomicBool>,
    wake: UnixStream,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT, SIGHUP and SIGCHLD and unblocks every signal,
    /// so that children begin with a clean mask.
    ///
    /// # Errors
    /// When the kernel refuses a handler or a socket pair.
    pub fn install() -> io::Result<Self> {
        let end_asked = Arc::new(AtomicBool::new(false));
        let (wake, sender) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            signal_hook::flag::register(signal as i32, Arc::clone(&end_asked))?;
        }
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            signal_hook::low_level::pipe::register(signal as i32, sender.try_clone()?)?;
        }
        SigSet::all().thread_unblock()?;
        Ok(Self { end_asked, wake })
    }

    /// Empties the descriptor, so that the next wait sleeps.
    pub fn drain(&mut self) {
        let mut sink = [0_u8; 256];
        while matches!(self.wake.read(&mut sink), Ok(n) if n > 0) {}
    }

    /// Whether SIGTERM or SIGINT came since the last question.
    #[must_use]
    pub fn take_end_asked(&self) -> bool {
        self.end_asked.swap(false, Ordering::SeqCst)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Sleeps until one of the descriptors is readable or closed, or the time has
/// passed. An interruption counts as a wake-up.
///
/// # Errors
/// When poll itself fails.
pub fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<()> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    // Rounded up: a wait of less than a millisecond must not become a busy loop.
    let millis = timeout.as_micros().div_ceil(1000).min(60_000);
    let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Makes reads of this end return at once when there is nothing.
///
/// # Errors
/// When the descriptor refuses the flag.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Grows a pipe's buffer where the system's limit allows it; a smaller one
/// works as well, so a refusal is no failure.
pub fn grow_pipe(fd: impl AsFd, bytes: i32) {
    let _ = fcntl(fd.as_fd(), FcntlArg::F_SETPIPE_SZ(bytes));
}
