//! Directories of tools as they are found on disks: copies, deleted runs, and what
//! lies beside a log.

use std::fs;
use std::path::Path;

use curves::log::{Collected, Fact, Value};
use curves::write::{About, TensorBoardWriter, WandbWriter};

use super::super::read;
use super::*;

/// Finds what lies below a directory with these files: each run's path below it, and
/// what is in it.
fn found(files: &[(&str, Vec<u8>)]) -> (Vec<(String, Collected)>, Vec<String>) {
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let mut found = Found::new(None);
    found.add(root.path()).unwrap();
    let below = |path: &Path| path.strip_prefix(root.path()).unwrap_or(path).to_string_lossy().into_owned();
    let read = |source: &Source| {
        let mut log = Collected::default();
        read::parts(source, &Default::default(), &mut log);
        (below(&source.path), log)
    };
    let skipped = found.skipped.iter().map(|skipped| format!("{}: {}", below(&skipped.path), skipped.why));
    (found.sources.iter().map(read).collect(), skipped.collect())
}

fn setting(log: &Collected, name: &str) -> Option<Value> {
    log.config.get(&vec![name.to_owned()]).cloned()
}

fn last(log: &Collected, name: &str) -> Option<f64> {
    log.column(name)?.values.last().copied()
}

#[test]
fn deleted_runs_of_mlflow_are_passed_over_and_copies_without_their_meta_are_runs() {
    let metric = b"1700000000000 0.5 3\n".to_vec();
    let meta = |stage: &str| format!("lifecycle_stage: {stage}\nrun_name: a\n").into_bytes();
    let (runs, skipped) = found(&[
        ("mlruns/0/meta.yaml", meta("active")),
        ("mlruns/0/gone/meta.yaml", meta("deleted")),
        ("mlruns/0/gone/metrics/loss", metric.clone()),
        ("mlruns/0/here/meta.yaml", meta("active")),
        ("mlruns/0/here/metrics/loss", metric.clone()),
        ("mlruns/0/here/tags/mlflow.parentRunId", b"abc".to_vec()),
        ("mlruns/0/torn/metrics/loss", metric.clone()),
        ("mlruns/0/torn/params/lr", b"0.1".to_vec()),
        ("mlruns/0/torn/tags/mlflow.user", b"me".to_vec()),
        ("mlruns/1/meta.yaml", meta("deleted")),
        ("mlruns/1/run/meta.yaml", meta("active")),
        ("mlruns/1/run/metrics/loss", metric.clone()),
        ("other/metrics/loss", metric),
    ]);
    let names: Vec<&str> = runs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["mlruns/0/here", "mlruns/0/torn"]);
    assert_eq!(skipped, ["mlruns/0/gone: deleted in MLflow", "mlruns/1/run: deleted in MLflow"]);
    assert_eq!(runs[0].1.fact(Fact::Parent), Some("abc"));
    assert_eq!((last(&runs[1].1, "loss"), setting(&runs[1].1, "lr").is_some()), (Some(0.5), true));
}

#[test]
fn settings_beside_a_log_of_lightnings_are_the_runs() {
    let mut events = Vec::new();
    TensorBoardWriter::begin(1.7e9, &mut events).row(3, 1.7e9, &[("loss", 0.5)], &mut events);
    let yaml = b"lr: 0.1\nmodel: !!python/object:foo.Bar\n  a: 1\n".to_vec();
    let (runs, skipped) = found(&[
        ("version_0/metrics.csv", b"step,loss\n0,0.5\n".to_vec()),
        ("version_0/hparams.yaml", yaml.clone()),
        ("version_1/events.out.tfevents.1.h", events),
        ("version_1/hparams.yaml", yaml.clone()),
        ("alone/hparams.yaml", yaml),
    ]);
    let names: Vec<&str> = runs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names, skipped.len()), (vec!["version_0/metrics.csv", "version_1"], 0));
    for (name, log) in &runs {
        assert_eq!((setting(log, "lr"), last(log, "loss")), (Some(Value::Float(0.1)), Some(0.5)), "{name}");
    }
}

#[test]
fn the_tables_of_dvclive_are_one_run() {
    let (runs, _) = found(&[
        ("dvclive/plots/metrics/train/loss.tsv", b"step\tloss\n0\t2.0\n1\t1.0\n".to_vec()),
        ("dvclive/plots/metrics/val/acc.tsv", b"step\tacc\n0\t0.25\n1\t0.5\n".to_vec()),
        ("dvclive/params.yaml", b"lr: 0.1\n".to_vec()),
        ("dvclive/metrics.json", b"{\"step\": 1}".to_vec()),
    ]);
    let [(name, log)] = runs.as_slice() else { panic!("{} runs", runs.len()) };
    assert_eq!(
        (name.as_str(), last(log, "train/loss"), last(log, "val/acc")),
        ("dvclive", Some(1.0), Some(0.5))
    );
    assert_eq!(setting(log, "lr"), Some(Value::Float(0.1)));
}

#[test]
fn an_id_of_wandbs_is_one_run_within_its_project_alone() {
    let file = |project: &str, step: u64, loss: f64| {
        let about = About { id: "same".into(), project: project.into(), started: 1.7e9, ..About::default() };
        let mut bytes = Vec::new();
        WandbWriter::begin(&about, &mut bytes).row(step, 1.7e9, &[("loss", loss)], &mut bytes);
        bytes
    };
    let (runs, _) = found(&[
        ("wandb/offline-run-20260101_000000-same/run-same.wandb", file("pa", 0, 0.5)),
        ("wandb/offline-run-20260101_000001-same/run-same.wandb", file("pb", 0, 100.0)),
        ("wandb/offline-run-20260101_000002-same/run-same.wandb", file("pa", 1, 0.25)),
    ]);
    let values: Vec<_> =
        runs.iter().map(|(_, log)| log.column("loss").map(|column| column.values.clone())).collect();
    assert_eq!(values, [Some(vec![0.5, 0.25]), Some(vec![100.0])]);
}

#[test]
fn what_people_wrote_of_runs_is_no_log_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.jsonl", ".outlast-notes.jsonl"] {
        fs::write(dir.path().join(name), "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2.4}\n").unwrap();
    }
    let mut found = Found::new(None);
    found.add(dir.path()).unwrap();
    let paths: Vec<_> = found.sources.iter().map(|source| source.path.clone()).collect();
    assert_eq!((paths, found.skipped_count), (vec![dir.path().join("a.jsonl")], 0));
}

#[test]
fn more_runs_are_found_than_are_judged_and_those_beyond_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: String| fs::write(dir.path().join(name), "{\"step\":1,\"loss\":2.5}\n").unwrap();
    (0..MAX_RUNS + 60).for_each(|index| file(format!("{index:04}.jsonl")));
    let mut found = Found::new(None);
    found.add(dir.path()).unwrap();
    assert_eq!((found.sources.len(), found.beyond), (MAX_RUNS + 60, 0));
    let first = found.sources[0].clone();
    found.sources.resize(MAX_FOUND, first.clone());
    found.push(first);
    assert_eq!((found.sources.len(), found.beyond, found.skipped_count), (MAX_FOUND, 1, 1));
}
