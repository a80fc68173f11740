//! The written format against programs that know nothing of this crate:
//! files that NumPy, Safetensors and PyTorch's layout make are cut at their
//! records, and a reader of a hundred lines of Python restores what was
//! published, whatever its codecs.
#![allow(clippy::unwrap_used, reason = "every function here is part of a test")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use artifacts::codec::Codec;
use artifacts::index::MemoryIndex;
use artifacts::manifest::Node;
use artifacts::store::{FsStore, MemoryStore};
use artifacts::{KeySpace, Manifest, Published, Selection, Store, pack, publish};

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
    let done = venv.join("whole");
    if !done.exists() {
        let run = |command: &mut Command| {
            let out = command.output().unwrap();
            assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
        };
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv.join("new")));
        let new = venv.join("new");
        run(Command::new(new.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["blake3", "lz4", "numpy", "safetensors", "zstandard"]));
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
os.symlink('../text', f'{sys.argv[1]}/tree/sub/link')
np.savez(f'{sys.argv[1]}/tree/state.npz', a=weights, b=sparse, c=np.zeros(300_000, np.float32))
";

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
    let rig = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/rigs/read_artifact.py");
    assert!(fs::read_to_string(&rig).unwrap().lines().count() <= 100);
    let out = Command::new(python())
        .arg("-B")
        .arg(rig)
        .args([&objects, Path::new(published.manifest_key.as_str()), &dir.path().join("back")])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let same = Command::new("diff").arg("-r").args([&tree, &dir.path().join("back")]).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
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
