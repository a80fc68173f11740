//! A run's output as one stream, attempt after attempt and each attempt's
//! lines in the order of their times, read from its files up to what is
//! durable. Follows until the run is final and all was told.

use std::collections::BTreeMap;
use std::sync::Arc;

mod merge;
mod starts;

use lifecycle::RunId;
use proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use super::select;
use crate::core::{Core, CoreError};
use crate::model::{Attempt, Position, Run, Versioned};
use merge::{Bytes, Lane, next};
use starts::starts;

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
    /// Only so many last lines of what is there, over all of the streams.
    pub tail: Option<u64>,
    /// Only this attempt; 0 is all.
    pub attempt: u32,
    /// Only what was written at or after this moment, unix milliseconds by the
    /// machine's clock; 0 is all.
    pub since_ms: u64,
}

/// What a caller asks for.
///
/// # Errors
/// No such run, or a stream that there is not.
pub async fn wanted(core: &Core, ask: &v1::LogsRequest) -> Result<Wanted, Status> {
    let run = select::run(core, &ask.run).await?.body.id;
    let known = ["setup", "stdout", "stderr"];
    if let Some(odd) = ask.streams.iter().find(|s| !known.contains(&s.as_str())) {
        return Err(Status::invalid_argument(format!("`{odd}` is no stream; known: {}", known.join(", "))));
    }
    let streams =
        known.into_iter().filter(|s| ask.streams.is_empty() || ask.streams.iter().any(|a| a == s)).collect();
    let (tail, attempt, since_ms) = (ask.tail, ask.attempt, ask.since_ms);
    Ok(Wanted { run, follow: ask.follow, streams, tail, attempt, since_ms })
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
            if !tell(&core, &run.body, &attempt.body, &positions, &wanted, &mut told, &out).await? {
                return Ok(());
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

/// Sends what is new of an attempt; `false`: nobody reads any more.
async fn tell(
    core: &Core,
    run: &Run,
    attempt: &Attempt,
    positions: &[Versioned<Position>],
    wanted: &Wanted,
    told: &mut BTreeMap<(u32, &'static str), u64>,
    out: &Out,
) -> Result<bool, CoreError> {
    let log = Log { core, run, attempt: attempt.number };
    let mut lanes = Vec::new();
    for stream in &wanted.streams {
        let from = told.get(&(attempt.number, *stream)).copied().unwrap_or(0);
        let lane = log.lane(attempt, positions, stream, from)?;
        if from < lane.end {
            lanes.push(lane);
        }
    }
    while let Some(piece) = next(&mut lanes, &log)? {
        let Some(lane) = lanes.get(piece.lane) else { break };
        if !log.send(lane, piece.from, piece.to, out).await? {
            return Ok(false);
        }
        told.insert((attempt.number, lane.stream), piece.to);
    }
    Ok(true)
}

/// The files of one attempt.
struct Log<'a> {
    core: &'a Core,
    run: &'a Run,
    attempt: u32,
}

impl Bytes for Log<'_> {
    fn read(&self, stream: &'static str, offset: u64, most: u64) -> Result<Vec<u8>, CoreError> {
        let most = usize::try_from(most).unwrap_or(CHUNK).min(CHUNK);
        Ok(self.core.files.read(&self.run.name, self.attempt, file_of(stream), offset, most)?)
    }
}

impl Log<'_> {
    /// A stream from an offset up to what is durable of it.
    fn lane(
        &self,
        attempt: &Attempt,
        positions: &[Versioned<Position>],
        stream: &'static str,
        from: u64,
    ) -> Result<Lane, CoreError> {
        let row = positions.iter().find(|p| p.body.attempt == attempt.id && p.body.stream == stream);
        let times = self.core.files.times(&self.run.name, self.attempt, file_of(stream))?;
        let gaps = row.map_or_else(Vec::new, |p| p.body.gaps.clone());
        Ok(Lane::new(stream, from, row.map_or(0, |p| p.body.next), gaps, times))
    }

    /// Sends a piece, in chunks that have one time each and are cut where
    /// bytes are missing.
    async fn send(&self, lane: &Lane, from: u64, to: u64, out: &Out) -> Result<bool, CoreError> {
        let mut at = from;
        while at < to {
            let gap = lane.gap_at(at);
            let end = gap.map_or_else(|| lane.next_gap(at).min(to), |_| at);
            let piece = lane.times.next_after(at).map_or(end, |mark| mark.min(end));
            let data = self.read(lane.stream, at, piece.saturating_sub(at))?;
            let len = data.len() as u64;
            // A file that is shorter than its position ended in a gap.
            let gap_to = if len == 0 { gap.unwrap_or(end).max(at + 1) } else { 0 };
            let at_ms = lane.times.of(at);
            let piece = v1::LogChunk { data, gap_to, at_ms, ..chunk(self.attempt, lane.stream, at) };
            if out.send(Ok(piece)).await.is_err() {
                return Ok(false);
            }
            at = if len == 0 { gap_to } else { at + len };
        }
        Ok(true)
    }
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
