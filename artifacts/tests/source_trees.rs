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
    let (here, there) = (sparse.metadata().unwrap(), root.join("sparse").metadata().unwrap());
    // Where the file system has holes at all.
    if there.blocks() * 512 < 8 << 20 {
        assert!(here.blocks() * 512 < 8 << 20, "{} blocks for a hole", here.blocks());
    }
    for dir in ["", "d"] {
        let mode = back.join(dir).metadata().unwrap().mode() & 0o777;
        assert_eq!(mode, 0o755, "whoever the program becomes reads its source: `{dir}`");
    }
    let mut end = [1; 9];
    sparse.read_exact_at(&mut end, (64 << 20) - 2).unwrap();
    assert_eq!(&end, b"\0\0the end");
}

#[tokio::test]
async fn holes_at_every_place_come_back_as_what_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let (root, back) = (dir.path().join("tree"), dir.path().join("back"));
    fs::create_dir(&root).unwrap();
    let mib = 1 << 20;
    let noise = |seed: u8, len: usize| {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    };
    // Behind, before, between and alone; zeros too few; bytes that repeat and are none.
    let files = [
        [noise(1, 3 * mib + 11), vec![0; 9 * mib + 5]].concat(),
        [vec![0; 8 * mib + 3], noise(2, 100)].concat(),
        [noise(3, 2 * mib), vec![0; 6 * mib + 77_777], noise(4, mib), vec![0; 50_000], noise(5, 10)].concat(),
        vec![0; 5 * mib + 1],
        vec![7; 5 * mib],
        vec![0; 64 << 10],
    ];
    for (number, bytes) in files.iter().enumerate() {
        fs::write(root.join(number.to_string()), bytes).unwrap();
    }
    let store = MemoryStore::default();
    let published = send(&root, &store, &MemoryIndex::default(), 1).await;
    restore(&store, &published.manifest, &back).await.unwrap();
    let holes = |path: &Path| path.metadata().unwrap().blocks() * 512 < path.metadata().unwrap().len() / 2;
    for (number, bytes) in files.iter().enumerate() {
        let path = back.join(number.to_string());
        assert!(fs::read(&path).unwrap() == *bytes, "{number}");
        assert!(!holes(&path) || [0, 1, 2, 3, 5].contains(&number), "{number}");
    }
    let sparse = fs::File::create(dir.path().join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    if holes(&dir.path().join("sparse")) {
        assert!([0, 1, 3].iter().all(|number| holes(&back.join(number.to_string()))));
    }
    // Over what is there, as results are.
    let over = dir.path().join("over");
    fs::create_dir(&over).unwrap();
    fs::write(over.join("0"), noise(9, 20 * mib)).unwrap();
    artifacts::restore::restore_over(&store, &published.manifest, &over).await.unwrap();
    for (number, bytes) in files.iter().enumerate() {
        assert!(fs::read(over.join(number.to_string())).unwrap() == *bytes, "{number}");
    }
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
