//! Writes the part of the fuzzers' corpus that this crate itself writes:
//! manifests, packs and chunks of each codec. `make_corpus fuzz/corpus`.

use std::path::Path;

use artifacts::codec::{Coder, Effort};
use artifacts::index::MemoryIndex;
use artifacts::publish::About;
use artifacts::store::MemoryStore;
use artifacts::{KeySpace, Kind, Store, publish_bytes};

fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let mut noise = vec![0; 300];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut noise);
    let floats: Vec<u8> =
        (0..400_u16).flat_map(|n| (1.0 + f32::from(n % 37) / 9000.0).to_le_bytes()).collect();
    vec![
        ("zeros", vec![0; 500]),
        ("pattern", [1, 2, 3, 4].repeat(100)),
        ("text", b"text that repeats itself ".repeat(30)),
        ("floats", floats),
        ("noise", noise),
    ]
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args().nth(1).ok_or("where to?")?;
    let root = Path::new(&root);
    for target in ["manifest", "pack", "decode", "cut"] {
        std::fs::create_dir_all(root.join(target))?;
    }
    let mut coder = Coder::default();
    for (name, plain) in samples() {
        for (effort, text) in [(Effort::Dense, "dense"), (Effort::Light, "light")] {
            let mut stored = Vec::new();
            let codec = coder.encode(&plain, None, effort, &mut stored);
            let len = (plain.len() as u32).to_le_bytes();
            let bytes = [&[u8::from(codec), len[0], len[1], len[2]], stored.as_slice()].concat();
            std::fs::write(root.join("decode").join(format!("{name}-{text}")), bytes)?;
        }
        let store = MemoryStore::default();
        let about = About {
            kind: Kind::Checkpoint,
            step: Some(7),
            name: name.into(),
            single_file: false,
            created_ms: 1,
        };
        let mut keys = KeySpace { scope: "run".into(), generation: 1, pack_seq: 0, manifest_seq: 0 };
        let files =
            [("a/b".to_owned(), plain), ("c".to_owned(), b"small".to_vec()), ("none".to_owned(), Vec::new())];
        let published = publish_bytes(&files, &about, &mut keys, &store, &MemoryIndex::default()).await?;
        std::fs::write(root.join("manifest").join(name), published.manifest.to_bytes())?;
        let pack = published.manifest.packs().remove(0);
        let size = store.size(&pack).await?.unwrap_or(0);
        std::fs::write(root.join("pack").join(name), store.get(&pack, 0, size).await?)?;
    }
    Ok(())
}
