//! How fast the readers are: writes one file of each of the three big formats
//! and reads it back into columns.
//!
//! `cargo run --release -p curves --example read_speed [DIRECTORY [keep]]`
//!
//! Prints processor seconds of reading into columns and of reading into a judge
//! with its report, file access included, so that other work on the machine
//! matters little; of three readings the median counts.
#![expect(clippy::print_stdout, reason = "a program that prints what it measured")]

#[path = "detectors/judged.rs"]
mod judged;

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::path::Path;

use curves::format::{JsonLines, Schema, TensorBoard, Wandb};
use curves::log::{Collected, Reader, Sink};
use judged::{Judged, processor_seconds};

const STEPS: u64 = 100_000;
const PIECE: usize = 256 * 1024;

type Make = fn() -> Box<dyn Reader>;
type Fill = fn(&mut BufWriter<File>) -> io::Result<()>;

fn main() -> io::Result<()> {
    let keep = std::env::args_os().nth(2).is_some_and(|word| word == "keep");
    let directory = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    println!("format              MB    values  CPU s   MB/s  judged  us a value");
    let formats: [(&str, Fill, Make); 3] = [
        ("events.tfevents", events, || Box::new(TensorBoard::new())),
        ("rows.jsonl", json_lines, || Box::new(JsonLines::new(Schema::default()))),
        ("run.wandb", wandb, || Box::new(Wandb::new())),
    ];
    for (name, fill, make) in formats {
        let own = format!("read-speed-{}-", std::process::id());
        let path = directory.join(format!("{}{name}", if keep { "" } else { &own }));
        let mut file = BufWriter::new(File::create(&path)?);
        fill(&mut file)?;
        file.flush()?;
        let bytes = path.metadata()?.len();
        let mut taken: Vec<(f64, usize)> =
            (0..3).map(|_| columns(&path, make())).collect::<io::Result<_>>()?;
        let mut judged: Vec<(f64, usize)> =
            (0..3).map(|_| judge(&path, make())).collect::<io::Result<_>>()?;
        if !keep {
            std::fs::remove_file(&path)?;
        }
        taken.sort_by(|a, b| a.0.total_cmp(&b.0));
        judged.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ((seconds, values), (whole, points)) = (taken[1], judged[1]);
        let megabytes = bytes as f64 / 1e6;
        let each = 1e6 * (whole - seconds) / points as f64;
        println!(
            "{name:16} {megabytes:5.1} {values:9} {seconds:6.3} {:6.0} {whole:7.3} {each:11.3}",
            megabytes / seconds
        );
    }
    Ok(())
}

/// Processor seconds of reading into columns, and the number of values.
fn columns(path: &Path, reader: Box<dyn Reader>) -> io::Result<(f64, usize)> {
    let begin = processor_seconds();
    let mut log = Collected::default();
    read(path, reader, &mut log)?;
    let seconds = processor_seconds() - begin;
    Ok((seconds, log.columns.iter().map(|column| column.values.len()).sum()))
}

/// The same of judging what is read.
fn judge(path: &Path, reader: Box<dyn Reader>) -> io::Result<(f64, usize)> {
    let begin = processor_seconds();
    let mut judged = Judged::default();
    read(path, reader, &mut judged)?;
    let report = judged.judge.report();
    assert!(!report.metrics.is_empty(), "something is said");
    Ok((processor_seconds() - begin, judged.values))
}

fn read(path: &Path, mut reader: Box<dyn Reader>, sink: &mut dyn Sink) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE];
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            break;
        }
        reader.feed(&piece[..length], sink);
    }
    reader.finish(sink);
    let counts = reader.counts();
    assert_eq!((counts.corrupt.count, counts.torn.count), (0, 0), "the file is sound");
    Ok(())
}

/// Noise: a congruential generator, and the sum of four of its values.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn loss(&mut self, step: u64) -> f64 {
        let normal: f64 = (0..4).map(|_| self.uniform()).sum::<f64>() - 2.0;
        (-(step as f64) / 20_000.0).exp() + 0.05 * normal
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// 10 tags of 100,000 steps, an event for each value.
fn events(file: &mut BufWriter<File>) -> io::Result<()> {
    let tags = [
        "train/loss",
        "train/acc",
        "train/lr",
        "train/grad_norm",
        "val/loss",
        "val/acc",
        "perf/tokens",
        "perf/mfu",
        "perf/memory",
        "train/entropy",
    ];
    let mask = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let mut noise = Noise(1);
    for step in 0..STEPS {
        for tag in tags {
            let mut value = Vec::new();
            bytes_field(&mut value, 1, tag.as_bytes());
            value.push(2 << 3 | 5);
            value.extend((noise.loss(step) as f32).to_le_bytes());
            let mut summary = Vec::new();
            bytes_field(&mut summary, 1, &value);
            let mut event = vec![1 << 3 | 1];
            event.extend((1.7e9 + step as f64 / 10.0).to_le_bytes());
            event.push(2 << 3);
            varint(&mut event, step);
            bytes_field(&mut event, 5, &summary);
            let length = (event.len() as u64).to_le_bytes();
            for part in [&length[..], &mask(&length), &event, &mask(&event)] {
                file.write_all(part)?;
            }
        }
    }
    Ok(())
}

/// A million lines of seven numbers.
fn json_lines(file: &mut BufWriter<File>) -> io::Result<()> {
    let mut noise = Noise(2);
    for step in 0..STEPS * 10 {
        let loss = noise.loss(step / 10);
        writeln!(
            file,
            "{{\"step\": {step}, \"train/loss\": {loss:?}, \"val/loss\": {:?}, \"lr\": {:?}, \"grad_norm\": {:?}, \"tokens_per_sec\": {:?}, \"_timestamp\": {:?}}}",
            noise.loss(step / 10),
            3e-4 * noise.uniform(),
            1.0 + noise.uniform(),
            150_000.0 * (1.0 + noise.uniform()),
            1.7e9 + step as f64 * 0.1 + noise.uniform() * 0.05,
        )?;
    }
    Ok(())
}

/// 100,000 rows of six metrics as W&B 0.31 writes them, with two summaries each.
fn wandb(file: &mut BufWriter<File>) -> io::Result<()> {
    let mut log = Blocks { file, at: 7 };
    log.file.write_all(b":W&B\xe1\xbe\0")?;
    let mut noise = Noise(3);
    let names = ["train/loss", "val/loss", "lr", "grad_norm", "tokens_per_sec", "acc"];
    for step in 0..STEPS {
        let mut items = Vec::new();
        let mut item = |path: &[&str], value: &str| {
            let mut item = Vec::new();
            path.iter().for_each(|part| bytes_field(&mut item, 2, part.as_bytes()));
            bytes_field(&mut item, 16, value.as_bytes());
            bytes_field(&mut items, 1, &item);
        };
        // The order of items is random in real files: turn it by the step.
        for turn in 0..9 {
            match (turn + step as usize) % 9 {
                6 => item(&["_step"], &step.to_string()),
                7 => item(&["_timestamp"], &format!("{:e}", 1.795e9 + step as f64 * 0.001 + noise.uniform())),
                8 => item(&["_runtime"], &format!("{:?}", step as f64 * 0.001)),
                n => item(&[names[n]], &format!("{:?}", noise.loss(step))),
            }
        }
        let summary = items.clone();
        let mut number = Vec::new();
        varint(&mut number, 1 << 3);
        varint(&mut number, step);
        bytes_field(&mut items, 2, &number);
        let mut runtime = Vec::new();
        bytes_field(&mut runtime, 2, b"_wandb");
        bytes_field(&mut runtime, 2, b"runtime");
        bytes_field(&mut runtime, 16, b"0");
        let mut small = Vec::new();
        bytes_field(&mut small, 1, &runtime);
        for (field, message) in [(3, &small), (3, &summary), (2, &items)] {
            let mut record = Vec::new();
            varint(&mut record, 1 << 3);
            varint(&mut record, step * 3 + 1);
            bytes_field(&mut record, field, message);
            log.write(&record)?;
        }
    }
    Ok(())
}

/// The framing of LevelDB's logs.
struct Blocks<'a> {
    file: &'a mut BufWriter<File>,
    at: usize,
}

impl Blocks<'_> {
    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        let (mut rest, mut first) = (record, true);
        loop {
            let left = 32_768 - self.at % 32_768;
            if left < 7 {
                self.file.write_all(&[0; 7][..left])?;
                self.at += left;
                continue;
            }
            let (piece, after) = rest.split_at(rest.len().min(left - 7));
            let kind = match (first, after.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let mut sum = crc32fast::Hasher::new();
            sum.update(&[kind]);
            sum.update(piece);
            self.file.write_all(&sum.finalize().to_le_bytes())?;
            self.file.write_all(&(piece.len() as u16).to_le_bytes())?;
            self.file.write_all(&[kind])?;
            self.file.write_all(piece)?;
            self.at += 7 + piece.len();
            (rest, first) = (after, false);
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}
