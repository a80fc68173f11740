//! What reads bytes of strangers, one function for each: given anything, it
//! must answer, within bounds, and never panic. The same functions are fuzzed
//! (`fuzz/`) and replayed over a corpus as plain tests.

use std::fs;
use std::path::Path;

use artifacts::codec::{Base, Codec, Coder};
use artifacts::index::MemoryIndex;
use artifacts::manifest::Description;
use artifacts::publish::About;
use artifacts::seal::{Keyring, ManifestKey, PrivateKey};
use artifacts::source::{Personal, select_source};
use artifacts::store::MemoryStore;
use artifacts::{Digest, KeySpace, Kind, Manifest, publish_bytes};

/// A name and what takes the bytes.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target; the names of directories in `fuzz/corpus`.
pub(crate) const TARGETS: [Target; 8] = [
    ("manifest", manifest),
    ("sealed", sealed),
    ("pack", pack),
    ("decode", decode),
    ("cut", cut),
    ("complete", complete),
    ("index", index),
    ("ignore", ignore),
];

/// The corpus is sealed to this key, so that what opens is looked at, too.
pub(crate) const CORPUS_KEY: [u8; 32] = [7; 32];

/// A sealed manifest: what is accepted without a key may still not open, and
/// what opens is a tree that could be written.
pub(crate) fn sealed(bytes: &[u8]) {
    let Ok(Description::Sealed(found)) = Description::parse(bytes) else { return };
    let _ = (found.recipients().count(), format!("{found:?}"));
    for chunk in &found.chunks {
        assert!(chunk.place.end() <= 64 << 20 && chunk.place.cipher.is_some());
    }
    let mut keys = Keyring::default();
    keys.add_private(PrivateKey::from_bytes(CORPUS_KEY)).expect("a key");
    let at = "run/g0000000000000001/m00000001".parse().expect("a key of an object");
    if let Ok(tree) = keys.open(&at, &found) {
        tree.check().expect("what opens was checked");
        assert_eq!(tree.needed().count() > 0, !found.chunks.is_empty());
    }
    assert!(found.open(&ManifestKey::from_bytes([9; 32])).is_err());
}

/// What is accepted is written and read again as the same.
pub(crate) fn manifest(bytes: &[u8]) {
    if let Ok(tree) = Manifest::parse(bytes) {
        let written = tree.to_bytes();
        let again = Manifest::parse(&written).expect("what was written is read");
        assert_eq!(again.to_bytes(), written);
        assert_eq!(again.content_digest(), tree.content_digest());
        let _ = (tree.packs(), tree.files(), tree.total_bytes());
    }
}

/// What a pack says it holds lies within it.
pub(crate) fn pack(bytes: &[u8]) {
    let mut coder = Coder::default();
    for (_, held) in artifacts::pack::index(bytes).into_iter().flatten() {
        let end = held.offset + u64::from(held.stored);
        assert!(end <= bytes.len() as u64);
        let stored = &bytes[held.offset as usize..end as usize];
        let mut plain = Vec::new();
        let len = (held.len as usize).min(1 << 20);
        let _ = coder.decode(held.codec, stored, None, len, &mut plain);
    }
}

/// A codec, a length, then what is to be decoded: as many bytes come out as
/// were promised, or none.
pub(crate) fn decode(bytes: &[u8]) {
    let [codec, a, b, c, stored @ ..] = bytes else { return };
    let len = u32::from_le_bytes([*a, *b, *c, 0]) as usize & 0x1f_ffff;
    let mut coder = Coder::default();
    // A difference names its base by the first bytes.
    let (name, base) = (Digest::of(b"base"), vec![0x3f; len]);
    let named = [name.as_bytes().as_slice(), stored].concat();
    for codec in [codec % 6, codec.wrapping_add(1) % 6] {
        let codec = Codec::try_from(codec).expect("there are six");
        let (base, stored) = match codec {
            Codec::Delta => (Some(Base { digest: &name, bytes: &base }), named.as_slice()),
            _ => (None, stored),
        };
        let mut plain = b"before".to_vec();
        let decoded = coder.decode(codec, stored, base, len, &mut plain);
        assert!(plain.starts_with(b"before"));
        assert_eq!(plain.len() - 6, if decoded.is_ok() { len } else { 0 });
    }
}

/// A file of any content, cut where it says its tensors lie, comes back as it
/// was.
pub(crate) fn cut(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let store = MemoryStore::default();
    let mut keys = KeySpace { scope: "run".into(), generation: 1, pack_seq: 0, manifest_seq: 0 };
    let about =
        About { kind: Kind::Outputs, step: None, name: String::new(), single_file: false, created_ms: 1 };
    // Only what is longer than a chunk is cut.
    let mut long = bytes.to_vec();
    long.resize(bytes.len().max((1 << 20) + 1), 7);
    let files = [("f".to_owned(), bytes.to_vec()), ("g".to_owned(), long)];
    let index = MemoryIndex::default();
    let published = publish_bytes(&files, &about, &mut keys, &store, &index);
    let published = runtime.block_on(published).expect("published");
    let back = artifacts::restore::read_tree(&store, &published.manifest, 64 << 20);
    assert!(runtime.block_on(back).expect("restored") == files, "other bytes came back");
}

fn with_dir(work: impl FnOnce(&Path)) {
    // Memory, where the system has some in the file system.
    let place = Path::new("/dev/shm");
    let dir = if place.is_dir() { tempfile::tempdir_in(place) } else { tempfile::tempdir() };
    work(dir.expect("a directory").path());
}

/// A file is judged, under names that say different things of it.
pub(crate) fn complete(bytes: &[u8]) {
    with_dir(|dir| {
        for name in ["f.bin", "f.pt", "f.safetensors", "f.h5", "f.npy", "f.npz", "f.pkl", "f.json"] {
            let path = dir.join(name);
            fs::write(&path, bytes).expect("written");
            let first = artifacts::complete::judge(&path);
            assert_eq!(artifacts::complete::judge(&path), first, "the same file is judged the same");
        }
    });
}

fn tree(files: &[(&str, &[u8])]) {
    with_dir(|dir| {
        for (path, bytes) in files {
            fs::create_dir_all(dir.join(path).parent().expect("a parent")).expect("made");
            fs::write(dir.join(path), bytes).expect("written");
        }
        let chosen = select_source(dir, &[], &[], &Personal::default()).expect("chosen");
        assert!(chosen.paths.iter().all(|path| dir.join(path).symlink_metadata().is_ok()));
    });
}

/// The index of a repository.
pub(crate) fn index(bytes: &[u8]) {
    tree(&[(".git/HEAD", b"ref: refs/heads/main\n"), (".git/index", bytes), ("a/b", b""), ("c", b"")]);
}

/// An ignore file, and the settings of a repository.
pub(crate) fn ignore(bytes: &[u8]) {
    let files = [
        (".git/HEAD", &b"ref: refs/heads/main\n"[..]),
        (".git/config", bytes),
        (".gitignore", bytes),
        ("a/.gitignore", bytes),
        ("a/b c/d.log", b""),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaaaaaaaaa", b""),
    ];
    tree(&files);
}
