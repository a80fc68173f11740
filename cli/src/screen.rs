//! What a program wrote, as a terminal would show it, and nothing that a
//! terminal would obey. Programs on machines are not trusted with the
//! operator's terminal: titles, clipboard, hyperlinks, cursor movement and
//! clearing go, colours stay; what cannot be shown is spelt out. A line that
//! is painted over and over (`\r`) has one state, the last. Pure: bytes in,
//! lines out; never holds more than one line's first cells, whatever comes.

pub mod parser;
pub mod view;

use std::fmt::Write as _;

use parser::{Parser, Part};

/// Cells of one line that are held; what is longer is shown in pieces.
const CELLS: usize = 64 << 10;
/// Ways of marking text within one line; more are shown plain.
const STYLES: usize = 256;
/// Bytes of one way of marking text.
const STYLE_BYTES: usize = 128;
const TAB: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    shown: char,
    style: u16,
}

/// One stream on its way to a terminal.
#[derive(Debug, Default)]
pub struct Screen {
    parser: Parser,
    cells: Vec<Cell>,
    column: usize,
    /// Marks that are in force, as sequences; and by number those of this line.
    style: String,
    styles: Vec<String>,
    number: u16,
    /// A piece of this line was given out already.
    continues: bool,
    at_ms: Option<u64>,
}

/// A line, or a piece of a very long one, as a terminal would show it.
#[derive(Debug)]
pub struct Line<'a> {
    cells: &'a [Cell],
    styles: &'a [String],
    /// When its first byte was written, unix milliseconds; 0 is unknown.
    pub at_ms: u64,
    /// It begins a line; else it goes on with one.
    pub begins: bool,
    /// It ends a line.
    pub ends: bool,
}

impl Line<'_> {
    /// The text alone.
    #[must_use]
    pub fn plain(&self) -> String {
        self.cells.iter().map(|cell| cell.shown).collect()
    }

    /// The text with its colours; after it none is in force.
    #[must_use]
    pub fn coloured(&self) -> String {
        let mut out = String::with_capacity(self.cells.len() + 16);
        let mut now = 0;
        for cell in self.cells {
            if cell.style != now {
                if now != 0 {
                    out.push_str("\x1b[0m");
                }
                if let Some(style) = self.styles.get(usize::from(cell.style).wrapping_sub(1)) {
                    out.push_str(style);
                }
                now = cell.style;
            }
            out.push(cell.shown);
        }
        if now != 0 {
            out.push_str("\x1b[0m");
        }
        out
    }
}

impl Screen {
    /// Takes bytes that were written at `at_ms` and gives every line that they
    /// end.
    pub fn feed(&mut self, bytes: &[u8], at_ms: u64, give: &mut dyn FnMut(&Line<'_>)) {
        let mut parser = std::mem::take(&mut self.parser);
        parser.feed(bytes, &mut |part| self.take(part, at_ms, give));
        self.parser = parser;
    }

    /// The stream has ended: gives what is left of a line.
    pub fn finish(&mut self, give: &mut dyn FnMut(&Line<'_>)) {
        let mut parser = std::mem::take(&mut self.parser);
        parser.finish(&mut |part| self.take(part, 0, give));
        if !self.cells.is_empty() {
            give(&self.line(false));
        }
        *self = Self::default();
    }

    /// The unfinished line as it stands now; `None` where there is nothing.
    #[must_use]
    pub fn unfinished(&self) -> Option<Line<'_>> {
        (!self.cells.is_empty()).then(|| self.line(false))
    }

    fn line(&self, ends: bool) -> Line<'_> {
        let (begins, at_ms) = (!self.continues, self.at_ms.unwrap_or(0));
        Line { cells: &self.cells, styles: &self.styles, at_ms, begins, ends }
    }

    fn take(&mut self, part: Part<'_>, at_ms: u64, give: &mut dyn FnMut(&Line<'_>)) {
        self.at_ms.get_or_insert(at_ms);
        match part {
            Part::Text(c) => self.put(c, give),
            Part::Odd(byte) => {
                for c in format!("\\x{byte:02x}").chars() {
                    self.put(c, give);
                }
            }
            Part::OddChar(c) => {
                for c in c.escape_unicode() {
                    self.put(c, give);
                }
            }
            Part::NewLine => {
                give(&self.line(true));
                self.begin_line();
                self.continues = false;
                self.at_ms = None;
            }
            Part::Return => self.column = 0,
            Part::Back => self.column = self.column.saturating_sub(1),
            Part::Tab => {
                // What stands below the way to the stop stays.
                let stop = ((self.column / TAB + 1) * TAB).min(CELLS);
                self.column = stop.min(self.cells.len()).max(self.column);
                while self.column < stop {
                    self.put(' ', give);
                }
            }
            Part::Mark(sequence) => self.mark(sequence),
            Part::EraseRight => self.cells.truncate(self.column),
            Part::EraseLeft => {
                for cell in self.cells.iter_mut().take(self.column + 1) {
                    *cell = Cell { shown: ' ', style: 0 };
                }
            }
            Part::EraseLine => self.cells.clear(),
        }
    }

    fn put(&mut self, c: char, give: &mut dyn FnMut(&Line<'_>)) {
        if self.column >= CELLS {
            give(&self.line(false));
            self.begin_line();
            self.continues = true;
        }
        let cell = Cell { shown: c, style: self.number };
        match self.cells.get_mut(self.column) {
            Some(old) => *old = cell,
            None => {
                self.cells.resize(self.column, Cell { shown: ' ', style: 0 });
                self.cells.push(cell);
            }
        }
        self.column += 1;
    }

    fn begin_line(&mut self) {
        self.cells.clear();
        self.styles.clear();
        self.column = 0;
        self.number = 0;
        self.count_style();
    }

    /// Marks that are in force go on until they are reset.
    fn mark(&mut self, sequence: &str) {
        if sequence.is_empty() {
            self.style.clear();
        } else {
            if self.style.len() + sequence.len() + 3 > STYLE_BYTES {
                self.style.clear();
            }
            let _ = write!(self.style, "\x1b[{sequence}m");
        }
        self.count_style();
    }

    fn count_style(&mut self) {
        self.number = 0;
        if self.style.is_empty() {
            return;
        }
        let known = self.styles.iter().position(|style| *style == self.style);
        let index = known.unwrap_or(self.styles.len());
        if known.is_none() {
            if index >= STYLES {
                return;
            }
            self.styles.push(self.style.clone());
        }
        self.number = u16::try_from(index + 1).unwrap_or(0);
    }
}

/// What some bytes look like, without colours: all lines, the last state of
/// each.
#[must_use]
pub fn plain(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut screen = Screen::default();
    let mut add = |line: &Line<'_>| {
        text.push_str(&line.plain());
        if line.ends {
            text.push('\n');
        }
    };
    screen.feed(bytes, 0, &mut add);
    screen.finish(&mut add);
    text
}

#[cfg(test)]
mod tests;
