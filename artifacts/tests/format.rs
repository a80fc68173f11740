//! The written format against programs that know nothing of this crate:
//! files that NumPy, Safetensors and PyTorch's layout make are cut at their
//! records, and a reader of a hundred lines of Python restores what was
//! published, whatever its codecs.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use artifacts::codec::{Codec, Coder, Effort};
use artifacts::index::MemoryIndex;
use artifacts::manifest::{ChunkRef, Entry, Node};
use artifacts::publish::{Keyframe, With};
use artifacts::restore::{load_manifest, restore};
use artifacts::seal::{PrivateKey, ProjectSecret, Sealing};
use artifacts::store::{FsStore, MemoryStore};
use artifacts::{KeySpace, Manifest, ObjectKey, Published, Selection, Store, pack, publish, publish_against};

fn keys(generation: u64) -> KeySpace {
    KeySpace { scope: "run".into(), generation, pack_seq: 0, manifest_seq: 0 }
}

async fn put(path: &Path, generation: u64, store: &dyn Store, index: &MemoryIndex) -> Published {
    let selection = Selection::checkpoint(path, Some(7), 5).unwrap();
    publish(&selection, &mut keys(generation), store, index).await.unwrap()
}

/// A Python with the packages that the rigs need, made once for all runs.
fn python() -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("formats");
    fs::create_dir_all(&venv).unwrap();
    let lock = fs::File::create(venv.join("lock")).unwrap();
    lock.lock().unwrap();
    let done = venv.join("whole-2");
    if !done.exists() {
        let run = |command: &mut Command| {
            let out = command.output().unwrap();
            assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
        };
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv.join("new")));
        let new = venv.join("new");
        run(Command::new(new.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["blake3", "cryptography", "lz4", "numpy", "safetensors", "zstandard"]));
        fs::write(&done, "").unwrap();
    }
    venv.join("new/bin/python")
}

fn script(text: &str, dir: &Path) {
    let out = Command::new(python()).arg("-B").arg("-c").arg(text).arg(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn chunks(manifest: &Manifest) -> Vec<(artifacts::Digest, u64, Codec)> {
    let files = manifest.entries.iter().filter_map(|entry| match &entry.node {
        Node::File { chunks, .. } => Some(chunks),
        _ => None,
    });
    files.flatten().map(|chunk| (chunk.digest, u64::from(chunk.len), chunk.codec)).collect()
}

/// What of `second` was in `first`: share of chunks, share of bytes.
fn shared(first: &Manifest, second: &Manifest) -> (f64, f64) {
    let known: HashMap<_, _> = chunks(first).into_iter().map(|(digest, len, _)| (digest, len)).collect();
    let all = chunks(second);
    let total: u64 = all.iter().map(|(_, len, _)| len).sum();
    let kept: Vec<u64> = all.iter().filter_map(|(digest, ..)| known.get(digest).copied()).collect();
    (kept.len() as f64 / all.len() as f64, kept.iter().sum::<u64>() as f64 / total as f64)
}

/// Each writes `first` and `second`: the second one is the first with an early
/// record that grew by 3,000 bytes, or with other adapters.
const WRITERS: [(&str, &str); 4] = [
    (
        "npz",
        r"
import sys, numpy as np
r = np.random.default_rng(1)
layers = {f'layer{n}': r.standard_normal(600_000, dtype=np.float32) for n in range(60)}
for name, grown in (('first', 0), ('second', 3000)):
    with open(f'{sys.argv[1]}/{name}', 'wb') as file:
        np.savez(file, config=np.zeros(5000 + grown, np.uint8), **layers)
",
    ),
    (
        "torch zip",
        // PyTorch's layout: stored entries, data at multiples of 64 by a padded
        // extra field, the pickle first, a few bytes for each step counter.
        r"
import sys, zipfile, numpy as np
r = np.random.default_rng(2)
layers = [r.standard_normal(600_000, dtype=np.float32).tobytes() for _ in range(60)]
pickled = r.bytes(40_000)
for name, grown in (('first', 0), ('second', 3000)):
    with zipfile.ZipFile(f'{sys.argv[1]}/{name}', 'w', zipfile.ZIP_STORED) as z:
        def put(entry, data):
            info = zipfile.ZipInfo(f'archive/{entry}')
            start = z.start_dir + 30 + len(info.filename) + 4
            pad = -start % 64
            info.extra = b'FB' + pad.to_bytes(2, 'little') + b'Z' * pad
            z.writestr(info, data)
        put('data.pkl', pickled + b'x' * grown)
        for n, layer in enumerate(layers):
            put(f'data/{n}', layer)
            put(f'data/step{n}', n.to_bytes(4, 'little'))
        put('version', b'3\n')
",
    ),
    (
        "safetensors with a longer header",
        r"
import sys, numpy as np
from safetensors.numpy import save_file
r = np.random.default_rng(3)
layers = {f'layer{n}': r.standard_normal((600, 1000), dtype=np.float32) for n in range(60)}
for name, grown in (('first', 0), ('second', 3000)):
    save_file(layers, f'{sys.argv[1]}/{name}', metadata={'config': 'x' * (5000 + grown)})
",
    ),
    (
        "safetensors with other adapters",
        r"
import sys, numpy as np
from safetensors.numpy import save_file
r = np.random.default_rng(4)
frozen = {f'base{n}': r.standard_normal((600, 1000), dtype=np.float32) for n in range(60)}
for name in ('first', 'second'):
    adapters = {f'adapter{n}': r.standard_normal((8, 600), dtype=np.float32) for n in range(60)}
    save_file(frozen | adapters, f'{sys.argv[1]}/{name}')
",
    ),
];

#[tokio::test]
async fn a_record_that_grew_leaves_the_others_as_they_were() {
    for (writer, text) in WRITERS {
        let dir = tempfile::tempdir().unwrap();
        script(text, dir.path());
        let (store, index) = (MemoryStore::default(), MemoryIndex::default());
        let first = put(&dir.path().join("first"), 1, &store, &index).await;
        index.add(&first.manifest);
        let second = put(&dir.path().join("second"), 2, &store, &index).await;
        let (by_count, by_bytes) = shared(&first.manifest, &second.manifest);
        let adapters = writer.ends_with("adapters");
        println!(
            "{writer}: {} chunks, {:.2} % of chunks and {:.2} % of bytes shared, {} of {} bytes sent",
            chunks(&second.manifest).len(),
            by_count * 100.0,
            by_bytes * 100.0,
            second.sent_bytes,
            second.total_bytes
        );
        let changed = if adapters { 60 * 8 * 600 * 4 } else { 0 };
        let truly = 1.0 - f64::from(changed) / second.total_bytes as f64;
        assert!(by_bytes >= truly - 0.01, "{writer}: {by_bytes} of {truly}");
        assert!(adapters || by_count >= 0.98, "{writer}: {by_count}");
        assert!(second.manifest.packs().len() > 1);
    }
}

const EVERY_CODEC: &str = r"
import os, sys, numpy as np
os.makedirs(f'{sys.argv[1]}/tree/sub')
r = np.random.default_rng(5)
weights = r.standard_normal(150_001, dtype=np.float32) * np.float32(0.02)
half = (weights[:150_000].view(np.uint32) >> 16).astype(np.uint16)
sparse = weights[:90_000].reshape(90, 1000).copy()
sparse[::2] = 0
word = b'loss = criterion(model(inputs), targets); '
text = b''.join(word + str(n * n).encode() + b'\n' for n in range(900))
for name, data in {
    'zeros': bytes(70_000), 'ones': np.ones(9_999, np.float32).tobytes(), 'noise': r.bytes(50_000),
    'fp32': weights.tobytes() + b'abc', 'bf16': half.tobytes(), 'sparse': sparse.tobytes(),
    'squares': (weights ** 2).tobytes(), 'text': text, 'empty': b'', 'sub/short': b'x',
}.items():
    open(f'{sys.argv[1]}/tree/{name}', 'wb').write(data)
later = (weights.view(np.uint32) + r.integers(0, 60, 150_001, dtype=np.uint32)) * (r.random(150_001) < 0.7)
half_later = half + (r.random(150_000) < 0.2)
for name, data in {'fp32': later.tobytes() + b'abd', 'bf16': half_later.tobytes()}.items():
    os.makedirs(f'{sys.argv[1]}/later', exist_ok=True)
    open(f'{sys.argv[1]}/later/{name}', 'wb').write(data)
os.symlink('../text', f'{sys.argv[1]}/tree/sub/link')
np.savez(f'{sys.argv[1]}/tree/state.npz', a=weights, b=sparse, c=np.zeros(300_000, np.float32))
";

/// `key`: a file with a private key, for a sealed tree.
fn read_independently(dir: &Path, objects: &Path, published: &Published, tree: &Path, key: Option<&Path>) {
    let rig = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/rigs/read_artifact.py");
    assert!(fs::read_to_string(&rig).unwrap().lines().count() <= 135);
    let back = dir.join("back");
    let at = Path::new(published.manifest_key.as_str());
    let mut read = Command::new(python());
    read.arg("-B").arg(rig).args([objects, at, &back]).args(key);
    let out = read.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let same = Command::new("diff").arg("-r").args([tree, &back]).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    fs::remove_dir_all(back).unwrap();
}

#[tokio::test]
async fn an_independent_reader_restores_every_codec() {
    let dir = tempfile::tempdir().unwrap();
    script(EVERY_CODEC, dir.path());
    let tree = dir.path().join("tree");
    let objects = dir.path().join("store");
    let store = FsStore::open(&objects).unwrap();
    let published = put(&tree, 1, &store, &MemoryIndex::default()).await;
    let used = |codec| chunks(&published.manifest).iter().any(|(.., found)| *found == codec);
    for codec in [Codec::Raw, Codec::Fill, Codec::Zstd, Codec::Planes] {
        assert!(used(codec), "{codec:?}");
    }
    assert!(published.sent_bytes < published.total_bytes);
    read_independently(dir.path(), &objects, &published, &tree, None);
    // And later saves of two of the files, as differences to these.
    let index = MemoryIndex::default();
    index.add(&published.manifest);
    let kept = Keyframe::take(&tree, &published.manifest, &dir.path().join("keyframe")).unwrap().unwrap();
    let later = dir.path().join("later");
    let selection = Selection::checkpoint(&later, Some(8), 5).unwrap();
    let again = publish_against(Some(Arc::new(kept)), &selection, &mut keys(2), &store, &index, || true)
        .await
        .unwrap();
    let codecs: Vec<Codec> = chunks(&again.manifest).into_iter().map(|(.., codec)| codec).collect();
    assert_eq!(codecs, [Codec::Delta; 2]);
    read_independently(dir.path(), &objects, &again, &later, None);
    // And every pack tells by itself what lies where.
    for key in published.manifest.packs() {
        let bytes = fs::read(objects.join(key.as_str())).unwrap();
        let held = pack::index(&bytes).unwrap();
        let named = published.manifest.entries.iter().filter_map(|entry| match &entry.node {
            Node::File { chunks, .. } => Some(chunks.iter().filter(|chunk| chunk.pack == key)),
            _ => None,
        });
        for chunk in named.flatten() {
            let place = held.iter().find(|(digest, _)| *digest == chunk.digest).unwrap().1;
            let named = (chunk.offset, chunk.stored, chunk.len, chunk.codec);
            assert_eq!((place.offset, place.stored, place.len, place.codec), named);
        }
    }
}

/// From the store and a file with the recovery key, and from nothing else.
#[tokio::test]
async fn an_independent_reader_opens_what_is_sealed_with_the_recovery_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    script(EVERY_CODEC, dir.path());
    let (tree, later, objects) =
        (dir.path().join("tree"), dir.path().join("later"), dir.path().join("store"));
    let store = FsStore::open(&objects).unwrap();
    let index = MemoryIndex::default();
    let (controller, recovery) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let to = [controller.public().unwrap(), recovery.public().unwrap()];
    let sealing = Arc::new(Sealing::new(&ProjectSecret::from_bytes([3; 32]), &to).unwrap());
    let key = dir.path().join("recovery.txt");
    fs::write(&key, format!("# the recovery key\n{}", *recovery.to_text())).unwrap();
    let mut numbers = keys(1);
    let mut publish = async |path: &Path, keyframe: Option<Arc<Keyframe>>| {
        let selection = Selection::checkpoint(path, Some(7), 5).unwrap();
        let with = With { keyframe, sealing: Some(sealing.clone()) };
        publish_against(with, &selection, &mut numbers, &store, &index, || true).await.unwrap()
    };
    let first = publish(&tree, None).await;
    index.add(&first.manifest);
    read_independently(dir.path(), &objects, &first, &tree, Some(&key));
    let kept = Keyframe::take(&tree, &first.manifest, &dir.path().join("keyframe")).unwrap().unwrap();
    let second = publish(&later, Some(Arc::new(kept))).await;
    assert!(chunks(&second.manifest).iter().all(|(.., codec)| *codec == Codec::Delta));
    read_independently(dir.path(), &objects, &second, &later, Some(&key));
    // With another key it is not read.
    fs::write(&key, &*PrivateKey::generate().unwrap().to_text()).unwrap();
    let rig = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/rigs/read_artifact.py");
    let at = Path::new(first.manifest_key.as_str());
    let back = dir.path().join("back");
    let read = Command::new(python()).arg("-B").arg(rig).args([&objects, at, &back, &key]).output().unwrap();
    assert!(!read.status.success() && !back.exists());
}

/// Bytes that are the same on every machine and in every version.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Like weights, by whole numbers alone: few exponents, the larger the rarer.
fn weights(seed: u64, count: usize) -> Vec<u32> {
    let bytes = noise(seed, count * 8);
    let (eights, _) = bytes.as_chunks::<8>();
    let number = |eight: &[u8; 8]| {
        let [a, b, c, d, e, f, g, h] = *eight;
        let small = u32::from_le_bytes([a, b, c, d]).leading_zeros().min(20);
        let rest = u32::from_le_bytes([e, f, g, h]);
        (122 - small) << 23 | rest & 0x7f_ffff | rest & 1 << 31
    };
    eights.iter().map(number).collect()
}

/// The chunks of the golden store and how they are coded.
fn golden_chunks() -> Vec<(Codec, Effort, Vec<u8>)> {
    let fp32: Vec<u8> = weights(1, 3000).into_iter().flat_map(u32::to_le_bytes).collect();
    let bf16: Vec<u8> =
        weights(2, 3000).into_iter().flat_map(|w| ((w >> 16) as u16).to_le_bytes()).chain([7]).collect();
    let mut sparse: Vec<u8> = weights(3, 4096).into_iter().flat_map(u32::to_le_bytes).collect();
    for row in sparse.chunks_mut(1024).step_by(2) {
        row.fill(0);
    }
    let counters: Vec<u8> = (0..2000_u32).flat_map(|n| (n * 7919 % 65_536).to_le_bytes()).collect();
    let text = b"loss = criterion(model(inputs), targets); step(optimizer)\n".repeat(60);
    vec![
        (Codec::Raw, Effort::Dense, noise(4, 1000)),
        (Codec::Raw, Effort::Plain, text.clone()),
        (Codec::Fill, Effort::Dense, vec![0; 5001]),
        (Codec::Fill, Effort::Dense, 0x3f80_0000_u32.to_le_bytes().repeat(300)),
        (Codec::Lz4, Effort::Light, text.clone()),
        (Codec::Zstd, Effort::Dense, text),
        (Codec::Planes, Effort::Dense, fp32),
        (Codec::Planes, Effort::Dense, bf16),
        (Codec::Planes, Effort::Dense, sparse),
        (Codec::Planes, Effort::Dense, counters),
    ]
}

fn golden_entries(pack: &ObjectKey, chunks: Vec<ChunkRef>) -> Vec<Entry> {
    let file = |path: &str, mode: u32, chunks: Vec<ChunkRef>| {
        let size = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        Entry { path: path.into(), node: Node::File { mode, size, mtime_ms: 1_700_000_000_123, chunks } }
    };
    assert!(chunks.iter().all(|chunk| chunk.pack == *pack));
    let mut entries: Vec<Entry> = (0..chunks.len())
        .map(|number| file(&format!("part-{number}"), 0o644, vec![chunks[number].clone()]))
        .collect();
    entries.insert(0, file("all/of.them", 0o755, chunks));
    entries.insert(1, file("empty", 0o600, Vec::new()));
    entries.insert(2, Entry { path: "link".into(), node: Node::Symlink { target: "all/of.them".into() } });
    entries
}

/// Writes the golden store: once, with the program whose bytes it keeps.
fn bless(root: &Path) {
    let (mut coder, mut bytes, mut index, mut chunks) =
        (Coder::default(), Vec::new(), Vec::new(), Vec::new());
    let pack = ObjectKey::pack("run", 2, 1).unwrap();
    for (codec, effort, plain) in golden_chunks() {
        let (offset, digest) = (bytes.len(), artifacts::Digest::of(&plain));
        assert_eq!(coder.encode(&plain, None, effort, &mut bytes), codec);
        let (stored, len) = ((bytes.len() - offset) as u32, plain.len() as u32);
        index.extend_from_slice(digest.as_bytes());
        index.extend_from_slice(&stored.to_le_bytes());
        index.extend_from_slice(&len.to_le_bytes());
        index.push(codec.into());
        chunks.push(ChunkRef {
            digest,
            len,
            pack: pack.clone(),
            offset: offset as u64,
            stored,
            codec,
            base: None,
            seal: None,
        });
    }
    let count = chunks.len() as u32;
    bytes.extend_from_slice(&index);
    bytes.extend_from_slice(artifacts::Digest::of(&bytes).as_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(pack::MAGIC);
    let tree = |version, entries| Manifest {
        version,
        kind: artifacts::Kind::Checkpoint,
        step: Some(7),
        name: "golden".into(),
        single_file: false,
        created_ms: 1_700_000_000_000,
        bases: Vec::new(),
        entries,
    };
    let second = tree(2, golden_entries(&pack, chunks));
    // The first version: chunks end to end and nothing after them.
    let old = ObjectKey::pack("run", 1, 1).unwrap();
    let (mut plain, mut chunks) = (Vec::new(), Vec::new());
    for (.., chunk) in golden_chunks() {
        let (digest, len) = (artifacts::Digest::of(&chunk), chunk.len() as u32);
        let offset = plain.len() as u64;
        chunks.push(ChunkRef {
            digest,
            len,
            pack: old.clone(),
            offset,
            stored: len,
            codec: Codec::Raw,
            base: None,
            seal: None,
        });
        plain.extend(chunk);
    }
    let first = tree(1, golden_entries(&old, chunks));
    for (key, bytes) in [
        (pack, bytes),
        (ObjectKey::manifest("run", 2, 1).unwrap(), second.to_bytes()),
        (old, plain),
        (ObjectKey::manifest("run", 1, 1).unwrap(), first.to_bytes()),
    ] {
        let path = root.join(key.as_str());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Stores that exist stay readable, whatever becomes of the coders: what the
/// first version stored, and a chunk of every codec and every coding of a
/// plane, byte for byte as they were written.
#[tokio::test]
async fn what_earlier_programs_stored_is_restored() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    if std::env::var_os("OUTLAST_BLESS").is_some() {
        bless(&kept);
    }
    let dir = tempfile::tempdir().unwrap();
    let objects = dir.path().join("store");
    let copied = Command::new("cp").arg("-r").args([&kept, &objects]).status().unwrap();
    assert!(copied.success());
    let store = FsStore::open(&objects).unwrap();
    let expected = golden_chunks();
    for generation in [1, 2] {
        let key = ObjectKey::manifest("run", generation, 1).unwrap();
        let manifest = load_manifest(&store, &key, None).await.unwrap();
        assert_eq!(u64::from(manifest.version), generation);
        let pack = fs::read(objects.join(ObjectKey::pack("run", generation, 1).unwrap().as_str())).unwrap();
        assert_eq!(pack::index(&pack).is_ok(), generation == 2);
        let rust = dir.path().join(format!("rust-{generation}"));
        restore(&store, &manifest, &rust).await.unwrap();
        for (number, (codec, _, plain)) in expected.iter().enumerate() {
            let name = format!("part-{number}");
            assert!(fs::read(rust.join(&name)).unwrap() == *plain, "{name} of version {generation}");
            let entry = manifest.entries.iter().find(|entry| entry.path == name).unwrap();
            let Node::File { chunks, .. } = &entry.node else { panic!("a file") };
            assert_eq!(chunks[0].codec, if generation == 2 { *codec } else { Codec::Raw });
        }
        let all: Vec<u8> = expected.iter().flat_map(|(.., plain)| plain.clone()).collect();
        assert!(fs::read(rust.join("link")).unwrap() == all);
        let read = dir.path().join(format!("python-{generation}"));
        let rig = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/rigs/read_artifact.py");
        let out = Command::new(python())
            .arg("-B")
            .arg(rig)
            .args([&objects, Path::new(key.as_str()), &read])
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let same = Command::new("diff").arg("-r").args([&rust, &read]).status().unwrap();
        assert!(same.success());
    }
}
