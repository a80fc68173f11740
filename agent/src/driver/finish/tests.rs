//! A program that saved right before it ended: nothing of it is left out, and
//! nothing is published twice.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use async_trait::async_trait;
use proto::gateway::RemoteStore;
use tokio::sync::{Semaphore, mpsc, watch};

use super::*;
use crate::driver::Parts;
use crate::supervisor::Input;
use crate::world::{Ended, Failed, Output, Piece, Prepared, Program};

/// A machine whose saves are durable once the link lets them through.
struct Machine {
    /// Names, newest first.
    saves: Vec<(&'static str, Option<u64>)>,
    durable: Mutex<BTreeSet<String>>,
    published: Mutex<Vec<String>>,
    link: Semaphore,
    /// Why nothing can be stored; empty: it can.
    refusing: Mutex<&'static str>,
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
        let durable = self.durable.lock().unwrap();
        let left = self.saves.iter().filter(|(name, _)| !durable.contains(*name));
        let candidate = |(name, step): &(&str, Option<u64>)| Candidate {
            token: (*name).to_owned(),
            name: (*name).to_owned(),
            step: *step,
            older: false,
        };
        left.map(candidate).collect()
    }
    async fn publish(&self, _: v1::Work, save: Candidate, _: SharedGateway) -> Published {
        self.link.acquire().await.unwrap().forget();
        let refusing = *self.refusing.lock().unwrap();
        if !refusing.is_empty() {
            return Published::Later(refusing.to_owned());
        }
        self.durable.lock().unwrap().insert(save.name.clone());
        self.published.lock().unwrap().push(save.name.clone());
        Published::Durable { key: save.name, step: save.step }
    }
    async fn publish_outputs(&self, _: v1::Work, _: SharedGateway) -> Published {
        Published::Gone
    }
    fn forget(&self, _: &str) {}
    fn free(&self) -> (u64, u64) {
        (0, 0)
    }
}

fn machine(saves: Vec<(&'static str, Option<u64>)>) -> Arc<Machine> {
    let (link, refusing) = (Semaphore::new(0), Mutex::default());
    Arc::new(Machine { saves, durable: Mutex::default(), published: Mutex::default(), link, refusing })
}

fn gateway() -> SharedGateway {
    Arc::new(RemoteStore::newest(watch::channel(None).1))
}

fn driver(world: &Arc<Machine>) -> Driver {
    let mut driver = Driver::new(Parts {
        world: world.clone(),
        gateway: gateway(),
        up: mpsc::channel(16).0,
        events: mpsc::channel(16).1,
        held: watch::Sender::default(),
        wall_ms: Arc::new(|| 1),
        boottime_ms: Arc::new(|| 1),
        health: watch::Sender::default(),
        turned_ms: Arc::default(),
    });
    driver.take_up(v1::Work {
        run_id: "r".into(),
        attempt_id: "a".into(),
        generation: 1,
        spec_json: "{}".into(),
        ..Default::default()
    });
    driver
}

fn ended() -> Ended {
    Ended {
        exit: lifecycle::Exit::Code { code: 0 },
        at_ms: 7,
        out_of_memory: String::new(),
        max_rss_bytes: 0,
        oom_process: None,
        unapplied_limits: Vec::new(),
    }
}

/// The end of one job.
async fn turn(driver: &mut Driver) {
    let (id, done) = driver.jobs.join_next().await.unwrap().unwrap();
    driver.done(&id, done);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_published_when_the_program_ends_is_not_published_again() {
    let world = machine(vec![("step-3", Some(3))]);
    let mut driver = driver(&world);
    driver.input("a", Input::Observed(Program::Running(7)));
    driver.scan();
    turn(&mut driver).await;
    driver.input("a", Input::Observed(Program::Ended(ended())));
    // Whatever looks at once has looked by now.
    for _ in 0..9 {
        tokio::task::yield_now().await;
    }
    // A link that would let it through as often as it is sent.
    world.link.add_permits(9);
    while driver.attempts["a"].supervisor.phase != crate::supervisor::Phase::Ended {
        turn(&mut driver).await;
    }
    assert_eq!(*world.published.lock().unwrap(), ["step-3"]);
    assert_eq!(driver.attempts["a"].published_step, Some(3));
}

#[tokio::test(start_paused = true)]
async fn whatever_never_became_durable_is_published_at_the_end_whatever_its_step() {
    let saves = vec![("step-50", Some(50)), ("phase2-step-4", Some(4)), ("phase2-step-3", Some(3))];
    let world = machine(saves);
    world.link.add_permits(9);
    // Step 50 is durable as it was before it was saved again.
    let last =
        Last { durable: Some(50), step: Some(4), cancelled: Cancelled::default(), strain: Strain::default() };
    let (unpublished, facts) = finish(&*world, v1::Work::default(), gateway(), last).await;
    assert_eq!(unpublished, None);
    assert_eq!(*world.published.lock().unwrap(), ["step-50", "phase2-step-4", "phase2-step-3"]);
    let steps = facts.iter().filter_map(|fact| match fact {
        Kind::CheckpointStored(stored) => Some(stored.step),
        _ => None,
    });
    assert_eq!(steps.collect::<Vec<_>>(), [Some(50), Some(4), Some(3)]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_nothing_at_the_end_is_told_while_it_lasts() {
    let world = machine(vec![("step-3", Some(3))]);
    *world.refusing.lock().unwrap() = "the store is full (x): free space or raise its quota";
    world.link.add_permits(99);
    let mut driver = driver(&world);
    (driver.connected, driver.welcomed) = (true, true);
    driver.input("a", Input::Observed(Program::Running(7)));
    driver.input("a", Input::Observed(Program::Ended(ended())));
    let told = |driver: &mut Driver| {
        driver.watch_store(tokio::time::Instant::now());
        driver.attempts["a"].strain.raised().map(|alert| alert.text)
    };
    let mut text = None;
    while text.is_none() {
        tokio::time::sleep(RETRY).await;
        text = told(&mut driver);
    }
    assert!(text.unwrap().contains("free space or raise its quota"));
    *world.refusing.lock().unwrap() = "";
    turn(&mut driver).await;
    assert_eq!(told(&mut driver), None);
    assert_eq!(*world.published.lock().unwrap(), ["step-3"]);
}
