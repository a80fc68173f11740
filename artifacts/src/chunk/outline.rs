//! The records of a file, by its own account. The account is hostile: it is
//! bounded, and one that does not add up counts as none. A wrong one that does
//! add up costs only dedupe, for it says where to cut and nothing else.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::{WHOLE, safetensors, zip};

/// Shorter records are left to the cut by content, many at a time.
const LEAST: u64 = 64 << 10;
/// More records than this, and the file is cut by content.
const MOST: usize = 200_000;

/// Bytes that can be read anywhere.
pub(crate) trait At {
    /// Fills `buffer` from `at` on, or fails.
    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl At for File {
    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }
}

impl At for [u8] {
    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Reads `len` bytes, which the caller has bounded.
pub(super) fn piece(file: &(impl At + ?Sized), at: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.fill(at, &mut bytes).ok()?;
    Some(bytes)
}

/// Where the records of a file of `size` bytes lie: in order, disjoint, each
/// worth a cut. Nothing for a file that has none, that says nonsense or that
/// cannot be read: reading its content will tell.
pub(crate) fn outline(file: &(impl At + ?Sized), size: u64) -> Vec<Range<u64>> {
    if size <= WHOLE as u64 {
        return Vec::new();
    }
    let records = zip::records(file, size).or_else(|| safetensors::records(file, size));
    records.map_or_else(Vec::new, |records| worthy(records, size))
}

fn worthy(mut records: Vec<Range<u64>>, size: u64) -> Vec<Range<u64>> {
    records.retain(|record| record.end.saturating_sub(record.start) >= LEAST);
    records.sort_unstable_by_key(|record| record.start);
    let apart = records.is_sorted_by(|before, after| before.end <= after.start);
    let within = records.last().is_none_or(|record| record.end <= size);
    if records.len() > MOST || !apart || !within { Vec::new() } else { records }
}
