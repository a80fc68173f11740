//! Files that end anywhere, come in any pieces, have flipped bits or were never
//! files of the format: whole records come out, the rest is counted.

use proptest::prelude::*;

use super::cloud::{CLOUD, cloud};
use super::{
    Trace, console, csv, data, jsonl, mlflow_meta, mlflow_metric, plugin, tensorboard, trainer, wandb,
};
use curves::format::MAX_RECORD_BYTES;
use curves::log::{Collected, Counts, MAX_METRICS, Reader, Record, Row, Sink};

/// A format, a small file of it, and how many records of a piece of it are
/// whole, counted by other means than the reader's.
struct Case {
    name: &'static str,
    make: fn() -> Box<dyn Reader>,
    bytes: Vec<u8>,
    /// `None` where only the reader can tell.
    whole: Option<fn(&[u8]) -> usize>,
    /// Whether every record has a checksum.
    checked: bool,
}

fn cases() -> Vec<Case> {
    let part = |name: &str, len: usize| {
        let mut bytes = data(name);
        bytes.truncate(len);
        bytes
    };
    let case = |name, make, bytes, whole, checked| Case { name, make, bytes, whole, checked };
    let json_lines = |b: &[u8]| lines(b) + usize::from(b.ends_with(b"}"));
    vec![
        case("jsonl", jsonl, part("nan_lr.jsonl", 2500), Some(json_lines), false),
        case("csv", csv, data("keras_csvlogger_v1.csv"), Some(lines), false),
        case("wandb 0.31", wandb, part("wandb-0.31.0.wandb", 5000), Some(chunks), true),
        case("wandb 0.19", wandb, part("wandb-0.19.11.wandb", 3000), Some(chunks), true),
        case("scalars", tensorboard, part("tensorboardx.tfevents", 1500), Some(frames), true),
        case("tensors", tensorboard, part("tensorboard-tensors.tfevents", 1500), Some(frames), true),
        case("hparams", tensorboard, data("tensorboardx-hparams.tfevents"), Some(frames), true),
        case("trainer", trainer, part("hf_trainer_state.json", 1500), Some(pieces), false),
        case("metric", mlflow_metric, part("mlflow-train-loss", 1000), Some(lines), false),
        case("meta", mlflow_meta, data("mlflow-meta.yaml"), Some(lines), false),
        case("wandb cloud", cloud, CLOUD.as_bytes().to_vec(), Some(lines), false),
        case("plugin", plugin, PLUGIN.as_bytes().to_vec(), Some(lines), false),
        case("hf console", console, data("hf_stdout.txt"), None, false),
        case("keras console", console, data("keras_stdout.txt"), None, false),
        case("sklearn console", console, data("sklearn.txt"), None, false),
    ]
}

/// Every kind of record that a plug-in may print.
const PLUGIN: &str = r#"{"type":"run","id":"1","name":"n","project":"p","tags":["a","b"],"started":1.5,"ended":2}
{"type":"config","values":{"lr":0.1,"model":{"width":3}}}
{"type":"direction","metric":"acc","goal":"max"}
{"type":"row","step":1,"time":2.5,"values":{"loss":0.5,"acc":"NaN","word":"x","deep":{"no":1}}}
{"type":"row","values":{"loss":-Infinity,"acc":NaN}}
{"type":"output","stream":"stderr","text":"a\nb"}
{"type":"alert","title":"t","text":"u","level":"warn"}
{"type":"segment","from":1}
{"type":"summary","values":{"best":1}}
{"type":"exit","code":-9}
"#;

#[test]
fn what_a_plugin_prints_is_what_it_says() {
    let mut reader = plugin();
    let mut trace = Trace::default();
    let odd = "{\"type\":\"later\"}\n{\"type\":\"row\",\"values\":[1]}\n[]\nnothing\n{\"type\":\"exit\",\"code\":0.5}\n";
    reader.feed(format!("{PLUGIN}{odd}").as_bytes(), &mut trace);
    reader.finish(&mut trace);
    let said = |needle: &str| trace.said.iter().any(|said| said.contains(needle));
    for needle in [
        "Some(1) Some(2.5) [(\"loss\", 0.5), (\"acc\", NaN)]",
        "None None [(\"loss\", -inf), (\"acc\", NaN)]",
        "Config { path: [\"model\", \"width\"], value: Integer(3) }",
        "Direction { metric: \"acc\", goal: Maximise }",
        "Meta(Tag, \"b\")",
        "Output { stream: Err, text: \"b\" }",
        "Segment { from: Some(1) }",
        "Exit { code: -9 }",
    ] {
        assert!(said(needle), "{needle}: {:#?}", trace.said);
    }
    let counts = reader.counts();
    assert_eq!((counts.records, counts.unknown.count, counts.corrupt.count), (13, 3, 2));
}

fn lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&b| b == b'\n').count()
}

/// Records of LevelDB's framing, in the first block of a file with a header.
fn chunks(bytes: &[u8]) -> usize {
    let mut at = 7;
    let mut count = 0;
    while let Some(header) = bytes.get(at..at + 7) {
        at += 7 + usize::from(header[4]) + 256 * usize::from(header[5]);
        count += usize::from(at <= bytes.len());
    }
    count
}

/// Records of TensorFlow's framing.
fn frames(bytes: &[u8]) -> usize {
    let mut at = 0;
    let mut count = 0;
    while let Some(length) = bytes.get(at..at + 8) {
        at += 16 + u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
        count += usize::from(at <= bytes.len());
    }
    count
}

/// Rows and members of a state of the Trainer, by how it is indented.
fn pieces(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    let members = text.lines().filter(|l| l.starts_with("  \"") && l.ends_with(','));
    text.lines().filter(|l| l.starts_with("    }")).count() + members.count()
}

/// What comes of bytes fed in pieces, before and after the end was told.
fn traced(case: &Case, bytes: &[u8], piece: usize) -> (Vec<String>, Vec<String>, Counts) {
    let mut reader = (case.make)();
    let mut trace = Trace::default();
    bytes.chunks(piece.max(1)).for_each(|piece| reader.feed(piece, &mut trace));
    let fed = trace.said.len();
    reader.finish(&mut trace);
    let after = trace.said.split_off(fed);
    (trace.said, after, *reader.counts())
}

#[test]
fn every_prefix_gives_the_records_that_are_whole_in_it() {
    for case in cases() {
        let (all, ..) = traced(&case, &case.bytes, usize::MAX);
        assert!(all.len() > 2, "{}", case.name);
        for cut in 0..=case.bytes.len() {
            let prefix = &case.bytes[..cut];
            let (fed, _, counts) = traced(&case, prefix, usize::MAX);
            assert!(all.starts_with(&fed), "{} cut at {cut}", case.name);
            if let Some(whole) = case.whole {
                assert_eq!(counts.records, whole(prefix) as u64, "{} cut at {cut}", case.name);
            }
            assert_eq!(counts.bytes, cut as u64);
            assert_eq!(counts.corrupt.count, 0, "{} cut at {cut}: {counts:?}", case.name);
            assert!(counts.torn.count <= cut as u64);
        }
    }
}

#[test]
fn pieces_of_every_size_give_the_same() {
    for case in cases() {
        let whole = traced(&case, &case.bytes, usize::MAX);
        for piece in (1..100).chain([127, 128, 1000, 4096]) {
            assert_eq!(traced(&case, &case.bytes, piece), whole, "{} in pieces of {piece}", case.name);
        }
    }
}

#[test]
fn a_reader_goes_on_after_a_false_end() {
    // Of console output a last line without end is read when the end is told.
    for case in cases().into_iter().filter(|case| case.whole.is_some()) {
        let (all, ..) = traced(&case, &case.bytes, usize::MAX);
        for cut in (0..case.bytes.len()).step_by(97) {
            let mut reader = (case.make)();
            let mut trace = Trace::default();
            reader.feed(&case.bytes[..cut], &mut trace);
            reader.finish(&mut trace);
            reader.feed(&case.bytes[cut..], &mut trace);
            let rows =
                |said: &[String]| said.iter().filter(|s| s.starts_with("Some")).cloned().collect::<Vec<_>>();
            assert_eq!(rows(&trace.said), rows(&all), "{} with a look at {cut}", case.name);
        }
    }
}

#[test]
fn a_million_names_are_not_kept() {
    let mut reader = jsonl();
    let mut log = Collected::default();
    for line in 0..5000 {
        let members: Vec<_> = (0..200).map(|n| format!("\"k{}\":1", line * 200 + n)).collect();
        reader.feed(format!("{{{}}}\n", members.join(",")).as_bytes(), &mut log);
    }
    assert_eq!(log.names.len(), MAX_METRICS);
    assert_eq!(log.columns.iter().map(|c| c.values.len()).sum::<usize>(), MAX_METRICS);
    let counts = reader.counts();
    assert_eq!((counts.records, counts.dropped.count), (5000, 1_000_000 - MAX_METRICS as u64));
    let mut reader = jsonl();
    let mut log = Collected::default();
    reader.feed(format!("{{\"{}\": 1, \"short\": 2}}\n", "n".repeat(2000)).as_bytes(), &mut log);
    assert_eq!((log.names.len(), reader.counts().dropped.count), (1, 1));
}

#[test]
fn a_line_without_end_is_passed_over() {
    for make in [jsonl as fn() -> Box<dyn Reader>, csv] {
        let mut reader = make();
        let mut log = Collected::default();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..MAX_RECORD_BYTES / piece.len() + 2 {
            reader.feed(&piece, &mut log);
        }
        assert_eq!(reader.counts().skipped.count, 1);
        reader.feed(b"\n{\"loss\": 2}\n", &mut log);
        reader.finish(&mut log);
        assert_eq!((reader.counts().skipped.count, reader.counts().torn.count), (1, 0));
    }
}

#[test]
fn the_longest_possible_record_of_events_is_passed_over() {
    let mut bytes = data("tensorboardx.tfevents");
    bytes.truncate(86);
    // Length 2^63 with its masked checksum.
    bytes.extend((1_u64 << 63).to_le_bytes());
    let crc = crc32c::crc32c(&(1_u64 << 63).to_le_bytes());
    bytes.extend(crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes());
    bytes.extend([0; 4096]);
    let mut log = Collected::default();
    let mut reader = tensorboard();
    reader.feed(&bytes, &mut log);
    reader.finish(&mut log);
    assert_eq!(log.column("train/loss").map(|c| c.values.len()), Some(1));
    assert_eq!((reader.counts().skipped.count, reader.counts().skipped.first), (1, Some(86)));
}

#[test]
fn a_wrong_mark_costs_nothing_but_a_word() {
    let mut bytes = data("wandb-0.19.11.wandb");
    bytes[1] = b'?';
    let mut log = Collected::default();
    let mut reader = wandb();
    reader.feed(&bytes, &mut log);
    reader.finish(&mut log);
    assert_eq!(log.column("train/loss").map(|c| c.values.len()), Some(300));
    assert_eq!((reader.counts().corrupt.count, reader.counts().corrupt.first), (1, Some(0)));
}

proptest! {
    #[test]
    fn flipped_bits_never_make_checked_rows(
        which in 0_usize..64,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6),
        piece in 1_usize..2000,
    ) {
        let cases = cases();
        let case = &cases[which % cases.len()];
        let (all, ..) = traced(case, &case.bytes, usize::MAX);
        let mut bytes = case.bytes.clone();
        for (index, bit) in flips {
            let index = index.index(bytes.len());
            bytes[index] ^= 1 << bit;
        }
        let (found, after, counts) = traced(case, &bytes, piece);
        prop_assert_eq!(counts.bytes, bytes.len() as u64);
        if case.checked {
            for said in &found {
                prop_assert!(all.contains(said), "{}: {said}", case.name);
            }
            let lost = found.len() + after.len() < all.len();
            prop_assert!(!lost || counts.corrupt.count + counts.torn.count > 0, "{}: {counts:?}", case.name);
        }
    }

    #[test]
    fn any_bytes_are_counted(bytes in prop::collection::vec(any::<u8>(), 0..3000), piece in 1_usize..400) {
        for case in cases() {
            let (_, _, counts) = traced(&case, &bytes, piece);
            prop_assert_eq!(counts.bytes, bytes.len() as u64);
        }
    }

    #[test]
    fn any_text_is_counted(text in "([{}\\[\\]\":,\\\\0-9eE.+na \n;\t-]|step|loss){0,400}", piece in 1_usize..40) {
        for case in cases() {
            let (found, after, counts) = traced(&case, text.as_bytes(), piece);
            let (same, end, others) = traced(&case, text.as_bytes(), usize::MAX);
            prop_assert_eq!((found, after, counts), (same, end, others), "{}", case.name);
        }
    }
}

#[test]
fn what_takes_long_to_undo_is_undone_so_often_and_no_more() {
    let mut log = Collected::default();
    let metric = log.metric("a").expect("a number");
    for step in 0..30_000 {
        log.row(&Row { step: Some(step), time: None, values: &[(metric, 1.0)] });
        log.record(Record::Segment { from: Some(step + 1) });
    }
    assert_eq!((log.segments, log.left_out, log.columns[0].values.len()), (30_000, 29_000, 30_000));
}

#[test]
fn a_table_of_too_many_columns_is_none() {
    let mut log = Collected::default();
    let mut reader = csv();
    reader.feed(&[b"a,".repeat(100_000), b"\n".to_vec(), b"step,loss\n1,2\n".to_vec()].concat(), &mut log);
    assert_eq!((reader.counts().corrupt.count, log.names.len()), (1, 1));
}

#[test]
fn many_brackets_in_one_member_take_no_longer() {
    let mut log = Collected::default();
    let mut reader = trainer();
    let mut text = format!("{{\"{}\": ", "k".repeat(1 << 20)).into_bytes();
    text.extend(b"[]".repeat(1 << 20));
    text.extend(b", \"log_history\": [{\"step\": 1, \"loss\": 2}], \"epoch\": 1}");
    reader.feed(&text, &mut log);
    reader.finish(&mut log);
    assert_eq!(log.column("loss").map(|c| c.values.clone()), Some(vec![2.0]));
    assert_eq!((reader.counts().corrupt.count, reader.counts().records), (1, 2));
}
