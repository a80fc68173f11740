//! Where files are cut: at their records, whatever stands before them.

use std::collections::HashSet;

use super::*;
use crate::Digest;

fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

fn cut(bytes: &[u8]) -> Vec<Vec<u8>> {
    let size = bytes.len() as u64;
    let mut chunker = Chunker::new(bytes, Cuts::new(outline(bytes, size), size));
    let mut out = Vec::new();
    while let Some(chunk) = chunker.next().unwrap() {
        out.push(chunk);
    }
    assert!(out.concat() == bytes && out.iter().all(|chunk| (1..=MAX).contains(&chunk.len())));
    out
}

fn lengths(bytes: &[u8]) -> Vec<usize> {
    cut(bytes).iter().map(Vec::len).collect()
}

/// Other cuts would find nothing of what users have stored.
#[test]
fn the_cut_by_content_is_frozen() {
    let lengths = lengths(&noise(2 << 20));
    assert_eq!(lengths[..6], GOLDEN);
    assert!(lengths.iter().all(|n| *n <= 256 << 10));
    let window = noise(64 << 20);
    for (size, golden) in [(64 << 20, MIDDLE), (512 << 20, LARGE), (1 << 40, LARGE)] {
        let (mut cuts, mut rest) = (Cuts::new(Vec::new(), size), &window[..]);
        let lengths: [usize; 3] = std::array::from_fn(|_| {
            let length = cuts.next(&rest[..rest.len().min(MAX)]);
            rest = &rest[length..];
            length
        });
        assert_eq!(lengths, golden, "{size}");
    }
}

const MIDDLE: [usize; 3] = [531_215, 93_777, 506_155];
const LARGE: [usize; 3] = [1_660_009, 795_372, 1_161_044];
const GOLDEN: [usize; 6] = [32_798, 100_912, 40_249, 68_411, 152_004, 75_528];

#[test]
fn a_stream_is_cut_like_a_slice() {
    let bytes = noise(7_654_321);
    let expected: Vec<usize> =
        FastCDC::new(&bytes, 16 << 10, 64 << 10, 256 << 10).map(|chunk| chunk.length).collect();
    assert_eq!(lengths(&bytes), expected);
    let mut cuts = Cuts::new(Vec::new(), bytes.len() as u64);
    let mut rest = &bytes[..];
    for length in expected {
        assert_eq!(cuts.next(&rest[..rest.len().min(MAX)]), length);
        rest = &rest[length..];
    }
}

#[test]
fn small_files_are_one_chunk_and_huge_ones_are_cut_coarsely() {
    assert_eq!(lengths(&noise(WHOLE)), [WHOLE]);
    assert!(lengths(&noise(WHOLE + 1)).len() > 4);
    assert!(lengths(&[]).is_empty());
    let window = noise(MAX);
    let mut coarse = Cuts::new(Vec::new(), 512 << 20);
    assert!(coarse.next(&window) >= 256 << 10);
    assert!(Cuts::new(Vec::new(), (512 << 20) - 1).next(&window) <= 1 << 20);
    assert!(Cuts::new(Vec::new(), (64 << 20) - 1).next(&window) <= 256 << 10);
}

/// Half a terabyte in files of 2.6 GB, opaque, each chunk as long in the
/// manifest as it can be there.
#[test]
fn half_a_terabyte_fits_into_one_manifest() {
    let bytes = noise(64 << 20);
    for (total, file) in [(500_u64 << 30, 2_600_000_000_u64), (84_000_000_000, 2_600_000_000)] {
        let (mut cuts, mut rest, mut count) = (Cuts::new(Vec::new(), file), &bytes[..], 0_u64);
        while !rest.is_empty() {
            rest = &rest[cuts.next(&rest[..rest.len().min(MAX)])..];
            count += 1;
        }
        let of_file = count * file.div_ceil(bytes.len() as u64);
        let chunks = of_file * total.div_ceil(file);
        assert!((few(file)..2 * few(file)).contains(&of_file), "{of_file}, not below {}", few(file));
        let longest = r#"["0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",4194304,65535,8388608,4194304,4],"#;
        let size = chunks * longest.len() as u64;
        assert!(size < crate::manifest::MAX_BYTES, "{chunks} chunks, {size} bytes");
        // And the table of packs.
        assert!(size + total / (8 << 20) * 50 < crate::manifest::MAX_BYTES);
    }
    let tensors = 1_000_000_u64;
    assert!(few(tensors << 20) <= tensors, "records of a mebibyte are no fewer than that");
}

#[test]
fn an_insertion_moves_few_cuts() {
    let bytes = noise(8 << 20);
    let moved = [b"inserted", &bytes[..]].concat();
    let digests = |bytes: &[u8]| cut(bytes).iter().map(|chunk| Digest::of(chunk)).collect::<HashSet<_>>();
    assert!(digests(&moved).difference(&digests(&bytes)).count() <= 2);
}

#[test]
fn a_reader_that_ends_early_is_an_error() {
    let bytes = [1_u8; 100];
    let mut chunker = Chunker::new(&bytes[..], Cuts::new(Vec::new(), 101));
    assert_eq!(chunker.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn tensors_are_cut_where_they_begin() {
    let mib = WHOLE;
    let data = noise(4 * mib + 100);
    let header = format!(
        r#"{{"__metadata__":{{"step":"7"}},"b":{{"dtype":"U8","shape":[1],"data_offsets":[{0},{1}]}},"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,{0}]}},"c":{{"dtype":"U8","shape":[1],"data_offsets":[{1},{2}]}}}}"#,
        5 * mib / 2,
        4 * mib,
        4 * mib + 100
    );
    let file = safetensors(&header, &data);
    let begin = 8 + header.len();
    assert_eq!(lengths(&file), [begin, mib, mib, mib / 2, mib, mib / 2, 100]);
    // Accounts that do not add up are none.
    let by_content = |file: &[u8]| {
        FastCDC::new(file, 16 << 10, 64 << 10, 256 << 10).map(|chunk| chunk.length).collect::<Vec<_>>()
    };
    for bad in [
        header.replace("[0,", "[1,"),
        header.replace("data_offsets", "data_offset"),
        header.replace(&(4 * mib + 100).to_string(), "18446744073709551615"),
        header.replace(&(4 * mib + 100).to_string(), &(4 * mib + 101).to_string()),
        header[..header.len() - 1].to_owned(),
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
    ] {
        let file = safetensors(&bad, &data);
        assert_eq!(lengths(&file), by_content(&file), "{}", &bad[..60.min(bad.len())]);
    }
    for length in [0_u64, 1, 101 << 20, u64::MAX, u64::MAX - 7] {
        let mut file = file.clone();
        file[..8].copy_from_slice(&length.to_le_bytes());
        assert_eq!(lengths(&file), by_content(&file));
    }
}

proptest::proptest! {
    /// Any account is cut somewhere, within bounds, and nothing is lost.
    #[test]
    fn hostile_records_cost_only_dedupe(
        records in proptest::collection::vec((0_u64..3 << 20, 0_u64..2 << 20), 0..20),
        size in 0_usize..3 << 20,
    ) {
        let bytes = noise(size);
        let mut at = 0;
        let records = records.into_iter().map(|(gap, len)| { let from = at + gap; at = from + len; from..at });
        let mut cuts = Cuts::new(records.collect(), size as u64);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = cuts.next(&rest[..rest.len().min(MAX)]);
            proptest::prop_assert!((1..=rest.len().min(MAX)).contains(&length));
            rest = &rest[length..];
        }
    }
}
