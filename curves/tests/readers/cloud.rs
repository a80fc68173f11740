//! What W&B's server tells is what the same run's `.wandb` file says.

use super::{Trace, collect, wandb};
use curves::format::WandbCloud;
use curves::log::{Fact, Reader, Value};
use curves::write::{About, WandbWriter};

pub(super) fn cloud() -> Box<dyn Reader> {
    Box::new(WandbCloud::new())
}

/// Every kind of line.
pub(super) const CLOUD: &str = r#"{"run":{"name":"ab12","displayName":"fine-sky-7","entity":"e","project":"p","group":"g","jobType":"train","notes":"two words","commit":"c0ffee","sweepName":"s1","tags":["a","b"],"state":"finished","createdAt":"2026-01-31T10:00:00","heartbeatAt":"2026-01-31T11:00:00Z"}}
{"config":{"lr":{"value":0.1,"desc":null},"model":{"value":{"width":3}},"plain":7,"wandb_version":1,"_wandb":{"value":{"python_version":"3.11","cli_version":"0.16.6","m":[{"1":"val/acc","8":2,"6":[3]},{"2":"*loss","8":1},{"1":"other","5":1}]}}}}
{"row":{"_step":0,"_timestamp":1700000000.5,"_runtime":1,"loss":NaN,"deep":{"a":{"b":2}},"quoted":"-Infinity","word":"x","_wandb":{"x":1},"hist":{"_type":"histogram","bins":[1],"count":3}}}
{"row":{"loss":Infinity,"_timestamp":1700000001.5,"_step":3}}
{"system":{"_timestamp":1700000002.5,"_runtime":2,"system.gpu.0.gpu":93.5,"cpu":7,"name":"x"}}
{"summary":{"val/acc":{"max":0.93},"loss":NaN,"_step":3,"_wandb":{"runtime":3},"_runtime":9,"_timestamp":1}}
{"lost":2}
"#;

#[test]
fn every_kind_of_line_is_what_it_says() {
    let mut reader = cloud();
    let mut trace = Trace::default();
    let odd = "{\"later\":{}}\n{\"row\":{\"loss\":1}}\n{\"row\":[1]}\n[]\nnothing\n{\"lost\":-1}\n{\"config\":{}},\n";
    reader.feed(format!("{CLOUD}{odd}").as_bytes(), &mut trace);
    reader.finish(&mut trace);
    let said = |needle: &str| trace.said.iter().any(|said| said.contains(needle));
    for needle in [
        "Some(0) Some(1700000000.5) [(\"loss\", NaN), (\"deep/a/b\", 2.0), (\"quoted\", -inf)]",
        "Some(3) Some(1700000001.5) [(\"loss\", inf)]",
        "Meta(RunId, \"ab12\")",
        "Meta(Name, \"fine-sky-7\")",
        "Meta(Group, \"g\")",
        "Meta(Tag, \"b\")",
        "Meta(Status, \"finished\")",
        "Meta(Writer, \"0.16.6\")",
        "Config { path: [\"lr\"], value: Float(0.1) }",
        "Config { path: [\"model\", \"width\"], value: Integer(3) }",
        "Config { path: [\"plain\"], value: Integer(7) }",
        "Summary { path: [\"val/acc\", \"max\"], value: Float(0.93) }",
        "Summary { path: [\"loss\"], value: Float(NaN) }",
        "Direction { metric: \"val/acc\", goal: Maximise }",
        "Direction { metric: \"*loss\", goal: Minimise }",
        "System { key: \"gpu.0.gpu\", time: Some(1700000002.5), value: 93.5 }",
        "Started(1769853600.0)",
        "Ended(1769857200.0)",
    ] {
        assert!(said(needle), "{needle}: {:#?}", trace.said);
    }
    for own in ["wandb_version", "_wandb", "_runtime", "hist", "\"word\"", "\"other\""] {
        assert!(!said(own), "{own}: {:#?}", trace.said);
    }
    let counts = reader.counts();
    assert_eq!((counts.records, counts.skipped.count), (14, 2));
    assert_eq!((counts.unknown.count, counts.corrupt.count), (1, 6));
}

#[test]
fn a_run_that_goes_on_has_not_ended() {
    let line = "{\"run\":{\"name\":\"a\",\"state\":\"running\",\"heartbeatAt\":\"2026-01-31T11:00:00Z\"}}\n";
    let log = collect(cloud(), line.as_bytes());
    assert_eq!((log.fact(Fact::Status), log.ended), (Some("running"), None));
}

#[test]
fn the_same_run_says_the_same_from_a_file_and_from_the_server() {
    let about = About {
        id: "ab12".into(),
        name: "fine-sky-7".into(),
        project: "p".into(),
        config: vec![("lr".into(), Value::Float(0.1)), ("layers".into(), Value::Integer(4))],
        started: 1_700_000_000.0,
    };
    let (mut file, mut lines) = (Vec::new(), String::new());
    lines.push_str("{\"run\":{\"name\":\"ab12\",\"displayName\":\"fine-sky-7\",\"project\":\"p\",\"createdAt\":\"2023-11-14T22:13:20\"}}\n");
    lines.push_str("{\"config\":{\"lr\":{\"value\":0.1},\"layers\":{\"value\":4}}}\n");
    let mut writer = WandbWriter::begin(&about, &mut file);
    for step in 0..500_u64 {
        let loss = if step == 400 { f64::NAN } else { 2.0 / (1.0 + step as f64) };
        let time = about.started + step as f64;
        let mut values = vec![("train/loss", loss)];
        if step % 10 == 0 {
            values.push(("val/acc", step as f64 / 500.0));
        }
        writer.row(step, time, &values, &mut file);
        let said = |value: f64| if value.is_nan() { "NaN".to_owned() } else { value.to_string() };
        let members: Vec<String> =
            values.iter().map(|(name, value)| format!(",\"{name}\":{}", said(*value))).collect();
        lines.push_str(&format!(
            "{{\"row\":{{\"_step\":{step},\"_timestamp\":{time}{}}}}}\n",
            members.concat()
        ));
    }
    let (here, there) = (collect(wandb(), &file), collect(cloud(), lines.as_bytes()));
    let columns = |log: &curves::log::Collected| {
        let column = |(name, column): (&str, &curves::log::Column)| {
            let points: Vec<_> = (0..column.values.len())
                .map(|i| (column.step(i), column.time(i), column.values[i].to_bits()))
                .collect();
            (name.to_owned(), points)
        };
        log.named().map(column).collect::<Vec<_>>()
    };
    assert_eq!(columns(&here), columns(&there));
    assert_eq!(columns(&there).iter().map(|(_, points)| points.len()).sum::<usize>(), 550);
    assert_eq!((&here.config, here.started), (&there.config, there.started));
    for fact in [Fact::RunId, Fact::Name, Fact::Project] {
        assert!(here.fact(fact).is_some() && here.fact(fact) == there.fact(fact), "{fact:?}");
    }
}
