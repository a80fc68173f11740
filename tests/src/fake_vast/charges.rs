//! What the vendor says it was paid: charges by contract, and the account.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::filters::{self, Row};
use super::money::Amount;
use super::state::{Instance, World};
use super::wire::{Request, Response, good, refuse};

const DAY_S: u64 = 86_400;

/// `GET /api/v0/charges/`.
pub(super) fn charges(world: &World, request: &Request) -> Response {
    match read(request) {
        Err(refused) => refused,
        Ok(ask) => page(world, &ask),
    }
}

struct Ask {
    /// The days, in seconds.
    from: u64,
    to: u64,
    instances: bool,
    latest_first: bool,
    limit: usize,
    after: Option<u64>,
    tree: bool,
}

fn read(request: &Request) -> Result<Ask, Response> {
    let bad = |why: &str| refuse(400, "invalid_request", why);
    let filters = match request.json_argument("select_filters")? {
        None => Row::new(),
        Some(Value::Object(filters)) => filters,
        Some(_) => return Err(bad("select_filters is not an object")),
    };
    if let Some(other) = filters.keys().find(|key| !matches!(key.as_str(), "day" | "type")) {
        return Err(bad(&format!("cannot filter by {other}")));
    }
    let day = |op: &str| filters.get("day").and_then(|day| day.get(op)).and_then(Value::as_f64);
    let kind: Row = [("type".to_owned(), json!("instance"))].into_iter().collect();
    let mut by_kind = filters.clone();
    by_kind.retain(|key, _| key == "type");
    let conditions = filters::read(&by_kind).map_err(|why| bad(&why))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates at no time")]
    let seconds = |value: f64| value.max(0.0) as u64;
    let after = match request.argument("after_token") {
        None | Some("") => None,
        Some(text) => Some(token_id(text).ok_or_else(|| bad("after_token is not valid"))?),
    };
    let limit =
        request.argument("limit").map_or(Ok(20), str::parse).map_err(|_| bad("limit is no number"))?;
    Ok(Ask {
        from: day("gte").map_or(0, seconds),
        to: day("lte").map_or(u64::MAX, seconds),
        instances: conditions.iter().all(|condition| condition.holds(&kind)),
        latest_first: request.argument("latest_first") == Some("true"),
        limit: usize::clamp(limit, 1, 100),
        after,
        tree: request.argument("format") == Some("tree"),
    })
}

fn token_id(text: &str) -> Option<u64> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    serde_json::from_slice::<Value>(&bytes).ok()?.get("values")?.get("id")?.as_u64()
}

fn page(world: &World, ask: &Ask) -> Response {
    let mut found: Vec<&Instance> = world
        .ended
        .iter()
        .chain(world.live.values())
        .filter(|_| ask.instances)
        .filter(|instance| {
            let end = instance.destroyed_ms.unwrap_or(world.now) / 1000;
            instance.created_ms / 1000 <= ask.to && end >= ask.from
        })
        .collect();
    // Ids rise with time.
    found.sort_by_key(|instance| instance.id);
    if ask.latest_first {
        found.reverse();
    }
    let total = found.len();
    if let Some(after) = ask.after {
        found.retain(|instance| if ask.latest_first { instance.id < after } else { instance.id > after });
    }
    let more = found.len() > ask.limit;
    found.truncate(ask.limit);
    let next = found
        .last()
        .filter(|_| more)
        .map(|last| BASE64.encode(json!({"values": {"id": last.id}}).to_string().as_bytes()));
    let results: Vec<Value> = found.iter().map(|instance| charge(world, instance, ask.tree)).collect();
    good(json!({"results": results, "count": results.len(), "total": total, "next_token": next}))
}

fn rounded(amount: Amount) -> f64 {
    (amount.in_dollars() * 1000.0).round() / 1000.0
}

fn charge(world: &World, instance: &Instance, tree: bool) -> Value {
    let id = instance.id;
    let start = instance.created_ms / 1000;
    let end = instance.destroyed_ms.unwrap_or(world.now) / 1000;
    let days = end / DAY_S - start / DAY_S + 1;
    let part = |kind: &str, amount: Amount, what: String| {
        json!({"start": start, "end": end, "type": kind, "source": null, "description": what,
            "amount": rounded(amount), "items": []})
    };
    let items = if tree {
        vec![
            part("gpu", instance.meter.gpu, format!("{} s of GPUs", instance.meter.gpu_ms / 1000)),
            part(
                "disk",
                instance.meter.disk,
                format!("{} s of {} GB", instance.meter.disk_ms / 1000, instance.disk_gb),
            ),
            part(
                "bandwidth",
                instance.meter.traffic(&instance.rates),
                format!("{} B up, {} B down", instance.meter.up, instance.meter.down),
            ),
        ]
    } else {
        Vec::new()
    };
    let metadata = instance.label.as_ref().map_or(json!({}), |label| json!({"label": label}));
    json!({"start": start, "end": end, "type": "instance", "source": format!("instance-{id}"),
        "description": format!("Instance {id} Charges - {days} days"), "amount": rounded(instance.cost()),
        "metadata": metadata, "items": items})
}

/// `GET /api/v0/users/me/invoices`, as old clients ask.
pub(super) fn invoices_old(world: &World) -> Response {
    let all = world.ended.iter().chain(world.live.values());
    let rows: Vec<Value> = all
        .map(|instance| {
            json!({"id": instance.id, "instance_id": instance.id, "type": "charge",
                "description": format!("Instance {} charges", instance.id), "amount": rounded(instance.cost()),
                "timestamp": instance.created_ms / 1000, "quantity": 1, "rate": instance.rates.gpu})
        })
        .collect();
    Response::json(200, &json!({"invoices": rows, "current": {"charges": 0.0, "total": 0.0}}))
}

/// `GET /api/v1/invoices/`: nothing was invoiced here.
pub(super) fn invoices() -> Response {
    good(json!({"results": [], "count": 0, "total": 0, "next_token": null}))
}

/// `GET /api/v0/users/current`.
pub(super) fn user(world: &World) -> Response {
    let ssh = world.ssh_keys.first().map_or("", |key| key.public_key.as_str());
    Response::json(
        200,
        &json!({"id": 1, "key_id": 1, "sid": "", "email": "user@example.test", "username": "user",
            "fullname": "User", "credit": world.credit(), "balance": 0.0, "ssh_key": ssh,
            "host_agreement_accepted": false, "balance_threshold": 0.0, "balance_threshold_enabled": false,
            "billaddress_city": "", "billaddress_country": "", "billaddress_line1": "", "billaddress_line2": "",
            "billaddress_zip": "", "billed_expected": 0.0, "billaddress_taxinfo": "", "can_pay": true,
            "garnishment": 0.0, "got_signup_credit": false, "has_billing": true, "has_payout": false,
            "last_four": null, "paid_expected": 0.0, "paid_verified": 0.0, "password_resettable": true,
            "paypal_email": null, "phone_number": null, "user": "user"}),
    )
}
