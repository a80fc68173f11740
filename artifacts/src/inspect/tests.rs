//! What is in stored files, and in what trees differ.

use serde_json::json;

use super::*;
use crate::Kind;
use crate::index::MemoryIndex;
use crate::publish::{About, KeySpace, publish_bytes};
use crate::store::MemoryStore;

/// A store that trees are put into.
#[derive(Default)]
struct Shelf {
    store: MemoryStore,
    index: MemoryIndex,
    trees: u64,
}

impl Shelf {
    async fn put(&mut self, files: &[(&str, Vec<u8>)]) -> Manifest {
        self.trees += 1;
        let single_file = files.len() == 1;
        let about =
            About { kind: Kind::Checkpoint, step: None, name: String::new(), single_file, created_ms: 1 };
        let mut keys = KeySpace { scope: "r".into(), generation: self.trees, pack_seq: 0, manifest_seq: 0 };
        let files: Vec<(String, Vec<u8>)> =
            files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect();
        let put = publish_bytes(&files, &about, &mut keys, &self.store, &self.index).await.unwrap();
        self.index.add(&put.manifest);
        put.manifest
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn safetensors(tensors: &[(&str, &str, Vec<u64>, Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let from = data.len();
        data.extend_from_slice(bytes);
        let told = json!({"dtype": dtype, "shape": shape, "data_offsets": [from, data.len()]});
        header.insert((*name).to_owned(), told);
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

/// An archive with stored records.
fn zip(records: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in records {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(bytes);
        let (local, size) = (out.len() as u32, (bytes.len() as u32).to_le_bytes());
        let crc = hasher.finalize().to_le_bytes();
        let length = (name.len() as u16).to_le_bytes();
        let common = [&[0; 2][..], &[0; 2], &[0; 4], &crc, &size, &size, &length, &[0; 2]].concat();
        out.extend([&b"PK\x03\x04"[..], &[20, 0], &common, name.as_bytes(), bytes].concat());
        let place = [&[0; 2][..], &[0; 2], &[0; 2], &[0; 4], &local.to_le_bytes()].concat();
        directory.extend([&b"PK\x01\x02"[..], &[20, 0, 20, 0], &common, &place, name.as_bytes()].concat());
    }
    let count = (records.len() as u16).to_le_bytes();
    let (size, at) = ((directory.len() as u32).to_le_bytes(), (out.len() as u32).to_le_bytes());
    out.extend([&directory[..], b"PK\x05\x06", &[0; 4], &count, &count, &size, &at, &[0; 2]].concat());
    out
}

fn array(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
}

#[tokio::test]
async fn any_range_of_a_file_reads_as_it_was_written() {
    let mut shelf = Shelf::default();
    let bytes = noise(1, 3_000_000);
    let tree = shelf.put(&[("a", bytes.clone()), ("b", Vec::new())]).await;
    let file = Stored::open(&shelf.store, &tree, "a").unwrap();
    for range in [0..0, 0..1, 0..3_000_000, 1_048_575..1_048_577, 2_999_990..9_000_000, 3_000_000..3_000_001]
    {
        let expected = &bytes[range.start as usize..(range.end as usize).min(bytes.len())];
        assert!(file.read(range.clone()).await.unwrap() == expected, "{range:?}");
    }
    assert!(Stored::open(&shelf.store, &tree, "c").is_none());
    let empty = Stored::open(&shelf.store, &tree, "b").unwrap();
    assert_eq!(
        (empty.size(), empty.read(0..9).await.unwrap(), empty.pieces().await.unwrap()),
        (0, vec![], None)
    );
}

#[tokio::test]
async fn tensors_are_compared_by_name() {
    let mut shelf = Shelf::default();
    let kept = noise(2, 300_000);
    let first = safetensors(&[
        ("gone", "F32", vec![4], noise(3, 16)),
        ("kept", "F32", vec![75_000], kept.clone()),
        ("cast", "F32", vec![4], noise(4, 16)),
        ("moved", "F32", vec![250_000], noise(5, 1_000_000)),
    ]);
    let second = safetensors(&[
        ("kept", "F32", vec![75_000], kept),
        ("cast", "I32", vec![4], noise(4, 16)),
        ("moved", "F32", vec![250_000], noise(6, 1_000_000)),
        ("added", "BF16", vec![2, 2], noise(7, 8)),
    ]);
    let (one, other) =
        (shelf.put(&[("m.safetensors", first)]).await, shelf.put(&[("m.safetensors", second)]).await);
    let found = difference(&shelf.store, &one, &other).await.unwrap();
    let [file] = found.entries.as_slice() else { panic!("{found:?}") };
    let told: Vec<(String, &How)> = file
        .pieces
        .iter()
        .map(|(how, a, b)| (a.as_ref().or(b.as_ref()).unwrap().name.clone(), how))
        .collect();
    let expected =
        [("added", How::Added), ("cast", How::Changed), ("gone", How::Removed), ("moved", How::Changed)];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((name, how), (wanted, as_what)) in told.iter().zip(&expected) {
        assert_eq!((name.as_str(), *how), (*wanted, as_what));
    }
    assert_eq!(file.same_pieces, 1, "it lies elsewhere in the file, with the same bytes");
    let same = difference(&shelf.store, &one, &one).await.unwrap();
    assert_eq!((same.entries.len(), same.same_files, same.same_bytes), (0, 1, one.total_bytes()));
}

#[tokio::test]
async fn archives_are_compared_by_record_and_arrays_tell_what_they_are() {
    let mut shelf = Shelf::default();
    let first = zip(&[("w.npy", array("<f4", "(2, 3)", &noise(1, 24))), ("data/0", noise(2, 500))]);
    let second = zip(&[("w.npy", array("<f4", "(2, 3)", &noise(9, 24))), ("data/0", noise(2, 500))]);
    let one = shelf.put(&[("step-1.npz", first)]).await;
    let other = shelf.put(&[("step-2.npz", second)]).await;
    let found = difference(&shelf.store, &one, &other).await.unwrap();
    let [file] = found.entries.as_slice() else { panic!("{found:?}") };
    assert_eq!(file.path, "step-1.npz -> step-2.npz", "one file is compared with one file");
    let [(How::Changed, Some(before), Some(_))] = file.pieces.as_slice() else { panic!("{file:?}") };
    assert_eq!(
        (before.name.as_str(), before.dtype.as_deref(), before.shape.clone()),
        ("w.npy", Some("<f4"), Some(vec![2, 3]))
    );
    assert_eq!(file.same_pieces, 1);
}

#[tokio::test]
async fn files_that_come_and_go_are_told_with_their_sizes() {
    let mut shelf = Shelf::default();
    let one = shelf.put(&[("a", noise(1, 100)), ("b", noise(2, 2_000_000)), ("same", noise(3, 10))]).await;
    let other = shelf.put(&[("b", noise(2, 1_999_999)), ("c", noise(4, 7)), ("same", noise(3, 10))]).await;
    let found = difference(&shelf.store, &one, &other).await.unwrap();
    let told: Vec<_> = found.entries.iter().map(|e| (e.path.as_str(), &e.how, e.before, e.after)).collect();
    assert_eq!(
        told,
        [
            ("a", &How::Removed, Some(100), None),
            ("b", &How::Changed, Some(2_000_000), Some(1_999_999)),
            ("c", &How::Added, None, Some(7)),
        ]
    );
    assert_eq!((found.same_files, found.same_bytes), (1, 10));
}

#[tokio::test]
async fn hostile_headers_make_one_piece() {
    let mut shelf = Shelf::default();
    let mut long = safetensors(&[("w", "F32", vec![4], noise(3, 16))]);
    long[7] = 0x7f;
    let mut beyond = safetensors(&[("w", "F32", vec![4], noise(3, 16))]);
    beyond.truncate(beyond.len() - 1);
    let mut archive = zip(&[("w.npy", array("<f4", "(2, 3)", &noise(1, 24)))]);
    let at = archive.len() - 6;
    archive[at..at + 4].copy_from_slice(&[0xf0; 4]);
    for bytes in [long, beyond, archive, b"PK\x03\x04".to_vec(), b"{}".to_vec(), noise(8, 5_000)] {
        let tree = shelf.put(&[("f", bytes)]).await;
        assert_eq!(Stored::open(&shelf.store, &tree, "f").unwrap().pieces().await.unwrap(), None);
    }
}
