//! A run's rows as they come, out of its files of points.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use curves::format::Outlast;
use curves::log::{Metric, Names, Reader as _, Record, Row, Sink};

/// Bytes of a file that are taken at a time.
const PIECE: u64 = 256 << 10;

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
    read: BTreeMap<String, u64>,
    /// Files before this one were read by who went before.
    first: Option<String>,
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
    /// How far it is: the last file and how much of it was read.
    pub(super) fn place(&self) -> Option<String> {
        self.read.iter().next_back().map(|(name, bytes)| format!("{name}:{bytes}"))
    }

    /// One that goes on from such a place.
    pub(super) fn from(place: &str) -> Option<Self> {
        let (name, bytes) = place.split_once(':')?;
        let read = BTreeMap::from([(name.to_owned(), bytes.parse().ok()?)]);
        Some(Self { read, first: Some(name.to_owned()), taken: Taken::default() })
    }

    /// Reads the next piece of what is new, in whole lines; nothing: there is no more
    /// now. An attempt's points wait until the earlier ones' were read and until it is
    /// known where it goes on.
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
        names.retain(|name| self.first.as_ref().is_none_or(|first| name >= first));
        let known: Vec<String> = names.clone();
        for name in names {
            if let Some(number) = name.strip_suffix("-points.jsonl")
                && number != "00001"
                && !self.read.contains_key(&name)
                && !known.iter().any(|other| *other == format!("{number}-from.jsonl"))
            {
                break;
            }
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
            if !self.taken.more.came.is_empty() {
                break;
            }
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
        let told = |following: &mut Following| -> Vec<Option<u64>> {
            let mut all = Vec::new();
            loop {
                let more = following.read(dir.path()).unwrap();
                if more.came.is_empty() {
                    return all;
                }
                all.extend(steps(&more));
            }
        };
        let mut other = Following::from(&following.place().unwrap()).unwrap();
        assert_eq!(told(&mut following), [Some(3), None, Some(2)]);
        assert_eq!(told(&mut following), []);
        assert_eq!(told(&mut other), [Some(3), None, Some(2)], "who goes on from a place is told the same");
        assert_eq!(told(&mut Following::from(&following.place().unwrap()).unwrap()), []);
    }

    #[test]
    fn an_attempt_waits_until_it_is_known_where_it_goes_on_and_nothing_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let line = |n: u64| format!("{{\"name\":\"loss\",\"step\":{n},\"t\":1000,\"value\":0.5}}\n");
        let many: String = (0..20_000).map(line).collect();
        assert!(many.len() as u64 > 3 * PIECE);
        fs::write(dir.path().join("00001-points.jsonl"), many).unwrap();
        fs::write(dir.path().join("00002-points.jsonl"), line(7)).unwrap();
        let (mut following, mut count) = (Following::default(), 0);
        loop {
            let more = following.read(dir.path()).unwrap();
            if more.came.is_empty() {
                break;
            }
            count += more.values();
        }
        assert_eq!(count, 20_000, "the second attempt waits");
        fs::write(dir.path().join("00002-from.jsonl"), "{\"segment\":{\"from\":7}}\n").unwrap();
        assert_eq!(following.read(dir.path()).unwrap().came, [Came::From(7)]);
        assert_eq!(following.read(dir.path()).unwrap().values(), 1);
    }
}
