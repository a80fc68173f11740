//! The files of a ClearML task that ran offline: `metrics.jsonl`, `log.jsonl`
//! and `task.json`. They come in a zip archive, which the caller opens.
//!
//! A line of the first two is a list of events, not one, and all that was logged
//! may be a single line. So the events are taken one by one, each from where it
//! begins: of a damaged list those that are whole are read, the rest are counted.

use super::MAX_RECORD_BYTES;
use super::fields::Fields;
use super::json;
use crate::log::{Counts, Fact, Reader, Record, Sink, Stream, Tally, Value};
use crate::number::as_step;

/// How each event begins.
const BEGIN: &[u8] = b"{\"timestamp\"";

/// What stands between events.
const BETWEEN: &[u8] = b" \t\r\n[],";

/// Reads `metrics.jsonl` and `log.jsonl`.
#[derive(Debug)]
pub struct ClearMl {
    /// What was not cut into events yet, and where it stands.
    tail: Vec<u8>,
    at: u64,
    /// Bytes of it in which no further event begins.
    looked: usize,
    /// What is longer than any event is passed over to the next one.
    skipping: bool,
    fields: Fields,
    counts: Counts,
}

impl ClearMl {
    /// A reader at the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tail: Vec::new(),
            at: 0,
            looked: 0,
            skipping: false,
            fields: Fields::of_metrics(),
            counts: Counts::default(),
        }
    }

    /// Takes the events of a piece, which is one of them unless it is damaged;
    /// whether there is nothing else in it.
    fn piece(&mut self, piece: &[u8], sink: &mut dyn Sink) -> bool {
        let object = memchr::memchr(b'{', piece)
            .and_then(|from| memchr::memrchr(b'}', piece).and_then(|to| piece.get(from..=to)));
        let events = match object.map(|object| (json::parse(object), object)) {
            Some((Some(event), _)) => vec![event],
            Some((None, object)) => match json::parse(&[b"[", object, b"]"].concat()) {
                Some(Value::List(events)) => events,
                _ => return false,
            },
            // Brackets and commas of the list.
            None if piece.iter().all(|byte| BETWEEN.contains(byte)) => return true,
            None => return false,
        };
        for event in &events {
            self.counts.records += 1;
            if take(event, &mut self.fields, self.at, &mut self.counts, sink).is_none() {
                self.counts.unknown.hit(self.at);
            }
        }
        true
    }

    /// A piece whose end is known.
    fn whole(&mut self, piece: &[u8], sink: &mut dyn Sink) {
        if std::mem::take(&mut self.skipping) {
        } else if piece.len() > MAX_RECORD_BYTES {
            self.counts.skipped.hit(self.at);
        } else if !self.piece(piece, sink) {
            self.counts.corrupt.hit(self.at);
        }
        self.at += piece.len() as u64;
    }
}

/// Where the piece at the beginning of some bytes ends: at a line's end, or where
/// the next event begins. In the first `looked` of them neither is.
fn end(bytes: &[u8], looked: usize) -> Option<usize> {
    let from = looked.max(1);
    let rest = bytes.get(from..)?;
    let line = memchr::memchr(b'\n', rest).map(|at| from + at + 1);
    let within = line.map_or(rest, |end| &bytes[from..end]);
    memchr::memmem::find(within, BEGIN).map(|at| from + at).or(line)
}

impl Default for ClearMl {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader for ClearMl {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        self.counts.bytes += bytes.len() as u64;
        self.counts.torn = Tally::default();
        let mut held = std::mem::take(&mut self.tail);
        held.extend_from_slice(bytes);
        let (mut from, mut looked) = (0, self.looked);
        while let Some(end) = end(&held[from..], looked) {
            self.whole(&held[from..from + end], sink);
            (from, looked) = (from + end, 0);
        }
        if held.len() - from > MAX_RECORD_BYTES {
            if !std::mem::replace(&mut self.skipping, true) {
                self.counts.skipped.hit(self.at);
            }
            let passed = held.len() - from + 1 - BEGIN.len();
            (from, self.at) = (from + passed, self.at + passed as u64);
        }
        held.drain(..from);
        // The beginning of an event may be cut in two.
        self.looked = (held.len() + 1).saturating_sub(BEGIN.len());
        self.tail = held;
    }

    fn finish(&mut self, sink: &mut dyn Sink) {
        let mut held = std::mem::take(&mut self.tail);
        let whole = memchr::memrchr(b'}', &held).map_or(0, |at| at + 1);
        // An event that has its end is one, although nothing came behind it yet.
        if !self.skipping && self.piece(&held[..whole], sink) {
            held.drain(..whole);
            (self.at, self.looked) = (self.at + whole as u64, 0);
        }
        if !self.skipping && !held.iter().all(|byte| BETWEEN.contains(byte)) {
            self.counts.torn.add(held.len() as u64, self.at);
        }
        self.tail = held;
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// The iteration of values that belong to no step.
const NO_ITERATION: f64 = -2_147_483_648.0;

/// `None` when the event is none that this reader knows.
fn take(event: &Value, fields: &mut Fields, at: u64, counts: &mut Counts, sink: &mut dyn Sink) -> Option<()> {
    match event.member("type")?.text()? {
        "training_stats_scalar" => {
            let title = event.member("metric")?.text()?;
            let series = event.member("variant")?.text()?;
            let value = event.member("value")?.number()?;
            let iteration = event.member("iter")?.number()?;
            if iteration == NO_ITERATION {
                sink.record(Record::Summary { path: &[series], value: event.member("value")?.clone() });
                return Some(());
            }
            let time = event.member("timestamp").and_then(Value::number).map(|ms| ms / 1000.0);
            fields.begin();
            // A metric without a slash in its name has itself as its only series.
            let joined = format!("{title}/{series}");
            let name = if title == series { title } else { &joined };
            match fields.field(name.as_bytes()) {
                Some(field) => fields.value(field, value),
                None => fields.drop_value(),
            }
            counts.dropped.add(fields.end_at(as_step(iteration), time, sink), at);
        }
        "log" => {
            let error = event.member("level").and_then(Value::text) == Some("error");
            let stream = if error { Stream::Err } else { Stream::Out };
            for text in event.member("msg")?.text()?.lines() {
                sink.record(Record::Output { stream, text });
            }
        }
        "training_stats_vector" | "training_debug_image" | "plot" => counts.aside.hit(at),
        _ => return None,
    }
    Some(())
}

/// Pushes what `task.json` says. `None` when it is no JSON object.
pub fn clearml_task(bytes: &[u8], sink: &mut dyn Sink) -> Option<()> {
    let task = json::parse(bytes)?;
    for (key, fact) in [
        ("id", Fact::RunId),
        ("name", Fact::Name),
        ("project_name", Fact::Project),
        ("type", Fact::JobType),
        ("comment", Fact::Notes),
    ] {
        if let Some(text) = task.member(key).and_then(Value::text).filter(|text| !text.is_empty()) {
            sink.record(Record::Meta(fact, text));
        }
    }
    if let Some(Value::List(tags)) = task.member("tags") {
        tags.iter().filter_map(Value::text).for_each(|tag| sink.record(Record::Meta(Fact::Tag, tag)));
    }
    let Some(Value::Map(sections)) = task.member("hyperparams") else { return Some(()) };
    for (section, settings) in sections {
        let Value::Map(settings) = settings else { continue };
        for (name, setting) in settings {
            let outer = (section != "General").then_some(section.as_str());
            let path: Vec<&str> = outer.into_iter().chain(name.split('/')).collect();
            sink.record(Record::Config { path: &path, value: typed(setting) });
        }
    }
    Some(())
}

/// Settings are text beside the name of a Python type.
fn typed(setting: &Value) -> Value {
    let text = setting.member("value").and_then(Value::text).unwrap_or("");
    let read = || json::parse(text.as_bytes());
    match setting.member("type").and_then(Value::text) {
        None if text.is_empty() => Value::Null,
        Some("bool") if text == "True" || text == "False" => Value::Bool(text == "True"),
        Some("int" | "float") => read().unwrap_or_else(|| Value::Text(text.to_owned())),
        Some(kind) if kind.starts_with("list") => read().unwrap_or_else(|| Value::Text(text.to_owned())),
        _ => Value::Text(text.to_owned()),
    }
}
