//! How a stream is shown: as the bytes that it is, line by line, or as a
//! terminal would show it; with times in front, and only the lines that are
//! wanted. Bytes on their way to a file or another program stay what they are.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use regex::Regex;

use super::{Line, Screen, plain};
use crate::commands::moment;

/// Bytes of a line that are held; a longer one is taken in pieces, each looked
/// at for itself.
pub const LINE: usize = 64 << 10;
/// What a pattern may need once it is compiled.
const PATTERN: usize = 1 << 20;

/// What of the output is shown, and how.
#[derive(Debug, Clone, Default)]
pub struct How {
    /// As a terminal would show it; else as the bytes that it is.
    pub screen: bool,
    /// With the program's colours, on a screen.
    pub colour: bool,
    /// The time of each line's first byte in front of it.
    pub times: bool,
    /// Only lines in which this is found.
    pub pattern: Option<Regex>,
    /// Only lines in which it is not.
    pub invert: bool,
    /// Only lines that a launcher marked as this rank's.
    pub rank: Option<u32>,
    /// Whose lines were there, where one rank's are asked for.
    pub ranks: Ranks,
}

/// So many ranks are remembered: output may name any number of them.
const RANKS: usize = 1 << 16;

/// Ranks that lines were marked with.
#[derive(Debug, Clone, Default)]
pub struct Ranks(Arc<Mutex<BTreeSet<u32>>>);

impl Ranks {
    fn seen(&self, rank: u32, wanted: u32) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < RANKS || rank == wanted {
            all.insert(rank);
        }
    }

    /// Whether a line of this rank was there.
    #[must_use]
    pub fn has(&self, rank: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&rank)
    }

    /// The ranks in words: `0-3, 7`; empty where no line was marked.
    #[must_use]
    pub fn words(&self) -> String {
        const MOST: usize = 16;
        let mut spans: Vec<(u32, u32)> = Vec::new();
        for rank in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            match spans.last_mut() {
                Some((_, last)) if *last + 1 == *rank => *last = *rank,
                _ => spans.push((*rank, *rank)),
            }
        }
        let more = if spans.len() > MOST { ", ..." } else { "" };
        let told = spans.iter().take(MOST).map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        told.collect::<Vec<_>>().join(", ") + more
    }
}

impl How {
    /// Whether lines are left out.
    #[must_use]
    pub fn chooses(&self) -> bool {
        self.pattern.is_some() || self.rank.is_some()
    }

    fn wants(&self, text: &str) -> bool {
        let own = self.rank.is_none_or(|wanted| {
            let rank = agent::ranks::rank_of_line(text);
            rank.iter().for_each(|rank| self.ranks.seen(*rank, wanted));
            rank == Some(wanted)
        });
        own && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text) != self.invert)
    }

    fn prefix(&self, at_ms: u64, begins: bool, out: &mut Vec<u8>) {
        if self.times && (begins || self.chooses()) {
            let time = if at_ms == 0 { "-".to_owned() } else { moment(at_ms) };
            out.extend(format!("{time:<24} ").into_bytes());
        }
    }
}

/// Reads a pattern; it is matched in time that grows with the text alone.
///
/// # Errors
/// Where it is none, or larger than any that a person writes.
pub fn pattern(text: &str) -> Result<Regex, String> {
    let built = regex::RegexBuilder::new(text).size_limit(PATTERN).dfa_size_limit(PATTERN).build();
    built.map_err(|error| error.to_string())
}

enum Kind {
    Bytes,
    Lines(Cutter),
    Screen(Box<Screen>),
}

/// One stream of one attempt as it is shown.
pub struct View {
    how: Arc<How>,
    kind: Kind,
}

impl View {
    /// Shows a stream from its beginning, or from anywhere.
    #[must_use]
    pub fn new(how: &Arc<How>) -> Self {
        let kind = match how.screen {
            true => Kind::Screen(Box::default()),
            false if how.times || how.chooses() => Kind::Lines(Cutter::default()),
            false => Kind::Bytes,
        };
        Self { how: how.clone(), kind }
    }

    /// Takes bytes written at `at_ms` (0 is unknown) and adds what is to be
    /// shown now.
    pub fn feed(&mut self, bytes: &[u8], at_ms: u64, out: &mut Vec<u8>) {
        let how = &*self.how;
        match &mut self.kind {
            Kind::Bytes => out.extend_from_slice(bytes),
            Kind::Lines(cutter) => cutter.feed(bytes, at_ms, &mut |piece| show_bytes(how, piece, out)),
            Kind::Screen(screen) => screen.feed(bytes, at_ms, &mut |line| show_line(how, line, out)),
        }
    }

    /// Nothing more will come: adds what is left of a line.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let how = &*self.how;
        match &mut self.kind {
            Kind::Bytes => {}
            Kind::Lines(cutter) => cutter.finish(&mut |piece| show_bytes(how, piece, out)),
            Kind::Screen(screen) => screen.finish(&mut |line| {
                show_line(how, line, out);
                if !line.ends && !how.chooses() {
                    out.push(b'\n');
                }
            }),
        }
    }

    /// The state of a line that has not ended, for a screen.
    #[must_use]
    pub fn unfinished(&self) -> Option<String> {
        let Kind::Screen(screen) = &self.kind else { return None };
        let text = screen.unfinished()?.plain();
        self.how.wants(&text).then_some(text)
    }
}

fn show_line(how: &How, line: &Line<'_>, out: &mut Vec<u8>) {
    if how.chooses() && !how.wants(&line.plain()) {
        return;
    }
    how.prefix(line.at_ms, line.begins, out);
    out.extend(if how.colour { line.coloured() } else { line.plain() }.into_bytes());
    if line.ends || how.chooses() {
        out.push(b'\n');
    }
}

fn show_bytes(how: &How, piece: &RawLine<'_>, out: &mut Vec<u8>) {
    // A pattern is looked for in what a person would see.
    let ended = piece.bytes.ends_with(b"\n");
    if how.chooses() && !how.wants(plain(piece.bytes).trim_end_matches('\n')) {
        return;
    }
    how.prefix(piece.at_ms, piece.begins, out);
    out.extend_from_slice(piece.bytes);
    if how.chooses() && !ended {
        out.push(b'\n');
    }
}

/// A line with its end, or a piece of a very long one.
struct RawLine<'a> {
    bytes: &'a [u8],
    at_ms: u64,
    begins: bool,
}

/// Bytes to lines; holds at most [`LINE`] bytes.
#[derive(Default)]
struct Cutter {
    held: Vec<u8>,
    at_ms: u64,
    continues: bool,
}

impl Cutter {
    fn feed(&mut self, mut bytes: &[u8], at_ms: u64, give: &mut dyn FnMut(&RawLine<'_>)) {
        while !bytes.is_empty() {
            if self.held.is_empty() && !self.continues {
                self.at_ms = at_ms;
            }
            let room = LINE - self.held.len();
            let newline = bytes.iter().take(room).position(|b| *b == b'\n');
            let (now, later) = bytes.split_at(newline.map_or(room.min(bytes.len()), |at| at + 1));
            self.held.extend_from_slice(now);
            bytes = later;
            if newline.is_some() || self.held.len() >= LINE {
                self.give(give);
                self.continues = newline.is_none();
            }
        }
    }

    fn give(&mut self, give: &mut dyn FnMut(&RawLine<'_>)) {
        give(&RawLine { bytes: &self.held, at_ms: self.at_ms, begins: !self.continues });
        self.held.clear();
    }

    fn finish(&mut self, give: &mut dyn FnMut(&RawLine<'_>)) {
        if !self.held.is_empty() {
            self.give(give);
        }
        self.continues = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(how: How, parts: &[(&[u8], u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut view = View::new(&Arc::new(how));
        for (bytes, at) in parts {
            view.feed(bytes, *at, &mut out);
        }
        view.finish(&mut out);
        out
    }

    fn text(how: How, parts: &[(&[u8], u64)]) -> String {
        String::from_utf8(shown(how, parts)).unwrap()
    }

    fn grep(of: &str) -> How {
        How { pattern: Some(pattern(of).unwrap()), ..How::default() }
    }

    #[test]
    fn without_a_wish_bytes_stay_bytes() {
        let bytes = b"\x1b]0;x\x07\xff\0\r\n half";
        assert_eq!(shown(How::default(), &[(bytes, 5)]), bytes);
    }

    #[test]
    fn lines_are_found_across_chunks_and_pass_unchanged() {
        let parts: &[(&[u8], u64)] =
            &[(b"step 1 lo", 1), (b"ss \x1b[31m0.5\x1b[0m\nother\n\xffstep 2 loss: n", 2), (b"an", 3)];
        assert_eq!(
            shown(grep("loss:? 0"), parts),
            b"step 1 loss \x1b[31m0.5\x1b[0m\n",
            "colours hide nothing"
        );
        assert_eq!(shown(grep("nan$"), parts), b"\xffstep 2 loss: nan\n", "the last line needs no end");
        assert_eq!(text(How { invert: true, ..grep("step") }, parts), "other\n");
        assert_eq!(text(How { screen: true, ..grep("^step") }, parts), "step 1 loss 0.5\n");
        assert!(pattern("(").is_err() && pattern(&"a{1000}".repeat(40)).is_err());
    }

    #[test]
    fn a_ranks_lines_are_those_that_the_launcher_marked() {
        let parts: &[(&[u8], u64)] = &[(b"[rank0]: a\n[rank1]: b\nc\n[def", 1), (b"ault1]:d\n", 2)];
        let how = How { rank: Some(9), ..How::default() };
        let ranks = how.ranks.clone();
        assert_eq!((text(how, parts), ranks.words()), (String::new(), "0-1".to_owned()));
        for rank in [3, 5, 6, 7] {
            ranks.seen(rank, 9);
        }
        assert_eq!((ranks.words(), ranks.has(6), ranks.has(9)), ("0-1, 3, 5-7".to_owned(), true, false));
        // However many are named, the one that is asked for is found.
        let many = Ranks::default();
        (0..200_000).for_each(|rank| many.seen(rank, 150_000));
        assert!(many.has(150_000) && !many.has(199_999));
        assert_eq!(text(How { rank: Some(1), ..How::default() }, parts), "[rank1]: b\n[default1]:d\n");
        assert_eq!(text(How { rank: Some(1), invert: true, ..grep("b") }, parts), "[default1]:d\n");
    }

    #[test]
    fn each_line_has_the_time_of_its_first_byte() {
        let how = How { times: true, ..How::default() };
        let parts: &[(&[u8], u64)] = &[(b"a\nb", 1_000), (b"c\n", 9_000), (b"d", 0)];
        let expected = "1970-01-01T00:00:01.000Z a\n1970-01-01T00:00:01.000Z bc\n-                        d";
        assert_eq!(text(how.clone(), parts), expected);
        assert_eq!(text(How { screen: true, ..how.clone() }, parts), format!("{expected}\n"));
        // Pieces of a very long line are one line, and hold one time.
        let long = vec![b'x'; 3 * LINE + 5];
        let out = text(how, &[(&long, 1), (b"\n", 2)]);
        assert_eq!((out.len(), out.matches('Z').count()), (25 + long.len() + 1, 1));
    }

    #[test]
    fn a_line_that_has_not_ended_can_be_looked_at() {
        let mut view = View::new(&Arc::new(How { screen: true, ..How::default() }));
        let mut out = Vec::new();
        view.feed(b"done\n 10%\r 20%", 0, &mut out);
        assert_eq!((out.as_slice(), view.unfinished()), (&b"done\n"[..], Some(" 20%".to_owned())));
    }
}
