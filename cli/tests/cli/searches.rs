//! Searching, ranking and grouping of runs, and what is said where there is nothing
//! to show: which run is meant, why none is, and what a file lacks.

use std::fs;
use std::path::Path;

use super::views::{here, json, refused, said, search};
use super::{analyze, code, outlast, text};

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A training with so many steps whose loss ends at `end`.
fn jsonl(end: f64, steps: u32) -> String {
    (0..steps)
        .map(|step| {
            let loss = end + 2.0 * (-f64::from(step) / 20.0).exp();
            format!("{{\"step\": {step}, \"train/loss\": {loss}}}\n")
        })
        .collect()
}

#[test]
fn a_damaged_or_empty_file_of_wandb_hides_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [("empty", &b""[..]), ("junk", b"junk"), ("begun", b":W&B\xe1\xbe\0")] {
        write(dir.path(), &format!("{name}/metrics.jsonl"), jsonl(0.1, 100));
        write(dir.path(), &format!("{name}/x.wandb"), content);
        let listed = said(dir.path(), &["runs", name]);
        assert!(listed.starts_with("1 of 1 run; 1 other entries passed over"), "{listed}");
        assert!(
            listed.contains(&format!("{name}/metrics.jsonl")) && listed.contains("passed over"),
            "{listed}"
        );
        let told = said(dir.path(), &["analyze", name, "--tokens", "2000"]);
        assert!(told.contains("passed over: 1 entry") && told.contains("x.wandb: "), "{told}");
        assert!(told.contains("W&B") || told.contains("x.wandb: is empty"), "{told}");
    }
    // A whole one does not hide it either; its own folders say the same again.
    analyze::copy(dir.path(), "wandb-0.31.0.wandb", "both/run-a.wandb");
    write(dir.path(), "both/metrics.jsonl", jsonl(0.1, 100));
    write(dir.path(), "both/files/output.log", "step 1 loss 3\nstep 2 loss 2\n");
    assert!(said(dir.path(), &["runs", "both"]).starts_with("2 of 2 runs\n"));
}

#[test]
fn why_there_is_nothing_to_show_is_said_file_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let utf16: Vec<u8> = "\u{feff}step,loss\n1,2\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (name, content, why) in [
        ("a.jsonl", &b""[..], "is empty"),
        ("b.wandb", b"not of W&B", "does not begin with the mark of W&B's files"),
        ("c.wandb", b":W&B\xe1\xbe\0", "no record behind it yet"),
        ("d.json", b"[{\"a\": 1},\n {\"a\": 2}]\n", "is a JSON list"),
        ("e.csv", &utf16, "is text in UTF-16"),
    ] {
        write(dir.path(), &format!("one/{name}"), content);
        for view in ["analyze", "stats", "runs"] {
            let told = refused(dir.path(), &[view, &format!("one/{name}")], 65);
            assert!(told.contains(&format!("one/{name}: no data: ")) && told.contains(why), "{told}");
        }
    }
    fs::remove_file(dir.path().join("one/d.json")).unwrap();
    for view in ["analyze", "runs"] {
        let all = refused(dir.path(), &[view, "one"], 65);
        for part in
            ["a.jsonl: is empty; ", "b.wandb: does not begin", "c.wandb: ", "e.csv: is text in UTF-16"]
        {
            assert!(all.contains(part), "{view}: {all}");
        }
    }
    let long = format!("deep/{}/{}", "x".repeat(60), "y".repeat(60));
    for name in ["a", "b"] {
        write(dir.path(), &format!("{long}/{name} 1.jsonl"), jsonl(0.1, 100));
    }
    let several = refused(dir.path(), &["stats", "deep"], 66);
    assert!(several.contains(&format!("'{long}/a 1.jsonl'")), "what is listed can be typed: {several}");
}

#[test]
fn tables_without_names_decimal_commas_and_steps_that_fall_are_mentioned() {
    let dir = tempfile::tempdir().unwrap();
    let rows = |sep: &str, comma: bool| -> String {
        (0..50)
            .map(|step| {
                let loss = format!("{:.4}", 3.0 - f64::from(step) / 50.0);
                let loss = if comma { format!("\"{}\"", loss.replace('.', ",")) } else { loss };
                format!("{step}{sep}{loss}{sep}{:.3}\n", f64::from(step) / 50.0)
            })
            .collect()
    };
    write(dir.path(), "nohead.csv", rows(",", false));
    write(dir.path(), "comma.csv", format!("step,loss,acc\n{}", rows(",", true)));
    write(dir.path(), "good.csv", format!("step,loss,acc\n{}", rows(",", false)));
    write(dir.path(), "twice.jsonl", format!("{}{}", jsonl(0.1, 50), jsonl(0.1, 30)));
    let told = |name: &str| said(dir.path(), &["analyze", name, "--tokens", "3000"]);
    assert!(told("nohead.csv").contains("note: its first line holds numbers"), "{}", told("nohead.csv"));
    assert!(
        told("comma.csv").contains("note: cells such as \"3,0000\" are no numbers"),
        "{}",
        told("comma.csv")
    );
    assert!(!told("good.csv").contains("note: "), "{}", told("good.csv"));
    let twice = told("twice.jsonl");
    assert!(
        twice.contains("steps do not only rise") && twice.contains("1 an earlier one, first at step 0"),
        "{twice}"
    );
}

#[test]
fn plain_questions_are_answered_or_refused_with_the_grammar() {
    let dir = here();
    let ask = |question: &str| said(dir.path(), &["runs", "runs", question, "--tokens", "2000"]);
    for (question, begins) in [
        ("which run has the lowest val loss", "understood as: all runs, smallest first\n"),
        ("best val_acc", "understood as: all runs, best first\n"),
        ("top 3 runs by val acc", "understood as: all runs, best first\n"),
        ("show me the three best runs by val_loss", "understood as: all runs, best first\n"),
        ("how many runs diverged", "understood as: \"label:diverged\"\n1 of 6 runs"),
    ] {
        let told = ask(question);
        assert!(told.starts_with(begins), "{question}: {told}");
    }
    let top = ask("top 3 runs by val acc");
    assert!(top.contains("3 shown; by largest val/acc") && top.contains("\n3. runs/"), "{top}");
    let worst = ask("worst run by train loss");
    assert!(worst.contains("by largest train/loss, not finite first"), "{worst}");
    assert!(worst.contains("\n1. runs/nan_lr.csv"), "{worst}");
    search(dir.path(), 3);
    let rate = said(dir.path(), &["runs", "mlruns", "runs where lr is 0.01"]);
    assert!(rate.starts_with("understood as: \"lr == 0.01\"\n3 of 6 runs"), "{rate}");
    let none = refused(dir.path(), &["runs", "runs", "runs that smell of roses"], 65);
    assert!(
        none.contains("no rule knows the word \"smell\"") && none.contains("questions are such as"),
        "{none}"
    );
    let words = ask("seedA");
    assert!(
        words.starts_with("searched for as words in names, tags, notes and paths: \"seedA\"\n2 of 6"),
        "{words}"
    );
    let empty = said(dir.path(), &["runs", "runs", "label:diverged and val_acc > 2"]);
    assert!(empty.contains("0 of 6 runs") && empty.contains("\"label:diverged\": 1 run\n"), "{empty}");
    let metric = refused(dir.path(), &["runs", "runs", "best flavour"], 65);
    assert!(metric.contains("no run has \"flavour\"; metrics are "), "{metric}");
    let second = refused(dir.path(), &["runs", "runs", "wandb"], 64);
    assert!(second.contains("\"wandb\" is a path"), "{second}");
    let nobody = refused(dir.path(), &["runs"], 66);
    assert!(nobody.contains("nothing was run") && nobody.contains("outlast runs DIR"), "{nobody}");
    assert!(refused(dir.path(), &["runs", "best", "run"], 66).contains("nothing was run"));
}

#[test]
fn the_best_of_those_that_belong_together_is_labelled() {
    let dir = tempfile::tempdir().unwrap();
    for (name, end) in [("a_0", 0.5), ("a_1", 0.2), ("a_2", 0.4), ("b_0", 0.1), ("alone", 0.05)] {
        write(dir.path(), &format!("runs/{name}.jsonl"), jsonl(end, 200));
    }
    let all = json(dir.path(), &["runs", "runs"]);
    let best: Vec<&str> = all["runs"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|run| run["labels"].as_array().unwrap().iter().any(|label| label == "best-of-group"))
        .map(|run| run["path"].as_str().unwrap())
        .collect();
    assert_eq!(best, ["runs/a_1.jsonl"]);
    assert!(said(dir.path(), &["runs", "runs", "label:best-of-group"]).starts_with("1 of 5 runs"));
    let told = said(dir.path(), &["group", "runs", "--tokens", "1000"]);
    assert!(told.contains("  a: n 3, ") && told.contains(", best runs/a_1.jsonl"), "{told}");
    assert_eq!(json(dir.path(), &["group", "runs"])["arms"][0]["best"], "runs/a_1.jsonl");
}

#[test]
fn runs_of_a_database_are_noted_tagged_and_grouped_as_they_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    analyze::copy(dir.path(), "mlflow.db.gz", "mlflow.db.gz");
    let run = "mlflow.db.gz#run-ok";
    said(dir.path(), &["note", run, "zebra", "stripes"]);
    said(dir.path(), &["tag", run, "base", "--group", "sweep 7"]);
    let found = |filter: &str| json(dir.path(), &["runs", "mlflow.db.gz", filter])["runs"].clone();
    for filter in ["tag:base", "notes:zebra", "group:\"sweep 7\""] {
        let found = found(filter);
        assert_eq!(
            (found.as_array().unwrap().len(), &found[0]["path"]),
            (1, &run.into()),
            "{filter}: {found}"
        );
        assert_eq!(found[0]["group"], "sweep 7");
    }
    assert!(said(dir.path(), &["note", run]).contains("zebra stripes"));
    assert!(said(dir.path(), &["note", "mlflow.db.gz"]).contains("zebra stripes"));
    let whole = refused(dir.path(), &["tag", "mlflow.db.gz", "x"], 66);
    assert!(whole.contains("holds 3 runs") && whole.contains("'mlflow.db.gz#run-ok'"), "{whole}");
    assert!(refused(dir.path(), &["note", "mlflow.db.gz#other", "x"], 66).contains("run-ok"));
    said(dir.path(), &["tag", run, "--group", "sweep 7", "--remove"]);
    assert_eq!(found("tag:base")[0]["group"], serde_json::Value::Null);
    assert!(refused(dir.path(), &["tag", run, "--group", "sweep 7", "--remove"], 66).contains("no group"));
    assert_eq!(code(&outlast(dir.path(), &["tag", run, "--remove"])), 64);
    // Arms by the group that was given.
    search(dir.path(), 3);
    for seed in 0..3 {
        said(dir.path(), &["tag", &format!("mlruns/0/fast{seed}"), "--group", "quick"]);
    }
    let arms = json(dir.path(), &["group", "mlruns", "--by", "group"]);
    assert_eq!((&arms["arms"][0]["name"], &arms["arms"][1]["name"]), (&"none".into(), &"quick".into()));
}

#[test]
fn arms_are_made_only_of_what_runs_have() {
    let dir = tempfile::tempdir().unwrap();
    let packed = |text: String| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, text.as_bytes()).unwrap();
        packed.finish().unwrap()
    };
    for seed in 0..3_u32 {
        for (arm, end) in [("seedA", 0.2), ("seedB", 0.6)] {
            let end = end + f64::from(seed * seed) / 100.0;
            write(dir.path(), &format!("runs/{arm}_{seed}.jsonl.gz"), packed(jsonl(end, 200)));
        }
    }
    let found = json(dir.path(), &["group", "runs", "--pair", "name"]);
    let names: Vec<&str> =
        found["arms"].as_array().unwrap().iter().map(|arm| arm["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["seedA", "seedB"], "{found}");
    assert_eq!(found["comparisons"][0]["difference"]["runs"], serde_json::json!([3, 3]));
    for (args, says) in [
        (&["--by", "nothing"][..], "no run has \"nothing\" to make arms by"),
        (
            &["--arm", "nosuch", "--arm", "name ~ seedA or path ~ seedA"],
            "no run is as the arm \"nosuch\" says",
        ),
        (&["--pair", "seed"], "has the same \"seed\" as one of seedA"),
    ] {
        let told = refused(dir.path(), &[&["group", "runs"], args].concat(), 65);
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn importance_sees_an_optimum_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..24_u32 {
        let (rate, noise) = (f64::from(run % 12), f64::from(run * 7 % 5));
        let end = 0.2 + (rate - 5.5).powi(2) / 50.0 + noise / 200.0;
        let at = format!("mlruns/0/r{run}");
        write(
            dir.path(),
            &format!("{at}/meta.yaml"),
            format!("run_id: r{run}\nrun_name: r-{run}\nstatus: 3\n"),
        );
        write(dir.path(), &format!("{at}/params/lr"), format!("{}", 0.001 * (rate + 1.0)));
        write(dir.path(), &format!("{at}/params/other"), (run * 11 % 24).to_string());
        write(
            dir.path(),
            &format!("{at}/metrics/val/loss"),
            format!("1700000000000 2.0 0\n1700000001000 {end} 1\n"),
        );
    }
    let told = said(dir.path(), &["group", "mlruns", "--importance", "--tokens", "2000"]);
    let of = |name: &str| told.lines().find(|line| line.starts_with(&format!("  {name}: "))).unwrap();
    assert!(of("lr").contains("goes with it") && of("lr").contains(" % of the order ("), "{told}");
    assert!(of("other").contains("not shown to matter"), "{told}");
    assert!(told.contains("permutation test (Holm)"), "{told}");
}

#[test]
fn what_differs_is_in_the_headline_of_reproduce() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.jsonl", jsonl(0.1, 50));
    write(dir.path(), "b.jsonl", jsonl(0.1, 50));
    write(dir.path(), "c.jsonl", jsonl(0.2, 50));
    let equal = said(dir.path(), &["reproduce", "a.jsonl", "b.jsonl"]);
    assert!(
        equal.starts_with("a.jsonl and b.jsonl: nothing differs, but not everything is known\n"),
        "{equal}"
    );
    let other = said(dir.path(), &["reproduce", "a.jsonl", "c.jsonl"]);
    assert!(other.lines().next().unwrap().contains("not the same numbers"), "{other}");
    assert!(other.lines().next().unwrap().ends_with(": 50 of 50 values differ"), "{other}");
    assert_eq!(json(dir.path(), &["reproduce", "a.jsonl", "c.jsonl"])["values"]["unequal"], 50);
}

#[test]
fn a_step_beyond_the_end_and_equal_speed_are_said() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.csv", "step,loss\n0,4\n10,2\n20,1\n");
    write(dir.path(), "b.csv", "step,loss\n0,4\n10,2\n20,1\n");
    let told = said(dir.path(), &["compare", "a.csv@99999", "b.csv", "--tokens", "1000"]);
    assert!(told.contains("A has no value at step 99999: its values are of steps 0 to 20"), "{told}");
    assert!(told.contains(": as fast\n") && !told.contains("1 times"), "{told}");
    let none = refused(dir.path(), &["compare", "a.csv@99999", "b.csv@77777"], 65);
    assert!(none.contains("A has no value at step 99999") && none.contains("steps 0 to 20"), "{none}");
}

#[test]
fn the_rank_that_ends_without_a_number_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for rank in 0..3 {
        let end = if rank == 2 { "NaN".to_owned() } else { "0.5".to_owned() };
        write(dir.path(), &format!("job/rank{rank}.csv"), format!("step,loss\n0,2\n1,1\n2,{end}\n"));
    }
    let told = said(dir.path(), &["ranks", "job"]);
    assert!(told.contains("loss: rank 2 ends at NaN, last mean of the others 0.5, "), "{told}");
}

#[test]
fn of_a_damaged_archive_of_clearml_what_is_whole_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(analyze::data("clearml-offline.zip")).unwrap();
    write(dir.path(), "offline-1.zip", &whole);
    let values = |name: &str| -> Option<u64> {
        let output = outlast(dir.path(), &["analyze", name, "--json"]);
        let all: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
        all[0]["values"].as_u64()
    };
    let all = values("offline-1.zip").unwrap();
    for part in [6, 8, 9] {
        write(dir.path(), "offline-2.zip", &whole[..whole.len() * part / 10]);
        let read = values("offline-2.zip");
        assert!(read.is_some_and(|read| read > 0 && read <= all), "cut at {part} tenths: {read:?} of {all}");
    }
    let told = said(dir.path(), &["analyze", "offline-2.zip", "--tokens", "3000"]);
    assert!(told.contains("list of entries is cut off or damaged"), "{told}");
    // The list of entries itself is damaged: nothing is lost.
    let mut bad = whole.clone();
    let list = bad.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    bad[list] ^= 1;
    write(dir.path(), "offline-3.zip", &bad);
    assert_eq!(values("offline-3.zip"), Some(all));
}
