//! The committed bindings are what the `.proto` files say. With
//! `OUTLAST_BLESS=1` the test writes them instead of comparing.

use std::path::Path;

#[test]
fn bindings_match_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = root.join("proto");
    let files: Vec<_> =
        ["join", "agent", "artifact", "health", "operator"].map(|n| format!("outlast/v1/{n}.proto")).to_vec();
    let set = protox::compile(&files, [&source]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .build_transport(false)
        .codec_path("crate::codec::LeanCodec")
        .type_attribute(".outlast.v1", "#[derive(serde::Serialize)]")
        // Keys, and URLs whose holder may write: shown by nothing, written by
        // nothing but the wire.
        .skip_debug([
            "outlast.v1.BookletLeaf",
            ".outlast.v1.Sealing",
            ".outlast.v1.Secret",
            ".outlast.v1.UnsealReply",
        ])
        .field_attribute("outlast.v1.BookletLeaf.put", "#[serde(skip)]")
        .field_attribute("outlast.v1.BookletLeaf.look", "#[serde(skip)]")
        .field_attribute(".outlast.v1.Work.sealing", "#[serde(skip)]")
        .field_attribute(".outlast.v1.Sealing.secret", "#[serde(skip)]")
        .field_attribute(".outlast.v1.Secret.value", "#[serde(skip)]")
        .field_attribute(".outlast.v1.UnsealReply.manifest_opens", "#[serde(skip)]")
        .out_dir(out.path())
        .compile_fds(set)
        .unwrap();
    let made = std::fs::read_to_string(out.path().join("outlast.v1.rs")).unwrap();
    let kept = root.join("src/generated/outlast.v1.rs");
    if std::env::var_os("OUTLAST_BLESS").is_some() {
        std::fs::write(&kept, &made).unwrap();
    }
    assert!(
        std::fs::read_to_string(&kept).unwrap_or_default() == made,
        "src/generated is out of date: run OUTLAST_BLESS=1 cargo test -p proto"
    );
}
