//! The kernel's log as records, from now on. Best effort: a machine that does
//! not let us read it is a machine like any other. Never waits, and never
//! judges what a record says.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// The longest record that the kernel gives.
const RECORD: usize = 8 * 1024;

/// `/dev/kmsg`, read from the place where it was opened.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
}

impl KernelLog {
    /// Opens the log behind its last record; `None` where that is not allowed.
    #[must_use]
    pub fn from_now() -> Option<Self> {
        let flags = OFlag::O_NONBLOCK.bits();
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg").ok()?;
        file.seek(SeekFrom::End(0)).ok()?;
        Some(Self { file })
    }

    /// The next records, at most `max`, each as the kernel wrote it:
    /// `priority,sequence,microseconds,flags;text` and lines of details.
    ///
    /// # Errors
    /// When the log can no longer be read.
    pub fn read(&mut self, max: usize) -> io::Result<Vec<String>> {
        let mut records = Vec::new();
        let mut buffer = vec![0_u8; RECORD];
        while records.len() < max {
            match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => records.push(String::from_utf8_lossy(&buffer[..n]).into_owned()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // What we had not read was overwritten; the next read goes on.
                Err(e) if e.raw_os_error() == Some(Errno::EPIPE as i32) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(records)
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
