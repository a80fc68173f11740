//! Where everything of a machine lies below its state directory.

use std::path::{Path, PathBuf};

/// The directory of one attempt, and what is in it.
#[derive(Debug, Clone)]
pub struct AttemptDir(PathBuf);

impl AttemptDir {
    /// Below the machine's state directory.
    #[must_use]
    pub fn new(state: &Path, attempt: &str) -> Self {
        Self(state.join("attempts").join(attempt))
    }

    /// The directory itself; the keeper's files are directly in it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The assignment as it came.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.0.join("work.json")
    }

    /// Facts that are not acknowledged.
    #[must_use]
    pub fn outbox(&self) -> PathBuf {
        self.0.join("outbox")
    }

    /// What building the environment said.
    #[must_use]
    pub fn setup_log(&self) -> PathBuf {
        self.0.join("setup.log")
    }

    /// What explains the attempt's end, as JSON lines.
    #[must_use]
    pub fn evidence(&self) -> PathBuf {
        self.0.join("evidence.jsonl")
    }

    /// How the program is to be started.
    #[must_use]
    pub fn launch(&self) -> PathBuf {
        self.0.join("launch.json")
    }

    /// The source tree; the command runs in it.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        self.0.join("src")
    }

    /// `HF_HOME`, where repositories were fetched.
    #[must_use]
    pub fn hf_home(&self) -> PathBuf {
        self.0.join("hf")
    }

    /// `OUTLAST_CHECKPOINT_DIR`.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// Where a restored checkpoint lies that has no place of its own.
    #[must_use]
    pub fn resume(&self) -> PathBuf {
        self.0.join("resume")
    }

    /// `OUTLAST_OUTPUT_DIR`, inside the source tree.
    #[must_use]
    pub fn outputs(&self) -> PathBuf {
        self.source().join("results")
    }

    /// Where the program hears of a notice; it is there from the start, so that
    /// a container can have it.
    #[must_use]
    pub fn notice(&self) -> PathBuf {
        self.0.join("notice")
    }

    /// `OUTLAST_NOTICE_FILE`, which is there while a notice stands.
    #[must_use]
    pub fn notice_file(&self) -> PathBuf {
        self.notice().join("notice.json")
    }

    /// Checkpoints that need not be published: they are, or they came with
    /// the attempt.
    #[must_use]
    pub fn known(&self) -> PathBuf {
        self.0.join("known.json")
    }

    /// Which local copies of checkpoints the store has, oldest first.
    #[must_use]
    pub fn durable(&self) -> PathBuf {
        self.0.join("durable.json")
    }

    /// What was learned of the program's pace, and whether it is being ended
    /// because it hangs.
    #[must_use]
    pub fn care(&self) -> PathBuf {
        self.0.join("care.json")
    }
}
