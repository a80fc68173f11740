//! JSON as Python writes it, `NaN` and `Infinity` included: a loss that
//! diverged must not make a finished checkpoint look torn. Read as a stream: a
//! long log of a training is never held in memory.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _};

use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Judged, Structure, torn};

const MAX: u64 = 256 << 20;
/// The longest first line by which a file of lines is known.
const LINE: u64 = 1 << 20;

pub(super) fn judge(file: &File, size: u64) -> Judged {
    if size > MAX {
        return Ok(Structure::Free);
    }
    Ok(match read::<IgnoredAny>(file, size)? {
        Ok(_) => Structure::Sound("json"),
        // A document per line: where that ends, nothing tells.
        Err(_) if is_of_lines(file, size)? => Structure::Free,
        Err(why) => return torn(format!("it does not parse as JSON: {why}")),
    })
}

/// Reads a document of at most 256 MiB; the inner error says why it is torn.
pub(super) fn read<T: DeserializeOwned>(file: &File, size: u64) -> io::Result<Result<T, String>> {
    if size > MAX {
        return Ok(Err(format!("it has {size} bytes")));
    }
    let mut file = file;
    file.rewind()?;
    let plain = PlainNumbers { of: file.take(size), quoted: false, escaped: false, word: b"" };
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

/// Puts zeros where Python writes numbers that JSON does not have.
struct PlainNumbers<R> {
    of: R,
    quoted: bool,
    escaped: bool,
    /// What is left of a word that became a number.
    word: &'static [u8],
}

impl<R: Read> Read for PlainNumbers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.of.read(buffer)?;
        for byte in &mut buffer[..got] {
            *byte = self.plain(*byte);
        }
        Ok(got)
    }
}

impl<R> PlainNumbers<R> {
    fn plain(&mut self, byte: u8) -> u8 {
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
            _ => {}
        }
        byte
    }
}
