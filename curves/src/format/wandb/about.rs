//! What a run says of itself besides metrics.

use super::super::json;
use super::super::protobuf::{Fields, text, timestamp};
use super::Item;
use super::history::History;
use super::summary::Summaries;
use crate::log::{Fact, Goal, Record, Sink, Value};
use crate::number::as_step;

#[derive(Debug, Default)]
pub(super) struct About {
    run_id: Option<String>,
}

impl About {
    pub(super) fn run_id(&self) -> Option<&str> {
        self.run_id.as_deref()
    }

    pub(super) fn run(
        &mut self,
        message: &[u8],
        summaries: &mut Summaries,
        history: &mut History,
        sink: &mut dyn Sink,
    ) {
        let mut resumed = false;
        let mut from = 0;
        let first = self.run_id.is_none();
        for (field, wire) in Fields::new(message) {
            let bytes = wire.bytes();
            let kind = match field {
                1 => Fact::RunId,
                2 => Fact::Entity,
                3 => Fact::Project,
                6 => Fact::Group,
                7 => Fact::JobType,
                8 => Fact::Name,
                9 => Fact::Notes,
                10 => Fact::Tag,
                12 => Fact::Sweep,
                13 => Fact::Host,
                4 => {
                    config(bytes, sink);
                    continue;
                }
                5 => {
                    summaries.update(bytes);
                    continue;
                }
                14 => {
                    from = wire.number();
                    continue;
                }
                17 => {
                    sink.record(Record::Started(timestamp(bytes)));
                    continue;
                }
                18 => {
                    resumed = wire.number() != 0;
                    continue;
                }
                19 => {
                    fact(Fact::Python, &text(bytes, 4), sink);
                    fact(Fact::Writer, &text(bytes, 5), sink);
                    continue;
                }
                21 => {
                    fact(Fact::Remote, &text(bytes, 1), sink);
                    fact(Fact::Commit, &text(bytes, 2), sink);
                    continue;
                }
                _ => continue,
            };
            let value = String::from_utf8_lossy(bytes);
            if field == 1 {
                self.run_id = Some(value.chars().take(MAX_ID_CHARS).collect());
            }
            fact(kind, &value, sink);
        }
        if resumed && first {
            history.goes_on(as_step(from as f64));
        }
    }
}

/// A run's identifier is at most so long.
const MAX_ID_CHARS: usize = 128;

fn fact(fact: Fact, text: &str, sink: &mut dyn Sink) {
    if !text.is_empty() {
        sink.record(Record::Meta(fact, text));
    }
}

pub(super) fn config(message: &[u8], sink: &mut dyn Sink) {
    for (field, wire) in Fields::new(message) {
        let Some(item) = Item::new(wire.bytes()).filter(|_| field == 1) else { continue };
        if item.path()[0] == b"_wandb" {
            continue;
        }
        let path: Vec<_> = item.path().iter().map(|part| String::from_utf8_lossy(part)).collect();
        let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
        let value = item.number.map(Value::Float).or_else(|| json::parse(item.json));
        if let Some(value) = value {
            emit(&path, value, &mut |path, value| sink.record(Record::Config { path, value }));
        }
    }
}

/// Hands on the leaves of nested objects with their whole paths.
pub(in super::super) fn emit(path: &[&str], value: Value, each: &mut dyn FnMut(&[&str], Value)) {
    match value {
        Value::Map(members) if !members.is_empty() => {
            for (key, value) in members {
                let longer: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
                emit(&longer, value, each);
            }
        }
        value => each(path, value),
    }
}

pub(super) fn stats(message: &[u8], sink: &mut dyn Sink) {
    let time = Fields::new(message).find(|(field, _)| *field == 2);
    let time = time.map(|(_, wire)| timestamp(wire.bytes()));
    for (field, wire) in Fields::new(message) {
        let Some(item) = Item::new(wire.bytes()).filter(|_| field == 3) else { continue };
        let number = match json::parse(item.json) {
            Some(Value::Float(value)) => Some(value),
            Some(Value::Integer(value)) => Some(value as f64),
            _ => item.number,
        };
        if let Some(value) = number {
            sink.record(Record::System { key: &String::from_utf8_lossy(item.path()[0]), time, value });
        }
    }
}

pub(super) fn alert(message: &[u8], sink: &mut dyn Sink) {
    let (title, body, level) = (text(message, 1), text(message, 2), text(message, 3));
    sink.record(Record::Alert { title: &title, text: &body, level: &level });
}

/// What `define_metric` said: only a stated goal is a direction, as programs
/// ask for the minimum of metrics of either kind.
pub(super) fn metric(message: &[u8], sink: &mut dyn Sink) {
    let name = text(message, 1);
    let metric = if name.is_empty() { text(message, 2) } else { name };
    let goal = Fields::new(message).filter(|(field, _)| *field == 8).last();
    let goal = match goal.map(|(_, wire)| wire.number()) {
        Some(1) => Goal::Minimise,
        Some(2) => Goal::Maximise,
        _ => return,
    };
    sink.record(Record::Direction { metric: &metric, goal });
}

pub(super) fn header(message: &[u8], sink: &mut dyn Sink) {
    let version = Fields::new(message).find(|(field, _)| *field == 1);
    if let Some((_, wire)) = version {
        let producer = text(wire.bytes(), 1);
        fact(Fact::Writer, producer.split('+').next().unwrap_or(""), sink);
    }
}

pub(super) fn environment(message: &[u8], sink: &mut dyn Sink) {
    for (field, wire) in Fields::new(message) {
        let bytes = wire.bytes();
        let kind = match field {
            2 => Fact::Python,
            6 => Fact::Program,
            12 => Fact::Host,
            18 => Fact::Accelerator,
            9 => {
                fact(Fact::Remote, &text(bytes, 1), sink);
                fact(Fact::Commit, &text(bytes, 2), sink);
                continue;
            }
            24 => {
                fact(Fact::Accelerator, &text(bytes, 1), sink);
                continue;
            }
            _ => continue,
        };
        fact(kind, &String::from_utf8_lossy(bytes), sink);
    }
}
