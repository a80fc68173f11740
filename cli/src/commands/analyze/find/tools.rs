//! Directories that a tool keeps a run in: told by what lies in them.

use std::path::{Path, PathBuf};

use curves::format::Format;

use super::{Found, Inside, MAX_DEPTH, Part};
use crate::commands::analyze::{aim, live, wandb, words};

/// Parameters and tags of one run that are read.
const MAX_FACTS: usize = 1000;

fn named<'a>(paths: &'a [PathBuf], wanted: &str) -> Option<&'a PathBuf> {
    paths.iter().find(|path| path.file_name().is_some_and(|name| name == wanted))
}

impl Found {
    /// Whether the directory is a run of a controller, as [`live`] lays it.
    pub(super) fn outlast(&mut self, dir: &Path, files: &[PathBuf]) -> bool {
        let Some(about) = named(files, live::ABOUT) else { return false };
        if !self.wants(Format::Outlast) {
            return true;
        }
        let points = files.iter().filter(|path| *path != about);
        let points = points.filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
        let parts = std::iter::once(about).chain(points);
        let parts = parts.map(|path| Part::new(path, Format::Outlast, Inside::Bytes)).collect();
        let path = dir.file_name().map_or_else(|| dir.to_owned(), PathBuf::from);
        self.run(&path, parts, Format::Outlast, "a run of Outlast's".into());
        true
    }

    /// Whether the directory holds copies of a project or a run of W&B's server,
    /// as [`wandb`] lays them. Of a project only the runs that its list names are
    /// taken: others were deleted there, or were asked for by name.
    pub(super) fn wandb(&mut self, dir: &Path, files: &[PathBuf], depth: usize) -> bool {
        if let Some(list) = named(files, wandb::PROJECT) {
            match wandb::Listed::read(list) {
                Ok(listed) => {
                    listed.runs.iter().for_each(|run| self.walk(&dir.join(run), depth + 1));
                    for (name, why) in listed.passed {
                        self.skip(&wandb::shown(&dir.join(name)), why);
                    }
                }
                Err(error) => self.skip(list, error.to_string()),
            }
            return true;
        }
        let Some(about) = named(files, wandb::ABOUT) else { return false };
        if !self.wants(Format::Wandb) {
            return true;
        }
        let rows = files.iter().filter(|path| *path != about);
        let rows = rows.filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
        let parts = std::iter::once(about).chain(rows);
        let parts = parts.map(|path| Part::new(path, Format::Wandb, Inside::WandbCloud)).collect();
        self.run(&wandb::shown(dir), parts, Format::Wandb, "a run that W&B's server told of".into());
        true
    }

    /// Whether the directory is a run of MLflow's file store.
    pub(super) fn mlflow(&mut self, dir: &Path, files: &[PathBuf], dirs: &[PathBuf]) -> bool {
        let (Some(meta), Some(metrics)) = (named(files, "meta.yaml"), named(dirs, "metrics")) else {
            return false;
        };
        if !self.wants(Format::MlflowMetric) {
            return true;
        }
        let mut parts = Vec::new();
        if let Some(experiment) =
            dir.parent().map(|above| above.join("meta.yaml")).filter(|path| path.is_file())
        {
            parts.push(Part::new(&experiment, Format::MlflowMeta, Inside::MlflowExperiment));
        }
        parts.push(Part::new(meta, Format::MlflowMeta, Inside::Bytes));
        for (folder, inside) in [
            ("params", Inside::MlflowParam as fn(String) -> Inside),
            ("tags", Inside::MlflowTag as fn(String) -> Inside),
        ] {
            let mut below = Vec::new();
            if let Some(folder) = named(dirs, folder) {
                self.all(folder, 0, &mut below);
                below.truncate(MAX_FACTS);
                parts.extend(below.iter().map(|path| {
                    let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned();
                    Part::new(path, Format::MlflowMeta, inside(name))
                }));
            }
        }
        let mut below = Vec::new();
        self.all(metrics, 0, &mut below);
        parts.extend(below.iter().map(|path| Part::new(path, Format::MlflowMetric, Inside::Bytes)));
        self.run(
            dir,
            parts,
            Format::MlflowMetric,
            "a run of MLflow's file store: meta.yaml and metrics/".into(),
        );
        true
    }

    /// All files below a directory.
    fn all(&mut self, dir: &Path, depth: usize, below: &mut Vec<PathBuf>) {
        let Some((files, dirs)) = self.entries(dir).filter(|_| depth <= MAX_DEPTH) else { return };
        below.extend(files);
        for path in dirs {
            self.all(&path, depth + 1, below);
        }
    }

    /// Whether the directory is a repository of Aim's.
    pub(super) fn aim(&mut self, dir: &Path) -> bool {
        let Some(runs) = aim::runs(dir) else { return false };
        if !self.wants(Format::Aim) {
            return true;
        }
        for (run, files) in runs {
            let path = PathBuf::from(format!("{}#{run}", dir.to_string_lossy()));
            if files.is_empty() {
                self.skip(&path, "a run of Aim's without databases");
                continue;
            }
            let why = format!("run {} of a repository of Aim's: meta/ and seqs/", words::name(&run));
            let parts = files.iter().map(|file| Part::new(file, Format::Aim, Inside::Aim(run.clone())));
            self.run(&path, parts.collect(), Format::Aim, why);
        }
        true
    }

    /// Whether the directory is a task of ClearML's that ran offline.
    pub(super) fn clearml(&mut self, dir: &Path, files: &[PathBuf]) -> bool {
        let (Some(task), Some(metrics)) = (named(files, "task.json"), named(files, "metrics.jsonl")) else {
            return false;
        };
        if !self.wants(Format::ClearMl) {
            return true;
        }
        let mut parts = vec![
            Part::new(task, Format::ClearMl, Inside::ClearmlTask),
            Part::new(metrics, Format::ClearMl, Inside::Bytes),
        ];
        parts.extend(named(files, "log.jsonl").map(|log| Part::new(log, Format::ClearMl, Inside::Bytes)));
        self.run(dir, parts, Format::ClearMl, "a task of ClearML's: task.json and metrics.jsonl".into());
        true
    }
}
