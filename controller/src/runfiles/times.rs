//! When a log was written: `stdout.times.jsonl` beside `stdout.log`, lines of
//! an offset and the machine's unix milliseconds at which the byte there was
//! read from the program. For display only: never synced, no part of any
//! transaction. What a crash leaves of it is repaired when it is next read;
//! bytes that come again bring nothing new. It stays below [`MOST`] bytes
//! however long the log: marks that stand close together go first.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Between two marks, in milliseconds; more between old ones where there are many.
const LEAST_APART: u64 = 100;
/// Bytes of the file at most.
const MOST: usize = 64 << 10;
/// Indexes held in memory; the others are read again when they are asked for.
const HELD: usize = 64;

/// From this offset on, what was written was read at this time or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Offset in the log.
    pub offset: u64,
    /// Unix milliseconds by the machine's clock.
    pub at_ms: u64,
    /// What follows up to the next mark was read within so many milliseconds.
    #[serde(default = "least_apart", skip_serializing_if = "is_least_apart")]
    pub within_ms: u64,
}

fn least_apart() -> u64 {
    LEAST_APART
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_least_apart(ms: &u64) -> bool {
    *ms == LEAST_APART
}

impl Mark {
    fn line(self) -> String {
        let mut text = serde_json::to_string(&self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// The marks of one log, in the order of their offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Times {
    marks: Vec<Mark>,
    len: usize,
}

impl Times {
    /// When the byte at `offset` was read; 0 is unknown.
    #[must_use]
    pub fn of(&self, offset: u64) -> u64 {
        let after = self.marks.partition_point(|m| m.offset <= offset);
        after.checked_sub(1).and_then(|at| self.marks.get(at)).map_or(0, |m| m.at_ms)
    }

    /// Where the next mark after `offset` stands.
    #[must_use]
    pub fn next_after(&self, offset: u64) -> Option<u64> {
        self.marks.get(self.marks.partition_point(|m| m.offset <= offset)).map(|m| m.offset)
    }

    /// Where what was read at or after `since_ms` begins, of a log that ends at
    /// `end`; 0 where no time is known at all.
    #[must_use]
    pub fn since(&self, since_ms: u64, end: u64) -> u64 {
        if self.marks.is_empty() {
            return 0;
        }
        // A mark speaks for what came until the next one: the last mark before
        // the moment may cover bytes after it, if it is close.
        let late = self.marks.iter().find(|m| m.at_ms >= since_ms).map_or(end, |m| m.offset);
        let before = self.marks[..self.marks.partition_point(|m| m.offset < late)].last();
        let close = before.filter(|m| m.at_ms.saturating_add(m.within_ms) >= since_ms);
        close.map_or(late, |m| m.offset).min(end)
    }

    /// Marks of offsets and times, for tests.
    #[cfg(test)]
    pub(crate) fn of_marks(marks: &[(u64, u64)]) -> Self {
        let mut times = Self::default();
        for (offset, at_ms) in marks {
            times.add(Mark { offset: *offset, at_ms: *at_ms, within_ms: LEAST_APART });
        }
        times
    }

    /// Adds a mark unless it says nothing new. Returns what must be written:
    /// a line more, or the whole file anew.
    fn add(&mut self, mark: Mark) -> Option<Change> {
        let new = self
            .marks
            .last()
            .is_none_or(|last| last.offset < mark.offset && last.at_ms.abs_diff(mark.at_ms) >= LEAST_APART);
        if mark.at_ms == 0 || !new {
            return None;
        }
        let line = mark.line();
        self.marks.push(mark);
        self.len += line.len();
        if self.len <= MOST {
            return Some(Change::Append(line));
        }
        let mut apart = 2 * LEAST_APART;
        // What stays stands further apart, and says so.
        while self.len > MOST / 2 {
            let mut kept: Vec<Mark> = Vec::new();
            for mark in &self.marks {
                match kept.last_mut() {
                    Some(last) if last.at_ms.abs_diff(mark.at_ms) < apart => last.within_ms = apart,
                    _ => kept.push(*mark),
                }
            }
            self.marks = kept;
            self.len = self.marks.iter().map(|mark| mark.line().len()).sum();
            apart = apart.saturating_mul(2);
        }
        Some(Change::Replace(self.text()))
    }

    fn text(&self) -> String {
        self.marks.iter().map(|mark| mark.line()).collect()
    }

    /// Lines that are marks with rising offsets; `false` if there was anything
    /// else, such as a torn end.
    fn parse(text: &str) -> (Self, bool) {
        let mut times = Self::default();
        let mut sound = true;
        for line in text.split_inclusive('\n') {
            match serde_json::from_str::<Mark>(line) {
                Ok(mark)
                    if line.ends_with('\n') && times.marks.last().is_none_or(|l| l.offset < mark.offset) =>
                {
                    times.marks.push(mark);
                    times.len += mark.line().len();
                }
                _ => sound = false,
            }
        }
        (times, sound)
    }
}

enum Change {
    Append(String),
    Replace(String),
}

/// The file beside a log.
fn beside(log: &Path) -> PathBuf {
    log.with_extension("times.jsonl")
}

/// The indexes in use, by their logs.
#[derive(Debug, Clone, Default)]
pub(super) struct TimesOfLogs(Arc<Mutex<BTreeMap<PathBuf, Times>>>);

impl TimesOfLogs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Times>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The byte of this log at `offset` was read at `at_ms`.
    pub(super) fn note(&self, log: &Path, offset: u64, at_ms: u64) -> io::Result<()> {
        let mut held = self.lock();
        let times = entry(&mut held, log)?;
        match times.add(Mark { offset, at_ms, within_ms: LEAST_APART }) {
            Some(Change::Append(line)) => {
                let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(beside(log))?;
                file.write_all(line.as_bytes()).inspect_err(|_| {
                    // What is in the file is no longer known.
                    held.remove(log);
                })
            }
            Some(Change::Replace(text)) => replace(&beside(log), &text),
            None => Ok(()),
        }
    }

    /// What is known of a log.
    pub(super) fn of(&self, log: &Path) -> io::Result<Times> {
        Ok(entry(&mut self.lock(), log)?.clone())
    }
}

fn entry<'a>(held: &'a mut BTreeMap<PathBuf, Times>, log: &Path) -> io::Result<&'a mut Times> {
    if !held.contains_key(log) {
        if held.len() >= HELD {
            held.clear();
        }
        let times = load(&beside(log))?;
        held.insert(log.to_owned(), times);
    }
    held.get_mut(log).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn load(path: &Path) -> io::Result<Times> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(2 * MOST as u64).read_to_end(&mut text)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Times::default()),
        Err(e) => return Err(e),
    };
    let (times, sound) = Times::parse(&String::from_utf8_lossy(&text));
    if !sound {
        replace(path, &times.text())?;
    }
    Ok(times)
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_moment_leads_to_the_first_byte_that_may_be_after_it() {
        let mut times = Times::default();
        assert_eq!((times.of(5), times.since(77, 900)), (0, 0), "nothing is known, nothing is withheld");
        for (offset, at_ms) in [(10, 1_000), (20, 1_050), (30, 1_200), (40, 9_000), (35, 9_500), (50, 5_000)]
        {
            times.add(Mark { offset, at_ms, within_ms: LEAST_APART });
        }
        assert_eq!([9, 10, 29, 30, 45, 60].map(|o| times.of(o)), [0, 1_000, 1_000, 1_200, 9_000, 5_000]);
        assert_eq!([0, 10, 30, 50].map(|o| times.next_after(o)), [Some(10), Some(30), Some(40), None]);
        assert_eq!(
            [1, 1_000, 1_100, 1_101, 1_400, 9_000].map(|s| times.since(s, 60)),
            [10, 10, 10, 30, 40, 40]
        );
        assert_eq!(times.since(9_001, 60), 60, "after all that is there");
        assert_eq!(times.since(5_050, 60), 40, "a clock that was set back withholds nothing");
    }

    #[test]
    fn a_crash_costs_the_torn_line_only_and_what_comes_again_is_no_news() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("stdout.log");
        let note = |offset, at| TimesOfLogs::default().note(&log, offset, at).unwrap();
        note(0, 1_000);
        note(50, 2_000);
        let file = dir.path().join("stdout.times.jsonl");
        let whole = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{whole}{{\"offset\":70,\"at_")).unwrap();
        note(60, 3_000);
        note(50, 2_000);
        note(0, 1_000);
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, format!("{whole}{{\"offset\":60,\"at_ms\":3000}}\n"));
        assert_eq!(TimesOfLogs::default().of(&log).unwrap().of(55), 2_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_file_is_what_is_held_and_stays_small(
            steps in prop::collection::vec((1..5_000_u64, 0..100_000_u64), 1..6_000),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let log = dir.path().join("stderr.log");
            let all = TimesOfLogs::default();
            let (mut offset, mut at) = (0, 1);
            for (bytes, ms) in steps {
                all.note(&log, offset, at).unwrap();
                offset += bytes;
                at += ms;
            }
            prop_assert!(fs::metadata(beside(&log)).unwrap().len() <= MOST as u64);
            prop_assert_eq!(TimesOfLogs::default().of(&log).unwrap(), all.of(&log).unwrap());
        }
    }
}
