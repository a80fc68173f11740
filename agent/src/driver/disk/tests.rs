//! A whole driver over a disk that does not answer: a real thread that waits,
//! beside virtual time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use proto::gateway::RemoteStore;
use proto::v1::{down, fact, up};
use proto::wire::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::driver::Parts;
use crate::outbox::{Disk, Outbox};
use crate::uplink::Event;
use crate::world::{
    Cancelled, Candidate, Ended, Failed, Output, Piece, Prepared, Program, Published, SharedGateway,
};

/// A disk that does not answer while it is shut, and counts its syncs.
struct Gated(Arc<AtomicBool>, Files, Arc<AtomicU64>);

impl Gated {
    fn wait(&self) {
        while self.0.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Disk for Gated {
    fn append(&mut self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        self.wait();
        self.1.append(path, bytes)
    }
    fn sync(&mut self, path: &Path) -> std::io::Result<()> {
        self.2.fetch_add(1, Ordering::Relaxed);
        self.1.sync(path)
    }
    fn replace(&mut self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        self.wait();
        self.1.replace(path, bytes)
    }
    fn close(&mut self, path: &Path) {
        self.1.close(path);
    }
}

/// One attempt whose program runs, writes nothing, and ends when told.
struct Machine {
    dir: PathBuf,
    disk: Mutex<Option<Box<dyn Disk>>>,
    end: Mutex<Option<Ended>>,
    /// How often a keeper was asked that never answers.
    asked: AtomicU64,
}

#[async_trait]
impl World for Machine {
    fn held(&self) -> Vec<v1::Work> {
        vec![v1::Work {
            run_id: "r".into(),
            attempt_id: "a".into(),
            generation: 1,
            spec_json: "{}".into(),
            ..Default::default()
        }]
    }
    fn keep(&self, _: &v1::Work) -> std::io::Result<()> {
        Ok(())
    }
    fn outbox(&self, _: &str) -> Option<PathBuf> {
        Some(self.dir.join("outbox"))
    }
    fn disk(&self) -> Option<Box<dyn Disk>> {
        self.disk.lock().unwrap().take()
    }
    async fn prepare(&self, _: v1::Work, _: SharedGateway, _: Cancelled) -> Result<Prepared, Failed> {
        std::future::pending().await
    }
    async fn start(&self, _: v1::Work) -> Result<(), Failed> {
        Ok(())
    }
    fn program(&self, _: &str) -> Program {
        self.end.lock().unwrap().clone().map_or(Program::Running(7), Program::Exited)
    }
    async fn stop(&self, _: &str, _: u64) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        std::future::pending().await
    }
    async fn kill(&self, _: &str) -> bool {
        true
    }
    fn read(&self, _: &str, _: Output, _: u64, _: usize) -> Piece {
        Piece::Nothing
    }
    fn release(&self, _: &str, _: Output, _: u64) {}
    async fn candidates(&self, _: v1::Work, _: bool) -> Vec<Candidate> {
        Vec::new()
    }
    async fn publish(&self, _: v1::Work, _: Candidate, _: SharedGateway) -> Published {
        Published::Gone
    }
    async fn publish_outputs(&self, _: v1::Work, _: SharedGateway) -> Published {
        Published::Gone
    }
    fn forget(&self, _: &str) {}
    fn free(&self) -> (u64, u64) {
        (0, 0)
    }
}

/// A driver that runs, and both ends of its uplink.
struct Rig {
    world: Arc<Machine>,
    turned_ms: Arc<AtomicU64>,
    syncs: Arc<AtomicU64>,
    up: mpsc::Receiver<v1::Up>,
    events: mpsc::Sender<Event>,
    _task: tokio::task::JoinSet<()>,
    _dir: tempfile::TempDir,
}

/// A driver that does not run yet, in a directory, over its world.
fn made(
    dir: &tempfile::TempDir,
    gate: &Arc<AtomicBool>,
) -> (Driver, Arc<Machine>, Arc<AtomicU64>, mpsc::Receiver<v1::Up>, mpsc::Sender<Event>) {
    let syncs = Arc::new(AtomicU64::new(0));
    let disk: Box<dyn Disk> = Box::new(Gated(gate.clone(), Files::default(), syncs.clone()));
    let world = Arc::new(Machine {
        dir: dir.path().to_owned(),
        disk: Mutex::new(Some(disk)),
        end: Mutex::default(),
        asked: AtomicU64::default(),
    });
    let (up, from_driver) = mpsc::channel(16);
    let (events, to_driver) = mpsc::channel(16);
    let began = Instant::now();
    let clock = move || u64::try_from(began.elapsed().as_millis()).unwrap();
    let driver = Driver::new(Parts {
        world: world.clone(),
        gateway: Arc::new(RemoteStore::newest(watch::channel(None).1)),
        up,
        events: to_driver,
        held: watch::Sender::default(),
        wall_ms: Arc::new(clock),
        boottime_ms: Arc::new(clock),
        health: watch::Sender::default(),
        turned_ms: Arc::default(),
    });
    (driver, world, syncs, from_driver, events)
}

async fn begin(gate: &Arc<AtomicBool>, wire: u32) -> Rig {
    begin_in(tempfile::tempdir().unwrap(), gate, wire).await
}

async fn begin_in(dir: tempfile::TempDir, gate: &Arc<AtomicBool>, wire: u32) -> Rig {
    let (driver, world, syncs, up, events) = made(&dir, gate);
    let turned_ms = driver.turned_ms.clone();
    let welcome = v1::Welcome { heartbeat_ms: 1_000, wire, ..Default::default() };
    events.send(Event::Connected).await.unwrap();
    let welcome = v1::Down { body: Some(down::Body::Welcome(welcome)) };
    events.send(Event::Down(Box::new(welcome))).await.unwrap();
    let mut task = tokio::task::JoinSet::new();
    task.spawn(driver.run(CancellationToken::new()));
    Rig { world, turned_ms, syncs, up, events, _task: task, _dir: dir }
}

impl Rig {
    /// Facts that are sent until `enough` says so of one's body. Without a limit of
    /// time: time that flies would skip to it before the real disk has answered.
    async fn hear(&mut self, mut enough: impl FnMut(&fact::Body) -> bool) -> Vec<v1::Fact> {
        let mut facts = Vec::new();
        while let Some(message) = self.up.recv().await {
            if let Some(up::Body::Facts(batch)) = message.body {
                facts.extend(batch.facts);
            }
            if facts.iter().filter_map(|fact: &v1::Fact| fact.body.as_ref()).any(&mut enough) {
                break;
            }
        }
        facts
    }

    /// Waits for so many heartbeats, without which the test does not end: facts that
    /// came meanwhile.
    async fn beats(&mut self, wanted: u32) -> Vec<v1::Fact> {
        let (mut beats, mut facts) = (0, Vec::new());
        while beats < wanted {
            let message = self.up.recv().await.expect("the driver goes on");
            match message.body {
                Some(up::Body::Renew(_)) => beats += 1,
                Some(up::Body::Facts(batch)) => facts.extend(batch.facts),
                _ => {}
            }
        }
        facts
    }
}

fn kind(fact: &v1::Fact) -> Option<&Kind> {
    match &fact.body {
        Some(fact::Body::Event(v1::Event { kind })) => kind.as_ref(),
        _ => None,
    }
}

/// How slow the real disk is, beside time that flies, is not what is tested.
fn is_of_the_program(body: &fact::Body) -> bool {
    !matches!(body, fact::Body::Event(v1::Event { kind: Some(Kind::Alert(_)) }))
}

fn is_end_of_silence(body: &fact::Body) -> bool {
    matches!(body, fact::Body::Event(v1::Event { kind: Some(Kind::Alert(alert)) }) if !alert.raised)
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_blocks_stops_no_sign_of_life_and_nothing_goes_before_it_is_durable() {
    let gate = Arc::new(AtomicBool::new(true));
    let mut rig = begin(&gate, proto::WIRE).await;
    // 30 s: what makes a guard end an agent that gives no signs.
    let facts = rig.beats(30).await;
    assert!(rig.turned_ms.load(Ordering::Relaxed) >= 29_000, "the loop stood still");
    assert_eq!(
        (facts.len(), rig.syncs.load(Ordering::Relaxed)),
        (0, 0),
        "facts went before they were durable"
    );
    gate.store(false, Ordering::Relaxed);
    // Virtual time runs while the real thread writes: as much as it takes.
    let facts = rig.hear(is_end_of_silence).await;
    assert!(rig.syncs.load(Ordering::Relaxed) > 0, "facts went without a sync");
    let numbers: Vec<u64> = facts.iter().map(|fact| fact.seq).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "once and in order");
    assert!(matches!(kind(&facts[0]), Some(Kind::Started(_))), "{facts:?}");
    let told: Vec<bool> = facts
        .iter()
        .filter_map(|fact| match kind(fact) {
            Some(Kind::Alert(alert)) if alert.name == "disk-silent" => Some(alert.raised),
            _ => None,
        })
        .collect();
    // While time flies the real disk may well fall silent once more.
    assert!(
        told.starts_with(&[true, false]),
        "that the disk was silent, and that it answers again: {told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_does_not_answer_stops_no_sign_of_life() {
    let mut rig = begin(&Arc::default(), proto::WIRE).await;
    rig.hear(is_of_the_program).await;
    let mut work = rig.world.held().remove(0);
    work.wish = v1::Wish::Stop.into();
    let assignment = v1::Assignment { revision: 1, work: Some(work) };
    let message = v1::Down { body: Some(down::Body::Assignment(assignment)) };
    rig.events.send(Event::Down(Box::new(message))).await.unwrap();
    // No limit of time: time that flies would skip to it while a real disk is written.
    rig.beats(30).await;
    assert_eq!(rig.world.asked.load(Ordering::Relaxed), 1, "the keeper was not asked");
}

/// An outbox as nobody but a reader of its file sees it.
fn kept(dir: &tempfile::TempDir) -> Outbox {
    let pen = Pen::inline(Box::new(Files::default()));
    Outbox::open("a", Some(&dir.path().join("outbox")), pen).unwrap()
}

#[tokio::test]
async fn an_agent_that_ends_writes_what_waited_and_what_did_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(AtomicBool::new(true));
    let (mut driver, world, ..) = made(&dir, &gate);
    world.held().into_iter().for_each(|work| driver.take_up(work));
    let mut told = 0;
    while driver.disk.pen.refused() == 0 || told % 100 > 0 {
        driver.record("a", Kind::Note(v1::Note::default()));
        told += 1;
    }
    assert_eq!(kept(&dir).events().count(), 0, "the disk is shut");
    gate.store(false, Ordering::Relaxed);
    driver.flush(Duration::from_hours(1)).await;
    assert_eq!(kept(&dir).events().count(), told);
}

#[tokio::test(start_paused = true)]
async fn what_a_later_agent_left_is_passed_over_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = kept(&dir);
    for kind in [None, Some(Kind::Note(v1::Note::default()))] {
        let body = Some(fact::Body::Event(v1::Event { kind }));
        outbox
            .event(|seq| v1::Fact { stream: v1::Stream::Events.into(), seq, at_ms: 1, body }.encode_to_vec());
    }
    drop(outbox);
    let mut rig = begin_in(dir, &Arc::default(), proto::WIRE).await;
    let is_note =
        |body: &fact::Body| matches!(body, fact::Body::Event(v1::Event { kind: Some(Kind::Note(_)) }));
    let facts = rig.hear(is_note).await;
    assert!(matches!(&facts[0].body, Some(fact::Body::Gap(gap)) if gap.to == 1), "{facts:?}");
    assert!(facts[1].seq == 1 && facts[1].body.as_ref().is_some_and(is_note), "{facts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_end_is_told_before_what_it_left_is_published_and_as_a_gap_to_an_older_controller() {
    for wire in [1, proto::WIRE] {
        let mut rig = begin(&Arc::default(), wire).await;
        rig.hear(is_of_the_program).await;
        *rig.world.end.lock().unwrap() = Some(Ended {
            exit: lifecycle::Exit::Code { code: 3 },
            at_ms: 77,
            out_of_memory: String::new(),
            max_rss_bytes: 0,
            oom_process: None,
            unapplied_limits: Vec::new(),
        });
        let facts = rig.hear(is_of_the_program).await;
        let of_the_program = |fact: &&v1::Fact| fact.body.as_ref().is_some_and(is_of_the_program);
        let told: Vec<&v1::Fact> = facts.iter().filter(of_the_program).collect();
        let [v1::Fact { seq, body: Some(body), .. }] = &told[..] else { panic!("one fact, not {told:?}") };
        match body {
            fact::Body::Gap(gap) if wire == 1 => assert_eq!(gap.to, seq + 1),
            fact::Body::Event(v1::Event { kind: Some(Kind::Exited(exited)) }) if wire > 1 => {
                assert_eq!(exited.at_ms, 77);
                let code = exited.exit.as_ref().and_then(|exit| exit.kind.clone());
                assert_eq!(code, Some(v1::exit_status::Kind::Code(3)));
            }
            other => panic!("told as {other:?} to a controller of wire {wire}"),
        }
    }
}
