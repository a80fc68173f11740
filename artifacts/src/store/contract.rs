//! What every store must do, as one suite that runs over each of them. It
//! wants an empty store and panics at the first breach.

use super::{Put, Store, StoreError};
use crate::key::ObjectKey;

fn key(text: &str) -> ObjectKey {
    text.parse().expect("the suite's own keys are well formed")
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let keys = store.list(prefix).await.expect("list a good prefix");
    keys.iter().map(ToString::to_string).collect()
}

/// Runs the whole suite.
pub async fn contract(store: &dyn Store) {
    one_winner(store).await;
    contract_of_one_writer(store).await;
}

/// The suite for a store that is told to create only, and does not see that two
/// create at the same instant: all but the race.
pub async fn contract_of_one_writer(store: &dyn Store) {
    // There already, where writers have raced for it.
    let raced = store.put_if_absent(&key("run/g0000000000000001/m00000001"), b"alone").await;
    assert!(matches!(raced, Ok(Put::Created | Put::Different)), "{raced:?}");
    written_once(store).await;
    exact_ranges(store).await;
    prefixes(store).await;
    deletes(store).await;
}

async fn written_once(store: &dyn Store) {
    let key = key("run/g0000000000000001/p00000001");
    assert_eq!(store.size(&key).await.expect("size"), None);
    assert_eq!(store.put_if_absent(&key, b"first").await.expect("put"), Put::Created);
    assert_eq!(store.put_if_absent(&key, b"first").await.expect("put"), Put::Same);
    assert_eq!(store.put_if_absent(&key, b"other").await.expect("put"), Put::Different);
    assert_eq!(store.put_if_absent(&key, b"first, longer").await.expect("put"), Put::Different);
    assert_eq!(store.put_if_absent(&key, b"").await.expect("put"), Put::Different);
    assert_eq!(store.get(&key, 0, 5).await.expect("get"), b"first");
}

async fn exact_ranges(store: &dyn Store) {
    let large = key("run/g0000000000000001/p00000002");
    let bytes: Vec<u8> = (0..9_u32 << 20).map(|i| (i % 251) as u8).collect();
    assert_eq!(store.put_if_absent(&large, &bytes).await.expect("put 9 MiB"), Put::Created);
    assert_eq!(store.size(&large).await.expect("size"), Some(bytes.len() as u64));
    let (offset, len) = (3_000_001_usize, 4_000_003_usize);
    let got = store.get(&large, offset as u64, len as u64).await.expect("get a range");
    assert!(got == bytes[offset..offset + len], "a range came back changed");
    let end = bytes.len() as u64;
    assert!(store.get(&large, end, 0).await.expect("get nothing").is_empty());
    for (offset, len) in [(end - 1, 2), (end + 1, 0), (0, u64::MAX), (u64::MAX, 1)] {
        let got = store.get(&large, offset, len).await;
        assert!(
            matches!(got, Err(StoreError::OutOfRange { size, .. }) if size == end),
            "{offset}+{len}: {got:?}"
        );
    }
    let missing = key("run/g0000000000000001/p99999999");
    assert!(matches!(store.get(&missing, 0, 0).await, Err(StoreError::Missing(named)) if named == missing));
    let empty = key("run/g0000000000000001/p00000003");
    assert_eq!(store.put_if_absent(&empty, b"").await.expect("put nothing"), Put::Created);
    assert_eq!(store.size(&empty).await.expect("size"), Some(0));
}

async fn one_winner(store: &dyn Store) {
    let key = key("run/g0000000000000001/m00000001");
    let (a, b, c, d) = tokio::join!(
        store.put_if_absent(&key, b"a"),
        store.put_if_absent(&key, b"b"),
        store.put_if_absent(&key, b"c"),
        store.put_if_absent(&key, b"d"),
    );
    let puts = [a, b, c, d].map(|put| put.expect("put"));
    let won: Vec<usize> = (0..4).filter(|&i| puts[i] == Put::Created).collect();
    assert_eq!(won.len(), 1, "{puts:?}");
    assert!(puts.iter().filter(|put| **put == Put::Different).count() == 3, "{puts:?}");
    assert_eq!(store.get(&key, 0, 1).await.expect("get"), [b"abcd"[won[0]]]);
}

async fn prefixes(store: &dyn Store) {
    for text in ["run/g0000000000000002/p00000001", "run-2/x", "other"] {
        store.put_if_absent(&key(text), b"x").await.expect("put");
    }
    assert_eq!(
        keys(store, "run/g0000000000000001/").await,
        ["m00000001", "p00000001", "p00000002", "p00000003"].map(|l| format!("run/g0000000000000001/{l}"))
    );
    assert_eq!(keys(store, "run/g0000000000000001/m").await, ["run/g0000000000000001/m00000001"]);
    assert_eq!(keys(store, "run/").await.len(), 5);
    assert_eq!(keys(store, "run").await.len(), 6);
    let all = keys(store, "").await;
    assert_eq!(all.len(), 7, "{all:?}");
    assert!(all.is_sorted());
    assert!(keys(store, "nothing/here/").await.is_empty());
    for bad in ["../", "run/../", "/", "a//", "run/.."] {
        assert!(matches!(store.list(bad).await, Err(StoreError::BadPrefix(_))), "{bad}");
    }
}

async fn deletes(store: &dyn Store) {
    let key = key("other");
    assert!(store.delete(&key).await.expect("delete"));
    assert!(!store.delete(&key).await.expect("delete again"));
    assert_eq!(store.size(&key).await.expect("size"), None);
    assert_eq!(store.put_if_absent(&key, b"anew").await.expect("put"), Put::Created);
    assert_eq!(store.get(&key, 0, 4).await.expect("get"), b"anew");
}
