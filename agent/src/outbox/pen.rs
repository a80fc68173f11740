//! Who writes outboxes to disk: a thread of its own, since a disk that does not
//! answer must not stop heartbeats and signs of life. Orders wait in a queue
//! that is bounded in number and bytes; what does not fit is refused and
//! counted, and its outbox writes all of it anew later. It never says that
//! something is settled before the disk said so.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::disk::Disk;

/// Orders that wait for the disk.
const QUEUE: usize = 256;
/// Bytes that wait for the disk; one order may always wait.
const BYTES: u64 = 4 << 20;
/// Orders that share one sync of each file.
const GROUP: usize = 64;

/// How far an outbox's lanes reach: the numbers after the last records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upto {
    /// Of the lifecycle facts.
    pub events: u64,
    /// Of the metric batches.
    pub metrics: u64,
}

/// What is to be done to a file.
#[derive(Debug)]
pub(super) enum Write {
    /// Add bytes; with `true` they are durable when it is settled.
    Append(Vec<u8>, bool),
    /// Put other bytes in its place, durably.
    Replace(Vec<u8>),
    /// Make durable what was added.
    Sync,
    /// It is not needed any more; never answered.
    Close,
}

impl Write {
    fn size(&self) -> u64 {
        match self {
            Self::Append(bytes, _) | Self::Replace(bytes) => bytes.len() as u64,
            Self::Sync | Self::Close => 0,
        }
    }
}

/// A write with whose it is.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) attempt: Arc<str>,
    pub(super) path: Arc<Path>,
    pub(super) write: Write,
    /// What is on the disk once it is done.
    pub(super) upto: Upto,
}

/// The disk's answer to one order.
#[derive(Debug)]
pub struct Settled {
    /// Whose outbox.
    pub attempt: Arc<str>,
    /// What the order was to bring to the disk.
    pub upto: Upto,
    /// Why the disk refused it; then memory alone has it.
    pub refused: Option<io::Error>,
}

/// What became of an order.
pub(super) enum Given {
    /// Its answer comes.
    Waits,
    /// Its answer is here.
    Settled(Settled),
    /// It does not fit.
    Full,
}

#[derive(Debug, Default)]
struct Load {
    orders: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
}

/// Takes orders; clones share one disk.
#[derive(Clone)]
pub struct Pen(Arc<Way>);

enum Way {
    /// In the calling thread: one order of events, for deterministic simulation.
    Inline(Mutex<Box<dyn Disk>>),
    Thread(SyncSender<Order>, Arc<Load>),
}

impl std::fmt::Debug for Pen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pen({} waiting)", self.waiting())
    }
}

impl Pen {
    /// Writes in the calling thread.
    #[must_use]
    pub fn inline(disk: Box<dyn Disk>) -> Self {
        Self(Arc::new(Way::Inline(Mutex::new(disk))))
    }

    /// Writes in a thread of its own; the answers come by the receiver. The
    /// thread is never joined: it may wait for a dead disk.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn thread(disk: Box<dyn Disk>) -> io::Result<(Self, mpsc::Receiver<Settled>)> {
        let (orders, taken) = sync_channel(QUEUE);
        let (answer, answers) = mpsc::channel(QUEUE);
        let load = Arc::new(Load::default());
        let shared = load.clone();
        std::thread::Builder::new()
            .name("outbox".into())
            .stack_size(256 << 10)
            .spawn(move || serve(&taken, disk, &answer, &shared))?;
        Ok((Self(Arc::new(Way::Thread(orders, load))), answers))
    }

    /// Orders that wait for the disk.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        match &*self.0 {
            Way::Inline(_) => 0,
            Way::Thread(_, load) => load.orders.load(Ordering::Acquire),
        }
    }

    /// Orders that did not fit into the queue since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        match &*self.0 {
            Way::Inline(_) => 0,
            Way::Thread(_, load) => load.refused.load(Ordering::Relaxed),
        }
    }

    /// Whether so many bytes fit now.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        match &*self.0 {
            Way::Inline(_) => true,
            Way::Thread(_, load) => {
                let waiting = load.bytes.load(Ordering::Acquire);
                waiting == 0 || waiting + bytes <= BYTES
            }
        }
    }

    pub(super) fn give(&self, order: Order) -> Given {
        let (orders, load) = match &*self.0 {
            Way::Inline(disk) => {
                let mut disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
                let settled = perform(&mut **disk, vec![order]).pop();
                return settled.map_or(Given::Waits, Given::Settled);
            }
            Way::Thread(orders, load) => (orders, load),
        };
        let size = order.write.size();
        let fits = self.has_room(size);
        // Counted before it is sent: the thread counts down.
        load.orders.fetch_add(1, Ordering::AcqRel);
        load.bytes.fetch_add(size, Ordering::AcqRel);
        let sent = if fits { orders.try_send(order) } else { Err(TrySendError::Full(order)) };
        if sent.is_ok() {
            return Given::Waits;
        }
        load.orders.fetch_sub(1, Ordering::AcqRel);
        load.bytes.fetch_sub(size, Ordering::AcqRel);
        load.refused.fetch_add(1, Ordering::Relaxed);
        Given::Full
    }
}

fn serve(orders: &Receiver<Order>, mut disk: Box<dyn Disk>, answers: &mpsc::Sender<Settled>, load: &Load) {
    while let Ok(first) = orders.recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = orders.try_recv()
        {
            group.push(next);
        }
        let count = group.len() as u64;
        let size = group.iter().map(|order| order.write.size()).sum();
        let settled = perform(&mut *disk, group);
        load.bytes.fetch_sub(size, Ordering::AcqRel);
        load.orders.fetch_sub(count, Ordering::AcqRel);
        for answer in settled {
            if answers.blocking_send(answer).is_err() {
                return;
            }
        }
    }
}

/// Performs orders one after the other, with one sync per file at the end.
fn perform(disk: &mut dyn Disk, group: Vec<Order>) -> Vec<Settled> {
    let mut unsynced: BTreeMap<Arc<Path>, Vec<usize>> = BTreeMap::new();
    let mut answers = Vec::with_capacity(group.len());
    for Order { attempt, path, write, upto } in group {
        let (done, needs_sync) = match write {
            Write::Append(bytes, sync) => (disk.append(&path, &bytes), sync),
            Write::Replace(bytes) => (disk.replace(&path, &bytes), false),
            Write::Sync => (Ok(()), true),
            Write::Close => {
                disk.close(&path);
                unsynced.remove(&path);
                continue;
            }
        };
        if needs_sync && done.is_ok() {
            unsynced.entry(path).or_default().push(answers.len());
        }
        answers.push(Settled { attempt, upto, refused: done.err() });
    }
    for (path, waiting) in unsynced {
        if let Err(error) = disk.sync(&path) {
            for index in waiting {
                answers[index].refused = Some(io::Error::new(error.kind(), error.to_string()));
            }
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes what is done, and does nothing while `gate` is held.
    struct Slow(Arc<Mutex<()>>, Arc<Mutex<Vec<String>>>);

    impl Slow {
        fn say(&self, what: String) -> io::Result<()> {
            drop(self.0.lock().unwrap());
            self.1.lock().unwrap().push(what);
            Ok(())
        }
    }

    impl Disk for Slow {
        fn append(&mut self, _: &Path, bytes: &[u8]) -> io::Result<()> {
            self.say(format!("append {}", bytes.len()))
        }
        fn sync(&mut self, _: &Path) -> io::Result<()> {
            self.say("sync".into())
        }
        fn replace(&mut self, _: &Path, bytes: &[u8]) -> io::Result<()> {
            self.say(format!("replace {}", bytes.len()))
        }
        fn close(&mut self, _: &Path) {}
    }

    fn order(write: Write, events: u64) -> Order {
        Order {
            attempt: "a".into(),
            path: Path::new("/x").into(),
            write,
            upto: Upto { events, ..Upto::default() },
        }
    }

    #[test]
    fn what_waits_is_bounded_counted_and_synced_together() {
        let (gate, log) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(Vec::new())));
        let (pen, mut answers) = Pen::thread(Box::new(Slow(gate.clone(), log.clone()))).unwrap();
        let held = gate.lock().unwrap();
        let mut taken = 0;
        // Giving that waited for the disk would never end: the disk is shut here.
        while matches!(pen.give(order(Write::Append(vec![0; 10], true), taken + 1)), Given::Waits) {
            taken += 1;
            assert!(taken <= 2 * QUEUE as u64, "the queue has no bound");
        }
        // The thread may have taken some of them out of the queue already.
        assert!(taken >= QUEUE as u64);
        assert_eq!((pen.waiting(), pen.refused()), (taken, 1));
        assert!(answers.try_recv().is_err(), "something was settled on a disk that does not answer");
        drop(held);
        for n in 1..=taken {
            let settled = answers.blocking_recv().unwrap();
            assert_eq!((settled.upto.events, settled.refused.is_none()), (n, true));
        }
        let log = log.lock().unwrap();
        assert_eq!(log.iter().filter(|l| l.starts_with("append")).count() as u64, taken);
        assert!(log.iter().filter(|l| *l == "sync").count() < 20, "each record had a sync of its own");
    }

    #[test]
    fn many_bytes_do_not_wait_but_one_order_always_may() {
        let (gate, log) = (Arc::new(Mutex::new(())), Arc::default());
        let (pen, _answers) = Pen::thread(Box::new(Slow(gate.clone(), log))).unwrap();
        let _held = gate.lock().unwrap();
        let large = || order(Write::Replace(vec![0; usize::try_from(BYTES).unwrap() + 1]), 1);
        assert!(matches!(pen.give(large()), Given::Waits));
        assert!(matches!(pen.give(large()), Given::Full));
        assert!(matches!(pen.give(order(Write::Sync, 1)), Given::Full));
    }
}
