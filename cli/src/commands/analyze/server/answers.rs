//! What a tracking server's answers say, as records that a reader takes.

use std::io::{self, BufWriter, Write};

use curves::format::mlflow_value;
use curves::log::Value;
use serde_json::{Map, Value as Json, json};

/// The text of the first of these members that has one; whole numbers are texts,
/// too, as ids are either.
pub(super) fn text(object: Option<&Value>, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| match object?.member(key)? {
        Value::Text(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    })
}

/// The elements of a list that may be missing.
pub(super) fn list<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    match object.member(key) {
        Some(Value::List(list)) => list.iter(),
        _ => [].iter(),
    }
}

/// JSON has no NaN: it stands in quotes.
fn number(value: f64) -> Json {
    if value.is_nan() {
        json!("NaN")
    } else if value.is_infinite() {
        json!(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        json!(value)
    }
}

/// One value of a metric's history as a row.
pub(super) fn row(key: &str, one: &Value) -> Option<Json> {
    let value = mlflow_value(one.member("value")?.number()?, false);
    let time = one.member("timestamp").and_then(Value::number).map(|ms| ms / 1000.0);
    let step = one.member("step").and_then(Value::number);
    Some(json!({ "type": "row", "step": step, "time": time, "values": { key: number(value) } }))
}

/// What is known of a run beside its metrics.
pub(super) fn about(run: &Value) -> Vec<Json> {
    let info = run.member("info");
    let seconds =
        |key: &str| info.and_then(|info| info.member(key)).and_then(Value::number).map(|ms| ms / 1000.0);
    let mut tags = Vec::new();
    let mut facts = Map::new();
    let data = run.member("data");
    for tag in data.into_iter().flat_map(|data| list(data, "tags")) {
        let (Some(key), Some(value)) = (text(Some(tag), &["key"]), text(Some(tag), &["value"])) else {
            continue;
        };
        match key.as_str() {
            "mlflow.note.content" => drop(facts.insert("notes".into(), json!(value))),
            "mlflow.source.git.commit" => drop(facts.insert("commit".into(), json!(value))),
            "mlflow.source.name" => drop(facts.insert("program".into(), json!(value))),
            key if key.starts_with("mlflow.") => {}
            key => tags.push(format!("{key}={value}")),
        }
    }
    for (name, keys) in [
        ("id", &["run_id", "run_uuid"][..]),
        ("name", &["run_name"]),
        ("owner", &["user_id"]),
        ("status", &["status"]),
    ] {
        facts.extend(text(info, keys).map(|said| (name.to_owned(), json!(said))));
    }
    facts.extend([
        ("type".to_owned(), json!("run")),
        ("tags".to_owned(), json!(tags)),
        ("started".to_owned(), json!(seconds("start_time"))),
        ("ended".to_owned(), json!(seconds("end_time"))),
    ]);
    let params = data.into_iter().flat_map(|data| list(data, "params"));
    let params: Map<String, Json> = params
        .filter_map(|one| Some((text(Some(one), &["key"])?, json!(text(Some(one), &["value"])?))))
        .collect();
    vec![Json::Object(facts), json!({ "type": "config", "values": params })]
}

/// Writes lines until there are too many.
pub(super) struct Bounded<W: Write> {
    pub(super) inner: BufWriter<W>,
    pub(super) left: u64,
}

impl<W: Write> Bounded<W> {
    pub(super) fn line(&mut self, line: &Json) -> io::Result<()> {
        let line = format!("{line}\n");
        self.left = self.left.checked_sub(line.len() as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "the server has more of a run than is read")
        })?;
        self.inner.write_all(line.as_bytes())
    }
}
