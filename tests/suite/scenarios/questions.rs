//! What only a person can decide, with the real program and a vendor that has
//! nothing, or does not know the key; and a receiver of events that is away at
//! first.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::carried::give_agent;
use super::stage::{Stage, wait};
use super::vast::{CAPS, Project, Vendor};

const SECRET: &str = "hunter2hunter2";

/// A receiver of events. It has its port from the beginning: one that is only
/// chosen may be somebody else's by the time it is wanted.
struct Hook {
    port: u16,
    here: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<(String, String)>>>,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Hook {
    /// One that hangs up on everybody until it is here.
    fn away() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let here: Arc<AtomicBool> = Arc::default();
        let over: Arc<AtomicBool> = Arc::default();
        let (log, is_here, end) = (heard.clone(), here.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) if is_here.load(Ordering::Relaxed) => {
                        let message = take(stream);
                        log.lock().unwrap().extend(message);
                    }
                    Ok(_) => {}
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Self { port, here, heard, over, thread: Some(thread) }
    }

    /// Serves from now on.
    fn comes(&self) {
        self.here.store(true, Ordering::Relaxed);
    }

    /// What was heard, each message once it is found to be signed. Sent is at
    /// least once: what was had is dropped by its id, as the guide says.
    fn events(&self) -> Vec<Value> {
        let heard = self.heard.lock().unwrap().clone();
        let mut had = BTreeSet::new();
        let all = heard.iter().map(|(head, body)| signed(head, body));
        all.filter(|event| had.insert(event["id"].as_str().unwrap().to_owned())).collect()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn take(mut stream: TcpStream) -> Option<(String, String)> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let (mut bytes, mut piece) = (Vec::new(), [0_u8; 4_096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                let answer = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).ok()?;
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        match stream.read(&mut piece) {
            Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
}

/// The message, checked as the guide says, by another program than ours.
#[track_caller]
fn signed(head: &str, body: &str) -> Value {
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.into_iter().find(|(is, _)| is.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned()).unwrap_or_else(|| panic!("no {name} in {head}"))
    };
    let check = "import hmac,hashlib,sys\nt,v=[p.split('=',1)[1] for p in sys.argv[1].split(',')]\n\
                 b=sys.stdin.buffer.read()\n\
                 sys.exit(hmac.new(b'hunter2hunter2', t.encode()+b'.'+b, hashlib.sha256).hexdigest()!=v)";
    let mut child = Command::new("python3")
        .args(["-c", check, &header("outlast-signature")])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "not signed: {head}\n{body}");
    let value: Value = serde_json::from_str(body).unwrap();
    assert_eq!(value["id"].as_str().unwrap(), header("outlast-id"));
    value
}

fn tell(stage: &Stage, port: u16) {
    fs::create_dir_all(&stage.home).unwrap();
    fs::write(stage.home.join("hook.secret"), SECRET).unwrap();
    let text = format!("[webhook.me]\nurl = \"http://127.0.0.1:{port}/x\"\nsecret_file = \"hook.secret\"\n");
    fs::write(stage.home.join("notify.toml"), text).unwrap();
}

#[test]
fn where_nothing_is_to_be_had_a_person_is_asked_and_the_answer_lets_the_run_go_on() {
    let stage = Stage::new();
    let test = "where_nothing_is_to_be_had_a_person_is_asked_and_the_answer_lets_the_run_go_on";
    let Some(vendor) = Vendor::start(&stage, test) else { return };
    let stage = stage.with(vendor.environment());
    give_agent(&stage.home);
    let hook = Hook::away();
    tell(&stage, hook.port);
    let all: Vec<Value> =
        vendor.state()["machines"].as_array().unwrap().iter().map(|m| m["id"].clone()).collect();
    vendor.control("POST", "offers", &json!({ "remove": all }));
    let project = Project::new(&stage, CAPS);
    fs::write(&project.gate, "60").unwrap();

    let run = stage.submit(&project.root, &[]);
    let detail = stage.when(&run, "waiting for an answer", |detail| detail["run"]["state"] == "WAITING");
    let question = &detail["run"]["question"];
    assert_eq!((&question["kind"], &question["default"]), (&json!("no-offer"), &json!(1)), "{question:#}");
    let shown = stage.ok(&["status", &run]).text();
    for part in [
        "It waits for an answer",
        "has no machine for it",
        "1  wait",
        "taken by itself at",
        "3  stop",
        "checkpoint",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    assert!(stage.ok(&["why", &run]).text().contains("It waits for an answer"));
    assert!(stage.ok(&["answer", &run]).text().contains("2  ask the provider again now"));
    let none = stage.call(&["answer", &run, "9"]).ends_with(65);
    assert!(none.stderr.contains("the answers are: 1 wait"), "{none:?}");
    let pending = || stage.ok(&["notify", "status", "--json"]).json()["targets"][0]["pending"].clone();
    // The journal is turned into messages a moment after it was written.
    wait("its message", || (pending() == 1).then_some(()));

    vendor.control("POST", "offers", &json!({"seed": 1, "count": 40}));
    stage.ok(&["answer", &run, "2"]);
    stage.ends_as(&run, "SUCCEEDED");
    let late = stage.call(&["answer", &run, "2"]).ends_with(65);
    assert!(late.stderr.contains("waits for no answer: it is SUCCEEDED"), "{late:?}");
    let said = stage.events(&run);
    let answered = said.iter().find(|event| event["verb"] == "answered").unwrap();
    assert!(answered["actor"].as_str().unwrap().starts_with("operator:"), "{answered:#}");

    // Only now there is somebody who listens.
    hook.comes();
    let told = wait("both events", || Some(hook.events()).filter(|events| events.len() >= 2));
    let names: Vec<&str> = told.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["waiting", "done"], "{told:#?}");
    assert!(told[0]["text"].as_str().unwrap().contains("2 ask the provider again now"), "{told:#?}");
    wait("an empty outbox", || (pending() == 0).then_some(()));
    let tried = stage.ok(&["notify", "test"]).text();
    assert!(tried.contains("taken"), "{tried}");
    assert_eq!(hook.events().len(), 3, "each event once");
    stage.verify();
}

#[test]
fn a_key_that_is_not_accepted_any_more_is_asked_about_and_a_person_may_end_the_run() {
    let stage = Stage::new();
    let test = "a_key_that_is_not_accepted_any_more_is_asked_about_and_a_person_may_end_the_run";
    let Some(vendor) = Vendor::start(&stage, test) else { return };
    let stage = stage.with(vendor.environment());
    vendor.control("POST", "keys", &json!({"key": "test-key", "revoked": true}));
    let project = Project::new(&stage, CAPS);
    let run = stage.submit(&project.root, &[]);
    let detail = stage.when(&run, "waiting for an answer", |detail| detail["run"]["state"] == "WAITING");
    assert_eq!(detail["run"]["question"]["kind"], "key", "{detail:#}");
    // Nobody is asked again and again what cannot be answered.
    assert!(detail["machines"].as_array().unwrap().len() <= 3, "{detail:#}");
    stage.kill_controller();
    stage.ok(&["answer", &run, "3"]);
    stage.ends_as(&run, "CANCELLED");
    assert_eq!(vendor.state()["journal"]["counts"].get("create"), None);
}
