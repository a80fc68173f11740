//! A run as W&B's server tells it, one JSON object a line: rows of its history as
//! the server gave them, and what is known beside them.
//!
//! ```text
//! {"run":{"name":"ab12","displayName":"fine-sky-7","state":"running","tags":["base"]}}
//! {"config":{"lr":{"value":0.1,"desc":null}}}
//! {"row":{"_step":17,"_timestamp":1700000000.5,"train":{"loss":NaN}}}
//! {"system":{"_timestamp":1700000001.5,"system.gpu.0.gpu":93.5}}
//! {"summary":{"val/acc":{"max":0.93}}}
//! {"lost":2}
//! ```
//!
//! Rows go the way of those of a `.wandb` file, so that the same run says the
//! same from either. The names of the members are those of the server's answers.

use super::super::json::{self, Lexer};
use super::super::lines::Lines;
use super::super::time;
use super::about::emit;
use super::history::History;
use crate::log::{Counts, Fact, Goal, Reader, Record, Sink, Value};

/// Members of `run` that are texts, and what they are.
const FACTS: [(&str, Fact); 9] = [
    ("name", Fact::RunId),
    ("displayName", Fact::Name),
    ("entity", Fact::Entity),
    ("project", Fact::Project),
    ("group", Fact::Group),
    ("jobType", Fact::JobType),
    ("notes", Fact::Notes),
    ("commit", Fact::Commit),
    ("sweepName", Fact::Sweep),
];

/// What W&B keeps for itself among the members of a summary.
const OWN: [&str; 4] = ["_step", "_timestamp", "_runtime", "_wandb"];

/// Reads what was fetched from W&B's server.
#[derive(Debug)]
pub struct WandbCloud {
    lines: Lines,
    history: History,
    counts: Counts,
}

impl WandbCloud {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self { lines: Lines::default(), history: History::new(false), counts: Counts::default() }
    }

    /// The same, but this key counts steps: see [`super::Wandb::counting`].
    #[must_use]
    pub fn counting(mut self, key: Option<&str>) -> Self {
        self.history.count_by(key);
        self
    }
}

impl Default for WandbCloud {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader for WandbCloud {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let history = &mut self.history;
        self.lines.feed(bytes, &mut self.counts, |at, line, counts| {
            if line.trim_ascii().is_empty() {
                return;
            }
            counts.records += 1;
            if take(line, history, at, counts, sink).is_none() {
                counts.corrupt.hit(at);
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

/// `None` when the line is broken.
fn take(line: &[u8], history: &mut History, at: u64, counts: &mut Counts, sink: &mut dyn Sink) -> Option<()> {
    let mut lexer = Lexer::new(line);
    lexer.object(|lexer, key| {
        match key.bytes {
            b"row" => counts.dropped.add(history.json_row(lexer, sink)?, at),
            b"system" => system(&members(lexer)?, sink),
            b"run" => run(&members(lexer)?, sink),
            b"config" => config(members(lexer)?, sink),
            b"summary" => summary(members(lexer)?, sink),
            b"lost" => {
                let lost = lexer.number().filter(|lost| *lost >= 0.0)?;
                counts.skipped.add(lost as u64, at);
            }
            _ => {
                lexer.skip()?;
                counts.unknown.hit(at);
            }
        }
        Some(())
    })?;
    lexer.at_end().then_some(())
}

/// The members of an object that comes next.
fn members(lexer: &mut Lexer<'_>) -> Option<Vec<(String, Value)>> {
    lexer.peek()?;
    let from = lexer.at;
    lexer.skip()?;
    match json::parse(lexer.text.get(from..lexer.at)?)? {
        Value::Map(members) => Some(members),
        _ => None,
    }
}

fn run(members: &[(String, Value)], sink: &mut dyn Sink) {
    let member = |key: &str| members.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    let text = |key| member(key).and_then(Value::text).filter(|text| !text.is_empty());
    for (key, fact) in FACTS {
        if let Some(said) = text(key) {
            sink.record(Record::Meta(fact, said));
        }
    }
    if let Some(Value::List(tags)) = member("tags") {
        tags.iter().filter_map(Value::text).for_each(|tag| sink.record(Record::Meta(Fact::Tag, tag)));
    }
    if let Some(began) = text("createdAt").and_then(time::iso) {
        sink.record(Record::Started(began));
    }
    let Some(state) = text("state") else { return };
    sink.record(Record::Meta(Fact::Status, state));
    // A run that goes on has a heartbeat, too.
    if !matches!(state, "running" | "pending" | "preempting")
        && let Some(ended) = text("heartbeatAt").and_then(time::iso)
    {
        sink.record(Record::Ended(ended));
    }
}

/// Settings stand in an object with their description. What W&B keeps for itself
/// beside them has the versions and what `define_metric` said.
fn config(members: Vec<(String, Value)>, sink: &mut dyn Sink) {
    for (key, value) in members {
        let value = match value {
            Value::Map(inner) if inner.iter().any(|(name, _)| name == "value") => {
                inner.into_iter().find(|(name, _)| name == "value").map_or(Value::Null, |(_, value)| value)
            }
            value => value,
        };
        match key.as_str() {
            "_wandb" => own(&value, sink),
            "wandb_version" => {}
            key => emit(&[key], value, &mut |path, value| sink.record(Record::Config { path, value })),
        }
    }
}

fn own(value: &Value, sink: &mut dyn Sink) {
    for (key, fact) in [("python_version", Fact::Python), ("cli_version", Fact::Writer)] {
        if let Some(said) = value.member(key).and_then(Value::text).filter(|said| !said.is_empty()) {
            sink.record(Record::Meta(fact, said));
        }
    }
    // Messages of a `.wandb` file with their field numbers as keys.
    let Some(Value::List(metrics)) = value.member("m") else { return };
    for metric in metrics {
        let named = |key| metric.member(key).and_then(Value::text).filter(|name| !name.is_empty());
        let goal = match metric.member("8").and_then(Value::number) {
            Some(1.0) => Goal::Minimise,
            Some(2.0) => Goal::Maximise,
            _ => continue,
        };
        if let Some(metric) = named("1").or_else(|| named("2")) {
            sink.record(Record::Direction { metric, goal });
        }
    }
}

fn summary(members: Vec<(String, Value)>, sink: &mut dyn Sink) {
    let own = |key: &str, value: &Value| OWN.contains(&key) || value.member("_type").is_some();
    for (key, value) in members.into_iter().filter(|(key, value)| !own(key, value)) {
        emit(&[&key], value, &mut |path, value| sink.record(Record::Summary { path, value }));
    }
}

fn system(members: &[(String, Value)], sink: &mut dyn Sink) {
    let number = |value: &Value| value.number().filter(|_| !matches!(value, Value::Text(_)));
    let time = members.iter().find(|(key, _)| key == "_timestamp").and_then(|(_, value)| number(value));
    for (key, value) in members.iter().filter(|(key, _)| !key.starts_with('_')) {
        if let Some(value) = number(value) {
            // A `.wandb` file has the same names without what stands before them here.
            let key = key.strip_prefix("system.").unwrap_or(key);
            sink.record(Record::System { key, time, value });
        }
    }
}
