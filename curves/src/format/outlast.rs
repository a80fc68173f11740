//! What Outlast itself keeps of a run: points of metrics, one a line, and lines
//! that say what the run is and where an attempt goes on.
//!
//! ```text
//! {"t":1700000000123,"name":"loss","step":10,"value":0.5}
//! {"fact":{"run_id":"o1","name":"resnet-o1","project":"resnet","status":"RUNNING"}}
//! {"config":{"optim":{"lr":0.001}}}
//! {"segment":{"from":200}}
//! {"exit":0}
//! ```
//!
//! A value that JSON has no number for stands as text. Points that follow each
//! other with the same time and step are one row. The names are the training
//! program's: they are data.

use super::fields::Fields;
use super::json::{self, Lexer};
use super::lines::Lines;
use super::wandb::emit;
use crate::log::{Counts, Fact, Reader, Record, Sink, Value};
use crate::number::as_step;

/// Reads points and what goes with them.
#[derive(Debug)]
pub struct Outlast {
    lines: Lines,
    open: Open,
    counts: Counts,
}

/// The row that is being gathered.
#[derive(Debug)]
struct Open {
    fields: Fields,
    /// Step and milliseconds of the row.
    key: Option<(Option<u64>, u64)>,
    /// Names that are in it.
    held: Vec<u32>,
}

struct Point<'a> {
    ms: u64,
    name: std::borrow::Cow<'a, str>,
    step: Option<u64>,
    value: f64,
}

impl Outlast {
    /// A reader at the start of a file.
    #[must_use]
    pub fn new() -> Self {
        let open = Open { fields: Fields::of_metrics(), key: None, held: Vec::new() };
        Self { lines: Lines::default(), open, counts: Counts::default() }
    }
}

impl Default for Outlast {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader for Outlast {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let open = &mut self.open;
        self.lines.feed(bytes, &mut self.counts, |at, line, counts| open.line(at, line, counts, sink));
    }

    fn finish(&mut self, sink: &mut dyn Sink) {
        self.open.end(sink);
        self.lines.count_torn(&mut self.counts);
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Open {
    fn line(&mut self, at: u64, line: &[u8], counts: &mut Counts, sink: &mut dyn Sink) {
        if line.is_empty() {
            return;
        }
        if let Some(point) = point(line) {
            counts.records += 1;
            let key = (point.step, point.ms);
            if self.key != Some(key) {
                self.end(sink);
                self.key = Some(key);
            }
            match self.fields.field(point.name.as_bytes()) {
                Some(field) => {
                    if self.held.contains(&field) {
                        self.end(sink);
                        self.key = Some(key);
                    }
                    self.held.push(field);
                    self.fields.value(field, point.value);
                }
                None => counts.dropped.hit(at),
            }
            return;
        }
        self.end(sink);
        match other(line, sink) {
            Some(true) => counts.records += 1,
            Some(false) => counts.unknown.hit(at),
            None => counts.corrupt.hit(at),
        }
    }

    fn end(&mut self, sink: &mut dyn Sink) {
        if let Some((step, ms)) = self.key.take() {
            self.fields.end_at(step, Some(ms as f64 / 1000.0), sink);
        }
        self.fields.begin();
        self.held.clear();
    }
}

/// A line that is a point; `None`: it is something else.
fn point(line: &[u8]) -> Option<Point<'_>> {
    let mut lexer = Lexer::new(line);
    let (mut ms, mut name, mut step, mut value) = (None, None, None, None);
    lexer.object(|lexer, key| {
        match key.bytes {
            b"name" => name = Some(lexer.string()?.text()),
            b"value" if lexer.peek()? == b'"' => {
                value = Some(json::quoted_number(lexer.string()?.bytes)?);
            }
            b"t" | b"value" | b"step" => {
                lexer.peek()?;
                match lexer.number() {
                    Some(number) if key.bytes == b"t" => ms = as_step(number),
                    Some(number) if key.bytes == b"step" => step = as_step(number),
                    Some(number) => value = Some(number),
                    None => lexer.skip()?,
                }
            }
            _ => lexer.skip()?,
        }
        Some(())
    })?;
    lexer.at_end().then_some(())?;
    Some(Point { ms: ms?, name: name?, step, value: value? })
}

/// Any other line: whether it is of a known kind, `None` where it is no JSON.
fn other(line: &[u8], sink: &mut dyn Sink) -> Option<bool> {
    let Value::Map(members) = json::parse(line)? else { return Some(false) };
    let mut known = false;
    for (key, value) in members {
        match (key.as_str(), value) {
            ("fact", Value::Map(facts)) => {
                for (name, text) in facts.iter().filter_map(|(name, value)| Some((name, value.text()?))) {
                    if let Some(fact) = fact(name) {
                        sink.record(Record::Meta(fact, text));
                    }
                }
            }
            ("config", Value::Map(settings)) => {
                for (name, value) in settings {
                    emit(&[&name], value, &mut |path, value| sink.record(Record::Config { path, value }));
                }
            }
            ("segment", value) => {
                let from = value.member("from").and_then(Value::number).and_then(as_step);
                sink.record(Record::Segment { from });
            }
            ("started", value) => sink.record(Record::Started(value.number()?)),
            ("ended", value) => sink.record(Record::Ended(value.number()?)),
            ("exit", value) => {
                let code = value.number().filter(|code| code.abs() < 1e6)?;
                sink.record(Record::Exit { code: code as i32 });
            }
            _ => continue,
        }
        known = true;
    }
    Some(known)
}

fn fact(name: &str) -> Option<Fact> {
    Some(match name {
        "run_id" => Fact::RunId,
        "name" => Fact::Name,
        "project" => Fact::Project,
        "group" => Fact::Group,
        "tag" => Fact::Tag,
        "notes" => Fact::Notes,
        "commit" => Fact::Commit,
        "host" => Fact::Host,
        "accelerator" => Fact::Accelerator,
        "program" => Fact::Program,
        "status" => Fact::Status,
        _ => return None,
    })
}
