//! Aim's databases, laid out here as RocksDB lays them out.

use super::Trace;
use curves::format::Aim;
use curves::log::{Collected, Fact, Value};
use proptest::prelude::*;

const RUN: &str = "e66a6a72e9b14bd08e949694";

/// A key of names, and of numbers of eight bytes behind `#`.
fn key(path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for part in path.replace("RUN", RUN).split('.') {
        match part.strip_prefix('#') {
            Some(number) => {
                out.push(0xfe);
                out.extend(number.parse::<u64>().expect("a number").to_be_bytes());
            }
            None => out.extend(part.as_bytes()),
        }
        out.push(0xfe);
    }
    out
}

fn float(value: f64) -> Vec<u8> {
    [&[3][..], &value.to_le_bytes()].concat()
}

fn integer(value: i64) -> Vec<u8> {
    [&[2][..], &value.to_le_bytes()].concat()
}

fn text(value: &str) -> Vec<u8> {
    [&[4][..], value.as_bytes()].concat()
}

/// Three steps of two metrics, whose places have no order, and what else a run has.
fn entries() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut out = vec![
        (key("BLOBS.meta.chunks.RUN.end_time"), Vec::new()),
        (key("meta.chunks.RUN.attrs.hparams.betas"), vec![6]),
        (key("meta.chunks.RUN.attrs.hparams.betas.#0"), float(0.9)),
        (key("meta.chunks.RUN.attrs.hparams.betas.#1"), float(0.95)),
        (key("meta.chunks.RUN.attrs.hparams.lr"), float(0.0003)),
        (key("meta.chunks.RUN.attrs.hparams.model"), vec![7]),
        (key("meta.chunks.RUN.attrs.hparams.model.layers"), integer(4)),
        (key("meta.chunks.RUN.attrs.hparams.note"), vec![0]),
        (key("meta.chunks.RUN.contexts.#7.subset"), text("train")),
        (key("meta.chunks.RUN.contexts.#9"), vec![7]),
        (key("meta.chunks.RUN.end_time"), float(1.7e9)),
        (key("meta.chunks.another.attrs.hparams.lr"), float(9.0)),
    ];
    for (context, name, scale) in [(7, "loss", 1.0), (9, "lr", 10.0)] {
        for column in ["epoch", "step", "time", "val"] {
            out.push((key(&format!("seqs.v2.chunks.RUN.#{context}.{name}.{column}")), vec![6]));
            for (place, step) in [(11, 2), (254, 0), (65_278, 1)] {
                let value = match column {
                    "step" => integer(step),
                    "time" => float(1.6e9 + step as f64),
                    "val" if step == 1 && scale == 1.0 => float(f64::NAN),
                    "val" => float(scale * step as f64),
                    _ => integer(0),
                };
                out.push((key(&format!("seqs.v2.chunks.RUN.#{context}.{name}.{column}.#{place}")), value));
            }
        }
    }
    out.sort();
    out
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A write-ahead log of one batch for each entry, in one block.
fn log(entries: &[(Vec<u8>, Vec<u8>)], first: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, (key, value)) in entries.iter().enumerate() {
        let mut batch = (first + number as u64).to_le_bytes().to_vec();
        batch.extend([1, 0, 0, 0, 1]);
        varint(&mut batch, key.len() as u64);
        batch.extend(key);
        varint(&mut batch, value.len() as u64);
        batch.extend(value);
        chunk(&mut out, &batch);
    }
    assert!(out.len() < 32_000, "one block");
    out
}

fn chunk(out: &mut Vec<u8>, record: &[u8]) {
    let checked = [&[1][..], record].concat();
    out.extend(masked(&checked));
    out.extend((record.len() as u16).to_le_bytes());
    out.extend(checked);
}

/// A table with a block for every five entries, plain and Snappy by turns, and
/// an index of deltas.
fn table(entries: &[(Vec<u8>, Vec<u8>)], first: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut index = Vec::new();
    let mut last: Option<(u64, Vec<u8>)> = None;
    let mut number = first;
    for (turn, five) in entries.chunks(5).enumerate() {
        let mut block = Vec::new();
        let mut before: Vec<u8> = Vec::new();
        for (key, value) in five {
            let internal = [&key[..], &(number << 8 | 1).to_le_bytes()].concat();
            number += 1;
            entry(&mut block, &before, &internal);
            varint(&mut block, value.len() as u64);
            let shared = common(&before, &internal);
            block.extend(&internal[shared..]);
            block.extend(value);
            before = internal;
        }
        block.extend([0; 4]);
        block.extend(1_u32.to_le_bytes());
        let codec = u8::from(turn % 2 == 1);
        let stored =
            if codec == 1 { snap::raw::Encoder::new().compress_vec(&block).expect("fits") } else { block };
        let (offset, size) = put(&mut out, &stored, codec);
        let separator = five[five.len() - 1].0.clone();
        let (old, before) = last.take().unwrap_or_default();
        let shared = common(&before, &separator);
        entry(&mut index, &before, &separator);
        index.extend(&separator[shared..]);
        if shared == 0 {
            varint(&mut index, offset);
            varint(&mut index, size);
        } else {
            let delta = size as i64 - old as i64;
            varint(&mut index, (delta << 1 ^ delta >> 63) as u64);
        }
        last = Some((size, separator));
    }
    index.extend([0; 4]);
    index.extend(1_u32.to_le_bytes());
    let meta = put(&mut out, &[0, 0, 0, 0, 1, 0, 0, 0], 0);
    let index = put(&mut out, &index, 0);
    let mut footer = vec![1];
    for number in [meta.0, meta.1, index.0, index.1] {
        varint(&mut footer, number);
    }
    footer.resize(41, 0);
    footer.extend(5_u32.to_le_bytes());
    footer.extend(0x88e2_41b7_85f4_cff7_u64.to_le_bytes());
    out.extend(footer);
    out
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// How much of a key is shared and how much is its own.
fn entry(out: &mut Vec<u8>, before: &[u8], key: &[u8]) {
    let shared = common(before, key);
    varint(out, shared as u64);
    varint(out, (key.len() - shared) as u64);
}

fn put(out: &mut Vec<u8>, block: &[u8], codec: u8) -> (u64, u64) {
    let handle = (out.len() as u64, block.len() as u64);
    let checked = [block, &[codec]].concat();
    out.extend(&checked);
    out.extend(masked(&checked));
    handle
}

fn assert_read(aim: &mut Aim) {
    let mut collected = Collected::default();
    aim.push(RUN, &mut collected);
    let loss = collected.column("train/loss").expect("a loss");
    assert_eq!((0..3).map(|i| loss.step(i)).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    assert_eq!((loss.values[0], loss.values[1].is_nan(), loss.values[2]), (0.0, true, 2.0));
    assert_eq!(loss.time(2), Some(1_600_000_002.0));
    let lr: Vec<_> = collected.column("lr").expect("an empty context").pairs().collect();
    assert_eq!(lr, [(Some(0), 0.0), (Some(1), 10.0), (Some(2), 20.0)]);
    let setting = |path: &[&str]| {
        collected.config.get(&path.iter().map(|&part| part.to_owned()).collect::<Vec<_>>()).cloned()
    };
    assert_eq!(setting(&["lr"]), Some(Value::Float(0.0003)));
    assert_eq!(setting(&["betas"]), Some(Value::List(vec![Value::Float(0.9), Value::Float(0.95)])));
    assert_eq!(setting(&["model", "layers"]), Some(Value::Integer(4)));
    assert_eq!(setting(&["note"]), Some(Value::Null));
    assert_eq!((collected.config.len(), collected.ended), (4, Some(1.7e9)));
    assert_eq!(collected.fact(Fact::RunId), Some(RUN));
    assert_eq!(aim.counts().corrupt.count + aim.counts().unknown.count, 0);
}

#[test]
fn a_live_run_is_read_from_its_logs() {
    let mut aim = Aim::new();
    aim.log(&log(&entries(), 1));
    assert_read(&mut aim);
}

#[test]
fn a_closed_run_is_read_from_its_tables() {
    let mut aim = Aim::new();
    // Every other entry in a table of its own.
    for half in [0, 1] {
        let some: Vec<_> = entries().into_iter().skip(half).step_by(2).collect();
        aim.table(&table(&some, 1 + 100 * half as u64));
    }
    assert_read(&mut aim);
}

#[test]
fn the_newest_entry_of_a_key_counts() {
    let all = entries();
    let old: Vec<_> = all.iter().map(|(key, _)| (key.clone(), float(-1.0))).collect();
    let mut aim = Aim::new();
    aim.table(&table(&all, 1000));
    // Older by its numbers, although it comes later.
    aim.log(&log(&old, 1));
    assert_read(&mut aim);
    // A range that is deleted takes only what was there before.
    let mut batch = 2000_u64.to_le_bytes().to_vec();
    batch.extend([2, 0, 0, 0, 15]);
    for end in [key("seqs.v2.chunks.RUN.#9"), key("seqs.v3")] {
        varint(&mut batch, end.len() as u64);
        batch.extend(end);
    }
    batch.push(0);
    let gone = key("meta.chunks.RUN.end_time");
    varint(&mut batch, gone.len() as u64);
    batch.extend(gone);
    let mut bytes = Vec::new();
    chunk(&mut bytes, &batch);
    aim.log(&bytes);
    let mut collected = Collected::default();
    aim.push(RUN, &mut collected);
    assert!(collected.column("lr").is_none() && collected.ended.is_none());
    assert_eq!(collected.column("train/loss").map(|c| c.values.len()), Some(3));
}

#[test]
fn a_log_cut_anywhere_gives_what_is_whole_in_it() {
    let all = entries();
    let bytes = log(&all, 1);
    for cut in 0..=bytes.len() {
        let mut aim = Aim::new();
        aim.log(&bytes[..cut]);
        let whole = (0..=all.len()).rev().find(|&n| log(&all[..n], 1).len() <= cut).unwrap_or(0);
        assert_eq!(aim.counts().records, whole as u64, "cut at {cut}");
        assert_eq!(aim.counts().corrupt.count, 0);
    }
}

proptest! {
    #[test]
    fn flipped_bits_lose_blocks_and_make_nothing_up(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..5), cut: prop::sample::Index,
    ) {
        let mut bytes = table(&entries(), 1);
        let mut whole = Aim::new();
        whole.table(&bytes);
        let mut all = Trace::default();
        whole.push(RUN, &mut all);
        for (index, bit) in flips {
            let index = index.index(bytes.len() - 53);
            bytes[index] ^= 1 << bit;
        }
        let mut aim = Aim::new();
        aim.table(&bytes);
        prop_assert!(aim.counts().corrupt.count > 0 || aim.counts().records == whole.counts().records);
        let mut some = Trace::default();
        aim.push(RUN, &mut some);
        let mut torn = Aim::new();
        torn.table(&bytes[..cut.index(bytes.len())]);
        torn.push(RUN, &mut some);
    }

    #[test]
    fn any_bytes_are_no_database(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut aim = Aim::new();
        aim.table(&bytes);
        aim.log(&bytes);
        let footer = table(&entries(), 1);
        aim.table(&[&bytes[..], &footer[footer.len() - 53..]].concat());
        aim.push(RUN, &mut Trace::default());
        prop_assert_eq!(aim.counts().bytes, bytes.len() as u64 * 3 + 53);
    }
}

#[test]
fn each_context_is_a_curve_of_its_own_and_the_machine_is_no_metric() {
    let mut entries = vec![
        (key("meta.chunks.RUN.contexts.#1.subset"), text("train")),
        (key("meta.chunks.RUN.contexts.#1.fold"), integer(0)),
        (key("meta.chunks.RUN.contexts.#2.subset"), text("train")),
        (key("meta.chunks.RUN.contexts.#2.fold"), integer(1)),
        (key("meta.chunks.RUN.contexts.#3.gpu"), integer(1)),
    ];
    for (context, name, value) in
        [(1, "loss", 0.5), (2, "loss", 0.25), (3, "__system__gpu", 93.0), (4, "__system__cpu", 7.0)]
    {
        entries.push((key(&format!("seqs.v2.chunks.RUN.#{context}.{name}.step.#0")), integer(3)));
        entries.push((key(&format!("seqs.v2.chunks.RUN.#{context}.{name}.time.#0")), float(1.6e9)));
        entries.push((key(&format!("seqs.v2.chunks.RUN.#{context}.{name}.val.#0")), float(value)));
    }
    entries.sort();
    let (mut aim, mut collected) = (Aim::new(), Collected::default());
    aim.log(&log(&entries, 1));
    aim.push(RUN, &mut collected);
    let found: Vec<_> =
        collected.named().map(|(name, column)| (name, column.pairs().collect::<Vec<_>>())).collect();
    let point = |value| vec![(Some(3), value)];
    assert_eq!(found, [("fold=0/train/loss", point(0.5)), ("fold=1/train/loss", point(0.25))]);
    let machine = [("gpu=1/gpu", 93.0), ("cpu", 7.0)];
    let machine: Vec<_> = machine.map(|(key, value)| (key.to_owned(), Some(1.6e9), value)).into();
    assert_eq!(collected.system, machine);
}
