//! The fake services say what the clouds' documents say.

use serde_json::{Value, json};

use super::*;

fn asked(method: &str, path: &str, header: Option<(&str, &str)>) -> Asked {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let headers = header.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Asked { method: method.into(), path: path.into(), query: query.into(), headers, body: Vec::new() }
}

fn said(answer: &Answer) -> (u16, String) {
    match answer {
        Answer::Say { status, body, .. } => (*status, String::from_utf8_lossy(body).into_owned()),
        other => panic!("{other:?}"),
    }
}

fn control(world: &mut World, path: &str, body: &Value) {
    let asked =
        Asked { body: body.to_string().into_bytes(), ..asked("POST", &format!("/control/{path}"), None) };
    let (status, text) = said(&answer(world, 1_505_722_800_000, &asked, true));
    assert_eq!(status, 200, "{text}");
}

#[test]
fn ec2_wants_a_token_that_has_not_run_out() {
    let mut world = World::default();
    let world = &mut world;
    let path = "/latest/meta-data/spot/instance-action";
    assert_eq!(said(&answer(world, 0, &asked("GET", path, None), true)).0, 401);
    let put = asked("PUT", "/latest/api/token", Some(("X-aws-ec2-metadata-token-ttl-seconds", "21600")));
    let (_, token) = said(&answer(world, 0, &put, true));
    let get = asked("GET", path, Some(("x-aws-ec2-metadata-token", &token)));
    assert_eq!(said(&answer(world, 0, &get, true)).0, 404);
    control(world, "notice", &json!({"service": "ec2", "action": "terminate", "in_ms": 120_000}));
    let (status, body) = said(&answer(world, 0, &get, true));
    assert_eq!((status, body.as_str()), (200, r#"{"action":"terminate","time":"2017-09-18T08:22:00Z"}"#));
    control(world, "tokens", &json!({}));
    assert_eq!(said(&answer(world, 0, &get, true)).0, 401);
}

#[test]
fn google_waits_for_a_change() {
    let mut world = World::default();
    let world = &mut world;
    let flavor = Some(("Metadata-Flavor", "Google"));
    let path = "/computeMetadata/v1/instance/preempted";
    assert_eq!(said(&answer(world, 0, &asked("GET", path, None), true)).0, 403);
    let Answer::Say { body, etag: Some(etag), .. } = answer(world, 0, &asked("GET", path, flavor), true)
    else {
        panic!("no tag")
    };
    assert_eq!(body, b"FALSE");
    let wait = asked("GET", &format!("{path}?wait_for_change=true&timeout_sec=9&last_etag={etag}"), flavor);
    assert_eq!(answer(world, 0, &wait, true), Answer::Wait(9_000));
    control(world, "notice", &json!({"service": "gce", "preempted": true}));
    assert_eq!(said(&answer(world, 0, &wait, true)).1, "TRUE");
}

#[test]
fn azure_starts_what_is_acknowledged() {
    let mut world = World::default();
    let world = &mut world;
    let header = Some(("Metadata", "true"));
    let path = "/metadata/scheduledevents?api-version=2020-07-01";
    assert_eq!(said(&answer(world, 0, &asked("GET", path, None), true)).0, 400);
    control(world, "notice", &json!({"service": "azure", "type": "Preempt", "id": "E-1", "in_ms": 30_000}));
    let (_, body) = said(&answer(world, 0, &asked("GET", path, header), true));
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(document["Events"][0]["EventType"], "Preempt");
    let start = |id: &str| Asked {
        body: json!({"StartRequests": [{"EventId": id}]}).to_string().into_bytes(),
        ..asked("POST", path, header)
    };
    assert_eq!(said(&answer(world, 0, &start("other"), true)).0, 400);
    assert_eq!(said(&answer(world, 0, &start("E-1"), true)).0, 200);
    assert_eq!(world.acknowledged, ["E-1"]);
    assert_eq!(world.events[0]["EventStatus"], "Started");
}
