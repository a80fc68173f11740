//! Formats that no file of the repository shows: older layouts, written here by
//! hand as their tools write them, and rows of databases.

use std::collections::BTreeMap;

use super::{collect, data, wandb};
use curves::format::{ClearMl, Format, MlflowRows, Neptune, Schema, TrackioRows, clearml_task, detect};
use curves::log::{Collected, Fact, Goal, Reader, Stream, Value};

fn pairs(log: &Collected, name: &str) -> Vec<(Option<u64>, f64)> {
    log.column(name).map(|c| c.pairs().collect()).unwrap_or_default()
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat()
}

/// A W&B file of records of less than 128 bytes.
fn wandb_file(records: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b":W&B\xe1\xbe\0".to_vec();
    for record in records {
        let checked = [&[1][..], record].concat();
        out.extend(crc32fast::hash(&checked).to_le_bytes());
        out.extend((record.len() as u16).to_le_bytes());
        out.extend(checked);
    }
    out
}

/// An item with its name in field 1 and JSON in field 16, as up to 0.16.
fn old_item(name: &str, json: &str) -> Vec<u8> {
    let value = [&[0x82, 1, json.len() as u8][..], json.as_bytes()].concat();
    field(1, &[field(1, name.as_bytes()), value].concat())
}

#[test]
fn wandb_up_to_0_16_names_metrics_by_one_key() {
    let row = |step: &str, items: &[(&str, &str)]| {
        let items: Vec<u8> = items.iter().flat_map(|(name, json)| old_item(name, json)).collect();
        field(2, &[items, old_item("_step", step)].concat())
    };
    let log = collect(
        wandb(),
        &wandb_file(&[
            row("7", &[("loss", "0.5"), ("val", "{\"loss\": NaN, \"deep\": {\"x\": 2}}")]),
            row("8", &[("h", "{\"_type\": \"histogram\", \"n\": 3}"), ("loss", "-Infinity")]),
            row("9", &[("text", "\"abc\""), ("_runtime", "1.5"), ("_timestamp", "1.7e9"), ("loss", "1")]),
        ]),
    );
    let inf = f64::NEG_INFINITY;
    assert_eq!(pairs(&log, "loss"), [(Some(7), 0.5), (Some(8), inf), (Some(9), 1.0)]);
    assert!(log.column("val/loss").is_some_and(|c| c.values[0].is_nan() && c.step(0) == Some(7)));
    assert_eq!(pairs(&log, "val/deep/x"), [(Some(7), 2.0)]);
    assert_eq!(log.column("loss").and_then(|c| c.time(2)), Some(1.7e9));
    for name in ["h/n", "h", "text", "_runtime", "_step", "_timestamp"] {
        assert!(log.column(name).is_none_or(|c| c.values.is_empty()), "{name}");
    }
}

#[test]
fn wandb_steps_beside_items_typed_values_and_goals() {
    // Field 2 of a row is its step; 5 and 6 are typed values; images have parts.
    let typed = |name: &[u8], value: &[u8]| field(1, &[&field(2, name)[..], value].concat());
    let double = [&[6 << 3 | 1][..], &0.25_f64.to_le_bytes()].concat();
    let part = |name: &[u8], json: &str| {
        let value = [&[0x82, 1, json.len() as u8][..], json.as_bytes()].concat();
        field(1, &[field(2, b"img"), field(2, name), value].concat())
    };
    let row = [
        typed(b"a", &[5 << 3, 5]),
        typed(b"b", &double),
        part(b"width", "640"),
        part(b"_type", "\"image-file\""),
        field(2, &[8, 3]),
    ]
    .concat();
    let metric = [field(1, b"b"), vec![8 << 3, 2]].concat();
    let stats = {
        let item = field(3, &[field(1, b"gpu.0.gpu"), vec![0x82, 1, 2], b"97".to_vec()].concat());
        field(7, &[field(2, &[8, 100, 16, 0]), item].concat())
    };
    let run = [field(1, b"id"), vec![14 << 3, 5, 0x90, 1, 1]].concat();
    let log = collect(
        wandb(),
        &wandb_file(&[
            field(2, &row),
            [vec![0x8a, 1, run.len() as u8], run].concat(),
            [vec![12 << 3 | 2, metric.len() as u8], metric].concat(),
            stats,
            field(2, &[typed(b"a", &[5 << 3, 2]), field(2, &[])].concat()),
        ]),
    );
    assert_eq!(pairs(&log, "a"), [(Some(3), -3.0), (Some(0), 1.0)]);
    assert_eq!(pairs(&log, "b"), [(Some(3), 0.25)]);
    assert!(pairs(&log, "img/width").is_empty());
    assert_eq!(log.directions, BTreeMap::from([("b".to_owned(), Goal::Maximise)]));
    assert_eq!(log.system, [("gpu.0.gpu".to_owned(), Some(100.0), 97.0)]);
    assert_eq!((log.segments, log.fact(Fact::RunId)), (1, Some("id")));
}

#[test]
fn operations_of_neptune() {
    let text = r#"{"obj": {"type": "AssignString", "path": ["sys", "name"], "value": "run-ok"}, "version": 1, "at": 1795245592.7355115}
{"obj": {"type": "AssignFloat", "path": ["parameters", "lr"], "value": 0.0003}, "version": 10, "at": 1795245592.7377195}
{"obj": {"type": "AssignInt", "path": ["parameters", "model", "layers"], "value": 4}, "version": 13, "at": 1795245592.7380397}
{"obj": {"type": "LogFloats", "path": ["metrics", "train", "loss"], "values": [{"value": 2.6948823942310476, "step": 0, "ts": 1795245592.7394764}]}, "version": 20, "at": 1795245592.739514}
{"obj": {"type": "LogFloats", "path": ["metrics", "train", "loss"], "values": [{"value": NaN, "step": 1, "ts": 1795245593.0}, {"value": 1, "step": null, "ts": 1795245594.0}]}, "version": 21, "at": 1795245592.74}
{"obj": {"type": "LogFloats", "path": ["monitoring", "x", "cpu"], "values": [{"value": 12.5, "step": null, "ts": 1795245594.0}]}, "version": 22, "at": 1795245592.74}
{"obj": {"type": "LogStrings", "path": ["monitoring", "x", "stdout"], "values": [{"value": "one\ntwo", "step": null, "ts": 1795245594.0}]}, "version": 23, "at": 1795245592.74}
{"obj": {"type": "AddStrings", "path": ["sys", "tags"], "values": ["a"]}, "version": 861, "at": 1795245592.822901}
{"obj": {"type": "AssignFloat", "path": ["best"], "value": 0.5}, "version": 860, "at": 1795245592.8227956}
{"obj": {"type": "FromTheFuture", "path": ["best"], "value": 0.5}, "version": 860, "at": 1795245592.8227956}
{"obj": {"type": "AssignFlo"#;
    assert_eq!(detect("data-1.log", text.as_bytes())[0].format, Format::Neptune);
    let mut log = Collected::default();
    let mut reader = Neptune::new();
    reader.feed(text.as_bytes(), &mut log);
    reader.finish(&mut log);
    let loss = pairs(&log, "metrics/train/loss");
    assert_eq!((loss[0], loss[2], loss.len()), ((Some(0), 2.6948823942310476), (None, 1.0), 3));
    assert!(loss[1].1.is_nan() && loss[1].0 == Some(1));
    assert_eq!(log.config.get(&vec!["model".to_owned(), "layers".to_owned()]), Some(&Value::Integer(4)));
    assert_eq!(log.config.len(), 2);
    assert_eq!(log.summary.get(&vec!["best".to_owned()]), Some(&Value::Float(0.5)));
    assert_eq!((log.fact(Fact::Name), log.fact(Fact::Tag)), (Some("run-ok"), Some("a")));
    assert_eq!(log.system, [("monitoring/x/cpu".to_owned(), Some(1795245594.0), 12.5)]);
    assert_eq!(log.output.iter().map(|l| &l.text[..]).collect::<Vec<_>>(), ["one", "two"]);
    let counts = reader.counts();
    assert_eq!((counts.records, counts.unknown.count, counts.corrupt.count), (10, 1, 0));
    assert_eq!(counts.torn.count, r#"{"obj": {"type": "AssignFlo"#.len() as u64);
}

#[test]
fn events_and_settings_of_clearml() {
    let text = r#"[{"timestamp": 1795250992918, "type": "training_stats_scalar", "task": "offline-27", "iter": 0, "metric": "train", "variant": "loss", "value": 2.6948823942310476, "method": "get"}, {"timestamp": 1795250992924, "type": "training_stats_scalar", "task": "offline-27", "iter": 0, "metric": "lr", "variant": "lr", "value": 1.4999999999999999e-05, "method": "get"}]
[{"timestamp": 1795250998790, "type": "training_stats_scalar", "task": "offline-27", "iter": -2147483648, "metric": "Summary", "variant": "best", "value": 0.5, "method": "get"}]
[{"timestamp": 1795250992847, "type": "log", "task": "offline-27", "level": "info", "worker": "vm", "msg": "step 0\nsome text", "method": "get"}]
"#;
    assert_eq!(detect("metrics.jsonl", text.as_bytes())[0].format, Format::ClearMl);
    let mut log = collect(Box::new(ClearMl::new()), text.as_bytes());
    assert_eq!(pairs(&log, "train/loss"), [(Some(0), 2.6948823942310476)]);
    assert_eq!(pairs(&log, "lr"), [(Some(0), 1.4999999999999999e-05)]);
    assert_eq!(log.column("lr").and_then(|c| c.time(0)), Some(1795250992.924));
    assert_eq!(log.summary.get(&vec!["best".to_owned()]), Some(&Value::Float(0.5)));
    let lines: Vec<_> = log.output.iter().map(|l| (l.stream, &l.text[..])).collect();
    assert_eq!(lines, [(Stream::Out, "step 0"), (Stream::Out, "some text")]);
    let task = r#"{"id": "offline-27", "name": "run-ok", "project_name": "sample-proj", "type": "training", "hyperparams": {"General": {
        "batch_size": {"name": "batch_size", "type": "int", "value": "32"}, "betas": {"type": "list/float", "value": "[0.9, 0.95]"},
        "model/name": {"type": "str", "value": "tiny-\u00fcn\u00ef"}, "note": {"value": ""}, "use_amp": {"type": "bool", "value": "True"}}}}"#;
    clearml_task(task.as_bytes(), &mut log).expect("an object");
    let setting =
        |path: &[&str]| log.config.get(&path.iter().map(|&p| p.to_owned()).collect::<Vec<_>>()).cloned();
    assert_eq!(setting(&["batch_size"]), Some(Value::Integer(32)));
    assert_eq!(setting(&["betas"]), Some(Value::List(vec![Value::Float(0.9), Value::Float(0.95)])));
    assert_eq!(setting(&["model", "name"]), Some(Value::Text("tiny-ünï".to_owned())));
    assert_eq!((setting(&["note"]), setting(&["use_amp"])), (Some(Value::Null), Some(Value::Bool(true))));
    assert_eq!((log.fact(Fact::Project), log.fact(Fact::RunId)), (Some("sample-proj"), Some("offline-27")));
    assert_eq!(clearml_task(b"[1", &mut log), None);
}

#[test]
fn of_a_damaged_list_of_clearml_all_events_but_the_damaged_are_read() {
    let event = |step: usize| {
        format!(
            "{{\"timestamp\": 1, \"type\": \"training_stats_scalar\", \"iter\": {step}, \
             \"metric\": \"loss\", \"variant\": \"loss\", \"value\": 0.5}}"
        )
    };
    let text = format!("[{}]\n", (0..100).map(event).collect::<Vec<_>>().join(", "));
    let steps = |bytes: &[u8]| {
        let mut reader = ClearMl::new();
        let mut log = Collected::default();
        bytes.chunks(7).for_each(|piece| reader.feed(piece, &mut log));
        reader.finish(&mut log);
        let counts = *reader.counts();
        (pairs(&log, "loss").iter().filter_map(|pair| pair.0).collect::<Vec<u64>>(), counts)
    };
    assert_eq!(steps(text.as_bytes()).0, (0..100).collect::<Vec<u64>>());
    // Cut within the 51st event; then with a quote of the same one lost.
    let at = text.find("\"iter\": 50").unwrap();
    let (read, counts) = steps(&text.as_bytes()[..at]);
    assert_eq!((read, counts.corrupt.count), ((0..50).collect::<Vec<u64>>(), 0));
    assert!(counts.torn.count > 0, "{counts:?}");
    let mut bad = text.clone().into_bytes();
    bad[at] = b'x';
    let (read, counts) = steps(&bad);
    assert_eq!(read, (0..100).filter(|step| *step != 50).collect::<Vec<u64>>());
    assert_eq!((counts.corrupt.count, counts.torn.count), (1, 0));
}

#[test]
fn rows_of_databases() {
    let mut log = Collected::default();
    let mut rows = MlflowRows::new();
    for (step, value, is_nan) in
        [(79, 0.5, false), (80, 0.0, true), (81, f64::MAX, false), (82, -1.7976931348623157e+308, false)]
    {
        assert!(rows.row("train/loss", value, is_nan, 1_700_000_000_000 + step * 1000, step, &mut log));
    }
    let loss = pairs(&log, "train/loss");
    assert!(loss[1].1.is_nan());
    assert_eq!(
        [loss[0], loss[2], loss[3]],
        [(79, 0.5), (81, f64::INFINITY), (82, f64::NEG_INFINITY)].map(|(s, v)| (Some(s), v))
    );
    assert_eq!(log.column("train/loss").and_then(|c| c.time(0)), Some(1_700_000_079.0));
    let mut log = Collected::default();
    let mut rows = TrackioRows::new();
    let time = "2026-11-21T07:13:56.172773+00:00";
    for (step, json) in [
        (0, &br#"{"train/loss":2.6948823942310476,"lr":0.000014999999999999999,"epoch":0}"#[..]),
        (80, br#"{"train/loss":"NaN","lr":0.00007500000000000002,"step":5}"#),
        (81, br#"{"train/loss":"Infinity","nested":{"a":1}}"#),
    ] {
        assert_eq!(rows.metrics(step, time, json, &mut log), Some(0));
    }
    assert_eq!(rows.metrics(82, time, b"{\"a\":", &mut log), None);
    let loss = pairs(&log, "train/loss");
    assert_eq!((loss[0], loss[2]), ((Some(0), 2.6948823942310476), (Some(81), f64::INFINITY)));
    assert!(loss[1].1.is_nan());
    assert_eq!(
        (pairs(&log, "step"), pairs(&log, "nested/a")),
        (vec![(Some(80), 5.0)], vec![(Some(81), 1.0)])
    );
    assert_eq!(log.column("lr").and_then(|c| c.time(0)), Some(1_795_245_236.172773));
    rows.config(br#"{"lr":0.0003,"model":{"layers":4},"_Username":null}"#, &mut log).expect("an object");
    assert_eq!(log.config.len(), 2);
    rows.system(time, br#"{"gpu":{"x":1},"cpu":12.5}"#, &mut log).expect("an object");
    assert_eq!(log.system, [("cpu".to_owned(), Some(1_795_245_236.172773), 12.5)]);
}

#[test]
fn console_output_inside_other_logs_can_be_read_again() {
    // When a run logged nothing, what it printed is all there is.
    let log = collect(wandb(), &data("wandb-0.31.0.wandb"));
    let mut console = Format::Console.reader("output.log", Schema::default()).expect("a reader");
    let mut printed = Collected::default();
    for line in &log.output {
        console.feed(line.text.as_bytes(), &mut printed);
        console.feed(b"\n", &mut printed);
    }
    assert_eq!(
        pairs(&printed, "loss"),
        [(0, 2.6949), (50, 1.3913), (100, 0.8542)].map(|(s, v)| (Some(s), v))
    );
}

#[test]
fn an_operation_on_nothing_is_none_that_is_known() {
    let mut reader = Neptune::new();
    let mut trace = super::Trace::default();
    reader.feed(b"{\"obj\":{\"type\":\"AssignFloat\",\"path\":[],\"value\":1}}\n", &mut trace);
    assert_eq!((trace.said.len(), reader.counts().unknown.count), (0, 1));
}
