//! Measures one store operation per call, for `tests/bench/artifacts.py`:
//!
//! - `publish STORE GENERATION PATH`: everything under the generation's keys;
//!   what earlier generations hold is not sent again;
//! - `restore STORE GENERATION DESTINATION`, and `verify STORE GENERATION`;
//! - `codec FILE`: the codecs alone, on one core, by chunks of 1 MiB.
//!
//! Prints one line of JSON: seconds, bytes, peak memory.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for measurements")]

use std::path::Path;
use std::time::Instant;

use artifacts::codec::{Coder, Effort};
use artifacts::index::MemoryIndex;
use artifacts::restore::{load_manifest, restore, verify};
use artifacts::store::FsStore;
use artifacts::{KeySpace, Manifest, ObjectKey, Selection, Store, publish};
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
    let mut keys = KeySpace { scope: "run".into(), generation, pack_seq: 0, manifest_seq: 0 };
    let began = Instant::now();
    let published = publish(&selection, &mut keys, &store, &index).await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let bytes = published.manifest.to_bytes().len();
    json!({
        "seconds": seconds, "bytes": published.total_bytes, "new": published.new_bytes,
        "sent": published.sent_bytes, "manifest": bytes, "packs": keys.pack_seq, "peak_kib": peak_kib(),
    })
}

fn codec(file: &str) -> Value {
    let bytes = std::fs::read(file).unwrap();
    let mut coder = Coder::default();
    let mut out = Vec::new();
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let (mut stored, mut coding, mut decoding) = (0, 0.0, 0.0);
        for chunk in bytes.chunks(1 << 20) {
            out.clear();
            let began = Instant::now();
            let codec = coder.encode(chunk, Effort::Dense, &mut out);
            coding += began.elapsed().as_secs_f64();
            stored += out.len();
            let mut plain = Vec::with_capacity(chunk.len());
            let began = Instant::now();
            coder.decode(codec, &out, chunk.len(), &mut plain).unwrap();
            decoding += began.elapsed().as_secs_f64();
            assert!(plain == chunk, "a chunk comes back as it was");
        }
        rounds.push((coding, decoding, stored));
    }
    let best = |of: fn(&(f64, f64, usize)) -> f64| rounds.iter().map(of).fold(f64::MAX, f64::min);
    let mega = bytes.len() as f64 / 1e6;
    json!({
        "bytes": bytes.len(), "stored": rounds[0].2,
        "encode_mb_s": mega / best(|r| r.0), "decode_mb_s": mega / best(|r| r.1),
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
            let began = Instant::now();
            let restored = restore(&store, &tree, Path::new(destination)).await.unwrap();
            let seconds = began.elapsed().as_secs_f64();
            json!({"seconds": seconds, "bytes": restored.bytes, "peak_kib": peak_kib()})
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
        ["codec", file] => codec(file),
        _ => panic!("usage: measure publish|restore|verify|codec ..."),
    };
    println!("{told}");
}
