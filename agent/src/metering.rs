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

    /// The points read since the last batch, in batches.
    pub fn take(&mut self) -> Vec<v1::Points> {
        let points = std::mem::take(&mut self.points);
        points
            .chunks(BATCH)
            .map(|part| v1::Points {
                points: part
                    .iter()
                    .map(|p| v1::Point { name: p.name.clone(), step: p.step, value: p.value })
                    .collect(),
            })
            .collect()
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
