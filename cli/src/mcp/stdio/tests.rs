//! Whatever a client writes, each request is answered, each malformed line is
//! told so, and the session goes on.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;
use rmcp::ServiceExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::app::Context;
use crate::mcp::desk::Desk;
use crate::mcp::server::Server;
use crate::printer::{Output, Printer, Settings, Verbosity};

fn desk(dir: &std::path::Path) -> Desk {
    let settings = Settings {
        verbosity: Verbosity::Quiet,
        stdout: Output::default(),
        stderr: Output::default(),
        width: 80,
    };
    let printer = Printer::to(settings, Box::new(io::sink()), Box::new(io::sink()));
    let home = dir.join("home");
    let env = [("OUTLAST_HOME".to_owned(), home.display().to_string())].into();
    let project = dir.canonicalize().unwrap();
    Desk {
        ctx: Context::new(printer, env),
        home,
        roots: vec![project.clone()],
        project,
        stands_here: false,
        control: false,
        spend: None,
        analysis: false,
        line: std::sync::Mutex::default(),
    }
}

const HELLO: &str = r#"{"jsonrpc":"2.0","id":"hello","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"0"}}}"#;

/// All that is said to a whole session, after the handshake and before a ping.
fn session(input: &[u8]) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.jsonl"), "{\"step\":1,\"loss\":2}\n{\"step\":2,\"loss\":1}\n").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = Server::new(desk(dir.path()));
    let mut all = format!("{HELLO}\n").into_bytes();
    all.extend_from_slice(input);
    all.extend_from_slice(b"\n{\"jsonrpc\":\"2.0\",\"id\":\"bye\",\"method\":\"ping\"}\n");
    let out = runtime.block_on(async move {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(far);
        let serve = async {
            if let Ok(running) = server.serve(Lines::new(read, write)).await {
                let _ = running.waiting().await;
            }
        };
        let ask = async {
            let mut out = Vec::new();
            let (mut from, mut to) = tokio::io::split(&mut near);
            let write = async {
                to.write_all(&all).await.unwrap();
                to.shutdown().await.unwrap();
            };
            tokio::join!(write, async { from.read_to_end(&mut out).await.unwrap() });
            out
        };
        let ((), out) = tokio::join!(serve, ask);
        out
    });
    let text = String::from_utf8(out).expect("only UTF-8 is written");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn answer<'a>(said: &'a [Value], id: &Value) -> Option<&'a Value> {
    said.iter().find(|message| message["id"] == *id)
}

#[track_caller]
fn code(input: &str, id: &Value) -> i64 {
    let said = session(input.as_bytes());
    assert!(answer(&said, &json!("bye")).is_some(), "the session ended: {said:?}");
    let told = answer(&said, id).unwrap_or_else(|| panic!("{id} was not answered: {said:?}"));
    told["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {told}"))
}

#[test]
fn malformed_calls_have_the_errors_of_json_rpc() {
    let null = Value::Null;
    assert_eq!(code("not json", &null), -32_700);
    assert_eq!(code("{\"jsonrpc\":\"2.0\",\"id\":1,", &null), -32_700);
    assert_eq!(code(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), &null), -32_700);
    assert_eq!(code(&format!("{{\"a\":{}1{}}}", "{\"a\":".repeat(500), "}".repeat(500)), &null), -32_700);
    assert_eq!(code(&"x".repeat(LINE + 1), &null), -32_700);
    assert_eq!(code(&format!("{}\n", "y".repeat(3 * LINE)), &null), -32_700);
    assert_eq!(code("[]", &null), -32_600);
    assert_eq!(code("3", &null), -32_600);
    assert_eq!(code("{}", &null), -32_600);
    assert_eq!(code(r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, &json!(1)), -32_600);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, &null), -32_600);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, &null), -32_600);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":7}"#, &json!(1)), -32_600);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"no/such"}"#, &json!(1)), -32_601);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, &json!(1)), -32_602);
    assert_eq!(
        code(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}"#, &json!(1)),
        -32_602
    );
    assert_eq!(
        code(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"no"}}"#, &json!(1)),
        -32_602
    );
    let cursor = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"zz"}}"#;
    assert_eq!(code(cursor, &json!(1)), -32_602);
    assert_eq!(
        code(
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///etc/passwd"}}"#,
            &json!(1)
        ),
        -32_002
    );
    assert_eq!(
        code(r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"no"}}"#, &json!(1)),
        -32_602
    );
}

#[test]
fn bytes_that_are_no_text_and_a_half_line_are_told_so() {
    let said = session(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\xfe\"}");
    assert_eq!(answer(&said, &Value::Null).unwrap()["error"]["code"], -32_700);
    // The last line of a session that breaks off.
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let out = runtime.block_on(async {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(far);
        let mut lines = Lines::new(read, write);
        near.write_all(format!("{HELLO}\n{{\"jsonrpc\":\"2.0\",\"id\":3,\"met").as_bytes()).await.unwrap();
        near.shutdown().await.unwrap();
        let server = Server::new(desk(dir.path()));
        assert!(lines.receive().await.is_some(), "the handshake");
        drop(server);
        assert!(lines.receive().await.is_none());
        lines.close().await.unwrap();
        drop(lines);
        let mut out = String::new();
        near.read_to_string(&mut out).await.unwrap();
        out
    });
    assert!(out.contains("-32700") && out.contains("has no end"), "{out}");
}

fn call(id: &Value, name: &str, arguments: &Value) -> String {
    json!({"jsonrpc":"2.0","id":id,"method":"tools/call","params":{"name":name,"arguments":arguments}})
        .to_string()
}

#[test]
fn what_a_tool_cannot_take_is_a_result_with_a_cure() {
    let bad = [
        ("analyze", json!({})),
        ("analyze", json!({"paths": [1]})),
        ("analyze", json!({"paths": ["a.jsonl"], "other": 1})),
        ("analyze", json!({"paths": ["a.jsonl"], "max_tokens": "many"})),
        ("analyze", json!({"paths": ["../../../etc/passwd"]})),
        ("analyze", json!({"paths": ["missing"]})),
        ("status", json!({"run": "x"})),
        ("logs", json!({"run": "x", "grep": "("})),
        ("destroy", json!({"target": "x"})),
    ];
    for (name, arguments) in bad {
        let said = session(call(&json!(1), name, &arguments).as_bytes());
        let result = &answer(&said, &json!(1)).unwrap()["result"];
        assert_eq!(result["isError"], true, "{name} {arguments}: {said:?}");
        assert!(result["content"][0]["text"].as_str().unwrap().contains("\ncure: "), "{result}");
    }
    let said = session(call(&json!(1), "analyze", &json!({"paths": ["a.jsonl"]})).as_bytes());
    assert_eq!(answer(&said, &json!(1)).unwrap()["result"]["isError"], false, "{said:?}");
}

#[test]
fn a_link_leads_nowhere_outside() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    let desk = desk(dir.path());
    assert!(
        desk.path("out/passwd").is_err() && desk.path("/etc/passwd").is_err() && desk.path("..").is_err()
    );
    assert_eq!(desk.path("in").unwrap(), dir.path().canonicalize().unwrap().join("in"));
    assert!(PathBuf::from("/etc/passwd").exists());
}

#[test]
fn an_id_that_is_in_use_and_a_cancelled_call_do_no_harm() {
    let one = call(&json!(1), "analyze", &json!({"paths": ["."]}));
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let early = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"none"}}"#;
    let said = session(format!("{early}\n{one}\n{one}\n{cancel}\n{one}").as_bytes());
    assert!(answer(&said, &json!("bye")).is_some(), "{said:?}");
    let refused = said.iter().filter(|message| message["error"]["code"] == -32_600).count();
    assert!(refused <= 1 && said.iter().any(|message| message["id"] == 1), "{said:?}");
}

#[test]
fn a_client_without_a_handshake_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let ask = |id: u8, method: &str| {
        json!({"jsonrpc":"2.0","id":id,"method":method,"params":{"_meta":meta}}).to_string()
    };
    let input = format!("{}\n{}\n", ask(1, "server/discover"), ask(2, "tools/list"));
    let out = runtime.block_on(async {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(far);
        near.write_all(input.as_bytes()).await.unwrap();
        near.shutdown().await.unwrap();
        let running = Server::new(desk(dir.path())).serve(Lines::new(read, write)).await.unwrap();
        running.waiting().await.unwrap();
        let mut out = String::new();
        near.read_to_string(&mut out).await.unwrap();
        out
    });
    let said: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(answer(&said, &json!(1)).unwrap()["result"]["supportedVersions"].is_array(), "{out}");
    assert!(answer(&said, &json!(2)).unwrap()["result"]["tools"].as_array().unwrap().len() > 5, "{out}");
}

/// Lines that are nearly calls.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "[ -~]{0,12}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({"a": {"b": [1, {"c": null}]}})),
    ];
    let name = prop_oneof![
        Just("tools/call"),
        Just("tools/list"),
        Just("initialize"),
        Just("ping"),
        Just("prompts/get"),
        Just("resources/read"),
        Just("notifications/cancelled"),
        Just("server/discover"),
        Just("x"),
    ];
    let tool = prop_oneof![Just("analyze"), Just("destroy"), Just("no"), Just("list")];
    let call = (name, tool, value.clone(), value.clone(), value).prop_map(|(method, tool, id, a, b)| {
        json!({"jsonrpc":"2.0","id":id,"method":method,"params":{"name":tool,"arguments":{"paths":a,"run":b},"cursor":b,"uri":a,"requestId":id}}).to_string().into_bytes()
    });
    let cut = (call.clone(), 0..200_usize).prop_map(|(mut line, at)| {
        line.truncate(at);
        line
    });
    let flip = (call.clone(), 0..200_usize, any::<u8>()).prop_map(|(mut line, at, byte)| {
        if let Some(place) = line.get_mut(at) {
            *place = byte;
        }
        line
    });
    prop_oneof![3 => call, 2 => cut, 2 => flip, 1 => proptest::collection::vec(any::<u8>(), 0..80)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn no_line_ends_a_session(lines in proptest::collection::vec(hostile(), 1..12)) {
        let asked: BTreeSet<String> = lines.iter().filter_map(|line| {
            let value: Value = serde_json::from_slice(line).ok()?;
            let id = value.get("id").filter(|id| id.is_string() || id.is_i64())?;
            value["method"].as_str().filter(|_| value["jsonrpc"] == "2.0").map(|_| id.to_string())
        }).collect();
        let cancelled = lines.iter().any(|line| line.windows(9).any(|part| part == b"cancelled"));
        let said = session(&lines.join(&b"\n"[..]));
        prop_assert!(answer(&said, &json!("bye")).is_some(), "{said:?}");
        for message in &said {
            let shape = message["jsonrpc"] == "2.0" && (message.get("result").is_some() || message.get("error").is_some());
            prop_assert!(shape, "{message}");
        }
        let answered: BTreeSet<String> = said.iter().map(|message| message["id"].to_string()).collect();
        prop_assert!(cancelled || asked.is_subset(&answered), "{asked:?}: {said:?}");
    }
}
