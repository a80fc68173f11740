//! The end of an attempt whose last saves were stored while nobody answered.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use proto::gateway::RemoteStore;
use tokio::sync::watch;

use super::super::finish::{Last, finish};
use super::super::strain::Strain;
use super::*;
use crate::world::{Cancelled, Candidate, Failed, Output, Piece, Prepared, Program};

/// A machine with one save, which is stored at once and settled as it is told.
struct Machine {
    settlements: Mutex<Vec<Published>>,
    /// The save is to be published, for the first time or again.
    open: Mutex<bool>,
    /// So often it becomes another one while it is read.
    changes: Mutex<u32>,
    published: Mutex<u32>,
}

#[async_trait]
impl World for Machine {
    fn held(&self) -> Vec<v1::Work> {
        Vec::new()
    }
    fn keep(&self, _: &v1::Work) -> std::io::Result<()> {
        Ok(())
    }
    fn outbox(&self, _: &str) -> Option<PathBuf> {
        None
    }
    async fn prepare(&self, _: v1::Work, _: SharedGateway, _: Cancelled) -> Result<Prepared, Failed> {
        std::future::pending().await
    }
    async fn start(&self, _: v1::Work) -> Result<(), Failed> {
        Ok(())
    }
    fn program(&self, _: &str) -> Program {
        Program::NotStarted
    }
    async fn stop(&self, _: &str, _: u64) -> bool {
        true
    }
    async fn kill(&self, _: &str) -> bool {
        true
    }
    fn read(&self, _: &str, _: Output, _: u64, _: usize) -> Piece {
        Piece::Nothing
    }
    fn release(&self, _: &str, _: Output, _: u64) {}
    async fn candidates(&self, _: v1::Work, _: bool) -> Vec<Candidate> {
        let save = Candidate { token: "t".into(), name: "step-9".into(), step: Some(9), older: false };
        if std::mem::take(&mut *self.open.lock().unwrap()) { vec![save] } else { Vec::new() }
    }
    async fn publish(&self, _: v1::Work, _: Candidate, _: SharedGateway) -> Published {
        let mut changes = self.changes.lock().unwrap();
        if *changes > 0 {
            *changes -= 1;
            return Published::Gone;
        }
        *self.published.lock().unwrap() += 1;
        Published::Stored { key: "k".into(), digest: "d".into(), step: Some(9) }
    }
    async fn publish_outputs(&self, _: v1::Work, _: SharedGateway) -> Published {
        Published::Gone
    }
    async fn settle(&self, _: v1::Work, _: SharedGateway, _: bool) -> Settlement {
        if *self.published.lock().unwrap() == 0 {
            *self.open.lock().unwrap() = true;
            return Settlement { outcomes: Vec::new(), left: 0 };
        }
        let outcome = self.settlements.lock().unwrap().pop();
        *self.open.lock().unwrap() = matches!(outcome, Some(Published::Later(_)));
        Settlement { outcomes: outcome.into_iter().collect(), left: 0 }
    }
    fn forget(&self, _: &str) {}
    fn free(&self) -> (u64, u64) {
        (0, 0)
    }
}

/// What is told at the end, how often the save was published, and whether it
/// is durable.
async fn ends(settlements: Vec<Published>) -> (Option<String>, u32, bool) {
    ends_after(0, settlements).await
}

/// The same of a save that changes so often while it is read.
async fn ends_after(changes: u32, mut settlements: Vec<Published>) -> (Option<String>, u32, bool) {
    settlements.reverse();
    let settlements = Mutex::new(settlements);
    let (open, changes) = (Mutex::new(true), Mutex::new(changes));
    let machine = Machine { settlements, open, changes, published: Mutex::default() };
    let gateway: SharedGateway = Arc::new(RemoteStore::newest(watch::channel(None).1));
    let cancelled = Arc::new(AtomicBool::new(false));
    let last = Last { durable: None, step: Some(9), cancelled, strain: Strain::default() };
    let (unpublished, facts) = finish(&machine, v1::Work::default(), gateway, last).await;
    let durable = facts.iter().any(|fact| matches!(fact, Kind::CheckpointStored(_)));
    (unpublished, *machine.published.lock().unwrap(), durable)
}

#[tokio::test(start_paused = true)]
async fn a_last_save_whose_commit_comes_to_nothing_is_published_again() {
    let durable = || Published::Durable { key: "k".into(), step: Some(9) };
    let later = || Published::Later("a pack of it is being deleted".into());
    assert_eq!(ends(vec![durable()]).await, (None, 1, true));
    assert_eq!(ends(vec![later(), later(), durable()]).await, (None, 3, true));
    // It is never told that all is well where it is not.
    let (why, _, durable) = ends(vec![Published::Refused("its digest differs".into())]).await;
    assert!(why.is_some_and(|why| why.contains("digest")) && !durable);
    let (why, published, durable) = ends((0..20).map(|_| later()).collect()).await;
    assert!(why.is_some_and(|why| why.contains("durable")) && !durable);
    assert_eq!(published, 5);
}

#[tokio::test(start_paused = true)]
async fn a_last_save_that_could_not_be_read_is_looked_at_again_and_never_passed_over_in_silence() {
    let durable = || vec![Published::Durable { key: "k".into(), step: Some(9) }];
    assert_eq!(ends_after(1, durable()).await, (None, 1, true));
    assert_eq!(ends_after(4, durable()).await, (None, 1, true));
    let (why, published, durable) = ends_after(u32::MAX, durable()).await;
    assert!(why.is_some_and(|why| why.starts_with("checkpoint step-9 changed or went away each time")));
    assert_eq!((published, durable), (0, false));
}
