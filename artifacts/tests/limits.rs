//! What is too large says so before anything is sent, and what is large needs
//! no more room than what is small.

use std::fs;

use artifacts::index::MemoryIndex;
use artifacts::manifest::ManifestError;
use artifacts::publish::PublishError;
use artifacts::store::MemoryStore;
use artifacts::{KeySpace, Selection, Store, publish};

fn keys() -> KeySpace {
    KeySpace { scope: "run".into(), generation: 1, pack_seq: 0, manifest_seq: 0 }
}

#[tokio::test]
async fn a_tree_that_no_manifest_can_hold_is_refused_before_a_byte_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("step-7");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), b"comes first").unwrap();
    // A hole, of chunks as large as they come: nothing is read of it, or this
    // would take hours.
    fs::File::create(root.join("b")).unwrap().set_len(4 << 40).unwrap();
    let (store, selection) = (MemoryStore::default(), Selection::checkpoint(&root, Some(7), 1).unwrap());
    let outcome = publish(&selection, &mut keys(), &store, &MemoryIndex::default()).await;
    assert!(matches!(outcome, Err(PublishError::Manifest(ManifestError::TooLarge(_)))), "{outcome:?}");
    assert!(store.list("").await.unwrap().is_empty());
}
