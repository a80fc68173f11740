//! A provider that refuses, and people who answer or do not, beside the real
//! loop in a time of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artifacts::store::MemoryStore;
use async_trait::async_trait;
use lifecycle::MachineState;
use lifecycle::cause::{Cause, Confidence};
use lifecycle::question::Trouble;
use lifecycle::retry::Ending;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::bench::{at_work, parts};
use crate::core::Parts;
use crate::model::{Machine, ManifestRef};
use crate::provider::{
    CreateOutcome, CreateRequest, DestroyOutcome, Idempotency, InstanceState, Listing, Presence, Provider,
    Reach,
};

/// Answers every order alike.
pub(crate) struct Picky {
    answer: Mutex<CreateOutcome>,
    pub(crate) asked: Mutex<Vec<CreateRequest>>,
    /// Its machine was destroyed.
    gone: Mutex<bool>,
}

#[async_trait]
impl Provider for Picky {
    fn name(&self) -> &'static str {
        "picky"
    }
    fn reach(&self) -> Reach {
        Reach::ControllerDials
    }
    fn idempotency(&self) -> Idempotency {
        Idempotency::LabelOnly
    }
    fn usd_per_hour(&self) -> f64 {
        0.0
    }
    fn chooses(&self) -> bool {
        true
    }
    async fn host(&self, _: &str) -> Option<String> {
        Some("h7".into())
    }
    fn settle_window_ms(&self) -> u64 {
        1_000
    }
    async fn create(&self, request: &CreateRequest) -> CreateOutcome {
        self.asked.lock().unwrap().push(request.clone());
        *self.gone.lock().unwrap() = false;
        self.answer.lock().unwrap().clone()
    }
    async fn list(&self, _: &str) -> Listing {
        Listing::Complete(Vec::new())
    }
    async fn get(&self, _: &str) -> Presence {
        if *self.gone.lock().unwrap() { Presence::Absent } else { Presence::Present(InstanceState::Up) }
    }
    async fn destroy(&self, _: &str) -> DestroyOutcome {
        *self.gone.lock().unwrap() = true;
        DestroyOutcome::Absent
    }
}

pub(crate) fn refusal(trouble: Trouble, not_before_ms: u64) -> CreateOutcome {
    CreateOutcome::Rejected { reason: "the vendor's own words".into(), trouble, not_before_ms }
}

/// A controller with one run that wants a machine.
pub(crate) struct Bench {
    pub(crate) core: Arc<Core>,
    pub(crate) provider: Arc<Picky>,
    pub(crate) run: RunId,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn new(answer: CreateOutcome) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let provider =
            Arc::new(Picky { answer: answer.into(), asked: Mutex::default(), gone: Mutex::default() });
        let providers = BTreeMap::from([("picky".to_owned(), provider.clone() as Arc<dyn Provider>)]);
        let core = Core::new(Parts { providers, ..parts(dir.path(), Arc::new(MemoryStore::default())) });
        let (run, _, rows) = at_work("picky");
        assert!(core.commit(rows).await.unwrap());
        let bench = Self { core, provider, run, _dir: dir };
        bench.change(|run| (run.status, run.bound, run.attempts) = (RunState::Provisioning, None, 0)).await;
        bench
    }

    pub(crate) async fn row(&self) -> Versioned<Run> {
        self.core.need(&self.run.to_string()).await.unwrap()
    }

    pub(crate) async fn change(&self, change: impl FnOnce(&mut Run)) {
        let mut row = self.row().await;
        change(&mut row.body);
        assert!(self.core.commit(Changes::default().put(&row)).await.unwrap());
    }

    /// Lets the loop work for so long.
    pub(crate) async fn work(&self, how_long: Duration) {
        let looping = crate::reconcile::run(self.core.clone(), CancellationToken::new());
        tokio::select! {
            () = sleep(how_long) => {}
            () = looping => panic!("the loop ended"),
        }
    }

    async fn question(&self) -> Option<Question> {
        match self.row().await.body.status {
            RunState::Waiting { question, .. } => Some(question),
            _ => None,
        }
    }

    fn orders(&self) -> usize {
        self.provider.asked.lock().unwrap().len()
    }

    async fn answer(&self, verb: Verb) {
        self.change(|run| answered(run, verb, true).unwrap()).await;
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn who_refuses_for_long_is_asked_about_and_then_asked_ever_more_rarely() {
    let bench = Bench::new(refusal(Trouble::NoOffer, 0)).await;
    bench.work(Duration::from_secs(20)).await;
    assert_eq!(bench.question().await, None, "it may pass");
    bench.work(3 * MINUTE).await;
    let question = bench.question().await.expect("a question");
    assert_eq!((question.kind, question.again), (Kind::Refused(Trouble::NoOffer), false));
    assert!(question.evidence[0].contains("own words"), "{question:?}");
    let before = bench.orders();
    bench.work(120 * MINUTE).await;
    assert!((3..=14).contains(&(bench.orders() - before)), "{} orders in two hours", bench.orders() - before);
    assert!(bench.question().await.expect("it stands again").again);

    *bench.provider.answer.lock().unwrap() = CreateOutcome::Created { instance: "i".into() };
    bench.answer(Verb::GoOn).await;
    bench.work(Duration::from_secs(5)).await;
    let run = bench.row().await.body;
    assert_eq!((run.status, run.rejections, run.steer.refusals), (RunState::Provisioning, 0, None));
    assert_eq!(run.steer.hosts[0].1, "h7");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_accepted_is_not_tried_each_minute() {
    let bench = Bench::new(refusal(Trouble::Key, 0)).await;
    bench.work(60 * MINUTE).await;
    assert!(bench.orders() <= 6, "{} orders in an hour", bench.orders());
    assert_eq!(bench.question().await.unwrap().kind, Kind::Refused(Trouble::Key));
    bench.answer(Verb::Stop).await;
    bench.work(Duration::from_secs(5)).await;
    assert_eq!(bench.row().await.body.status, RunState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_before_the_moment_that_it_named() {
    let bench = Bench::new(refusal(Trouble::Quota, 0)).await;
    let free = bench.core.clock.wall_ms() + 8 * 60_000;
    *bench.provider.answer.lock().unwrap() = refusal(Trouble::Quota, free);
    bench.work(7 * MINUTE).await;
    assert_eq!((bench.orders(), bench.question().await), (1, None));
    bench.work(2 * MINUTE).await;
    assert!(bench.orders() > 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_checkpoints_are_gone_does_not_begin_anew_unasked() {
    let bench = Bench::new(CreateOutcome::Created { instance: "i".into() }).await;
    bench
        .change(|run| {
            run.status = RunState::Recovering;
            run.head = Some(ManifestRef { key: "k/m".into(), digest: "d".into(), step: Some(40) });
        })
        .await;
    bench.work(Duration::from_secs(2)).await;
    // Its machine is there and speaks.
    let mut machines: Vec<Versioned<Machine>> = bench.core.all().await.unwrap();
    let mut machine = machines.pop().unwrap();
    machine.body.status = MachineState::Ready;
    assert!(bench.core.commit(Changes::default().put(&machine)).await.unwrap());
    let _open = bench.core.attach(machine.body.id);
    // Two lists that are a second apart must lack it.
    bench.work(Duration::from_secs(4)).await;
    let question = bench.question().await.expect("a question");
    assert_eq!(question.kind, Kind::NoCheckpoint);
    assert!(question.text.contains("step 40"), "{}", question.text);
    // What waits for a person is not paid for.
    let state = bench.core.need::<Machine>(&machine.body.id.to_string()).await.unwrap().body.status;
    assert_eq!(state, MachineState::Destroyed);
    let now = bench.core.clock.wall_ms();
    bench
        .change(|run| {
            let RunState::Waiting { question, .. } = &mut run.status else { panic!() };
            assert!(question.deadline_ms > now + 23 * 3_600_000);
            question.deadline_ms = now + 1;
        })
        .await;
    bench.work(Duration::from_secs(5)).await;
    let RunState::Failed { reason } = bench.row().await.body.status else { panic!("nobody answered") };
    assert!(reason.contains("nobody answered: none of its checkpoints"), "{reason}");
}

#[test]
fn the_hour_of_a_storm_is_one_of_the_market_that_is_played() {
    let (_, _, rows) = at_work("local");
    let body = &rows.0.put.iter().find(|put| put.kind == crate::store::Kind::Run).unwrap().body;
    let mut run: Run = serde_json::from_str(body).unwrap();
    run.creates_ms = (1..=6).map(|n| n * 10_000).collect();
    let over = |run: &Run| plan::storm_of(run, 61_000);
    assert_eq!(over(&run), Some(10_000 + plan::HOUR_MS));
    let mut played = |hour_ms: u64| {
        let market = lifecycle::spec::PlayedMarket { hour_ms, ..Default::default() };
        run.spec.machine.played = Some(Box::new(market));
        over(&run)
    };
    // Sixty times as fast; so fast that no six fall into one; and as fast as it was.
    assert_eq!(played(60_000), Some(70_000));
    assert_eq!(played(1_800), None);
    assert_eq!(played(0), Some(10_000 + plan::HOUR_MS));
}

#[test]
fn each_answer_does_what_it_says() {
    let (_, _, rows) = at_work("picky");
    let body = &rows.0.put.iter().find(|put| put.kind == crate::store::Kind::Run).unwrap().body;
    let ending: Ending = serde_json::from_value(json!({
        "exit": null, "fingerprint": "", "step": null, "durable_step": 5, "started": true, "at_ms": 0,
        "cause": (Cause::Preempted, Confidence::Certain),
    }))
    .unwrap();
    let waiting = |question: Question| {
        let mut run: Run = serde_json::from_str(body).unwrap();
        run.status = RunState::Recovering.apply(RunEvent::Ask(question)).unwrap();
        run.head = Some(ManifestRef { key: "k/m".into(), digest: String::new(), step: Some(5) });
        run.creates_ms = vec![1; 6];
        run.endings = vec![ending.clone()];
        run.steer.refused(Trouble::Key, "401", 0, 5);
        run
    };
    for (question, verb, by_person, state, creates, endings, head) in [
        (question::storm(6, 5, 9), Verb::Wait, false, "RECOVERING", 6, 1, true),
        (question::storm(6, 5, 9), Verb::GoOn, true, "RECOVERING", 0, 1, true),
        (question::storm(6, 5, 9), Verb::Stop, true, "WAITING", 6, 1, true),
        (question::fruitless("x", 5), Verb::Stop, false, "FAILED", 6, 1, true),
        (question::fruitless("x", 5), Verb::GoOn, true, "RECOVERING", 0, 0, true),
        (question::no_checkpoint(None, 5), Verb::GoOn, true, "RECOVERING", 0, 1, true),
        (question::no_checkpoint(None, 5), Verb::StartOver, true, "RECOVERING", 0, 0, false),
    ] {
        let mut run = waiting(question);
        answered(&mut run, verb, by_person).unwrap();
        let is = (run.status.name(), run.creates_ms.len(), run.endings.len(), run.head.is_some());
        assert_eq!(is, (state, creates, endings, head), "{verb:?}");
        assert_eq!(run.wish == Wish::Stop, verb == Verb::Stop && by_person, "{verb:?}");
        assert_eq!(run.steer.refusals.is_none(), matches!(verb, Verb::GoOn | Verb::StartOver), "{verb:?}");
    }
    let mut run = waiting(question::storm(6, 5, 9));
    run.status = RunState::Running;
    assert!(answered(&mut run, Verb::GoOn, true).is_err());
}
