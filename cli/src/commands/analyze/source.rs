//! What a run is made of: which files, or which parts of files, and how each of
//! them is read.

use std::path::{Path, PathBuf};

use curves::format::{Format, Guess};

use super::database::Stored;

/// How a part is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inside {
    /// The file's bytes are of its format.
    Bytes,
    /// They are when gzip has unpacked them.
    Gzip,
    /// It is one run of a database.
    Stored(Stored),
    /// It is one of the files of this run's databases, which are read together.
    Aim(String),
    /// It holds hyperparameters of the run and nothing of its course.
    Hparams,
    /// It holds settings of the run as YAML.
    Yaml,
    /// It was copied from W&B's server.
    WandbCloud,
    /// It is what ClearML says of a task.
    ClearmlTask,
    /// It is what MLflow says of the experiment that a run belongs to.
    MlflowExperiment,
    /// It is one parameter of a run of MLflow's.
    MlflowParam(String),
    /// It is one tag of a run of MLflow's.
    MlflowTag(String),
}

/// One file of a run.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The file as a person knows it.
    pub(super) path: PathBuf,
    /// Where its bytes lie, if that is elsewhere.
    pub(super) at: Option<PathBuf>,
    pub(super) format: Format,
    /// It goes on from the part before it.
    pub(super) resumed: bool,
    pub(super) inside: Inside,
}

impl Part {
    pub(super) fn new(path: &Path, format: Format, inside: Inside) -> Self {
        Self { path: path.to_owned(), at: None, format, resumed: false, inside }
    }

    /// The file to open.
    pub(super) fn file(&self) -> &Path {
        self.at.as_deref().unwrap_or(&self.path)
    }
}

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The file or directory that it is.
    pub(super) path: PathBuf,
    pub(super) parts: Vec<Part>,
    pub(super) format: Format,
    pub(super) why: String,
    /// A person named this very file: it is shown even if it says nothing.
    pub(super) named: bool,
    /// Output of the same run, for want of anything better.
    pub(super) output: Option<PathBuf>,
}

/// Something that was passed over.
#[derive(Debug, Clone)]
pub(crate) struct Skipped {
    pub(crate) path: PathBuf,
    pub(crate) why: String,
}

/// Why a file was taken as what.
#[derive(Debug, Clone)]
pub(super) struct Explained {
    pub(super) path: PathBuf,
    /// The format; `None`: it was passed over.
    pub(super) format: Option<Format>,
    pub(super) why: String,
    /// What else it could be.
    pub(super) others: Vec<Guess>,
}
