//! Which format a file is, for files of real tools and for such that lie.

use super::data;
use curves::format::{Format, Schema, detect};

#[test]
fn files_of_real_tools_are_known_by_content_alone() {
    for (file, path, format) in [
        ("wandb-0.31.0.wandb", "a", Format::Wandb),
        ("wandb-0.19.11.wandb", "a.csv", Format::Wandb),
        ("tensorboardx.tfevents", "a", Format::TensorBoard),
        ("tensorboard-tensors.tfevents", "a.log", Format::TensorBoard),
        ("hf_trainer_state.json", "a.json", Format::TrainerState),
        ("nan_lr.jsonl", "a", Format::JsonLines),
        ("nan_lr.jsonl", "train.log", Format::JsonLines),
        ("keras_csvlogger_v1.csv", "a", Format::Delimited),
        ("mlflow-train-loss", "mlruns/0/ab/metrics/train/loss", Format::MlflowMetric),
        ("mlflow-meta.yaml", "x/meta.yaml", Format::MlflowMeta),
        ("hf_stdout.txt", "a", Format::Console),
        ("keras_stdout.txt", "a", Format::Console),
        ("lightgbm.txt", "a", Format::Console),
        ("sklearn.txt", "files/output.log", Format::Console),
    ] {
        let found = detect(path, &data(file));
        assert_eq!(found.first().map(|g| g.format), Some(format), "{file} as {path}: {found:?}");
        assert!(!found[0].reason.is_empty());
    }
}

#[test]
fn alternatives_are_listed_and_nothing_is_made_up() {
    let found = detect("run.csv", b"step,loss\n1,0.5\n");
    assert_eq!(found.iter().map(|g| g.format).collect::<Vec<_>>(), [Format::Delimited, Format::Console]);
    let found = detect("run-x.wandb", b"");
    assert_eq!(found.iter().map(|g| (g.format, g.strength)).collect::<Vec<_>>(), [(Format::Wandb, 2)]);
    assert!(detect("model.bin", &[0x80, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_empty());
    for (head, format) in [
        (&b"SQLite format 3\0..."[..], Format::Sqlite),
        (b"PK\x03\x04rest", Format::Zip),
        (b"\x1f\x8b\x08rest", Format::Gzip),
    ] {
        let found = detect("x", head);
        assert_eq!(found.first().map(|g| g.format), Some(format));
        assert!(format.reader("x", Schema::default()).is_none());
    }
}

#[test]
fn readers_take_names_of_metrics_from_paths() {
    for (format, path, line) in [
        (Format::MlflowMetric, "mlruns/1/ab/metrics/val/loss", "1700000000000 0.5 3\n"),
        (Format::Delimited, "dvclive/plots/metrics/val/loss.tsv", "step\tloss\n3\t0.5\n"),
    ] {
        let mut log = curves::log::Collected::default();
        let mut reader = format.reader(path, Schema::default()).expect("a reader");
        reader.feed(line.as_bytes(), &mut log);
        let column = log.column("val/loss").expect("the name of the path");
        assert_eq!(column.pairs().collect::<Vec<_>>(), [(Some(3), 0.5)]);
    }
}
