//! What every store must do, as one suite that runs over each of them.

use serde_json::json;

use super::{Changeset, ChunkPut, Commit, Expect, JournalEntry, Kind, PutRow, Store};

/// A way to make an empty store.
pub type Open<'a> = &'a (dyn Fn() -> Box<dyn Store> + Sync);

/// Runs the whole suite; panics where the store breaks the contract.
pub async fn run(open: Open<'_>) {
    compare_and_set(&*open()).await;
    conflict_leaves_nothing(&*open()).await;
    listing(&*open()).await;
    chunks(&*open()).await;
    journal(&*open()).await;
    races_have_one_winner(&*open()).await;
    numbers_that_do_not_fit_are_refused(&*open()).await;
}

/// A row to put, with a body that names it.
#[must_use]
pub fn put(kind: Kind, id: &str, run: Option<&str>) -> PutRow {
    PutRow { kind, id: id.into(), run: run.map(Into::into), body: json!({ "id": id }).to_string() }
}

/// A changeset of so many journal entries, every second one of run `r`.
#[must_use]
pub fn entries(count: u64) -> Changeset {
    let entry = |n: u64| JournalEntry {
        at_ms: 1_000 + n,
        actor: "tester".into(),
        verb: "tried".into(),
        object: format!("object-{n}"),
        run: (n % 2 == 1).then(|| "r".into()),
        detail: json!({ "n": n, "text": "\"quoted\" \u{fc}", "rate": 0.1 }),
    };
    Changeset { journal: (0..count).map(entry).collect(), ..Changeset::default() }
}

fn expect(kind: Kind, id: &str, version: Option<u64>) -> Expect {
    Expect { kind, id: id.into(), version }
}

async fn done(store: &dyn Store, changes: Changeset) -> u64 {
    match store.commit(changes).await.expect("a store that works") {
        Commit::Committed { journal_seq } => journal_seq,
        conflict @ Commit::Conflict { .. } => panic!("unexpected {conflict:?}"),
    }
}

async fn version(store: &dyn Store, kind: Kind, id: &str) -> Option<u64> {
    store.get(kind, id).await.expect("a store that works").map(|row| row.version)
}

async fn compare_and_set(store: &dyn Store) {
    assert_eq!(store.get(Kind::Run, "a").await.expect("get"), None);
    let create = Changeset {
        expect: vec![expect(Kind::Run, "a", None)],
        put: vec![put(Kind::Run, "a", Some("a"))],
        ..Changeset::default()
    };
    assert_eq!(done(store, create.clone()).await, 0, "no journal entry was written");
    let row = store.get(Kind::Run, "a").await.expect("get").expect("it was put");
    assert_eq!((row.version, row.run.as_deref(), row.body.as_str()), (1, Some("a"), r#"{"id":"a"}"#));
    assert_eq!(version(store, Kind::Attempt, "a").await, None, "kinds are apart");
    let conflict = Commit::Conflict { kind: Kind::Run, id: "a".into(), found: Some(1) };
    assert_eq!(store.commit(create).await.expect("commit"), conflict);
    let update = Changeset {
        expect: vec![expect(Kind::Run, "a", Some(1))],
        put: vec![put(Kind::Run, "a", None)],
        ..Changeset::default()
    };
    done(store, update.clone()).await;
    let row = store.get(Kind::Run, "a").await.expect("get").expect("it was put");
    assert_eq!((row.version, row.run), (2, None));
    let conflict = Commit::Conflict { kind: Kind::Run, id: "a".into(), found: Some(2) };
    assert_eq!(store.commit(update).await.expect("commit"), conflict);
    done(store, Changeset { put: vec![put(Kind::Run, "a", None)], ..Changeset::default() }).await;
    assert_eq!(version(store, Kind::Run, "a").await, Some(3), "a put without expectation counts too");
    let gone = Changeset { delete: vec![(Kind::Run, "a".into())], ..Changeset::default() };
    done(store, gone.clone()).await;
    done(store, gone).await;
    assert_eq!(version(store, Kind::Run, "a").await, None);
    let missing = Changeset { expect: vec![expect(Kind::Run, "a", Some(3))], ..Changeset::default() };
    let conflict = Commit::Conflict { kind: Kind::Run, id: "a".into(), found: None };
    assert_eq!(store.commit(missing).await.expect("commit"), conflict);
}

async fn conflict_leaves_nothing(store: &dyn Store) {
    done(store, Changeset { put: vec![put(Kind::Machine, "kept", None)], ..entries(1) }).await;
    let changes = Changeset {
        expect: vec![expect(Kind::Machine, "kept", Some(1)), expect(Kind::Machine, "other", Some(1))],
        put: vec![put(Kind::Machine, "new", None), put(Kind::Machine, "kept", None)],
        delete: vec![(Kind::Machine, "kept".into())],
        chunks: vec![ChunkPut {
            digest: [9; 32],
            pack: "p".into(),
            offset: 0,
            len: 1,
            stored: 1,
            codec: 0,
            cipher: None,
        }],
        ..entries(2)
    };
    let conflict = Commit::Conflict { kind: Kind::Machine, id: "other".into(), found: None };
    assert_eq!(store.commit(changes).await.expect("commit"), conflict);
    assert_eq!(version(store, Kind::Machine, "new").await, None);
    assert_eq!(version(store, Kind::Machine, "kept").await, Some(1));
    assert_eq!(store.locate(&[[9; 32]]).await.expect("locate"), vec![None]);
    assert_eq!(store.journal(0, 10, None).await.expect("journal").len(), 1);
}

async fn listing(store: &dyn Store) {
    let rows = Kind::ALL.iter().map(|kind| put(*kind, "x", Some("r"))).collect();
    done(store, Changeset { put: rows, ..Changeset::default() }).await;
    let rows = vec![
        put(Kind::Attempt, "c", Some("r")),
        put(Kind::Attempt, "a", Some("other")),
        put(Kind::Attempt, "b", Some("r")),
        put(Kind::Attempt, "d", None),
    ];
    done(store, Changeset { put: rows, ..Changeset::default() }).await;
    let ids = |rows: Vec<super::Row>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(store.list(Kind::Attempt).await.expect("list")), ["a", "b", "c", "d", "x"]);
    assert_eq!(ids(store.list_run(Kind::Attempt, "r").await.expect("list")), ["b", "c", "x"]);
    assert_eq!(ids(store.list_run(Kind::Series, "r").await.expect("list")), ["x"]);
    assert!(store.list_run(Kind::Attempt, "none").await.expect("list").is_empty());
}

async fn chunks(store: &dyn Store) {
    let chunk = |n: u8, pack: &str| ChunkPut {
        digest: [n; 32],
        pack: pack.into(),
        offset: u64::from(n) << 40,
        len: u32::MAX,
        stored: u32::from(n),
        codec: 255 - n,
        cipher: (n == 2).then_some([n; 32]),
    };
    done(store, Changeset { chunks: vec![chunk(1, "one"), chunk(2, "two")], ..Changeset::default() }).await;
    done(store, Changeset { chunks: vec![chunk(1, "later"), chunk(3, "x")], ..Changeset::default() }).await;
    let found = store.locate(&[[3; 32], [7; 32], [1; 32]]).await.expect("locate");
    assert_eq!(found, vec![Some(chunk(3, "x")), None, Some(chunk(1, "one"))], "the first position stays");
    assert!(store.locate(&[]).await.expect("locate").is_empty());
    let forget_packs = vec!["one".into(), "none".into()];
    let again = vec![chunk(1, "again")];
    done(store, Changeset { forget_packs, chunks: again, ..Changeset::default() }).await;
    let found = store.locate(&[[1; 32], [2; 32], [3; 32]]).await.expect("locate");
    assert_eq!(found, vec![Some(chunk(1, "again")), Some(chunk(2, "two")), Some(chunk(3, "x"))]);
}

async fn journal(store: &dyn Store) {
    let empty = store.verify_journal().await.expect("verify");
    assert_eq!((empty.rows, empty.first_bad), (0, None));
    assert_eq!(done(store, entries(4)).await, 4);
    assert_eq!(done(store, entries(3)).await, 7);
    assert_eq!(done(store, Changeset::default()).await, 7);
    let rows = store.journal(0, 100, None).await.expect("journal");
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(rows[0].prev_hash, "0".repeat(64));
    assert!(rows.windows(2).all(|pair| pair[1].prev_hash == pair[0].hash), "each names the one before");
    let sent = &entries(4).journal[1];
    assert_eq!((&rows[1].detail, &rows[1].object, &rows[1].run), (&sent.detail, &sent.object, &sent.run));
    assert_eq!((rows[1].at_ms, &rows[1].actor, &rows[1].verb), (sent.at_ms, &sent.actor, &sent.verb));
    let page = store.journal(2, 2, None).await.expect("journal");
    assert_eq!(page.iter().map(|row| row.seq).collect::<Vec<_>>(), [3, 4]);
    let of_run = store.journal(2, 10, Some("r")).await.expect("journal");
    assert_eq!(of_run.iter().map(|row| row.seq).collect::<Vec<_>>(), [4, 6]);
    let check = store.verify_journal().await.expect("verify");
    assert_eq!((check.rows, check.first_bad, check.head), (7, None, rows[6].hash.clone()));
}

async fn races_have_one_winner(store: &dyn Store) {
    let claim = || {
        let changes = Changeset {
            expect: vec![expect(Kind::Join, "token", None)],
            put: vec![put(Kind::Join, "token", None)],
            ..entries(1)
        };
        store.commit(changes)
    };
    let (a, b, c, d) = tokio::join!(claim(), claim(), claim(), claim());
    let won = [a, b, c, d].into_iter().map(|result| result.expect("commit"));
    assert_eq!(won.filter(|commit| matches!(commit, Commit::Committed { .. })).count(), 1);
    assert_eq!(store.journal(0, 10, None).await.expect("journal").len(), 1);
}

async fn numbers_that_do_not_fit_are_refused(store: &dyn Store) {
    let huge = ChunkPut {
        digest: [1; 32],
        pack: "p".into(),
        offset: u64::MAX,
        len: 1,
        stored: 1,
        codec: 0,
        cipher: None,
    };
    let changes = Changeset { chunks: vec![huge], put: vec![put(Kind::Meta, "m", None)], ..entries(1) };
    assert!(store.commit(changes).await.is_err());
    assert_eq!(version(store, Kind::Meta, "m").await, None);
}
