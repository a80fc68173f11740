//! Searching offers: filters, order and limit over the rows of the market.

use serde_json::{Value, json};

use super::filters::{self, Row};
use super::market;
use super::state::World;
use super::wire::{Request, Response, refuse};

/// Keys of a query that are no filters.
const SETTINGS: [&str; 6] =
    ["order", "type", "limit", "allocated_storage", "disable_bundling", "select_cols"];

/// What a query asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    filters: Row,
    order: Vec<(String, bool)>,
    bid: bool,
    limit: Option<usize>,
    /// Gigabytes that the total price counts.
    pub(super) disk_gb: f64,
}

/// Reads a query; the message says what is wrong.
pub(super) fn read(query: &Row) -> Result<Query, String> {
    let number = |key: &str| match query.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => Ok(number.as_f64()),
        Some(Value::String(text)) => {
            text.parse::<f64>().map(Some).map_err(|_| format!("{key} is not a number"))
        }
        Some(_) => Err(format!("{key} is not a number")),
    };
    let bid = match query.get("type").map_or(Some("on-demand"), Value::as_str) {
        Some("on-demand" | "ondemand" | "reserved") => false,
        Some("bid" | "interruptible") => true,
        _ => return Err("type is on-demand, bid or reserved".to_owned()),
    };
    let mut order = Vec::new();
    for entry in query.get("order").and_then(Value::as_array).into_iter().flatten() {
        let (column, direction) =
            (entry.get(0).and_then(Value::as_str), entry.get(1).and_then(Value::as_str));
        match (column, direction) {
            (Some(column), Some("asc") | None) => order.push((column.to_owned(), false)),
            (Some(column), Some("desc")) => order.push((column.to_owned(), true)),
            _ => return Err("order is a list of [field, asc or desc]".to_owned()),
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and saturates"
    )]
    let limit = number("limit")?.map(|limit| limit.max(0.0) as usize);
    let mut filters = query.clone();
    filters.retain(|key, _| !SETTINGS.contains(&key.as_str()));
    Ok(Query { filters, order, bid, limit, disk_gb: number("allocated_storage")?.unwrap_or(5.0) })
}

/// The offers that a query finds, in its order.
pub(super) fn find(world: &World, query: &Query) -> Result<Vec<Row>, String> {
    let mut filters = query.filters.clone();
    // A version is compared as the number that the official client makes of it.
    if let Some(tests) = filters.get("driver_version").filter(|tests| numeric(tests)).cloned() {
        filters.remove("driver_version");
        filters.insert("driver_vers".to_owned(), tests);
    }
    // A place is asked for by its country, and shown with its region.
    if let Some(Value::Object(tests)) = filters.remove("geolocation") {
        let code = tests.values().all(|value| !value.to_string().contains(", "));
        filters.insert(if code { "country_code" } else { "geolocation" }.to_owned(), Value::Object(tests));
    }
    let conditions = filters::read(&filters)?;
    let mut rows: Vec<Row> = world
        .machines
        .values()
        .map(|machine| market::offer(world, machine, query.bid, query.disk_gb))
        .collect();
    if let Some(row) = rows.first()
        && let Some(unknown) = conditions.iter().find(|condition| !row.contains_key(&condition.field))
    {
        return Err(format!("unknown field {}", unknown.field));
    }
    rows.retain(|row| conditions.iter().all(|condition| condition.holds(row)));
    rows.sort_by(|a, b| {
        filters::order(a, b, &query.order).then_with(|| filters::order(a, b, &[("id".to_owned(), false)]))
    });
    rows.truncate(query.limit.unwrap_or(usize::MAX));
    Ok(rows)
}

fn numeric(tests: &Value) -> bool {
    tests.as_object().is_some_and(|tests| tests.values().all(Value::is_number))
}

/// `POST /bundles/` and, with the query under `q`, `PUT /search/asks/`.
pub(super) fn search(world: &World, request: &Request) -> Response {
    let body = match request.object() {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let query = match body.get("q") {
        Some(Value::Object(query)) => query.clone(),
        Some(_) => return refuse(400, "invalid_args", "q is not an object"),
        None => body,
    };
    match read(&query).and_then(|query| find(world, &query)) {
        Ok(offers) => Response::json(200, &json!({"offers": offers})),
        Err(why) => Response::json(400, &json!({"error": "invalid_args", "msg": why})),
    }
}
