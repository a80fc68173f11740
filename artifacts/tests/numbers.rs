//! Keys are written once: a number is used up by a put of which nobody knows
//! what became, since it may arrive yet.

use artifacts::index::MemoryIndex;
use artifacts::publish::{About, PublishError};
use artifacts::store::MemoryStore;
use artifacts::store::memory::Fault;
use artifacts::{KeySpace, Kind, ObjectKey, Published, Store, publish_bytes};

async fn save(
    text: &str,
    keys: &mut KeySpace,
    store: &MemoryStore,
    index: &MemoryIndex,
) -> Result<Published, PublishError> {
    let about = About {
        kind: Kind::Checkpoint,
        step: Some(1),
        name: "step-1".into(),
        single_file: false,
        created_ms: 1,
    };
    let files = [("weights".to_owned(), text.as_bytes().to_vec())];
    publish_bytes(&files, &about, keys, store, index).await
}

#[tokio::test]
async fn a_number_is_used_up_by_a_put_of_unknown_outcome() {
    let (store, index) = (MemoryStore::default(), MemoryIndex::default());
    let mut keys = KeySpace { scope: "run".into(), generation: 1, pack_seq: 1, manifest_seq: 1 };
    store.fail_puts(0, 1, Fault::AnswerLost);
    save("one", &mut keys, &store, &index).await.expect_err("the pack's answer is lost");
    assert_eq!((keys.pack_seq, keys.manifest_seq), (2, 1));
    store.fail_puts(1, 1, Fault::AnswerLost);
    save("two", &mut keys, &store, &index).await.expect_err("the manifest's answer is lost");
    assert_eq!((keys.pack_seq, keys.manifest_seq), (3, 2));
    let saved = save("three", &mut keys, &store, &index).await.expect("saved");
    assert_eq!(saved.manifest_key, ObjectKey::manifest("run", 1, 2).expect("a key"));
    assert_eq!(saved.manifest.packs().into_iter().next(), Some(ObjectKey::pack("run", 1, 3).expect("a key")));
    // What was sent before is as it was sent.
    let first = ObjectKey::pack("run", 1, 1).expect("a key");
    assert!(store.size(&first).await.expect("size").is_some());
}
