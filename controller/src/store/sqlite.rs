//! The embedded store: SQLite in WAL mode, one writer.
//!
//! In production a thread owns the writing connection and gathers the commits
//! that wait for it into one transaction, so that many share one fsync; reads
//! go to a second connection. In a simulation everything runs inline in the
//! calling task. Nothing is acknowledged before the transaction is on disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::ballast::Ballast;
use super::{
    Changed, Changeset, ChunkPut, Commit, Feed, JournalCheck, JournalRow, Kind, Row, Store, StoreError,
};
use super::{rows, schema};

/// Where the database work happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// On threads of its own: the calling task only waits.
    Thread,
    /// In the calling task: one order of events, for deterministic simulation.
    Inline,
}

/// Commits and reads that may wait before callers are held up.
const QUEUE: usize = 256;
/// Commits that may share one transaction.
const GROUP: usize = 64;

type Reply = oneshot::Sender<Result<Commit, StoreError>>;
type Read = Box<dyn FnOnce(&Connection) + Send>;

/// A [`Store`] in one SQLite file.
pub struct SqliteStore {
    path: PathBuf,
    engine: Engine,
    feed: Arc<Feed>,
}

enum Engine {
    Inline(Mutex<Writer>),
    Threads(Option<Lanes>),
}

struct Lanes {
    commits: mpsc::Sender<(Changeset, Reply)>,
    reads: mpsc::Sender<Read>,
    threads: [JoinHandle<()>; 2],
}

struct Writer {
    conn: Connection,
    ballast: Ballast,
    feed: Arc<Feed>,
}

impl SqliteStore {
    /// Opens the database, making or migrating it where needed.
    pub fn open(path: impl AsRef<Path>, mode: Mode) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        schema::private(&path, false).map_err(|source| StoreError::io(&path, source))?;
        let mut conn = connect(&path)?;
        schema::migrate(&mut conn, &path)?;
        schema::sync_directory(&path).map_err(|source| StoreError::io(&path, source))?;
        let feed = Arc::new(Feed::default());
        let ballast = Ballast::open(schema::beside(&path, ".ballast"));
        let writer = Writer { conn, ballast, feed: feed.clone() };
        let engine = match mode {
            Mode::Inline => Engine::Inline(Mutex::new(writer)),
            Mode::Thread => Engine::Threads(Some(Lanes::start(&path, writer)?)),
        };
        Ok(Self { path, engine, feed })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match &self.engine {
            Engine::Inline(writer) => work(&lock(writer)?.conn),
            Engine::Threads(None) => Err(StoreError::Closed),
            Engine::Threads(Some(lanes)) => {
                let (reply, answer) = oneshot::channel();
                let job: Read = Box::new(move |conn| {
                    // A caller that no longer listens is no failure.
                    let _ = reply.send(work(conn));
                });
                lanes.reads.send(job).await.map_err(|_| StoreError::Closed)?;
                answer.await.map_err(|_| StoreError::Closed)?
            }
        }
    }
}

impl Drop for SqliteStore {
    /// Waits until what was handed over is written and the file is closed.
    fn drop(&mut self) {
        if let Engine::Threads(lanes) = &mut self.engine
            && let Some(Lanes { commits, reads, threads }) = lanes.take()
        {
            drop((commits, reads));
            for thread in threads {
                let _ = thread.join();
            }
        }
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open(path)?;
    schema::configure(&conn)?;
    Ok(conn)
}

fn lock(writer: &Mutex<Writer>) -> Result<MutexGuard<'_, Writer>, StoreError> {
    writer.lock().map_err(|_| StoreError::Closed)
}

impl Lanes {
    fn start(path: &Path, mut writer: Writer) -> Result<Self, StoreError> {
        let reader = connect(path)?;
        reader.execute_batch("PRAGMA query_only = ON")?;
        let (commits, mut commit_queue) = mpsc::channel(QUEUE);
        let (reads, mut read_queue) = mpsc::channel::<Read>(QUEUE);
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
            thread.map_err(|source| StoreError::io(path, source))
        };
        let write = move || {
            while let Some(first) = commit_queue.blocking_recv() {
                let mut group = vec![first];
                while group.len() < GROUP
                    && let Ok(next) = commit_queue.try_recv()
                {
                    group.push(next);
                }
                let (changes, replies): (Vec<_>, Vec<Reply>) = group.into_iter().unzip();
                for (reply, result) in replies.into_iter().zip(writer.commit(&changes)) {
                    let _ = reply.send(result);
                }
            }
        };
        let read = move || {
            while let Some(job) = read_queue.blocking_recv() {
                job(&reader);
            }
        };
        let threads = [spawn("store-write", Box::new(write))?, spawn("store-read", Box::new(read))?];
        Ok(Self { commits, reads, threads })
    }
}

impl Writer {
    /// One result per changeset, in order.
    fn commit(&mut self, group: &[Changeset]) -> Vec<Result<Commit, StoreError>> {
        if group.len() > 1
            && let Ok(results) = self.transact(group)
        {
            self.ballast.committed();
            return results.into_iter().map(Ok).collect();
        }
        // One of them cannot be written: each stands for itself.
        group.iter().map(|changes| self.commit_one(changes)).collect()
    }

    fn commit_one(&mut self, changes: &Changeset) -> Result<Commit, StoreError> {
        let result = self.transact(std::slice::from_ref(changes));
        match &result {
            Ok(_) => self.ballast.committed(),
            Err(StoreError::Full) => self.ballast.release(),
            Err(_) => {}
        }
        result?.pop().ok_or(StoreError::Closed)
    }

    fn transact(&mut self, group: &[Changeset]) -> Result<Vec<Commit>, StoreError> {
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let results =
            group.iter().map(|changes| rows::apply(&transaction, changes)).collect::<Result<Vec<_>, _>>()?;
        let ended = transaction.commit();
        // Also where that failed: to read a row once more is no loss.
        for (changes, result) in group.iter().zip(&results) {
            if matches!(result, Commit::Committed { .. }) {
                self.feed.applied(changes);
            }
        }
        ended?;
        Ok(results)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, kind: Kind, id: &str) -> Result<Option<Row>, StoreError> {
        let id = id.to_owned();
        self.read(move |conn| rows::get(conn, kind, &id)).await
    }

    async fn list(&self, kind: Kind) -> Result<Vec<Row>, StoreError> {
        self.read(move |conn| rows::list(conn, kind, None)).await
    }

    async fn list_run(&self, kind: Kind, run: &str) -> Result<Vec<Row>, StoreError> {
        let run = run.to_owned();
        self.read(move |conn| rows::list(conn, kind, Some(&run))).await
    }

    async fn commit(&self, changes: Changeset) -> Result<Commit, StoreError> {
        changes.check()?;
        match &self.engine {
            Engine::Inline(writer) => lock(writer)?.commit_one(&changes),
            Engine::Threads(None) => Err(StoreError::Closed),
            Engine::Threads(Some(lanes)) => {
                let (reply, answer) = oneshot::channel();
                lanes.commits.send((changes, reply)).await.map_err(|_| StoreError::Closed)?;
                answer.await.map_err(|_| StoreError::Closed)?
            }
        }
    }

    fn changed_since(&self, mark: u64) -> Changed {
        self.feed.since(mark)
    }

    async fn locate(&self, digests: &[[u8; 32]]) -> Result<Vec<Option<ChunkPut>>, StoreError> {
        let digests = digests.to_vec();
        self.read(move |conn| rows::locate(conn, &digests)).await
    }

    async fn journal(
        &self,
        after: u64,
        limit: usize,
        run: Option<&str>,
    ) -> Result<Vec<JournalRow>, StoreError> {
        let run = run.map(str::to_owned);
        self.read(move |conn| rows::journal(conn, after, limit, run.as_deref())).await
    }

    async fn verify_journal(&self) -> Result<JournalCheck, StoreError> {
        self.read(rows::verify).await
    }

    async fn backup(&self, path: &Path) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Inline(writer) => schema::copy(&lock(writer)?.conn, path, false),
            Engine::Threads(_) => {
                // A connection of its own: a long copy delays no read and no commit.
                let (from, to) = (self.path.clone(), path.to_owned());
                let copy = move || schema::copy(&connect(&from)?, &to, false);
                tokio::task::spawn_blocking(copy).await.map_err(|_| StoreError::Closed)?
            }
        }
    }
}

#[cfg(test)]
mod tests;
