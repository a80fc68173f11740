//! Why something is or is not finished, as data: shown to people, compared by
//! tests, written as JSON. Names in it come from strangers' programs: they are
//! cut here and escaped by whoever prints them.

use serde::Serialize;

/// Characters kept of a name or a text that a program wrote.
const LONGEST: usize = 200;

/// What keeps a checkpoint from being called complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reason {
    /// A writer gives such names to what it has not finished.
    #[error("`{name}` is a temporary name")]
    TemporaryName {
        /// The name.
        name: String,
    },
    /// A marker that the writer takes away at the end.
    #[error("`{marker}` says that it is not finished")]
    Marked {
        /// The marker's name.
        marker: String,
    },
    /// Nothing was saved yet.
    #[error("it holds no file")]
    NoFile,
    /// The structure of a file is broken.
    #[error("`{file}`: {what}")]
    Torn {
        /// The file, relative to the checkpoint.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// The layout needs something that is not there.
    #[error("waits for: {what}")]
    WaitsFor {
        /// What is missing.
        what: String,
    },
    /// An earlier checkpoint of the same run has something that this one has
    /// not: a rank that is slower, or a program that saves other things now.
    #[error("waits for: {what} as in {like}")]
    Unlike {
        /// What is missing.
        what: String,
        /// The earlier checkpoint.
        like: String,
    },
    /// The usual writer of such names saves something more, at the very end.
    #[error("`{what}` may follow")]
    MayFollow {
        /// What.
        what: String,
    },
    /// It loses files and gains none, as what is being removed.
    #[error("it has lost files and gained none: it is being removed")]
    Shrinks,
    /// The end of its program came too soon after the last write.
    #[error("{how} while it was written or soon after, and its format does not tell whether it is whole")]
    Died {
        /// How the program ended.
        how: String,
    },
    /// The user's own check says that it is not finished.
    #[error("`[checkpoints] check` says no: {says}")]
    Checked {
        /// How it ended, and what it said.
        says: String,
    },
    /// That nobody writes to it could not be found out.
    #[error("whether somebody writes to it cannot be seen: {what}")]
    Unseen {
        /// Why not.
        what: String,
    },
    /// Every rank saves a file, and how many ranks there are is written nowhere.
    #[error("{ranks} ranks saved; whether these are all is written nowhere")]
    Ranks {
        /// How many were seen.
        ranks: u64,
    },
    /// Its own state is of another step than its name.
    #[error("`{file}` is of step {step}")]
    OtherStep {
        /// The file that tells the step.
        file: String,
        /// The step.
        step: u64,
    },
    /// Data is newer than what seals it.
    #[error("`{file}` is newer than `{seal}`: it is being overwritten")]
    Overwritten {
        /// The newer file.
        file: String,
        /// What was written last the time before.
        seal: String,
    },
    /// The tracker names another checkpoint.
    #[error("`{tracker}` says `{says}`")]
    Tracker {
        /// The file that names the newest one.
        tracker: String,
        /// What it says.
        says: String,
    },
    /// Its writer has not said yet that it is committed.
    #[error("`{file}` tells no time of a commit")]
    Uncommitted {
        /// The file that would.
        file: String,
    },
    /// Somebody can still write to it.
    #[error("`{file}` is open for writing by {by}")]
    Writer {
        /// The file, relative to the checkpoint.
        file: String,
        /// The process.
        by: String,
    },
    /// It became another file while it was read.
    #[error("`{file}` changed while it was read")]
    Changed {
        /// The file, relative to the checkpoint.
        file: String,
    },
    /// It has the right shape, and something in it looks unwritten.
    #[error("`{file}` {what}")]
    Doubtful {
        /// The file, relative to the checkpoint.
        file: String,
        /// What.
        what: String,
    },
    /// Text beside other data that is not what its name promises.
    #[error("`{file}`: {what}, as if its end was never written")]
    Odd {
        /// The file, relative to the checkpoint.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// No format and no layout says anything: only a rest can tell.
    #[error("its format does not tell where it ends")]
    NoStructure,
    /// More files than are judged.
    #[error("it holds more than {most} files: too many to judge")]
    TooLarge {
        /// The most.
        most: usize,
    },
    /// It could not be looked at.
    #[error("it cannot be read: {what}")]
    Unreadable {
        /// Why.
        what: String,
    },
}

impl Reason {
    /// Whether there is evidence that it is not finished: an earlier checkpoint
    /// had more, its usual writer saves more, or what seals it is older than
    /// what it seals. An ordinary rest does not settle that, only a long one.
    #[must_use]
    pub fn is_grave(&self) -> bool {
        matches!(
            self,
            Self::Unlike { .. }
                | Self::MayFollow { .. }
                | Self::Overwritten { .. }
                | Self::TemporaryName { .. }
                | Self::Odd { .. }
        )
    }

    /// Whether nothing more is to come once the program has ended, all being
    /// well: what it wrote is what it meant to write.
    #[must_use]
    pub fn ends_with_its_program(&self) -> bool {
        !self.is_grave() || matches!(self, Self::Odd { .. })
    }

    pub(super) fn torn(file: &str, what: &str) -> Self {
        Self::Torn { file: cut(file), what: cut(what) }
    }

    pub(super) fn odd(file: &str, what: &str) -> Self {
        Self::Odd { file: cut(file), what: cut(what) }
    }

    pub(super) fn doubtful(file: &str, what: &str) -> Self {
        Self::Doubtful { file: cut(file), what: cut(what) }
    }

    pub(super) fn waits_for(what: &str) -> Self {
        Self::WaitsFor { what: cut(what) }
    }

    pub(super) fn may_follow(what: &str) -> Self {
        Self::MayFollow { what: cut(what) }
    }

    pub(super) fn unlike(what: &str, like: &str) -> Self {
        Self::Unlike { what: cut(what), like: cut(like) }
    }

    pub(super) fn tracker(tracker: &str, says: &str) -> Self {
        Self::Tracker { tracker: cut(tracker), says: cut(says) }
    }

    pub(super) fn overwritten(file: &str, seal: &str) -> Self {
        Self::Overwritten { file: cut(file), seal: cut(seal) }
    }

    pub(super) fn temporary(name: &str) -> Self {
        Self::TemporaryName { name: cut(name) }
    }
}

/// A text of bounded length.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
