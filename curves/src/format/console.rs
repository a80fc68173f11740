//! What a program printed, when that is all there is: `output.log`, redirected
//! output, terminals. The line reader that also watches live runs does the work.
//!
//! Numbers are as exact as they were printed, mostly four digits. A log whose
//! lines name epochs as fractions and no steps has the epoch as a metric.

use crate::Limits;
use crate::LineReader;
use crate::log::{Counts, Metric, Reader, Row, Sink, shown};

/// The most metrics that lines of text may name: names come out of prose.
const MAX_NAMES: u32 = 1000;

/// Reads console output.
#[derive(Debug)]
pub struct Console {
    lines: LineReader,
    points: Vec<crate::Point>,
    values: Vec<(Metric, f64)>,
    counts: Counts,
    /// Whether a line is unfinished, and where it begins.
    open: bool,
    start: u64,
}

impl Console {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            lines: LineReader::new(Limits { max_names: MAX_NAMES }),
            points: Vec::new(),
            values: Vec::new(),
            counts: Counts::default(),
            open: false,
            start: 0,
        }
    }

    /// Position and planned total: see [`LineReader::progress`].
    #[must_use]
    pub fn progress(&self) -> Option<(u64, u64)> {
        self.lines.progress()
    }

    fn line(&mut self, sink: &mut dyn Sink) {
        let skipped = self.lines.skipped_lines() - self.counts.skipped.count;
        self.counts.skipped.add(skipped, self.start);
        let dropped = self.lines.dropped_names().saturating_sub(self.counts.dropped.count);
        self.counts.dropped.add(dropped, self.start);
        let Some(step) = self.points.first().map(|point| point.step) else { return };
        self.counts.records += 1;
        self.values.clear();
        for point in self.points.drain(..) {
            match sink.metric(&shown(&point.name)) {
                Some(metric) => self.values.push((metric, point.value)),
                None => self.counts.dropped.hit(self.start),
            }
        }
        let epoch = self.lines.epoch().filter(|epoch| step.is_none_or(|step| step as f64 != *epoch));
        if let Some((epoch, metric)) = epoch.and_then(|epoch| Some((epoch, sink.metric("epoch")?))) {
            self.values.push((metric, epoch));
        }
        sink.row(&Row { step, time: None, values: &self.values });
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader for Console {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let base = self.counts.bytes;
        self.counts.bytes += bytes.len() as u64;
        let mut from = 0;
        for end in memchr::memchr3_iter(b'\n', b'\r', 8, bytes) {
            self.lines.feed(&bytes[from..=end], &mut self.points);
            self.line(sink);
            from = end + 1;
            (self.open, self.start) = (false, base + from as u64);
        }
        let rest = &bytes[from..];
        self.open |= !rest.is_empty();
        self.lines.feed(rest, &mut self.points);
    }

    /// Reads the last line although it has no end: bars often end without one.
    fn finish(&mut self, sink: &mut dyn Sink) {
        if std::mem::take(&mut self.open) {
            self.lines.finish(&mut self.points);
            self.line(sink);
            self.start = self.counts.bytes;
        }
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}
