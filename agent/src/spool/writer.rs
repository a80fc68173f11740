//! The keeper's side. Writing never fails and never waits for a reader: what
//! does not fit the quota or the disk becomes a gap, and dropping goes on until
//! there is room for a fair stretch again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::gaps::{Gap, GapLog};
use super::times::TimeLog;
use super::{SEGMENT_BYTES, SpoolError, Stream, list_segments, segment_path, spool_dir};
use crate::os;

const DEFAULT_QUOTA_MAX: u64 = 8 << 30;
const QUOTA_MIN: u64 = 32 * 1024;
/// Half the promised second, so that a slow disk still keeps the promise.
const SYNC_AFTER: Duration = Duration::from_millis(500);
const GAP_EVERY: Duration = Duration::from_millis(500);
const DISK_RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Output {
    /// Bytes produced so far, dropped ones included.
    position: u64,
    current: Option<(File, u64)>,
    dirty: bool,
    /// The open gap: where it began and how much of it is on disk.
    gap: Option<(u64, u64)>,
    first_kept: u64,
}

/// Writes both streams of one attempt.
#[derive(Debug)]
pub struct SpoolWriter {
    dir: PathBuf,
    quota: u64,
    segment: u64,
    used: u64,
    outputs: [Output; 2],
    gaps: GapLog,
    times: [TimeLog; 2],
    is_dropping: bool,
    new_names: bool,
    dirty_since: Option<Instant>,
    gap_recorded: Option<Instant>,
    looked: Option<Instant>,
    look_every: Duration,
    disk_retry: Option<Instant>,
}

impl SpoolWriter {
    /// Makes the empty spool of an attempt. A quota of 0 is the default: 10 % of
    /// the free disk, at most 8 GiB.
    ///
    /// # Errors
    /// When the directory cannot be made or written.
    pub fn create(attempt_dir: &Path, quota: u64) -> Result<Self, SpoolError> {
        let dir = spool_dir(attempt_dir);
        let gaps = os::make_private_dir(&dir)
            .and_then(|()| os::sync_dir(attempt_dir))
            .and_then(|()| GapLog::create(&dir))
            .map_err(|e| SpoolError::new("create", &dir, e))?;
        let default = || (os::free_disk(&dir) / 10).min(DEFAULT_QUOTA_MAX);
        let quota = if quota == 0 { default() } else { quota }.max(QUOTA_MIN);
        let times = Stream::BOTH.map(|stream| TimeLog::create(&dir, stream));
        Ok(Self {
            dir,
            quota,
            segment: (quota / 8).min(SEGMENT_BYTES),
            used: 0,
            outputs: [Output::default(), Output::default()],
            gaps,
            times,
            is_dropping: false,
            new_names: false,
            dirty_since: None,
            gap_recorded: None,
            looked: None,
            look_every: Duration::from_millis(50),
            disk_retry: None,
        })
    }

    /// The bytes that a stream has produced so far, dropped ones included.
    #[must_use]
    pub fn position(&self, stream: Stream) -> u64 {
        self.outputs[stream.index()].position
    }

    /// Takes what the program wrote.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        let position = self.position(stream);
        let first_kept = || {
            let listed = list_segments(&self.dir).unwrap_or_default();
            listed[stream.index()].first().map_or(0, |s| s.start)
        };
        self.times[stream.index()].note(position, os::unix_ms(), first_kept);
        while !bytes.is_empty() {
            let room = self.room(bytes.len() as u64);
            if room == 0 {
                self.drop_bytes(stream, bytes.len() as u64);
                return;
            }
            let fitting = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let written = self.append(stream, &bytes[..fitting]);
            if written == 0 {
                self.disk_retry = Some(Instant::now() + DISK_RETRY);
            }
            bytes = &bytes[written..];
        }
    }

    /// How many bytes may be written now, 0 while dropping.
    fn room(&mut self, wanted: u64) -> u64 {
        if self.disk_retry.is_some_and(|at| Instant::now() < at) {
            return 0;
        }
        self.disk_retry = None;
        let needs = if self.is_dropping { self.resume_room() } else { wanted };
        if self.quota.saturating_sub(self.used) < needs {
            self.look_for_releases();
        }
        let room = self.quota.saturating_sub(self.used);
        self.is_dropping = room == 0 || (self.is_dropping && room < self.resume_room());
        if self.is_dropping { 0 } else { room }
    }

    /// The room at which dropping ends: with less, one long gap would become a
    /// shower of small ones.
    fn resume_room(&self) -> u64 {
        2 * self.segment
    }

    fn look_for_releases(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < self.look_every) {
            return;
        }
        self.looked = Some(Instant::now());
        if let Ok(listed) = list_segments(&self.dir) {
            self.used = listed.iter().flatten().map(|s| s.len).sum();
            for (output, segments) in self.outputs.iter_mut().zip(&listed) {
                output.first_kept = segments.first().map_or(0, |s| s.start);
            }
        }
    }

    /// Writes a part into the current segment or a new one; gives how much.
    fn append(&mut self, stream: Stream, bytes: &[u8]) -> usize {
        let segment = self.segment;
        let output = &mut self.outputs[stream.index()];
        if output.current.as_ref().is_some_and(|(_, len)| *len >= segment) {
            self.close_segment(stream);
        }
        if self.outputs[stream.index()].current.is_none() && !self.open_segment(stream) {
            return 0;
        }
        let output = &mut self.outputs[stream.index()];
        let Some((file, len)) = &mut output.current else { return 0 };
        let fitting = usize::try_from(segment - *len).unwrap_or(usize::MAX).min(bytes.len());
        let written = loop {
            match file.write(&bytes[..fitting]) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break 0,
                Ok(n) => break n,
            }
        };
        *len += written as u64;
        output.position += written as u64;
        output.dirty = true;
        self.used += written as u64;
        self.dirty_since.get_or_insert_with(Instant::now);
        written
    }

    fn open_segment(&mut self, stream: Stream) -> bool {
        if !self.record_gap(stream) {
            return false;
        }
        let output = &mut self.outputs[stream.index()];
        let path = segment_path(&self.dir, stream, output.position);
        let opened = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let Ok(file) = opened else { return false };
        output.gap = None;
        output.current = Some((file, 0));
        self.new_names = true;
        true
    }

    fn close_segment(&mut self, stream: Stream) {
        if let Some((file, _)) = self.outputs[stream.index()].current.take() {
            let _ = file.sync_data();
            self.outputs[stream.index()].dirty = false;
        }
    }

    fn drop_bytes(&mut self, stream: Stream, count: u64) {
        self.close_segment(stream);
        let output = &mut self.outputs[stream.index()];
        let is_new = output.gap.is_none();
        let from = output.position;
        output.gap.get_or_insert((from, from));
        output.position += count;
        if is_new {
            self.record_gap(stream);
        }
    }

    /// Makes the open gap durable in its whole length so far.
    fn record_gap(&mut self, stream: Stream) -> bool {
        let first_kept = [self.outputs[0].first_kept, self.outputs[1].first_kept];
        let output = &mut self.outputs[stream.index()];
        let Some((from, recorded)) = &mut output.gap else { return true };
        if *recorded == output.position {
            return true;
        }
        if self.gaps.record(Gap { stream, from: *from, to: output.position }, first_kept).is_err() {
            return false;
        }
        *recorded = output.position;
        self.gap_recorded = Some(Instant::now());
        true
    }

    /// Makes durable what is due. Call it at least twice a second.
    pub fn tick(&mut self) {
        if self.dirty_since.is_some_and(|at| at.elapsed() >= SYNC_AFTER) {
            self.sync();
        }
        if self.gap_recorded.is_none_or(|at| at.elapsed() >= GAP_EVERY) {
            for stream in Stream::BOTH {
                self.record_gap(stream);
            }
        }
    }

    /// Whether something waits for `tick`.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.dirty_since.is_some()
            || self.outputs.iter().any(|o| o.gap.is_some_and(|(_, recorded)| recorded != o.position))
    }

    fn sync(&mut self) {
        for output in &mut self.outputs {
            if let (true, Some((file, _))) = (output.dirty, &output.current) {
                let _ = file.sync_data();
            }
            output.dirty = false;
        }
        if std::mem::take(&mut self.new_names) {
            let _ = os::sync_dir(&self.dir);
        }
        self.dirty_since = None;
    }

    /// Makes everything durable and gives the final lengths of stdout and
    /// stderr, dropped bytes included.
    pub fn finish(&mut self) -> [u64; 2] {
        self.sync();
        for stream in Stream::BOTH {
            self.record_gap(stream);
        }
        [self.outputs[0].position, self.outputs[1].position]
    }

    #[cfg(test)]
    pub(super) fn look_at_once(&mut self) {
        self.look_every = Duration::ZERO;
    }
}
