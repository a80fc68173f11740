//! Version N-1 of the wire: what an agent of the former version said in a real
//! session, recorded, is told to today's services over real TLS and must give
//! the rows and files that the controller of its own time made of it. What a
//! later version may say is answered, not dropped in silence.

use std::time::Duration;

use controller::ingest;
use controller::model::{Attempt, BoundKey, Run, Versioned};
use lifecycle::{AttemptId, AttemptState, Exit, MachineId, MachineState, RunId};
use proto::v1::agent_link_client::AgentLinkClient;
use proto::v1::{self, down, up};
use proto::wire::Message as _;
use tokio_stream::StreamExt as _;
use tonic::Code;

use super::reach::{Hub, Side, hub};

/// `Up` messages, each after its length: one session of an agent that knew
/// neither health, evidence, farewells nor upgrades.
const RECORDED: &[u8] = include_bytes!("../../proto/tests/recorded/agent-n-1.bin");
/// Who said them, of which run and first attempt.
const MACHINE: &str = "j6qt25qdx5arsr5fr7wg5mh5ju";
const RUN: &str = "625dgtrodehr2mxhhgzlhoyvly";
const ATTEMPT: &str = "5p7jwhzdogatmgvblix4nzdsfy";

/// The recording, without the second attempt of the run.
fn recorded() -> Vec<v1::Up> {
    let mut bytes = RECORDED;
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        messages.push(v1::Up::decode_length_delimited(&mut bytes).unwrap());
    }
    let of_first = |message: &v1::Up| match &message.body {
        Some(up::Body::Facts(batch)) => batch.attempt_id == ATTEMPT,
        Some(up::Body::Hello(_) | up::Body::Renew(_)) => true,
        other => panic!("the former version never said {other:?}"),
    };
    let all = messages.len();
    messages.retain(of_first);
    assert!(all > messages.len() && messages.len() > 10, "{all} messages, {} of the attempt", messages.len());
    messages
}

async fn scene() -> (Hub, Side, Run) {
    let hub = hub().await;
    let (machine, run): (MachineId, RunId) = (MACHINE.parse().unwrap(), RUN.parse().unwrap());
    let attempt: AttemptId = ATTEMPT.parse().unwrap();
    let side = hub.side_of(machine, run, attempt, 9, MachineState::Ready).await;
    // As it was when the agent heard of it.
    let mut row: Versioned<Attempt> = hub.core.need(ATTEMPT).await.unwrap();
    row.body.status = AttemptState::Assigned;
    assert!(hub.core.commit(controller::core::Changes::default().put(&row)).await.unwrap());
    let run: Versioned<Run> = hub.core.need(RUN).await.unwrap();
    (hub, side, run.body)
}

/// Says all of it; the answers until everything with a number was acknowledged.
async fn say(side: &Side, messages: Vec<v1::Up>) -> Result<Vec<down::Body>, tonic::Status> {
    let last = messages.iter().filter(|m| matches!(m.body, Some(up::Body::Facts(_)))).count();
    let outbound = tokio_stream::iter(messages).chain(tokio_stream::pending());
    let mut inbound = AgentLinkClient::new(side.channel.clone()).session(outbound).await?.into_inner();
    let (mut answers, mut acks) = (Vec::new(), 0);
    while acks < last {
        let next = tokio::time::timeout(Duration::from_mins(3), inbound.message()).await.expect("an answer");
        let Some(message) = next? else { break };
        acks += usize::from(matches!(message.body, Some(down::Body::Ack(_))));
        answers.extend(message.body);
    }
    Ok(answers)
}

#[tokio::test]
async fn an_agent_of_the_former_version_is_understood_in_full() {
    let (hub, side, run) = scene().await;
    // Twice, as after a connection that broke: nothing counts twice. A second
    // session is a later one.
    for time in 1..=2 {
        let mut messages = recorded();
        let Some(up::Body::Hello(hello)) = &mut messages[0].body else { panic!("Hello comes first") };
        hello.incarnation = time;
        let answers = say(&side, messages).await.unwrap();
        assert!(
            !answers.iter().any(|a| matches!(a, down::Body::Nack(_) | down::Body::Unsupported(_))),
            "{answers:?}"
        );
        let welcome = answers.iter().find_map(|a| match a {
            down::Body::Welcome(welcome) => Some(welcome),
            _ => None,
        });
        assert_eq!(welcome.unwrap().wire, proto::WIRE);
        check(&hub, &run).await;
    }
    let key: Versioned<BoundKey> = hub.core.need(MACHINE).await.unwrap();
    assert_eq!(key.body.incarnation, 2);
}

/// What the controller of the former version made of the same messages.
async fn check(hub: &Hub, run: &Run) {
    let attempt: Versioned<Attempt> = hub.core.need(ATTEMPT).await.unwrap();
    let attempt = attempt.body;
    assert_eq!(attempt.status, AttemptState::Ended { exit: Exit::Code { code: 3 } });
    assert_eq!((attempt.first_step, attempt.last_step), (Some(1), Some(5)));
    assert_eq!((attempt.prepare_ms, attempt.environment_cached), (112, true));
    assert_eq!(attempt.last_error_line, "to stderr");
    assert_eq!(attempt.notes.len(), 1);
    assert!(attempt.hang.is_empty() && attempt.leave_machine.is_empty() && attempt.oom_process.is_none());
    let run: Versioned<Run> = hub.core.need(&run.id.to_string()).await.unwrap();
    assert_eq!(run.body.produced_step, Some(3));
    let read = |file: &str| {
        let bytes = hub.core.files.read(&run.body.name, 1, file, 0, 4096).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let losses = ["1.0", "0.5", "0.3333333333333333", "0.25", "0.2"];
    let lines =
        losses.iter().enumerate().map(|(i, loss)| format!("{{\"step\": {}, \"loss\": {loss}}}\n", i + 1));
    let stdout: String = std::iter::once("begin\n".to_owned()).chain(lines).collect();
    assert_eq!(read("stdout.log"), stdout);
    assert_eq!(read("stderr.log"), "to stderr\n");
    let positions = ingest::positions(&hub.core, &attempt).await.unwrap();
    let next = |stream: v1::Stream| positions.iter().find(|p| p.stream == i32::from(stream)).map(|p| p.next);
    assert_eq!(next(v1::Stream::Stdout), Some(stdout.len() as u64));
    assert_eq!(next(v1::Stream::Stderr), Some(10));
    assert_eq!(next(v1::Stream::Events), Some(6), "preparing, note, started, seen, stored, ended");
    assert!(next(v1::Stream::Metrics).is_some_and(|next| next >= 1));
}

#[tokio::test]
async fn what_a_later_version_says_is_answered() {
    let (_hub, side, _) = scene().await;
    let hello = recorded().swap_remove(0);
    // A message whose kind is not known decodes to an empty one.
    let unknown = v1::Up { body: None };
    let renew = v1::Up { body: Some(up::Body::Renew(v1::Renew { n: 7, ..v1::Renew::default() })) };
    let outbound = tokio_stream::iter([hello.clone(), unknown, renew]).chain(tokio_stream::pending());
    let mut inbound =
        AgentLinkClient::new(side.channel.clone()).session(outbound).await.unwrap().into_inner();
    let mut refused = false;
    loop {
        match inbound.message().await.unwrap().expect("the session goes on").body {
            Some(down::Body::Unsupported(_)) => refused = true,
            Some(down::Body::Granted(granted)) => {
                assert_eq!(granted.n, 7);
                break;
            }
            _ => {}
        }
    }
    assert!(refused, "an unknown message was dropped in silence");
    // A fact has a number: it cannot be passed over, and the refusal names it.
    let fact =
        v1::Fact { stream: 77, seq: 0, at_ms: 1, body: Some(v1::fact::Body::Bytes(v1::Bytes::default())) };
    let batch = v1::FactBatch { attempt_id: ATTEMPT.into(), generation: 1, facts: vec![fact] };
    let refusal = say(&side, vec![hello, v1::Up { body: Some(up::Body::Facts(batch)) }]).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains("stream"), "{refusal}");
}

/// The former version refuses a description with fields that it does not know.
#[test]
fn a_plain_run_is_described_in_words_of_the_former_version() {
    let spec: lifecycle::RunSpec = serde_json::from_value(serde_json::json!({
        "project": "p", "name": "r", "command": ["x"], "provider": "local"
    }))
    .unwrap();
    let written = serde_json::to_value(&spec).unwrap();
    let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let known = "artifacts checkpoints command env environment grace_seconds max_usd name project provider retry \
                 spool_bytes usd_per_hour workdir";
    assert_eq!(names(&written), known.split(' ').collect::<Vec<_>>());
    assert_eq!(names(&written["environment"]), ["kind", "setup"]);
    assert_eq!(
        names(&written["checkpoints"]),
        ["keep_local", "paths", "quiet_seconds", "restore", "resume_args"]
    );
    assert_eq!(names(&written["retry"]), ["failures", "losses"]);
}
