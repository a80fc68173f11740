//! What a writer that has the secret can seal, and nobody may believe.

use super::*;
use crate::manifest::{Entry, MAX_BYTES};
use crate::seal::{PrivateKey, ProjectSecret, Sealing};

fn recipient() -> PrivateKey {
    PrivateKey::from_bytes([7; 32])
}

fn pack(seq: u64) -> ObjectKey {
    ObjectKey::pack("run", 1, seq).unwrap()
}

/// A chunk as it would be after it was stored at this offset.
fn chunk(text: &[u8], offset: u64) -> ChunkRef {
    let sealing =
        Sealing::new(&ProjectSecret::from_bytes([3; 32]), &[recipient().public().unwrap()]).unwrap();
    let digest = Digest::of(text);
    let cipher = Some(Digest::of(&[text, b"sealed"].concat()));
    let (len, stored) = (text.len() as u32, text.len() as u32 + 28);
    Location { pack: pack(1), offset, len, stored, codec: Codec::Raw, cipher }.chunk(digest, Some(&sealing))
}

fn file(path: &str, chunks: Vec<ChunkRef>) -> Entry {
    let size = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    Entry { path: path.into(), node: Node::File { mode: 0o644, size, mtime_ms: 5, chunks } }
}

fn tree(entries: Vec<Entry>) -> Manifest {
    Manifest {
        version: VERSION,
        kind: Kind::Checkpoint,
        step: Some(1),
        name: String::new(),
        single_file: false,
        created_ms: 1,
        bases: Vec::new(),
        entries,
    }
}

fn two() -> Manifest {
    tree(vec![file("a", vec![chunk(b"one", 0)]), file("b", vec![chunk(b"other", 31)])])
}

/// An object whose clear part speaks of one tree and whose sealed part holds
/// whatever it is given.
fn forged(clear: &Manifest, packed: Vec<u8>) -> Vec<u8> {
    let packs = clear.packs();
    let (rows, _) = told(clear, &packs).unwrap();
    let to = [recipient().public().unwrap()];
    assemble(|key| clear_text(clear, (&packs, &rows), key, &to), || Ok(packed)).unwrap()
}

fn opened(bytes: &[u8]) -> Result<Manifest, SealError> {
    let sealed = Sealed::parse(bytes).unwrap();
    let key = sealed.unwrap(recipient().public().unwrap().id(), &recipient()).unwrap().unwrap();
    sealed.open(&key)
}

fn keys(tree: &Manifest) -> Zeroizing<Vec<u8>> {
    told(tree, &tree.packs()).unwrap().1
}

#[test]
fn an_honest_one_opens_to_itself() {
    let tree = two();
    let bytes = encode(&tree, &[recipient().public().unwrap()]).unwrap();
    assert_eq!(opened(&bytes).unwrap(), tree);
    assert_eq!(opened(&forged(&tree, packed(keys(&tree), &tree.to_bytes()).unwrap())).unwrap(), tree);
}

#[test]
fn a_tree_that_leaves_its_place_or_contradicts_itself_is_refused() {
    let to = [recipient().public().unwrap()];
    for path in ["../x", "/etc/passwd", "a/../../b", ".tmp-outlast-1", ""] {
        let bytes = encode(&tree(vec![file(path, vec![chunk(b"one", 0)])]), &to).unwrap();
        assert!(matches!(opened(&bytes), Err(SealError::Manifest(_))), "{path}");
    }
    let mut longer = two();
    if let Node::File { size, .. } = &mut longer.entries[0].node {
        *size += 1;
    }
    let twice = tree(vec![file("a", vec![chunk(b"one", 0)]), file("a", vec![chunk(b"other", 31)])]);
    for bad in [longer, twice] {
        assert!(matches!(opened(&encode(&bad, &to).unwrap()), Err(SealError::Manifest(_))));
    }
}

#[test]
fn the_two_parts_must_be_of_one_tree() {
    let clear = two();
    let inner = |change: fn(&mut Manifest)| {
        let mut other = two();
        change(&mut other);
        packed(keys(&clear), &other.to_bytes()).unwrap()
    };
    type Change = (&'static str, fn(&mut Manifest));
    let changes: [Change; 7] = [
        ("a chunk less", |tree| drop(tree.entries.pop())),
        ("a chunk elsewhere", |tree| tree.entries[0] = file("a", vec![chunk(b"one", 1)])),
        ("a chunk in another pack", |tree| {
            tree.entries[0] = file("a", vec![ChunkRef { pack: pack(2), ..chunk(b"one", 0) }]);
        }),
        ("a longer chunk", |tree| tree.entries[0] = file("a", vec![chunk(b"four", 0)])),
        ("another step", |tree| tree.step = Some(2)),
        ("another kind", |tree| tree.kind = Kind::Outputs),
        ("an ordinary version", |tree| tree.version = 2),
    ];
    for (what, change) in changes {
        let error = opened(&forged(&clear, inner(change))).unwrap_err();
        assert!(matches!(error, SealError::Manifest(_)), "{what}: {error}");
    }
}

#[test]
fn a_sealed_part_that_is_none_is_refused_and_no_room_is_taken_for_it() {
    let clear = two();
    let honest = packed(keys(&clear), &clear.to_bytes()).unwrap();
    let sized = |size: u32| [&size.to_le_bytes()[..], &honest[4..]].concat();
    let right = u32::from_le_bytes(honest[..4].try_into().unwrap());
    let bomb = {
        let mut frame = vec![0; 1 << 20];
        let size = zstd_safe::compress(&mut frame, &vec![b' '; 200 << 20], 1).unwrap();
        [&(200_u32 << 20).to_le_bytes()[..], &frame[..size]].concat()
    };
    for bad in [
        Vec::new(),
        honest[..3].to_vec(),
        honest[..honest.len() - 1].to_vec(),
        sized(right - 1),
        sized(right + 1),
        sized(63),
        sized(u32::MAX),
        sized((MAX_BYTES + 65) as u32),
        bomb,
        packed(Zeroizing::new(vec![0; 64]), b"{}").unwrap(),
        packed(Zeroizing::new(vec![0; 64]), b"").unwrap(),
    ] {
        let error = opened(&forged(&clear, bad)).unwrap_err();
        assert!(matches!(error, SealError::Manifest(_)), "{error}");
    }
}

#[test]
fn a_recipient_that_was_given_another_key_is_told() {
    let clear = two();
    let to = [recipient().public().unwrap()];
    let bytes = encode(&clear, &to).unwrap();
    let other = encode(&clear, &to).unwrap();
    let boxed = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).unwrap();
        let at = text.find("\"recipients\"").unwrap();
        text[at..at + text[at..].find("]]").unwrap()].to_owned()
    };
    let text = String::from_utf8(bytes.clone()).unwrap().replace(&boxed(&bytes), &boxed(&other));
    let sealed = Sealed::parse(text.as_bytes()).unwrap();
    let found = sealed.unwrap(to[0].id(), &recipient()).unwrap();
    assert!(matches!(found, Err(SealError::Damaged(_))));
}

#[test]
fn what_a_later_version_sealed_is_told_as_that_and_not_as_damage() {
    let clear = two();
    let mut same_shape = two();
    same_shape.version = 99;
    for inner in [same_shape.to_bytes(), br#"{"version":99,"shape":"new"}"#.to_vec()] {
        let error = opened(&forged(&clear, packed(keys(&clear), &inner).unwrap())).unwrap_err();
        assert_eq!(error, SealError::Manifest(ManifestError::Version(99)));
    }
}

/// Long names compress to nothing: what is sealed is far below the bound, and
/// what it opens to is at it.
#[test]
fn a_writer_seals_what_its_reader_takes_and_nothing_above() {
    let segments = format!("{}/", "n".repeat(199)).repeat(21);
    let long = |number: usize, len: usize| {
        let mut path = format!("{number:06}{}", &segments[..len - 6]);
        path.replace_range(len - 1.., "n");
        Entry { path, node: Node::Dir { mode: 0o755 } }
    };
    let bytes = |count: usize| tree((0..count).map(|number| long(number, 4_000)).collect()).to_bytes().len();
    let (two, each) = (bytes(2), bytes(3) - bytes(2));
    let count = 2 + (MAX_BYTES as usize - two) / each;
    // The names of many are a little longer, for what is left of the last.
    let mut lack = MAX_BYTES as usize - two - (count - 2) * each;
    let entries = (0..count).map(|number| {
        let more = lack.min(90);
        lack -= more;
        long(number, 4_000 + more)
    });
    let mut whole = tree(entries.collect());
    assert_eq!(whole.to_bytes().len() as u64, MAX_BYTES);
    let to = [recipient().public().unwrap()];
    let bytes = encode(&whole, &to).unwrap();
    assert!(bytes.len() < 4 << 20, "{}", bytes.len());
    assert!(opened(&bytes).unwrap() == whole);
    whole.entries[0] = long(0, whole.entries[0].path.len() + 1);
    let refused = encode(&whole, &to).unwrap_err();
    assert_eq!(refused, SealError::Manifest(ManifestError::TooLarge(MAX_BYTES + 1)));
}
