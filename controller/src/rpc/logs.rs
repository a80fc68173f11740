//! A run's output as one stream, attempt after attempt, read from its files
//! up to what is durable. Follows until the run is final and all was told.

use std::collections::BTreeMap;
use std::sync::Arc;

use lifecycle::RunId;
use proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use crate::core::{Core, CoreError};
use crate::model::{Attempt, Position, Run, Versioned};

const CHUNK: usize = 64 << 10;
/// Followers look at least this often, in case a wake-up was missed.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);

/// What is wanted.
pub struct Wanted {
    /// Which run.
    pub run: RunId,
    /// Stay until it ends.
    pub follow: bool,
    /// Which streams, in the order they are shown.
    pub streams: Vec<&'static str>,
    /// Only so many last lines of what is there.
    pub tail: Option<u64>,
    /// Only this attempt; 0 is all.
    pub attempt: u32,
    /// Only what was written at or after this moment, unix milliseconds by the
    /// machine's clock; 0 is all.
    pub since_ms: u64,
}

type Out = mpsc::Sender<Result<v1::LogChunk, Status>>;

/// Sends until all is told or the reader goes away.
///
/// # Errors
/// Where the store or a file fails.
pub async fn send(core: Arc<Core>, wanted: Wanted, out: Out) -> Result<(), CoreError> {
    let mut changed = core.changed.subscribe();
    let mut told: BTreeMap<(u32, &'static str), u64> = BTreeMap::new();
    let mut first = true;
    loop {
        changed.mark_unchanged();
        let run: Versioned<Run> = core.need(&wanted.run.to_string()).await?;
        let over = run.body.status.is_final();
        let mut attempts: Vec<Versioned<Attempt>> = core.of_run(wanted.run).await?;
        attempts.retain(|a| wanted.attempt == 0 || a.body.number == wanted.attempt);
        attempts.sort_by_key(|a| a.body.number);
        let positions: Vec<Versioned<Position>> = core.of_run(wanted.run).await?;
        if std::mem::take(&mut first) {
            told = starts(&core, &run.body, &attempts, &positions, &wanted)?;
            for ((attempt, stream), offset) in told.iter().filter(|(_, offset)| **offset > 0) {
                // Without bytes: from here on it is told, so that who asks
                // again does not get what was left out.
                let begin = chunk(*attempt, stream, *offset);
                if out.send(Ok(begin)).await.is_err() {
                    return Ok(());
                }
            }
        }
        for attempt in &attempts {
            for stream in &wanted.streams {
                let row =
                    positions.iter().find(|p| p.body.attempt == attempt.body.id && p.body.stream == *stream);
                let until = row.map_or(0, |p| p.body.next);
                let gaps = row.map_or(&[][..], |p| &p.body.gaps);
                let from = told.entry((attempt.body.number, *stream)).or_insert(0);
                if !send_range(&core, &run.body, attempt.body.number, stream, (from, until, gaps), &out)
                    .await?
                {
                    return Ok(());
                }
            }
        }
        if !wanted.follow || over {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = out.closed() => return Ok(()),
            _ = changed.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn send_range(
    core: &Core,
    run: &Run,
    attempt: u32,
    stream: &'static str,
    (from, until, gaps): (&mut u64, u64, &[(u64, u64)]),
    out: &Out,
) -> Result<bool, CoreError> {
    let file = file_of(stream);
    if *from >= until {
        return Ok(true);
    }
    let times = core.files.times(&run.name, attempt, file)?;
    while *from < until {
        let gap = gaps.iter().find(|(start, end)| *start <= *from && *from < *end);
        let next_gap = gaps.iter().map(|(start, _)| *start).find(|start| *start > *from).unwrap_or(until);
        let end = gap.map_or(next_gap.min(until), |_| *from);
        // Cut at every mark: each chunk has one time.
        let piece = times.next_after(*from).map_or(end, |mark| mark.min(end));
        let max = usize::try_from(piece - (*from).min(piece)).unwrap_or(CHUNK).min(CHUNK);
        let data = core.files.read(&run.name, attempt, file, *from, max)?;
        let len = data.len() as u64;
        // A file that is shorter than its position ended in a gap.
        let gap_to = if len == 0 { gap.map_or(end, |(_, end)| *end).max(*from + 1) } else { 0 };
        let piece = v1::LogChunk { data, gap_to, at_ms: times.of(*from), ..chunk(attempt, stream, *from) };
        if out.send(Ok(piece)).await.is_err() {
            return Ok(false);
        }
        *from = if len == 0 { gap_to } else { *from + len };
    }
    Ok(true)
}

fn chunk(attempt: u32, stream: &str, offset: u64) -> v1::LogChunk {
    v1::LogChunk { attempt, stream: stream.to_owned(), offset, ..Default::default() }
}

fn file_of(stream: &str) -> &'static str {
    match stream {
        "stderr" => "stderr.log",
        "setup" => "setup.log",
        _ => "stdout.log",
    }
}

/// Where each stream of each attempt is told from: with a tail, the last
/// lines of the newest attempt; with a moment, the line that it falls into.
fn starts(
    core: &Core,
    run: &Run,
    attempts: &[Versioned<Attempt>],
    positions: &[Versioned<Position>],
    wanted: &Wanted,
) -> Result<BTreeMap<(u32, &'static str), u64>, CoreError> {
    let newest = attempts.last().map_or(0, |a| a.body.number);
    let mut starts = BTreeMap::new();
    for attempt in attempts {
        for stream in &wanted.streams {
            let number = attempt.body.number;
            let end = positions
                .iter()
                .find(|p| p.body.attempt == attempt.body.id && p.body.stream == *stream)
                .map_or(0, |p| p.body.next);
            let mut start = match wanted.tail {
                Some(lines) if number == newest => tail_start(core, run, number, stream, end, lines)?,
                Some(_) => end,
                None => 0,
            };
            if wanted.since_ms > 0 {
                let times = core.files.times(&run.name, number, file_of(stream))?;
                let since = times.since(wanted.since_ms, end);
                let since = if since < end { line_start(core, run, number, stream, since)? } else { end };
                start = start.max(since);
            }
            starts.insert((number, *stream), start);
        }
    }
    Ok(starts)
}

/// The beginning of the line that `at` lies in, if it is near.
fn line_start(core: &Core, run: &Run, attempt: u32, stream: &'static str, at: u64) -> Result<u64, CoreError> {
    let start = at.saturating_sub(CHUNK as u64);
    let size = usize::try_from(at - start).unwrap_or(CHUNK);
    let before = core.files.read(&run.name, attempt, file_of(stream), start, size)?;
    let newline = before.iter().rposition(|byte| *byte == b'\n').map(|index| start + index as u64 + 1);
    Ok(newline.unwrap_or(if start == 0 { 0 } else { at }))
}

fn tail_start(
    core: &Core,
    run: &Run,
    attempt: u32,
    stream: &'static str,
    end: u64,
    lines: u64,
) -> Result<u64, CoreError> {
    if lines == 0 {
        return Ok(end);
    }
    let mut seen = 0;
    let mut at = end;
    while at > 0 {
        let start = at.saturating_sub(CHUNK as u64);
        let size = usize::try_from(at - start).unwrap_or(CHUNK);
        let bytes = core.files.read(&run.name, attempt, file_of(stream), start, size)?;
        if bytes.is_empty() {
            // Nothing was kept here: the tail begins after it.
            return Ok(at);
        }
        for (index, byte) in bytes.iter().enumerate().rev() {
            let offset = start + index as u64;
            // The newline that ends the last line does not begin another.
            if *byte == b'\n' && offset + 1 != end {
                seen += 1;
                if seen == lines {
                    return Ok(offset + 1);
                }
            }
        }
        at = start;
    }
    Ok(0)
}
