//! The tests' own door, which is no part of the vendor's API: see everything,
//! move the clock, arrange the market, break things. Loopback only, so
//! without a key.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::faults::{Fate, Rule};
use super::filters::Row;
use super::market;
use super::money::{Amount, Rate};
use super::state::{Change, Instance, Key, Options, Status, World};
use super::time;
use super::wire::{Request, Response, no_such_instance, refuse};

/// Calls shown with the state.
const SHOWN: usize = 512;

/// Everything under `/control/`.
pub(super) fn handle(world: &mut World, now_ms: u64, request: &Request) -> Response {
    let body = match request.object() {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let done = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/control/state") => return Response::json(200, &state(world)),
        ("GET", "/control/journal") => return Response::json(200, &journal(world, request)),
        ("POST", "/control/advance") => forward(world, now_ms, &body),
        ("POST", "/control/faults") => faults(world, &body),
        ("POST", "/control/offers") => offers(world, &body),
        ("POST", "/control/account") => account(world, &body),
        ("POST", "/control/keys") => keys(world, &body),
        ("POST", "/control/options") => options(world, &body),
        ("POST", path) => match path.strip_prefix("/control/instances/").and_then(|id| id.parse().ok()) {
            Some(id) if world.live.contains_key(&id) => instance(world, id, &body),
            Some(id) => return no_such_instance(id),
            None => return refuse(404, "no_such_path", "no such control"),
        },
        _ => return refuse(404, "no_such_path", "no such control"),
    };
    // What was changed may have consequences at once.
    time::advance(world, now_ms);
    match done {
        Ok(()) => Response::json(200, &json!({"now_ms": world.now})),
        Err(why) => refuse(400, "invalid_args", &why),
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    T::deserialize(value).map_err(|error| error.to_string())
}

fn number(body: &Row, key: &str) -> Option<u64> {
    body.get(key).and_then(Value::as_u64)
}

fn forward(world: &mut World, now_ms: u64, body: &Row) -> Result<(), String> {
    let ms = number(body, "ms").filter(|ms| *ms <= 10 * 365 * 86_400_000).ok_or("ms is a number")?;
    world.skew = world.skew.saturating_add(ms);
    time::advance(world, now_ms);
    Ok(())
}

/// `{"seed": 1, "clear": true, "add": [rules]}`.
fn faults(world: &mut World, body: &Row) -> Result<(), String> {
    if let Some(seed) = number(body, "seed") {
        world.random.seed(seed);
    }
    if body.get("clear").and_then(Value::as_bool) == Some(true) {
        world.faults.rules.clear();
    }
    let rules: Vec<Rule> = body.get("add").map_or(Ok(Vec::new()), read)?;
    rules.into_iter().try_for_each(|rule| world.faults.add(rule))
}

/// `{"seed": 1, "count": 300}`, `{"machines": [{"machine_id": 1, ...}]}`,
/// `{"remove": [1]}`, `{"churn": true}`.
fn offers(world: &mut World, body: &Row) -> Result<(), String> {
    if let Some(count) = number(body, "count") {
        market::generate(world, number(body, "seed").unwrap_or(0), usize::try_from(count).unwrap_or(0));
    }
    let mut touched = Vec::new();
    for given in body.get("machines").and_then(Value::as_array).into_iter().flatten() {
        let given = given.as_object().ok_or("a machine is an object")?;
        let id = number(given, "machine_id").ok_or("a machine has a machine_id")?;
        if world.machines.len() >= market::MOST && !world.machines.contains_key(&id) {
            return Err("too many machines".to_owned());
        }
        let mut random = fastrand::Rng::with_seed(id);
        market::add(world, &mut random, id, given);
        touched.push(id);
    }
    for id in body.get("remove").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_u64) {
        if !world.live.values().any(|instance| instance.machine == id) {
            world.machines.remove(&id);
        }
    }
    if body.get("churn").and_then(Value::as_bool) == Some(true) {
        let ids: Vec<u64> = world.machines.keys().copied().collect();
        for id in ids {
            let ask = world.new_ask();
            if let Some(machine) = world.machines.get_mut(&id) {
                machine.ask = ask;
            }
        }
    }
    for id in touched {
        time::settle(world, id);
    }
    Ok(())
}

/// `{"credit": 5.0}` sets what is left, `{"deposit": 5.0}` pays in.
fn account(world: &mut World, body: &Row) -> Result<(), String> {
    let dollars = |key: &str| body.get(key).and_then(Value::as_f64);
    if let Some(left) = dollars("credit") {
        let had = world.credit();
        world.account.deposited += Amount::dollars(left) - had;
    }
    if let Some(more) = dollars("deposit") {
        world.account.deposited += Amount::dollars(more);
    }
    if world.credit() > Amount::ZERO {
        // What was stopped stays stopped until somebody starts it.
        world.account.broke = false;
    }
    Ok(())
}

/// `{"key": "k", "rights": ["instance_read"]}` or `{"key": "k", "revoked": true}`.
fn keys(world: &mut World, body: &Row) -> Result<(), String> {
    let key = body.get("key").and_then(Value::as_str).ok_or("key is a string")?.to_owned();
    if body.get("revoked").and_then(Value::as_bool) == Some(true) {
        world.api_keys.remove(&key);
        return Ok(());
    }
    let rights = body.get("rights").map(read).transpose()?;
    let instance = number(body, "instance");
    world.api_keys.insert(key, Key { rights, instance });
    Ok(())
}

fn options(world: &mut World, body: &Row) -> Result<(), String> {
    let mut options = serde_json::to_value(&world.options).map_err(|error| error.to_string())?;
    for (key, value) in body {
        options[key] = value.clone();
    }
    world.options = read::<Options>(&options)?;
    Ok(())
}

/// What befalls one instance now: `status` with `message`, `outbid`,
/// `fate`, `traffic`, `log`, `price`, `late_ms`.
fn instance(world: &mut World, id: u64, body: &Row) -> Result<(), String> {
    let now = world.now;
    if let Some(status) = body.get("status") {
        let status: Status = read(status)?;
        let message = body.get("message").and_then(Value::as_str).map(str::to_owned);
        time::apply(world, id, Change::Become { status, message });
    }
    match body.get("outbid").and_then(Value::as_bool) {
        Some(true) => time::apply(world, id, Change::Outbid { for_ms: number(body, "for_ms") }),
        Some(false) => time::apply(world, id, Change::Regain),
        None => {}
    }
    let fate: Option<Fate> = body.get("fate").map(read).transpose()?;
    let Some(instance) = world.live.get_mut(&id) else { return Ok(()) };
    if let Some(fate) = fate {
        let at_once = fate.once_running().filter(|_| instance.status == Some(Status::Running));
        match at_once {
            Some((after, change)) => instance.scheduled.push((now + after, change)),
            None => instance.fate = fate,
        }
    }
    if let Some(traffic) = body.get("traffic") {
        let bytes = |key: &str| traffic.get(key).and_then(Value::as_u64).unwrap_or_default();
        instance.meter.up = instance.meter.up.saturating_add(bytes("up"));
        instance.meter.down = instance.meter.down.saturating_add(bytes("down"));
    }
    if let Some(log) = body.get("log").and_then(Value::as_str) {
        instance.log.push_str(log);
        if instance.log.len() > 1 << 20 {
            instance.log.clear();
        }
    }
    if let Some(price) = body.get("price").and_then(Value::as_f64) {
        instance.rates.gpu = Rate::dollars(price);
    }
    if let Some(ms) = number(body, "late_ms") {
        instance.visible_ms = now + ms;
    }
    Ok(())
}

fn shown(world: &World, instance: &Instance) -> Value {
    let mut value = json!(instance);
    let live = instance.destroyed_ms.is_none();
    let (gpu, disk) = if live { instance.burns() } else { (Rate::ZERO, Rate::ZERO) };
    value["cost"] = json!({
        "gpu": instance.meter.gpu, "disk": instance.meter.disk,
        "traffic": instance.meter.traffic(&instance.rates), "total": instance.cost(),
    });
    value["burns_per_hour"] = json!(gpu + disk);
    let end = instance.destroyed_ms.unwrap_or(world.now);
    value["lived_ms"] = json!(end - instance.created_ms);
    value
}

fn state(world: &World) -> Value {
    let live: Vec<Value> = world.live.values().map(|instance| shown(world, instance)).collect();
    let ended: Vec<Value> = world.ended.iter().map(|instance| shown(world, instance)).collect();
    let spent = world.account.deposited - world.credit();
    let skip = world.journal.calls.len().saturating_sub(SHOWN);
    let calls: Vec<Value> = world.journal.calls.iter().skip(skip).map(|call| json!(call)).collect();
    json!({
        "now_ms": world.now, "credit": world.credit(), "spent": spent, "broke": world.account.broke,
        "options": world.options, "instances": live, "ended": ended,
        "machines": world.machines.values().map(|machine| json!(machine)).collect::<Vec<_>>(),
        "ssh_keys": world.ssh_keys, "faults": world.faults,
        "journal": {"counts": world.journal.counts, "next": world.journal.next, "calls": calls},
    })
}

/// `?after=SEQ&op=NAME`.
fn journal(world: &World, request: &Request) -> Value {
    let after = request.argument("after").and_then(|text| text.parse::<u64>().ok());
    let calls: Vec<Value> = world
        .journal
        .calls
        .iter()
        .filter(|call| after.is_none_or(|after| call.seq > after))
        .filter(|call| request.argument("op").is_none_or(|op| call.op == op))
        .map(|call| json!(call))
        .collect();
    json!({"counts": world.journal.counts, "next": world.journal.next, "calls": calls})
}
