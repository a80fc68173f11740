//! Source trees of every shape, from the choice through a store and back.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use artifacts::index::MemoryIndex;
use artifacts::restore::restore;
use artifacts::source::{Personal, fingerprint, select_source};
use artifacts::store::MemoryStore;
use artifacts::{KeySpace, Kind, Published, Selection, publish};

fn chosen(root: &Path) -> Vec<String> {
    let found = select_source(root, &[], &[], &Personal::default()).unwrap();
    assert_eq!(found.skipped, []);
    found.paths
}

async fn send(root: &Path, store: &MemoryStore, index: &MemoryIndex, generation: u64) -> Published {
    let selection = Selection {
        root: root.to_owned(),
        paths: chosen(root),
        kind: Kind::Source,
        step: None,
        name: String::new(),
        single_file: false,
        created_ms: 1,
    };
    let mut keys = KeySpace { scope: "source".into(), generation, pack_seq: 0, manifest_seq: 0 };
    let published = publish(&selection, &mut keys, store, index).await.unwrap();
    index.add(&published.manifest);
    published
}

#[tokio::test]
async fn links_modes_and_holes_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (root, back) = (dir.path().join("tree"), dir.path().join("back"));
    fs::create_dir_all(root.join("d")).unwrap();
    for (name, mode) in [("run.sh", 0o755), ("d/secret", 0o600), ("d/only-read", 0o444), ("suid", 0o4755)] {
        fs::write(root.join(name), name).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("run.sh", root.join("link")).unwrap();
    symlink("../run.sh", root.join("d/up")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    // 64 MiB of nothing, and a word behind them.
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"the end", 64 << 20).unwrap();
    let store = MemoryStore::default();
    let published = send(&root, &store, &MemoryIndex::default(), 1).await;
    assert!(published.sent_bytes < 100_000, "{} bytes were sent of a hole", published.sent_bytes);
    restore(&store, &published.manifest, &back).await.unwrap();
    for (name, mode) in [("run.sh", 0o755), ("d/secret", 0o600), ("d/only-read", 0o444), ("suid", 0o755)] {
        assert_eq!(back.join(name).metadata().unwrap().mode() & 0o7777, mode, "{name}");
        assert_eq!(fs::read_to_string(back.join(name)).unwrap(), name);
    }
    for (name, target) in [("link", "run.sh"), ("d/up", "../run.sh"), ("dangling", "nowhere")] {
        assert_eq!(fs::read_link(back.join(name)).unwrap(), Path::new(target));
    }
    let sparse = fs::File::open(back.join("sparse")).unwrap();
    assert_eq!(sparse.metadata().unwrap().len(), (64 << 20) + 7);
    let mut end = [1; 9];
    sparse.read_exact_at(&mut end, (64 << 20) - 2).unwrap();
    assert_eq!(&end, b"\0\0the end");
}

#[tokio::test]
async fn of_fifty_thousand_files_only_the_changed_one_travels() {
    // Memory, where the system has some in the file system.
    let place = Path::new("/dev/shm");
    let dir = if place.is_dir() { tempfile::tempdir_in(place) } else { tempfile::tempdir() }.unwrap();
    let root = dir.path();
    for number in 0..500 {
        let below = root.join(format!("pkg{}/d{number}", number % 7));
        fs::create_dir_all(&below).unwrap();
        for file in 0..100 {
            fs::write(below.join(format!("m{file}.py")), format!("x = {}\n", number * 100 + file)).unwrap();
        }
    }
    fs::write(root.join(".gitignore"), "*.log\n").unwrap();
    let paths = chosen(root);
    assert_eq!(paths.len(), 50_001);
    let later = || SystemTime::now() + Duration::from_secs(5);
    let state = fingerprint(root, &paths, later()).unwrap();
    assert_eq!(fingerprint(root, &paths, later()), Some(state));
    let (store, index) = (MemoryStore::default(), MemoryIndex::default());
    let first = send(root, &store, &index, 1).await;
    assert_eq!(first.manifest.files(), 50_001);
    fs::write(root.join("pkg3/d3/m7.py"), "changed = True\n").unwrap();
    assert_ne!(fingerprint(root, &paths, later()), Some(state));
    let second = send(root, &store, &index, 2).await;
    assert_eq!((second.new_bytes, second.new_chunks), (15, 1));
}
