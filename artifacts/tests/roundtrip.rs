//! Trees go into a store and come back as they were, or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use artifacts::index::MemoryIndex;
use artifacts::manifest::{Entry, Node};
use artifacts::publish::{About, PublishError};
use artifacts::restore::{RestoreError, load_manifest, read_tree, restore, restore_over, verify};
use artifacts::store::memory::Fault;
use artifacts::store::{FsStore, MemoryStore};
use artifacts::{
    ChunkIndex, Digest, KeySpace, Kind, Location, Manifest, ObjectKey, Published, Put, Selection, Store,
    StoreError, publish, publish_bytes, publish_if,
};
use proptest::prelude::*;

fn keys() -> KeySpace {
    KeySpace { scope: "run".into(), generation: 1, pack_seq: 0, manifest_seq: 0 }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn whole(path: &Path) -> Selection {
    Selection::checkpoint(path, Some(7), 5).unwrap()
}

async fn put(path: &Path, store: &dyn Store) -> Published {
    publish(&whole(path), &mut keys(), store, &MemoryIndex::default()).await.unwrap()
}

/// Paths, modes, content and links of a tree.
fn picture(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut out = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if meta.is_dir() {
                open.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            let mode = if meta.is_symlink() { 0 } else { meta.mode() & 0o777 };
            out.insert(path.strip_prefix(root).unwrap().display().to_string(), (mode, content));
        }
    }
    out
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn sample(root: &Path) {
    fs::create_dir_all(root.join("sub/empty")).unwrap();
    fs::write(root.join("model.bin"), noise(1, 3_000_000)).unwrap();
    fs::write(root.join("copy.bin"), noise(1, 3_000_000)).unwrap();
    fs::write(root.join("sub/run.sh"), b"#!/bin/sh\n").unwrap();
    fs::write(root.join("sub/none"), b"").unwrap();
    fs::set_permissions(root.join("sub/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("sub/empty"), fs::Permissions::from_mode(0o500)).unwrap();
    symlink("../model.bin", root.join("sub/link")).unwrap();
}

#[tokio::test]
async fn a_tree_comes_back_as_it_was_over_both_stores() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("checkpoint-7");
    sample(&root);
    let on_disk = FsStore::open(dir.path().join("store")).unwrap();
    let in_memory = MemoryStore::default();
    for (number, store) in [&on_disk as &dyn Store, &in_memory].into_iter().enumerate() {
        let published = put(&root, store).await;
        assert_eq!(published.total_bytes, 6_000_010);
        assert_eq!(published.new_bytes, 3_000_010, "the copy travels once");
        let manifest =
            load_manifest(store, &published.manifest_key, Some(published.manifest_digest)).await.unwrap();
        assert_eq!(manifest, published.manifest);
        assert_eq!(
            (manifest.step, manifest.name.as_str(), manifest.kind),
            (Some(7), "checkpoint-7", Kind::Checkpoint)
        );
        let verified = verify(store, &manifest).await.unwrap();
        assert_eq!(verified.chunks, published.new_chunks);
        let dest = dir.path().join(format!("back-{number}/deep"));
        let restored = restore(store, &manifest, &dest).await.unwrap();
        assert_eq!((restored.files, restored.bytes), (4, 6_000_010));
        assert_eq!(restored.content_digest, published.content_digest);
        assert_eq!(picture(&dest), picture(&root));
        let time = |root: &Path| root.join("model.bin").metadata().unwrap().mtime_nsec() / 1_000_000;
        assert_eq!(time(&dest), time(&root));
        assert_eq!(names(dest.parent().unwrap()), ["deep"], "no scratch is left");
        let again = put(&dest, &MemoryStore::default()).await;
        assert_eq!(again.content_digest, published.content_digest);
    }
}

#[tokio::test]
async fn a_single_file_comes_back_as_that_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("step-7.pt");
    fs::write(&path, noise(2, 500_000)).unwrap();
    let store = MemoryStore::default();
    let published = put(&path, &store).await;
    assert!(published.manifest.single_file);
    let dest = dir.path().join("out/resume.pt");
    restore(&store, &published.manifest, &dest).await.unwrap();
    assert_eq!(fs::read(&dest).unwrap(), fs::read(&path).unwrap());
    assert_eq!(names(dest.parent().unwrap()), ["resume.pt"]);
    let taken = restore(&store, &published.manifest, &dest).await;
    assert!(matches!(taken, Err(RestoreError::Exists { .. })), "{taken:?}");
}

#[tokio::test]
async fn what_is_known_does_not_travel_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    sample(&root);
    let (store, index, mut keys) = (MemoryStore::default(), MemoryIndex::default(), keys());
    let first = publish(&whole(&root), &mut keys, &store, &index).await.unwrap();
    assert_eq!((keys.pack_seq, keys.manifest_seq), (1, 1));
    index.add(&first.manifest);
    let second = publish(&whole(&root), &mut keys, &store, &index).await.unwrap();
    assert_eq!((second.new_bytes, second.new_chunks, keys.pack_seq), (0, 0, 1));
    assert_eq!(second.content_digest, first.content_digest);
    assert_ne!(second.manifest_key, first.manifest_key);
    let mut grown = fs::read(root.join("model.bin")).unwrap();
    grown.splice(1_500_000..1_500_000, *b"inserted");
    fs::write(root.join("model.bin"), grown).unwrap();
    let third = publish(&whole(&root), &mut keys, &store, &index).await.unwrap();
    assert!((1..1_500_000).contains(&third.new_bytes), "{}", third.new_bytes);
    assert_eq!(third.manifest.packs().len(), 2);
    verify(&store, &third.manifest).await.unwrap();
}

#[tokio::test]
async fn damage_is_corrupt_and_the_destination_does_not_appear() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    sample(&root);
    let store = MemoryStore::default();
    let published = put(&root, &store).await;
    let pack = published.manifest.packs()[0].clone();
    assert!(store.flip(&pack, 2_000_000));
    let dest = dir.path().join("back");
    let before = names(dir.path());
    for outcome in [
        verify(&store, &published.manifest).await.map(drop),
        restore(&store, &published.manifest, &dest).await.map(drop),
    ] {
        assert!(matches!(&outcome, Err(RestoreError::Corrupt { key, .. }) if *key == pack), "{outcome:?}");
    }
    assert_eq!(names(dir.path()), before);
    store.flip(&pack, 2_000_000);
    store.fail_gets(0, 1, Fault::Remote);
    let hiccup = restore(&store, &published.manifest, &dest).await;
    assert!(matches!(hiccup, Err(RestoreError::Remote(_))), "{hiccup:?}");
    assert!(!dest.exists(), "what came is kept beside it");
    restore(&store, &published.manifest, &dest).await.unwrap();
    assert_eq!(names(dir.path()), ["back", "tree"]);
    store.truncate(&pack, 2_000_000);
    assert!(matches!(verify(&store, &published.manifest).await, Err(RestoreError::Corrupt { .. })));
    store.delete(&pack).await.unwrap();
    assert!(
        matches!(verify(&store, &published.manifest).await, Err(RestoreError::Missing { key }) if key == pack)
    );
    store.flip(&published.manifest_key, 20);
    let load = |expect| load_manifest(&store, &published.manifest_key, expect);
    assert!(matches!(load(Some(published.manifest_digest)).await, Err(RestoreError::Corrupt { .. })));
    store.delete(&published.manifest_key).await.unwrap();
    assert!(matches!(load(None).await, Err(RestoreError::Missing { .. })));
}

/// An index that lets the test act in the middle of a publish.
struct Meanwhile<F>(F);

#[async_trait::async_trait]
impl<F: Fn() + Send + Sync> ChunkIndex for Meanwhile<F> {
    async fn locate(&self, digests: &[Digest]) -> Result<Vec<Option<Location>>, StoreError> {
        (self.0)();
        Ok(vec![None; digests.len()])
    }
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_is_never_published() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 6] = [
        ("rewritten", |root| fs::write(root.join("a.pt"), noise(9, 6_000_000)).unwrap()),
        ("truncated", |root| fs::write(root.join("b.pt"), b"").unwrap()),
        ("grown", |root| fs::write(root.join("b.pt"), noise(3, 6_000_001)).unwrap()),
        ("removed", |root| fs::remove_file(root.join("a.pt")).unwrap_or_default()),
        ("replaced", |root| {
            fs::write(root.join("new"), noise(1, 6_000_000)).unwrap();
            fs::rename(root.join("new"), root.join("a.pt")).unwrap();
        }),
        ("joined", |root| fs::write(root.join("c.pt"), b"another").unwrap()),
    ];
    for (name, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("step-7");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a.pt"), noise(1, 6_000_000)).unwrap();
        fs::write(root.join("b.pt"), noise(2, 6_000_000)).unwrap();
        let store = MemoryStore::default();
        let (selection, mut keys) = (whole(&root), keys());
        let index = Meanwhile(|| change(&root));
        let outcome = publish(&selection, &mut keys, &store, &index).await;
        assert!(matches!(outcome, Err(PublishError::Changed { .. })), "{name}: {outcome:?}");
        assert!(store.list("run/g0000000000000001/m").await.unwrap().is_empty(), "{name}");
        let retried = publish(&whole(&root), &mut keys, &store, &MemoryIndex::default()).await.unwrap();
        verify(&store, &retried.manifest).await.unwrap();
    }
}

#[tokio::test]
async fn what_no_longer_holds_at_the_end_leaves_no_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("step-7");
    sample(&root);
    let store = MemoryStore::default();
    let mut keys = keys();
    let index = MemoryIndex::default();
    for holds in [false, true] {
        let (seen, at_the_end) = (store.clone(), Arc::new(AtomicU64::new(u64::MAX)));
        let asked = at_the_end.clone();
        let still = move || {
            asked.store(seen.total_bytes(), Ordering::Relaxed);
            holds
        };
        let outcome = publish_if(&whole(&root), &mut keys, &store, &index, still).await;
        let asked = at_the_end.load(Ordering::Relaxed);
        let manifests = store.list("run/g0000000000000001/m").await.unwrap();
        if holds {
            let manifest = outcome.unwrap().manifest.to_bytes();
            assert_eq!(asked + manifest.len() as u64, store.total_bytes(), "the manifest alone is put later");
            assert_eq!(manifests, [ObjectKey::manifest("run", 1, 0).unwrap()], "no number was used before");
        } else {
            assert!(matches!(outcome, Err(PublishError::Withdrawn)), "{outcome:?}");
            assert!(asked > 3_000_000 && asked == store.total_bytes(), "{asked}");
            assert!(manifests.is_empty());
        }
    }
    // What changed needs nobody's opinion.
    fs::write(root.join("copy.bin"), b"other").unwrap();
    let changes = whole(&root);
    fs::remove_file(root.join("copy.bin")).unwrap();
    let outcome = publish_if(&changes, &mut keys, &store, &index, || panic!("asked of a torn tree")).await;
    assert!(matches!(outcome, Err(PublishError::Changed { .. })), "{outcome:?}");
}

#[tokio::test]
async fn taken_numbers_are_skipped_and_never_overwritten() {
    let store = MemoryStore::default();
    let pack = ObjectKey::pack("run", 1, 0).unwrap();
    store.put_if_absent(&pack, b"of another").await.unwrap();
    let manifest = ObjectKey::manifest("run", 1, 0).unwrap();
    store.put_if_absent(&manifest, b"of another").await.unwrap();
    let files = [("a".to_owned(), noise(1, 10)), ("b/c".to_owned(), noise(2, 9_000_000))];
    let about =
        About { kind: Kind::Outputs, step: None, name: String::new(), single_file: false, created_ms: 3 };
    let mut keys = keys();
    let index = MemoryIndex::default();
    let first = publish_bytes(&files, &about, &mut keys, &store, &index).await;
    assert!(matches!(first, Err(PublishError::ManifestTaken { key }) if key == manifest));
    let second = publish_bytes(&files, &about, &mut keys, &store, &index).await.unwrap();
    assert_eq!(second.manifest_key, ObjectKey::manifest("run", 1, 1).unwrap());
    assert_eq!(store.get(&pack, 0, 10).await.unwrap(), b"of another");
    assert_eq!(read_tree(&store, &second.manifest, 10_000_000).await.unwrap(), files);
    let small = read_tree(&store, &second.manifest, 9_000_009).await;
    assert!(matches!(small, Err(RestoreError::TooLarge { .. })));
    assert!(second.manifest.packs().len() >= 2, "a pack has 8 MiB at most");
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_is_the_same_when_repeated() {
    let store = MemoryStore::default();
    let files = [("a".to_owned(), noise(1, 100))];
    let about =
        About { kind: Kind::Source, step: None, name: String::new(), single_file: false, created_ms: 3 };
    for healthy in [0, 1] {
        let mut keys = KeySpace { generation: healthy as u64, ..keys() };
        store.fail_puts(healthy, 1, Fault::AnswerLost);
        let before = keys.clone();
        let lost = publish_bytes(&files, &about, &mut keys, &store, &MemoryIndex::default()).await;
        assert!(matches!(lost, Err(PublishError::Store(StoreError::Remote(_)))));
        let mut keys = before;
        let published =
            publish_bytes(&files, &about, &mut keys, &store, &MemoryIndex::default()).await.unwrap();
        verify(&store, &published.manifest).await.unwrap();
        assert_eq!((keys.pack_seq, keys.manifest_seq), (1, 1));
    }
}

#[tokio::test]
async fn what_cannot_travel_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    fs::create_dir(&root).unwrap();
    symlink("/etc/passwd", root.join("link")).unwrap();
    symlink(dir.path(), root.join("away")).unwrap();
    fs::write(dir.path().join("secret"), b"x").unwrap();
    let store = MemoryStore::default();
    for path in ["link", "away/secret", "../secret", "/etc/passwd", "gone"] {
        let mut selection = whole(&root);
        selection.paths = vec![path.into()];
        let outcome = publish(&selection, &mut keys(), &store, &MemoryIndex::default()).await;
        match path {
            "away/secret" => assert!(matches!(outcome, Err(PublishError::Unfit { .. })), "{outcome:?}"),
            "gone" => assert!(matches!(outcome, Err(PublishError::Changed { .. })), "{outcome:?}"),
            _ => assert!(matches!(outcome, Err(PublishError::Path(_))), "{path}: {outcome:?}"),
        }
    }
    assert_eq!(store.total_bytes(), 0);
}

#[tokio::test]
async fn restoring_over_replaces_files_and_leaves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::write(from.join("sub/a"), b"new").unwrap();
    fs::write(from.join("b"), b"").unwrap();
    symlink("sub/a", from.join("l")).unwrap();
    let store = MemoryStore::default();
    let manifest = put(&from, &store).await.manifest;
    fs::create_dir_all(to.join("sub")).unwrap();
    fs::write(to.join("sub/a"), b"old").unwrap();
    fs::write(to.join("sub/kept"), b"kept").unwrap();
    fs::write(dir.path().join("outside"), b"untouched").unwrap();
    symlink(dir.path().join("outside"), to.join("b")).unwrap();
    let old = fs::File::open(to.join("sub/a")).unwrap();
    for _ in 0..2 {
        restore_over(&store, &manifest, &to).await.unwrap();
        assert_eq!(fs::read(to.join("sub/a")).unwrap(), b"new");
        assert_eq!(fs::read(to.join("l")).unwrap(), b"new");
        assert!(to.join("b").symlink_metadata().unwrap().is_file());
        assert_eq!(fs::read(dir.path().join("outside")).unwrap(), b"untouched");
        assert_eq!(names(&to), ["b", "l", "sub"]);
        assert_eq!(names(&to.join("sub")), ["a", "kept"]);
    }
    assert_eq!(std::io::read_to_string(old).unwrap(), "old", "replaced, not overwritten");
}

#[tokio::test]
async fn restoring_over_never_leaves_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to, outside) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("outside"));
    for path in [&from.join("sub"), &to, &outside] {
        fs::create_dir_all(path).unwrap();
    }
    fs::write(from.join("sub/a"), b"new").unwrap();
    let store = MemoryStore::default();
    let published = put(&from, &store).await;
    symlink(&outside, to.join("sub")).unwrap();
    let outcome = restore_over(&store, &published.manifest, &to).await;
    assert!(matches!(outcome, Err(RestoreError::Blocked { .. })), "{outcome:?}");
    assert!(names(&outside).is_empty());
    fs::remove_file(to.join("sub")).unwrap();
    fs::create_dir_all(to.join("sub/a")).unwrap();
    let outcome = restore_over(&store, &published.manifest, &to).await;
    assert!(matches!(outcome, Err(RestoreError::Blocked { .. })), "{outcome:?}");
    assert_eq!(names(&to.join("sub")), ["a"], "no temporary file is left");
    fs::remove_dir(to.join("sub/a")).unwrap();
    store.flip(&published.manifest.packs()[0], 0);
    let outcome = restore_over(&store, &published.manifest, &to).await;
    assert!(matches!(outcome, Err(RestoreError::Corrupt { .. })), "{outcome:?}");
    assert!(names(&to.join("sub")).is_empty());
}

#[tokio::test]
async fn a_hostile_manifest_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::default();
    let published = {
        let root = dir.path().join("tree");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a"), b"x").unwrap();
        put(&root, &store).await
    };
    let before = names(dir.path());
    let file = published.manifest.entries[0].node.clone();
    let link = |target: &str| Node::Symlink { target: target.into() };
    for entries in [
        vec![("../evil", file.clone())],
        vec![("/tmp/evil", file.clone())],
        vec![("l", link(".."))],
        vec![("l", link("d")), ("l/evil", file.clone())],
        vec![("d/l", link("../x/../.."))],
    ] {
        let entries = entries.into_iter().map(|(path, node)| Entry { path: path.into(), node }).collect();
        let manifest = Manifest { entries, ..published.manifest.clone() };
        let dest = dir.path().join("back");
        assert!(matches!(restore(&store, &manifest, &dest).await, Err(RestoreError::Manifest(_))));
        assert!(matches!(restore_over(&store, &manifest, dir.path()).await, Err(RestoreError::Manifest(_))));
        let key = ObjectKey::manifest("run", 9, 1).unwrap();
        assert_eq!(store.put_if_absent(&key, &manifest.to_bytes()).await.unwrap(), Put::Created);
        assert!(matches!(load_manifest(&store, &key, None).await, Err(RestoreError::Corrupt { .. })));
        store.delete(&key).await.unwrap();
    }
    assert_eq!(names(dir.path()), before);
}

#[tokio::test]
async fn many_files_and_an_earlier_restore_that_died() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree");
    for number in 0..400_u64 {
        let path = root.join(format!("d{}/e{}/f{number}", number % 7, number % 3));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, noise(number, number as usize * 7)).unwrap();
    }
    let store = Arc::new(MemoryStore::default());
    let published = put(&root, store.as_ref()).await;
    let dest = dir.path().join("back");
    let (copy, manifest, place) = (Arc::clone(&store), published.manifest.clone(), dest.clone());
    store.fail_gets(0, 1, Fault::Remote);
    assert!(restore(copy.as_ref(), &manifest, &place).await.is_err());
    let tag = Digest::of(b"back").to_string();
    fs::create_dir(dir.path().join(format!(".tmp-outlast-{}-dead", &tag[..16]))).unwrap();
    restore(store.as_ref(), &published.manifest, &dest).await.unwrap();
    assert_eq!(picture(&dest), picture(&root));
    assert_eq!(names(dir.path()), ["back", "tree"]);
}

fn trees() -> impl Strategy<Value = BTreeMap<String, (u64, usize)>> {
    let size = prop_oneof![Just(0), 1_usize..300, 60_000_usize..400_000];
    proptest::collection::btree_map("[a-c]{1,2}(/[a-c]{1,2}){0,2}", (0_u64..4, size), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back_byte_for_byte(files in trees()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("tree");
            fs::create_dir(&root).unwrap();
            for (path, (seed, size)) in &files {
                let path = root.join(path);
                // A file may stand where another path needs a directory.
                if fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.is_dir() {
                    fs::write(path, noise(*seed, *size)).unwrap();
                }
            }
            let store = MemoryStore::default();
            let published = put(&root, &store).await;
            let manifest = Manifest::parse(&published.manifest.to_bytes()).unwrap();
            let dest = dir.path().join("back");
            let restored = restore(&store, &manifest, &dest).await.unwrap();
            assert_eq!(restored.content_digest, published.content_digest);
            assert_eq!(picture(&dest), picture(&root));
        });
    }

    #[test]
    fn hostile_bytes_never_panic(bytes: Vec<u8>, at in 0_usize..400, to: u8) {
        assert!(Manifest::parse(&bytes).is_err());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let about = About { kind: Kind::Source, step: None, name: String::new(), single_file: false, created_ms: 0 };
        let files = [("a/b".to_owned(), b"x".to_vec()), ("c".to_owned(), b"y".to_vec())];
        let (store, index) = (MemoryStore::default(), MemoryIndex::default());
        let published =
            runtime.block_on(publish_bytes(&files, &about, &mut keys(), &store, &index)).unwrap();
        let mut good = published.manifest.to_bytes();
        let place = at % good.len();
        good[place] = to;
        if let Ok(manifest) = Manifest::parse(&good) {
            manifest.check().unwrap();
        }
    }
}
