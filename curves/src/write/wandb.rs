//! W&B's file of an offline run, as `wandb sync` takes it: a header and
//! LevelDB's log of `Record` messages, whose chunks have plain CRC-32.
//! Field numbers: `wandb/proto/wandb_internal.proto`.

use std::collections::BTreeMap;

use super::message::Message;
use crate::log::Value;

const BLOCK: usize = 32_768;
const CHUNK_HEADER: usize = 7;

/// What is known of the run when its file begins.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// W&B's id: lower-case letters and digits.
    pub id: String,
    /// The name people see.
    pub name: String,
    /// The project.
    pub project: String,
    /// Its settings.
    pub config: Vec<(String, Value)>,
    /// Seconds since 1970.
    pub started: f64,
}

/// Writes one file.
#[derive(Debug, Clone)]
pub struct WandbWriter {
    /// Bytes written so far.
    offset: usize,
    number: i64,
    started: f64,
    newest: BTreeMap<String, f64>,
    step: u64,
}

/// Metrics whose newest values are kept for the summary.
const SUMMARY: usize = 10_000;

impl WandbWriter {
    /// A writer, with what a file begins with.
    pub fn begin(about: &About, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b":W&B\xe1\xbe\x00");
        let mut writer =
            Self { offset: 7, number: 0, started: about.started, newest: BTreeMap::new(), step: 0 };
        let mut header = Message::default();
        let mut version = Message::default();
        version.text(1, "0.16.6").text(2, "0.16.6");
        header.message(1, &version);
        writer.record(21, &header, out);

        let mut config = Message::default();
        for (key, value) in &about.config {
            let mut item = Message::default();
            item.text(1, key).text(16, &json(value));
            config.message(1, &item);
        }
        let mut started = Message::default();
        started.number(1, about.started as i64).number(2, (about.started.fract() * 1e9) as i64);
        let mut run = Message::default();
        run.text(1, &about.id).text(3, &about.project).message(4, &config).text(8, &about.name);
        run.message(17, &started);
        writer.record(17, &run, out);
        writer
    }

    /// A row of values at a step and a time in seconds since 1970.
    pub fn row(&mut self, step: u64, time: f64, values: &[(&str, f64)], out: &mut Vec<u8>) {
        self.step = self.step.max(step);
        let mut history = Message::default();
        let own = [
            ("_step", format!("{step}")),
            ("_timestamp", number(time)),
            ("_runtime", number((time - self.started).max(0.0))),
        ];
        let given = values.iter().map(|(name, value)| (*name, number(*value)));
        for (name, value) in own.iter().map(|(name, text)| (*name, text.clone())).chain(given) {
            let mut item = Message::default();
            item.text(1, name).text(16, &value);
            history.message(1, &item);
        }
        let mut place = Message::default();
        place.number(1, i64::try_from(step).unwrap_or(i64::MAX));
        history.message(2, &place);
        self.record(2, &history, out);
        for (name, value) in values {
            if let Some(newest) = self.newest.get_mut(*name) {
                *newest = *value;
            } else if self.newest.len() < SUMMARY {
                self.newest.insert((*name).to_owned(), *value);
            }
        }
    }

    /// The end of the run: its newest values, and how it ended.
    pub fn finish(&mut self, exit_code: i32, ended: f64, out: &mut Vec<u8>) {
        let mut summary = Message::default();
        let newest = std::mem::take(&mut self.newest);
        let own = [("_step", self.step as f64), ("_timestamp", ended)];
        for (name, value) in newest.iter().map(|(name, value)| (name.as_str(), *value)).chain(own) {
            let mut item = Message::default();
            item.text(1, name).text(16, &number(value));
            summary.message(1, &item);
        }
        self.record(3, &summary, out);
        let mut exit = Message::default();
        exit.number(1, i64::from(exit_code)).number(2, (ended - self.started).max(0.0) as i64);
        self.record(18, &exit, out);
    }

    fn record(&mut self, field: u32, body: &Message, out: &mut Vec<u8>) {
        self.number += 1;
        let mut record = Message::default();
        record.number(1, self.number).message(field, body);
        self.framed(&record.0, out);
    }

    /// Cuts a record into chunks at the ends of blocks.
    fn framed(&mut self, mut data: &[u8], out: &mut Vec<u8>) {
        let mut first = true;
        loop {
            let left = BLOCK - self.offset % BLOCK;
            if left < CHUNK_HEADER {
                out.resize(out.len() + left, 0);
                self.offset += left;
                continue;
            }
            let (piece, rest) = data.split_at(data.len().min(left - CHUNK_HEADER));
            let kind = match (first, rest.is_empty()) {
                (true, true) => 1_u8,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let mut checked = crc32fast::Hasher::new();
            checked.update(&[kind]);
            checked.update(piece);
            out.extend_from_slice(&checked.finalize().to_le_bytes());
            // A piece is shorter than a block.
            out.extend_from_slice(&(piece.len() as u16).to_le_bytes());
            out.push(kind);
            out.extend_from_slice(piece);
            self.offset += CHUNK_HEADER + piece.len();
            (data, first) = (rest, false);
            if data.is_empty() {
                return;
            }
        }
    }
}

/// A number as Python's `json` writes it.
fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value => format!("{value:?}"),
    }
}

fn json(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => number(*value),
        Value::Text(text) => quoted(text),
        Value::List(items) => {
            format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(", "))
        }
        Value::Map(members) => {
            let members = members.iter().map(|(key, value)| format!("{}: {}", quoted(key), json(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Wandb;
    use crate::log::{Collected, Reader as _};

    #[test]
    fn what_is_written_is_read_back_across_blocks() {
        let about = About {
            id: "o1abc".into(),
            name: "resnet \"x\"".into(),
            project: "resnet".into(),
            config: vec![("lr".into(), Value::Float(1e-3)), ("note".into(), Value::Text("a\nb".into()))],
            started: 1.7e9,
        };
        let mut bytes = Vec::new();
        let mut writer = WandbWriter::begin(&about, &mut bytes);
        let long = "m".repeat(400);
        for step in 0..2_000_u64 {
            let value = if step == 7 { f64::NAN } else { 1.0 / (step + 1) as f64 };
            writer.row(step, 1.7e9 + step as f64, &[("loss", value), (&long, step as f64)], &mut bytes);
        }
        writer.finish(3, 1.7e9 + 2_000.0, &mut bytes);
        assert!(bytes.len() > 20 * BLOCK);
        let (mut reader, mut log) = (Wandb::new(), Collected::default());
        reader.feed(&bytes, &mut log);
        reader.finish(&mut log);
        let counts = reader.counts();
        assert_eq!((counts.corrupt.count, counts.torn.count, counts.unknown.count), (0, 0, 0));
        let loss = log.column("loss").unwrap();
        assert_eq!(loss.values.len(), 2_000);
        assert!(loss.values[7].is_nan());
        assert_eq!((loss.step(1_999), loss.values[1_999]), (Some(1_999), 1.0 / 2_000.0));
        assert_eq!(log.exit, Some(3));
    }
}
