//! What the parent module promises, tested.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Vec<Point> {
    let mut reader = LineReader::new(Limits::default());
    let mut out = Vec::new();
    reader.feed(text.as_bytes(), &mut out);
    reader.finish(&mut out);
    out
}

/// `name@step=value` of every point, for readable expectations.
fn shown(text: &str) -> Vec<String> {
    let step = |p: &Point| p.step.map_or_else(|| "-".to_owned(), |s| s.to_string());
    read(text).iter().map(|p| format!("{}@{}={}", p.name, step(p), p.value)).collect()
}

#[test]
fn json_lines() {
    for (line, points) in [
        (
            r#"{"step": 120, "loss": 0.5, "acc": 0.9, "note": "7", "ok": true}"#,
            vec!["loss@120=0.5", "acc@120=0.9"],
        ),
        (
            r#"{"step": 1718, "epoch": 39, "train/loss": NaN, "lr": 1e+30, "_timestamp": 1700000085.95}"#,
            vec!["train/loss@1718=NaN", "lr@1718=1000000000000000000000000000000"],
        ),
        (
            r#"{"loss": Infinity, "g": -Infinity, "h": 1e400, "global_step": 3.0}"#,
            vec!["loss@3=inf", "g@3=-inf", "h@3=inf"],
        ),
        (
            r#"{"train": {"loss": 1.5, "deep": {"x": 2}}, "list": [1, {"y": 3}], "iter": 9}"#,
            vec!["train/loss@9=1.5"],
        ),
        (r#"{"step": 7, "trainer/global_step": 42, "loss": 1}"#, vec!["loss@42=1"]),
        (r#"2026-01-31 10:00:00 INFO {"loss": 2, "step": 1}"#, vec!["loss@1=2"]),
        ("{'loss': '2.069', 'learning_rate': 0.5, 'step': 4}", vec!["loss@4=2.069", "learning_rate@4=0.5"]),
        (
            "{'loss': np.float64(0.25), 'g': tensor(1.5, device='cuda:0'), 'n': None, 'step': 2}",
            vec!["loss@2=0.25", "g@2=1.5"],
        ),
        (r#"{"a\"b\u00e9": 1}"#, vec!["a\"bé@-=1"]),
        (r#"{"step": -1, "loss": 3}"#, vec!["loss@-=3"]),
        (r#"{"loss": 0.5, "acc""#, vec![]),
        (r#"{"loss": 0.5} and more 3"#, vec![]),
        ("{loss: 0.5}", vec![]),
        ("{}", vec![]),
    ] {
        assert_eq!(shown(line), points, "{line}");
    }
}

#[test]
fn key_value_lines() {
    for (line, points) in [
        ("step=20 loss=0.312500 lr=0.1", vec!["loss@20=0.3125", "lr@20=0.1"]),
        ("step: 142 | loss: 0.098801 | acc: 0.9790", vec!["loss@142=0.098801", "acc@142=0.979"]),
        ("loss = 0.25, acc = 91.5%", vec!["loss@-=0.25", "acc@-=91.5"]),
        (
            "step 2000: train loss 1.7648, val loss 1.8857",
            vec!["train loss@2000=1.7648", "val loss@2000=1.8857"],
        ),
        ("iter 100: loss 2.5, time 25.50ms, mfu 30.10%", vec!["loss@100=2.5", "mfu@100=30.1"]),
        ("Epoch [3/10], Step [100/600], Loss: 0.3", vec!["Loss@100=0.3"]),
        ("Train Epoch: 1 [640/60000 (1%)]\tLoss: 0.532", vec!["Loss@60640=0.532"]),
        (
            "Epoch: [2][ 10/500]\tTime 0.1 (0.2)\tLoss 6.9e+00 (7.0e+00)\tAcc@1 0.10 (0.08)",
            vec!["Loss@1010=6.9", "Acc@1@1010=0.1"],
        ),
        ("Epoch: [2][10/500] Loss 6.9e+00 (7.0e+00) global_step=7", vec!["Loss@7=6.9"]),
        ("Epoch: [2][600/500] Loss 6.9e+00", vec!["Loss@2=6.9"]),
        (
            "Test set: Average loss: 0.0503, Accuracy: 9831/10000 (98%)",
            vec!["Average loss@-=0.0503", "Accuracy@-=0.9831"],
        ),
        ("step=3 retries: 9831/10000 acc: 7/5", vec![]),
        ("step 1,000: loss 1,234.5 tokens/s 12.3k", vec!["loss@1000=1234.5"]),
        ("Step: 1,003/12,000 | Loss: 2,345 | tok/s=12,345", vec!["Loss@1003=2345", "tok/s@1003=12345"]),
        ("12/600 loss 2.7 lr 1e-3", vec!["loss@12=2.7", "lr@12=0.001"]),
        (
            "epoch 001: 100 / 5000 loss=5.2, ppl=36.7, num_updates=100, lr=1e-05",
            vec!["loss@100=5.2", "ppl@100=36.7", "lr@100=0.00001"],
        ),
        ("12/600 files were copied, loss 2.7", vec![]),
        ("3/10 tests passed: 3", vec![]),
        // Whether it is 0.532 is not known.
        ("step 5: loss 0,532 acc 0.5", vec!["acc@5=0.5"]),
        ("step=5,loss=0.5,acc=1,lr=0.25", vec!["loss@5=0.5", "acc@5=1", "lr@5=0.25"]),
        ("step:5/1000 train_loss:4.5 step_avg:nanms", vec!["train_loss@5=4.5", "step_avg@5=NaN"]),
        ("s:100 trl:4.5", vec!["trl@100=4.5"]),
        ("[5]\tvalidation-logloss:0.43", vec!["validation-logloss@5=0.43"]),
        ("[rank0]: 2026-01-31 10:00:00,123 - INFO - global_step=7 loss=1e-3", vec!["loss@7=0.001"]),
        ("INFO done with it: train loss: 0.5 at step 30", vec!["train loss@30=0.5"]),
        ("throughput=12.5 memory=3.5GB", vec!["throughput@-=12.5", "memory@-=3.5"]),
        ("step=3 loss=nan grad_norm=inf", vec!["loss@3=NaN", "grad_norm@3=inf"]),
        (
            "iteration       10/  500000 | consumed samples:    80 | elapsed time per iteration (ms): 1234.5 | learning rate: 1.0E-04 | lm loss: 2.19E+00 | grad norm: 0.242 |",
            vec![
                "consumed samples@10=80",
                "learning rate@10=0.0001",
                "lm loss@10=2.19",
                "grad norm@10=0.242",
            ],
        ),
        (
            "valid loss at iteration 100 | lm loss value: 2.5 | lm loss PPL: 8",
            vec!["lm loss value@100=2.5", "lm loss PPL@100=8"],
        ),
    ] {
        assert_eq!(shown(line), points, "{line}");
    }
}

#[test]
fn progress_bars() {
    for (line, points) in [
        ("45%|####5     | 45/100 [00:10<00:12, 4.5it/s, loss=0.3]", vec!["loss@45=0.3"]),
        (
            "Epoch 5: 100%|####| 44/44 [00:04<00:00, 9.40it/s, v_num=0, val_loss=0.130]",
            vec!["val_loss@264=0.13"],
        ),
        ("Epoch 2/10:  50%|██   | 50/100 [00:04<00:04, 9.40it/s, acc=33.3%]", vec!["acc@150=33.3"]),
        ("loss 0.25:  20%|##   | 2/10 [00:04<00:00, 9.40it/s]", vec!["loss@2=0.25"]),
        ("Validation: 50%|##   | 5/10 [00:04<00:00, 9.40it/s, loss=0.5]", vec!["loss@-=0.5"]),
        ("Map: 45%|####5     | 450/1000 [00:10<00:12, 4.5 examples/s]", vec![]),
        ("Downloading model.bin: 45%|####5     | 1.2M/5.0M [00:10<00:12, 4.5MB/s]", vec![]),
    ] {
        assert_eq!(shown(line), points, "{line}");
    }
    let bar = parse_line("Epoch 2/10:  50%|##| 50/100 [0:04<0:04, 9it/s, a=3]").expect("a bar");
    assert_eq!((bar.step, bar.progress), (Some(150), Some((150, 1000))));
    assert_eq!(parse_line("45%|##| 45/100 [0:04<0:04, 9it/s]").expect("a bar").progress, Some((45, 100)));
    assert_eq!(parse_line("Map: 45%|##| 45/100 [0:04<0:04, 9it/s]"), None);
}

#[test]
fn lines_that_count_within_epochs_have_steps_of_their_own() {
    let text: String = (1..3)
        .flat_map(|epoch| {
            (0..4).map(move |n| format!("Train Epoch: {epoch} [{}/256 ({}%)]\tLoss: 0.5\n", n * 64, n * 25))
        })
        .chain(["\nTest set: Average loss: 0.4, Accuracy: 9/10 (90%)\n".to_owned()])
        .collect();
    let steps: Vec<Option<u64>> = read(&text).iter().map(|point| point.step).collect();
    let expected = [256, 320, 384, 448, 512, 576, 640, 704, 704, 704].map(Some);
    assert_eq!(steps, expected);
}

#[test]
fn steps_that_begin_anew_with_each_epoch_count_on() {
    let steps = |text: String| -> Vec<Option<u64>> { read(&text).iter().map(|point| point.step).collect() };
    let line = |epoch: u64, step: u64| format!("Epoch [{epoch}/3], Step [{step}/600], Loss: 0.5\n");
    let all = |first: u64| (first..first + 3).flat_map(move |epoch| [300, 600].map(|step| (epoch, step)));
    let expected: Vec<_> = [300, 600, 900, 1200, 1500, 1800].map(Some).into();
    assert_eq!(steps(all(1).map(|(epoch, step)| line(epoch, step)).collect()), expected);
    assert_eq!(steps(all(0).map(|(epoch, step)| line(epoch, step)).collect()), expected);
    // One line an epoch.
    assert_eq!(steps((1..4).map(|epoch| line(epoch, 100)).collect()), [100, 700, 1300].map(Some));
    // Steps of the whole training stay as they are.
    let whole = (0..6).map(|n| line(1 + n / 2, 100 * (n + 1))).collect();
    assert_eq!(steps(whole), [100, 200, 300, 400, 500, 600].map(Some));
}

#[test]
fn prose_gives_no_points() {
    for line in [
        "Training until validation scores don't improve for 5 rounds",
        "Loaded 1797 samples in 0.35 seconds (64 features each)",
        "2026-01-31 10:00:00,123 Starting run 7 on 2 GPUs",
        "2026-01-31T10:00:00Z listening on http://10.0.0.1:8080/metrics?step=5",
        "see https://example.org/loss:5 or https://example.org:443",
        "tensorboard at http://localhost:6006/ (pid 4711)",
        "Saved checkpoint to /data/runs/exp-3/step-000120.npz in 1.5 s",
        "  File \"/usr/lib/python3/train.py\", line 42, in main",
        "/usr/lib/python3/loss.py:785: UserWarning: lr_scheduler.step() called 2 times",
        "loss.py:785: calling train_loss.py:12",
        "connected to 192.168.0.1:22, peer fe80::1",
        "elapsed time: 12:34:56",
        "time: 2026-01-31 10:00:00",
        "port: 8080",
        "error: 404 not found",
        "Error: 13",
        "numpy==2.4.6 scipy>=1.17 python_version<3.12",
        "Namespace(lr=0.1, epochs=5, seed=42)",
        "optimizer Adam(lr=0.001, eps=1e-08) and Linear(in_features=64, out_features=10)",
        "Epoch 5: reducing learning rate of group 0 to 1e-4.",
        "Epoch 00001: val_loss improved from inf to 0.5, saving model to best.h5",
        "[LightGBM] [Info] Start training from score -2.309754",
        "[LightGBM] [Warning] No further splits with positive gain, best gain: -inf",
        "[LightGBM] [Info] Number of data points in the train set: 1400, number of used features: 53",
        "You can set `force_row_wise=true` to remove the overhead.",
        "Total training time: 0.00 seconds.",
        "Mem:  16384 total, 8192 free",
        "version: 1.2.3",
        "sha256: 64ddf9472653baa74918dbeebd4e4e5c320e2efaed5d38991697f0a830865f15",
        "finished after 600 steps, weights sha256 64ddf947",
        "resumed from checkpoints/step-000120.npz at step 120",
        "| NVIDIA-SMI 550.54 Driver Version: 550.54 CUDA Version: 12.4 |",
        "loss function: 3 terms were found",
        "    retries = 3",
        "=== verbose=1",
        "started with seed=42",
        "",
    ] {
        assert_eq!(shown(line), Vec::<String>::new(), "{line}");
    }
}

#[test]
fn real_sklearn_output() {
    let perceptron = "Iteration 1, loss = 2.37389809\nValidation score: 0.155556\nIteration 2, loss = 2.24123248\nValidation score: 0.255556\n";
    assert_eq!(
        shown(perceptron),
        [
            "loss@1=2.37389809",
            "Validation score@1=0.155556",
            "loss@2=2.24123248",
            "Validation score@2=0.255556"
        ]
    );
    let sgd = "-- Epoch 1\nNorm: 132.25, NNZs: 61, Bias: -4.246549, T: 1797, Avg. loss: 8.144630, Objective: 9.281431\nTotal training time: 0.00 seconds.\n-- Epoch 2\nNorm: 100.14, NNZs: 61, Bias: -5.961607, T: 3594, Avg. loss: 2.992119, Objective: 3.676890\n";
    let points = shown(sgd);
    assert_eq!(points.len(), 12);
    assert_eq!((points[0].as_str(), points[4].as_str()), ("Norm@1=132.25", "Avg. loss@1=8.14463"));
    assert_eq!(points[10], "Avg. loss@2=2.992119");
}

#[test]
fn real_lightgbm_output() {
    let text = "[LightGBM] [Info] Total Bins 836\n[5]\ttrain's multi_logloss: 0.765048\ttrain's multi_error: 0.0207143\tvalid's multi_logloss: 1.01801\tvalid's multi_error: 0.143577\n";
    assert_eq!(
        shown(text),
        [
            "train's multi_logloss@5=0.765048",
            "train's multi_error@5=0.0207143",
            "valid's multi_logloss@5=1.01801",
            "valid's multi_error@5=0.143577"
        ]
    );
}

#[test]
fn real_keras_output() {
    let redrawn = "Epoch 1/3\n\r\u{1b}[1m 2/44\u{1b}[0m \u{1b}[37m━━━━\u{1b}[0m \u{1b}[1m1:15\u{1b}[0m 2s/step - accuracy: 0.1094 - loss: 2.3550\u{8}\u{8}\u{8}\u{8}\r\u{1b}[1m44/44\u{1b}[0m \u{1b}[32m━━━━\u{1b}[0m \u{1b}[1m10s\u{1b}[0m 153ms/step - accuracy: 0.7493 - loss: 0.9421 - val_loss: 0.4877\n";
    assert_eq!(shown(redrawn), ["accuracy@1=0.7493", "loss@1=0.9421", "val_loss@1=0.4877"]);
    let lines = "Epoch 2/3\n44/44 - 0s - 3ms/step - accuracy: 0.9400 - loss: 0.2044\nEpoch 3/3\n44/44 - 0s - 2ms/step - accuracy: 0.9614 - loss: 0.1197\n";
    assert_eq!(shown(lines), ["accuracy@2=0.94", "loss@2=0.2044", "accuracy@3=0.9614", "loss@3=0.1197"]);
}

#[test]
fn real_hugging_face_output() {
    let dicts = "{'loss': '2.069', 'grad_norm': 'nan', 'learning_rate': '0.009591', 'epoch': '0.2273'}\n{'eval_loss': '0.5419', 'epoch': '1'}\n";
    assert_eq!(
        shown(dicts),
        ["loss@-=2.069", "grad_norm@-=NaN", "learning_rate@-=0.009591", "eval_loss@-=0.5419"]
    );
    let with_bars = "  5%|▍| 10/220 [00:01<00:20, 9.5it/s]\r{'loss': '2.069', 'epoch': '0.2273'}\n100%|█| 13/13 [00:00<00:00, 30it/s]\r 20%|██| 44/220 [00:04<00:18, 9.5it/s]\r100%|█| 13/13 [00:00<00:00, 30it/s]\r{'eval_loss': '0.5419', 'epoch': '1'}\n";
    assert_eq!(shown(with_bars), ["loss@10=2.069", "eval_loss@44=0.5419"]);
}

#[test]
fn the_step_of_a_line_without_one() {
    assert_eq!(
        shown("loss=1\nstep=5 loss=2\nacc=3\nstep=4 loss=4\nacc=5\n"),
        ["loss@-=1", "loss@5=2", "acc@5=3", "loss@4=4", "acc@4=5"]
    );
    // Once steps are named, a bare epoch line belongs to the newest of them.
    assert_eq!(shown("step=100 loss=2\nepoch: 1, val_loss: 3\n"), ["loss@100=2", "val_loss@100=3"]);
    assert_eq!(shown("step=5 loss=1\nstep=5 loss=2\n"), ["loss@5=1", "loss@5=2"]);
    // Agents count what they did; beside steps that is a metric of no axis.
    assert_eq!(shown("{\"timesteps\": 2048, \"episode\": 3, \"reward\": 7}\n"), ["reward@2048=7"]);
    assert_eq!(
        shown("Episode 12/500, reward: 34.5\nEpisode: 13, reward: 35\n"),
        ["reward@12=34.5", "reward@13=35"]
    );
    assert_eq!(
        shown("step=100 loss=2\nEpisode: 3, reward: 35\nstep=200 loss=1\n"),
        ["loss@100=2", "reward@100=35", "loss@200=1"]
    );
}

#[test]
fn odd_bytes_and_lengths() {
    let mut reader = LineReader::new(Limits::default());
    let mut out = Vec::new();
    reader.feed(b"step=1 loss=1\xff\xfe\nstep=2 \xc3\x28 loss=2\r\nstep=3 loss=3\rstep=4 loss=4", &mut out);
    assert_eq!(out.iter().map(|p| p.value).collect::<Vec<_>>(), [2.0, 3.0]);
    reader.finish(&mut out);
    assert_eq!(out.last().map(|p| (p.step, p.value)), Some((Some(4), 4.0)));
    out.clear();
    for _ in 0..3 {
        reader.feed(&vec![b'x'; MAX_LINE_BYTES / 2], &mut out);
    }
    reader.feed(b" step=9 loss=9\nstep=5 loss=5\n", &mut out);
    assert_eq!(out, [Point { name: "loss".into(), step: Some(5), value: 5.0 }]);
    assert_eq!(reader.skipped_lines(), 1);
}

#[test]
fn names_and_values_are_bounded() {
    let mut reader = LineReader::new(Limits { max_names: 2 });
    let mut out = Vec::new();
    reader.feed(b"step=1 a=1 b=2 c=3\nstep=2 c=1 a=5 d=1\n", &mut out);
    assert_eq!(out.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["a", "b", "a"]);
    assert_eq!(reader.dropped_names(), 3);
    let many: Vec<String> = (0..1500).map(|i| format!("m{i}={i}")).collect();
    let line = parse_line(&format!("step=1 {}", many.join(" "))).expect("metrics");
    assert_eq!((line.values.len(), line.dropped), (MAX_VALUES_PER_LINE, 500));
    let long = parse_line(&format!("{{\"{}\": 1, \"loss\": 2}}", "n".repeat(129))).expect("metrics");
    assert_eq!((long.values.len(), long.dropped), (1, 1));
    assert_eq!(parse_line(&format!("{{\"a\": {}1{}}}", "[".repeat(5000), "]".repeat(5000))), None);
}

#[test]
fn a_stored_reader_goes_on_where_it_was() {
    let text = b"{\"step\": 1, \"loss\": 0.5}\nstep=2 \xff\x80loss=3 loss=2\nacc=4\n";
    let whole = read(&String::from_utf8_lossy(text));
    for cut in 0..text.len() {
        let (mut out, mut reader) = (Vec::new(), LineReader::new(Limits::default()));
        reader.feed(&text[..cut], &mut out);
        let stored = serde_json::to_string(&reader).expect("serialises");
        let mut back: LineReader = serde_json::from_str(&stored).expect("reads");
        assert_eq!(back, reader);
        back.feed(&text[cut..], &mut out);
        assert_eq!(out, whole, "cut at {cut}");
    }
    let forged = serde_json::to_string(&LineReader::new(Limits::default())).expect("serialises");
    let forged =
        forged.replace("\"buffer\":\"\"", &format!("\"buffer\":\"{}\"", "x".repeat(MAX_LINE_BYTES + 1)));
    assert!(serde_json::from_str::<LineReader>(&forged).is_err());
}

/// Pieces that lines of logs are made of, put together at random.
fn log_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "step=",
        "12",
        "loss",
        ": ",
        "0.5",
        "\n",
        "\r",
        "{\"",
        "\": ",
        "}",
        "{'",
        "', '",
        "NaN",
        ",",
        " | ",
        "\t",
        "epoch ",
        "1/3",
        "45%|",
        "| 45/100 [",
        "]",
        "(",
        ")",
        "\u{1b}[1m",
        "\u{8}",
        "é",
        "-",
        " ",
        "inf",
        "=",
        "[5]\t",
        "e9",
        ".",
    ]);
    let text = prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat().into_bytes());
    prop_oneof![3 => text, 1 => prop::collection::vec(any::<u8>(), 0..400)]
}

/// Points by their bits, so that NaN equals NaN.
fn bits(points: &[Point]) -> Vec<(String, Option<u64>, u64)> {
    points.iter().map(|p| (p.name.clone(), p.step, p.value.to_bits())).collect()
}

proptest! {
    #[test]
    fn cut_anywhere_the_points_are_the_same(text in log_text(), cuts in prop::collection::vec(1_usize..20, 0..60)) {
        let mut at_once = Vec::new();
        let mut reader = LineReader::new(Limits::default());
        reader.feed(&text, &mut at_once);
        reader.finish(&mut at_once);
        let (mut pieces, mut cut) = (Vec::new(), LineReader::new(Limits::default()));
        let mut rest = text.as_slice();
        for size in cuts {
            let (head, tail) = rest.split_at(size.min(rest.len()));
            cut.feed(head, &mut pieces);
            rest = tail;
        }
        cut.feed(rest, &mut pieces);
        cut.finish(&mut pieces);
        prop_assert_eq!(bits(&at_once), bits(&pieces));
        prop_assert_eq!(reader, cut);
    }

    #[test]
    fn any_text_is_survived(line in "\\PC*") {
        if let Some(found) = parse_line(&line) {
            prop_assert!(found.values.len() <= MAX_VALUES_PER_LINE);
            prop_assert!(found.values.iter().all(|(name, _)| !name.is_empty() && name.len() <= MAX_NAME_BYTES));
        }
    }

    #[test]
    fn json_values_come_back_exactly(value: f64, step in 0_u64..1 << 53) {
        prop_assume!(value.is_finite());
        let points = read(&format!("{{\"step\": {step}, \"x\": {value:e}}}\nstep={step} y={value}\n"));
        prop_assert_eq!(bits(&points), vec![
            ("x".to_owned(), Some(step), value.to_bits()),
            ("y".to_owned(), Some(step), value.to_bits()),
        ]);
    }
}

#[test]
fn a_bar_around_the_bars_of_epochs_has_their_steps() {
    let log = "epochs:   0%|          | 0/3 [00:00<?, ?it/s]\n\
        epoch 0: 100%|##########| 50/50 [00:01<00:00, 50.0it/s, loss=0.9]\r\
        epochs:  33%|###3      | 1/3 [00:01<00:02,  1.01s/it, val_loss=1.5]\n\
        epoch 1:  50%|#####     | 25/50 [00:01<00:00, 50.0it/s, loss=0.8]\r\
        epoch 1: 100%|##########| 50/50 [00:01<00:00, 50.0it/s, loss=0.7]\r\
        epochs:  67%|######6   | 2/3 [00:02<00:01,  1.01s/it, val_loss=1.25]\n";
    let expected = ["loss@50=0.9", "val_loss@50=1.5", "loss@75=0.8", "loss@100=0.7", "val_loss@100=1.25"];
    assert_eq!(shown(log), expected);
    // One of the same length that names no epoch may be of the next.
    let log = "epoch 0:  50%|#####     | 25/50 [00:01<00:00, 50.0it/s, loss=0.9]\r\
        100%|##########| 50/50 [00:01<00:00, 50.0it/s, loss=0.8]\n";
    assert_eq!(shown(log), ["loss@25=0.9", "loss@50=0.8"]);
}

#[test]
fn what_a_bar_only_shows_again_is_no_new_value() {
    let bar = |epoch: u64, done: u64, rest: &str| {
        format!("Epoch {epoch}: 50%|#####     | {done}/100 [00:01<00:01, 50.0it/s, {rest}]\r")
    };
    let log = [
        bar(0, 50, "loss=0.9"),
        bar(0, 100, "loss=0.8, val_loss=1.5, train_loss_epoch=0.85"),
        bar(1, 50, "loss=0.8, val_loss=1.5, train_loss_epoch=0.85"),
        bar(1, 100, "loss=0.7, val_loss=1.25, train_loss_epoch=0.75"),
        bar(2, 50, "loss=0.6, val_loss=1.25, train_loss_epoch=0.75"),
    ];
    let points = shown(&log.concat());
    let of = |name: &str| points.iter().filter(|point| point.starts_with(name)).cloned().collect::<Vec<_>>();
    assert_eq!(of("loss@"), ["loss@50=0.9", "loss@100=0.8", "loss@150=0.8", "loss@200=0.7", "loss@250=0.6"]);
    assert_eq!(of("val_loss@"), ["val_loss@100=1.5", "val_loss@200=1.25"]);
    assert_eq!(of("train_loss_epoch@"), ["train_loss_epoch@100=0.85", "train_loss_epoch@200=0.75"]);
    // On lines of their own values are what they say.
    assert_eq!(shown("step=1 val_loss=2\nstep=2 val_loss=2\n").len(), 2);
}
