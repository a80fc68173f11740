//! What the parent module promises, tested.

use proptest::prelude::*;

use super::*;

/// Where thousands of syncs take no disk's time: how durable they are is not
/// what is tested with it.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn byte(stream: Stream, at: u64) -> u8 {
    let mixed = at.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(stream.index() as u64 * 77);
    (mixed >> 56) as u8
}

fn produce(writer: &mut SpoolWriter, stream: Stream, count: usize) {
    let from = writer.position(stream);
    let bytes: Vec<u8> = (from..from + count as u64).map(|at| byte(stream, at)).collect();
    writer.write(stream, &bytes);
}

/// One read at the reader's own position, checked byte by byte.
fn follow(
    reader: &mut SpoolReader,
    stream: Stream,
    at: &mut u64,
    lost: &mut u64,
    max: usize,
    len: u64,
) -> bool {
    match reader.read(stream, *at, max).unwrap() {
        Piece::End => return false,
        Piece::Bytes { offset, bytes } => {
            assert_eq!(offset, *at);
            assert!(!bytes.is_empty() && bytes.len() <= max);
            for (i, got) in bytes.iter().enumerate() {
                assert_eq!(*got, byte(stream, offset + i as u64), "at {}", offset + i as u64);
            }
            *at += bytes.len() as u64;
        }
        Piece::Gap { from, to } => {
            assert_eq!(from, *at);
            assert!(from < to && to <= len, "{from}..{to} of {len}");
            *lost += to - from;
            *at = to;
        }
    }
    true
}

fn on_disk(dir: &Path) -> u64 {
    list_segments(&spool_dir(dir)).unwrap().iter().flatten().map(|s| s.len).sum()
}

#[derive(Debug, Clone)]
enum Op {
    Write(Stream, usize),
    Read(Stream, usize),
    Release(Stream),
    Tick,
}

fn op() -> impl Strategy<Value = Op> {
    let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
    prop_oneof![
        4 => (stream.clone(), 1..30_000_usize).prop_map(|(s, n)| Op::Write(s, n)),
        4 => (stream.clone(), 1..40_000_usize).prop_map(|(s, n)| Op::Read(s, n)),
        2 => stream.prop_map(Op::Release),
        1 => Just(Op::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_gives_the_bytes_or_exact_gaps(ops in prop::collection::vec(op(), 1..80)) {
        let dir = in_memory();
        let quota = 64 * 1024;
        let mut writer = SpoolWriter::create(dir.path(), quota).unwrap();
        writer.look_at_once();
        let mut reader = SpoolReader::open(dir.path());
        let (mut at, mut lost) = ([0_u64; 2], [0_u64; 2]);
        for op in ops {
            match op {
                Op::Write(stream, count) => produce(&mut writer, stream, count),
                Op::Read(stream, max) => {
                    let (i, len) = (stream.index(), writer.position(stream));
                    follow(&mut reader, stream, &mut at[i], &mut lost[i], max, len);
                }
                Op::Release(stream) => reader.release(stream, at[stream.index()]).unwrap(),
                Op::Tick => writer.tick(),
            }
            prop_assert!(on_disk(dir.path()) <= quota);
        }
        let lens = writer.finish();
        let total: u64 = lens.iter().sum();
        for stream in Stream::BOTH {
            let i = stream.index();
            prop_assert_eq!(reader.len(stream), lens[i]);
            while follow(&mut reader, stream, &mut at[i], &mut lost[i], 9_999, lens[i]) {}
            prop_assert_eq!(at[i], lens[i], "everything is either bytes or a gap");
        }
        if total <= quota {
            prop_assert_eq!(lost, [0, 0], "nothing is lost below the quota");
        }
        let recorded: u64 = gaps::load(&spool_dir(dir.path())).unwrap().iter().map(|g| g.to - g.from).sum();
        prop_assert_eq!(recorded, lost.iter().sum::<u64>(), "gaps.jsonl says exactly what was lost");
    }
}

#[test]
fn a_flood_over_the_quota_keeps_the_first_bytes_and_one_exact_gap() {
    let dir = tempfile::tempdir().unwrap();
    let quota = 1 << 20;
    let mut writer = SpoolWriter::create(dir.path(), quota).unwrap();
    for _ in 0..40 {
        produce(&mut writer, Stream::Stdout, 65_536);
    }
    assert_eq!(writer.finish(), [40 * 65_536, 0]);
    let gaps = gaps::load(&spool_dir(dir.path())).unwrap();
    assert_eq!(gaps, [gaps::Gap { stream: Stream::Stdout, from: quota, to: 40 * 65_536 }]);
    assert_eq!(on_disk(dir.path()), quota);
}

#[test]
fn room_that_is_released_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SpoolWriter::create(dir.path(), 64 * 1024).unwrap();
    writer.look_at_once();
    produce(&mut writer, Stream::Stdout, 100_000);
    let mut reader = SpoolReader::open(dir.path());
    assert_eq!(reader.read(Stream::Stdout, 65_536, 10).unwrap(), Piece::Gap { from: 65_536, to: 100_000 });
    assert_eq!(reader.read(Stream::Stdout, 100_000, 10).unwrap(), Piece::End);
    reader.release(Stream::Stdout, 100_000).unwrap();
    produce(&mut writer, Stream::Stdout, 7);
    let expected = (100_000..100_007).map(|at| byte(Stream::Stdout, at)).collect();
    let piece = reader.read(Stream::Stdout, 100_000, 10).unwrap();
    assert_eq!(piece, Piece::Bytes { offset: 100_000, bytes: expected });
}

#[test]
fn a_link_in_the_spool_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, b"private").unwrap();
    std::fs::create_dir(spool_dir(dir.path())).unwrap();
    std::os::unix::fs::symlink(&secret, segment_path(&spool_dir(dir.path()), Stream::Stdout, 0)).unwrap();
    let piece = SpoolReader::open(dir.path()).read(Stream::Stdout, 0, 100);
    assert!(!matches!(piece, Ok(Piece::Bytes { .. })));
}

#[test]
fn no_spool_yet_is_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = SpoolReader::open(dir.path());
    assert_eq!(reader.read(Stream::Stderr, 0, 100).unwrap(), Piece::End);
    assert!(reader.is_empty());
    reader.release(Stream::Stderr, 10).unwrap();
}
