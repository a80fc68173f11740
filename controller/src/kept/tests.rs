//! That what is kept is what the store holds, whatever happens between.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use proptest::prelude::*;
use serde_json::json;
use tokio::sync::Notify;

use super::*;
use crate::model::{BoundKey, Record};
use crate::store::{
    Changed, Changeset, ChunkPut, Commit, JournalCheck, JournalRow, MemoryStore, PutRow, StoreError,
};
use lifecycle::MachineId;

fn key(n: u8, incarnation: u64) -> BoundKey {
    serde_json::from_value(json!({
        "machine": MachineId::from_bytes([n; 16]), "thumbprint": "t", "spki": "", "incarnation": incarnation, "boot_id": ""
    }))
    .unwrap()
}

fn put(n: u8, incarnation: u64) -> Changeset {
    let (_, row) = Versioned::new(key(n, incarnation)).write();
    Changeset { put: vec![row], ..Changeset::default() }
}

fn gone(n: u8) -> Changeset {
    Changeset { delete: vec![(BoundKey::KIND, key(n, 0).key())], ..Changeset::default() }
}

/// A store that counts its questions, and one of which can be held up between
/// the reading and the answer.
struct Watched {
    inner: MemoryStore,
    asked: Mutex<Vec<&'static str>>,
    hold: Mutex<Option<Arc<Notify>>>,
}

impl Watched {
    fn new() -> Arc<Self> {
        Arc::new(Self { inner: MemoryStore::new(), asked: Mutex::default(), hold: Mutex::default() })
    }

    fn questions(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    async fn held(&self, what: &'static str) {
        self.asked.lock().unwrap().push(what);
        let hold = self.hold.lock().unwrap().take();
        if let Some(hold) = hold {
            hold.notified().await;
        }
    }
}

#[async_trait]
impl Store for Watched {
    async fn get(&self, kind: Kind, id: &str) -> Result<Option<Row>, StoreError> {
        let row = self.inner.get(kind, id).await;
        self.held("get").await;
        row
    }
    async fn list(&self, kind: Kind) -> Result<Vec<Row>, StoreError> {
        let rows = self.inner.list(kind).await;
        self.held("list").await;
        rows
    }
    async fn list_run(&self, kind: Kind, run: &str) -> Result<Vec<Row>, StoreError> {
        self.inner.list_run(kind, run).await
    }
    async fn commit(&self, changes: Changeset) -> Result<Commit, StoreError> {
        self.inner.commit(changes).await
    }
    fn changed_since(&self, mark: u64) -> Changed {
        self.inner.changed_since(mark)
    }
    async fn locate(&self, digests: &[[u8; 32]]) -> Result<Vec<Option<ChunkPut>>, StoreError> {
        self.inner.locate(digests).await
    }
    async fn journal(
        &self,
        after: u64,
        limit: usize,
        run: Option<&str>,
    ) -> Result<Vec<JournalRow>, StoreError> {
        self.inner.journal(after, limit, run).await
    }
    async fn verify_journal(&self) -> Result<JournalCheck, StoreError> {
        self.inner.verify_journal().await
    }
    async fn backup(&self, path: &Path) -> Result<(), StoreError> {
        self.inner.backup(path).await
    }
}

async fn one(kept: &Kept, store: &Watched, n: u8) -> Option<u64> {
    let row = kept.one::<BoundKey>(store, &key(n, 0).key()).await.unwrap();
    row.map(|row| row.body.incarnation)
}

/// In the order of their values: that of ids is the store's business.
async fn every(kept: &Kept, store: &Watched) -> Vec<u64> {
    let rows = kept.every::<BoundKey>(store).await.unwrap();
    let mut all: Vec<u64> = rows.iter().map(|row| row.body.incarnation).collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn a_row_is_read_once_and_again_when_it_changed() {
    let (store, kept) = (Watched::new(), Kept::default());
    store.commit(put(1, 10)).await.unwrap();
    assert_eq!((one(&kept, &store, 1).await, one(&kept, &store, 1).await), (Some(10), Some(10)));
    assert_eq!(store.questions(), ["get"]);
    store.commit(put(1, 11)).await.unwrap();
    assert_eq!(one(&kept, &store, 1).await, Some(11));
    let row = kept.one::<BoundKey>(&*store, &key(1, 0).key()).await.unwrap().unwrap();
    assert_eq!((row.version, row.own().version), (2, Some(2)), "it can be written back");
    store.commit(gone(1)).await.unwrap();
    assert_eq!(one(&kept, &store, 1).await, None);
}

#[tokio::test]
async fn where_all_are_known_only_what_changed_is_read() {
    let (store, kept) = (Watched::new(), Kept::default());
    for n in 1..=9 {
        store.commit(put(n, u64::from(n))).await.unwrap();
    }
    assert_eq!(every(&kept, &store).await, (1..=9).collect::<Vec<u64>>());
    assert_eq!(store.questions(), ["list"]);
    assert_eq!((every(&kept, &store).await.len(), one(&kept, &store, 77).await), (9, None));
    assert!(store.questions().is_empty(), "also that there is none is known");
    store.commit(put(4, 40)).await.unwrap();
    store.commit(gone(9)).await.unwrap();
    store.commit(put(10, 100)).await.unwrap();
    assert_eq!(every(&kept, &store).await, [1, 2, 3, 5, 6, 7, 8, 40, 100]);
    assert_eq!(store.questions(), ["get", "get", "get"]);
    assert_eq!((one(&kept, &store, 10).await, one(&kept, &store, 9).await), (Some(100), None));
    assert!(store.questions().is_empty());
    let many = (1..=200).flat_map(|n| put(n, 7).put).collect::<Vec<PutRow>>();
    store.commit(Changeset { put: many, ..Changeset::default() }).await.unwrap();
    assert_eq!(every(&kept, &store).await, vec![7; 200]);
    assert_eq!(store.questions(), ["list"]);
}

/// A row that is read while it changes is told as it was, and is not kept.
#[tokio::test]
async fn what_changes_while_it_is_read_is_not_kept() {
    for all in [false, true] {
        let (store, kept) = (Watched::new(), Arc::new(Kept::default()));
        store.commit(put(1, 10)).await.unwrap();
        store.commit(put(2, 20)).await.unwrap();
        let gate = Arc::new(Notify::new());
        *store.hold.lock().unwrap() = Some(gate.clone());
        let reading = async {
            if all { every(&kept, &store).await } else { vec![one(&kept, &store, 1).await.unwrap()] }
        };
        let changing = async {
            while store.asked.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            store.commit(put(1, 11)).await.unwrap();
            // Another reader comes between and takes the news.
            assert_eq!(one(&kept, &store, 2).await, Some(20));
            gate.notify_one();
        };
        let (read, ()) = tokio::join!(reading, changing);
        assert_eq!(read[0], 10);
        assert_eq!((one(&kept, &store, 1).await, every(&kept, &store).await), (Some(11), vec![11, 20]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written and asked in whatever order: the answer is the store's.
    #[test]
    fn answers_are_those_of_the_store(steps in proptest::collection::vec((0u8..90, 1u8..6, any::<u64>()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, kept) = (Watched::new(), Kept::default());
            for (what, n, incarnation) in steps {
                match what {
                    0..20 => { store.commit(put(n, incarnation)).await.unwrap(); }
                    20..35 => { store.commit(gone(n)).await.unwrap(); }
                    35 => {
                        // More than is remembered of changes.
                        let many = (0..17_000).flat_map(|_| put(n, incarnation).put).collect();
                        store.commit(Changeset { put: many, ..Changeset::default() }).await.unwrap();
                    }
                    36..65 => {
                        let row = store.inner.get(BoundKey::KIND, &key(n, 0).key()).await.unwrap();
                        let held = kept.one::<BoundKey>(&*store, &key(n, 0).key()).await.unwrap();
                        assert_eq!(row.map(|row| row.version), held.map(|row| row.version));
                    }
                    _ => {
                        let rows = store.inner.list(BoundKey::KIND).await.unwrap();
                        let held = kept.every::<BoundKey>(&*store).await.unwrap();
                        let told: Vec<_> = held.iter().map(|row| (row.body.key(), row.version)).collect();
                        assert_eq!(rows.iter().map(|row| (row.id.clone(), row.version)).collect::<Vec<_>>(), told);
                    }
                }
            }
        });
    }
}
