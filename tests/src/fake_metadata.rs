//! The metadata services of EC2 (IMDSv2 only), Google and Azure on one
//! loopback port, as far as notices go. The core is pure: [`answer`] answers a
//! request at a moment. It must never be reachable from elsewhere.
//!
//! Tests give notices and break things under `/control/`:
//!
//! ```text
//! POST /control/notice  {"service": "ec2", "action": "terminate", "in_ms": 120000}
//!                       {"service": "ec2", "rebalance": true}
//!                       {"service": "gce", "preempted": true}
//!                       {"service": "gce", "maintenance": "TERMINATE_ON_HOST_MAINTENANCE"}
//!                       {"service": "azure", "type": "Preempt", "id": "E-1", "in_ms": 30000, "resources": ["vm-1"]}
//! POST /control/clear   {"service": "ec2"}
//! POST /control/fault   {"service": "ec2", "kind": "hang"}    (error, garbage, huge, redirect, none)
//! POST /control/tokens  {}                                    every token has run out
//! GET  /control/state
//! ```

mod control;
mod http;
mod moment;

use serde_json::{Value, json};

pub use http::main;

/// Which service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Service {
    Ec2,
    Gce,
    Azure,
}

/// What is wrong with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Fault {
    #[default]
    None,
    Hang,
    Error,
    Garbage,
    Huge,
    Redirect,
}

/// A request.
#[derive(Debug, Clone, Default)]
struct Asked {
    method: String,
    path: String,
    query: String,
    /// The header that the service wants.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn argument(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// This.
    Say { status: u16, body: Vec<u8>, etag: Option<String> },
    /// Ask again once something changed, for so many milliseconds at most.
    Wait(u64),
    /// Nothing, for ever.
    Hang,
}

fn say(status: u16, text: impl Into<Vec<u8>>) -> Answer {
    Answer::Say { status, body: text.into(), etag: None }
}

/// Requests that are remembered.
const CALLS: usize = 10_000;
/// This machine's name at Azure.
const VM: &str = "vm-1";

/// Everything that the services know.
#[derive(Debug, Default)]
struct World {
    tokens: Vec<String>,
    issued: u64,
    action: Option<(String, u64)>,
    rebalance: Option<u64>,
    preempted: bool,
    preempted_changes: u64,
    maintenance: Option<String>,
    events: Vec<Value>,
    incarnation: u64,
    acknowledged: Vec<String>,
    faults: Vec<(Service, Fault)>,
    calls: Vec<Value>,
}

/// Answers a request at a moment (unix milliseconds). `fresh`: it is asked for
/// the first time, and not again after a wait.
fn answer(world: &mut World, now_ms: u64, asked: &Asked, fresh: bool) -> Answer {
    if let Some(path) = asked.path.strip_prefix("/control/") {
        return control::handle(world, now_ms, path, asked);
    }
    let service = match asked.path.as_str() {
        path if path.starts_with("/computeMetadata/") => Service::Gce,
        path if path.starts_with("/metadata/") => Service::Azure,
        _ => Service::Ec2,
    };
    let fault = world.faults.iter().find(|(of, _)| *of == service).map_or(Fault::None, |(_, fault)| *fault);
    let answer = match fault {
        Fault::None => match service {
            Service::Ec2 => ec2(world, asked),
            Service::Gce => gce(world, asked, fresh),
            Service::Azure => azure(world, asked),
        },
        Fault::Hang => Answer::Hang,
        Fault::Error => say(500, "<html>Internal Server Error</html>"),
        Fault::Garbage => say(200, &b"\x00\xff{\"action\": ]"[..]),
        Fault::Huge => say(200, vec![b'x'; 4 << 20]),
        Fault::Redirect => say(302, ""),
    };
    if fresh && world.calls.len() < CALLS {
        let status = match &answer {
            Answer::Say { status, .. } => *status,
            Answer::Wait(_) | Answer::Hang => 0,
        };
        world.calls.push(json!({
            "service": format!("{service:?}").to_lowercase(), "method": asked.method, "path": asked.path,
            "query": asked.query, "status": status, "at_ms": now_ms,
        }));
    }
    answer
}

fn ec2(world: &mut World, asked: &Asked) -> Answer {
    if asked.path == "/latest/api/token" {
        let ttl: Option<u32> =
            asked.header("X-aws-ec2-metadata-token-ttl-seconds").and_then(|text| text.parse().ok());
        if asked.method != "PUT" || !ttl.is_some_and(|ttl| (1..=21_600).contains(&ttl)) {
            return say(400, "");
        }
        world.issued += 1;
        world.tokens.push(format!("TOKEN{}==", world.issued));
        return say(200, format!("TOKEN{}==", world.issued));
    }
    let token = asked.header("X-aws-ec2-metadata-token");
    if !token.is_some_and(|token| world.tokens.iter().any(|known| known == token)) {
        return say(401, "<html>Unauthorized</html>");
    }
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/latest/meta-data/spot/instance-action") => match &world.action {
            Some((action, at)) => {
                say(200, json!({"action": action, "time": moment::rfc3339(*at)}).to_string())
            }
            None => say(404, "<html>Not Found</html>"),
        },
        ("GET", "/latest/meta-data/events/recommendations/rebalance") => match world.rebalance {
            Some(at) => say(200, json!({"noticeTime": moment::rfc3339(at)}).to_string()),
            None => say(404, "<html>Not Found</html>"),
        },
        ("GET", "/latest/meta-data/instance-id") => say(200, "i-0123456789abcdef0"),
        ("GET", "/latest/meta-data/instance-life-cycle") => say(200, "spot"),
        ("GET", "/latest/dynamic/instance-identity/document") => say(
            200,
            json!({"accountId": "123456789012", "instanceId": "i-0123456789abcdef0", "region": "eu-west-1",
                "instanceType": "g5.xlarge", "version": "2017-09-30"})
            .to_string(),
        ),
        _ => say(404, "<html>Not Found</html>"),
    }
}

fn gce(world: &World, asked: &Asked, fresh: bool) -> Answer {
    if asked.header("Metadata-Flavor") != Some("Google") {
        return say(403, "<html>Forbidden</html>");
    }
    match asked.path.as_str() {
        "/computeMetadata/v1/instance/preempted" => {
            let etag = format!("{:016x}", world.preempted_changes + 1);
            let known = asked.argument("last_etag");
            let waits =
                asked.argument("wait_for_change") == Some("true") && known.is_none_or(|known| known == etag);
            if waits && fresh {
                let seconds =
                    asked.argument("timeout_sec").and_then(|text| text.parse().ok()).unwrap_or(3_600_u64);
                return Answer::Wait(seconds.min(3_600) * 1_000);
            }
            let text = if world.preempted { "TRUE" } else { "FALSE" };
            Answer::Say { status: 200, body: text.into(), etag: Some(etag) }
        }
        "/computeMetadata/v1/instance/maintenance-event" => {
            say(200, world.maintenance.clone().unwrap_or_else(|| "NONE".to_owned()))
        }
        _ => say(404, "<html>Not Found</html>"),
    }
}

fn azure(world: &mut World, asked: &Asked) -> Answer {
    if asked.header("Metadata") != Some("true") {
        return say(400, json!({"error": "Bad request. Required metadata header not specified"}).to_string());
    }
    if asked.argument("api-version").is_none() {
        return say(400, json!({"error": "Bad request. api-version was not specified"}).to_string());
    }
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/metadata/scheduledevents") => {
            let document = json!({"DocumentIncarnation": world.incarnation, "Events": world.events});
            say(200, document.to_string())
        }
        ("POST", "/metadata/scheduledevents") => {
            let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
            let wanted = body["StartRequests"].as_array().cloned().unwrap_or_default();
            let ids: Vec<String> =
                wanted.iter().filter_map(|one| one["EventId"].as_str().map(str::to_owned)).collect();
            let known = |id: &String| world.events.iter().any(|event| event["EventId"] == id.as_str());
            if ids.is_empty() || !ids.iter().all(known) {
                return say(400, "");
            }
            for event in &mut world.events {
                if ids.iter().any(|id| event["EventId"] == id.as_str()) {
                    event["EventStatus"] = "Started".into();
                    event["NotBefore"] = "".into();
                }
            }
            world.incarnation += 1;
            world.acknowledged.extend(ids);
            say(200, "")
        }
        ("GET", "/metadata/instance/compute/name") => say(200, VM),
        _ => say(404, ""),
    }
}

#[cfg(test)]
mod tests;
