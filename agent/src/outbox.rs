//! Facts that the controller has not acknowledged: numbered, on disk, bounded.
//! One file per attempt, append-only frames of length, CRC-32, kind and
//! payload; a torn tail is cut at the start. Lifecycle facts are made durable
//! at once and never thinned; metric batches are written at once, synced within
//! a second, and the oldest give way, leaving a gap that says so. Whoever adds
//! a fact never waits for the disk; nothing is [`Outbox::ready`] to be sent
//! before the disk has it, or has refused it in so many words.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod disk;
mod pen;

pub use disk::{Disk, Files};
use pen::{Given, Order, Write};
pub use pen::{Pen, Settled, Upto};

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

/// Where an outbox is kept.
#[derive(Debug)]
struct Place {
    attempt: Arc<str>,
    path: Arc<Path>,
    pen: Pen,
}

/// The outbox of one attempt.
#[derive(Debug)]
pub struct Outbox {
    place: Option<Place>,
    /// Bytes of the file, with what waits for the disk.
    len: u64,
    /// Something is to be synced.
    dirty: bool,
    /// The file lacks records that memory has, or holds too much: it is written
    /// anew as soon as nothing waits for the disk.
    behind: bool,
    /// Orders whose answers have not come.
    waiting: u32,
    /// What the disk has, or has refused.
    ready: Upto,
    events: Queue,
    metrics: Queue,
    /// The newest cursor, opaque to the outbox.
    cursor: Option<Vec<u8>>,
    /// Metric batches thinned away since the start.
    pub thinned: u64,
}

impl Outbox {
    /// Opens an attempt's outbox, in memory where `path` is `None`. What it
    /// finds is ready once the disk says that it has it.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn open(attempt: &str, path: Option<&Path>, pen: Pen) -> io::Result<Self> {
        let mut this = Self {
            place: None,
            len: 0,
            dirty: false,
            behind: false,
            waiting: 0,
            ready: Upto::default(),
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
            this.len = this.replay(&bytes);
            file.set_len(this.len)?;
            this.place = Some(Place { attempt: attempt.into(), path: path.into(), pen });
            this.dirty = this.len > 0;
            this.sync();
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

    fn upto(&self) -> Upto {
        Upto { events: self.events.next, metrics: self.metrics.next }
    }

    /// Has something done to the file. `false`: too much waits already.
    fn order(&mut self, write: Write) -> bool {
        let upto = self.upto();
        let Some(Place { attempt, path, pen }) = &self.place else { return true };
        let order = Order { attempt: attempt.clone(), path: path.clone(), write, upto };
        match pen.give(order) {
            Given::Waits => self.waiting += 1,
            Given::Settled(settled) => {
                self.waiting += 1;
                self.settled(&settled);
            }
            Given::Full => return false,
        }
        true
    }

    fn append(&mut self, frames: Vec<u8>, sync: bool) {
        if self.place.is_none() {
            self.ready = self.upto();
        } else if self.behind {
            // Numbers follow from the order in the file, so a record that is
            // missing there must not be passed over. The queues have it.
            self.catch_up();
        } else {
            self.len += frames.len() as u64;
            self.dirty = !sync;
            self.behind = !self.order(Write::Append(frames, sync)) || self.behind;
        }
    }

    /// Adds a lifecycle fact.
    pub fn event(&mut self, encode: impl FnOnce(u64) -> Vec<u8>) {
        let fact = encode(self.events.next);
        let frames = frame(EVENT, &fact);
        self.events.push(Record::Fact(fact));
        self.append(frames, true);
    }

    /// Adds a metric batch together with the cursor up to which its source was
    /// read: both or neither survive a crash.
    pub fn metrics(&mut self, encode: impl FnOnce(u64) -> Vec<u8>, cursor: Vec<u8>) {
        let fact = encode(self.metrics.next);
        let mut frames = frame(METRIC, &fact);
        frames.extend(frame(CURSOR, &cursor));
        self.metrics.push(Record::Fact(fact));
        self.cursor = Some(cursor);
        self.append(frames, false);
        let thins = self.metrics.bytes > METRICS_LIMIT;
        if thins {
            self.thin();
        }
        if thins || (self.len > COMPACT_AT && self.len > 2 * self.live_bytes()) {
            self.behind |= self.place.is_some();
            self.catch_up();
        }
    }

    /// Takes the disk's answer to one order.
    pub fn settled(&mut self, settled: &Settled) {
        self.waiting = self.waiting.saturating_sub(1);
        self.ready.events = self.ready.events.max(settled.upto.events);
        self.ready.metrics = self.ready.metrics.max(settled.upto.metrics);
        if let Some(error) = &settled.refused {
            // Not again at once: the next record, or the next second, tries.
            self.behind = true;
            tracing::error!(%error, attempt = &*settled.attempt, "facts could not be made durable; they are kept in memory");
        } else {
            self.catch_up();
        }
    }

    /// Writes the file anew where it must be and nothing waits for the disk.
    pub fn catch_up(&mut self) {
        let room = |place: &Place| place.pen.has_room(self.live_bytes());
        if !self.behind || self.waiting > 0 || !self.place.as_ref().is_some_and(room) {
            return;
        }
        let bytes = self.image();
        self.len = bytes.len() as u64;
        self.dirty = false;
        self.behind = false;
        self.behind = !self.order(Write::Replace(bytes)) || self.behind;
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

    /// The file with nothing but what is not acknowledged.
    fn image(&self) -> Vec<u8> {
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
        bytes
    }

    /// Has everything added so far made durable.
    pub fn sync(&mut self) {
        // A file that is behind lacks records: a sync would settle them as if
        // it had them. It is written anew instead, and durably.
        if self.dirty && !self.behind {
            self.dirty = !self.order(Write::Sync);
        }
    }

    /// Whether answers of the disk are still to come.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Everything of a lane below `next` is durable at the controller.
    pub fn acked(&mut self, lane: Lane, next: u64) {
        let queue = self.lane_mut(lane);
        let ahead = next > queue.next;
        queue.acked(next);
        self.behind |= ahead && self.place.is_some();
        match lane {
            Lane::Events => self.ready.events = self.ready.events.max(next),
            Lane::Metrics => self.ready.metrics = self.ready.metrics.max(next),
        }
    }

    /// Records of a lane below this number may be sent.
    #[must_use]
    pub fn ready(&self, lane: Lane) -> u64 {
        match lane {
            Lane::Events => self.ready.events,
            Lane::Metrics => self.ready.metrics,
        }
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

impl Drop for Outbox {
    fn drop(&mut self) {
        // Where it does not fit, the thread keeps a file open for longer.
        self.order(Write::Close);
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
mod tests;
