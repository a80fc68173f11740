//! Where the telling of each stream begins: with a tail, at the last lines of
//! the newest attempt, counted over its streams together; with a moment, at
//! the line, or at the state of a repainted line, that it falls into.

use std::collections::BTreeMap;

use super::merge::{Bytes as _, Lane, last_lines, next};
use super::{CHUNK, Log, Wanted};
use crate::core::{Core, CoreError};
use crate::model::{Attempt, Position, Run, Versioned};

/// The offset that each stream of each attempt is told from.
///
/// # Errors
/// Where a file cannot be read.
pub(super) fn starts(
    core: &Core,
    run: &Run,
    attempts: &[Versioned<Attempt>],
    positions: &[Versioned<Position>],
    wanted: &Wanted,
) -> Result<BTreeMap<(u32, &'static str), u64>, CoreError> {
    let newest = attempts.last().map_or(0, |a| a.body.number);
    let mut starts = BTreeMap::new();
    for attempt in attempts {
        let number = attempt.body.number;
        let log = Log { core, run, attempt: number };
        let mut lanes = Vec::new();
        for stream in &wanted.streams {
            let mut lane = log.lane(&attempt.body, positions, stream, 0)?;
            lane.at = log.since(&lane, wanted.since_ms)?;
            lanes.push(lane);
        }
        let tail = wanted.tail.map(|lines| if number == newest { lines } else { 0 });
        let from = match tail {
            Some(lines) => log.tail(lanes, lines)?,
            None => lanes.iter().map(|lane| lane.at).collect(),
        };
        starts.extend(wanted.streams.iter().map(|stream| (number, *stream)).zip(from));
    }
    Ok(starts)
}

impl Log<'_> {
    /// Where what was written since a moment begins; 0 is all.
    fn since(&self, lane: &Lane, since_ms: u64) -> Result<u64, CoreError> {
        if since_ms == 0 {
            return Ok(0);
        }
        let at = lane.times.since(since_ms, lane.end);
        if at >= lane.end {
            return Ok(lane.end);
        }
        let start = at.saturating_sub(CHUNK as u64);
        let before = self.read(lane.stream, start, at - start)?;
        // What was painted over since then is not of before; without any
        // boundary near, the line goes on in the middle.
        Ok(boundary(&before).map_or(if start == 0 { 0 } else { at }, |index| start + index as u64))
    }

    /// The beginnings of the last lines of all lanes together.
    fn tail(&self, mut lanes: Vec<Lane>, lines: u64) -> Result<Vec<u64>, CoreError> {
        // No stream has more of them than its own last ones.
        for lane in &mut lanes {
            lane.at = last_lines(self, lane.stream, (lane.at, lane.end), lines)?.0;
        }
        let mut begins: Vec<u64> = lanes.iter().map(|lane| lane.end).collect();
        let mut pieces = Vec::new();
        while let Some(piece) = next(&mut lanes, self)? {
            pieces.push(piece);
        }
        let mut left = lines;
        for piece in pieces.into_iter().rev() {
            if left == 0 {
                break;
            }
            let Some(lane) = lanes.get(piece.lane) else { continue };
            let missing = lane.gap_at(piece.from).is_some();
            let (from, found) = if missing {
                (piece.from, 0)
            } else {
                last_lines(self, lane.stream, (piece.from, piece.to), left)?
            };
            begins[piece.lane] = from;
            left -= found;
        }
        Ok(begins)
    }
}

/// Behind the last end of a line, or the last return to its beginning.
fn boundary(text: &[u8]) -> Option<usize> {
    // A return at the very end may belong to the newline that follows.
    let ends = |at: &usize| {
        text[*at] == b'\n' || text[*at] == b'\r' && text.get(at + 1).is_some_and(|next| *next != b'\n')
    };
    (0..text.len()).rev().find(ends).map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_leads_to_a_line_or_to_a_state_of_one() {
        let of = |text: &str| boundary(text.as_bytes());
        assert_eq!((of("a\nb"), of("a\nb\n"), of("abc"), of("")), (Some(2), Some(4), None, None));
        assert_eq!((of("\n10%\r20%"), of("a\r\nb"), of("a\r")), (Some(5), Some(3), None));
    }
}
