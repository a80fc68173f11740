//! Directories that a tool keeps a run in: told by what lies in them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use curves::format::{Format, mlflow_is_deleted};

use super::{Found, Inside, MAX_DEPTH, Part, open};
use crate::commands::analyze::{aim, live, wandb, words};

/// Bytes of a `meta.yaml` that are looked at.
const MAX_META: u64 = 64 * 1024;
/// Parameters and tags of one run that are read.
const MAX_FACTS: usize = 1000;

fn named<'a>(paths: &'a [PathBuf], wanted: &str) -> Option<&'a PathBuf> {
    paths.iter().find(|path| path.file_name().is_some_and(|name| name == wanted))
}

/// The settings that Lightning's loggers leave beside a log of this format.
pub(super) fn settings(files: &[PathBuf], format: Format) -> Option<Part> {
    named(files, "hparams.yaml").map(|path| Part::new(path, format, Inside::Yaml))
}

/// Whether MLflow says of a run or an experiment that it was deleted.
fn is_deleted(meta: &Path) -> bool {
    let mut bytes = Vec::new();
    let read = open(meta).and_then(|file| file.take(MAX_META).read_to_end(&mut bytes));
    read.is_ok() && mlflow_is_deleted(&bytes)
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

    /// Takes in what dvclive keeps in a directory: a table for each metric, which are
    /// one run. Gives the directories that remain to be searched.
    pub(super) fn dvclive(&mut self, dir: &Path, files: &[PathBuf], dirs: Vec<PathBuf>) -> Vec<PathBuf> {
        let plots = named(&dirs, "plots").map(|plots| plots.join("metrics")).filter(|path| path.is_dir());
        let Some(metrics) = plots.filter(|_| self.wants(Format::Delimited)) else { return dirs };
        let mut tables = Vec::new();
        self.all(&metrics, 0, &mut tables);
        tables.retain(|path| path.extension().is_some_and(|end| end == "tsv"));
        if tables.is_empty() {
            return dirs;
        }
        let settings = named(files, "params.yaml");
        let settings = settings.map(|path| Part::new(path, Format::Delimited, Inside::Yaml));
        let tables = tables.iter().map(|path| Part::new(path, Format::Delimited, Inside::Bytes));
        let parts = settings.into_iter().chain(tables).collect();
        self.run(dir, parts, Format::Delimited, "a directory of dvclive's: plots/metrics/".into());
        dirs.into_iter().filter(|path| !path.ends_with("plots")).collect()
    }

    /// Whether the directory is a run of MLflow's file store.
    pub(super) fn mlflow(&mut self, dir: &Path, files: &[PathBuf], dirs: &[PathBuf]) -> bool {
        let (meta, Some(metrics)) = (named(files, "meta.yaml"), named(dirs, "metrics")) else {
            return false;
        };
        // A copy may lack what says how the run stands.
        if meta.is_none() && (named(dirs, "params").is_none() || named(dirs, "tags").is_none()) {
            return false;
        }
        if !self.wants(Format::MlflowMetric) {
            return true;
        }
        let experiment = dir.parent().map(|above| above.join("meta.yaml")).filter(|path| path.is_file());
        if meta.is_some_and(|meta| is_deleted(meta)) || experiment.as_deref().is_some_and(is_deleted) {
            self.skip(dir, "deleted in MLflow");
            return true;
        }
        let mut parts = Vec::new();
        if let Some(experiment) = experiment {
            parts.push(Part::new(&experiment, Format::MlflowMeta, Inside::MlflowExperiment));
        }
        parts.extend(meta.map(|meta| Part::new(meta, Format::MlflowMeta, Inside::Bytes)));
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
        let why = match meta {
            Some(_) => "a run of MLflow's file store: meta.yaml and metrics/",
            None => "a run of MLflow's file store whose meta.yaml is missing: metrics/, params/ and tags/",
        };
        self.run(dir, parts, Format::MlflowMetric, why.into());
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
