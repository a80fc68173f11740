//! Events to real receivers over a real port: signed, in order, each once it is
//! there, and none from before.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artifacts::store::MemoryStore;
use lifecycle::{RunEvent, RunState};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::*;
use crate::bench::{at_work, parts};

const SECRET: &str = "hunter2hunter2";

/// What came: the headers, lower case, and the body.
type Heard = Arc<Mutex<Vec<(String, String)>>>;

/// Answers as `status` says, in this order; then 200.
struct Hook {
    port: u16,
    heard: Heard,
    _serving: JoinSet<()>,
}

impl Hook {
    async fn new(status: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard: Heard = Arc::default();
        let log = heard.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut answers = status.iter();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                let (head, body) = loop {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let head = head.to_lowercase();
                        let length =
                            head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
                        if body.len() >= length.unwrap_or(0) {
                            break (head, body.to_owned());
                        }
                    }
                    if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        break (String::new(), String::new());
                    }
                };
                let status = answers.next().copied().unwrap_or(200);
                if status == 200 {
                    log.lock().unwrap().push((head, body));
                }
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { port, heard, _serving: serving }
    }

    fn settings(&self, home: &Path, more: &str) {
        std::fs::write(home.join("hook.secret"), format!("{SECRET}\n")).unwrap();
        let text = format!(
            "[webhook.ops]\nurl = \"http://127.0.0.1:{}/hook\"\nsecret_file = \"hook.secret\"\n{more}",
            self.port
        );
        std::fs::write(home.join(settings::FILE), text).unwrap();
    }

    fn bodies(&self) -> Vec<Value> {
        self.heard.lock().unwrap().iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect()
    }

    fn events(&self) -> Vec<String> {
        self.bodies().iter().map(|body| body["event"].as_str().unwrap().to_owned()).collect()
    }
}

struct Bench {
    core: Arc<Core>,
    run: RunId,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let core = Core::new(parts(dir.path(), Arc::new(MemoryStore::default())));
        let (run, _, rows) = at_work("local");
        let rows = rows.note(&core, "t", "attempt-lost", run, Some(run), json!({"cause": "silent"}));
        assert!(core.commit(rows).await.unwrap());
        Self { core, run, dir }
    }

    async fn note(&self, verb: &str, detail: Value) {
        let changes = Changes::default().note(&self.core, "t", verb, self.run, Some(self.run), detail);
        assert!(self.core.commit(changes).await.unwrap());
    }

    /// Tells, until the script is over.
    async fn beside(&self, script: impl Future<Output = ()>) {
        let telling = run(self.core.clone(), self.dir.path().to_owned(), CancellationToken::new());
        tokio::select! {
            done = timeout(Duration::from_mins(3), script) => done.expect("the script ends"),
            () = telling => panic!("the task ended"),
        }
    }

    async fn begun(&self) {
        while self.core.load::<Cursor>("notify").await.unwrap().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn each_event_is_told_once_signed_and_in_order_though_the_receiver_fails_at_first() {
    let bench = Bench::new().await;
    let hook = Hook::new(&[503, 500]).await;
    hook.settings(bench.dir.path(), "");
    bench
        .beside(async {
            bench.begun().await;
            bench.note("attempt-lost", json!({"cause": "silent", "run": "RECOVERING"})).await;
            bench.note("bound", json!({"number": 2, "resume": 40})).await;
            bench.note("created", json!({})).await;
            let asked =
                json!({"text": "what now?", "options": ["wait", "go on"], "default": 1, "again": false});
            bench.note("asked", asked.clone()).await;
            let mut again = asked;
            again["again"] = json!(true);
            bench.note("asked", again).await;
            let room = crate::money::Room {
                scope: crate::money::Scope::Run,
                cap_usd: 10.0,
                spent_usd: 5.0,
                reserved_usd: 4.0,
                machines: 1,
            };
            let spent = budget(&bench.core, Changes::default(), bench.run, 80, &room);
            assert!(bench.core.commit(spent).await.unwrap());
            let mut row: Versioned<Run> = bench.core.need(&bench.run.to_string()).await.unwrap();
            row.body.status =
                RunState::Running.apply(RunEvent::Fail("the same failure twice".into())).unwrap();
            assert!(bench.core.commit(Changes::default().put(&row)).await.unwrap());
            bench.note("settled", json!({"run": "FAILED"})).await;
            while hook.bodies().len() < 5 {
                sleep(Duration::from_millis(20)).await;
            }
            while !bench.core.all::<Message>().await.unwrap().is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    // What had happened before anybody was to be told is not among them.
    assert_eq!(hook.events(), ["lost", "resumed", "waiting", "budget", "done"]);
    let bodies = hook.bodies();
    assert!(bodies[1]["text"].as_str().unwrap().contains("from step 40"), "{bodies:#?}");
    assert!(bodies[2]["text"].as_str().unwrap().contains("2 go on"), "{bodies:#?}");
    let said = bodies[3]["text"].as_str().unwrap();
    for part in ["80 % of what may be spent", "$5.00 of $6.00", "$10.00 of the cap $4.00 are kept back"] {
        assert!(said.contains(part), "{part}: {bodies:#?}");
    }
    assert!(bodies[4]["text"].as_str().unwrap().contains("FAILED: the same failure twice"), "{bodies:#?}");
    assert_eq!(bodies[0]["run"]["name"], "r");
    for (head, body) in hook.heard.lock().unwrap().iter() {
        let header = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches(": ").to_owned()
        };
        let signed = header("outlast-signature");
        let at = signed.strip_prefix("t=").and_then(|rest| rest.split_once(',')).unwrap().0.parse().unwrap();
        assert_eq!(signed, webhook::signature(SECRET, at, body));
        assert!(body.contains(&header("outlast-id")) && !body.contains(SECRET));
    }
}

#[tokio::test]
async fn a_second_process_tells_nothing_twice_and_misses_nothing() {
    let bench = Bench::new().await;
    let hook = Hook::new(&[]).await;
    hook.settings(bench.dir.path(), "events = [\"lost\"]\n");
    let told = |count: usize| {
        let hook = &hook;
        async move {
            while hook.bodies().len() < count {
                sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let lost = json!({"cause": "silent", "run": "RECOVERING"});
    bench
        .beside(async {
            bench.begun().await;
            bench.note("attempt-lost", lost.clone()).await;
            told(1).await;
            while !bench.core.all::<Message>().await.unwrap().is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    // While nobody tells.
    bench.note("attempt-lost", lost.clone()).await;
    bench.note("bound", json!({"number": 2})).await;
    bench.beside(told(2)).await;
    let ids: std::collections::BTreeSet<String> = hook.bodies().iter().map(|b| b["id"].to_string()).collect();
    assert_eq!((ids.len(), hook.events()), (2, vec!["lost".to_owned(), "lost".to_owned()]));
}

#[tokio::test]
async fn what_waits_is_bounded_and_what_is_given_up_is_counted() {
    let bench = Bench::new().await;
    // Nobody listens there.
    let hook = Hook { port: 9, heard: Heard::default(), _serving: JoinSet::new() };
    hook.settings(bench.dir.path(), "");
    bench
        .beside(async {
            bench.begun().await;
            let lost = json!({"cause": "silent", "run": "RECOVERING"});
            let mut changes = Changes::default();
            for _ in 0..outbox::PENDING + 7 {
                changes =
                    changes.note(&bench.core, "t", "attempt-lost", bench.run, Some(bench.run), lost.clone());
            }
            assert!(bench.core.commit(changes).await.unwrap());
            loop {
                let reply = ask(&bench.core, v1::NotifyRequest::default()).await.unwrap();
                let target = &reply.targets[0];
                if target.dropped == 7 && !target.trouble.is_empty() {
                    assert_eq!(target.pending as usize, outbox::PENDING);
                    assert!(target.trouble.contains("cannot be reached"), "{}", target.trouble);
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    // The next day.
    let mut rows: Vec<Versioned<Message>> = bench.core.all().await.unwrap();
    let row = &mut rows[0];
    row.body.since_ms = bench.core.clock.wall_ms() - outbox::EXPIRES_MS;
    assert!(bench.core.commit(Changes::default().put(row)).await.unwrap());
    expire(&bench.core, &settings::read(bench.dir.path()).unwrap()).await.unwrap();
    let cursor: Versioned<Cursor> = bench.core.need("notify").await.unwrap();
    assert_eq!(cursor.body.dropped["ops"], 8);
}

#[tokio::test]
async fn a_test_is_sent_at_once_and_broken_settings_are_told() {
    let bench = Bench::new().await;
    let hook = Hook::new(&[]).await;
    let slack = format!("[webhook.chat]\nurl = \"http://127.0.0.1:{}/\"\nformat = \"slack\"\n", hook.port);
    hook.settings(bench.dir.path(), &format!("{slack}[command.bad]\nargv = [\"/no/such\"]\n"));
    bench
        .beside(async {
            bench.begun().await;
            let ask_test = |target: &str| v1::NotifyRequest { test: true, target: target.into() };
            let reply = ask(&bench.core, ask_test("")).await.unwrap();
            let went: Vec<_> = reply.targets.iter().map(|t| (t.name.as_str(), t.delivered)).collect();
            assert_eq!(went, [("chat", true), ("ops", true), ("bad", false)]);
            assert!(reply.targets[2].trouble.contains("cannot be started"));
            let slack = hook.bodies().into_iter().find(|body| body.get("event").is_none()).unwrap();
            assert_eq!(slack["text"], "outlast: this is a test: events of runs arrive here");
            assert_eq!(ask(&bench.core, ask_test("nobody")).await.unwrap_err().code(), tonic::Code::NotFound);
            std::fs::write(bench.dir.path().join(settings::FILE), "[webhook.ops]\nurl = 1\n").unwrap();
            let reply = ask(&bench.core, ask_test("")).await.unwrap();
            assert!(reply.trouble.contains("line 2: `webhook.ops.url`"), "{}", reply.trouble);
            while !bench.core.alerts().iter().any(|alert| alert.contains("nobody is told of events")) {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
}

#[tokio::test]
async fn costs_are_told_every_so_many_hours_while_something_runs() {
    let bench = Bench::new().await;
    let hook = Hook::new(&[]).await;
    hook.settings(bench.dir.path(), "");
    let text = std::fs::read_to_string(bench.dir.path().join(settings::FILE)).unwrap();
    std::fs::write(bench.dir.path().join(settings::FILE), format!("cost_every_hours = 6\n{text}")).unwrap();
    let settings = settings::read(bench.dir.path()).unwrap();
    derive(&bench.core, &settings).await.unwrap();
    cost(&bench.core, &settings).await.unwrap();
    assert!(bench.core.all::<Message>().await.unwrap().is_empty(), "the first six hours are not over");
    let mut cursor: Versioned<Cursor> = bench.core.need("notify").await.unwrap();
    cursor.body.cost_ms -= 6 * 3_600_000;
    assert!(bench.core.commit(Changes::default().put(&cursor)).await.unwrap());
    for _ in 0..2 {
        cost(&bench.core, &settings).await.unwrap();
    }
    let rows: Vec<Versioned<Message>> = bench.core.all().await.unwrap();
    assert_eq!((rows.len(), rows[0].body.notice.detail["runs"][0]["name"].as_str()), (1, Some("r")));
}
