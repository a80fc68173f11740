//! Weights & Biases' own file of a run, `run-<id>.wandb`: all that a run logged,
//! also when nothing of it was ever sent.
//!
//! Read by field numbers, from the files of versions 0.13 to 0.31: the older
//! ones keep a metric's name in one field, the newer in another. Half of a new
//! file are summaries after every step, of which only the last value of each
//! key is kept. A killed run's file ends in the middle of a record and has no
//! exit; a live one grows by whole blocks, seconds after the fact.

mod about;
mod cloud;
mod history;
mod summary;

use super::leveldb_log::{BlockLog, Check};
use super::protobuf::{self, Fields};
use crate::log::{Counts, Reader, Record, Sink, Stream};
use about::About;
pub(super) use about::emit;
pub use cloud::WandbCloud;
use history::History;
use summary::Summaries;

/// `:W&B`, a mark and version 0.
const HEADER: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];

/// A longer line of output is cut.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// Reads one `.wandb` file.
#[derive(Debug)]
pub struct Wandb {
    /// As much of the file's header as has come.
    header: Vec<u8>,
    log: BlockLog,
    records: Records,
    counts: Counts,
}

#[derive(Debug)]
struct Records {
    history: History,
    summaries: Summaries,
    about: About,
    /// Unfinished lines of standard error and standard output.
    output: [Vec<u8>; 2],
}

impl Wandb {
    /// A reader of the only or the first file of a run.
    #[must_use]
    pub fn new() -> Self {
        Self::part(false)
    }

    /// A reader of a further file of a run that was resumed: its first row
    /// begins a segment, as of what both parts logged the later counts.
    #[must_use]
    pub fn resumed() -> Self {
        Self::part(true)
    }

    fn part(resumed: bool) -> Self {
        Self {
            header: Vec::new(),
            log: BlockLog::new(Check::Crc32, HEADER.len() as u64),
            records: Records {
                history: History::new(resumed),
                summaries: Summaries::default(),
                about: About::default(),
                output: [Vec::new(), Vec::new()],
            },
            counts: Counts::default(),
        }
    }

    /// The same, but this key counts steps, as in [`super::Schema::step`]: rows without
    /// it go with the newest that had it.
    #[must_use]
    pub fn counting(mut self, key: Option<&str>) -> Self {
        self.records.history.count_by(key);
        self
    }

    /// The identifier of the run, as soon as it was read. Files with the same
    /// one are parts of one run.
    #[must_use]
    pub fn run_id(&self) -> Option<&str> {
        self.records.about.run_id()
    }
}

impl Default for Wandb {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader for Wandb {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        self.counts.bytes += bytes.len() as u64;
        let missing = (HEADER.len() - self.header.len()).min(bytes.len());
        let (header, rest) = bytes.split_at(missing);
        self.header.extend_from_slice(header);
        if missing > 0 && self.header.len() == HEADER.len() && self.header != HEADER {
            // Every chunk has its checksum: try all the same.
            self.counts.corrupt.hit(0);
        }
        let records = &mut self.records;
        self.log.feed(rest, &mut self.counts, |at, record, counts| records.take(at, record, counts, sink));
    }

    fn finish(&mut self, sink: &mut dyn Sink) {
        let records = &mut self.records;
        self.log.finish(&mut self.counts, |at, record, counts| records.take(at, record, counts, sink));
        self.records.history.settle(sink);
        self.records.end_output(sink);
        self.records.summaries.push(sink);
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// What record a field of the outermost message holds. Numbers from
/// `wandb_internal.proto` of 0.31.0, as files of 0.13 to 0.31 have them.
mod kind {
    pub(super) const HISTORY: u64 = 2;
    pub(super) const SUMMARY: u64 = 3;
    pub(super) const CONFIG: u64 = 5;
    pub(super) const STATS: u64 = 7;
    pub(super) const ALERT: u64 = 10;
    pub(super) const METRIC: u64 = 12;
    pub(super) const OUTPUT_RAW: u64 = 13;
    pub(super) const RUN: u64 = 17;
    pub(super) const EXIT: u64 = 18;
    pub(super) const HEADER: u64 = 21;
    pub(super) const ENVIRONMENT: u64 = 26;
    /// Number, control, identifier, origin: no records.
    pub(super) const ASIDE: [u64; 4] = [1, 16, 19, 200];
    /// Output, files, artifacts, telemetry and the like: nothing for curves.
    pub(super) const LEFT_OUT: [u64; 11] = [4, 6, 8, 9, 11, 20, 22, 23, 24, 25, 27];
}

impl Records {
    fn take(&mut self, at: u64, record: &[u8], counts: &mut Counts, sink: &mut dyn Sink) {
        counts.records += 1;
        let mut fields = Fields::new(record);
        for (field, wire) in &mut fields {
            let message = wire.bytes();
            match field {
                kind::HISTORY => match self.history.row(message, sink) {
                    Some(dropped) => counts.dropped.add(dropped, at),
                    None => counts.corrupt.hit(at),
                },
                kind::SUMMARY => counts.dropped.add(self.summaries.update(message), at),
                kind::CONFIG => about::config(message, sink),
                kind::STATS => about::stats(message, sink),
                kind::ALERT => about::alert(message, sink),
                kind::METRIC => {
                    self.history.metric(message);
                    about::metric(message, sink);
                }
                kind::OUTPUT_RAW => self.output(message, sink),
                kind::RUN => self.about.run(message, &mut self.summaries, &mut self.history, sink),
                kind::EXIT => {
                    self.history.settle(sink);
                    let code = Fields::new(message).find(|(field, _)| *field == 1);
                    sink.record(Record::Exit { code: code.map_or(0, |(_, wire)| wire.number() as i32) });
                }
                kind::HEADER => about::header(message, sink),
                kind::ENVIRONMENT => about::environment(message, sink),
                _ if kind::ASIDE.contains(&field) => {}
                _ if kind::LEFT_OUT.contains(&field) || field == 100 => counts.aside.hit(at),
                _ => counts.unknown.hit(at),
            }
        }
        if fields.is_broken() {
            counts.corrupt.hit(at);
        }
    }

    /// Output comes in pieces whose line ends are pieces of their own. Of a line
    /// that was drawn anew, as progress bars are, the last form is kept.
    fn output(&mut self, message: &[u8], sink: &mut dyn Sink) {
        let mut out = 0;
        let mut text: &[u8] = &[];
        for (field, wire) in Fields::new(message) {
            match field {
                1 => out = usize::from(wire.number() == 1),
                3 => text = wire.bytes(),
                _ => {}
            }
        }
        let mut pieces = text.split(|&b| b == b'\n');
        if let Some(first) = pieces.next() {
            self.extend_output(out, first);
        }
        for piece in pieces {
            self.end_line(out, sink);
            self.extend_output(out, piece);
        }
    }

    fn extend_output(&mut self, out: usize, piece: &[u8]) {
        let room = MAX_OUTPUT_BYTES.saturating_sub(self.output[out].len());
        self.output[out].extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn end_line(&mut self, out: usize, sink: &mut dyn Sink) {
        let line = std::mem::take(&mut self.output[out]);
        let drawn = line.rsplit(|&b| b == b'\r').find(|part| !part.is_empty()).unwrap_or(&[]);
        let stream = if out == 1 { Stream::Out } else { Stream::Err };
        sink.record(Record::Output { stream, text: &String::from_utf8_lossy(drawn) });
    }

    fn end_output(&mut self, sink: &mut dyn Sink) {
        for out in [0, 1] {
            if !self.output[out].is_empty() {
                self.end_line(out, sink);
            }
        }
    }
}

/// A key and its value as JSON, as history, summary and configuration have them.
struct Item<'a> {
    parts: [&'a [u8]; MAX_PARTS],
    count: usize,
    json: &'a [u8],
    /// A number that is not written as JSON.
    number: Option<f64>,
}

/// Keys nested deeper are not read.
const MAX_PARTS: usize = 16;

impl<'a> Item<'a> {
    /// `None` when the message is broken or the key too deep.
    #[inline]
    fn new(message: &'a [u8]) -> Option<Self> {
        let mut item = Self { parts: [&[]; MAX_PARTS], count: 0, json: &[], number: None };
        let mut fields = Fields::new(message);
        for (field, wire) in &mut fields {
            match field {
                1 | 2 => {
                    *item.parts.get_mut(item.count)? = wire.bytes();
                    item.count += 1;
                }
                5 => item.number = Some(protobuf::zigzag(wire.number()) as f64),
                6 => item.number = wire.double(),
                8 | 16 => item.json = wire.bytes(),
                _ => {}
            }
        }
        (!fields.is_broken() && item.count > 0).then_some(item)
    }

    fn path(&self) -> &[&'a [u8]] {
        &self.parts[..self.count]
    }
}
