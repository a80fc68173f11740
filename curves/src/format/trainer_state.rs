//! `trainer_state.json` of the Hugging Face Trainer: one JSON document whose
//! `log_history` holds the rows.
//!
//! Read piece by piece: every row that is whole is found, also when the file
//! was cut while it was written.

use super::MAX_RECORD_BYTES;
use super::fields::Schema;
use super::json::{self, Lexer};
use super::jsonl::Rows;
use super::wandb::emit;
use crate::log::{Counts, Reader, Record, Sink, Value};

/// Reads a state of the Trainer.
#[derive(Debug, Default)]
pub struct TrainerState {
    scan: Scan,
    rows: Rows,
    counts: Counts,
}

/// Where in the document the next byte stands.
#[derive(Debug, Default)]
struct Scan {
    /// Brackets open.
    depth: u64,
    in_string: bool,
    escaped: bool,
    /// Within `log_history`.
    in_history: bool,
    /// The first byte opened no object, or the document is over.
    over: bool,
    /// The member or the row that is being gathered.
    piece: Vec<u8>,
    piece_at: u64,
    too_long: bool,
    at: u64,
}

enum Done {
    Nothing,
    Row,
    Member,
}

impl TrainerState {
    /// A reader at the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self { rows: Rows::new(Schema::default()), ..Self::default() }
    }

    fn done(&mut self, done: &Done, sink: &mut dyn Sink) {
        let (at, counts) = (self.scan.piece_at, &mut self.counts);
        let whole = match done {
            Done::Nothing => return,
            _ if self.scan.too_long => {
                counts.skipped.hit(at);
                self.scan.clear();
                return;
            }
            Done::Row => self.rows.push(&self.scan.piece, at, counts, sink),
            Done::Member if self.scan.piece.is_empty() => true,
            Done::Member => {
                let whole = member(&self.scan.piece, sink).is_some();
                counts.records += u64::from(whole);
                whole
            }
        };
        if !whole {
            counts.corrupt.hit(at);
        }
        self.scan.clear();
    }
}

impl Reader for TrainerState {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        self.counts.bytes += bytes.len() as u64;
        for &byte in bytes {
            if self.scan.over {
                return;
            }
            let done = self.scan.byte(byte, &mut self.counts);
            self.done(&done, sink);
        }
    }

    fn finish(&mut self, _sink: &mut dyn Sink) {
        self.counts.torn = Default::default();
        if !self.scan.over && self.scan.depth > 0 {
            self.counts.torn.add(self.scan.at - self.scan.piece_at, self.scan.piece_at);
        }
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Scan {
    fn clear(&mut self) {
        self.piece.clear();
        self.too_long = false;
        self.piece_at = self.at;
    }

    fn push(&mut self, byte: u8) {
        if self.piece.len() < MAX_RECORD_BYTES {
            self.piece.push(byte);
        } else {
            self.too_long = true;
        }
    }

    fn byte(&mut self, byte: u8, counts: &mut Counts) -> Done {
        self.at += 1;
        if self.in_string {
            self.push(byte);
            // No text goes over a line: a quote that stands there by a flipped bit must
            // not swallow the rows behind it.
            self.in_string = byte != b'\n' && (self.escaped || byte != b'"');
            self.escaped = self.in_string && byte == b'\\' && !self.escaped;
            return Done::Nothing;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' if self.piece.is_empty() => {
                self.piece_at = self.at;
                Done::Nothing
            }
            _ if self.depth == 0 && byte != b'{' => {
                counts.unknown.hit(self.at - 1);
                self.over = true;
                Done::Nothing
            }
            b'{' if self.in_history && self.depth == 3 && self.ends_with_comma() => {
                // Nothing stands so within a row: the one before has lost its end.
                counts.corrupt.hit(self.piece_at);
                self.clear();
                self.push(byte);
                Done::Nothing
            }
            b'{' | b'[' => {
                self.depth += 1;
                if self.depth == 1 {
                    self.clear();
                } else {
                    self.push(byte);
                }
                if self.depth == 2 && byte == b'[' && is_history(&self.piece) {
                    self.in_history = true;
                    self.clear();
                }
                Done::Nothing
            }
            b'}' | b']' => self.close(byte, counts),
            b',' if self.depth == 1 => Done::Member,
            b',' if self.depth == 2 && self.in_history => {
                self.clear();
                Done::Nothing
            }
            _ => {
                self.in_string = byte == b'"';
                self.push(byte);
                Done::Nothing
            }
        }
    }

    fn ends_with_comma(&self) -> bool {
        self.piece.iter().rev().find(|byte| !byte.is_ascii_whitespace()) == Some(&b',')
    }

    fn close(&mut self, byte: u8, counts: &mut Counts) -> Done {
        match (self.depth, byte) {
            // A row has lost its beginning, or the last one its end.
            (2, b'}') if self.in_history => {
                counts.corrupt.hit(self.piece_at);
                self.clear();
                return Done::Nothing;
            }
            (3, b']') if self.in_history => {
                counts.corrupt.hit(self.piece_at);
                self.depth = 2;
            }
            _ => {}
        }
        self.depth -= 1;
        match self.depth {
            0 => {
                self.over = true;
                Done::Member
            }
            1 if self.in_history => {
                self.in_history = false;
                self.clear();
                Done::Nothing
            }
            2 if self.in_history => {
                self.push(byte);
                Done::Row
            }
            _ => {
                self.push(byte);
                Done::Nothing
            }
        }
    }
}

/// Whether what was gathered is the key of the rows and their bracket. Asked
/// for every bracket of a member, which may have millions.
fn is_history(piece: &[u8]) -> bool {
    if piece.len() > 64 {
        return false;
    }
    let mut lexer = Lexer::new(piece);
    lexer.string().is_some_and(|key| key.bytes == b"log_history")
        && lexer.eat(b':').is_some()
        && lexer.eat(b'[').is_some()
        && lexer.at_end()
}

/// A member of the outermost object.
fn member(piece: &[u8], sink: &mut dyn Sink) -> Option<()> {
    let mut lexer = Lexer::new(piece);
    lexer.peek()?;
    let key = lexer.string()?.text();
    lexer.eat(b':')?;
    let value = json::parse(&piece[lexer.at..])?;
    // The settings of one trial of a search.
    let config = key == "trial_params";
    if value != Value::Null {
        let path: &[&str] = if config { &[] } else { &[&key] };
        emit(path, value, &mut |path, value| match (path, config) {
            ([], _) => {}
            (path, true) => sink.record(Record::Config { path, value }),
            (path, false) => sink.record(Record::Summary { path, value }),
        });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Collected;

    #[test]
    fn a_flipped_bit_costs_its_row() {
        let row = |step: u64| format!("  {{\n   \"loss\": 0.5,\n   \"step\": {step}\n  }}");
        let rows: Vec<String> = (0..9).map(row).collect();
        let text = format!("{{\n \"log_history\": [\n{}\n ],\n \"max_steps\": 9\n}}\n", rows.join(",\n"));
        let begin = text.find("{\n   \"loss\": 0.5,\n   \"step\": 4").expect("the row");
        let end = begin + row(4).len();
        for (at, with) in (begin..end).flat_map(|at| [(at, b'"'), (at, b' '), (at, b'~')]) {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = with;
            let (mut reader, mut log) = (TrainerState::new(), Collected::default());
            reader.feed(&bytes, &mut log);
            reader.finish(&mut log);
            let found = log.column("loss").map_or(0, |column| column.values.len());
            assert!(found >= 7 && !log.summary.is_empty(), "byte {at}: {found}");
        }
    }
}
