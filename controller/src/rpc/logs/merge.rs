//! Several streams of an attempt as one: line by line in the order of the
//! times at which the lines ended, by the machine's clock. Equal times keep the
//! order of the streams; a stream's own lines always keep theirs, whatever its
//! clock did. A line is never split for another stream's; one that has no end
//! yet comes last. Decides over offsets only; the bytes are read through
//! [`Bytes`].

use crate::core::CoreError;
use crate::runfiles::Times;

const SCAN: u64 = 64 << 10;

/// Reads what streams are made of.
pub(super) trait Bytes {
    /// At most `most` bytes of a stream from an offset on; empty where nothing
    /// was kept.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn read(&self, stream: &'static str, offset: u64, most: u64) -> Result<Vec<u8>, CoreError>;
}

/// One stream on its way.
pub(super) struct Lane {
    pub(super) stream: &'static str,
    /// The next byte.
    pub(super) at: u64,
    /// Behind the last byte that is known.
    pub(super) end: u64,
    pub(super) times: Times,
    gaps: Vec<(u64, u64)>,
    /// Where the next line ends and when that was; kept until it is taken.
    head: Option<Head>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    to: u64,
    at_ms: u64,
}

/// The next bytes of the whole: these offsets of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Index of the lane.
    pub(super) lane: usize,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Lane {
    pub(super) fn new(stream: &'static str, at: u64, end: u64, gaps: Vec<(u64, u64)>, times: Times) -> Self {
        Self { stream, at, end, times, gaps, head: None }
    }

    /// The end of the gap that an offset lies in.
    pub(super) fn gap_at(&self, at: u64) -> Option<u64> {
        self.gaps.iter().find(|(start, end)| *start <= at && at < *end).map(|(_, end)| *end)
    }

    /// Where the next gap after an offset begins, or the lane ends.
    pub(super) fn next_gap(&self, at: u64) -> u64 {
        let later = self.gaps.iter().map(|(start, _)| *start).filter(|start| *start > at);
        later.min().unwrap_or(self.end).min(self.end)
    }

    /// The end of the line that begins at `at`. A gap ends a line, and is one.
    fn head(&self, bytes: &impl Bytes) -> Result<Head, CoreError> {
        if let Some(to) = self.gap_at(self.at) {
            return Ok(Head { to: to.min(self.end), at_ms: self.times.of(self.at) });
        }
        let whole = self.next_gap(self.at);
        let mut at = self.at;
        while at < whole {
            let read = bytes.read(self.stream, at, (whole - at).min(SCAN))?;
            if let Some(newline) = read.iter().position(|byte| *byte == b'\n') {
                let newline = at + newline as u64;
                return Ok(Head { to: newline + 1, at_ms: self.times.of(newline) });
            }
            if read.is_empty() {
                break;
            }
            at += read.len() as u64;
        }
        let at_ms = if whole < self.end { self.times.of(whole.saturating_sub(1)) } else { u64::MAX };
        Ok(Head { to: whole, at_ms })
    }

    /// The end of the last line that is due before `limit`, at least `head`'s.
    fn due(&self, head: Head, own: usize, limit: (u64, usize), bytes: &impl Bytes) -> Result<u64, CoreError> {
        let late = |at: u64| (self.times.of(at), own) > limit;
        let gap = self.gap_at(self.at).is_some() || self.gap_at(head.to).is_some();
        if head.to >= self.end || gap || late(head.to) {
            return Ok(head.to);
        }
        let whole = self.next_gap(head.to);
        let mut stop = head.to;
        while stop < whole {
            stop = self.times.next_after(stop).unwrap_or(whole).min(whole);
            if stop < whole && late(stop) {
                break;
            }
        }
        let mut to = stop;
        while to > head.to {
            let from = to.saturating_sub(SCAN).max(head.to);
            let read = bytes.read(self.stream, from, to - from)?;
            if let Some(newline) = read.iter().rposition(|byte| *byte == b'\n') {
                return Ok(from + newline as u64 + 1);
            }
            to = from;
        }
        Ok(head.to)
    }
}

/// Takes the next piece; `None`: all lanes are at their ends.
///
/// # Errors
/// Where the bytes cannot be read.
pub(super) fn next(lanes: &mut [Lane], bytes: &impl Bytes) -> Result<Option<Piece>, CoreError> {
    let open: Vec<usize> = (0..lanes.len()).filter(|i| lanes[*i].at < lanes[*i].end).collect();
    if let [only] = open[..] {
        let lane = &mut lanes[only];
        let to = lane.gap_at(lane.at).unwrap_or(lane.end).min(lane.end);
        let piece = Piece { lane: only, from: lane.at, to };
        (lane.at, lane.head) = (to, None);
        return Ok(Some(piece));
    }
    let mut heads: Vec<(u64, usize, Head)> = Vec::new();
    for index in open {
        let lane = &mut lanes[index];
        let head = match lane.head {
            Some(head) => head,
            None => *lane.head.insert(lane.head(bytes)?),
        };
        heads.push((head.at_ms, index, head));
    }
    heads.sort_by_key(|(at_ms, index, _)| (*at_ms, *index));
    let [(_, own, head), (at_ms, other, _), ..] = heads[..] else { return Ok(None) };
    let lane = &mut lanes[own];
    let to = lane.due(head, own, (at_ms, other), bytes)?;
    let piece = Piece { lane: own, from: lane.at, to };
    lane.at = to;
    lane.head = None;
    Ok(Some(piece))
}

/// The beginning of the last `lines` lines between two offsets, and how many
/// there are if they are fewer.
///
/// # Errors
/// Where the bytes cannot be read.
pub(super) fn last_lines(
    bytes: &impl Bytes,
    stream: &'static str,
    (from, end): (u64, u64),
    lines: u64,
) -> Result<(u64, u64), CoreError> {
    if lines == 0 || from >= end {
        return Ok((end, 0));
    }
    let (mut begun, mut at) = (0, end);
    while at > from {
        let start = at.saturating_sub(SCAN).max(from);
        let read = bytes.read(stream, start, at - start)?;
        if read.is_empty() {
            // Nothing was kept here: the lines begin after it.
            return Ok((at, begun + u64::from(at < end)));
        }
        for (index, byte) in read.iter().enumerate().rev() {
            let offset = start + index as u64;
            // The newline that ends the last line does not begin another.
            if *byte == b'\n' && offset + 1 != end {
                begun += 1;
                if begun == lines {
                    return Ok((offset + 1, lines));
                }
            }
        }
        at = start;
    }
    Ok((from, begun + 1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Texts(BTreeMap<&'static str, Vec<u8>>);

    impl Bytes for Texts {
        fn read(&self, stream: &'static str, offset: u64, most: u64) -> Result<Vec<u8>, CoreError> {
            let text = &self.0[stream];
            let from = usize::try_from(offset).unwrap().min(text.len());
            let to = from.saturating_add(usize::try_from(most).unwrap()).min(text.len());
            Ok(text[from..to].to_vec())
        }
    }

    /// A stream of parts, each written at a moment.
    fn lane(texts: &mut Texts, stream: &'static str, parts: &[(u64, &str)], gaps: Vec<(u64, u64)>) -> Lane {
        let mut text = Vec::new();
        let mut marks = Vec::new();
        for (at_ms, part) in parts {
            marks.push((text.len() as u64, *at_ms));
            text.extend_from_slice(part.as_bytes());
        }
        let end = text.len() as u64;
        texts.0.insert(stream, text);
        Lane::new(stream, 0, end, gaps, Times::of_marks(&marks))
    }

    fn merged(texts: &Texts, lanes: &mut [Lane]) -> String {
        let mut out = Vec::new();
        while let Some(piece) = next(lanes, texts).unwrap() {
            assert!(piece.from < piece.to, "{piece:?}");
            let lane = &lanes[piece.lane];
            if lane.gap_at(piece.from).is_none() {
                out.extend(texts.read(lane.stream, piece.from, piece.to - piece.from).unwrap());
            }
        }
        String::from_utf8(out).unwrap()
    }

    fn both(stdout: &[(u64, &str)], stderr: &[(u64, &str)]) -> String {
        let mut texts = Texts(BTreeMap::new());
        let mut lanes = vec![
            lane(&mut texts, "stdout", stdout, Vec::new()),
            lane(&mut texts, "stderr", stderr, Vec::new()),
        ];
        merged(&texts, &mut lanes)
    }

    #[test]
    fn lines_of_two_streams_come_by_their_times_and_whole() {
        assert_eq!(
            both(
                &[(1_000, "a\nb\n"), (3_000, "c\nd "), (5_000, "d\n")],
                &[(2_000, "A\nB\n"), (4_000, "C\nD\n")]
            ),
            "a\nb\nA\nB\nc\nC\nD\nd d\n",
            "a line counts by its end"
        );
        assert_eq!(both(&[(1_000, "a\n"), (2_000, "b\n")], &[(1_000, "A\n")]), "a\nA\nb\n", "equal times");
        assert_eq!(both(&[(1_000, "10%\r20%")], &[(2_000, "A\n"), (3_000, "B\n")]), "A\nB\n10%\r20%");
        assert_eq!(both(&[(0, "a\nb\n")], &[(0, "A\n")]), "a\nb\nA\n", "without times, stream after stream");
        // A clock that was set back in both: neither stream loses its own order.
        assert_eq!(
            both(&[(9_000, "a\n"), (5_000, "b\n")], &[(9_001, "A\n"), (5_001, "B\n")]),
            "a\nb\nA\nB\n"
        );
    }

    #[test]
    fn what_is_missing_ends_a_line_and_has_its_place() {
        let mut texts = Texts(BTreeMap::new());
        let mut lanes = vec![
            lane(&mut texts, "stdout", &[(1_000, "a\nb"), (3_000, "..."), (4_000, "c\n")], vec![(3, 6)]),
            lane(&mut texts, "stderr", &[(2_000, "A\n"), (5_000, "B\n")], Vec::new()),
        ];
        assert_eq!(merged(&texts, &mut lanes), "a\nbA\nc\nB\n");
    }

    #[test]
    fn the_last_lines_are_counted_as_a_person_counts_them() {
        let texts = Texts(BTreeMap::from([("stdout", b"a\nbb\nccc\nd".to_vec())]));
        let last = |range, lines| last_lines(&texts, "stdout", range, lines).unwrap();
        assert_eq!([0, 1, 2, 3].map(|n| last((0, 10), n)), [(10, 0), (9, 1), (5, 2), (2, 3)]);
        assert_eq!((last((0, 10), 9), last((0, 9), 1), last((2, 9), 5)), ((0, 4), (5, 1), (2, 2)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against sorting all lines by their times, which a file of any size
        /// does not allow.
        #[test]
        fn it_is_what_sorting_would_give(
            streams in prop::collection::vec(prop::collection::vec((1_u64..5, "[ab\r]{0,3}\n?"), 0..12), 1..4),
        ) {
            let names = ["setup", "stdout", "stderr"];
            let mut texts = Texts(BTreeMap::new());
            let mut lanes = Vec::new();
            let mut lines: Vec<(u64, usize, String)> = Vec::new();
            for (index, parts) in streams.iter().enumerate() {
                let mut at = 0;
                let parts: Vec<(u64, &str)> = parts
                    .iter()
                    .filter(|(_, text)| !text.is_empty())
                    .map(|(step, text)| { at += step * 1_000; (at, text.as_str()) })
                    .collect();
                let mut line = String::new();
                for (at, text) in &parts {
                    line.push_str(text);
                    if text.ends_with('\n') {
                        lines.push((*at, index, std::mem::take(&mut line)));
                    }
                }
                lines.push((u64::MAX, index, line));
                lanes.push(lane(&mut texts, names[index], &parts, Vec::new()));
            }
            lines.sort_by_key(|(at, index, _)| (*at, *index));
            let expected: String = lines.into_iter().map(|(_, _, line)| line).collect();
            prop_assert_eq!(merged(&texts, &mut lanes), expected);
        }
    }
}
