//! What is done to an instance that exists: start, stop, label, bid, reboot,
//! recreate, destroy, and what is read out of it.

use serde_json::{Value, json};

use super::create::read_env;
use super::filters::Row;
use super::market::winning_bid;
use super::money::{Amount, Rate};
use super::state::{Change, Claim, Instance, Status, World};
use super::time::{reboot, remove, settle, tell, want_running, want_stopped};
use super::wire::{Request, Response, good, no_such_instance, refuse};

/// Results kept.
const RESULTS: usize = 256;

/// Reads the body and finds the instance.
fn with(
    world: &mut World,
    id: u64,
    request: &Request,
    act: impl FnOnce(&mut World, u64, &Row) -> Response,
) -> Response {
    match request.object() {
        Err(refused) => refused,
        Ok(_) if world.visible(id).is_none() => no_such_instance(id),
        Ok(body) => act(world, id, &body),
    }
}

/// `PUT /instances/{id}/`: a state or a label.
pub(super) fn set(world: &mut World, id: u64, request: &Request) -> Response {
    with(world, id, request, |world, id, body| {
        if let Some(label) = body.get("label") {
            let Some(label) = label.as_str().filter(|label| label.len() <= 1024) else {
                return refuse(400, "invalid_args", "label is a string of at most 1024 characters");
            };
            if let Some(instance) = world.live.get_mut(&id) {
                instance.label = Some(label.to_owned());
            }
            return good(json!({}));
        }
        match body.get("state").and_then(Value::as_str) {
            Some("running") => start(world, id),
            Some("stopped") => {
                want_stopped(world, id);
                good(json!({}))
            }
            _ => refuse(400, "invalid_args", "state is running or stopped"),
        }
    })
}

fn start(world: &mut World, id: u64) -> Response {
    if world.credit() <= Amount::ZERO {
        return refuse(403, "insufficient_credit", "Your account lacks credit; see the billing page.");
    }
    if world.live.get(&id).is_some_and(|instance| instance.expired) {
        return refuse(400, "expired", "The contract of this instance has ended.");
    }
    // Where the GPUs are another's it waits for them.
    want_running(world, id);
    good(json!({}))
}

/// `PUT /instances/`: many at once.
pub(super) fn set_bulk(world: &mut World, request: &Request) -> Response {
    let body = match request.object() {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    for id in ids(&body, "ids") {
        if world.visible(id).is_none() {
            continue;
        }
        match body.get("state").and_then(Value::as_str) {
            Some("running") => {
                let answer = start(world, id);
                if answer.status != 200 {
                    return answer;
                }
            }
            Some("stopped") => want_stopped(world, id),
            _ => return refuse(400, "invalid_args", "state is running or stopped"),
        }
    }
    good(json!({}))
}

fn ids(body: &Row, key: &str) -> Vec<u64> {
    body.get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .take(1024)
        .collect()
}

/// `DELETE /instances/{id}/`.
pub(super) fn destroy(world: &mut World, id: u64) -> Response {
    // What does not show yet can be destroyed by whoever knows its id.
    if !world.live.contains_key(&id) {
        return no_such_instance(id);
    }
    remove(world, id);
    good(json!({"msg": "Instance destroyed."}))
}

/// `DELETE /instances/`.
pub(super) fn destroy_bulk(world: &mut World, request: &Request) -> Response {
    let body = match request.object() {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let wanted = ids(&body, "instance_ids");
    let there: Vec<u64> = wanted.iter().copied().filter(|id| world.live.contains_key(id)).collect();
    if let (true, Some(id)) = (there.is_empty(), wanted.first()) {
        return no_such_instance(*id);
    }
    for id in there {
        remove(world, id);
    }
    good(json!({}))
}

/// `PUT /instances/reboot/{id}/`.
pub(super) fn reboot_one(world: &mut World, id: u64, request: &Request) -> Response {
    with(world, id, request, |world, id, _| {
        reboot(world, id);
        good(json!({}))
    })
}

/// `PUT /instances/recycle/{id}/`: a new container from the image, in place.
pub(super) fn recycle(world: &mut World, id: u64, request: &Request) -> Response {
    with(world, id, request, |world, id, _| {
        recreate(world, id);
        good(json!({}))
    })
}

fn recreate(world: &mut World, id: u64) {
    let now = world.now;
    if world.live.get(&id).is_some_and(|instance| instance.starts > 0) {
        tell(world, id, "stop");
    }
    let Some(instance) = world.live.get_mut(&id) else { return };
    instance.running_since_ms = None;
    if instance.holds {
        instance.cancel_boot();
        instance.status = Some(Status::Created);
        instance.scheduled.push((now, Change::Load));
    }
}

/// `PUT /instances/update_template/{id}/`.
pub(super) fn update(world: &mut World, id: u64, request: &Request) -> Response {
    with(world, id, request, |world, id, body| {
        let env = match body.get("env").map(|env| read_env(Some(env))).transpose() {
            Ok(env) => env,
            Err(why) => return refuse(400, "invalid_args", &why),
        };
        let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        let Some(instance) = world.live.get_mut(&id) else { return no_such_instance(id) };
        if let Some(image) = text("image") {
            instance.image = image;
        }
        if let Some(onstart) = text("onstart") {
            instance.onstart = Some(onstart);
        }
        if let Some(args) = text("args") {
            instance.args = vec![args];
        }
        if let Some(env) = env {
            instance.env = env;
        }
        let image = instance.image.clone();
        recreate(world, id);
        good(json!({"updated_instance": {"id": id, "image_uuid": image}}))
    })
}

/// `PUT /instances/bid_price/{id}/`.
pub(super) fn bid(world: &mut World, id: u64, request: &Request) -> Response {
    with(world, id, request, |world, id, body| {
        let Some(instance) = world.live.get(&id) else { return no_such_instance(id) };
        let Some(machine) = world.machines.get(&instance.machine) else { return no_such_instance(id) };
        if instance.claim != Claim::Bid {
            return refuse(400, "invalid_args", "The instance is not interruptible.");
        }
        let gpus = machine.fields.get("num_gpus").and_then(Value::as_f64).unwrap_or(1.0);
        let price = match body.get("price") {
            None | Some(Value::Null) => winning_bid(world, machine, Some(id)),
            Some(price) => match price.as_f64().filter(|price| (0.001..=32.0 * gpus).contains(price)) {
                Some(price) => Rate::dollars(price),
                None => return refuse(400, "invalid_args", "Please set a bid price >= 0.001."),
            },
        };
        let machine = machine.id;
        if let Some(instance) = world.live.get_mut(&id) {
            instance.rates.gpu = price;
        }
        settle(world, machine);
        good(json!({}))
    })
}

/// `PUT /instances/prepay/{id}/`.
pub(super) fn prepay(world: &mut World, id: u64, request: &Request) -> Response {
    with(world, id, request, |world, id, body| {
        let Some(dollars) = body.get("amount").and_then(Value::as_f64).filter(|amount| *amount > 0.0) else {
            return refuse(400, "invalid_args", "amount is a positive number");
        };
        let amount = Amount::dollars(dollars);
        if amount > world.credit() {
            return Response::json(411, &json!({"success": false, "msg": "Insufficient credit"}));
        }
        let Some(instance) = world.live.get_mut(&id) else { return no_such_instance(id) };
        instance.prepaid += amount;
        let hour = (instance.rates.gpu + instance.rates.disk).in_dollars().max(1e-9);
        good(json!({"timescale": dollars / (hour * 720.0), "discount_rate": 0.0}))
    })
}

/// `GET /instances/balance/{id}/`.
pub(super) fn deposit(world: &World, id: u64) -> Response {
    match world.visible(id) {
        None => no_such_instance(id),
        Some(instance) => {
            good(json!({"refundable_deposit": instance.prepaid, "total_discount": 0.0, "discount_months": 0}))
        }
    }
}

/// A text that can be fetched a little later, without a key.
fn publish(world: &mut World, text: String) -> String {
    let name = world.random.u64(..).to_string();
    if world.results.len() == RESULTS {
        world.results.pop_front();
    }
    let url = format!("{}/results/{name}", world.options.url);
    world.results.push_back((name, world.now + world.options.result_ms, text));
    url
}

/// `GET /results/{n}`.
pub(super) fn result(world: &World, id: u64) -> Response {
    let name = id.to_string();
    let found = world.results.iter().find(|(known, ready, _)| *known == name && *ready <= world.now);
    match found {
        Some((_, _, text)) => Response::text(200, "text/plain", text.clone()),
        None => Response::text(404, "application/xml", "<Error><Code>NoSuchKey</Code></Error>".to_owned()),
    }
}

/// `PUT /instances/request_logs/{id}/`.
pub(super) fn logs(world: &mut World, id: u64, request: &Request) -> Response {
    let body = match request.object() {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let Some(instance) = world.visible(id) else {
        return Response::json(404, &json!({"error": "invalid_id", "msg": "Invalid instance id."}));
    };
    let text = log_of(instance);
    let number = |key: &str| body.get(key).and_then(|value| value.as_str()?.parse::<usize>().ok());
    let wanted = body.get("filter").and_then(Value::as_str);
    let lines: Vec<&str> =
        text.lines().filter(|line| wanted.is_none_or(|wanted| line.contains(wanted))).collect();
    let from = lines.len().saturating_sub(number("tail").unwrap_or(1000));
    let text = lines[from..].iter().fold(String::new(), |text, line| text + line + "\n");
    let url = publish(world, text);
    good(json!({"result_url": url, "msg": "Logs will be at result_url in a few seconds."}))
}

fn log_of(instance: &Instance) -> String {
    let starts = instance.starts;
    let began = (1..=starts).map(|start| format!("start {start} of {}: running onstart\n", instance.image));
    began.collect::<String>() + &instance.log
}

/// `PUT /instances/command/{id}/`: `ls`, `rm` and `du` only.
pub(super) fn execute(world: &mut World, id: u64, request: &Request) -> Response {
    let Ok(body) = request.object() else { return refuse(483, "invalid_args", "Invalid json_body") };
    if world.visible(id).is_none() {
        return refuse(400, "invalid_container_id", "Invalid container id.");
    }
    let command = body.get("command").and_then(Value::as_str).unwrap_or_default();
    let allowed = matches!(command.split_whitespace().next(), Some("ls" | "rm" | "du"));
    if !allowed || command.len() > 512 {
        return refuse(400, "invalid_args", "Invalid command given.");
    }
    let url = publish(world, format!("/var/lib/containers/{id}/merged\ntotal 0\n"));
    good(json!({"result_url": url, "writeable_path": format!("/var/lib/containers/{id}/merged"),
        "msg": "Command is executing, wait a few seconds and then view the result_url"}))
}

/// `PUT /commands/copy_direct/`.
pub(super) fn copy(world: &World, request: &Request) -> Response {
    let body = match request.object() {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    for side in ["src_id", "dst_id"] {
        let name = body.get(side).and_then(Value::as_str).unwrap_or("local");
        let id = name.trim_start_matches("C.").parse::<u64>().ok();
        if let Some(id) = id.filter(|id| world.visible(*id).is_none()) {
            return no_such_instance(id);
        }
    }
    good(json!({"msg": "Copy initiated.", "src_addr": "127.0.0.1", "src_port": 9,
        "dst_addr": "127.0.0.1", "dst_port": 9}))
}

/// `POST /instances/take_snapshot/{id}/`.
pub(super) fn snapshot(world: &mut World, id: u64, request: &Request) -> Response {
    with(world, id, request, |_, _, _| good(json!({"msg": "Snapshot requested."})))
}
