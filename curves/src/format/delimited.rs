//! Tables of text: comma, semicolon or tab, with a line of names on top.
//!
//! Reads what Lightning, Keras and dvclive write and what people export. A row
//! that has not as many cells as there are names is corrupt, since its values
//! might stand under the wrong name; so is one whose last quote is missing, and one
//! whose step is no number: its values would go to the step before. An
//! unfinished last line is never read: a number that lacks its last digits
//! looks like a number. A comma within a number may be decimal or part thousands:
//! such a cell is counted, never guessed at.

use std::borrow::Cow;

use super::fields::{Fields, Schema};
use super::lines::Lines;
use crate::log::{Counts, MAX_METRICS, Reader, Record, Sink};

/// Reads CSV, TSV and the like.
#[derive(Debug, Default)]
pub struct Delimited {
    lines: Lines,
    table: Table,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Table {
    fields: Fields,
    /// What the last column is called, instead of what the file says.
    last: Option<String>,
    separator: u8,
    header: Vec<u8>,
    /// Field of each column; `None` where there were too many names.
    columns: Vec<Option<u32>>,
    /// Cells of the present row that begin like numbers and are none.
    unread: u64,
    /// A cell of the present row that should count steps holds something else.
    no_step: bool,
}

impl Delimited {
    /// A reader at the start of a file.
    #[must_use]
    pub fn new(schema: Schema) -> Self {
        let table = Table { fields: Fields::new(schema), ..Table::default() };
        Self { table, ..Self::default() }
    }

    /// The same for tools that keep a file for each metric, whose full name is
    /// only in the file's path: it becomes the name of the last column.
    #[must_use]
    pub fn of_metric(name: &str, schema: Schema) -> Self {
        let mut reader = Self::new(schema);
        reader.table.last = Some(name.to_owned());
        reader
    }
}

impl Reader for Delimited {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let table = &mut self.table;
        self.lines.feed(bytes, &mut self.counts, |at, line, counts| table.line(at, line, counts, sink));
    }

    fn finish(&mut self, _sink: &mut dyn Sink) {
        self.lines.count_torn(&mut self.counts);
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Table {
    fn line(&mut self, at: u64, line: &[u8], counts: &mut Counts, sink: &mut dyn Sink) {
        let line = if at == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        if line.first() == Some(&b'#') {
            counts.aside.hit(at);
            return;
        }
        if self.header.is_empty() {
            self.separator = separator(line);
            self.take_header(at, line, counts, sink);
        } else if line == self.header || self.is_header(line) {
            // A program that was started anew and appends to its old file.
            sink.record(Record::Segment { from: None });
            self.take_header(at, line, counts, sink);
        } else {
            self.row(at, line, counts, sink);
        }
    }

    /// Takes the first line as names, or makes some up when it has numbers.
    fn take_header(&mut self, at: u64, line: &[u8], counts: &mut Counts, sink: &mut dyn Sink) {
        let Some(cells) = cells(line, self.separator) else {
            counts.corrupt.hit(at);
            return;
        };
        let named = !cells.iter().any(|cell| number(cell).is_some());
        self.columns.clear();
        for (index, cell) in cells.iter().enumerate() {
            let last = self.last.as_deref().filter(|_| index > 0 && index + 1 == cells.len());
            let name: Cow<'_, [u8]> = match last {
                Some(last) => last.as_bytes().into(),
                None if named && !cell.trim_ascii().is_empty() => cell.trim_ascii().into(),
                None => {
                    counts.unnamed.hit(at);
                    format!("column {}", index + 1).into_bytes().into()
                }
            };
            self.columns.push(self.fields.field(&name));
        }
        self.header = line.to_vec();
        if named {
            counts.records += 1;
        } else {
            self.row(at, line, counts, sink);
        }
    }

    /// Whether a later line holds names again, perhaps other ones.
    fn is_header(&self, line: &[u8]) -> bool {
        let first = |line: &[u8]| {
            let end = memchr::memchr(self.separator, line).unwrap_or(line.len());
            line[..end].to_vec()
        };
        // Cheap enough for every row: most fail on their first byte.
        line.first() == self.header.first()
            && first(line) == first(&self.header)
            && cells(line, self.separator).is_some_and(|cells| {
                cells.iter().all(|cell| !cell.trim_ascii().is_empty() && number(cell).is_none())
            })
    }

    fn row(&mut self, at: u64, line: &[u8], counts: &mut Counts, sink: &mut dyn Sink) {
        self.fields.begin();
        (self.unread, self.no_step) = (0, false);
        let found = if memchr::memchr(b'"', line).is_none() {
            self.plain_row(line)
        } else {
            cells(line, self.separator).is_some_and(|cells| {
                let excess = cells.len() == self.columns.len() + 1
                    && cells.last().is_some_and(|cell| cell.trim_ascii().is_empty());
                for (column, cell) in cells.iter().enumerate().take(self.columns.len()) {
                    self.cell(column, cell);
                }
                cells.len() == self.columns.len() || excess
            })
        };
        if found && !(self.no_step && self.fields.lacks_step()) {
            counts.records += 1;
            counts.dropped.add(self.fields.end(sink), at);
            counts.unread.add(self.unread, at);
        } else {
            counts.corrupt.hit(at);
        }
    }

    /// A row without quotes, cell by cell: whether it has as many as the header.
    fn plain_row(&mut self, line: &[u8]) -> bool {
        let mut column = 0;
        let mut from = 0;
        loop {
            let end = memchr::memchr(self.separator, &line[from..]).map(|end| from + end);
            let cell = &line[from..end.unwrap_or(line.len())];
            if column < self.columns.len() {
                self.cell(column, cell);
            } else if column > self.columns.len() || !cell.trim_ascii().is_empty() {
                return false;
            }
            column += 1;
            match end {
                Some(end) => from = end + 1,
                None => return column >= self.columns.len(),
            }
        }
    }

    fn cell(&mut self, column: usize, cell: &[u8]) {
        let cell = cell.trim_ascii();
        if cell.is_empty() {
            return;
        }
        match self.columns.get(column).copied().flatten() {
            None => self.fields.drop_value(),
            Some(field) => match number(cell) {
                Some(value) => self.fields.value(field, value),
                None if self.fields.is_time(field) => {
                    self.fields.text(field, &String::from_utf8_lossy(cell));
                }
                None => {
                    let counts = self.fields.is_step(field);
                    if let Some(step) = grouped(cell).filter(|_| counts) {
                        return self.fields.value(field, step);
                    }
                    self.no_step |= counts;
                    self.unread += u64::from(begins_like_a_number(cell));
                }
            },
        }
    }
}

/// What the first line is cut at: the sign that is most often in it.
fn separator(line: &[u8]) -> u8 {
    let count = |sign: u8| memchr::memchr_iter(sign, line).count();
    // Of equals the last one counts.
    [b';', b'\t', b','].into_iter().max_by_key(|&sign| count(sign)).unwrap_or(b',')
}

fn begins_like_a_number(cell: &[u8]) -> bool {
    let digits = cell.strip_prefix(b"-").or_else(|| cell.strip_prefix(b"+")).unwrap_or(cell);
    digits.first().is_some_and(u8::is_ascii_digit)
}

/// `1,000` where steps are counted: no decimal comma stands in a count.
fn grouped(cell: &[u8]) -> Option<f64> {
    number(crate::number::ungrouped(std::str::from_utf8(cell).ok()?)?.as_bytes())
}

fn number(cell: &[u8]) -> Option<f64> {
    let cell = cell.trim_ascii();
    let (value, used) = fast_float2::parse_partial::<f64, _>(cell).ok()?;
    (used == cell.len()).then_some(value)
}

/// The cells of a line as RFC 4180 has them; `None` when a quote is left open,
/// or when there are more than metrics can be.
fn cells(line: &[u8], separator: u8) -> Option<Vec<Cow<'_, [u8]>>> {
    let mut out = Vec::new();
    let mut rest = line;
    loop {
        if out.len() > MAX_METRICS {
            return None;
        }
        let cell: Cow<'_, [u8]>;
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            let mut text = Vec::new();
            let mut at = 0;
            loop {
                let quote = at + memchr::memchr(b'"', &quoted[at..])?;
                text.extend_from_slice(&quoted[at..quote]);
                at = quote + 1;
                if quoted.get(at) != Some(&b'"') {
                    break;
                }
                text.push(b'"');
                at += 1;
            }
            rest = &quoted[at..];
            cell = text.into();
            if !rest.is_empty() && rest[0] != separator {
                return None;
            }
        } else {
            let end = memchr::memchr(separator, rest).unwrap_or(rest.len());
            cell = rest[..end].into();
            rest = &rest[end..];
        }
        out.push(cell);
        match rest.split_first() {
            None => return Some(out),
            Some((_, after)) => rest = after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Collected;

    fn counts(text: &str) -> (Counts, Vec<String>) {
        let (mut reader, mut log) = (Delimited::new(Schema::default()), Collected::default());
        reader.feed(text.as_bytes(), &mut log);
        reader.finish(&mut log);
        (*reader.counts(), log.names.iter().map(str::to_owned).collect())
    }

    #[test]
    fn cells_that_are_lost_and_columns_that_were_given_names_are_counted() {
        let (found, names) =
            counts("step,loss,acc,split\n0,\"3,0000\",0.1,train\n1,\"2,9\",0.2,\n2,12 ms,0.3,val\n");
        assert_eq!(names, ["acc"]);
        assert_eq!((found.unread.count, found.unread.first, found.unnamed.count), (3, Some(20), 0));
        let (found, names) = counts("0,3.0,0.0\n1,2.9,0.1\n");
        assert_eq!(names, ["column 1", "column 2", "column 3"]);
        assert_eq!((found.unread.count, found.unnamed.count, found.unnamed.first), (0, 3, Some(0)));
        assert_eq!(counts("step,time,loss\n0,2026-01-31 10:00:00,3.0\n").0.unread.count, 0, "a time is read");
    }

    #[test]
    fn a_row_whose_step_is_no_number_goes_to_no_other_step() {
        let rows = |text: &str| {
            let (mut reader, mut log) = (Delimited::new(Schema::default()), Collected::default());
            reader.feed(text.as_bytes(), &mut log);
            let pairs: Vec<_> = log.column("loss").map(|column| column.pairs().collect()).unwrap_or_default();
            (pairs, reader.counts().corrupt.count)
        };
        let zeros = "\0".repeat(512);
        assert_eq!(
            rows(&format!("step,loss\n19,0.5\n{zeros}20,0.25\n")),
            (vec![(Some(19), 0.5), (Some(20), 0.25)], 1)
        );
        assert_eq!(rows("step,loss\n19,0.5\nfinal,0.25\n"), (vec![(Some(19), 0.5)], 1));
        assert_eq!(
            rows("step,loss\n999,0.5\n\"1,000\",0.25\n"),
            (vec![(Some(999), 0.5), (Some(1000), 0.25)], 0)
        );
        // A column of words is no count of steps, and its rows are not lost.
        assert_eq!(rows("epoch,loss\nfirst,0.5\nlast,0.25\n"), (vec![(None, 0.5), (None, 0.25)], 0));
    }
}
