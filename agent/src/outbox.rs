//! Facts that the controller has not acknowledged: numbered, on disk, bounded.
//! One file per attempt, append-only frames of length, CRC-32, kind and
//! payload; a torn tail is cut at the start. Lifecycle facts are synced at
//! once and never thinned; metric batches are synced within a second and the
//! oldest give way, leaving a gap that says so.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Unacknowledged bytes of metrics that are kept; then the oldest half goes.
const METRICS_LIMIT: usize = 8 << 20;
/// An outbox file is rewritten when it passed this and half of it is done with.
const COMPACT_AT: u64 = 8 << 20;
const FRAME_LIMIT: u32 = 1 << 20;

/// Which numbered stream a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Lifecycle facts.
    Events,
    /// Metric batches.
    Metrics,
}

const EVENT: u8 = 1;
const METRIC: u8 = 2;
const GAP: u8 = 3;
const CURSOR: u8 = 4;
const BASE: u8 = 5;

/// A record on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An encoded fact.
    Fact(Vec<u8>),
    /// Everything up to this number was thinned away.
    Gap(u64),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Base {
    events: u64,
    metrics: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// Number of the first record in `items`.
    first: u64,
    /// Number and content; a gap covers from its number to its content.
    items: VecDeque<(u64, Record)>,
    next: u64,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, record: Record) -> u64 {
        let seq = self.next;
        let (size, next) = match &record {
            Record::Fact(bytes) => (bytes.len(), seq + 1),
            Record::Gap(to) => (0, (*to).max(seq)),
        };
        self.bytes += size;
        self.items.push_back((seq, record));
        self.next = next;
        seq
    }

    fn acked(&mut self, next: u64) {
        while let Some((seq, record)) = self.items.front() {
            let (end, size) = match record {
                Record::Fact(bytes) => (seq + 1, bytes.len()),
                Record::Gap(to) => (*to, 0),
            };
            if end > next {
                break;
            }
            self.bytes -= size;
            self.items.pop_front();
        }
        self.first = self.first.max(next);
        // A controller that knows more than this disk (a cut tail) wins.
        self.next = self.next.max(next);
    }
}

/// The outbox of one attempt.
#[derive(Debug)]
pub struct Outbox {
    file: Option<(PathBuf, File)>,
    len: u64,
    dirty: bool,
    /// The file lacks records that memory has: it is rewritten with the next.
    behind: bool,
    events: Queue,
    metrics: Queue,
    /// The newest cursor, opaque to the outbox.
    cursor: Option<Vec<u8>>,
    /// Metric batches thinned away since the start.
    pub thinned: u64,
}

impl Outbox {
    /// Opens an attempt's outbox, in memory where `path` is `None`.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let mut this = Self {
            file: None,
            len: 0,
            dirty: false,
            behind: false,
            events: Queue::default(),
            metrics: Queue::default(),
            cursor: None,
            thinned: 0,
        };
        if let Some(path) = path {
            let mut file =
                OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let good = this.replay(&bytes);
            file.set_len(good)?;
            file.seek(SeekFrom::End(0))?;
            this.len = good;
            this.file = Some((path.to_owned(), file));
        }
        Ok(this)
    }

    fn replay(&mut self, bytes: &[u8]) -> u64 {
        let mut at = 0;
        while let Some((kind, payload, end)) = frame_at(bytes, at) {
            match kind {
                EVENT => {
                    self.events.push(Record::Fact(payload.to_vec()));
                }
                METRIC => {
                    self.metrics.push(Record::Fact(payload.to_vec()));
                }
                GAP => {
                    if let Ok(to) = payload.try_into() {
                        self.metrics.push(Record::Gap(u64::from_le_bytes(to)));
                    }
                }
                CURSOR => self.cursor = Some(payload.to_vec()),
                BASE => {
                    let base: Base = serde_json::from_slice(payload).unwrap_or_default();
                    self.events.first = base.events;
                    self.events.next = base.events;
                    self.metrics.first = base.metrics;
                    self.metrics.next = base.metrics;
                }
                // A later version's record: skipped, not misread.
                _ => {}
            }
            at = end;
        }
        at as u64
    }

    fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        if self.behind {
            // Numbers follow from the order in the file, so a record that is
            // missing there must not be passed over. The queues have it.
            self.compact()?;
            self.behind = false;
            return Ok(());
        }
        if let Some((_, file)) = &mut self.file {
            if let Err(error) = file.write_all(frames) {
                self.behind = true;
                // A half-written frame must not hide the ones after it.
                file.set_len(self.len)?;
                file.seek(SeekFrom::End(0))?;
                return Err(error);
            }
            self.len += frames.len() as u64;
            self.dirty = true;
        }
        Ok(())
    }

    /// Adds a lifecycle fact; durable when this returns.
    ///
    /// # Errors
    /// Where the disk refuses; then the fact is kept in memory all the same.
    pub fn event(&mut self, encode: impl FnOnce(u64) -> Vec<u8>) -> io::Result<()> {
        let fact = encode(self.events.next);
        let frames = frame(EVENT, &fact);
        self.events.push(Record::Fact(fact));
        self.write(&frames)?;
        self.sync()
    }

    /// Adds a metric batch together with the cursor up to which its source was
    /// read: both or neither survive a crash.
    ///
    /// # Errors
    /// Where the disk refuses; then the batch is kept in memory all the same.
    pub fn metrics(&mut self, encode: impl FnOnce(u64) -> Vec<u8>, cursor: Vec<u8>) -> io::Result<()> {
        let fact = encode(self.metrics.next);
        let mut frames = frame(METRIC, &fact);
        frames.extend(frame(CURSOR, &cursor));
        self.metrics.push(Record::Fact(fact));
        self.cursor = Some(cursor);
        self.write(&frames)?;
        if self.metrics.bytes > METRICS_LIMIT {
            self.thin();
            self.compact()?;
        } else if self.len > COMPACT_AT && self.len > 2 * self.live_bytes() {
            self.compact()?;
        }
        Ok(())
    }

    /// Replaces the older half of the metric batches by a gap.
    fn thin(&mut self) {
        let half = self.metrics.items.len() / 2;
        let gone: Vec<_> = self.metrics.items.drain(..half).collect();
        let Some((from, _)) = gone.first() else { return };
        let from = *from;
        let to = self.metrics.items.front().map_or(self.metrics.next, |(seq, _)| *seq);
        for (_, record) in &gone {
            if let Record::Fact(bytes) = record {
                self.metrics.bytes -= bytes.len();
                self.thinned += 1;
            }
        }
        self.metrics.items.push_front((from, Record::Gap(to)));
    }

    fn live_bytes(&self) -> u64 {
        (self.events.bytes + self.metrics.bytes + self.cursor.as_ref().map_or(0, Vec::len)) as u64
    }

    /// Rewrites the file with what is not acknowledged.
    fn compact(&mut self) -> io::Result<()> {
        let Some((path, _)) = &self.file else { return Ok(()) };
        let path = path.clone();
        let first = |q: &Queue| q.items.front().map_or(q.next, |(seq, _)| *seq);
        let base = Base { events: first(&self.events), metrics: first(&self.metrics) };
        let mut bytes = frame(BASE, &serde_json::to_vec(&base).unwrap_or_default());
        for (_, record) in &self.events.items {
            if let Record::Fact(fact) = record {
                bytes.extend(frame(EVENT, fact));
            }
        }
        for (_, record) in &self.metrics.items {
            match record {
                Record::Fact(fact) => bytes.extend(frame(METRIC, fact)),
                Record::Gap(to) => bytes.extend(frame(GAP, &to.to_le_bytes())),
            }
        }
        if let Some(cursor) = &self.cursor {
            bytes.extend(frame(CURSOR, cursor));
        }
        let temporary = path.with_extension("tmp");
        let mut file =
            OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        std::fs::rename(&temporary, &path)?;
        crate::os::sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        self.len = bytes.len() as u64;
        self.file = Some((path, file));
        self.dirty = false;
        Ok(())
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.dirty
            && let Some((_, file)) = &self.file
        {
            file.sync_data()?;
        }
        self.dirty = false;
        Ok(())
    }

    /// The file where something in it is not durable yet: the caller syncs it.
    /// What comes later is not durable with it.
    pub fn unsynced(&mut self) -> Option<File> {
        let (_, file) = self.file.as_ref().filter(|_| self.dirty)?;
        let copy = file.try_clone().ok()?;
        self.dirty = false;
        Some(copy)
    }

    /// Everything of a lane below `next` is durable at the controller.
    pub fn acked(&mut self, lane: Lane, next: u64) {
        let queue = self.lane_mut(lane);
        let ahead = next > queue.next;
        queue.acked(next);
        self.behind |= ahead;
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Events => &mut self.events,
            Lane::Metrics => &mut self.metrics,
        }
    }

    fn lane(&self, lane: Lane) -> &Queue {
        match lane {
            Lane::Events => &self.events,
            Lane::Metrics => &self.metrics,
        }
    }

    /// The record at or covering `from`, with its number and the number after.
    #[must_use]
    pub fn at(&self, lane: Lane, from: u64) -> Option<(u64, &Record, u64)> {
        let queue = self.lane(lane);
        let items = &queue.items;
        let index = items.partition_point(|(seq, _)| *seq < from);
        let hit = match items.get(index) {
            Some((seq, record)) if *seq == from => Some((*seq, record)),
            _ if index > 0 => match &items[index - 1] {
                (seq, record @ Record::Gap(to)) if *to > from => Some((*seq, record)),
                _ => items.get(index).map(|(seq, record)| (*seq, record)),
            },
            other => other.map(|(seq, record)| (*seq, record)),
        }?;
        let after = match hit.1 {
            Record::Fact(_) => hit.0 + 1,
            Record::Gap(to) => *to,
        };
        Some((hit.0, hit.1, after))
    }

    /// The number that the next record of a lane will have.
    #[must_use]
    pub fn next(&self, lane: Lane) -> u64 {
        self.lane(lane).next
    }

    /// Every lifecycle fact still here, encoded.
    pub fn events(&self) -> impl Iterator<Item = &[u8]> {
        self.events.items.iter().filter_map(|(_, record)| match record {
            Record::Fact(bytes) => Some(bytes.as_slice()),
            Record::Gap(_) => None,
        })
    }

    /// The newest cursor.
    #[must_use]
    pub fn cursor(&self) -> Option<&[u8]> {
        self.cursor.as_deref()
    }
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(payload);
    let mut out = Vec::with_capacity(payload.len() + 9);
    out.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(crc.finalize().to_le_bytes());
    out.push(kind);
    out.extend(payload);
    out
}

fn frame_at(bytes: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let head = bytes.get(at..at + 9)?;
    let len = u32::from_le_bytes(head[..4].try_into().ok()?);
    let sum = u32::from_le_bytes(head[4..8].try_into().ok()?);
    if len > FRAME_LIMIT {
        return None;
    }
    let end = at + 9 + len as usize;
    let payload = bytes.get(at + 9..end)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[head[8]]);
    crc.update(payload);
    (crc.finalize() == sum).then_some((head[8], payload, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(outbox: &Outbox, lane: Lane, mut from: u64) -> Vec<(u64, Record)> {
        let mut all = Vec::new();
        while let Some((seq, record, after)) = outbox.at(lane, from) {
            all.push((seq, record.clone()));
            from = after;
        }
        all
    }

    proptest! {
        /// Whatever was added and not acknowledged is there after a crash that
        /// tears the last write anywhere, in order, without a hole.
        #[test]
        fn i12_a_torn_tail_loses_only_the_tail(
            ops in proptest::collection::vec((0u8..3, 0usize..40), 1..60), cut in 0usize..400,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("outbox");
            let mut outbox = Outbox::open(Some(&path)).unwrap();
            for (kind, size) in &ops {
                match kind {
                    0 => outbox.event(|seq| vec![seq as u8; *size]).unwrap(),
                    1 => outbox.metrics(|seq| vec![seq as u8; *size], b"cursor".to_vec()).unwrap(),
                    _ => {
                        let next = outbox.next(Lane::Metrics) / 2;
                        outbox.acked(Lane::Metrics, next);
                    }
                }
            }
            let whole: Vec<Vec<u8>> = outbox.events().map(<[u8]>::to_vec).collect();
            drop(outbox);
            let bytes = std::fs::read(&path).unwrap();
            let keep = bytes.len().saturating_sub(cut);
            std::fs::write(&path, &bytes[..keep]).unwrap();
            let again = Outbox::open(Some(&path)).unwrap();
            let left: Vec<Vec<u8>> = again.events().map(<[u8]>::to_vec).collect();
            prop_assert!(whole.starts_with(&left));
            if cut == 0 { prop_assert_eq!(left, whole); }
            let facts = drain(&again, Lane::Metrics, 0);
            for (index, (seq, _)) in facts.iter().enumerate() {
                prop_assert_eq!(*seq, index as u64);
            }
        }
    }

    #[test]
    fn too_many_metrics_are_thinned_with_a_gap_and_events_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let mut outbox = Outbox::open(Some(&path)).unwrap();
        outbox.event(|_| vec![1]).unwrap();
        for _ in 0..300 {
            outbox.metrics(|_| vec![0; 60_000], Vec::new()).unwrap();
        }
        assert!(outbox.thinned > 0);
        assert!(std::fs::metadata(&path).unwrap().len() < 20 << 20);
        for outbox in [outbox, Outbox::open(Some(&path)).unwrap()] {
            let all = drain(&outbox, Lane::Metrics, 0);
            assert!(matches!(all[0], (0, Record::Gap(_))));
            let mut expected = 0;
            for (seq, record) in &all {
                assert_eq!(*seq, expected);
                expected = if let Record::Gap(to) = record { *to } else { seq + 1 };
            }
            assert_eq!(expected, 300);
            assert_eq!(outbox.events().count(), 1);
        }
    }
}
