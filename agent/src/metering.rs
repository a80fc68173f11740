//! Metrics out of the program's output: bytes in, batches of points out, with
//! a cursor that makes each point be taken exactly once over restarts of the
//! agent.

use curves::{Limits, LineReader, Point};
use proto::v1;
use serde::{Deserialize, Serialize};

/// Points in one batch at most; more wait for the next.
const BATCH: usize = 500;

/// How far an output was read, and what its reader remembers.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Source {
    offset: u64,
    reader: LineReader,
}

/// Reads metrics of both outputs of one attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Metering {
    stdout: Source,
    stderr: Source,
    #[serde(skip)]
    points: Vec<Point>,
    /// The newest step when the last batch was made.
    #[serde(default)]
    told: Option<u64>,
}

impl Metering {
    /// From the newest cursor, or from the start.
    #[must_use]
    pub fn restore(cursor: Option<&[u8]>) -> Self {
        let fresh = || Source { offset: 0, reader: LineReader::new(Limits::default()) };
        cursor.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_else(|| Self {
            stdout: fresh(),
            stderr: fresh(),
            points: Vec::new(),
            told: None,
        })
    }

    /// The cursor now.
    #[must_use]
    pub fn cursor(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn source(&mut self, stderr: bool) -> &mut Source {
        if stderr { &mut self.stderr } else { &mut self.stdout }
    }

    /// Where reading goes on.
    #[must_use]
    pub fn offset(&self, stderr: bool) -> u64 {
        if stderr { self.stderr.offset } else { self.stdout.offset }
    }

    /// Takes bytes that begin at [`Metering::offset`].
    pub fn feed(&mut self, stderr: bool, bytes: &[u8]) {
        let mut points = std::mem::take(&mut self.points);
        let source = self.source(stderr);
        source.reader.feed(bytes, &mut points);
        source.offset += bytes.len() as u64;
        self.points = points;
    }

    /// Bytes were dropped: reading goes on after them.
    pub fn skip(&mut self, stderr: bool, to: u64) {
        self.source(stderr).offset = to;
    }

    /// The program has ended: a last line without a newline counts too.
    pub fn finish(&mut self) {
        let mut points = std::mem::take(&mut self.points);
        self.stdout.reader.finish(&mut points);
        self.stderr.reader.finish(&mut points);
        self.points = points;
    }

    /// What was read since the last batch, in batches: points, and the step
    /// where it was reported without any.
    pub fn take(&mut self) -> Vec<v1::Points> {
        let points = std::mem::take(&mut self.points);
        let last = points.last().and_then(|point| point.step);
        let mut batches: Vec<v1::Points> = points
            .chunks(BATCH)
            .map(|part| v1::Points {
                points: part
                    .iter()
                    .map(|p| v1::Point { name: p.name.clone(), step: p.step, value: p.value })
                    .collect(),
                step: None,
            })
            .collect();
        let step = self.step();
        if step.is_some() && step != std::mem::replace(&mut self.told, step) && step != last {
            match batches.last_mut() {
                Some(last) => last.step = step,
                None => batches.push(v1::Points { points: Vec::new(), step }),
            }
        }
        batches
    }

    /// Values left out because their metric's name was one too many.
    #[must_use]
    pub fn dropped_names(&self) -> u64 {
        self.stdout.reader.dropped_names() + self.stderr.reader.dropped_names()
    }

    /// The step the program last reported.
    #[must_use]
    pub fn step(&self) -> Option<u64> {
        self.stdout.reader.step().or_else(|| self.stderr.reader.step())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(metering: &mut Metering, stderr: bool, text: &str) -> Vec<(Vec<Option<u64>>, Option<u64>)> {
        metering.feed(stderr, text.as_bytes());
        let batches = metering.take();
        batches.into_iter().map(|b| (b.points.iter().map(|p| p.step).collect(), b.step)).collect()
    }

    #[test]
    fn a_line_with_a_step_and_nothing_else_is_progress_and_no_metric() {
        let mut metering = Metering::restore(None);
        for (text, step) in [
            ("step=12\n", 12),
            ("{\"step\": 13}\n", 13),
            ("step 14\n", 14),
            ("Step: 15\n", 15),
            ("[rank0]: global_step = 16\n", 16),
            ("{'step': 17}\n", 17),
            ("step 18/200\n", 18),
            ("Iteration [19/200]\n", 19),
        ] {
            assert_eq!(told(&mut metering, false, text), [(vec![], Some(step))], "{text}");
            assert_eq!(metering.step(), Some(step), "{text}");
        }
        assert_eq!(told(&mut metering, false, "step=19\nloading\n"), [], "no news");
        assert_eq!(told(&mut metering, false, "the next step is 20 or so\n"), [], "prose");
        // Where a point has it, it is not said twice.
        assert_eq!(told(&mut metering, false, "step=20 loss=1\n"), [(vec![Some(20)], None)]);
        assert_eq!(told(&mut metering, false, "step=21 loss=1\nstep=22\n"), [(vec![Some(21)], Some(22))]);
        // The next process of the agent goes on from there.
        let mut metering = Metering::restore(Some(&metering.cursor()));
        assert_eq!(told(&mut metering, false, "loading\n"), []);
        assert_eq!(told(&mut metering, false, "step=23\n"), [(vec![], Some(23))]);
    }
}
