//! Neptune's offline log, `data-N.log` of its legacy client: one operation a
//! line, as JSON.
//!
//! Series of floats become rows under their whole path, `parameters/` settings,
//! `monitoring/` measurements of the machine or output, other values summaries.

use super::fields::Fields;
use super::json;
use super::lines::Lines;
use crate::log::{Counts, Fact, Reader, Record, Sink, Stream, Value};
use crate::number::as_step;

/// Reads a log of operations.
#[derive(Debug)]
pub struct Neptune {
    lines: Lines,
    fields: Fields,
    counts: Counts,
}

impl Neptune {
    /// A reader at the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self { lines: Lines::default(), fields: Fields::of_metrics(), counts: Counts::default() }
    }
}

impl Default for Neptune {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader for Neptune {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let fields = &mut self.fields;
        self.lines.feed(bytes, &mut self.counts, |at, line, counts| {
            if line.trim_ascii().is_empty() {
                return;
            }
            let Some(operation) = json::parse(line) else {
                counts.corrupt.hit(at);
                return;
            };
            counts.records += 1;
            if take(&operation, fields, at, counts, sink).is_none() {
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

/// `None` when the operation is none that this reader knows.
fn take(
    operation: &Value,
    fields: &mut Fields,
    at: u64,
    counts: &mut Counts,
    sink: &mut dyn Sink,
) -> Option<()> {
    let object = operation.member("obj")?;
    let Value::List(path) = object.member("path")? else { return None };
    let path: Vec<&str> = path.iter().map(Value::text).collect::<Option<_>>()?;
    // What has no name is nothing that could be kept.
    path.first()?;
    let monitoring = path.first() == Some(&"monitoring");
    match object.member("type")?.text()? {
        "LogFloats" => {
            let Value::List(values) = object.member("values")? else { return None };
            let name = path.join("/");
            for entry in values {
                let value = entry.member("value")?.number()?;
                let time = entry.member("ts").and_then(Value::number);
                if monitoring {
                    sink.record(Record::System { key: &name, time, value });
                    continue;
                }
                fields.begin();
                match fields.field(name.as_bytes()) {
                    Some(field) => fields.value(field, value),
                    None => fields.drop_value(),
                }
                let step = entry.member("step").and_then(Value::number).and_then(as_step);
                counts.dropped.add(fields.end_at(step, time, sink), at);
            }
        }
        "LogStrings" => {
            let Value::List(values) = object.member("values")? else { return None };
            let stream = if path.last() == Some(&"stderr") { Stream::Err } else { Stream::Out };
            for text in values.iter().filter_map(|entry| entry.member("value")?.text()) {
                text.lines().for_each(|text| sink.record(Record::Output { stream, text }));
            }
        }
        "AddStrings" if path == ["sys", "tags"] => {
            let Value::List(values) = object.member("values")? else { return None };
            values.iter().filter_map(Value::text).for_each(|tag| sink.record(Record::Meta(Fact::Tag, tag)));
        }
        "AssignString" | "AssignInt" | "AssignFloat" | "AssignBool" | "AssignDatetime" => {
            assign(&path, object.member("value")?, sink);
        }
        "AddStrings"
        | "UploadFile"
        | "UploadFileSet"
        | "UploadFileContent"
        | "LogImages"
        | "DeleteAttribute"
        | "RemoveStrings"
        | "ClearStringSet"
        | "ConfigFloatSeries"
        | "ClearFloatLog"
        | "ClearStringLog"
        | "TrackFilesToArtifact"
        | "CopyAttribute"
        | "DeleteFiles" => counts.aside.hit(at),
        _ => return None,
    }
    Some(())
}

fn assign(path: &[&str], value: &Value, sink: &mut dyn Sink) {
    match (path, value) {
        (["parameters", inner @ ..], _) if !inner.is_empty() => {
            sink.record(Record::Config { path: inner, value: value.clone() });
        }
        (["sys", key], Value::Text(text)) if !text.is_empty() => {
            let fact = match *key {
                "name" => Fact::Name,
                "description" => Fact::Notes,
                "hostname" => Fact::Host,
                "custom_run_id" | "id" => Fact::RunId,
                _ => return,
            };
            sink.record(Record::Meta(fact, text));
        }
        (["sys" | "monitoring" | "source_code", ..], _) => {}
        _ => sink.record(Record::Summary { path, value: value.clone() }),
    }
}
