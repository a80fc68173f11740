//! What an agent acts on: the files and processes of one machine. The driver
//! knows it through this trait only, so that the same supervisor, outbox and
//! uplink run against simulated machines.

mod ending;
pub mod layout;
pub mod machine;
pub mod materialise;
pub mod publishing;

use std::sync::Arc;

use artifacts::restore::RestoreError;
use artifacts::store::booklet::Booklet;
use artifacts::store::booklet::plan::{Measured, Next};
use artifacts::{ChunkIndex, Digest, Manifest, ObjectKey, Store};
use async_trait::async_trait;
use lifecycle::Exit;
use proto::v1;

/// Which output of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// The program's standard output.
    Stdout,
    /// The program's standard error.
    Stderr,
    /// What building the environment said.
    Setup,
    /// What explains the attempt's end, as JSON lines.
    Evidence,
}

impl Output {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Setup, Self::Stdout, Self::Stderr, Self::Evidence];
}

/// What lies at an offset of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes from the asked offset on.
    Bytes(Vec<u8>),
    /// Nothing until this offset will ever come.
    Gap(u64),
    /// Nothing yet.
    Nothing,
}

pub use crate::spool::Written;
pub use ending::Ending;
pub use publishing::Relief;

use crate::health::Monitor;

/// Where an attempt's program stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// Never started here.
    NotStarted,
    /// Running under this process id (0: about to start).
    Running(i32),
    /// It ended, and its keeper still ends what it left running and drains its
    /// output: news, and no end yet.
    Exited(Ended),
    /// It ended and nothing of it will change.
    Ended(Ended),
}

/// The end of a program, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// When that was seen, unix milliseconds by this machine's clock; 0 is unknown.
    pub at_ms: u64,
    /// Evidence that memory ran out; empty is none.
    pub out_of_memory: String,
    /// Peak resident memory; 0 is unknown.
    pub max_rss_bytes: u64,
    /// Which process the out-of-memory killer took: its number (0: unknown)
    /// and its command.
    pub oom_process: Option<(i32, String)>,
    /// Limits that could not be applied, in words.
    pub unapplied_limits: Vec<String>,
}

/// What a program is told of a notice, as JSON in `OUTLAST_NOTICE_FILE`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Warning {
    /// Who gave it.
    pub source: String,
    /// `ends` or `may-end`.
    pub kind: String,
    /// In the source's own words.
    pub text: String,
    /// When the machine is taken, unix milliseconds; null: it is not told.
    pub until_unix_ms: Option<u64>,
    /// When it was heard.
    pub at_unix_ms: u64,
}

/// How a program was told of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warned {
    /// The file is there, and so many processes were signalled.
    Told(usize),
    /// An agent before this one told it.
    Before,
    /// The file is gone again.
    Withdrawn,
    /// The file could not be written; so many processes were signalled.
    Failed(usize, String),
}

/// What preparing gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Which checkpoint lies at the resume path.
    pub restored: Option<Restored>,
    /// Whether the environment was there already.
    pub environment_cached: bool,
    /// Checkpoints that were offered and did not verify: key and detail.
    pub condemned: Vec<(String, String)>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// A checkpoint that lies verified at the resume path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Its manifest's key.
    pub key: String,
    /// Its step.
    pub step: Option<u64>,
    /// Its size.
    pub bytes: u64,
    /// How long it took.
    pub took_ms: u64,
}

/// Why preparing failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// In words, for a person.
    pub reason: String,
    /// Another try may well not meet it.
    pub transient: bool,
}

/// A checkpoint on the machine's disk that is complete and not yet published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Names these very bytes: changes when the files do.
    pub token: String,
    /// Base name.
    pub name: String,
    /// The step its name tells.
    pub step: Option<u64>,
    /// It has no step of its own and was written before what is durable
    /// already: worth keeping once the program has ended, never the newest.
    pub older: bool,
}

/// What publishing gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// Stored and durable.
    Durable {
        /// Manifest's key.
        key: String,
        /// Its step.
        step: Option<u64>,
    },
    /// In the store; whether it is durable, nobody said yet. It is committed
    /// by [`World::settle`] and not published again.
    Stored {
        /// Manifest's key.
        key: String,
        /// Hash of the manifest's bytes.
        digest: String,
        /// Its step.
        step: Option<u64>,
    },
    /// The files changed or vanished meanwhile; look again later.
    Gone,
    /// A newer generation is bound.
    Superseded,
    /// This one can never be published.
    Refused(String),
    /// The controller could not be asked; try again.
    Later(String),
    /// This machine failed (its disk, its permissions); try again, not for ever.
    Local(String),
}

/// Where published bytes go. Both lanes end at the controller's gateway.
#[async_trait]
pub trait Gateway: Store + ChunkIndex {
    /// Asks that a stored manifest be made durable.
    async fn commit(&self, attempt: &v1::Work, key: &str, digest: &str) -> Commit;
    /// Reports a checkpoint that does not verify.
    async fn condemn(&self, attempt: &v1::Work, key: &str, detail: &str);
    /// Reads the manifest of a tree that was given to this attempt, and opens it
    /// where it is sealed.
    async fn tree(
        &self,
        attempt: &v1::Work,
        key: &ObjectKey,
        digest: Digest,
    ) -> Result<Manifest, RestoreError>;
    /// Asks at which commit the run takes a repository, or proposes one; what
    /// stands. Empty: none so far.
    ///
    /// # Errors
    /// Why there is no answer; `true`: another try may give one.
    async fn pin(
        &self,
        _attempt: &v1::Work,
        _repository: &str,
        commit: &str,
    ) -> Result<String, (String, bool)> {
        Ok(commit.to_owned())
    }
    /// Whether there is a connection: without one every call waits in vain.
    fn reachable(&self) -> bool {
        true
    }
    /// Asks for signed URLs for an attempt's next objects.
    async fn booklet(&self, _attempt: &v1::Work, _ask: &BookletAsk) -> Handed {
        Handed::Never("nobody here signs URLs".into())
    }
}

/// A question for a booklet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookletAsk {
    /// The first numbers that are free.
    pub next: Next,
    /// What was measured, if anything was.
    pub measured: Option<Measured>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handed {
    /// Signed URLs.
    Booklet {
        /// What they are for.
        booklet: Box<Booklet>,
        /// How long they hold, from when they were asked for.
        valid_ms: u64,
        /// How long their numbers last.
        covers_ms: u64,
    },
    /// None are made, and why.
    Never(String),
    /// Nobody answered, or what came makes no sense.
    Unknown(String),
}

/// What became of what was stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Of each checkpoint that somebody answered for, oldest first.
    pub outcomes: Vec<Published>,
    /// How many wait still.
    pub left: usize,
}

/// The answer to a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// Durable.
    Durable,
    /// A newer generation is bound.
    Superseded,
    /// It will never be.
    Refused(String),
    /// It was answered, and not with a word on the checkpoint: what is wrong
    /// passes if it is published again.
    Again(String),
    /// Nobody answered.
    Unknown(String),
}

/// The gateway as it is handed around.
pub type SharedGateway = Arc<dyn Gateway>;

/// One machine. Long work is a future that the driver owns; everything else
/// returns at once.
#[async_trait]
pub trait World: Send + Sync {
    /// The assignments whose files are on this machine, oldest first.
    fn held(&self) -> Vec<v1::Work>;
    /// Makes an assignment's directory; durable before anything else is done.
    ///
    /// # Errors
    /// Where the disk refuses.
    fn keep(&self, work: &v1::Work) -> std::io::Result<()>;
    /// Takes the keys and secrets that an assignment brings into memory, and
    /// nowhere else.
    fn entrust(&self, _work: &v1::Work) {}
    /// How the machine ends itself; `None`: never (a simulation).
    fn ending(&self) -> Option<Ending> {
        None
    }
    /// Where an attempt's outbox is kept; `None` keeps it in memory.
    fn outbox(&self, attempt: &str) -> Option<std::path::PathBuf>;
    /// The disk of the outboxes, written to by a thread of its own; `None`: the
    /// files are written where facts arise, in one order (a simulation).
    fn disk(&self) -> Option<Box<dyn crate::outbox::Disk>> {
        None
    }
    /// Source, results, checkpoint and environment.
    async fn prepare(
        &self,
        work: v1::Work,
        gateway: SharedGateway,
        cancelled: Cancelled,
    ) -> Result<Prepared, Failed>;
    /// Starts the program, at most once per attempt.
    ///
    /// # Errors
    /// Why it could not be started.
    async fn start(&self, work: v1::Work) -> Result<(), Failed>;
    /// Where the program stands.
    fn program(&self, attempt: &str) -> Program;
    /// Limits that could not be applied to the running program, in words.
    fn unapplied_limits(&self, _attempt: &str) -> Vec<String> {
        Vec::new()
    }
    /// Asks the program to end; it is ended after `grace_ms`. `false`: nobody
    /// could be asked. Takes seconds where a keeper does not answer.
    async fn stop(&self, attempt: &str, grace_ms: u64) -> bool;
    /// Ends the program now. `false`: nobody could be asked.
    async fn kill(&self, attempt: &str) -> bool;
    /// Output at an offset.
    fn read(&self, attempt: &str, output: Output, offset: u64, max: usize) -> Piece;
    /// When the program wrote the byte at an offset that was just read.
    fn written(&self, _attempt: &str, _output: Output, _offset: u64) -> Written {
        Written::UNKNOWN
    }
    /// Whom the run of this assignment wants asked for notices; `None`: nobody
    /// is (a simulation).
    fn wants_notices(&self, _work: &v1::Work) -> Option<crate::notice::Wanted> {
        None
    }
    /// Tells the running program of a notice, or (`None`) that it was taken
    /// back.
    async fn warn(&self, _work: v1::Work, _warning: Option<Warning>) -> Warned {
        Warned::Told(0)
    }
    /// Asks the running program to save, as a notice would but without its
    /// file; says how many processes took the signal.
    async fn ask_to_save(&self, _work: v1::Work) -> usize {
        0
    }
    /// Output below this offset is durable at the controller.
    fn release(&self, attempt: &str, output: Output, acked: u64);
    /// Complete, unpublished checkpoints, newest first. With `last`, the
    /// program has ended and nothing is written any more.
    async fn candidates(&self, work: v1::Work, last: bool) -> Vec<Candidate>;
    /// What the last looks for checkpoints found that people should know; each
    /// is given once.
    fn remarks(&self, _attempt: &str) -> Vec<String> {
        Vec::new()
    }
    /// Where the checkpoints of an attempt stood at the last look.
    fn standings(&self, _attempt: &str) -> Vec<v1::CheckpointStanding> {
        Vec::new()
    }
    /// Publishes a checkpoint, and with it the result files.
    async fn publish(&self, work: v1::Work, candidate: Candidate, gateway: SharedGateway) -> Published;
    /// Publishes the result files.
    async fn publish_outputs(&self, work: v1::Work, gateway: SharedGateway) -> Published;
    /// Has what is stored made durable, oldest first, and sees to it that the
    /// next checkpoints can be stored without a controller. `fresh`: the
    /// connection is new.
    async fn settle(&self, _work: v1::Work, _gateway: SharedGateway, _fresh: bool) -> Settlement {
        Settlement::default()
    }
    /// Nothing more of an attempt will be published: what it could still write
    /// with is put away.
    async fn close(&self, _work: v1::Work, _gateway: SharedGateway) {}
    /// Forgets an attempt: its end is durable at the controller.
    fn forget(&self, attempt: &str);
    /// Free bytes of disk and memory; 0 is unknown.
    fn free(&self) -> (u64, u64);
    /// The sampler of the machine's health; `None`: nothing is looked after
    /// here (a simulation).
    fn monitor(&self) -> Option<Monitor> {
        None
    }
    /// Where an attempt's files are; `None`: it has none.
    fn directory(&self, _attempt: &str) -> Option<layout::AttemptDir> {
        None
    }
    /// Makes room on the disk of an attempt's checkpoints where it is short:
    /// deletes what the store has, then environments that nothing uses.
    /// `filling_per_s` is in bytes per second. Blocks.
    fn relieve(&self, _work: &v1::Work, _filling_per_s: f64) -> Relief {
        Relief::default()
    }
    /// Remembers that a run hangs with this durable step; whether it did so
    /// before without a newer one since. Blocks.
    fn hangs_again(&self, _work: &v1::Work, _durable: Option<u64>) -> bool {
        false
    }
    /// Whether `changed` will tell what becomes of these attempts: more output,
    /// an end. Asked before each wait.
    fn tells_changes(&self, _attempts: &[&str]) -> bool {
        false
    }
    /// Waits until something of those attempts may have changed; for ever where
    /// nothing can tell.
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
    /// As `changed`, for what is rare and is looked at at once: a program's end
    /// was recorded.
    async fn exited(&self) {
        std::future::pending::<()>().await;
    }
    /// Where a guard listens; `None`: there is none.
    fn guard(&self) -> Option<&std::path::Path> {
        None
    }
}

/// Asked by long blocking work now and then.
pub type Cancelled = Arc<std::sync::atomic::AtomicBool>;
