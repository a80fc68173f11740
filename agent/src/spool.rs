//! The output of an attempt on disk: raw bytes in segments whose names are their
//! offsets, and the gaps where the quota forced a loss. The keeper writes, the
//! agent reads and releases. Offsets count what the program produced, dropped
//! bytes included; nothing is ever lost without an exact gap saying so.
#![cfg(target_os = "linux")]

mod gaps;
mod reader;
mod times;
mod writer;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use reader::SpoolReader;
pub use times::Written;
pub use writer::SpoolWriter;

/// Largest size of one segment.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Segments looked at in one directory; more than any quota allows.
const MAX_SEGMENTS: usize = 1 << 16;

/// One of the two outputs of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// What it writes to descriptor 1.
    Stdout,
    /// What it writes to descriptor 2.
    Stderr,
}

impl Stream {
    /// Both, in the order of their descriptors.
    pub const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The name used in files and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

/// What lies at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Bytes {
        /// Where they begin.
        offset: u64,
        /// The bytes, exactly as the program wrote them.
        bytes: Vec<u8>,
    },
    /// The bytes from `from` up to, not including, `to` are gone: dropped over
    /// the quota, or released before.
    Gap {
        /// The first missing offset.
        from: u64,
        /// The first offset after it; a gap may go on there.
        to: u64,
    },
    /// Nothing is at this offset yet.
    End,
}

/// Why the spool could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the output spool at {}: {source}", path.display())]
pub struct SpoolError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl SpoolError {
    fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_path_buf(), source }
    }
}

pub(crate) fn spool_dir(attempt_dir: &Path) -> PathBuf {
    attempt_dir.join("spool")
}

fn segment_path(dir: &Path, stream: Stream, start: u64) -> PathBuf {
    dir.join(format!("{}.{start:016}", stream.as_str()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    start: u64,
    len: u64,
}

impl Segment {
    fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// The segments of both streams, sorted by offset; an absent directory is empty.
fn list_segments(dir: &Path) -> io::Result<[Vec<Segment>; 2]> {
    let mut found = [Vec::new(), Vec::new()];
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(e),
    };
    for entry in entries.take(2 * MAX_SEGMENTS) {
        let entry = entry?;
        let name = entry.file_name();
        let Some((stem, digits)) = name.to_str().and_then(|n| n.split_once('.')) else { continue };
        let Some(stream) = Stream::BOTH.into_iter().find(|s| s.as_str() == stem) else { continue };
        if digits.len() < 16 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let Ok(start) = digits.parse() else { continue };
        match entry.metadata() {
            Ok(m) if m.is_file() => found[stream.index()].push(Segment { start, len: m.len() }),
            Ok(_) => {}
            // Released between the listing and this look.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    for list in &mut found {
        list.sort_unstable();
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
