//! Records as a plug-in prints them: one JSON object a line, which says by its
//! `type` what it is. It is the one format of this program's own, for whatever
//! no reader here knows; `docs/formats.md` has it exactly.
//!
//! Numbers may be NaN or infinite, bare or in quotes. An object of another type
//! is counted, so that a later version may have more of them.

use super::fields::Fields;
use super::json;
use super::lines::Lines;
use super::wandb;
use crate::log::{Counts, Fact, Goal, Reader, Record, Sink, Stream, Value};
use crate::number::as_step;

/// Members of an object `run` and what they are.
const FACTS: [(&str, Fact); 12] = [
    ("id", Fact::RunId),
    ("name", Fact::Name),
    ("project", Fact::Project),
    ("owner", Fact::Entity),
    ("group", Fact::Group),
    ("notes", Fact::Notes),
    ("commit", Fact::Commit),
    ("host", Fact::Host),
    ("accelerator", Fact::Accelerator),
    ("program", Fact::Program),
    ("writer", Fact::Writer),
    ("status", Fact::Status),
];

/// Reads what a plug-in printed.
#[derive(Debug)]
pub struct PluginLines {
    lines: Lines,
    fields: Fields,
    counts: Counts,
}

impl PluginLines {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self { lines: Lines::default(), fields: Fields::of_metrics(), counts: Counts::default() }
    }
}

impl Default for PluginLines {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader for PluginLines {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let fields = &mut self.fields;
        self.lines.feed(bytes, &mut self.counts, |at, line, counts| {
            if line.trim_ascii().is_empty() {
                return;
            }
            let Some(record) = json::parse(line).filter(|value| matches!(value, Value::Map(_))) else {
                counts.corrupt.hit(at);
                return;
            };
            counts.records += 1;
            if take(&record, fields, at, counts, sink).is_none() {
                counts.unknown.hit(at);
            }
        });
    }

    fn finish(&mut self, _sink: &mut dyn Sink) {
        self.lines.count_torn(&mut self.counts);
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// `None` when the record is none that this reader knows.
fn take(
    record: &Value,
    fields: &mut Fields,
    at: u64,
    counts: &mut Counts,
    sink: &mut dyn Sink,
) -> Option<()> {
    let number = |key| record.member(key).and_then(Value::number);
    let text = |key| record.member(key).and_then(Value::text);
    match record.member("type")?.text()? {
        "row" => {
            let Value::Map(values) = record.member("values")? else { return None };
            fields.begin();
            for (name, value) in values {
                match (value.number(), fields.field(name.as_bytes())) {
                    (Some(value), Some(field)) => fields.value(field, value),
                    (Some(_), None) => fields.drop_value(),
                    // Text and truth values are no metrics.
                    (None, _) => {}
                }
            }
            let time = number("time").filter(|time| time.is_finite());
            counts.dropped.add(fields.end_at(number("step").and_then(as_step), time, sink), at);
        }
        "run" => {
            for (key, fact) in FACTS {
                if let Some(said) = text(key).filter(|said| !said.is_empty()) {
                    sink.record(Record::Meta(fact, said));
                }
            }
            if let Some(Value::List(tags)) = record.member("tags") {
                tags.iter().filter_map(Value::text).for_each(|tag| sink.record(Record::Meta(Fact::Tag, tag)));
            }
            if let Some(time) = number("started").filter(|time| time.is_finite()) {
                sink.record(Record::Started(time));
            }
            if let Some(time) = number("ended").filter(|time| time.is_finite()) {
                sink.record(Record::Ended(time));
            }
        }
        "config" | "summary" => {
            let summary = text("type") == Some("summary");
            let Value::Map(values) = record.member("values")?.clone() else { return None };
            for (key, value) in values {
                wandb::emit(&[&key], value, &mut |path, value| {
                    sink.record(if summary {
                        Record::Summary { path, value }
                    } else {
                        Record::Config { path, value }
                    });
                });
            }
        }
        "direction" => {
            let goal = match text("goal")? {
                "min" => Goal::Minimise,
                "max" => Goal::Maximise,
                _ => return None,
            };
            sink.record(Record::Direction { metric: text("metric")?, goal });
        }
        "output" => {
            let stream = if text("stream") == Some("stderr") { Stream::Err } else { Stream::Out };
            text("text")?.lines().for_each(|text| sink.record(Record::Output { stream, text }));
        }
        "alert" => sink.record(Record::Alert {
            title: text("title").unwrap_or_default(),
            text: text("text").unwrap_or_default(),
            level: text("level").unwrap_or_default(),
        }),
        "segment" => sink.record(Record::Segment { from: number("from").and_then(as_step) }),
        "exit" => {
            let code =
                number("code").filter(|code| code.fract() == 0.0 && code.abs() <= f64::from(i32::MAX))?;
            sink.record(Record::Exit { code: code as i32 });
        }
        _ => return None,
    }
    Some(())
}
