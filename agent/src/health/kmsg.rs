//! Follows the kernel's log from now on. Never waits, never reads what was said
//! before the agent started, and is content where the log is not open to us.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::xid::{self, Xid};

/// The kernel gives one record per read, never a longer one than this.
const RECORD_MAX: usize = 8192;
/// Records looked at in one sample; the rest waits in the kernel's ring.
const RECORDS: usize = 2000;

/// The log, if it could be opened.
#[derive(Debug)]
pub(super) struct KernelLog {
    path: PathBuf,
    file: Option<File>,
    refused: Option<io::Error>,
    /// The beginning of a line whose end was not there yet (files and pipes).
    partial: Vec<u8>,
    /// Times that the kernel overwrote records before they were read.
    pub(super) overruns: u64,
}

impl KernelLog {
    /// Opens the log at its end.
    pub(super) fn open(path: &Path) -> Self {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
            .open(path)
            .map(|mut file| {
                // A pipe has no end to go to, and nothing in it that is old.
                let _ = file.seek(SeekFrom::End(0));
                file
            });
        let (file, refused) = match opened {
            Ok(file) => (Some(file), None),
            Err(e) => (None, Some(e)),
        };
        Self { path: path.to_path_buf(), file, refused, partial: Vec::new(), overruns: 0 }
    }

    /// Why Xid errors cannot be seen; `None` where they can.
    pub(super) fn problem(&self) -> Option<String> {
        let error = self.refused.as_ref()?;
        Some(format!("{}: {error}; Xid errors of GPUs cannot be seen", self.path.display()))
    }

    /// The Xid errors since the last call.
    pub(super) fn poll(&mut self, buffer: &mut Vec<u8>) -> Vec<Xid> {
        let mut found = Vec::new();
        let Some(mut file) = self.file.take() else { return found };
        buffer.resize(buffer.len().max(RECORD_MAX), 0);
        for _ in 0..RECORDS {
            match file.read(buffer) {
                Ok(0) => break,
                Ok(n) => self.take(buffer.get(..n).unwrap_or_default(), &mut found),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The ring has gone over our place; the next read is the oldest it has.
                Err(e) if e.raw_os_error() == Some(Errno::EPIPE as i32) => {
                    self.overruns = self.overruns.saturating_add(1);
                }
                Err(e) => {
                    self.refused = Some(e);
                    return found;
                }
            }
        }
        self.file = Some(file);
        found
    }

    fn take(&mut self, bytes: &[u8], found: &mut Vec<Xid>) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let is_whole = part.ends_with(b"\n");
            if is_whole && self.partial.is_empty() {
                found.extend(xid::from_record(&String::from_utf8_lossy(part)));
                continue;
            }
            if self.partial.len() + part.len() <= RECORD_MAX {
                self.partial.extend_from_slice(part);
            }
            if is_whole {
                found.extend(xid::from_record(&String::from_utf8_lossy(&self.partial)));
                self.partial.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LINE: &str = "4,7,8,-;NVRM: Xid (PCI:0000:65:00): 48, pid=1, DBE (double bit error) ECC Error\n";

    #[test]
    fn only_what_is_said_from_now_on_is_read_and_in_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kmsg");
        std::fs::write(&path, LINE).unwrap();
        let mut log = KernelLog::open(&path);
        let mut buffer = Vec::new();
        assert!(log.poll(&mut buffer).is_empty());
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        let (start, end) = LINE.split_at(20);
        write!(file, "6,1,2,-;other\n{start}").unwrap();
        assert!(log.poll(&mut buffer).is_empty());
        write!(file, "{end}{LINE}").unwrap();
        let found = log.poll(&mut buffer);
        assert_eq!(found.iter().map(|x| x.number).collect::<Vec<_>>(), [48, 48]);
        write!(file, "{}\n{LINE}", "x".repeat(1 << 20)).unwrap();
        assert_eq!(log.poll(&mut buffer).len(), 1, "an endless line costs no memory and no later line");
        assert!(log.partial.capacity() <= 2 * RECORD_MAX);
        assert_eq!(log.problem(), None);
    }

    #[test]
    fn a_log_that_is_not_open_to_us_is_told_once_and_no_error() {
        let mut log = KernelLog::open(Path::new("/nonexistent/kmsg"));
        assert!(log.poll(&mut Vec::new()).is_empty());
        assert!(log.problem().unwrap().contains("cannot be seen"));
    }

    #[test]
    fn the_real_log_does_not_block_and_takes_no_word_of_a_program_for_the_kernels() {
        let mut log = KernelLog::open(Path::new("/dev/kmsg"));
        let Ok(mut writer) = OpenOptions::new().write(true).open("/dev/kmsg") else {
            println!("skipped: the_real_log: /dev/kmsg cannot be written here");
            return;
        };
        let mut buffer = Vec::new();
        log.poll(&mut buffer);
        writer.write_all(b"<4>NVRM: Xid (PCI:0000:65:00): 79, pid=1, written by a test").unwrap();
        assert!(log.poll(&mut buffer).is_empty());
    }
}
