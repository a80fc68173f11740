//! What an outbox keeps, and when it says so.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;
use proptest::prelude::*;

fn open(path: &Path) -> Outbox {
    Outbox::open("a", Some(path), Pen::inline(Box::new(Files::default()))).unwrap()
}

/// Where thousands of syncs take no disk's time: how durable they are is not
/// what is tested with it.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn drain(outbox: &Outbox, lane: Lane, mut from: u64) -> Vec<(u64, Record)> {
    let mut all = Vec::new();
    while let Some((seq, record, after)) = outbox.at(lane, from) {
        all.push((seq, record.clone()));
        from = after;
    }
    all
}

proptest! {
    /// Whatever was added and not acknowledged is there after a crash that
    /// tears the last write anywhere, in order, without a hole.
    #[test]
    fn i12_a_torn_tail_loses_only_the_tail(
        ops in proptest::collection::vec((0u8..3, 0usize..40), 1..60), cut in 0usize..400,
    ) {
        let dir = in_memory();
        let path = dir.path().join("outbox");
        let mut outbox = open(&path);
        for (kind, size) in &ops {
            match kind {
                0 => outbox.event(|seq| vec![seq as u8; *size]),
                1 => outbox.metrics(|seq| vec![seq as u8; *size], b"cursor".to_vec()),
                _ => {
                    let next = outbox.next(Lane::Metrics) / 2;
                    outbox.acked(Lane::Metrics, next);
                }
            }
        }
        let whole: Vec<Vec<u8>> = outbox.events().map(<[u8]>::to_vec).collect();
        drop(outbox);
        let bytes = std::fs::read(&path).unwrap();
        let keep = bytes.len().saturating_sub(cut);
        std::fs::write(&path, &bytes[..keep]).unwrap();
        let again = open(&path);
        let left: Vec<Vec<u8>> = again.events().map(<[u8]>::to_vec).collect();
        prop_assert!(whole.starts_with(&left));
        if cut == 0 { prop_assert_eq!(left, whole); }
        let facts = drain(&again, Lane::Metrics, 0);
        for (index, (seq, _)) in facts.iter().enumerate() {
            prop_assert_eq!(*seq, index as u64);
        }
    }
}

#[test]
fn too_many_metrics_are_thinned_with_a_gap_and_events_never() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outbox");
    let mut outbox = open(&path);
    outbox.event(|_| vec![1]);
    for _ in 0..300 {
        outbox.metrics(|_| vec![0; 60_000], Vec::new());
    }
    assert!(outbox.thinned > 0);
    assert!(std::fs::metadata(&path).unwrap().len() < 20 << 20);
    for outbox in [outbox, open(&path)] {
        let all = drain(&outbox, Lane::Metrics, 0);
        assert!(matches!(all[0], (0, Record::Gap(_))));
        let mut expected = 0;
        for (seq, record) in &all {
            assert_eq!(*seq, expected);
            expected = if let Record::Gap(to) = record { *to } else { seq + 1 };
        }
        assert_eq!(expected, 300);
        assert_eq!(outbox.events().count(), 1);
    }
}

/// Adds to a file only as often as it was allowed to.
struct Allowed(Receiver<()>, Files);

impl Disk for Allowed {
    fn append(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // Who gave up allowing allows all.
        let _ = self.0.recv();
        self.1.append(path, bytes)
    }
    fn sync(&mut self, path: &Path) -> io::Result<()> {
        self.1.sync(path)
    }
    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.1.replace(path, bytes)
    }
    fn close(&mut self, path: &Path) {
        self.1.close(path);
    }
}

#[test]
fn nothing_that_did_not_fit_is_ready_before_the_file_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outbox");
    let (allow, allowed): (SyncSender<()>, _) = sync_channel(1_000);
    let (pen, mut answers) = Pen::thread(Box::new(Allowed(allowed, Files::default()))).unwrap();
    let mut outbox = Outbox::open("a", Some(&path), pen.clone()).unwrap();
    let mut batches = 0;
    while pen.refused() == 0 {
        outbox.metrics(|_| vec![7], Vec::new());
        batches += 1;
    }
    outbox.event(|_| vec![9]);
    // Once some of it is written there is room again, and a sync is due.
    let waiting = pen.waiting();
    for _ in 0..100 {
        allow.send(()).unwrap();
    }
    while pen.waiting() + 30 > waiting {
        std::thread::yield_now();
    }
    outbox.sync();
    drop(allow);
    while outbox.is_waiting() {
        outbox.settled(&answers.blocking_recv().unwrap());
        let copy = dir.path().join("copy");
        std::fs::copy(&path, &copy).unwrap();
        let kept = open(&copy);
        assert!(kept.next(Lane::Events) >= outbox.ready(Lane::Events), "an event was ready too early");
        assert!(kept.next(Lane::Metrics) >= outbox.ready(Lane::Metrics), "a batch was ready too early");
    }
    assert_eq!((outbox.ready(Lane::Events), outbox.ready(Lane::Metrics)), (1, batches));
    assert_eq!(pen.refused(), 1, "what does not fit is counted once");
}
