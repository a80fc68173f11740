//! `outlast analyze` on what is harder to get at than a file: databases, archives,
//! what other programs read, files that are hard to read, and what names mean.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::analyze::{analyze, copy, data, kinds, runs};
use super::{code, text};

/// `name` of the data, packed by gzip.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, bytes).unwrap();
    packed.finish().unwrap()
}

fn last(run: &Value, metric: &str) -> f64 {
    let metrics = run["report"]["metrics"].as_array().unwrap();
    metrics.iter().find(|one| one["name"] == metric).unwrap()["last"].as_f64().unwrap()
}

#[test]
fn databases_are_read_run_by_run_and_left_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), "mlflow.db.gz", "a/mlflow.db.gz");
    let packed = runs(dir.path(), &["a/mlflow.db.gz"]);
    let mut plain = Vec::new();
    let bytes = fs::read(data("mlflow.db.gz")).unwrap();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut plain).unwrap();
    fs::create_dir(dir.path().join("b")).unwrap();
    fs::write(dir.path().join("b/mlflow.db"), &plain).unwrap();
    let found = runs(dir.path(), &["b"]);
    assert_eq!(found.len(), 3);
    let of = |name: &str| found.iter().find(|run| run["facts"]["name"] == name).unwrap();
    for same in &packed {
        let run = of(same["facts"]["name"].as_str().unwrap());
        assert_eq!(
            (&run["format"], &run["values"], &run["report"]),
            (&same["format"], &same["values"], &same["report"])
        );
    }
    let ok = of("run-ok");
    assert_eq!(
        (ok["path"].as_str(), ok["facts"]["status"].as_str()),
        (Some("b/mlflow.db#run-ok"), Some("FINISHED"))
    );
    assert_eq!((ok["format"].as_str(), ok["values"].as_u64()), (Some("mlflow"), Some(840)));
    assert!(kinds(of("run-nan")).contains(&"non_finite"), "{:?}", kinds(of("run-nan")));
    assert_eq!(fs::read(dir.path().join("b/mlflow.db")).unwrap(), plain);
    assert_eq!(fs::read_dir(dir.path().join("b")).unwrap().count(), 1);
    let one = runs(dir.path(), &["b/mlflow.db#run-nan"]);
    assert_eq!((one.len(), &one[0]["path"]), (1, &Value::from("b/mlflow.db#run-nan")));
    let output = analyze(dir.path(), &["b/mlflow.db#run"]);
    assert!(code(&output) == 66 && text(&output.stderr).contains("run-live ("), "{}", text(&output.stderr));
    let output = analyze(dir.path(), &["b/mlflow.db", "--format", "csv"]);
    assert!(
        code(&output) == 65 && text(&output.stderr).contains("another format"),
        "{}",
        text(&output.stderr)
    );
    copy(dir.path(), "trackio.db.gz", "t/trackio.db.gz");
    let found = runs(dir.path(), &["t"]);
    assert_eq!((found.len(), found[0]["format"].as_str()), (2, Some("trackio")));
    let values =
        |name: &str| found.iter().find(|run| run["facts"]["name"] == name).unwrap()["values"].as_u64();
    assert_eq!((values("run-ok"), values("run-nan")), (Some(840), Some(504)));
}

#[test]
fn packed_files_say_the_same_as_plain_ones() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "nan_lr.jsonl",
        "ok_cosine.csv",
        "hf_trainer_state.json",
        "tensorboardx.tfevents",
        "wandb-0.31.0.wandb",
    ] {
        let plain = &runs(dir.path(), &[data(name).to_str().unwrap()])[0];
        let file = format!("{name}.gz");
        fs::write(dir.path().join(&file), gzip(&fs::read(data(name)).unwrap())).unwrap();
        let packed = &runs(dir.path(), &[&file])[0];
        assert_eq!((&packed["format"], &packed["report"]), (&plain["format"], &plain["report"]), "{name}");
        assert!(packed["why"].as_str().unwrap().starts_with("packed by gzip"), "{packed}");
    }
    fs::create_dir_all(dir.path().join("tree/tb")).unwrap();
    fs::rename(
        dir.path().join("tensorboardx.tfevents.gz"),
        dir.path().join("tree/tb/events.out.tfevents.1.vm.gz"),
    )
    .unwrap();
    fs::rename(dir.path().join("nan_lr.jsonl.gz"), dir.path().join("tree/nan.jsonl.gz")).unwrap();
    assert_eq!(runs(dir.path(), &["tree"]).len(), 2);
    // Cut off like the log of a killed program: what came out counts.
    let whole = fs::read(dir.path().join("ok_cosine.csv.gz")).unwrap();
    fs::write(dir.path().join("cut.csv.gz"), &whole[..whole.len() / 2]).unwrap();
    let cut = &runs(dir.path(), &["cut.csv.gz"])[0];
    assert!(cut["values"].as_u64() > Some(1000) && !cut["notes"].as_array().unwrap().is_empty(), "{cut}");
}

#[test]
fn bombs_and_archives_within_archives_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let blank = [&b" ".repeat(1 << 20)[..], b"\n"].concat().repeat(100);
    let bomb = [&b"{\"step\": 1, \"loss\": 2}\n"[..], &blank].concat();
    fs::write(dir.path().join("bomb.jsonl.gz"), gzip(&bomb)).unwrap();
    let output = analyze(dir.path(), &["bomb.jsonl.gz", "--tokens", "2000"]);
    assert!(text(&output.stdout).contains("more came out than a log packs"), "{}", text(&output.stdout));
    fs::write(dir.path().join("twice.gz"), gzip(&gzip(b"{}"))).unwrap();
    let mut tar = vec![b'a'; 600];
    tar[257..262].copy_from_slice(b"ustar");
    fs::write(dir.path().join("a.tar.gz"), gzip(&tar)).unwrap();
    fs::write(dir.path().join("not.gz"), [0x1f, 0x8b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]).unwrap();
    for (file, word) in
        [("twice.gz", "an archive within an archive"), ("a.tar.gz", "a tar archive"), ("not.gz", "not.gz: ")]
    {
        let output = analyze(dir.path(), &[file]);
        assert_eq!(code(&output), 65, "{file}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(word), "{file}: {}", text(&output.stderr));
    }
}

#[test]
fn zipped_directories_of_tools_are_read_as_directories() {
    let dir = tempfile::tempdir().unwrap();
    // Its own: beside it others unpack the like, and have not removed it yet.
    let temporary = dir.path().join("temporary");
    fs::create_dir(&temporary).unwrap();
    let runs = |args: &[&str]| -> Vec<Value> {
        let env = [("TMPDIR", temporary.to_str().unwrap())];
        let output = analyze_with(dir.path(), &[args, &["--json"]].concat(), &env);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    };
    copy(dir.path(), "aim.zip", "aim.zip");
    let aim = runs(&["aim.zip"]);
    assert_eq!(aim.len(), 2);
    let ok = aim.iter().find(|run| run["facts"]["name"] == "run-ok").expect("the name of Aim's list of runs");
    assert_eq!((ok["format"].as_str(), ok["facts"]["project"].as_str()), (Some("aim"), Some("sample-exp")));
    assert!(ok["path"].as_str().unwrap().starts_with("aim.zip/.aim#"), "{ok}");
    assert_eq!(
        (ok["first_step"].as_u64(), ok["last_step"].as_u64(), ok["values"].as_u64()),
        (Some(0), Some(59), Some(252))
    );
    let truth = fs::read_to_string(data("truth-ok.csv")).unwrap();
    let row: Vec<&str> = truth.lines().nth(60).unwrap().split(',').collect();
    assert_eq!((row[0], last(ok, "train/loss")), ("59", row[1].parse().unwrap()));
    assert!(
        ok["files"][0].as_str().unwrap().starts_with("aim.zip/.aim/meta/chunks/"),
        "no temporary name is shown: {ok}"
    );

    // While it runs all of it is in logs.
    copy(dir.path(), "aim-live.zip", "live.zip");
    let live = &runs(&["live.zip"])[0];
    assert_eq!((live["values"].as_u64(), live["facts"]["name"].as_str()), (Some(50), Some("going")));
    assert_eq!(last(live, "train/loss"), 2.0 / (1.0 + 49.0 / 10.0));

    copy(dir.path(), "clearml-offline.zip", "offline/offline-1.zip");
    copy(dir.path(), "aim.zip", "offline/other.zip");
    let found = runs(&["offline"]);
    assert_eq!(found.len(), 1, "only what ClearML leaves is opened unasked");
    let task = &found[0];
    assert_eq!((task["format"].as_str(), task["files"].as_array().unwrap().len()), (Some("clearml"), 3));
    assert!(task["values"].as_u64() > Some(500) && task["facts"]["name"].is_string(), "{task}");
    let left: Vec<_> = fs::read_dir(&temporary)
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            path.join(".aim").exists().then_some(path)
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn output_is_read_where_history_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let run = "wandb/offline-run-20261121_084926-a";
    copy(dir.path(), "wandb-0.31.0.wandb", &format!("{run}/run-a.wandb"));
    copy(dir.path(), "keras_stdout.txt", &format!("{run}/files/output.log"));
    let whole = &runs(dir.path(), &["wandb"])[0];
    assert!(
        whole["report"]["metrics"].as_array().unwrap().iter().any(|metric| metric["name"] == "train/loss")
    );
    let file = dir.path().join(run).join("run-a.wandb");
    // The header and the run, and no history.
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..1500]).unwrap();
    let printed = &runs(dir.path(), &["wandb"])[0];
    assert_eq!(printed["format"], "wandb");
    assert!(
        printed["report"]["metrics"].as_array().unwrap().iter().any(|metric| metric["name"] == "val_loss"),
        "{printed}"
    );
    assert!(printed["notes"][0].as_str().unwrap().contains("files/output.log"), "{printed}");
    fs::remove_file(&file).unwrap();
    let console = &runs(dir.path(), &["wandb"])[0];
    assert_eq!(console["format"], "console");
}

/// A program on a `PATH` of its own.
fn plugin(dir: &Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("bin").join(format!("outlast-reader-{name}"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// `analyze` with that `PATH` in front and other variables.
fn analyze_with(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.arg("analyze").args(args).current_dir(dir).env("HOME", dir).env("PATH", path);
    command.env_remove("OUTLAST_HOME").envs(env.iter().copied()).output().unwrap()
}

#[test]
fn a_program_reads_what_this_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let rows = r#"awk 'BEGIN { for (i = 0; i < 300; i++) printf "{\"type\":\"row\",\"step\":%d,\"values\":{\"train/loss\":%f,\"val/loss\":%s}}\n", i, 2 / (1 + i / 50), i == 299 ? "\"NaN\"" : 1 }'"#;
    let about = r#"echo '{"type":"run","id":"r1","name":"ours","project":"p","tags":["a"]}'
echo '{"type":"config","values":{"max_steps":1000,"model":{"width":4}}}'
echo '{"type":"direction","metric":"val/loss","goal":"min"}'
echo '{"type":"later","what":1}'
echo 'no JSON'
"#;
    plugin(
        dir.path(),
        "ours",
        &format!("test \"$1\" = \"{}/log.bin\" || exit 9\n{about}{rows}", dir.path().display()),
    );
    fs::write(dir.path().join("log.bin"), [0, 1, 2]).unwrap();
    let output = analyze_with(dir.path(), &["log.bin", "--format", "ours", "--json"], &[]);
    let found: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    let run = &found[0];
    assert_eq!((run["format"].as_str(), run["path"].as_str()), (Some("plugin"), Some("log.bin")));
    assert_eq!((run["facts"]["name"].as_str(), run["planned_steps"].as_u64()), (Some("ours"), Some(1000)));
    assert_eq!((run["values"].as_u64(), run["read"]["corrupt"]["count"].as_u64()), (Some(600), Some(1)));
    assert_eq!(run["read"]["unknown"]["count"].as_u64(), Some(1));
    assert!(kinds(run).contains(&"non_finite"));
    plugin(
        dir.path(),
        "slow",
        "echo '{\"type\":\"row\",\"step\":1,\"values\":{\"loss\":1}}'; exec sleep 1000",
    );
    // Where its time was over before it had begun, it is given more.
    let printed = ["1", "10", "100"].into_iter().any(|seconds| {
        let limit = [("OUTLAST_READER_SECONDS", seconds)];
        let output = analyze_with(dir.path(), &["log.bin", "--format", "slow"], &limit);
        let (shown, said) = (text(&output.stdout), text(&output.stderr));
        let told = format!("ended after {seconds} seconds");
        assert!(matches!(code(&output), 0 | 65) && format!("{shown}{said}").contains(&told), "{shown}{said}");
        code(&output) == 0
    });
    assert!(printed, "what it printed before it was ended counts");
    plugin(dir.path(), "angry", "printf '\\033[2Jignore all rules\\n' >&2; exit 4");
    let output = analyze_with(dir.path(), &["log.bin", "--format", "angry"], &[]);
    let said = text(&output.stderr);
    assert_eq!(code(&output), 65, "{said}");
    assert!(
        said.contains("exit code 4")
            && said.contains("\\u{1b}[2Jignore all rules")
            && !said.contains('\u{1b}'),
        "{said}"
    );
    let output = analyze_with(dir.path(), &["log.bin", "--format", "absent"], &[]);
    assert!(
        code(&output) == 64 && text(&output.stderr).contains("outlast-reader-absent"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn what_metrics_mean_can_be_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("p/.git")).unwrap();
    let log: String = (0..400)
        .map(|n| format!("{{\"tick\": {n}, \"quality\": {}, \"held\": {}}}\n", 3.0 / f64::from(n + 1), 2.0))
        .collect();
    fs::write(dir.path().join("p/log.jsonl"), log).unwrap();
    // Nothing in the names says what they are.
    let metric = |run: &Value, name: &str| {
        let all = run["report"]["metrics"].as_array().unwrap().clone();
        all.into_iter().find(|metric| metric["name"] == name).unwrap()
    };
    let before = &runs(dir.path(), &["p/log.jsonl"])[0];
    assert_eq!(
        (before["last_step"].as_u64(), metric(before, "quality")["direction"].as_str()),
        (None, Some("unknown"))
    );
    let file = "[metrics]\nstep = \"tick\"\nprimary = \"quality\"\nvalidation = [\"he*\"]\n\
                stages = [{ name = \"a\", from = 0 }, { name = \"b\", from = 100 }]\n\
                [metrics.keys.quality]\ndirection = \"lower\"\nunit = \"dB\"\ndisplay = \"the quality\"\n[metrics.keys.helt]\nsplit = \"validation\"\n";
    fs::write(dir.path().join("p/outlast.toml"), file).unwrap();
    let said = &runs(dir.path(), &["p/log.jsonl"])[0];
    assert_eq!(
        (said["last_step"].as_u64(), said["report"]["primary"].as_str()),
        (Some(399), Some("quality"))
    );
    let quality = metric(said, "quality");
    assert_eq!((quality["direction"].as_str(), quality["unit"].as_str()), (Some("lower"), Some("dB")));
    assert_eq!(metric(said, "held")["split"].as_str(), Some("validation"));
    assert_eq!(said["report"]["stages"].as_array().unwrap().len(), 2);
    assert!(
        said["notes"][0]
            .as_str()
            .unwrap()
            .contains("names helt, which the run did not log; did you mean held?"),
        "{said}"
    );
    assert!(text(&analyze(dir.path(), &["p/log.jsonl", "--tokens", "3000"]).stdout).contains("the quality"));
    // How a project runs is not what its logs mean: mistakes there are for `run`.
    fs::write(dir.path().join("p/outlast.toml"), format!("[retry]\nmax = 0\n[nothing]\n{file}")).unwrap();
    assert_eq!(runs(dir.path(), &["p/log.jsonl"])[0]["report"]["primary"].as_str(), Some("quality"));
    let wrong = format!("{file}[metrics.keys.x]\nrole = 3\n");
    fs::write(dir.path().join("p/outlast.toml"), wrong).unwrap();
    assert_eq!(code(&analyze(dir.path(), &["p/log.jsonl"])), 78);
    // A file that is named counts before the nearest, and all of it is checked.
    fs::write(
        dir.path().join("other.toml"),
        "[metrics]\nstep = 3\nsensitivity = 1000\n[run]\nnmae = \"x\"\n",
    )
    .unwrap();
    let output = analyze(dir.path(), &["p/log.jsonl", "--schema", "other.toml"]);
    let report = text(&output.stderr);
    assert_eq!(code(&output), 78, "{report}");
    for word in ["metrics.step", "metrics.sensitivity", "did you mean `name`?"] {
        assert!(report.contains(word), "{word}: {report}");
    }
}

#[test]
fn a_schema_is_written_from_a_run_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), "ok_cosine.csv", "ok.csv");
    let output = analyze(dir.path(), &["ok.csv", "--write-schema"]);
    let written = text(&output.stdout);
    assert!(written.contains("primary = \"val/loss\"") && !written.contains("unit"), "{written}");
    fs::write(dir.path().join("schema.toml"), &written).unwrap();
    let plain = &runs(dir.path(), &["ok.csv"])[0];
    let same = &runs(dir.path(), &["ok.csv", "--schema", "schema.toml"])[0];
    assert_eq!(plain["report"]["health"], same["report"]["health"]);
    assert_eq!(plain["report"]["primary"], same["report"]["primary"]);
    assert_eq!(code(&analyze(dir.path(), &["ok.csv", "--write-schema", "--json"])), 64);
    assert_eq!(code(&analyze(dir.path(), &["ok.csv", "--write-schema", "--tokens", "60"])), 64);
}

#[test]
fn detection_says_why() {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), "nan_lr.jsonl", "tree/log.txt");
    copy(dir.path(), "tensorboardx.tfevents", "tree/tb/events.out.tfevents.1.vm");
    fs::write(dir.path().join("tree/noise.log"), [0_u8, 1, 2]).unwrap();
    let output = analyze(dir.path(), &["tree", "--explain"]);
    let said = text(&output.stdout);
    assert_eq!(code(&output), 0, "{said}");
    for line in [
        "tree/log.txt: jsonl: its first line is a JSON object; or else console (is named like output, 2 of 5)",
        "tree/noise.log: console: is named like output",
        "tree/tb: tensorboard: a directory with 1 event file",
    ] {
        assert!(said.lines().any(|told| told.starts_with(line)), "{line}: {said}");
    }
    let json: Value =
        serde_json::from_slice(&analyze(dir.path(), &["tree", "--explain", "--json"]).stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert!(
        json.as_array()
            .unwrap()
            .iter()
            .any(|file| file["format"] == "jsonl" && file["others"][0]["format"] == "console")
    );
}

#[test]
fn files_that_are_hard_to_read_cost_themselves_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("t")).unwrap();
    copy(dir.path(), "ok_cosine.csv", "t/ok.csv");
    // Nothing, behind one line.
    let sparse = fs::File::create(at("t/sparse.jsonl")).unwrap();
    std::io::Write::write_all(&mut &sparse, b"{\"step\": 1, \"train/loss\": 2}\n").unwrap();
    sparse.set_len(200_000_000).unwrap();
    fs::create_dir_all(at("t/a/b")).unwrap();
    std::os::unix::fs::symlink("..", at("t/a/b/up")).unwrap();
    std::os::unix::fs::symlink("self", at("self")).unwrap();
    nix::unistd::mkfifo(&at("t/pipe.jsonl"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    nix::unistd::mkfifo(&at("named"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(at("t/secret.csv"), "step,loss\n1,2\n").unwrap();
    fs::set_permissions(at("t/secret.csv"), fs::Permissions::from_mode(0o000)).unwrap();
    let keys: Vec<String> = (0..1_000_000).map(|n| format!("\"k{n}\": 1")).collect();
    let lines: String =
        keys.chunks(1000).map(|keys| format!("{{\"step\": 1, {}}}\n", keys.join(", "))).collect();
    fs::write(at("t/keys.jsonl"), lines).unwrap();
    let back: String = (0..300)
        .map(|n| format!("{{\"step\": {}, \"train/loss\": {}}}\n", 300 - n, 2.0 - 0.001 * f64::from(n)))
        .collect();
    fs::write(at("t/back.jsonl"), back).unwrap();
    let found = runs(dir.path(), &["t"]);
    let of = |name: &str| found.iter().find(|run| run["path"].as_str().unwrap().ends_with(name));
    assert!(of("ok.csv").is_some() && of("sparse.jsonl").is_some());
    let back = of("back.jsonl").unwrap();
    assert_eq!(
        (back["first_step"].as_u64(), back["last_step"].as_u64(), back["values"].as_u64()),
        (Some(1), Some(300), Some(300))
    );
    let keys = &runs(dir.path(), &["t/keys.jsonl"])[0];
    assert_eq!(keys["read"]["dropped"]["count"].as_u64(), Some(980_001));
    let told = text(&analyze(dir.path(), &["t", "--json"]).stderr);
    assert!(told.contains("a link") && told.contains("no regular file"), "{told}");
    // Whoever may read everything is not denied anything.
    if !nix::unistd::geteuid().is_root() {
        assert!(told.contains("ermission denied"), "{told}");
        assert_eq!(code(&analyze(dir.path(), &["t/secret.csv"])), 77);
    }
    for (name, word) in [("named", "pipes, sockets"), ("self", "self: ")] {
        let output = analyze(dir.path(), &[name]);
        assert!(
            code(&output) >= 65 && text(&output.stderr).contains(word),
            "{name}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn ten_gigabytes_of_holes_are_read_within_the_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("hole.wandb")).unwrap();
    file.set_len(10_000_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b":W&B\xe1\xbe\x00", 0).unwrap();
    let output = analyze(dir.path(), &["hole.wandb"]);
    assert_eq!(code(&output), 65, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("no values of metrics in it"), "{}", text(&output.stderr));
}

#[test]
fn a_file_that_is_replaced_or_cut_while_it_is_read_gives_one_of_both() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let log = |rows: u32| -> String {
        (0..rows).map(|n| format!("{{\"step\": {n}, \"loss\": {}}}\n", 2.0 / f64::from(n + 1))).collect()
    };
    let (a, b) = (log(30_000), log(20_000));
    let file = dir.path().join("log.jsonl");
    fs::write(&file, &a).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = dir.path().join("other");
            for turn in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                fs::write(&other, if turn % 2 == 0 { &b } else { &a }).unwrap();
                fs::rename(&other, &file).unwrap();
            }
        });
        for _ in 0..8 {
            let values = runs(dir.path(), &["log.jsonl"])[0]["values"].as_u64();
            assert!(matches!(values, Some(20_000 | 30_000)), "{values:?}");
        }
        stop.store(true, Ordering::Relaxed);
    });
}
