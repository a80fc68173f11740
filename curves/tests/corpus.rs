//! The corpus of the fuzzers, replayed, and mutated in ways that are the same
//! on every machine, also behind checksums. `CORPUS_MUTATIONS` asks for more,
//! `CORPUS_SEED` for others, and `CORPUS_SECONDS` for as many as fit into that
//! time for each target.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

#[path = "corpus/frames.rs"]
mod frames;
#[path = "corpus/targets.rs"]
mod targets;

use targets::TARGETS;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let listed = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut found: Vec<_> = listed
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a file of the corpus"))
        })
        .collect();
    found.sort();
    found
}

/// Runs a target; what it does wrong is told with the bytes that made it.
fn run(name: &str, what: &str, target: fn(&[u8]), bytes: &[u8]) {
    if std::panic::catch_unwind(|| target(bytes)).is_err() {
        let left = std::env::temp_dir().join(format!("outlast-{name}-{:08x}", crc32c::crc32c(bytes)));
        let _ = fs::write(&left, bytes);
        panic!("{name} does not bear {what}; its bytes are in {}", left.display());
    }
}

#[test]
fn every_reader_bears_its_corpus() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() >= 4, "{name} has {} files", corpus.len());
        for (file, bytes) in corpus {
            run(name, &file, target, &bytes);
            for cut in (0..bytes.len()).step_by((bytes.len() / 40).max(1)) {
                run(name, &format!("{file}, cut at {cut}"), target, &bytes[..cut]);
            }
        }
    }
}

/// Changes bytes as a fuzzer would: bits, numbers at their limits, pieces taken
/// out, doubled, and taken from another file.
fn mutate(random: &mut fastrand::Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    const ODD: [&[u8]; 9] = [
        &[0; 8],
        &[0xff; 10],
        &[0xff, 0xff, 0xff, 0x7f],
        &[0, 0, 0, 0x80],
        b"\x7f",
        b"NaN",
        b"99999999999999999999",
        b"-1e999",
        b"{[\"",
    ];
    for _ in 0..random.usize(1..6) {
        if bytes.is_empty() {
            bytes.extend_from_slice(&other[..other.len().min(64)]);
            continue;
        }
        let at = random.usize(0..bytes.len());
        let end = at + random.usize(0..=(bytes.len() - at).min(64));
        match random.u8(0..6) {
            0 => bytes[at] ^= 1 << random.u8(0..8),
            1 => bytes[at] = random.u8(..),
            2 => {
                let odd = ODD[random.usize(..ODD.len())];
                let end = (at + odd.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&odd[..end - at]);
            }
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let from = random.usize(0..=other.len());
                let to = from + random.usize(0..=(other.len() - from).min(64));
                bytes.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
}

fn asked<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn every_reader_bears_a_changed_corpus() {
    let rounds: u64 = asked("CORPUS_MUTATIONS").unwrap_or(150);
    let (seed, time) = (asked("CORPUS_SEED").unwrap_or(0), asked("CORPUS_SECONDS").map(Duration::from_secs));
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        let mut random = fastrand::Rng::with_seed(seed ^ u64::from(crc32c::crc32c(name.as_bytes())));
        let begun = Instant::now();
        let (mut round, mut framed) = (0, 0);
        while time.map_or(round < rounds, |time| begun.elapsed() < time) {
            let (file, bytes) = &corpus[random.usize(..corpus.len())];
            let (_, other) = &corpus[random.usize(..corpus.len())];
            let change = |random: &mut fastrand::Rng, record: &mut Vec<u8>| mutate(random, record, other);
            let other_records =
                if random.bool() { frames::reframed(name, bytes, &mut random, change) } else { None };
            framed += u64::from(other_records.is_some());
            let bytes = other_records.unwrap_or_else(|| {
                let mut bytes = bytes.clone();
                mutate(&mut random, &mut bytes, other);
                bytes
            });
            run(name, &format!("{file} changed in round {round}"), target, &bytes);
            round += 1;
        }
        if matches!(name, "wandb" | "tensorboard") && round >= 100 {
            assert!(framed > round / 8, "{name}: {framed} of {round} changed behind checksums");
        }
        if time.is_some() {
            println!("{name}: {round} changed files, {framed} of them behind checksums");
        }
    }
}
