//! Listing instances: filters on stored columns, order, pages with a token
//! that says where the next one begins.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::filters::{self, Row};
use super::render;
use super::state::World;
use super::wire::{Request, Response, no_such_instance, refuse};

/// Columns that are stored, and may be filtered and sorted by.
const STORED: [&str; 5] = ["id", "label", "actual_status", "gpu_name", "verification"];
/// And sorted by.
const SORTED: [&str; 2] = ["start_date", "machine_id"];
/// Rows on a page, at most and where the limit is nothing.
const PAGE: i64 = 25;
const PAGE_OF_NOTHING: i64 = 5;

fn rows(world: &World) -> Vec<Row> {
    world
        .live
        .values()
        .filter(|instance| instance.visible_ms <= world.now)
        .map(|instance| render::row(world, instance))
        .collect()
}

/// What a list is asked for.
struct Ask {
    conditions: Vec<filters::Condition>,
    order: Vec<(String, bool)>,
    limit: usize,
    after: Option<Row>,
    columns: Option<Vec<String>>,
}

fn read(request: &Request) -> Result<Ask, Response> {
    let bad = |why: &str| refuse(400, "invalid_request", why);
    let conditions = match request.json_argument("select_filters")? {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(filters)) => filters::read(&filters).map_err(|why| bad(&why))?,
        Some(_) => return Err(bad("select_filters is not an object")),
    };
    if let Some(other) = conditions.iter().find(|condition| !STORED.contains(&condition.field.as_str())) {
        return Err(bad(&format!("{} is not a stored column", other.field)));
    }
    let mut order = Vec::new();
    if let Some(wanted) = request.json_argument("order_by")? {
        for entry in wanted.as_array().into_iter().flatten() {
            let column = entry.get("col").and_then(Value::as_str).unwrap_or_default();
            if !STORED.contains(&column) && !SORTED.contains(&column) {
                return Err(bad(&format!("cannot order by {column}")));
            }
            order.push((column.to_owned(), entry.get("dir").and_then(Value::as_str) == Some("desc")));
        }
    }
    // So that every row has its place.
    if !order.iter().any(|(column, _)| column == "id") {
        order.push(("id".to_owned(), false));
    }
    let limit = match request.argument("limit") {
        None | Some("") => PAGE,
        Some(text) => text.parse::<i64>().map_err(|_| bad("limit is not a number"))?,
    };
    let limit = if limit <= 0 { PAGE_OF_NOTHING } else { limit.min(PAGE) };
    let after = match request.argument("after_token") {
        None | Some("") => None,
        Some(text) => Some(
            token_row(text, &order)
                .ok_or_else(|| refuse(400, "invalid_token", "after_token is not valid"))?,
        ),
    };
    let columns = request.json_argument("select_cols")?.and_then(|columns| {
        let columns = columns.as_array()?.clone();
        Some(columns.iter().filter_map(|column| column.as_str().map(str::to_owned)).collect::<Vec<_>>())
    });
    let columns = columns.filter(|columns| !columns.iter().any(|column| column == "*"));
    Ok(Ask { conditions, order, limit: usize::try_from(limit).unwrap_or(1), after, columns })
}

/// What says where the next page begins: the values by which it is sorted.
fn token(row: &Row, order: &[(String, bool)]) -> String {
    let values: Row = order
        .iter()
        .map(|(column, _)| (column.clone(), row.get(column).cloned().unwrap_or_default()))
        .collect();
    BASE64.encode(json!({"values": values}).to_string().as_bytes())
}

fn token_row(text: &str, order: &[(String, bool)]) -> Option<Row> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    let values = value.get("values")?.as_object()?.clone();
    order.iter().all(|(column, _)| values.contains_key(column)).then_some(values)
}

/// `GET /api/v1/instances/`.
pub(super) fn list(world: &World, request: &Request) -> Response {
    let ask = match read(request) {
        Ok(ask) => ask,
        Err(refused) => return refused,
    };
    let mut rows = rows(world);
    rows.retain(|row| ask.conditions.iter().all(|condition| condition.holds(row)));
    let total = rows.len();
    let mut labels: BTreeMap<String, u64> = BTreeMap::new();
    for row in &rows {
        let label = row.get("label").and_then(Value::as_str).unwrap_or_default();
        *labels.entry(label.to_owned()).or_default() += 1;
    }
    rows.sort_by(|a, b| filters::order(a, b, &ask.order));
    if let Some(after) = &ask.after {
        rows.retain(|row| filters::order(row, after, &ask.order).is_gt());
    }
    let more = rows.len() > ask.limit;
    rows.truncate(ask.limit);
    let next = rows.last().filter(|_| more).map(|row| token(row, &ask.order));
    let found = rows.len();
    let rows: Vec<Row> = match &ask.columns {
        None => rows,
        Some(columns) => rows.iter().map(|row| select(row, columns)).collect(),
    };
    Response::json(
        200,
        &json!({"success": true, "instances_found": found, "total_instances": total, "label_counts": labels,
            "next_token": next, "instances": rows}),
    )
}

/// The named columns; one that there is not is null.
fn select(row: &Row, columns: &[String]) -> Row {
    columns.iter().map(|column| (column.clone(), row.get(column).cloned().unwrap_or_default())).collect()
}

/// `GET /api/v0/instances?owner=me`: all of them, as old clients ask.
pub(super) fn list_old(world: &World) -> Response {
    Response::json(200, &json!({"instances": rows(world)}))
}

/// `GET /api/v0/instances/filters/`: what there is to filter by.
pub(super) fn filter_values(world: &World) -> Response {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for row in rows(world) {
        let row = select(&row, &["actual_status", "verification", "gpu_name"].map(str::to_owned));
        if seen.insert(Value::Object(row.clone()).to_string()) {
            found.push(row);
        }
    }
    Response::json(200, &json!({"success": true, "filters": found}))
}

/// `GET /api/v0/instances/{id}/`: null, with success, where there is none.
pub(super) fn show(world: &World, id: u64) -> Response {
    let row = world.visible(id).map(|instance| render::row(world, instance));
    Response::json(200, &json!({"instances": row}))
}

/// `GET /api/v0/instances/{id}/ssh/`.
pub(super) fn instance_keys(world: &World, id: u64) -> Response {
    match world.visible(id) {
        None => no_such_instance(id),
        Some(instance) => {
            // A string of JSON within JSON, as the vendor has it.
            let keys = json!(instance.keys).to_string();
            Response::json(200, &json!({"success": true, "ssh_keys": keys}))
        }
    }
}
