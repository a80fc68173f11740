//! Creating instances: what is asked for is checked against the vendor's
//! limits, and an instance begins to cost at once.

use serde_json::{Map, Value, json};

use super::faults::{Fate, Fault};
use super::filters::Row;
use super::market::{taken, winning_bid};
use super::money::{Amount, Meter, Rate, Rates};
use super::search;
use super::state::{Change, Claim, Instance, Key, Wanted, World};
use super::time::settle;
use super::wire::{Request, Response, good, refuse};

/// Instances at once, so that a mad client ends in an error.
const MOST: usize = 20_000;

/// What is wanted.
#[derive(Debug)]
struct Wish {
    image: String,
    label: Option<String>,
    env: Vec<(String, String)>,
    onstart: Option<String>,
    args: Vec<String>,
    runtype: String,
    disk_gb: f64,
    bid: Option<f64>,
    cancel_unavail: bool,
    stopped: bool,
}

/// Reads a body; the error is the vendor's slug and text.
fn read(body: &Row) -> Result<Wish, (&'static str, String)> {
    let bad = |text: &str| ("invalid_args", text.to_owned());
    let text = |key: &str, most: usize| match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= most => Ok(Some(text.clone())),
        Some(Value::String(_)) => Err(bad(&format!("{key} is longer than {most} characters"))),
        Some(_) => Err(bad(&format!("{key} is not a string"))),
    };
    let image = text("image", 1024)?;
    if image.is_none() && body.get("template_hash_id").is_none_or(Value::is_null) {
        return Err(bad("image is missing"));
    }
    let env = read_env(body.get("env")).map_err(|why| bad(&why))?;
    let args: Vec<String> = match body.get("args") {
        Some(Value::Array(args)) => args.iter().filter_map(|arg| arg.as_str().map(str::to_owned)).collect(),
        _ => text("args_str", 4048)?.into_iter().collect(),
    };
    let onstart = text("onstart", 4048)?;
    let length = onstart.as_ref().map_or(0, String::len) + args.iter().map(String::len).sum::<usize>();
    if length > 4048 {
        return Err(bad("args and onstart are longer than 4048 characters"));
    }
    let disk_gb = match body.get("disk") {
        None | Some(Value::Null) => 8.0,
        Some(value) => value.as_f64().filter(|disk| *disk >= 8.0).ok_or_else(|| bad("disk is at least 8"))?,
    };
    let bid = match body.get("price") {
        None | Some(Value::Null) => None,
        Some(value) => Some(
            value
                .as_f64()
                .filter(|price| (0.001..=128.0).contains(price))
                .ok_or(("invalid_price", "price is between 0.001 and 128".to_owned()))?,
        ),
    };
    let stopped = body.get("target_state").and_then(Value::as_str) == Some("stopped");
    let cancel =
        body.get("cancel_unavail").and_then(Value::as_bool).unwrap_or_else(|| bid.is_none() && !stopped);
    Ok(Wish {
        image: image.unwrap_or_else(|| "template".to_owned()),
        label: text("label", 256)?,
        env,
        onstart,
        args,
        runtype: text("runtype", 256)?.unwrap_or_else(|| "args".to_owned()),
        disk_gb,
        bid,
        cancel_unavail: cancel,
        stopped,
    })
}

/// Variables and, spelled as keys, ports.
pub(super) fn read_env(env: Option<&Value>) -> Result<Vec<(String, String)>, String> {
    let env = match env {
        None | Some(Value::Null) => &Map::new(),
        Some(Value::Object(env)) => env,
        Some(_) => return Err("env is not an object".to_owned()),
    };
    let mut read = Vec::new();
    for (key, value) in env {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if key.len() > 256 || value.len() > 32_768 {
            return Err(format!("env {key} is too long"));
        }
        read.push((key.clone(), value));
    }
    if read.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > 32_768 {
        return Err("env is longer than 32768 characters".to_owned());
    }
    if read.iter().filter(|(key, _)| key.starts_with("-p ")).count() > 64 {
        return Err("env opens more than 64 ports".to_owned());
    }
    Ok(read)
}

/// `PUT /asks/{id}/`.
pub(super) fn create(world: &mut World, ask: u64, request: &Request, fault: Option<&Fault>) -> Response {
    match request.object() {
        Ok(body) => one(world, ask, &body, fault),
        Err(refused) => refused,
    }
}

/// `POST /asks/bulk/`: each for itself.
pub(super) fn create_bulk(world: &mut World, request: &Request, fault: Option<&Fault>) -> Response {
    let body = match request.object() {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let Some(ids) = body.get("ids").and_then(Value::as_array).filter(|ids| ids.len() <= 64) else {
        return refuse(400, "invalid_args", "ids is a list of at most 64");
    };
    let mut results = Vec::new();
    for ask in ids.iter().filter_map(Value::as_u64) {
        let mut result = one(world, ask, &body, fault).value();
        result["ask_id"] = ask.into();
        results.push(result);
    }
    let made = |result: &Value| result["success"] == true;
    let contracts: Vec<&Value> =
        results.iter().filter(|result| made(result)).map(|result| &result["new_contract"]).collect();
    let all = !results.is_empty() && results.iter().all(made);
    Response::json(200, &json!({"success": all, "new_contracts": contracts, "results": results}))
}

/// `PUT /launch_instance/`: the first offer of a search.
pub(super) fn launch(world: &mut World, request: &Request, fault: Option<&Fault>) -> Response {
    let body = match request.object() {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let query = body.get("q").and_then(Value::as_object).cloned().unwrap_or_default();
    let found = search::read(&query).and_then(|query| search::find(world, &query));
    let first = found.ok().and_then(|rows| rows.first()?.get("id")?.as_u64());
    match first {
        Some(ask) => one(world, ask, &body, fault),
        None => refuse(404, "no_such_ask", "error 404/3603: no_such_ask  No offer fits the query."),
    }
}

fn gone(status: u16, ask: u64) -> Response {
    let message = format!("error {status}/3603: no_such_ask  Instance type by id {ask} is not available.");
    Response::json(status, &json!({"success": false, "error": "no_such_ask", "msg": message, "ask_id": ask}))
}

fn one(world: &mut World, ask: u64, body: &Row, fault: Option<&Fault>) -> Response {
    let wish = match read(body) {
        Ok(wish) => wish,
        Err((slug, why)) => return refuse(400, slug, &why),
    };
    if body.get("vm").and_then(Value::as_bool) == Some(true) && world.ssh_keys.is_empty() {
        return refuse(400, "no_ssh_key_for_vm", "Add an ssh key before a virtual machine.");
    }
    let Some(machine) = world.machines.values().find(|machine| machine.ask == ask) else {
        return gone(404, ask);
    };
    if !machine.rentable || taken(world, machine.id) || machine.ends_ms <= world.now {
        return gone(410, ask);
    }
    if world.credit() <= Amount::ZERO {
        return refuse(403, "insufficient_credit", "Your account lacks credit; see the billing page.");
    }
    let space = machine.fields.get("disk_space").and_then(Value::as_f64).unwrap_or(f64::MAX);
    if wish.disk_gb > space {
        return refuse(400, "invalid_args", "disk is larger than what the machine has");
    }
    if world.live.len() >= MOST {
        return refuse(403, "too_many_instances", "There are too many instances.");
    }
    let low = wish.bid.is_some_and(|bid| Rate::dollars(bid) < winning_bid(world, machine, None));
    if low && wish.cancel_unavail {
        return gone(410, ask);
    }
    let machine_id = machine.id;
    let trap = low || fault == Some(&Fault::ContractInError);
    let Some(id) = make(world, machine_id, ask, wish, trap, fault) else { return gone(410, ask) };
    settle(world, machine_id);
    if trap {
        // A stopped instance, paid for, behind what looks like a failure.
        return Response::json(
            400,
            &json!({"success": false, "error": "invalid_price", "ask_id": ask, "new_contract": id,
                "msg": "error 400/3603: the bid does not win; the instance was created stopped"}),
        );
    }
    let key = world.live.get(&id).map(|instance| instance.key.clone());
    good(json!({"new_contract": id, "instance_api_key": key, "ask_id": ask}))
}

/// Makes the instance, without GPUs yet.
fn make(
    world: &mut World,
    machine: u64,
    ask: u64,
    wish: Wish,
    trap: bool,
    fault: Option<&Fault>,
) -> Option<u64> {
    let (id, next_ask, now) = (world.new_id(), world.new_ask(), world.now);
    let secret = world.random.u64(..);
    let machine = world.machines.get_mut(&machine)?;
    machine.ask = next_ask;
    let offered = wish.bid.map_or(machine.price, Rate::dollars);
    let factor = if let Some(Fault::Dearer { factor }) = fault { *factor } else { 1.0 };
    let fate = if let Some(Fault::Fate { fate }) = fault { fate.clone() } else { Fate::Good };
    let late = if let Fate::Late { ms } = fate { ms } else { 0 };
    let stopped = wish.stopped || trap;
    let instance = Instance {
        id,
        ask,
        machine: machine.id,
        label: wish.label,
        image: wish.image,
        runtype: wish.runtype,
        args: wish.args,
        env: wish.env,
        onstart: wish.onstart,
        disk_gb: wish.disk_gb,
        claim: if wish.bid.is_some() { Claim::Bid } else { Claim::OnDemand },
        rates: Rates {
            gpu: Rate::dollars(offered.in_dollars() * factor),
            disk: Rate::disk(wish.disk_gb, machine.disk),
            disk_stopped: Rate::disk(wish.disk_gb, machine.disk_stopped),
            up_gigabyte: machine.up_gigabyte,
            down_gigabyte: machine.down_gigabyte,
        },
        offered,
        created_ms: now,
        ends_ms: machine.ends_ms,
        visible_ms: now + late,
        status: stopped.then_some(super::state::Status::Stopped),
        message: None,
        wanted: if stopped { Wanted::Stopped } else { Wanted::Running },
        holds: false,
        outbid: false,
        kept_down: false,
        expired: false,
        running_since_ms: None,
        starts: 0,
        scheduled: vec![(machine.ends_ms, Change::Expire)],
        fate,
        meter: Meter::default(),
        key: format!("instance-{id}-{secret:016x}"),
        ssh: None,
        keys: world.ssh_keys.clone(),
        log: String::new(),
        prepaid: Amount::ZERO,
        destroyed_ms: None,
    };
    world.api_keys.insert(instance.key.clone(), Key { rights: None, instance: Some(id) });
    world.live.insert(id, instance);
    Some(id)
}
