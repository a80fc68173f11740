//! A store that forgets everything when it is dropped: for tests and
//! simulations. It must answer exactly as the durable ones do.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;

use super::chain::{GENESIS, Sealed, Walk};
use super::{
    Changed, Changeset, ChunkPut, Commit, Feed, JournalCheck, JournalRow, Kind, Row, Store, StoreError,
};

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<(Kind, String), Row>,
    chunks: HashMap<[u8; 32], ChunkPut>,
    journal: Vec<Sealed>,
}

/// A [`Store`] in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    feed: Feed,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        self.state.lock().map_err(|_| StoreError::Closed)
    }
}

impl State {
    fn apply(&mut self, changes: Changeset) -> Commit {
        for expect in changes.expect {
            let found = self.rows.get(&(expect.kind, expect.id.clone())).map(|row| row.version);
            if found != expect.version {
                return Commit::Conflict { kind: expect.kind, id: expect.id, found };
            }
        }
        for put in changes.put {
            let version = self.rows.get(&(put.kind, put.id.clone())).map_or(0, |row| row.version) + 1;
            let row = Row { kind: put.kind, id: put.id.clone(), version, run: put.run, body: put.body };
            self.rows.insert((put.kind, put.id), row);
        }
        for key in changes.delete {
            self.rows.remove(&key);
        }
        if !changes.forget_packs.is_empty() {
            self.chunks.retain(|_, chunk| !changes.forget_packs.contains(&chunk.pack));
        }
        for chunk in changes.chunks {
            self.chunks.entry(chunk.digest).or_insert(chunk);
        }
        for entry in changes.journal {
            let prev = self.journal.last().map_or(GENESIS, |row| row.hash.as_str());
            let sealed = Sealed::seal(self.journal.len() as u64 + 1, prev, entry);
            self.journal.push(sealed);
        }
        Commit::Committed { journal_seq: self.journal.len() as u64 }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, kind: Kind, id: &str) -> Result<Option<Row>, StoreError> {
        Ok(self.state()?.rows.get(&(kind, id.to_owned())).cloned())
    }

    async fn list(&self, kind: Kind) -> Result<Vec<Row>, StoreError> {
        Ok(self.state()?.rows.values().filter(|row| row.kind == kind).cloned().collect())
    }

    async fn list_run(&self, kind: Kind, run: &str) -> Result<Vec<Row>, StoreError> {
        let of_run = |row: &&Row| row.kind == kind && row.run.as_deref() == Some(run);
        Ok(self.state()?.rows.values().filter(of_run).cloned().collect())
    }

    async fn commit(&self, changes: Changeset) -> Result<Commit, StoreError> {
        changes.check()?;
        let mut state = self.state()?;
        let news =
            Changeset { put: changes.put.clone(), delete: changes.delete.clone(), ..Changeset::default() };
        let commit = state.apply(changes);
        if matches!(commit, Commit::Committed { .. }) {
            self.feed.applied(&news);
        }
        Ok(commit)
    }

    fn changed_since(&self, mark: u64) -> Changed {
        self.feed.since(mark)
    }

    async fn locate(&self, digests: &[[u8; 32]]) -> Result<Vec<Option<ChunkPut>>, StoreError> {
        let state = self.state()?;
        Ok(digests.iter().map(|digest| state.chunks.get(digest).cloned()).collect())
    }

    async fn journal(
        &self,
        after: u64,
        limit: usize,
        run: Option<&str>,
    ) -> Result<Vec<JournalRow>, StoreError> {
        let state = self.state()?;
        let wanted = |row: &&Sealed| row.seq > after && run.is_none_or(|run| row.run.as_deref() == Some(run));
        state.journal.iter().filter(wanted).take(limit).cloned().map(Sealed::into_row).collect()
    }

    async fn verify_journal(&self) -> Result<JournalCheck, StoreError> {
        let state = self.state()?;
        let mut walk = Walk::new();
        let _ = state.journal.iter().all(|row| walk.step(row));
        Ok(walk.end(state.journal.len() as u64))
    }

    async fn backup(&self, _path: &Path) -> Result<(), StoreError> {
        Err(StoreError::Unsupported("a backup"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract;

    #[tokio::test]
    async fn keeps_the_contract() {
        contract::run(&|| Box::new(MemoryStore::new())).await;
    }

    #[tokio::test]
    async fn an_altered_journal_row_is_found() {
        let store = MemoryStore::new();
        store.commit(contract::entries(3)).await.unwrap();
        store.state().unwrap().journal[1].actor = "nobody".into();
        assert_eq!(store.verify_journal().await.unwrap().first_bad, Some(2));
        assert!(matches!(store.backup(Path::new("x")).await, Err(StoreError::Unsupported(_))));
    }
}
