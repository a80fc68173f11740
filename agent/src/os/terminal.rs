//! A pseudo-terminal for a program that wants one. What the program writes
//! comes out unchanged, and there is never anything to read: no echo, no
//! translation of line ends, an end of file for every read.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Stdio;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, killpg};
use nix::sys::termios::{LocalFlags, OutputFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::{Pid, tcsetpgrp};

/// Ctrl-D, once for each read that a program may try.
const ENDS: [u8; 64] = [4; 64];

/// Both ends of a terminal.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    slave: File,
}

impl Terminal {
    /// A terminal of this size. Where this process leads a session that has no
    /// terminal, it becomes the session's: its children then have it as theirs.
    ///
    /// # Errors
    /// Where the machine has no pseudo-terminals (left).
    pub fn open(columns: u16, rows: u16) -> io::Result<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None)?;
        let mut modes = tcgetattr(&pair.slave)?;
        modes.output_flags.remove(OutputFlags::OPOST);
        modes.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHOE | LocalFlags::ECHOK);
        tcsetattr(&pair.slave, SetArg::TCSANOW, &modes)?;
        // Opened once more by its name: only that makes it the session's own.
        let name = format!("/proc/self/fd/{}", pair.slave.as_raw_fd());
        let slave = OpenOptions::new().read(true).write(true).open(name)?;
        let mut master = File::from(pair.master);
        master.write_all(&ENDS)?;
        Ok(Self { master: master.into(), slave })
    }

    /// The program's three streams.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn streams(&self) -> io::Result<[Stdio; 3]> {
        let copy = || self.slave.try_clone().map(Stdio::from);
        Ok([copy()?, copy()?, copy()?])
    }

    /// Hands the terminal to the program's process group, closes our copy of
    /// its end and gives ours. Reads of it end when the program's copies are
    /// closed.
    #[must_use]
    pub fn hand_over(self, group: i32) -> OwnedFd {
        let group = Pid::from_raw(group);
        if tcsetpgrp(self.slave.as_fd(), group).is_ok() {
            // A program that was faster than this was stopped for touching it.
            let _ = killpg(group, Signal::SIGCONT);
        }
        self.master
    }
}
