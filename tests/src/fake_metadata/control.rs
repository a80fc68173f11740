//! What tests say to the services, and what they see of them.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asked, Fault, Service, VM, World, moment, say};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Notice {
    service: String,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    in_ms: Option<u64>,
    #[serde(default)]
    rebalance: bool,
    #[serde(default)]
    preempted: bool,
    #[serde(default)]
    maintenance: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    resources: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Of {
    service: String,
    #[serde(default)]
    kind: String,
}

pub(super) fn handle(world: &mut World, now_ms: u64, path: &str, asked: &Asked) -> Answer {
    match try_handle(world, now_ms, path, asked) {
        Ok(value) => say(200, value.to_string()),
        Err(why) => say(400, json!({"error": why}).to_string()),
    }
}

fn service(name: &str) -> Result<Service, String> {
    match name {
        "ec2" => Ok(Service::Ec2),
        "gce" => Ok(Service::Gce),
        "azure" => Ok(Service::Azure),
        _ => Err(format!("no service `{name}`")),
    }
}

fn try_handle(world: &mut World, now_ms: u64, path: &str, asked: &Asked) -> Result<Value, String> {
    let bad = |error: serde_json::Error| error.to_string();
    match (asked.method.as_str(), path) {
        ("GET", "state") => {}
        ("POST", "notice") => notice(world, now_ms, serde_json::from_slice(&asked.body).map_err(bad)?)?,
        ("POST", "clear") => {
            let of: Of = serde_json::from_slice(&asked.body).map_err(bad)?;
            match service(&of.service)? {
                Service::Ec2 => (world.action, world.rebalance) = (None, None),
                Service::Gce => {
                    world.preempted_changes += u64::from(world.preempted);
                    (world.preempted, world.maintenance) = (false, None);
                }
                Service::Azure => {
                    world.incarnation += 1;
                    world.events.clear();
                }
            }
        }
        ("POST", "fault") => {
            let of: Of = serde_json::from_slice(&asked.body).map_err(bad)?;
            let service = service(&of.service)?;
            let fault = match of.kind.as_str() {
                "none" => Fault::None,
                "hang" => Fault::Hang,
                "error" => Fault::Error,
                "garbage" => Fault::Garbage,
                "huge" => Fault::Huge,
                "redirect" => Fault::Redirect,
                other => return Err(format!("no fault `{other}`")),
            };
            world.faults.retain(|(of, _)| *of != service);
            world.faults.push((service, fault));
        }
        ("POST", "tokens") => world.tokens.clear(),
        _ => return Err(format!("no such command: {} {path}", asked.method)),
    }
    Ok(json!({
        "calls": world.calls, "acknowledged": world.acknowledged, "tokens": world.issued,
        "action": world.action.as_ref().map(|(action, at)| json!({"action": action, "at_ms": at})),
        "preempted": world.preempted, "events": world.events,
    }))
}

fn notice(world: &mut World, now_ms: u64, said: Notice) -> Result<(), String> {
    let at_ms = now_ms.saturating_add(said.in_ms.unwrap_or(120_000));
    match service(&said.service)? {
        Service::Ec2 if said.rebalance => world.rebalance = Some(now_ms),
        Service::Ec2 => world.action = Some((said.action.ok_or("which action?")?, at_ms)),
        Service::Gce if said.preempted => {
            world.preempted_changes += u64::from(!world.preempted);
            world.preempted = true;
        }
        Service::Gce => world.maintenance = Some(said.maintenance.ok_or("preempted or maintenance?")?),
        Service::Azure => {
            world.incarnation += 1;
            let id = said.id.unwrap_or_else(|| format!("EVENT-{}", world.incarnation));
            world.events.push(json!({
                "EventId": id, "EventType": said.kind.ok_or("which type?")?, "ResourceType": "VirtualMachine",
                "Resources": said.resources.unwrap_or_else(|| vec![VM.to_owned()]), "EventStatus": "Scheduled",
                "NotBefore": moment::rfc1123(at_ms), "Description": "", "EventSource": "Platform",
                "DurationInSeconds": -1,
            }));
        }
    }
    Ok(())
}
