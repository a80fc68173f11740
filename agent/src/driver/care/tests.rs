//! A driver over a real directory, whose clock is the test's: what is told of
//! a program that makes no progress.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use lifecycle::Exit;
use proto::gateway::RemoteStore;
use proto::wire::Message as _;
use tokio::sync::{mpsc, watch};

use super::chores::Seen;
use super::*;
use crate::driver::Parts;
use crate::supervisor::{Effect, Tell};
use crate::world::Ended;
use crate::world::machine::Machine;

struct Rig {
    driver: Driver,
    clock: Arc<AtomicU64>,
    _dir: tempfile::TempDir,
}

impl Rig {
    /// One attempt, whose program runs.
    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (state, cache) = (dir.path().join("state"), dir.path().join("cache"));
        let world = Arc::new(Machine::new("m".into(), state, cache, BTreeMap::new()));
        let clock = Arc::new(AtomicU64::new(0));
        let told = clock.clone();
        let now = move || told.load(Ordering::Relaxed);
        let mut driver = Driver::new(Parts {
            world: world.clone(),
            gateway: Arc::new(RemoteStore::newest(watch::channel(None).1)),
            up: mpsc::channel(1).0,
            events: mpsc::channel(1).1,
            held: watch::Sender::default(),
            wall_ms: Arc::new(now.clone()),
            boottime_ms: Arc::new(now),
            health: watch::Sender::default(),
            turned_ms: Arc::default(),
        });
        let work =
            v1::Work { attempt_id: "a".into(), run_id: "r".into(), generation: 1, ..v1::Work::default() };
        world.keep(&work).unwrap();
        driver.take_up(work);
        let mut rig = Self { driver, clock, _dir: dir };
        rig.attempt().supervisor.phase = Phase::Running;
        let world: Arc<dyn World> = world;
        rig.driver.care = Care::begin(&world);
        assert!(rig.driver.care.is_some());
        rig
    }

    fn attempt(&mut self) -> &mut Attempt {
        self.driver.attempts.get_mut("a").unwrap()
    }

    /// Looks at a program that uses nothing, each ten seconds.
    fn idle(&mut self, seconds: u64, is_whole: bool) {
        for _ in 0..seconds / 10 {
            self.clock.fetch_add(10_000, Ordering::Relaxed);
            self.driver.looked("a", Seen { usage: os::Usage::default(), is_whole });
        }
    }

    /// What was told of hangs and ends, in order.
    fn told(&mut self) -> Vec<String> {
        let events = self.attempt().outbox.events().map(|bytes| v1::Fact::decode(bytes).unwrap());
        events
            .filter_map(|fact| match fact.body {
                Some(proto::v1::fact::Body::Event(v1::Event { kind: Some(kind) })) => Some(kind),
                _ => None,
            })
            .filter_map(|kind| match kind {
                Kind::Alert(alert) if alert.name == "hang" => Some(format!("hang {}", alert.raised)),
                Kind::Exited(_) => Some("exited".to_owned()),
                _ => None,
            })
            .collect()
    }

    fn exited(&mut self) {
        let ended = Ended {
            exit: Exit::Code { code: 1 },
            at_ms: 1,
            out_of_memory: String::new(),
            max_rss_bytes: 0,
            oom_process: None,
            unapplied_limits: Vec::new(),
        };
        self.driver.perform("a", Effect::Tell(Tell::Exited(ended)));
    }
}

#[tokio::test]
async fn an_alert_that_it_hangs_is_over_when_it_moves_and_when_it_has_ended() {
    let mut rig = Rig::begin();
    rig.idle(1_000, true);
    assert!(rig.told().is_empty());
    rig.idle(2_000, true);
    assert_eq!(rig.told(), ["hang true"]);
    // It saves a checkpoint.
    rig.attempt().announced.insert("token".into(), ());
    rig.idle(10, true);
    assert_eq!(rig.told(), ["hang true", "hang false"]);
    rig.idle(20_000, true);
    rig.exited();
    assert_eq!(rig.told(), ["hang true", "hang false", "hang true", "hang false", "exited"]);
    // An end that is told again is no news of the hang.
    rig.exited();
    assert_eq!(rig.told().len(), 6);
}

#[tokio::test]
async fn a_program_whose_use_cannot_be_read_is_not_idle() {
    let mut rig = Rig::begin();
    rig.idle(100_000, false);
    assert!(rig.told().is_empty(), "{:?}", rig.told());
    rig.exited();
    assert_eq!(rig.told(), ["exited"]);
}
