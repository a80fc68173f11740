//! Answers over the service: to the question that stands and to no other.

use std::time::Duration;

use lifecycle::RunEvent;
use lifecycle::question::{self, Trouble};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Code;

use super::super::Build;
use super::*;
use crate::execute::ask::tests::{Bench, refusal};

fn answer(number: u32, asked_ms: u64) -> v1::AnswerRequest {
    v1::AnswerRequest { run: "r".into(), number, asked_ms }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_to_the_question_that_stands_and_is_journalled_with_who_gave_it() {
    let bench = Bench::new(refusal(Trouble::NoOffer, 0)).await;
    let build = Build { id: "b".into(), schema: 1, started_ms: 0 };
    let service =
        OperatorService::new(bench.core.clone(), TaskTracker::new(), CancellationToken::new(), build);
    let said = |ask| service.answered("operator:ada", ask);
    let early = said(answer(1, 0)).await.unwrap_err();
    assert!(
        early.code() == Code::FailedPrecondition && early.message().contains("waits for no answer"),
        "{early}"
    );

    bench.work(Duration::from_secs(180)).await;
    let view = crate::rpc::views::run(&bench.core, &bench.row().await.body).await.unwrap();
    let shown = view.question.expect("a question");
    assert_eq!((shown.kind.as_str(), shown.default, shown.options.len()), ("no-offer", 1, 3));
    assert_eq!(shown.options[2].verb, "stop");
    let none = said(answer(9, 0)).await.unwrap_err();
    assert!(none.code() == Code::InvalidArgument && none.message().contains("3 stop"), "{none}");
    let other = said(answer(1, shown.asked_ms + 1)).await.unwrap_err();
    assert!(other.code() == Code::FailedPrecondition && other.message().contains("is over"), "{other}");
    let run = said(answer(2, shown.asked_ms)).await.unwrap();
    assert_eq!(run.status, RunState::Provisioning);
    let journal = bench.core.store.journal(0, 1_000, None).await.unwrap();
    let row = journal.iter().find(|row| row.verb == "answered").unwrap();
    assert_eq!(
        (row.actor.as_str(), &row.detail["number"], &row.detail["answer"]),
        ("operator:ada", &json!(2), &json!("go-on"))
    );
    assert_eq!(said(answer(2, shown.asked_ms)).await.unwrap_err().code(), Code::FailedPrecondition);

    // What a person stopped is not answered twice.
    bench
        .change(|run| {
            let now = run.created_ms;
            run.status = run.status.apply(RunEvent::Ask(question::fruitless("x", now))).unwrap();
        })
        .await;
    said(answer(1, 0)).await.unwrap();
    let twice = said(answer(2, 0)).await.unwrap_err();
    assert!(twice.message().contains("answered already"), "{twice}");
}

#[tokio::test(start_paused = true)]
async fn resume_is_the_answer_that_lets_it_go_on() {
    let bench = Bench::new(refusal(Trouble::Key, 0)).await;
    let build = Build { id: "b".into(), schema: 1, started_ms: 0 };
    let service =
        OperatorService::new(bench.core.clone(), TaskTracker::new(), CancellationToken::new(), build);
    bench
        .change(|run| {
            run.status = run.status.apply(RunEvent::Ask(question::storm(6, 1, u64::MAX / 2))).unwrap();
        })
        .await;
    bench.change(|run| run.creates_ms = vec![1; 6]).await;
    let run = service.went_on("operator:ada", "r").await.unwrap();
    assert_eq!((run.status, run.creates_ms), (RunState::Provisioning, Vec::new()));
}
