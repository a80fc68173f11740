//! A run's rows as they come, out of its files of points.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use curves::format::Outlast;
use curves::log::{Metric, Names, Reader as _, Record, Row, Sink};

/// Bytes of one file that are taken at a time.
const PIECE: u64 = 8 << 20;

/// Values of one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Values {
    pub(super) step: u64,
    /// Seconds since 1970.
    pub(super) time: f64,
    pub(super) values: Vec<(String, f64)>,
}

/// What came, in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Came {
    /// A row.
    Values(Values),
    /// The run went on from this step on; what it did there before is void.
    From(u64),
}

/// What came since the last look.
#[derive(Debug, Default)]
pub(super) struct More {
    pub(super) came: Vec<Came>,
}

impl More {
    pub(super) fn values(&self) -> u64 {
        let of = |came: &Came| if let Came::Values(row) = came { row.values.len() as u64 } else { 0 };
        self.came.iter().map(of).sum()
    }
}

/// How far the files were read.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// Bytes by file.
    pub(super) read: BTreeMap<String, u64>,
    taken: Taken,
}

#[derive(Debug, Default)]
struct Taken {
    names: Names,
    step: u64,
    more: More,
}

impl Sink for Taken {
    fn metric(&mut self, name: &str) -> Option<Metric> {
        self.names.intern(name)
    }

    fn row(&mut self, row: &Row<'_>) {
        // A value without a step goes with the newest one.
        self.step = row.step.unwrap_or(self.step);
        let values = row.values.iter().map(|(metric, value)| (self.names.name(*metric).to_owned(), *value));
        let row = Values { step: self.step, time: row.time.unwrap_or(0.0), values: values.collect() };
        self.more.came.push(Came::Values(row));
    }

    fn record(&mut self, record: Record<'_>) {
        if let Record::Segment { from: Some(from) } = record {
            self.more.came.push(Came::From(from));
        }
    }
}

impl Following {
    /// Reads what is new in whole lines, at most [`PIECE`] of each file.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub(super) fn read(&mut self, dir: &Path) -> io::Result<More> {
        let mut names: Vec<String> = fs::read_dir(dir)?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.ends_with("-points.jsonl") || name.ends_with("-from.jsonl"))
            .collect();
        names.sort();
        for name in names {
            let at = self.read.get(&name).copied().unwrap_or(0);
            let mut file = fs::File::open(dir.join(&name))?;
            file.seek(SeekFrom::Start(at))?;
            let mut bytes = Vec::new();
            file.take(PIECE).read_to_end(&mut bytes)?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if whole == 0 {
                continue;
            }
            // Where an attempt goes on is written anew at each look; it is told once.
            if at == 0 || name.ends_with("-points.jsonl") {
                let mut reader = Outlast::new();
                reader.feed(bytes.get(..whole).unwrap_or_default(), &mut self.taken);
                reader.finish(&mut self.taken);
            }
            self.read.insert(name, at + whole as u64);
        }
        Ok(std::mem::take(&mut self.taken.more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_told_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let points = |n: u64| format!("{{\"name\":\"loss\",\"step\":{n},\"t\":1000,\"value\":0.5}}\n");
        fs::write(dir.path().join("00001-points.jsonl"), points(1) + &points(2) + "{\"name\":\"lo").unwrap();
        let mut following = Following::default();
        let steps = |more: &More| -> Vec<Option<u64>> {
            let of = |came: &Came| if let Came::Values(row) = came { Some(row.step) } else { None };
            more.came.iter().map(of).collect()
        };
        assert_eq!(steps(&following.read(dir.path()).unwrap()), [Some(1), Some(2)]);
        assert_eq!(steps(&following.read(dir.path()).unwrap()), []);
        fs::write(dir.path().join("00001-points.jsonl"), points(1) + &points(2) + &points(3)).unwrap();
        fs::write(dir.path().join("00002-from.jsonl"), "{\"segment\":{\"from\":2}}\n").unwrap();
        fs::write(dir.path().join("00002-points.jsonl"), points(2)).unwrap();
        assert_eq!(steps(&following.read(dir.path()).unwrap()), [Some(3), None, Some(2)]);
        assert_eq!(steps(&following.read(dir.path()).unwrap()), []);
    }
}
