//! What a program printed, when that is all there is: `output.log`, redirected
//! output, terminals. The line reader that also watches live runs does the work.
//!
//! Numbers are as exact as they were printed, mostly four digits. A log whose
//! lines name epochs as fractions and no steps has the epoch as a metric.

use crate::Limits;
use crate::LineReader;
use crate::log::{Counts, Metric, Reader, Record, Row, Sink, Value, shown};

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

    /// Reads the last line although it has no end: bars often end without one. Tells
    /// how many steps are planned under the name that settings have for it.
    fn finish(&mut self, sink: &mut dyn Sink) {
        if std::mem::take(&mut self.open) {
            self.lines.finish(&mut self.points);
            self.line(sink);
            self.start = self.counts.bytes;
        }
        if let Some(steps) = self.lines.planned().and_then(|steps| i64::try_from(steps).ok()) {
            let value = Value::Integer(steps);
            sink.record(Record::Summary { path: &["total_steps"], value });
        }
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Collected;

    fn read(text: &str) -> Collected {
        let (mut reader, mut log) = (Console::new(), Collected::default());
        reader.feed(text.as_bytes(), &mut log);
        reader.finish(&mut log);
        log
    }

    #[test]
    fn a_total_beside_a_step_is_the_plan() {
        let planned = |text: &str| read(text).summary.into_values().next();
        assert_eq!(
            planned("step:0/5000 train_loss:9.1 step_avg:100.00ms\nstep:10/5000 train_loss:8.2\n"),
            Some(Value::Integer(5000))
        );
        assert_eq!(planned("Epoch 1 Step [5/10] loss: 0.3\n"), None, "of one epoch");
        assert_eq!(planned(" 50%|#####     | 5/10 [00:05<00:05,  1.00it/s, loss=0.3]\n"), None, "of a bar");
    }

    #[test]
    fn ranks_do_not_share_a_curve() {
        let lines: String = (0..40)
            .map(|i| {
                format!("[rank{}]: step={} loss={}\n", i % 4, i / 4, if i % 4 == 3 { "nan" } else { "1.5" })
            })
            .collect();
        let log = read(&lines);
        let names: Vec<&str> = log.names.iter().collect();
        assert_eq!(names, ["loss", "rank1/loss", "rank2/loss", "rank3/loss"]);
        assert!(log.columns.iter().all(|column| column.values.len() == 10));
        assert!(log.columns[3].values.iter().all(|value| value.is_nan()) && log.columns[0].values[9] == 1.5);
        // One process that alone prints needs no prefix, whatever its rank.
        let last = read("[rank7]: step=1 loss=2\n[rank7]: step=2 loss=1\nstep=3 loss=0.5\n");
        assert_eq!((last.columns.len(), last.columns[0].values.len()), (1, 3));
    }
}
