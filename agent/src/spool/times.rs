//! When the program wrote what: `stdout.times` and `stderr.times` beside the
//! segments, records of 16 bytes: an offset and the unix milliseconds at which
//! the keeper read the byte there, both little-endian. A record is written
//! before its bytes, so that whoever sees the bytes can see their time. The
//! file is for display only: it is never synced, a torn or foreign record is
//! passed over, and it stays small whatever happens: what was released goes,
//! then marks that stand too close together.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Stream;
use crate::os;

/// Between two marks, in milliseconds; more between old ones where there are many.
const LEAST_APART: u64 = 100;
const RECORD: usize = 16;
/// At this size the file is made smaller: 8192 marks.
const COMPACT_AT: u64 = 128 * 1024;
/// After the making smaller there is room for as much again.
const COMPACT_TO: usize = COMPACT_AT as usize / RECORD / 2;
/// Bytes whose times lie further apart than this are told apart, in ms.
const TELL_APART: u64 = 1_000;

/// From this offset on, what was written was read at this time or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    offset: u64,
    at_ms: u64,
}

impl Mark {
    fn bytes(self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&self.offset.to_le_bytes());
        record[8..].copy_from_slice(&self.at_ms.to_le_bytes());
        record
    }

    fn read(record: [u8; RECORD]) -> Self {
        let number = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&record[at..at + 8]);
            u64::from_le_bytes(eight)
        };
        Self { offset: number(0), at_ms: number(8) }
    }
}

fn path(spool: &Path, stream: Stream) -> PathBuf {
    spool.join(format!("{}.times", stream.as_str()))
}

/// Whole records whose offsets rise; a torn end and what fell out of order
/// are left out.
fn parse(bytes: &[u8], into: &mut Vec<Mark>) {
    for record in bytes.as_chunks::<RECORD>().0 {
        let mark = Mark::read(*record);
        if into.last().is_none_or(|last| last.offset < mark.offset) {
            into.push(mark);
        }
    }
}

/// What is worth keeping: the marks from the one that covers `first_kept` on,
/// at least `apart` milliseconds from each other.
fn thin(marks: &[Mark], first_kept: u64, apart: u64) -> Vec<Mark> {
    let from = marks.partition_point(|m| m.offset <= first_kept).saturating_sub(1);
    let mut kept: Vec<Mark> = Vec::new();
    for mark in &marks[from..] {
        if kept.last().is_none_or(|last| last.at_ms.abs_diff(mark.at_ms) >= apart) {
            kept.push(*mark);
        }
    }
    kept
}

/// The writing side, one per stream. Only the keeper has one.
#[derive(Debug)]
pub(super) struct TimeLog {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    last_ms: Option<u64>,
}

impl TimeLog {
    /// An empty log; one that cannot be written notes nothing.
    pub(super) fn create(spool: &Path, stream: Stream) -> Self {
        let path = path(spool, stream);
        let file = open(&path, true).ok();
        Self { path, file, len: 0, last_ms: None }
    }

    /// The program's byte at `offset` was read at `now_ms`. `first_kept` is
    /// asked for now and then: below it nothing is in the spool any more.
    pub(super) fn note(&mut self, offset: u64, now_ms: u64, first_kept: impl FnOnce() -> u64) {
        // A clock that was set back is a new time too.
        if self.last_ms.is_some_and(|last| last.abs_diff(now_ms) < LEAST_APART) {
            return;
        }
        if self.len >= COMPACT_AT && self.compact(first_kept()).is_err() {
            // What is too large and cannot be made smaller grows no more.
            self.file = None;
        }
        let Some(file) = &mut self.file else { return };
        if file.write_all(&Mark { offset, at_ms: now_ms }.bytes()).is_ok() {
            self.len += RECORD as u64;
            self.last_ms = Some(now_ms);
        } else if file.set_len(self.len).is_err() {
            // Half a record would shift all that follow.
            self.file = None;
        }
    }

    fn compact(&mut self, first_kept: u64) -> io::Result<()> {
        let mut marks = Vec::new();
        parse(&fs::read(&self.path)?, &mut marks);
        let mut apart = LEAST_APART;
        let mut kept = thin(&marks, first_kept, 0);
        while kept.len() > COMPACT_TO {
            kept = thin(&marks, first_kept, apart);
            apart = apart.saturating_mul(2);
        }
        let bytes: Vec<u8> = kept.iter().flat_map(|mark| mark.bytes()).collect();
        let fresh = self.path.with_extension("times.new");
        open(&fresh, true)?.write_all(&bytes)?;
        fs::rename(&fresh, &self.path)?;
        self.file = Some(open(&self.path, false)?);
        self.len = bytes.len() as u64;
        Ok(())
    }
}

fn open(path: &Path, fresh: bool) -> io::Result<File> {
    OpenOptions::new().append(!fresh).write(true).create(fresh).truncate(fresh).mode(0o600).open(path)
}

/// What is known of the time of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// When it was read from the program, unix milliseconds; 0 is unknown.
    pub at_ms: u64,
    /// Bytes from this offset on were read more than a second away from it.
    pub until: u64,
}

impl Written {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { at_ms: 0, until: u64::MAX };
}

/// The reading side, one per stream: keeps what it read, looks only at what
/// was added.
#[derive(Debug, Default)]
pub(super) struct Times {
    marks: Vec<Mark>,
    inode: u64,
    read: u64,
}

impl Times {
    /// The time of the byte at `offset`, which has been seen in the spool.
    pub(super) fn of(&mut self, spool: &Path, stream: Stream, offset: u64) -> Written {
        // Without the file there are no times: an older keeper, or a full disk.
        let _ = self.refresh(&path(spool, stream));
        let after = self.marks.partition_point(|m| m.offset <= offset);
        let Some(mark) = after.checked_sub(1).and_then(|at| self.marks.get(at)) else {
            return Written { until: self.marks.first().map_or(u64::MAX, |m| m.offset), ..Written::UNKNOWN };
        };
        let far = self.marks[after..].iter().find(|m| m.at_ms.abs_diff(mark.at_ms) > TELL_APART);
        Written { at_ms: mark.at_ms, until: far.map_or(u64::MAX, |m| m.offset) }
    }

    fn refresh(&mut self, path: &Path) -> io::Result<()> {
        let file = os::open_nofollow(path)?;
        let about = file.metadata()?;
        if about.ino() != self.inode || about.len() < self.read {
            *self = Self { inode: about.ino(), ..Self::default() };
        }
        // The keeper keeps it below this; what is longer is not the keeper's.
        let whole = about.len().min(COMPACT_AT + RECORD as u64) / RECORD as u64 * RECORD as u64;
        let mut bytes = vec![0; usize::try_from(whole.saturating_sub(self.read)).unwrap_or(0)];
        if !bytes.is_empty() {
            file.read_exact_at(&mut bytes, self.read)?;
            parse(&bytes, &mut self.marks);
            self.read = whole;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(dir: &Path, times: &mut Times, offset: u64) -> (u64, u64) {
        let Written { at_ms, until } = times.of(dir, Stream::Stdout, offset);
        (at_ms, until)
    }

    #[test]
    fn a_byte_has_the_time_of_its_mark_and_pieces_end_where_a_second_has_passed() {
        let dir = tempfile::tempdir().unwrap();
        let mut times = Times::default();
        assert_eq!(written(dir.path(), &mut times, 5), (0, u64::MAX), "no file, no time");
        let mut log = TimeLog::create(dir.path(), Stream::Stdout);
        for (offset, at) in [(0, 10_000), (3, 10_050), (10, 10_400), (20, 11_100), (30, 60_000)] {
            log.note(offset, at, || 0);
        }
        assert_eq!(written(dir.path(), &mut times, 0), (10_000, 20));
        assert_eq!(written(dir.path(), &mut times, 9), (10_000, 20), "50 ms are no mark");
        assert_eq!(written(dir.path(), &mut times, 10), (10_400, 30));
        assert_eq!(written(dir.path(), &mut times, 99), (60_000, u64::MAX));
        log.note(100, 20_000, || 0);
        assert_eq!(written(dir.path(), &mut times, 99), (60_000, 100));
        assert_eq!(written(dir.path(), &mut times, 100), (20_000, u64::MAX), "a clock set back is believed");
    }

    #[test]
    fn torn_and_foreign_records_cost_nothing_but_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let file = path(dir.path(), Stream::Stdout);
        let mut bytes: Vec<u8> = Vec::new();
        for (offset, at_ms) in [(0, 1_000), (50, 9_000), (7, 77), (60, 20_000)] {
            bytes.extend(Mark { offset, at_ms }.bytes());
        }
        for cut in 0..=bytes.len() {
            fs::write(&file, &bytes[..cut]).unwrap();
            let expected = [0, 1_000, 9_000, 9_000, 20_000][cut / RECORD];
            assert_eq!(written(dir.path(), &mut Times::default(), 60).0, expected, "{cut}");
        }
        let link = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&file, path(link.path(), Stream::Stdout)).unwrap();
        assert_eq!(written(link.path(), &mut Times::default(), 60), (0, u64::MAX), "a link is not followed");
    }

    #[test]
    fn the_file_stays_small_and_keeps_what_is_unreleased() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = TimeLog::create(dir.path(), Stream::Stdout);
        let mut times = Times::default();
        // Two days without release, ten marks a second, a night of silence.
        for i in 0..400_000_u64 {
            let silence = if i >= 200_000 { 30_000_000 } else { 0 };
            log.note(i * 10, 1_000_000 + i * 100 + silence, || 0);
        }
        let len = fs::metadata(path(dir.path(), Stream::Stdout)).unwrap().len();
        assert!(len <= COMPACT_AT + RECORD as u64, "{len}");
        for i in [0, 1, 77_777, 199_999, 200_000, 399_999] {
            let silence = if i >= 200_000 { 30_000_000 } else { 0 };
            let (at, _) = written(dir.path(), &mut times, i * 10);
            let truth = 1_000_000 + i * 100 + silence;
            assert!(at <= truth && truth - at < 30_000, "{i}: {at} for {truth}");
        }
        assert_eq!(written(dir.path(), &mut times, 2_000_000).0, 51_000_000, "a silence is never blurred");
        // Released ones go, and new ones are as close as ever.
        for i in 400_000..420_000_u64 {
            log.note(i * 10, 31_000_000 + i * 100, || i * 10 - 50);
        }
        assert_eq!(written(dir.path(), &mut times, 4_199_990).0, 31_000_000 + 419_999 * 100);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn thinning_keeps_the_first_and_never_makes_a_time_later(
            steps in prop::collection::vec((1..1_000_u64, 0..5_000_u64), 1..200),
            apart in 1..10_000_u64,
        ) {
            let mut marks = Vec::new();
            let (mut offset, mut at_ms) = (0, 5);
            for (forward, ms) in steps {
                marks.push(Mark { offset, at_ms });
                offset += forward;
                at_ms += ms;
            }
            let kept = thin(&marks, 0, apart);
            prop_assert_eq!(kept[0], marks[0]);
            for mark in &marks {
                let covering = kept.iter().rev().find(|k| k.offset <= mark.offset).unwrap();
                prop_assert!(covering.at_ms <= mark.at_ms && mark.at_ms - covering.at_ms < apart.max(1));
            }
        }
    }
}
