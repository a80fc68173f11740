//! Files of real tools give exactly what the programs logged.

use std::collections::BTreeMap;

use super::{collect, console, csv, data, jsonl, mlflow_meta, mlflow_metric, tensorboard, trainer, wandb};
use curves::format::{Delimited, Schema};
use curves::log::{Collected, Fact, Reader, Stream, Value};

type Columns = BTreeMap<String, Vec<(u64, f64)>>;

/// A table of truth, read by nothing of this crate.
fn truth(name: &str) -> Columns {
    let text = String::from_utf8(data(name)).expect("text");
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().expect("header");
    let mut out = Columns::new();
    for line in lines {
        let step: u64 = line[0].parse().expect("step");
        for (name, cell) in names.iter().zip(&line).skip(1).filter(|(_, cell)| !cell.is_empty()) {
            let value = cell.parse().expect("number");
            out.entry((*name).to_owned()).or_default().push((step, value));
        }
    }
    assert!(out.values().map(Vec::len).sum::<usize>() > 150);
    out
}

/// The columns of `log` that the truth knows are the same to the last bit, or
/// within `relative`.
fn assert_same(log: &Collected, truth: &Columns, relative: f64) {
    for (name, expected) in truth {
        let column = log.column(name).unwrap_or_else(|| panic!("no {name}"));
        let found: Vec<_> = column.pairs().map(|(step, value)| (step.expect("a step"), value)).collect();
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(expected) {
            let same = found.1.to_bits() == expected.1.to_bits()
                || found.1.is_nan() && expected.1.is_nan()
                || (found.1 - expected.1).abs() <= relative * expected.1.abs();
            assert!(found.0 == expected.0 && same, "{name}: {found:?} is not {expected:?}");
        }
    }
}

fn setting<'a>(log: &'a Collected, path: &[&str]) -> Option<&'a Value> {
    let path: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
    log.config.get(&path)
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn wandb_0_31_history_is_exact() {
    let log = collect(wandb(), &data("wandb-0.31.0.wandb"));
    let truth = truth("truth-nan.csv");
    assert_same(&log, &truth, 0.0);
    assert_eq!(truth["train/loss"].len(), 120);
    for step in 0..120_usize {
        let at = |name: &str| log.column(name).map(|c| (c.step(step), c.values[step]));
        assert_eq!(at("nested/a/b"), Some((Some(step as u64), 2.0 * step as f64)));
        assert_eq!(at("nested/c"), Some((Some(step as u64), 1.5)));
        assert_eq!(at("dotted.key"), Some((Some(step as u64), step as f64)));
    }
    let big: Vec<_> = log.column("big").expect("big").pairs().collect();
    assert_eq!(big, [(Some(120), 1e18)]);
    let names: Vec<_> = log.named().filter(|(_, column)| !column.values.is_empty()).collect();
    assert_eq!(names.len(), truth.len() + 4, "no metric that nobody logged, no parts of a histogram");
    let time = log.column("lr").and_then(|c| c.time(0)).expect("a time");
    assert!((1.79e9..1.80e9).contains(&time), "{time}");
}

#[test]
fn wandb_0_31_says_what_else_it_knows() {
    let log = collect(wandb(), &data("wandb-0.31.0.wandb"));
    for (path, value) in [
        (&["lr"][..], Value::Float(0.0003)),
        (&["batch_size"], Value::Integer(32)),
        (&["optimizer"], text("adamw")),
        (&["model", "layers"], Value::Integer(4)),
        (&["model", "name"], text("tiny-ünï")),
        (&["betas"], Value::List(vec![Value::Float(0.9), Value::Float(0.95)])),
        (&["use_amp"], Value::Bool(true)),
        (&["note"], Value::Null),
        (&["late"], Value::Integer(1)),
    ] {
        assert_eq!(setting(&log, path), Some(&value), "{path:?}");
    }
    assert_eq!(log.config.len(), 11);
    assert_eq!(log.exit, Some(1));
    for (fact, expected) in [
        (Fact::RunId, "run-nan"),
        (Fact::Name, "run-nan"),
        (Fact::Project, "sample-proj"),
        (Fact::Group, "g1"),
        (Fact::JobType, "train"),
        (Fact::Notes, "hello notes"),
        (Fact::Host, "vm"),
        (Fact::Writer, "0.31.0"),
    ] {
        assert_eq!(log.fact(fact), Some(expected), "{fact:?}");
    }
    let tags: Vec<_> = log.meta.iter().filter(|(fact, _)| *fact == Fact::Tag).map(|(_, t)| &t[..]).collect();
    assert_eq!(tags, ["a", "b"]);
    assert_eq!(log.alerts, [("Low acc".to_owned(), "below thr".to_owned(), "WARN".to_owned())]);
    assert_eq!(log.summary.get(&vec!["best".to_owned()]), Some(&Value::Float(0.123)));
    let last = log.summary.get(&vec!["train/loss".to_owned(), "last".to_owned()]);
    assert_eq!(last, Some(&Value::Float(0.7378821897059594)));
    let lines: Vec<_> = log.output.iter().map(|line| (line.stream, line.text.as_str())).collect();
    assert_eq!(
        lines,
        [
            (Stream::Out, "starting run-nan"),
            (Stream::Out, "step 0 loss 2.6949"),
            (Stream::Out, "progress 20%"),
            (Stream::Out, "step 50 loss 1.3913"),
            (Stream::Out, "progress 20%"),
            (Stream::Out, "step 100 loss 0.8542"),
            (Stream::Out, "progress 20%"),
        ]
    );
}

#[test]
fn wandb_0_19_is_exact() {
    let log = collect(wandb(), &data("wandb-0.19.11.wandb"));
    let found: Vec<_> = log.column("train/loss").expect("a column").pairs().collect();
    let expected: Vec<_> = (0..300).map(|i| (Some(i), 1.0 / (i + 1) as f64)).collect();
    assert_eq!(found, expected);
    assert_eq!(setting(&log, &["d", "x"]), Some(&Value::Integer(1)));
    assert_eq!(log.exit, Some(0));
    assert_eq!((log.fact(Fact::Project), log.fact(Fact::Name)), (Some("b"), Some("n1")));
}

#[test]
fn json_lines_keep_nan_and_order() {
    let bytes = data("nan_lr.jsonl");
    let log = collect(jsonl(), &bytes);
    let loss = log.column("train/loss").expect("a loss");
    assert_eq!(loss.values[0], 2.314516305923462);
    assert!(loss.values[1..].iter().all(|v| v.is_nan()));
    assert_eq!(
        loss.pairs().map(|(step, _)| step).collect::<Vec<_>>(),
        (0..132).map(Some).collect::<Vec<_>>()
    );
    assert_eq!(loss.time(2), Some(1700000000.15));
    assert_eq!(log.column("lr").map(|c| c.values[131]), Some(1e30));
    assert_eq!(log.column("epoch").map(|c| c.values[131]), Some(3.0));
    let val: Vec<_> = log.column("val/acc").expect("val").pairs().map(|(step, _)| step).collect();
    assert_eq!(val, [Some(43), Some(87), Some(131)]);
    assert_eq!((log.column("step").is_none(), log.column("_timestamp").is_none()), (true, true));
}

#[test]
fn json_lines_of_every_shape() {
    let text = br#"
{"step": 1, "loss": 0.5, "val": {"loss": 0.25, "deep": {"x": NaN}}, "note": "x", "ok": true, "list": [1, 2], "none": null}
{"loss": "Infinity", "step": 3.0, "epoch": 1}
not json
{"step": 2, "a\u00e9\"b": 1, "loss": -inf}
{"epoch": 2, "eval_loss": 7}
{"step": 4, "lo{"step": 5, "loss": 1, "val": {"loss": 2}}
{"step": 6, "val": {"loss": 3}
{"step": 5, "loss": 2, "val": 9}
{"step": -1, "loss": 3, "time": 0.5, "timestamp": "2023-11-14T22:13:20Z"}"#;
    let mut reader = jsonl();
    let mut log = Collected::default();
    reader.feed(text, &mut log);
    assert_eq!(log.column("loss").map(|c| c.values.len()), Some(5));
    reader.finish(&mut log);
    let column = |name: &str| log.column(name).map(|c| c.pairs().collect::<Vec<_>>()).unwrap_or_default();
    let inf = f64::INFINITY;
    assert_eq!(
        column("loss"),
        [(1, 0.5), (3, inf), (2, -inf), (5, 1.0), (5, 2.0), (5, 3.0)].map(|(s, v)| (Some(s), v))
    );
    assert_eq!(column("val/loss"), [(Some(1), 0.25), (Some(5), 2.0)]);
    assert_eq!(column("val"), [(Some(5), 9.0)]);
    assert!(log.column("val/deep/x").is_some_and(|c| c.values[0].is_nan()));
    assert_eq!(column("aé\"b"), [(Some(2), 1.0)]);
    assert_eq!(column("eval_loss"), [(Some(2), 7.0)]);
    assert_eq!(column("epoch"), [(Some(3), 1.0), (Some(2), 2.0)]);
    assert_eq!(column("time"), [(Some(5), 0.5)]);
    assert_eq!(log.column("loss").and_then(|c| c.time(5)), Some(1.7e9));
    let counts = reader.counts();
    assert_eq!((counts.records, counts.corrupt.count, counts.unknown.count), (7, 2, 1));
    assert_eq!((counts.torn.count, counts.bytes), (0, text.len() as u64));
}

#[test]
fn counters_of_agents_stand_in_for_steps() {
    let steps = |text: &str, metric: &str| {
        let log = collect(jsonl(), text.as_bytes());
        let column = log.column(metric).unwrap_or_else(|| panic!("no {metric} in {text}"));
        column.pairs().map(|(step, _)| step).collect::<Vec<_>>()
    };
    // Stable-Baselines3, RLlib and a plain loop.
    let baselines = r#"{"time/iterations": 1, "time/total_timesteps": 2048, "rollout/ep_rew_mean": 9.5}
{"time/iterations": 2, "time/total_timesteps": 4096, "rollout/ep_rew_mean": 12}"#;
    assert_eq!(steps(baselines, "rollout/ep_rew_mean"), [Some(2048), Some(4096)]);
    let rllib = r#"{"training_iteration": 1, "timesteps_total": 4000, "episode_reward_mean": 20}
{"training_iteration": 2, "timesteps_total": 8000, "episode_reward_mean": 30}"#;
    assert_eq!(steps(rllib, "episode_reward_mean"), [Some(4000), Some(8000)]);
    assert_eq!(
        steps("{\"episode\": 3, \"reward\": 1}\n{\"episode\": 4, \"reward\": 2}", "reward"),
        [Some(3), Some(4)]
    );
    // Beside a step, and beside a better counter, the weaker ones are metrics.
    let both = r#"{"step": 100, "episode": 2, "loss": 1}
{"episode": 3, "reward": 5}
{"step": 200, "loss": 1}
{"timesteps": 9999, "epoch": 1, "reward": 6}"#;
    assert_eq!(steps(both, "reward"), [Some(100), Some(200)]);
    assert_eq!(steps(both, "episode"), [Some(100), Some(100)]);
    let two = "{\"timesteps\": 2048, \"reward\": 1}\n{\"episode\": 7, \"reward\": 2}\n{\"epoch\": 1, \"reward\": 3}";
    assert_eq!(steps(two, "reward"), [Some(2048), Some(2048), Some(2048)]);
    // What counts anew in every row is none.
    assert_eq!(steps("{\"timesteps_this_iter\": 2048, \"reward\": 1}", "reward"), [None]);
}

#[test]
fn a_schema_names_step_and_time() {
    let schema = Schema { step: Some("tokens".to_owned()), time: Some("when".to_owned()) };
    let reader = Box::new(curves::format::JsonLines::new(schema));
    let log = collect(
        reader,
        b"{\"tokens\": 4096, \"step\": 1, \"when\": 1700000000500, \"time\": 2e9, \"loss\": 3}\n",
    );
    let loss = log.column("loss").expect("a loss");
    assert_eq!((loss.step(0), loss.time(0)), (Some(4096), Some(1_700_000_000.5)));
    assert_eq!(log.column("step").map(|c| c.values.clone()), Some(vec![1.0]));
    assert_eq!(log.column("time").map(|c| c.values.clone()), Some(vec![2e9]));
}

#[test]
fn tables_of_keras_lightning_and_dvclive() {
    let log = collect(csv(), &data("keras_csvlogger_v1.csv"));
    let loss: Vec<_> = log.column("val_loss").expect("a loss").pairs().collect();
    assert_eq!(
        loss,
        [(Some(0), 0.487694650888443), (Some(1), 0.46514639258384705), (Some(2), 0.40045401453971863)]
    );
    // The layout of Lightning's CSVLogger: sparse rows, sorted columns.
    let lightning = "epoch,lr-SGD,step,train_loss_epoch,train_loss_step,val_loss\n,0.1,9,,,\n0,,9,,0.5,\n0,,43,,,0.25\n0,,43,0.75,,\n";
    let log = collect(csv(), lightning.as_bytes());
    let column = |name: &str| log.column(name).map(|c| c.pairs().collect::<Vec<_>>()).unwrap_or_default();
    assert_eq!(column("train_loss_step"), [(Some(9), 0.5)]);
    assert_eq!(column("val_loss"), [(Some(43), 0.25)]);
    assert_eq!(column("lr-SGD"), [(Some(9), 0.1)]);
    assert_eq!(column("epoch"), [(Some(9), 0.0), (Some(43), 0.0), (Some(43), 0.0)]);
    let dvclive = Box::new(Delimited::of_metric("train/loss", Schema::default()));
    let log = collect(dvclive, b"step\tloss\n0\t2.5\n1\tnan\n2\t-inf\n3\t1.");
    let loss = log.column("train/loss").expect("a loss");
    assert_eq!((loss.values[0], loss.values[1].is_nan(), loss.values[2]), (2.5, true, f64::NEG_INFINITY));
    assert_eq!((loss.values.len(), log.column("loss").is_none()), (3, true));
}

#[test]
fn tables_of_every_shape() {
    let text = "\u{feff}step;\"train;loss\";note\r\n1;0.5;\"say \"\"hi\"\"\"\r\n2;1,5;\r\n# gone\r\n3;0.25;x;\r\n4;1\r\n5;1;2;3\r\n6;\"1;2\r\nstep;\"train;loss\";note\r\n1;7;\r\n8;9";
    let mut reader = csv();
    let mut log = Collected::default();
    reader.feed(text.as_bytes(), &mut log);
    reader.finish(&mut log);
    let loss: Vec<_> = log.column("train;loss").expect("a loss").pairs().collect();
    assert_eq!(loss, [(Some(1), 0.5), (Some(3), 0.25), (Some(1), 7.0)]);
    assert_eq!(log.segments, 1);
    let counts = reader.counts();
    assert_eq!((counts.corrupt.count, counts.aside.count, counts.torn.count), (3, 1, 3));
    let bare = collect(csv(), b"1,0.5\n2,0.25\n");
    assert_eq!(bare.column("column 2").map(|c| c.values.clone()), Some(vec![0.5, 0.25]));
}

#[test]
fn event_files_of_both_encodings() {
    let log = collect(tensorboard(), &data("tensorboardx.tfevents"));
    assert_same(&log, &truth("truth-ok.csv"), 1e-6);
    let others: Vec<_> = log.others.iter().map(|(key, kind)| (&key[..], &kind[..])).collect();
    assert_eq!(others, [("h", "histogram"), ("note/text_summary", "text")]);
    let time = log.column("lr").and_then(|c| c.time(0)).expect("a time");
    assert!((1.79e9..1.80e9).contains(&time), "{time}");
    let log = collect(tensorboard(), &data("tensorboard-tensors.tfevents"));
    assert_same(&log, &truth("truth-tensors.csv"), 1e-6);
    assert_eq!(log.column("lr").and_then(|c| c.time(7)), Some(1_700_000_007.0));
}

#[test]
fn hyperparameters_of_event_files() {
    let log = collect(tensorboard(), &data("tensorboardx-hparams.tfevents"));
    assert_eq!(setting(&log, &["lr"]), Some(&Value::Float(0.0003)));
    assert_eq!(setting(&log, &["bs"]), Some(&Value::Integer(32)));
    assert_eq!(setting(&log, &["opt"]), Some(&text("adamw")));
    let best: Vec<_> = log.column("hparam/best").expect("a metric").pairs().collect();
    assert_eq!(best, [(Some(199), 0.5)]);
    assert_eq!(log.fact(Fact::Status), Some("SUCCESS"));
}

#[test]
fn a_new_session_voids_what_it_does_again() {
    let mut log = Collected::default();
    let mut reader = tensorboard();
    let event = |payload: &[u8]| {
        let mask = |bytes: &[u8]| {
            let crc = crc32c::crc32c(bytes);
            crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
        };
        let length = (payload.len() as u64).to_le_bytes();
        [&length[..], &mask(&length), payload, &mask(payload)].concat()
    };
    for step in 1..=9 {
        // Field 2 the step, field 5 a summary of one value of tag `a`.
        reader.feed(&event(&[16, step, 42, 10, 10, 8, 10, 1, b'a', 21, 0, 0, 128, 63]), &mut log);
    }
    // Field 7 a session log with status START.
    reader.feed(&event(&[16, 5, 58, 2, 8, 1]), &mut log);
    reader.feed(&event(&[16, 5, 42, 10, 10, 8, 10, 1, b'a', 21, 0, 0, 0, 64]), &mut log);
    let found: Vec<_> = log.column("a").expect("a").pairs().collect();
    assert_eq!(found, [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0)].map(|(s, v)| (Some(s), v)));
    assert_eq!(log.segments, 1);
}

#[test]
fn parts_of_a_resumed_run_are_joined() {
    let bytes = data("wandb-0.19.11.wandb");
    let mut log = Collected::default();
    let mut first = curves::format::Wandb::new();
    // Killed: the file has less than a block of its rows.
    first.feed(&bytes[..40_000], &mut log);
    first.finish(&mut log);
    let rows = log.column("train/loss").map_or(0, |c| c.values.len());
    assert!((100..200).contains(&rows), "{rows}");
    assert_eq!((first.run_id(), log.exit), (Some("2c0lfdmh"), None));
    // A part that goes on at step 0 does everything again.
    let mut second = curves::format::Wandb::resumed();
    second.feed(&bytes, &mut log);
    second.finish(&mut log);
    let found: Vec<_> = log.column("train/loss").expect("a loss").pairs().collect();
    assert_eq!(found, (0..300).map(|i| (Some(i), 1.0 / (i + 1) as f64)).collect::<Vec<_>>());
    assert_eq!((log.segments, log.exit, second.run_id()), (1, Some(0), first.run_id()));
}

#[test]
fn a_state_of_the_trainer_is_exact() {
    let bytes = data("hf_trainer_state.json");
    let log = collect(trainer(), &bytes);
    let text = String::from_utf8(bytes).expect("text");
    let (_, history) = text.split_once("\"log_history\": [").expect("rows");
    let (history, _) = history.split_once("\n  ]").expect("their end");
    let mut expected = Columns::new();
    for row in history.split("{\n").skip(1) {
        let members: Vec<(&str, &str)> =
            row.lines().filter_map(|line| line.trim().split_once(": ")).collect();
        let members = members.iter().map(|(key, value)| (key.trim_matches('"'), value.trim_end_matches(',')));
        let step = members.clone().find(|(key, _)| *key == "step").expect("a step").1;
        for (key, value) in members.filter(|(key, _)| *key != "step") {
            let point = (step.parse().expect("a step"), value.parse().expect("a number"));
            expected.entry(key.to_owned()).or_default().push(point);
        }
    }
    assert!(expected["loss"].len() >= 20 && expected.contains_key("eval_loss"));
    assert_same(&log, &expected, 0.0);
    assert_eq!(log.names.len(), expected.len());
    assert_eq!(log.summary.get(&vec!["max_steps".to_owned()]), Some(&Value::Integer(220)));
    assert_eq!(log.summary.get(&vec!["epoch".to_owned()]), Some(&Value::Float(5.0)));
}

#[test]
fn console_lines_of_the_trainer_have_four_digits() {
    let printed = collect(console(), &data("hf_stdout.txt"));
    let exact = collect(trainer(), &data("hf_trainer_state.json"));
    for name in ["loss", "grad_norm", "learning_rate", "eval_loss", "eval_accuracy"] {
        let values = |log: &Collected| log.column(name).map(|c| c.values.clone()).unwrap_or_default();
        let (printed, exact) = (values(&printed), values(&exact));
        assert_eq!(printed.len(), exact.len(), "{name}");
        assert!(printed.len() >= 5, "{name}");
        for (printed, exact) in printed.iter().zip(&exact) {
            assert!((printed - exact).abs() <= 5.1e-4 * exact.abs(), "{name}: {printed} is not {exact}");
        }
    }
    let epochs = printed.column("epoch").map(|c| c.values.clone()).unwrap_or_default();
    assert_eq!((epochs[0], epochs.last().copied()), (0.2273, Some(5.0)));
}

#[test]
fn console_output_of_keras_scikit_learn_and_lightgbm() {
    let log = collect(console(), &data("keras_stdout.txt"));
    for (offset, file) in [(0, "keras_csvlogger_v1.csv"), (3, "keras_csvlogger_v2.csv")] {
        let exact = collect(csv(), &data(file));
        for name in ["val_loss", "val_accuracy"] {
            let printed = log.column(name).expect("a column");
            assert_eq!(printed.values.len(), 6);
            let exact = exact.column(name).expect("a column");
            for (epoch, exact) in exact.values.iter().enumerate() {
                assert!((printed.values[offset + epoch] - exact).abs() <= 5.1e-5, "{name} {epoch}");
                assert_eq!(printed.step(offset + epoch), Some(epoch as u64 + 1));
            }
        }
    }
    let log = collect(console(), &data("sklearn.txt"));
    let loss: Vec<_> = log.column("loss").expect("a loss").pairs().collect();
    assert_eq!((loss.len(), loss[0], loss[7]), (8, (Some(1), 2.37389809), (Some(8), 1.62948984)));
    let score: Vec<_> = log.column("Validation score").expect("a score").pairs().collect();
    assert_eq!((score.len(), score[7]), (8, (Some(8), 0.755556)));
    let log = collect(console(), &data("lightgbm.txt"));
    let loss: Vec<_> = log.column("valid's multi_logloss").expect("a loss").pairs().collect();
    assert_eq!(loss[..3], [(Some(5), 1.01801), (Some(10), 0.678833), (Some(15), 0.521911)]);
}

#[test]
fn files_of_mlflow() {
    let log = collect(mlflow_metric(), &data("mlflow-train-loss"));
    let mut expected = truth("truth-ok.csv");
    expected.retain(|name, _| name == "train/loss");
    assert_same(&log, &expected, 0.0);
    assert_eq!(log.column("train/loss").and_then(|c| c.time(7)), Some(1_700_000_007.0));
    let mut reader = mlflow_metric();
    let mut odd = Collected::default();
    reader.feed(
        b"1700000000000 nan\n1700000000000 -inf 3\n1700000000000 1 4 data 0a1b\n17 x 4\n1 2 3 4\n1 0.",
        &mut odd,
    );
    reader.finish(&mut odd);
    let found = odd.column("train/loss").expect("a column");
    assert!(found.values[0].is_nan() && found.step(0).is_none());
    assert_eq!(
        (found.values[1], found.step(1), found.values[2], found.step(2)),
        (f64::NEG_INFINITY, Some(3), 1.0, Some(4))
    );
    assert_eq!((reader.counts().corrupt.count, reader.counts().torn.count), (2, 4));
    let mut log = collect(mlflow_meta(), &data("mlflow-meta.yaml"));
    curves::format::mlflow_param("model.name", "tiny-ünï".as_bytes(), &mut log);
    curves::format::mlflow_tag("mlflow.note.content", b"hello", &mut log);
    curves::format::mlflow_tag("note", b"n", &mut log);
    for (fact, expected) in [
        (Fact::RunId, "4dc0cadce5d449b48ba8477bc76b7307"),
        (Fact::Name, "run-ok"),
        (Fact::Status, "FINISHED"),
        (Fact::Notes, "hello"),
        (Fact::Tag, "note=n"),
    ] {
        assert_eq!(log.fact(fact), Some(expected));
    }
    assert_eq!((log.started, log.ended), (Some(1.7e9), Some(1_700_000_200.0)));
    assert_eq!(setting(&log, &["model.name"]), Some(&text("tiny-ünï")));
}
