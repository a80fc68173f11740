//! The agent's side: reads any offset, tells bytes from gaps from the end, and
//! releases what the controller has made durable. Never trusts a name or a link
//! in the directory more than it must.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::times::Times;
use super::{Piece, Segment, SpoolError, Stream, Written, gaps, list_segments, segment_path, spool_dir};
use crate::os;

const MAX_READ: usize = 4 << 20;

/// Reads the spool of one attempt.
#[derive(Debug)]
pub struct SpoolReader {
    dir: PathBuf,
    open: [Option<(u64, fs::File)>; 2],
    times: [Times; 2],
}

impl SpoolReader {
    /// A reader of the spool below this directory, which may not exist yet.
    #[must_use]
    pub fn open(attempt_dir: &Path) -> Self {
        Self { dir: spool_dir(attempt_dir), open: [None, None], times: Default::default() }
    }

    fn fail(&self, action: &'static str) -> impl FnOnce(io::Error) -> SpoolError {
        let dir = self.dir.clone();
        move |e| SpoolError::new(action, &dir, e)
    }

    /// What lies at this offset: at most `max` bytes of it. A gap that is still
    /// growing is given as far as it is known and goes on in the next read.
    ///
    /// # Errors
    /// When the disk fails, or the spool holds something that is no spool.
    pub fn read(&mut self, stream: Stream, offset: u64, max: usize) -> Result<Piece, SpoolError> {
        let max = max.clamp(1, MAX_READ);
        if let Some(piece) = self.read_open(stream, offset, max)? {
            return Ok(piece);
        }
        let listed = list_segments(&self.dir).map_err(self.fail("list"))?;
        let segments = &listed[stream.index()];
        let after = segments.partition_point(|s| s.start <= offset);
        // Looked at after the listing: a segment that has a successor is closed,
        // so what is not in it now will never be.
        if let Some(segment) = after.checked_sub(1).and_then(|at| segments.get(at))
            && self.load(stream, *segment)?
            && let Some(piece) = self.read_open(stream, offset, max)?
        {
            return Ok(piece);
        }
        if let Some(next) = segments.get(after) {
            return Ok(Piece::Gap { from: offset, to: next.start });
        }
        let gaps = gaps::load(&self.dir).map_err(self.fail("read the gaps of"))?;
        let gap = gaps.iter().find(|g| g.stream == stream && g.from <= offset && offset < g.to);
        Ok(gap.map_or(Piece::End, |g| Piece::Gap { from: offset, to: g.to }))
    }

    /// When the program wrote the byte at this offset. Ask after reading it:
    /// of what has not been seen yet nothing is known.
    pub fn written(&mut self, stream: Stream, offset: u64) -> Written {
        self.times[stream.index()].of(&self.dir, stream, offset)
    }

    fn read_open(&self, stream: Stream, offset: u64, max: usize) -> Result<Option<Piece>, SpoolError> {
        let Some((start, file)) = &self.open[stream.index()] else { return Ok(None) };
        let Some(at) = offset.checked_sub(*start) else { return Ok(None) };
        let left = file.metadata().map_err(self.fail("read"))?.len().saturating_sub(at);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(max)];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.fail("read")(e)),
            }
        }
        bytes.truncate(filled);
        Ok((filled > 0).then_some(Piece::Bytes { offset, bytes }))
    }

    /// Opens a segment unless it is open; false when it was released meanwhile.
    fn load(&mut self, stream: Stream, segment: Segment) -> Result<bool, SpoolError> {
        if self.open[stream.index()].as_ref().is_some_and(|(start, _)| *start == segment.start) {
            return Ok(true);
        }
        match os::open_nofollow(&segment_path(&self.dir, stream, segment.start)) {
            Ok(file) => {
                self.open[stream.index()] = Some((segment.start, file));
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(self.fail("open")(e)),
        }
    }

    /// Deletes the segments that lie wholly below `acked`, except the newest.
    ///
    /// # Errors
    /// When the directory cannot be read or a file cannot be removed.
    pub fn release(&mut self, stream: Stream, acked: u64) -> Result<(), SpoolError> {
        let listed = list_segments(&self.dir).map_err(self.fail("list"))?;
        let segments = &listed[stream.index()];
        for segment in segments.iter().take(segments.len().saturating_sub(1)) {
            if segment.end() > acked {
                break;
            }
            match fs::remove_file(segment_path(&self.dir, stream, segment.start)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(self.fail("release")(e)),
                _ => {}
            }
            if self.open[stream.index()].as_ref().is_some_and(|(start, _)| *start == segment.start) {
                self.open[stream.index()] = None;
            }
        }
        Ok(())
    }

    /// The offset at which the stream ends now, gaps included; 0 where there is
    /// no spool that can be read.
    #[must_use]
    pub fn len(&self, stream: Stream) -> u64 {
        let segments = list_segments(&self.dir).unwrap_or_default();
        let bytes = segments[stream.index()].last().map_or(0, |s| s.end());
        let gaps = gaps::load(&self.dir).unwrap_or_default();
        let gap = gaps.iter().filter(|g| g.stream == stream).map(|g| g.to).max().unwrap_or(0);
        bytes.max(gap)
    }

    /// Whether nothing was ever produced on either stream.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        Stream::BOTH.iter().all(|s| self.len(*s) == 0)
    }
}
