//! The record of dropped ranges: one JSON line each, a longer line for the same
//! beginning replacing the shorter one. A torn or foreign line is passed over.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Stream;
use crate::os;

const COMPACT_AT: u64 = 256 * 1024;
const MAX_FILE: usize = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gap {
    pub(super) stream: Stream,
    pub(super) from: u64,
    pub(super) to: u64,
}

pub(super) fn path(spool: &Path) -> PathBuf {
    spool.join("gaps.jsonl")
}

/// All gaps, sorted and merged per stream.
pub(super) fn load(spool: &Path) -> io::Result<Vec<Gap>> {
    let bytes = match os::read_bounded(&path(spool), MAX_FILE) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let gaps = bytes
        .split(|b| *b == b'\n')
        .filter_map(|line| serde_json::from_slice::<Gap>(line).ok())
        .filter(|g| g.from < g.to)
        .collect();
    Ok(merge(gaps))
}

fn merge(mut gaps: Vec<Gap>) -> Vec<Gap> {
    gaps.sort_unstable_by_key(|g| (g.stream, g.from, g.to));
    let mut merged: Vec<Gap> = Vec::with_capacity(gaps.len());
    for gap in gaps {
        match merged.last_mut() {
            Some(last) if last.stream == gap.stream && gap.from <= last.to => last.to = last.to.max(gap.to),
            _ => merged.push(gap),
        }
    }
    merged
}

/// The writing side. Only the keeper has one.
#[derive(Debug)]
pub(super) struct GapLog {
    dir: PathBuf,
    file: File,
    written: u64,
    torn: bool,
    known: Vec<Gap>,
}

impl GapLog {
    pub(super) fn create(spool: &Path) -> io::Result<Self> {
        let file = open(spool)?;
        os::sync_dir(spool)?;
        Ok(Self { dir: spool.to_path_buf(), file, written: 0, torn: false, known: Vec::new() })
    }

    /// Makes this gap durable. `first_kept` are the offsets below which the
    /// streams' segments are gone: gaps below them need no record any more.
    pub(super) fn record(&mut self, gap: Gap, first_kept: [u64; 2]) -> io::Result<()> {
        if self.written > COMPACT_AT {
            self.compact(first_kept)?;
        }
        let mut line = serde_json::to_vec(&gap)?;
        line.push(b'\n');
        if self.torn {
            line.insert(0, b'\n');
        }
        let done = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        self.torn = done.is_err();
        self.written += line.len() as u64;
        if done.is_ok() {
            self.known.push(gap);
        }
        done
    }

    fn compact(&mut self, first_kept: [u64; 2]) -> io::Result<()> {
        let mut kept = merge(std::mem::take(&mut self.known));
        kept.retain(|g| g.to > first_kept[g.stream.index()]);
        let mut text = Vec::new();
        for gap in &kept {
            serde_json::to_writer(&mut text, gap)?;
            text.push(b'\n');
        }
        self.known = kept;
        os::write_durable(&path(&self.dir), &text)?;
        self.file = open(&self.dir)?;
        // Counts growth since the last pass, so that many live gaps do not
        // make every record a rewrite.
        self.written = 0;
        self.torn = false;
        Ok(())
    }
}

fn open(spool: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path(spool))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_costs_no_other_line_and_a_longer_one_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let text = "{\"stream\":\"stdout\",\"from\":5,\"to\":9}\n{\"stream\":\"stdo\n\
                    {\"stream\":\"stdout\",\"from\":5,\"to\":12}\n{\"stream\":\"stderr\",\"from\":1,\"to\":2}\n";
        std::fs::write(path(dir.path()), text).unwrap();
        let gaps = load(dir.path()).unwrap();
        assert_eq!(
            gaps,
            [Gap { stream: Stream::Stdout, from: 5, to: 12 }, Gap { stream: Stream::Stderr, from: 1, to: 2 }]
        );
    }

    #[test]
    fn compaction_keeps_every_gap_that_is_not_released() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = GapLog::create(dir.path()).unwrap();
        for i in 0..10_u64 {
            log.record(Gap { stream: Stream::Stdout, from: i * 10, to: i * 10 + 5 }, [0, 0]).unwrap();
        }
        log.compact([40, 0]).unwrap();
        log.record(Gap { stream: Stream::Stdout, from: 200, to: 201 }, [40, 0]).unwrap();
        let gaps = load(dir.path()).unwrap();
        assert_eq!(gaps.first().unwrap().from, 40);
        assert_eq!(gaps.last().unwrap().from, 200);
        assert_eq!(gaps.len(), 7);
    }
}
