//! The files of a ClearML task that ran offline: `metrics.jsonl`, `log.jsonl`
//! and `task.json`. They come in a zip archive, which the caller opens.
//!
//! A line of the first two is a list of events, not one.

use super::fields::Fields;
use super::json;
use super::lines::Lines;
use crate::log::{Counts, Fact, Reader, Record, Sink, Stream, Value};
use crate::number::as_step;

/// Reads `metrics.jsonl` and `log.jsonl`.
#[derive(Debug)]
pub struct ClearMl {
    lines: Lines,
    fields: Fields,
    counts: Counts,
}

impl ClearMl {
    /// A reader at the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self { lines: Lines::default(), fields: Fields::of_metrics(), counts: Counts::default() }
    }
}

impl Default for ClearMl {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader for ClearMl {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let fields = &mut self.fields;
        self.lines.feed(bytes, &mut self.counts, |at, line, counts| {
            if line.trim_ascii().is_empty() {
                return;
            }
            let Some(Value::List(events)) = json::parse(line) else {
                counts.corrupt.hit(at);
                return;
            };
            counts.records += 1;
            for event in &events {
                if take(event, fields, at, counts, sink).is_none() {
                    counts.unknown.hit(at);
                }
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
        "training_stats_vector" | "training_debug_image" | "plot" => counts.skipped.hit(at),
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
