//! Trees from somebody who means harm, through the real restore: what could
//! reach outside the destination is refused or made harmless, with a message
//! that itself does no harm.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use artifacts::index::MemoryIndex;
use artifacts::publish::About;
use artifacts::restore::{RestoreError, load_manifest, read_tree, restore, restore_over, verify};
use artifacts::store::MemoryStore;
use artifacts::{
    Digest, KeySpace, Kind, Manifest, ObjectKey, Published, Put, Store, StoreError, publish_bytes,
};
use serde_json::{Value, json};

async fn publish(store: &MemoryStore, files: &[(&str, &str)], generation: u64) -> Published {
    let about =
        About { kind: Kind::Outputs, step: None, name: String::new(), single_file: false, created_ms: 1 };
    let mut keys = KeySpace { scope: "run".into(), generation, pack_seq: 0, manifest_seq: 0 };
    let files: Vec<_> =
        files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    publish_bytes(&files, &about, &mut keys, store, &MemoryIndex::default()).await.unwrap()
}

/// A manifest as an attacker writes it: JSON of a real one, changed.
async fn forge(store: &MemoryStore, change: impl FnOnce(&mut Value)) -> (ObjectKey, Digest) {
    let real = publish(store, &[("a", "content of a"), ("d/b", "content of b")], 1).await;
    let mut value: Value = serde_json::from_slice(&real.manifest.to_bytes()).unwrap();
    change(&mut value);
    let bytes = serde_json::to_vec(&value).unwrap();
    let key = ObjectKey::manifest("run", 9, 0).unwrap();
    store.put_if_absent(&key, &bytes).await.unwrap();
    (key, Digest::of(&bytes))
}

/// Every name below a directory, links not followed.
fn names(root: &Path) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                open.push(path.clone());
            }
            found.push(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
    found.sort();
    found
}

fn path(name: &str) -> impl FnOnce(&mut Value) + use<> {
    let name = name.to_owned();
    move |value| value["entries"][0]["path"] = json!(name)
}

fn link(at: &str, target: &str) -> impl FnOnce(&mut Value) + use<> {
    let entry = json!({"path": at, "node": {"link": {"target": target}}});
    move |value| {
        value["entries"] = json!([entry]);
        value["packs"] = json!([]);
    }
}

type Change = Box<dyn FnOnce(&mut Value)>;

fn refused() -> Vec<(&'static str, Change, &'static str)> {
    let set = |pointer: &'static str, to: Value| -> Change {
        Box::new(move |value| *value.pointer_mut(pointer).unwrap() = to)
    };
    let file = |field: &str, to: Value| -> Change {
        let field = field.to_owned();
        Box::new(move |value| value["entries"][0]["node"]["file"][&field] = to)
    };
    let chunk = |number: usize, to: Value| -> Change {
        Box::new(move |value| value["entries"][0]["node"]["file"]["chunks"][0][number] = to)
    };
    vec![
        ("climbs", Box::new(path("../a")), "`..`"),
        ("climbs later", Box::new(path("a/../../b")), "`..`"),
        ("absolute", Box::new(path("/etc/passwd")), "absolute"),
        ("empty", Box::new(path("")), "empty"),
        ("the directory itself", Box::new(path(".")), "`.`"),
        ("two slashes", Box::new(path("a//b")), "empty"),
        ("a NUL", Box::new(path("a\0b")), "NUL"),
        ("4 KB and more", Box::new(path(&"x/".repeat(2100))), "longer than 4095"),
        ("a long component", Box::new(path(&"x".repeat(256))), "longer than 255"),
        ("65 directories", Box::new(path(&vec!["a"; 65].join("/"))), "deeper than 64"),
        ("a name of our own", Box::new(path(".tmp-outlast-1")), "unfinished restores"),
        (
            "twice",
            Box::new(|v| {
                let e = v["entries"][0].clone();
                v["entries"].as_array_mut().unwrap().insert(0, e);
            }),
            "twice",
        ),
        ("below a file", Box::new(|v| v["entries"][1]["path"] = json!("a/b")), "below something"),
        (
            "below a link",
            Box::new(|v| {
                v["entries"][1]["path"] = json!("a/b");
                v["entries"][0]["node"] = json!({"link": {"target": "."}});
            }),
            "below something",
        ),
        ("a link to the root", Box::new(link("l", "/")), "absolute"),
        ("a link that climbs", Box::new(link("d/l", "../../x")), "leaves the tree"),
        ("a link that climbs through a name", Box::new(link("l", "d/../../x")), "`..` after a name"),
        ("a link with a NUL", Box::new(link("l", "a\0b")), "impossible target"),
        ("set-uid", file("mode", json!(0o4755)), "mode above"),
        ("set-gid and sticky", file("mode", json!(0o3777)), "mode above"),
        ("the mode of a device", file("mode", json!(0o20_666)), "mode above"),
        (
            "a device",
            Box::new(|v| v["entries"][0]["node"] = json!({"device": {"major": 1, "minor": 3}})),
            "does not parse",
        ),
        (
            "a kind with an escape",
            Box::new(|v| v["entries"][0]["node"] = json!({"\u{1b}[2J\n": {}})),
            "does not parse",
        ),
        (
            "twice, with an escape",
            Box::new(|v| {
                v["entries"][0]["path"] = json!("z\u{1b}[2J");
                v["entries"][1]["path"] = json!("\u{1b}]0;\n");
            }),
            "out of order",
        ),
        ("a field nobody knows", file("owner", json!(0)), "does not parse"),
        ("a negative size", file("size", json!(-1)), "does not parse"),
        ("a size that is a lie", file("size", json!(1_u64 << 60)), "sum"),
        ("a chunk of no pack", chunk(2, json!(7)), "names no pack"),
        ("a chunk of 4 GiB", chunk(1, json!(u32::MAX)), "impossible size"),
        ("a chunk beyond everything", chunk(3, json!(u64::MAX)), "end of any pack"),
        ("a pack elsewhere", set("/packs/0", json!("../../etc/passwd")), "does not parse"),
        ("a manifest for a pack", set("/packs/0", json!("run/g0000000000000001/m00000000")), "no pack"),
        ("a name with a slash", set("/name", json!("../x")), "no file name"),
        ("a later version", set("/version", json!(99)), "version 99"),
        ("one file that is two", set("/single_file", json!(true)), "one file"),
    ]
}

#[tokio::test]
async fn what_could_reach_outside_is_refused_and_nothing_appears() {
    for (what, change, why) in refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = MemoryStore::default();
        let (key, digest) = forge(&store, change).await;
        let outcome = match load_manifest(&store, &key, Some(digest)).await {
            Err(error) => error,
            Ok(tree) => restore(&store, &tree, &dir.path().join("back")).await.map(drop).unwrap_err(),
        };
        let text = outcome.to_string();
        assert!(text.contains(why), "{what}: {text}");
        assert!(text.len() < 600 && !text.contains(|c: char| c.is_control()), "{what}: {text}");
        assert_eq!(names(dir.path()), [""; 0], "{what}");
    }
}

#[tokio::test]
async fn a_tree_that_was_never_parsed_is_checked_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::default();
    let mut tree = publish(&store, &[("a", "x")], 1).await.manifest;
    tree.entries[0].path = "../a".into();
    let dest = dir.path().join("in/back");
    fs::create_dir_all(dest.parent().unwrap()).unwrap();
    for outcome in [
        restore(&store, &tree, &dest).await.map(drop),
        restore_over(&store, &tree, dest.parent().unwrap()).await.map(drop),
        verify(&store, &tree).await.map(drop),
        read_tree(&store, &tree, 100).await.map(drop),
    ] {
        assert!(matches!(outcome, Err(RestoreError::Manifest(_))), "{outcome:?}");
    }
    assert_eq!(names(dir.path()), ["in"]);
}

#[tokio::test]
async fn what_is_only_odd_is_restored_exactly_and_told_harmlessly() {
    let deep = vec!["a".repeat(60); 60].join("/");
    let odd = [
        "A/x",
        "a/x",
        "e\u{301}",
        "\u{e9}",
        "CON",
        "aux.txt",
        "a:b",
        "dot.",
        "space ",
        "new\nline",
        "\u{1b}]0;title\u{7}",
        "\u{202e}gnp.exe",
        "-rf",
        "~",
        "$(reboot)",
        "*",
        deep.as_str(),
    ];
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::default();
    let mut files: Vec<(&str, &str)> = odd.iter().map(|name| (*name, *name)).collect();
    files.sort_unstable();
    let tree = publish(&store, &files, 1).await.manifest;
    let dest = dir.path().join("back");
    restore(&store, &tree, &dest).await.unwrap();
    for name in odd {
        assert_eq!(fs::read_to_string(dest.join(name)).unwrap(), name);
        assert_eq!(dest.join(name).metadata().unwrap().mode() & 0o7000, 0);
    }
    // A complaint about such a name cannot speak to a terminal.
    let store = MemoryStore::default();
    let (key, digest) = forge(&store, path("\u{1b}[2J\n/../x")).await;
    let text = load_manifest(&store, &key, Some(digest)).await.unwrap_err().to_string();
    assert!(!text.contains(['\u{1b}', '\n']) && text.contains("\\u{1b}"), "{text}");
}

/// A store that does something to the destination when the bytes are asked
/// for: after the restore has begun, before they are written.
struct Meddling<F> {
    store: MemoryStore,
    meddle: F,
    gets: AtomicUsize,
}

#[async_trait::async_trait]
impl<F: Fn(usize) + Send + Sync> Store for Meddling<F> {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        self.store.put_if_absent(key, bytes).await
    }
    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        (self.meddle)(self.gets.fetch_add(1, Ordering::SeqCst));
        self.store.get(key, offset, len).await
    }
    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.store.size(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        self.store.list(prefix).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.store.delete(key).await
    }
}

/// Two packs of 8 MiB and more, so that there are several ranges.
async fn large(store: &MemoryStore) -> Manifest {
    let mut noise = vec![0; 9 << 20];
    blake3::Hasher::new().update(b"seed").finalize_xof().fill(&mut noise);
    let files = [
        ("d/e/one".to_owned(), noise.clone()),
        ("d/e/two".to_owned(), noise[1..].to_vec()),
        ("d/f".to_owned(), noise[2..].to_vec()),
    ];
    let about =
        About { kind: Kind::Outputs, step: None, name: String::new(), single_file: false, created_ms: 1 };
    let mut keys = KeySpace { scope: "run".into(), generation: 1, pack_seq: 0, manifest_seq: 0 };
    publish_bytes(&files, &about, &mut keys, store, &MemoryIndex::default()).await.unwrap().manifest
}

#[tokio::test]
async fn a_link_swapped_in_at_any_moment_leads_nowhere() {
    let store = MemoryStore::default();
    let tree = large(&store).await;
    let swapped = Arc::new(AtomicUsize::new(0));
    for moment in 0..6 {
        for (what, style) in [("d", true), ("d/e", true), ("d", false), ("d/e", false)] {
            let dir = tempfile::tempdir().unwrap();
            let (outside, dest) = (dir.path().join("outside"), dir.path().join("dest"));
            fs::create_dir_all(outside.join("e")).unwrap();
            if style {
                fs::create_dir_all(dest.join("d/e")).unwrap();
            }
            let place = move |dest: &Path| -> PathBuf {
                // A fresh tree grows in a scratch directory beside its place.
                let above = dest.parent().unwrap();
                let scratch = fs::read_dir(above).unwrap().flatten().map(|entry| entry.path());
                if style {
                    dest.to_owned()
                } else {
                    scratch.filter(|p| !p.ends_with("outside")).last().unwrap_or(dest.to_owned())
                }
            };
            let swap = {
                let (outside, dest, swapped) = (outside.clone(), dest.clone(), Arc::clone(&swapped));
                move |gets: usize| {
                    let victim = place(&dest).join(what);
                    if gets == moment && victim.is_dir() {
                        fs::rename(&victim, victim.with_extension("moved")).unwrap();
                        symlink(&outside, &victim).unwrap();
                        swapped.fetch_add(1, Ordering::SeqCst);
                    }
                }
            };
            let meddling = Meddling { store: store.clone(), meddle: swap, gets: AtomicUsize::new(0) };
            let outcome = if style {
                restore_over(&meddling, &tree, &dest).await.map(drop)
            } else {
                restore(&meddling, &tree, &dest).await.map(drop)
            };
            assert_eq!(names(&outside), ["e"], "at {moment}, {what}: {outcome:?}");
            assert!(
                outcome.is_ok()
                    || matches!(outcome, Err(RestoreError::Blocked { .. } | RestoreError::Io { .. })),
                "{outcome:?}"
            );
        }
    }
    let swapped = swapped.load(Ordering::SeqCst);
    assert!(swapped >= 8, "only {swapped} links were swapped in: it showed nothing");
}

#[tokio::test]
async fn what_lies_in_a_directory_that_is_in_use_is_replaced_and_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (dest, secret) = (dir.path().join("dest"), dir.path().join("secret"));
    fs::create_dir(&dest).unwrap();
    fs::write(&secret, "secret").unwrap();
    symlink(&secret, dest.join("a")).unwrap();
    fs::hard_link(&secret, dest.join("b")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(dest.join("c")).status().unwrap();
    assert!(pipe.success());
    let store = MemoryStore::default();
    let tree = publish(&store, &[("a", "1"), ("b", "2"), ("c", "3")], 1).await.manifest;
    restore_over(&store, &tree, &dest).await.unwrap();
    assert_eq!(
        fs::read_to_string(&secret).unwrap(),
        "secret",
        "neither the link nor the hard link was written through"
    );
    for (name, text) in [("a", "1"), ("b", "2"), ("c", "3")] {
        assert!(dest.join(name).symlink_metadata().unwrap().is_file());
        assert_eq!(fs::read_to_string(dest.join(name)).unwrap(), text);
    }
}

/// Every way to damage an object of a small store, at every byte.
#[tokio::test]
async fn every_damage_is_found_named_and_survived() {
    let store = MemoryStore::default();
    let old = publish(&store, &[("a", "the older state, which is whole"), ("n", "1")], 1).await;
    let new =
        publish(&store, &[("a", &"the newer state, which is damaged ".repeat(20)), ("n", "2")], 2).await;
    let objects = [new.manifest.packs().remove(0), new.manifest_key.clone()];
    let (mut found, mut harmless) = (0, 0);
    for key in &objects {
        let size = store.size(key).await.unwrap().unwrap();
        let whole = store.get(key, 0, size).await.unwrap();
        let other = store.get(&objects[usize::from(*key == objects[0])], 0, 40).await.unwrap();
        let mut damages: Vec<(String, Option<Vec<u8>>)> =
            vec![("gone".into(), None), ("swapped".into(), Some(other))];
        for at in 0..whole.len() {
            let flip = |bit: u8| {
                let mut bytes = whole.clone();
                bytes[at] ^= bit;
                Some(bytes)
            };
            damages.extend([(format!("bit 0 of {at}"), flip(1)), (format!("bit 7 of {at}"), flip(128))]);
            damages.push((format!("cut at {at}"), Some(whole[..at].to_vec())));
            let without = [&whole[..at], &whole[at + 1..]].concat();
            damages.push((format!("without {at}"), Some(without)));
        }
        for (what, bytes) in damages {
            store.delete(key).await.unwrap();
            if let Some(bytes) = &bytes {
                store.put_if_absent(key, bytes).await.unwrap();
            }
            let load = load_manifest(&store, &new.manifest_key, Some(new.manifest_digest)).await;
            let outcome = match load {
                Ok(tree) => verify(&store, &tree).await.map(drop),
                Err(error) => Err(error),
            };
            match outcome {
                Err(RestoreError::Corrupt { key: named, .. } | RestoreError::Missing { key: named }) => {
                    assert_eq!(named, *key, "{what}");
                    found += 1;
                }
                // The end of a pack is not needed for a restore, and is
                // damaged by its own word.
                Ok(()) => {
                    let bytes = bytes.unwrap();
                    assert!(artifacts::pack::index(&bytes).is_err(), "{key}: {what} was not found");
                    let back = read_tree(&store, &new.manifest, 10_000).await.unwrap();
                    assert!(back[0].1.starts_with(b"the newer state"));
                    harmless += 1;
                }
                other => panic!("{what}: {other:?}"),
            }
            // The older one does not suffer.
            let tree = load_manifest(&store, &old.manifest_key, Some(old.manifest_digest)).await.unwrap();
            let back = read_tree(&store, &tree, 10_000).await.unwrap();
            assert_eq!(back[0].1, b"the older state, which is whole");
            store.delete(key).await.unwrap();
            store.put_if_absent(key, &whole).await.unwrap();
        }
    }
    assert!(found > 2_000 && harmless > 100, "{found} found, {harmless} harmless");
    verify(&store, &new.manifest).await.unwrap();
}
