//! Whatever way a file grew, what is said of it is what a first reading says.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::super::find::Found;
use super::super::json;
use super::*;

fn data(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../curves/tests/data").join(name)).unwrap()
}

fn source(path: &Path) -> Option<Source> {
    let mut found = Found::new(None);
    found.add(path).ok()?;
    found.sources.pop()
}

fn text(run: &Run) -> String {
    serde_json::to_string(&json::object(run)).unwrap()
}

/// What is said by both ways of reading.
fn both(followers: &mut Followers, path: &Path, metrics: Option<&Metrics>) -> Option<[String; 2]> {
    let source = source(path)?;
    let followed = text(&followers.analyse(&source, metrics));
    Some([followed, text(&read::analyse(&source, metrics))])
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

const FILES: [(&str, &str); 5] = [
    ("nan_lr.csv", "run.csv"),
    ("wandb-0.31.0.wandb", "run-a.wandb"),
    ("tensorboardx.tfevents", "events.out.tfevents.1"),
    ("nan_lr.jsonl", "metrics.jsonl"),
    ("hf_stdout.txt", "output.log"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_file_that_grows_is_judged_as_if_it_were_read_whole(
        which in 0..FILES.len(),
        mut cuts in proptest::collection::vec(0.0..1.0_f64, 1..5),
    ) {
        let (from, to) = FILES[which];
        let bytes = data(from);
        cuts.sort_by(f64::total_cmp);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(to);
        let (mut followers, mut at) = (Followers::default(), 0);
        for cut in cuts.into_iter().chain([1.0]) {
            let next = (cut * bytes.len() as f64) as usize;
            append(&path, &bytes[at..next]);
            at = next;
            if let Some([followed, whole]) = both(&mut followers, &path, None) {
                prop_assert_eq!(followed, whole, "{} up to {}", from, at);
            }
        }
    }
}

fn rows(steps: std::ops::Range<u32>, loss: f64) -> String {
    steps.map(|step| format!("{{\"step\": {step}, \"loss\": {}}}\n", loss / f64::from(step + 1))).collect()
}

#[test]
fn new_bytes_alone_are_read_and_what_was_exchanged_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    append(&path, rows(0..1000, 2.0).as_bytes());
    let mut followers = Followers::default();
    let same = |followers: &mut Followers| {
        let [followed, whole] = both(followers, &path, None).unwrap();
        assert_eq!(followed, whole);
    };
    let stands = |followers: &Followers| (followers.held[0].places[0].at, fs::metadata(&path).unwrap().len());
    same(&mut followers);
    let first = stands(&followers);
    append(&path, rows(1000..1010, 2.0).as_bytes());
    // What lies before the place is not read: a change there goes unnoticed.
    let mut changed = fs::read(&path).unwrap();
    let digit = changed.iter().position(|byte| *byte == b'2').unwrap();
    changed[digit] = b'9';
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&changed).unwrap();
    let source = source(&path).unwrap();
    let followed = text(&followers.analyse(&source, None));
    assert_ne!(followed, text(&read::analyse(&source, None)), "it was read from the beginning");
    assert!(stands(&followers).0 > first.0 && stands(&followers).0 == stands(&followers).1);
    // Another file of that name, a longer and a shorter one.
    for text in [rows(0..3000, 5.0), rows(0..20, 7.0)] {
        let other = dir.path().join("other");
        fs::write(&other, text).unwrap();
        fs::rename(&other, &path).unwrap();
        same(&mut followers);
    }
    // The same file, written anew from its beginning.
    fs::write(&path, rows(0..4000, 9.0)).unwrap();
    same(&mut followers);
}

#[test]
fn runs_beyond_the_bound_are_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut followers = Followers::default();
    for index in 0..=MOST {
        let path = dir.path().join(format!("{index}.jsonl"));
        append(&path, rows(0..50, 2.0).as_bytes());
        both(&mut followers, &path, None).unwrap();
    }
    assert_eq!(followers.held.len(), MOST);
    assert!(followers.held.iter().all(|held| !held.path.ends_with("0.jsonl")), "the oldest has gone");
}

#[test]
fn what_a_person_says_of_the_metrics_counts_for_new_ones_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let metrics = Metrics { primary: Some("speed".into()), ..Metrics::default() };
    let mut followers = Followers::default();
    append(&path, rows(0..100, 2.0).as_bytes());
    let [followed, whole] = both(&mut followers, &path, Some(&metrics)).unwrap();
    assert_eq!(followed, whole);
    let row = |step: u32| format!("{{\"step\": {step}, \"loss\": 1, \"speed\": {step}}}\n");
    append(&path, (100..200).map(row).collect::<String>().as_bytes());
    let [followed, whole] = both(&mut followers, &path, Some(&metrics)).unwrap();
    assert_eq!(followed, whole);
    assert!(whole.contains("\"primary\":\"speed\""), "{whole}");
}

#[test]
fn a_run_of_the_controllers_that_goes_on_after_all_has_not_ended() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("cache/curves/resnet-o1");
    fs::create_dir_all(&run).unwrap();
    let about = |end: &str| {
        let facts = "{\"fact\":{\"run_id\":\"o1\",\"name\":\"resnet-o1\",\"status\":\"STATE\"}}\n{\"started\":1796000000.0}\n";
        let state = if end.is_empty() { "running" } else { "failed" };
        fs::write(run.join(live::ABOUT), format!("{}{end}", facts.replace("STATE", state))).unwrap();
    };
    let point = |step: u32| {
        let (time, value) = (1_796_000_000_000_u64 + u64::from(step), 2.0 / f64::from(step + 1));
        format!("{{\"t\":{time},\"name\":\"loss\",\"step\":{step},\"value\":{value}}}\n")
    };
    let points = |attempt: u32, steps: std::ops::Range<u32>| {
        append(
            &run.join(format!("{attempt:05}-points.jsonl")),
            steps.map(point).collect::<String>().as_bytes(),
        );
    };
    let mut followers = Followers::default();
    about("{\"ended\":1796000100.0}\n{\"exit\":1}\n");
    points(1, 0..50);
    let [followed, whole] = both(&mut followers, &run, None).unwrap();
    assert_eq!(followed, whole);
    assert!(followed.contains("exit code 1"), "{followed}");
    fs::write(run.join("00002-from.jsonl"), "{\"segment\":{\"from\":40}}\n").unwrap();
    points(2, 40..60);
    about("");
    let [followed, whole] = both(&mut followers, &run, None).unwrap();
    assert_eq!(followed, whole);
    assert!(!followed.contains("exit code 1"), "{followed}");
}
