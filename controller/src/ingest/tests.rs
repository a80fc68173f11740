//! Facts as they come from a machine, and what becomes of them in rows, in the
//! journal and in whatever is shown of them.

use std::sync::Arc;

use lifecycle::{AttemptId, Generation, RunId, RunState};

use super::*;
use crate::clock::{Clock, Entropy};
use crate::core::Parts;
use crate::model::Machine;
use crate::store::Kind;

const MACHINE: MachineId = MachineId::from_bytes([1; 16]);
const RUN: RunId = RunId::from_bytes([2; 16]);
const ATTEMPT: AttemptId = AttemptId::from_bytes([3; 16]);

/// A running attempt whose program was given a secret.
async fn core(dir: &std::path::Path) -> Arc<Core> {
    let objects = Arc::new(artifacts::store::MemoryStore::default());
    let core = Core::new(Parts {
        clock: Clock::system(),
        entropy: Entropy::System,
        ..crate::bench::parts(dir, objects)
    });
    let run: Run = serde_json::from_value(json!({
        "id": RUN, "name": "r-1", "status": RunState::Running, "created_ms": 1, "generation": Generation::from_u64(1),
        "bound": ATTEMPT, "attempts": 1, "source": {"key": "source/g1/m0", "digest": ""}, "head": null,
        "outputs": null, "produced_step": null, "endings": [], "wish": "run", "token": "t",
        "spec": {
            "project": "p", "name": "r", "command": ["x"], "provider": "local",
            "env": {"DB_PASSWORD": "canary of the variables"},
        },
    }))
    .unwrap();
    let machine: Machine = serde_json::from_value(json!({
        "id": MACHINE, "provider": "local", "label": "l", "run": RUN, "status": {"state": "ready"}, "instance": "i",
        "created_ms": 1, "usd_per_hour": 0.0,
    }))
    .unwrap();
    let attempt: Attempt = serde_json::from_value(json!({
        "id": ATTEMPT, "run": RUN, "number": 1, "generation": Generation::from_u64(1), "machine": MACHINE,
        "status": AttemptState::Running, "bound_ms": 1, "resume": [],
    }))
    .unwrap();
    let changes = Changes::default()
        .put(&Versioned::new(run))
        .put(&Versioned::new(machine))
        .put(&Versioned::new(attempt));
    assert!(core.commit(changes).await.unwrap());
    core
}

async fn take(core: &Core, facts: Vec<v1::Fact>) {
    let batch = v1::FactBatch { attempt_id: ATTEMPT.to_string(), generation: 1, facts };
    let answer = apply(core, MACHINE, &batch).await.unwrap();
    assert!(matches!(answer, Answer::Ack(_)), "{answer:?}");
}

fn fact(stream: v1::Stream, seq: u64, body: Body) -> v1::Fact {
    v1::Fact { stream: stream.into(), seq, at_ms: 1_000 * (seq + 1), body: Some(body) }
}

#[tokio::test]
async fn a_secret_in_the_last_error_line_is_shown_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let core = core(dir.path()).await;
    let leak = "OSError: login with hf_canaryAbCdEfGhIjKlMnOp12 (token=canary-7) at https://me:canary@host/ and \
                canary of the variables failed";
    let exit = |kind| Some(v1::ExitStatus { kind: Some(kind) });
    let unknown = v1::exit_status::Kind::Unknown(leak.to_owned());
    let note = v1::Note { level: "warning".into(), text: leak.to_owned() };
    let alert =
        v1::Alert { name: "hang".into(), raised: true, text: leak.to_owned(), ..v1::Alert::default() };
    let exited = v1::Exited { exit: exit(unknown.clone()), at_ms: 1, out_of_memory: leak.to_owned() };
    let ended = v1::Ended {
        exit: exit(unknown),
        last_error_line: leak.to_owned(),
        started: true,
        out_of_memory: leak.to_owned(),
        unpublished: leak.to_owned(),
        hang: leak.to_owned(),
        leave_machine: leak.to_owned(),
        oom_command: leak.to_owned(),
        oom_pid: 7,
        unapplied_limits: vec![leak.to_owned()],
        ..v1::Ended::default()
    };
    let stopping = v1::Stopping { why: leak.to_owned() };
    let kinds = [
        EventKind::Note(note),
        EventKind::Alert(alert),
        EventKind::Stopping(stopping),
        EventKind::Exited(exited),
        EventKind::Ended(ended),
    ];
    let event = |kind| Body::Event(v1::Event { kind: Some(kind) });
    let facts = (0..).zip(kinds).map(|(seq, kind)| fact(v1::Stream::Events, seq, event(kind))).collect();
    take(&core, facts).await;
    // The output itself is the program's own, and is shown by `logs` as it is.
    let output = v1::Bytes { data: format!("{leak}\n").into_bytes() };
    take(&core, vec![fact(v1::Stream::Stderr, 0, Body::Bytes(output))]).await;

    let run: Versioned<Run> = core.need(&RUN.to_string()).await.unwrap();
    let attempt: Versioned<Attempt> = core.need(&ATTEMPT.to_string()).await.unwrap();
    let wanted =
        "OSError: login with [masked] (token=[masked]) at https://[masked]@host/ and [masked] failed";
    assert_eq!(attempt.body.last_error_line, wanted, "what is no secret stays");
    let detail = crate::rpc::views::detail(&core, &run.body).await.unwrap();
    assert_eq!(detail.attempts[0].last_error_line, wanted);
    let capsule =
        crate::capsule::gather::capsule(&core, run.body.clone(), attempt.body.clone()).await.unwrap();
    assert!(capsule.exit.last_error_line == wanted && capsule.output.stderr.text.contains(wanted));
    let mut shown = vec![
        ("status", serde_json::to_string(&detail).unwrap()),
        ("capsule", serde_json::to_string(&capsule).unwrap()),
        ("why", crate::capsule::told::whole(&capsule)),
        ("why in short", crate::capsule::told::short(&capsule)),
    ];
    let journal = core.store.journal(0, 100, None).await.unwrap();
    assert!(journal.iter().any(|row| format!("{row:?}").contains("[masked]")));
    shown.extend(journal.iter().map(|row| ("journal", format!("{row:?}"))));
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Run) {
        let rows = core.store.list(kind).await.unwrap();
        shown.extend(rows.into_iter().map(|row| ("row", row.body)));
    }
    for (what, text) in shown {
        assert!(!text.contains("canary"), "{what}: {text}");
    }
}

#[tokio::test]
async fn a_step_without_a_metric_is_progress() {
    let dir = tempfile::tempdir().unwrap();
    let core = core(dir.path()).await;
    let points = |step, points| Body::Points(v1::Points { points, step });
    let loss = v1::Point { name: "loss".into(), step: Some(14), value: 1.0 };
    let facts = vec![
        fact(v1::Stream::Metrics, 0, points(Some(12), Vec::new())),
        fact(v1::Stream::Metrics, 1, points(Some(13), Vec::new())),
        fact(v1::Stream::Metrics, 2, points(Some(15), vec![loss])),
    ];
    take(&core, facts).await;
    let attempt: Versioned<Attempt> = core.need(&ATTEMPT.to_string()).await.unwrap();
    let a = attempt.body;
    assert_eq!((a.first_step, a.last_step), (Some(12), Some(15)));
    assert_eq!(a.pace, [(1_000, 12), (2_000, 13), (3_000, 14), (3_000, 15)]);
    let metrics: Versioned<Metrics> = core.need(&ATTEMPT.to_string()).await.unwrap();
    assert_eq!(metrics.body.metrics.series.len(), 1, "a step is no metric");
}

fn event(seq: u64, kind: Option<EventKind>) -> v1::Fact {
    fact(v1::Stream::Events, seq, Body::Event(v1::Event { kind }))
}

fn exited(code: i32, out_of_memory: &str) -> Option<EventKind> {
    let exit = Some(v1::ExitStatus { kind: Some(v1::exit_status::Kind::Code(code)) });
    Some(EventKind::Exited(v1::Exited { exit, at_ms: 1, out_of_memory: out_of_memory.to_owned() }))
}

#[tokio::test]
async fn the_news_of_an_end_decides_nothing_and_is_told_again_once_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let core = core(dir.path()).await;
    let before: Versioned<Run> = core.need(&RUN.to_string()).await.unwrap();
    let news = ["", "", "the kernel says so", "", "and again", "for ever"].map(|why| exited(137, why));
    take(&core, (0..).zip(news).map(|(seq, kind)| event(seq, kind)).collect()).await;
    take(&core, vec![event(6, exited(0, ""))]).await;
    let attempt: Versioned<Attempt> = core.need(&ATTEMPT.to_string()).await.unwrap();
    assert_eq!(attempt.body.status, AttemptState::Running);
    let told = attempt.body.exited.unwrap();
    assert_eq!((told.exit.shell_code(), told.out_of_memory.as_str()), (137, "the kernel says so"));
    let run: Versioned<Run> = core.need(&RUN.to_string()).await.unwrap();
    assert_eq!((run.body.status, run.body.exit), (before.body.status, before.body.exit));
    assert_eq!((run.body.bound, run.body.endings), (before.body.bound, before.body.endings));
    let journal = core.store.journal(0, 100, None).await.unwrap();
    assert_eq!(journal.iter().filter(|entry| entry.verb == "exited").count(), 2, "{journal:?}");
}

#[tokio::test]
async fn an_event_that_its_agent_could_not_read_has_its_place_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let core = core(dir.path()).await;
    take(&core, vec![event(0, None), event(1, exited(3, ""))]).await;
    let attempt: Versioned<Attempt> = core.need(&ATTEMPT.to_string()).await.unwrap();
    assert!(attempt.body.exited.is_some());
    let position: Versioned<Position> = core.need(&format!("{ATTEMPT}/events")).await.unwrap();
    assert_eq!((position.body.next, &position.body.gaps[..]), (2, &[(0, 1)][..]));
}
