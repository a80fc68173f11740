//! JSON as Python writes it, `NaN` and `Infinity` included: a loss that
//! diverged must not make a finished checkpoint look torn; and as people write
//! it, with a byte order mark or comments. Read as a stream: a long log of a
//! training is never held in memory.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _};

use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Judged, Structure};

const MAX: u64 = 256 << 20;
/// The longest first line by which a file of lines is known.
const LINE: u64 = 1 << 20;
/// What some editors put before a text.
const MARK: &[u8] = b"\xef\xbb\xbf";

pub(super) fn judge(file: &File, size: u64) -> Judged {
    if size > MAX {
        return Ok(Structure::Free);
    }
    Ok(match read::<IgnoredAny>(file, size)? {
        Ok(_) => Structure::Sound("json"),
        // A document per line: where that ends, nothing tells.
        Err(_) if is_of_lines(file, size)? => Structure::Free,
        Err(why) => Structure::Odd(format!("it does not parse as JSON: {why}")),
    })
}

/// Reads a document of at most 256 MiB; the inner error says why it is torn.
pub(super) fn read<T: DeserializeOwned>(file: &File, size: u64) -> io::Result<Result<T, String>> {
    if size > MAX {
        return Ok(Err(format!("it has {size} bytes")));
    }
    let mut file = file;
    file.rewind()?;
    let mut begin = Vec::new();
    file.take(size.min(MARK.len() as u64)).read_to_end(&mut begin)?;
    let rest = file.take(size - begin.len() as u64);
    if begin == MARK {
        begin.fill(b' ');
    }
    let of = begin.as_slice().chain(rest);
    let plain = Plain { of, quoted: false, escaped: false, word: b"", comment: Comment::No };
    match serde_json::from_reader(BufReader::with_capacity(1 << 16, plain)) {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.is_io() => Err(error.into()),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Whether the first line is a document, and others follow it.
fn is_of_lines(file: &File, size: u64) -> io::Result<bool> {
    let mut file = file;
    file.rewind()?;
    let mut line = Vec::new();
    BufReader::new(file.take(LINE)).read_until(b'\n', &mut line)?;
    let is_one = line.len() as u64 + 1 < size && line.ends_with(b"\n") && line.starts_with(b"{");
    Ok(is_one && read::<IgnoredAny>(file, line.len() as u64)?.is_ok())
}

/// Where a comment stands, which JSON does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comment {
    No,
    /// One stroke was read.
    Begins,
    /// Until the end of the line.
    Line,
    /// Until a star and a stroke; whether the star was read.
    Block(bool),
}

/// Puts zeros where Python writes numbers that JSON does not have, and blanks
/// where people write comments.
struct Plain<R> {
    of: R,
    quoted: bool,
    escaped: bool,
    /// What is left of a word that became a number.
    word: &'static [u8],
    comment: Comment,
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.of.read(buffer)?;
        for byte in &mut buffer[..got] {
            *byte = self.plain(*byte);
        }
        Ok(got)
    }
}

impl<R> Plain<R> {
    fn plain(&mut self, byte: u8) -> u8 {
        if self.comment != Comment::No {
            return self.commented(byte);
        }
        if let Some((expected, rest)) = self.word.split_first() {
            self.word = rest;
            if byte == *expected {
                return b' ';
            }
            // Another word: nothing that begins so is JSON.
            self.word = b"";
            return b'?';
        }
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.quoted => self.escaped = true,
            b'"' => self.quoted = !self.quoted,
            b'N' if !self.quoted => {
                self.word = b"aN";
                return b'0';
            }
            b'I' if !self.quoted => {
                self.word = b"nfinity";
                return b'0';
            }
            b'/' if !self.quoted => {
                self.comment = Comment::Begins;
                return b' ';
            }
            _ => {}
        }
        byte
    }

    fn commented(&mut self, byte: u8) -> u8 {
        self.comment = match (self.comment, byte) {
            (Comment::Begins, b'/') => Comment::Line,
            (Comment::Begins, b'*') => Comment::Block(false),
            (Comment::Line, b'\n') | (Comment::Block(true), b'/') => Comment::No,
            (Comment::Block(_), byte) => Comment::Block(byte == b'*'),
            (Comment::Line, _) => Comment::Line,
            // A stroke by itself is nothing.
            (Comment::Begins | Comment::No, _) => {
                self.comment = Comment::No;
                return b'?';
            }
        };
        b' '
    }
}
