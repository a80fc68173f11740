//! A judge as the sink of a reader, as `outlast analyze` has it.

use std::time::Duration;

use curves::judge::{Judge, MetricId, Settings};
use curves::log::{Metric, Names, Record, Row, Sink};
use nix::time::{ClockId, clock_gettime};

/// Processor time of this thread, which other work on the computer does not lengthen.
pub(crate) fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    time.unwrap_or_default().as_secs_f64()
}

/// Judges what is read.
pub(crate) struct Judged {
    pub(crate) judge: Judge,
    names: Names,
    ids: Vec<MetricId>,
    pub(crate) values: usize,
}

impl Default for Judged {
    fn default() -> Self {
        Self { judge: Judge::new(Settings::default()), names: Names::default(), ids: Vec::new(), values: 0 }
    }
}

impl Sink for Judged {
    fn metric(&mut self, name: &str) -> Option<Metric> {
        let metric = self.names.intern(name)?;
        if metric.index() >= self.ids.len() {
            self.ids.push(self.judge.metric(name));
        }
        Some(metric)
    }

    fn row(&mut self, row: &Row<'_>) {
        for &(metric, value) in row.values {
            if let Some(id) = self.ids.get(metric.index()) {
                self.judge.point(*id, row.step, row.time, value);
                self.values += 1;
            }
        }
    }

    fn record(&mut self, record: Record<'_>) {
        if let Record::Segment { from } = record {
            self.judge.segment_from(from);
        }
    }
}
