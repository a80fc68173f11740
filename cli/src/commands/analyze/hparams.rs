//! Hyperparameters that `add_hparams` writes to a directory of its own, below that of
//! the run whose they are.
//!
//! A directory with nothing else is part of the run above it: its settings become that
//! run's, its single values what the run says of itself at its end. Where several such
//! directories differ in their settings they are trials of a search, and stay runs.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use curves::format::{Format, TensorBoard};
use curves::log::{Collected, Counts, Metric, Names, Reader, Record, Row, Sink, Value};

use super::find::{self, Found, Inside, Part, Source};

/// A longer file holds more than that.
const MOST: u64 = 1 << 20;

/// The settings of a run by their paths.
type Settings = BTreeMap<Vec<String>, Value>;

/// Joins what was found from the `from`th run on.
pub(super) fn join(found: &mut Found, from: usize) {
    let tail = found.sources.get(from..).unwrap_or_default();
    let mut below: BTreeMap<PathBuf, Vec<(PathBuf, Settings)>> = BTreeMap::new();
    for source in tail.iter().filter(|source| source.format == Format::TensorBoard) {
        let above = source.path.parent().unwrap_or(Path::new(""));
        let is_run = |other: &Source| other.format == Format::TensorBoard && other.path == above;
        if !tail.iter().any(is_run) {
            continue;
        }
        if let Some(settings) = session(source) {
            below.entry(above.to_owned()).or_default().push((source.path.clone(), settings));
        }
    }
    for (above, sessions) in below {
        let Some((_, first)) = sessions.first() else { continue };
        if sessions.iter().any(|(_, settings)| settings != first) {
            continue;
        }
        let mut parts = Vec::new();
        found.sources.retain(|source| {
            let is_session = sessions.iter().any(|(path, _)| *path == source.path);
            if is_session {
                let part = |part: &Part| Part { inside: Inside::Hparams, ..part.clone() };
                parts.extend(source.parts.iter().map(part));
            }
            !is_session
        });
        if let Some(run) = found.sources.iter_mut().find(|source| source.path == above) {
            // What a session says of its start must void nothing of the run.
            parts.append(&mut run.parts);
            run.parts = parts;
        }
    }
}

/// The settings in a run that consists of one session of hyperparameters.
fn session(source: &Source) -> Option<Settings> {
    let [part] = source.parts.as_slice() else { return None };
    let file = find::open(part.file()).ok().filter(|_| part.inside == Inside::Bytes)?;
    if file.metadata().ok()?.len() > MOST {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    let (mut reader, mut log) = (TensorBoard::new(), Collected::default());
    reader.feed(&bytes, &mut log);
    let single = log.columns.iter().all(|column| column.values.len() <= 1);
    (single && log.others.is_empty() && !log.config.is_empty()).then_some(log.config)
}

/// Reads such a session as a part of the run above it.
#[derive(Debug, Default)]
pub(super) struct Session {
    events: TensorBoard,
    names: Names,
}

impl Reader for Session {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        self.events.feed(bytes, &mut Beside { sink, names: &mut self.names });
    }

    fn finish(&mut self, sink: &mut dyn Sink) {
        self.events.finish(&mut Beside { sink, names: &mut self.names });
    }

    fn counts(&self) -> &Counts {
        self.events.counts()
    }
}

/// Lets through what belongs to the run above. Its status does not: it was written
/// together with the settings, whenever that was.
struct Beside<'a> {
    sink: &'a mut dyn Sink,
    names: &'a mut Names,
}

impl Sink for Beside<'_> {
    fn metric(&mut self, name: &str) -> Option<Metric> {
        self.names.intern(name)
    }

    fn row(&mut self, row: &Row<'_>) {
        for &(metric, value) in row.values {
            let path = &[self.names.name(metric)][..];
            self.sink.record(Record::Summary { path, value: Value::Float(value) });
        }
    }

    fn record(&mut self, record: Record<'_>) {
        if matches!(record, Record::Config { .. }) {
            self.sink.record(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// An event of some bytes, framed with its checksums.
    fn frame(event: &[u8]) -> Vec<u8> {
        let masked = |bytes: &[u8]| {
            // CRC-32C bit by bit.
            let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
                let step = |crc: u32, _| (crc >> 1) ^ (if crc & 1 == 1 { 0x82f6_3b78 } else { 0 });
                (0..8).fold(crc ^ u32::from(*byte), step)
            });
            (!crc).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
        };
        let length = (event.len() as u64).to_le_bytes();
        [&length[..], &masked(&length), event, &masked(event)].concat()
    }

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).expect("short")][..], bytes].concat()
    }

    fn scalar(step: u8, tag: &str, value: f32) -> Vec<u8> {
        let value = [field(1, tag.as_bytes()), vec![2 << 3 | 5], value.to_le_bytes().to_vec()].concat();
        frame(&[vec![2 << 3, step], field(5, &field(1, &value))].concat())
    }

    /// `session_start_info` with one hyperparameter.
    fn hparam(name: &str, value: f64) -> Vec<u8> {
        let number = [vec![2 << 3 | 1], value.to_le_bytes().to_vec()].concat();
        let entry = [field(1, name.as_bytes()), field(2, &number)].concat();
        let content = field(3, &field(1, &entry));
        let metadata = field(1, &[field(1, b"hparams"), field(2, &content)].concat());
        let value = [field(1, b"_hparams_/session_start_info"), field(9, &metadata)].concat();
        frame(&field(5, &field(1, &value)))
    }

    fn found(dirs: &[(&str, Vec<u8>)]) -> (Vec<(String, usize)>, Collected) {
        let root = tempfile::tempdir().expect("a directory");
        for (dir, bytes) in dirs {
            let dir = root.path().join(dir);
            fs::create_dir_all(&dir).expect("a directory");
            fs::write(dir.join("events.out.tfevents.1.host"), bytes).expect("a file");
        }
        let mut found = Found::new(None);
        found.add(root.path()).expect("a directory");
        let shown = |source: &Source| {
            let below = source.path.strip_prefix(root.path()).expect("below");
            (below.to_string_lossy().into_owned(), source.parts.len())
        };
        let mut log = Collected::default();
        super::super::read::parts(&found.sources[0], &Default::default(), &mut log);
        (found.sources.iter().map(shown).collect(), log)
    }

    #[test]
    fn settings_belong_to_the_run_above() {
        let course = || [scalar(7, "loss", 0.5), scalar(8, "loss", 0.25)].concat();
        let session = |lr: f64| [hparam("lr", lr), scalar(0, "hparam/loss", 0.25)].concat();
        let (runs, log) = found(&[("a", course()), ("a/1.5", session(0.5)), ("a/2.5", session(0.5))]);
        assert_eq!(runs, [("a".to_owned(), 3)]);
        assert_eq!(log.config.get(&vec!["lr".to_owned()]).and_then(Value::number), Some(0.5));
        assert_eq!(log.summary.get(&vec!["hparam/loss".to_owned()]), Some(&Value::Float(0.25)));
        let steps: Vec<_> = log.column("loss").expect("a loss").pairs().collect();
        assert_eq!(steps, [(Some(7), 0.5), (Some(8), 0.25)]);
        assert!(log.column("hparam/loss").is_none());
        // Trials of a search, and runs that have a course of their own.
        let (runs, _) = found(&[("a", course()), ("a/1", session(0.5)), ("a/2", session(0.1))]);
        assert_eq!(runs.len(), 3);
        let both = [session(0.5), course()].concat();
        assert_eq!(found(&[("a", course()), ("a/1", both)]).0.len(), 2);
        assert_eq!(found(&[("a", session(0.5)), ("b", course())]).0.len(), 2);
    }
}
