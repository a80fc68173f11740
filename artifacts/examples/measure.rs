//! Measures one store operation per call, for `tests/bench/artifacts.py`:
//!
//! - `publish STORE GENERATION PATH`: everything under the generation's keys;
//!   what earlier generations hold is not sent again;
//! - `restore STORE GENERATION DESTINATION`, and `verify STORE GENERATION`;
//! - `codec FILE [BASE]`: the codecs alone, on one core, by chunks of 1 MiB; of
//!   the differences to BASE, if it is given;
//! - `unchanged TREE`: what finding out takes that a source tree is the one that
//!   was sent before;
//! - `sync STORE TREE`: a source tree, as `publish` under generation 1;
//! - `later DIRECTORY BASE FILE`: what FILE takes on a link of 25 MB/s once BASE
//!   is in the store and kept for differences in DIRECTORY.
//!
//! Prints one line of JSON: seconds, bytes, peak memory.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for measurements")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use artifacts::codec::{Base, Coder, Effort};
use artifacts::index::MemoryIndex;
use artifacts::publish::Keyframe;
use artifacts::restore::{load_manifest, restore, verify};
use artifacts::source::{Personal, fingerprint, select_source};
use artifacts::store::{FsStore, MemoryStore};
use artifacts::{
    Digest, KeySpace, Kind, Manifest, ObjectKey, Put, Selection, Store, StoreError, publish, publish_against,
};
use async_trait::async_trait;
use serde_json::{Value, json};

fn peak_kib() -> Value {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    json!(line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()))
}

async fn manifest(store: &FsStore, generation: u64) -> Option<Manifest> {
    let key = ObjectKey::manifest("run", generation, 0).unwrap();
    load_manifest(store, &key, None).await.ok()
}

async fn put(store: &str, generation: u64, path: &str) -> Value {
    let store = FsStore::open(store).unwrap();
    let index = MemoryIndex::default();
    for earlier in 1..generation {
        index.add(&manifest(&store, earlier).await.unwrap());
    }
    let selection = Selection::checkpoint(Path::new(path), Some(1), 1).unwrap();
    put_selection(&selection, &store, &index, generation).await
}

async fn put_selection(
    selection: &Selection,
    store: &FsStore,
    index: &MemoryIndex,
    generation: u64,
) -> Value {
    let mut keys = KeySpace { scope: "run".into(), generation, pack_seq: 0, manifest_seq: 0 };
    let began = Instant::now();
    let published = publish(selection, &mut keys, store, index).await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let bytes = published.manifest.to_bytes().len();
    json!({
        "seconds": seconds, "bytes": published.total_bytes, "new": published.new_bytes,
        "sent": published.sent_bytes, "manifest": bytes, "packs": keys.pack_seq, "peak_kib": peak_kib(),
    })
}

fn source(tree: &str) -> Vec<String> {
    select_source(Path::new(tree), &[], &[], &Personal::default()).unwrap().paths
}

fn unchanged(tree: &str) -> Value {
    let began = Instant::now();
    let paths = source(tree);
    let state = fingerprint(Path::new(tree), &paths, SystemTime::now());
    let seconds = began.elapsed().as_secs_f64();
    json!({"seconds": seconds, "files": paths.len(), "known": state.is_some(), "peak_kib": peak_kib()})
}

async fn sync(store: &str, tree: &str) -> Value {
    let root = Path::new(tree).to_owned();
    let selection = Selection {
        paths: source(tree),
        root,
        kind: Kind::Source,
        step: None,
        name: String::new(),
        single_file: false,
        created_ms: 1,
    };
    put_selection(&selection, &FsStore::open(store).unwrap(), &MemoryIndex::default(), 1).await
}

/// A link of 25 MB/s: on a faster one than its core, no publisher codes much.
struct Slow(MemoryStore);

#[async_trait]
impl Store for Slow {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        tokio::time::sleep(Duration::from_secs_f64(bytes.len() as f64 / 25e6)).await;
        self.0.put_if_absent(key, bytes).await
    }
    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.0.get(key, offset, len).await
    }
    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.0.size(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        self.0.list(prefix).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.0.delete(key).await
    }
}

async fn later(dir: &str, base: &str, file: &str) -> Value {
    let (store, index) = (Slow(MemoryStore::default()), MemoryIndex::default());
    let mut keys = KeySpace { scope: "run".into(), generation: 1, pack_seq: 0, manifest_seq: 0 };
    let mut kept = None;
    let mut sent = Vec::new();
    for path in [base, file] {
        let path = Path::new(path);
        let selection = Selection::checkpoint(path, Some(1), 1).unwrap();
        let published = publish_against(kept.clone(), &selection, &mut keys, &store, &index, || true);
        let published = published.await.unwrap();
        verify(&store, &published.manifest).await.unwrap();
        index.add(&published.manifest);
        sent.push((published.sent_bytes, published.total_bytes));
        if kept.is_none() {
            let copy =
                Keyframe::take(path.parent().unwrap(), &published.manifest, &Path::new(dir).join("kept"));
            kept = copy.unwrap().map(Arc::new);
        }
    }
    kept.iter().for_each(|kept| kept.discard());
    json!({"bytes": sent[1].1, "sent": sent[1].0, "alone": sent[0].0, "peak_kib": peak_kib()})
}

/// What lies behind the header of a Safetensors file.
fn data(file: &str) -> Vec<u8> {
    let bytes = std::fs::read(file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    bytes[8 + usize::try_from(header).unwrap()..].to_vec()
}

fn codec(file: &str, base: Option<&str>) -> Value {
    let (bytes, then) = (data(file), base.map(data));
    let mut coder = Coder::default();
    let mut out = Vec::new();
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let (mut stored, mut coding, mut decoding) = (0, 0.0, 0.0);
        for (number, chunk) in bytes.chunks(1 << 20).enumerate() {
            let then = then.as_ref().and_then(|then| then.get(number << 20..)?.get(..chunk.len()));
            let digest = Digest::of(then.unwrap_or_default());
            let base = then.map(|bytes| Base { digest: &digest, bytes });
            out.clear();
            let began = Instant::now();
            let codec = coder.encode(chunk, base, Effort::Dense, &mut out);
            coding += began.elapsed().as_secs_f64();
            stored += out.len();
            let mut plain = Vec::with_capacity(chunk.len());
            let began = Instant::now();
            coder.decode(codec, &out, base, chunk.len(), &mut plain).unwrap();
            decoding += began.elapsed().as_secs_f64();
            assert!(plain == chunk, "a chunk comes back as it was");
        }
        rounds.push((coding, decoding, stored));
    }
    let best = |of: fn(&(f64, f64, usize)) -> f64| rounds.iter().map(of).fold(f64::MAX, f64::min);
    let (encode, decode) = (best(|r| r.0), best(|r| r.1));
    let mega = bytes.len() as f64 / 1e6;
    // Whatever is coded is decoded again before it is believed: without that it
    // would take so much less.
    json!({
        "bytes": bytes.len(), "stored": rounds[0].2, "code_mb_s": mega / (encode - decode),
        "encode_mb_s": mega / encode, "decode_mb_s": mega / decode,
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let told = match arguments[..] {
        ["publish", store, generation, path] => put(store, generation.parse().unwrap(), path).await,
        ["restore", store, generation, destination] => {
            let store = FsStore::open(store).unwrap();
            let tree = manifest(&store, generation.parse().unwrap()).await.unwrap();
            let loaded = peak_kib();
            let began = Instant::now();
            let restored = restore(&store, &tree, Path::new(destination)).await.unwrap();
            let seconds = began.elapsed().as_secs_f64();
            json!({"seconds": seconds, "bytes": restored.bytes, "loaded_kib": loaded, "peak_kib": peak_kib()})
        }
        ["verify", store, generation] => {
            let store: &dyn Store = &FsStore::open(store).unwrap();
            let key = ObjectKey::manifest("run", generation.parse().unwrap(), 0).unwrap();
            let tree = load_manifest(store, &key, None).await.unwrap();
            let began = Instant::now();
            let verified = verify(store, &tree).await.unwrap();
            let seconds = began.elapsed().as_secs_f64();
            json!({"seconds": seconds, "bytes": verified.bytes, "peak_kib": peak_kib()})
        }
        ["unchanged", tree] => unchanged(tree),
        ["sync", store, tree] => sync(store, tree).await,
        ["codec", file] => codec(file, None),
        ["codec", file, base] => codec(file, Some(base)),
        ["later", dir, base, file] => later(dir, base, file).await,
        _ => panic!("usage: measure publish|restore|verify|unchanged|sync|codec|later ..."),
    };
    println!("{told}");
}
