//! What a manifest may say, and what is refused.

use super::*;

fn chunk(text: &[u8]) -> ChunkRef {
    ChunkRef {
        digest: Digest::of(text),
        len: text.len() as u32,
        pack: ObjectKey::pack("source", 1, 1).unwrap(),
        offset: 0,
        stored: text.len() as u32,
        codec: Codec::Raw,
        base: None,
        seal: None,
    }
}

fn file(path: &str, text: &[u8]) -> Entry {
    let chunks = if text.is_empty() { Vec::new() } else { vec![chunk(text)] };
    let node = Node::File { mode: 0o644, size: text.len() as u64, mtime_ms: 5, chunks };
    Entry { path: path.into(), node }
}

fn link(path: &str, target: &str) -> Entry {
    Entry { path: path.into(), node: Node::Symlink { target: target.into() } }
}

fn tree(entries: Vec<Entry>) -> Manifest {
    Manifest {
        version: 2,
        kind: Kind::Source,
        step: None,
        name: String::new(),
        single_file: false,
        created_ms: 1,
        bases: Vec::new(),
        entries,
    }
}

fn good() -> Manifest {
    let dir = Entry { path: "d".into(), node: Node::Dir { mode: 0o755 } };
    tree(vec![file("a", b"one"), dir, file("d-x", b""), file("d/b", b"two"), link("d/l", "../a")])
}

#[test]
fn bytes_are_canonical_and_survive() {
    let manifest = good();
    let bytes = manifest.to_bytes();
    let back = Manifest::parse(&bytes).unwrap();
    assert_eq!(back, manifest);
    let mut shuffled = manifest.clone();
    shuffled.entries.reverse();
    assert_eq!(shuffled.to_bytes(), bytes);
    assert_eq!(shuffled.content_digest(), manifest.content_digest());
    assert_eq!(manifest.total_bytes(), 6);
    assert_eq!(manifest.packs(), [ObjectKey::pack("source", 1, 1).unwrap()]);
}

#[test]
fn content_digest_sees_content_only() {
    let manifest = good();
    let digest = manifest.content_digest();
    let mut moved = manifest.clone();
    moved.created_ms = 9;
    let Node::File { mtime_ms, chunks, .. } = &mut moved.entries[0].node else { panic!() };
    *mtime_ms = 77;
    chunks[0].pack = ObjectKey::pack("source", 2, 9).unwrap();
    chunks[0].offset = 4;
    assert_eq!(moved.content_digest(), digest);
    for change in [
        (|m: &mut Manifest| m.entries[0] = file("a", b"eno")) as fn(&mut Manifest),
        |m| m.entries[0].path = "b".into(),
        |m| m.entries[1].node = Node::Dir { mode: 0o700 },
        |m| m.entries[4] = link("d/l", "../d-x"),
    ] {
        let mut changed = manifest.clone();
        change(&mut changed);
        assert_ne!(changed.content_digest(), digest);
    }
}

#[test]
fn hostile_trees_are_refused() {
    let mut setuid = file("a", b"x");
    setuid.node = Node::File { mode: 0o4755, size: 0, mtime_ms: 0, chunks: Vec::new() };
    let mut wrong_sum = file("a", b"x");
    wrong_sum.node = Node::File { mode: 0o644, size: 2, mtime_ms: 0, chunks: vec![chunk(b"x")] };
    let odd = |change: fn(&mut ChunkRef)| {
        let mut bad = chunk(b"x");
        change(&mut bad);
        let size = u64::from(bad.len);
        let node = Node::File { mode: 0o644, size, mtime_ms: 0, chunks: vec![bad] };
        vec![Entry { path: "a".into(), node }]
    };
    for entries in [
        vec![file("../a", b"")],
        vec![file("/a", b"")],
        vec![file("a/../b", b"")],
        vec![file("a", b""), file("a", b"")],
        vec![file("b", b""), file("a", b"")],
        vec![file("a", b""), file("a/b", b"")],
        vec![link("a", "b"), file("a-", b""), file("a/b", b"")],
        vec![link("a", "/etc/passwd")],
        vec![link("a", "../x")],
        vec![link("d/a", "x/../..")],
        vec![setuid],
        vec![wrong_sum],
        odd(|c| c.len = 0),
        odd(|c| c.stored = 0),
        odd(|c| c.stored = 2),
        odd(|c| (c.len, c.stored) = (3, 2)),
        odd(|c| (c.codec, c.stored) = (Codec::Zstd, 2)),
        odd(|c| c.len = MAX_CHUNK + 1),
        odd(|c| c.offset = u64::MAX),
        odd(|c| c.pack = ObjectKey::manifest("source", 1, 1).unwrap()),
        odd(|c| c.pack = "elsewhere".parse().unwrap()),
    ] {
        let bytes = tree(entries.clone()).to_bytes();
        // `to_bytes` sorts, so that order is checked on the value itself.
        let refused = Manifest::parse(&bytes).is_err() || tree(entries.clone()).check().is_err();
        assert!(refused, "{entries:?}");
    }
    for change in [
        (|m: &mut Manifest| m.single_file = true) as fn(&mut Manifest),
        |m| m.name = "a/b".into(),
        |m| m.name = "..".into(),
    ] {
        let mut bad = good();
        change(&mut bad);
        assert!(Manifest::parse(&bad.to_bytes()).is_err());
    }
}

#[test]
fn other_versions_and_broken_bytes_are_told_apart() {
    let mut newer = good();
    newer.version = 4;
    assert_eq!(Manifest::parse(&newer.to_bytes()), Err(ManifestError::Version(4)));
    assert_eq!(Manifest::parse(br#"{"version":5,"shape":"new"}"#), Err(ManifestError::Version(5)));
    newer.version = 3;
    assert_eq!(Manifest::parse(&newer.to_bytes()), Err(ManifestError::Sealed));
    assert!(newer.check().is_err(), "a sealed tree with chunks that are not");
    let bytes = good().to_bytes();
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(Manifest::parse(&bytes[..cut]), Err(ManifestError::Malformed(_))), "{cut}");
    }
    let huge = vec![b' '; MAX_BYTES as usize + 1];
    assert_eq!(Manifest::parse(&huge), Err(ManifestError::TooLarge(MAX_BYTES + 1)));
}

/// As the first version wrote it: four fields for a chunk, all of them plain.
#[test]
fn the_first_version_is_read_and_written_as_it_was() {
    let text = format!(
        r#"{{"version":1,"kind":"checkpoint","step":7,"name":"a.pt","single_file":true,"created_ms":5,"packs":["run/g0000000000000001/p00000003"],"entries":[{{"path":"a.pt","node":{{"file":{{"mode":420,"size":3,"mtime_ms":9,"chunks":[["{}",3,0,40]]}}}}}}]}}"#,
        Digest::of(b"abc")
    );
    let manifest = Manifest::parse(text.as_bytes()).unwrap();
    let chunk = manifest.chunks().next().unwrap();
    assert_eq!((chunk.len, chunk.stored, chunk.codec, chunk.end()), (3, 3, Codec::Raw, 43));
    assert_eq!(manifest.to_bytes(), text.as_bytes());
    let coded = text.replace(",3,0,40]", ",3,0,40,2,3]");
    assert!(Manifest::parse(coded.as_bytes()).is_err());
    let second = Manifest::parse(coded.replace(r#""version":1"#, r#""version":2"#).as_bytes()).unwrap();
    let chunk = second.chunks().next().unwrap();
    assert_eq!((chunk.stored, chunk.codec, chunk.end()), (2, Codec::Zstd, 42));
    assert_eq!(Manifest::parse(&second.to_bytes()).unwrap(), second);
    assert_eq!(second.content_digest(), manifest.content_digest(), "coding is no content");
    let unknown = text.replace(",3,0,40]", ",3,0,40,2,99]").replace(r#""version":1"#, r#""version":2"#);
    assert_eq!(
        Manifest::parse(unknown.as_bytes()),
        Err(ManifestError::Codec(99)),
        "no damage: a later codec"
    );
    assert_eq!((manifest.needed_version(), second.needed_version()), (1, 2));
    for bad in [",3,0,40,2]", ",3,0,40,2,999]", ",3,0,40,2,5,0,0]", ",3,0]"] {
        let text = text.replace(",3,0,40]", bad).replace(r#""version":1"#, r#""version":2"#);
        assert!(matches!(Manifest::parse(text.as_bytes()), Err(ManifestError::Malformed(_))), "{bad}");
    }
}

fn with_base() -> Manifest {
    let mut manifest = good();
    let pack = |n| ObjectKey::pack("source", 1, n).unwrap();
    let base = ChunkRef { pack: pack(9), offset: 5, ..chunk(b"eno") };
    manifest.bases = vec![base];
    let Node::File { chunks, .. } = &mut manifest.entries[0].node else { panic!() };
    (chunks[0].codec, chunks[0].stored, chunks[0].base) = (Codec::Delta, 2, Some(0));
    manifest
}

#[test]
fn a_difference_names_its_base_and_keeps_its_pack() {
    let manifest = with_base();
    let bytes = manifest.to_bytes();
    let text = std::str::from_utf8(&bytes).unwrap();
    assert!(text.contains(&format!(r#""bases":[["{}",3,1,5]],"entries""#, Digest::of(b"eno"))), "{text}");
    assert!(text.contains(",3,0,0,2,5,0]"), "{text}");
    assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
    assert_eq!(manifest.packs(), [1, 9].map(|n| ObjectKey::pack("source", 1, n).unwrap()));
    assert_eq!(manifest.needed().count(), 3);
    assert_eq!(manifest.content_digest(), good().content_digest(), "coding is no content");
    let first = |m: &mut Manifest, change: fn(&mut ChunkRef)| {
        let Node::File { chunks, .. } = &mut m.entries[0].node else { panic!() };
        change(&mut chunks[0]);
    };
    for change in [
        &(|m: &mut Manifest| m.bases.clear()) as &dyn Fn(&mut Manifest),
        &|m| m.version = 1,
        &|m| first(m, |c| c.base = None),
        &|m| first(m, |c| c.base = Some(1)),
        &|m| first(m, |c| c.base = Some(u32::MAX)),
        &|m| first(m, |c| c.codec = Codec::Planes),
        &|m| (m.bases[0].len, m.bases[0].stored) = (4, 4),
        &|m| m.bases[0].offset = MAX_PACK,
        &|m| m.bases[0].pack = ObjectKey::manifest("source", 1, 1).unwrap(),
        // Depth one: a base is never a difference itself.
        &|m| (m.bases[0].codec, m.bases[0].base) = (Codec::Delta, Some(0)),
        &|m| m.bases[0].codec = Codec::Delta,
        &|m| m.bases = vec![m.bases[0].clone(); 4],
    ] {
        let mut bad = manifest.clone();
        change(&mut bad);
        assert!(bad.check().is_err() && Manifest::parse(&bad.to_bytes()).is_err(), "{:?}", bad.bases);
    }
}
