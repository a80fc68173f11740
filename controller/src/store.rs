//! The controller's memory: rows with versions, chunk positions and one
//! hash-chained journal, all changed together or not at all.
//!
//! A caller reads, decides purely, and hands over a [`Changeset`] that names the
//! versions it decided upon. No transaction and no closure crosses this
//! boundary, so that a store may answer inline or over a network. The store
//! decides nothing about runs or machines, and must never acknowledge a commit
//! that a power cut could undo.

use std::path::Path;

use async_trait::async_trait;

mod ballast;
mod chain;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod error;
mod feed;
mod memory;
mod rows;
mod schema;
mod sqlite;

pub use error::StoreError;
pub use feed::{Changed, Feed};

/// The newest schema that this program knows.
pub const SCHEMA: u32 = schema::KNOWN;
pub use memory::MemoryStore;
pub use sqlite::{Mode, SqliteStore};

/// What a row is about. The text of [`Kind::as_str`] is what the database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Facts about the installation itself.
    Meta,
    /// Work to be carried to its end.
    Run,
    /// One try of a run on one machine.
    Attempt,
    /// One rented thing.
    Machine,
    /// A verified artifact of a run at a step.
    Checkpoint,
    /// An immutable file tree.
    Artifact,
    /// The durable position of one stream.
    Stream,
    /// A one-time join secret's hash.
    Join,
    /// A certificate holder.
    Identity,
    /// Running statistics of one metric.
    Series,
    /// A publication under way.
    Upload,
    /// A message to somebody who is told of events.
    Notice,
    /// What a run was given to hide, sealed.
    Secret,
    /// What is remembered of a physical machine, or of a kind of them.
    Host,
}

impl Kind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 14] = [
        Self::Meta,
        Self::Run,
        Self::Attempt,
        Self::Machine,
        Self::Checkpoint,
        Self::Artifact,
        Self::Stream,
        Self::Join,
        Self::Identity,
        Self::Series,
        Self::Upload,
        Self::Notice,
        Self::Secret,
        Self::Host,
    ];

    /// Rows that are read far more often than they change: their changes are
    /// told by [`Store::changed_since`].
    #[must_use]
    pub const fn is_kept(self) -> bool {
        matches!(self, Self::Run | Self::Attempt | Self::Machine | Self::Identity)
    }

    /// The stable text of this kind in databases and journals.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Run => "run",
            Self::Attempt => "attempt",
            Self::Machine => "machine",
            Self::Checkpoint => "checkpoint",
            Self::Artifact => "artifact",
            Self::Stream => "stream",
            Self::Join => "join",
            Self::Identity => "identity",
            Self::Series => "series",
            Self::Upload => "upload",
            Self::Notice => "notice",
            Self::Secret => "secret",
            Self::Host => "host",
        }
    }
}

/// One stored row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub kind: Kind,
    /// Its name within its kind.
    pub id: String,
    /// 1 when first put, one more at each later put.
    pub version: u64,
    /// The run it belongs to, for [`Store::list_run`].
    pub run: Option<String>,
    /// Its content as JSON.
    pub body: String,
}

/// A version that must hold for a commit to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// The row's kind.
    pub kind: Kind,
    /// The row's name.
    pub id: String,
    /// The version it must have; `None`: it must not exist.
    pub version: Option<u64>,
}

/// A row to write, whether it exists or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutRow {
    /// The row's kind.
    pub kind: Kind,
    /// The row's name.
    pub id: String,
    /// The run it belongs to.
    pub run: Option<String>,
    /// Its content as JSON.
    pub body: String,
}

/// Where a chunk lies. The first position told for a digest stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPut {
    /// The chunk's content digest.
    pub digest: [u8; 32],
    /// The key of the pack that holds it.
    pub pack: String,
    /// The first byte's offset in the pack.
    pub offset: u64,
    /// Its length.
    pub len: u32,
    /// Its length in the pack.
    pub stored: u32,
    /// How it is coded there, as the artifact format numbers it.
    pub codec: u8,
    /// Hash of its stored bytes, where it is sealed; `digest` is its name then.
    pub cipher: Option<[u8; 32]>,
}

/// Something learned or done, to be appended to the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalEntry {
    /// Wall-clock time in milliseconds since 1970; for display only.
    pub at_ms: u64,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub verb: String,
    /// To what.
    pub object: String,
    /// The run it concerns.
    pub run: Option<String>,
    /// Everything else; never a secret.
    pub detail: serde_json::Value,
}

/// A journal entry in its place in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalRow {
    /// 1, 2, 3 ... without holes.
    pub seq: u64,
    /// The hash of the row before; zeros for the first.
    pub prev_hash: String,
    /// SHA-256 over `prev_hash` and this row's canonical text, in hex.
    pub hash: String,
    /// Wall-clock time in milliseconds since 1970; for display only.
    pub at_ms: u64,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub verb: String,
    /// To what.
    pub object: String,
    /// The run it concerns.
    pub run: Option<String>,
    /// Everything else.
    pub detail: serde_json::Value,
}

/// Changes that happen together or not at all, in this order: every `expect`
/// is checked, then `put`, `delete`, `forget_packs`, `chunks` and `journal`
/// are applied.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changeset {
    /// Versions that must hold.
    pub expect: Vec<Expect>,
    /// Rows to write.
    pub put: Vec<PutRow>,
    /// Rows to remove; one that is not there is no error.
    pub delete: Vec<(Kind, String)>,
    /// Packs of which no chunk is offered any more.
    pub forget_packs: Vec<String>,
    /// Chunk positions to remember unless the digest is known.
    pub chunks: Vec<ChunkPut>,
    /// Entries to append.
    pub journal: Vec<JournalEntry>,
}

/// What became of a changeset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// All of it is durable.
    Committed {
        /// The journal's last number after this commit.
        journal_seq: u64,
    },
    /// None of it happened: a version was not the expected one.
    Conflict {
        /// The kind of the first row that differed.
        kind: Kind,
        /// Its name.
        id: String,
        /// The version it has; `None`: it does not exist.
        found: Option<u64>,
    },
}

/// What a walk along the journal's chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalCheck {
    /// How many rows were found good.
    pub rows: u64,
    /// The first number that is missing or whose row was altered.
    pub first_bad: Option<u64>,
    /// The hash of the last good row; zeros for an empty journal.
    pub head: String,
}

/// Where the controller keeps what it knows.
///
/// A commit whose future is dropped may still happen; what an acknowledged
/// commit wrote is seen by every read that starts later.
#[async_trait]
pub trait Store: Send + Sync {
    /// One row, if it exists.
    async fn get(&self, kind: Kind, id: &str) -> Result<Option<Row>, StoreError>;
    /// All rows of a kind, by id.
    async fn list(&self, kind: Kind) -> Result<Vec<Row>, StoreError>;
    /// All rows of a kind that belong to a run, by id.
    async fn list_run(&self, kind: Kind, run: &str) -> Result<Vec<Row>, StoreError>;
    /// Applies a changeset: all of it, durably, or nothing.
    async fn commit(&self, changes: Changeset) -> Result<Commit, StoreError>;
    /// Which rows of kinds that are kept (see [`Kind::is_kept`]) changed since a
    /// mark that an earlier answer gave. Asked in memory: it never waits.
    fn changed_since(&self, mark: u64) -> Changed;
    /// Where each chunk lies, in the order asked; `None` for unknown ones.
    async fn locate(&self, digests: &[[u8; 32]]) -> Result<Vec<Option<ChunkPut>>, StoreError>;
    /// Journal rows numbered above `after`, at most `limit`, of one run or of all.
    async fn journal(
        &self,
        after: u64,
        limit: usize,
        run: Option<&str>,
    ) -> Result<Vec<JournalRow>, StoreError>;
    /// Walks the whole chain.
    async fn verify_journal(&self) -> Result<JournalCheck, StoreError>;
    /// Writes a consistent copy to a file that must not exist yet.
    async fn backup(&self, path: &Path) -> Result<(), StoreError>;
}

impl Changeset {
    /// Refuses what not every store can hold: numbers above `i64::MAX`.
    fn check(&self) -> Result<(), StoreError> {
        let fits = |n: u64| i64::try_from(n).is_ok();
        if self.chunks.iter().any(|c| !fits(c.offset)) || self.journal.iter().any(|j| !fits(j.at_ms)) {
            return Err(StoreError::Invalid("an offset or a time is above 2^63 - 1".into()));
        }
        Ok(())
    }
}
