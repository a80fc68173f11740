//! A fake Vast.ai: the vendor's protocol, money and time, and everything that
//! goes wrong with them, for tests of what rents there. The core is pure:
//! [`handle`] answers a request at a moment, [`advance`] moves the world to
//! one. `http` puts it on a loopback socket; `boot` lets a command stand
//! in for machines. It must never speak to the real vendor.
//!
//! Tests look in and break things under `/control/`; see `control`. What of
//! the vendor's behaviour is documented, and what is a guess, is told in
//! `docs/testing.md`.

mod boot;
mod charges;
mod control;
mod create;
mod faults;
mod filters;
mod http;
mod instances;
mod keys;
mod limits;
mod list;
mod market;
mod money;
mod render;
mod routes;
mod search;
mod state;
#[cfg(test)]
mod tests;
mod time;
mod wire;

use serde_json::Value;

use faults::Fault;
use routes::{Op, Route};
use state::Call;

pub use http::main;
pub use money::{Amount, Meter, Rate, Rates};
pub use state::{Boot, Options, Ssh, Status, World};
pub use time::advance;
pub use wire::{Delivery, Request, Response};

/// Answers a request at a moment.
pub fn handle(world: &mut World, now_ms: u64, request: &Request) -> Response {
    advance(world, now_ms);
    if request.path.starts_with("/control/") {
        return control::handle(world, now_ms, request);
    }
    let route = routes::route(&request.method, &request.path);
    let fault = world.faults.draw(route.op.name(), &mut world.random);
    let answer = answer(world, request, route, fault.as_ref());
    // What was changed may have consequences at once.
    advance(world, now_ms);
    write_down(world, request, route, fault.as_ref(), &answer);
    answer
}

fn answer(world: &mut World, request: &Request, route: Route, fault: Option<&Fault>) -> Response {
    let nothing =
        Response::text(404, "text/html", "<html><body><h1>404 Not Found</h1></body></html>".to_owned());
    if route.op == Op::Unknown {
        return nothing;
    }
    if route.op != Op::Result
        && let Err(refused) = authorize(world, request, route)
    {
        return *refused;
    }
    if let Some(fault) = fault
        && !fault.has_effect()
    {
        return fault.answer(world.now, nothing);
    }
    if world.options.limits {
        let identity = request.api_key.clone().unwrap_or_default();
        let (now, daily) = (world.now, world.options.search_quota);
        if let Err(refused) = world.limits.admit(route.op, &identity, now, daily) {
            return *refused;
        }
    }
    let answer = dispatch(world, request, route, fault);
    match fault {
        Some(fault) => fault.answer(world.now, answer),
        None => answer,
    }
}

/// Whether the key of a request may do what it asks.
fn authorize(world: &World, request: &Request, route: Route) -> Result<(), Box<Response>> {
    let key = request.api_key.as_ref().and_then(|key| world.api_keys.get(key));
    let Some(key) = key else {
        return Err(Box::new(wire::refuse(401, "auth_error", "Invalid user key")));
    };
    let forbidden = |what: &str| Err(Box::new(wire::refuse(403, "forbidden", what)));
    if let Some(instance) = key.instance {
        let own = matches!(route.op, Op::Show | Op::Set | Op::Destroy) && route.id == instance;
        if !own || route.op == Op::Destroy && !world.options.instance_key_may_destroy {
            return forbidden("The key of an instance may not do this.");
        }
    }
    let right = route.op.right();
    if key.rights.as_ref().is_some_and(|rights| !rights.iter().any(|have| have == right)) {
        return forbidden(&format!("The key lacks {right}."));
    }
    Ok(())
}

fn dispatch(world: &mut World, request: &Request, route: Route, fault: Option<&Fault>) -> Response {
    let Route { op, id, second } = route;
    match op {
        Op::User => charges::user(world),
        Op::Search => search::search(world, request),
        Op::Create => create::create(world, id, request, fault),
        Op::CreateBulk => create::create_bulk(world, request, fault),
        Op::Launch => create::launch(world, request, fault),
        Op::List => list::list(world, request),
        Op::ListOld => list::list_old(world),
        Op::Filters => list::filter_values(world),
        Op::Show => list::show(world, id),
        Op::Set => instances::set(world, id, request),
        Op::SetBulk => instances::set_bulk(world, request),
        Op::Reboot => instances::reboot_one(world, id, request),
        Op::Recycle => instances::recycle(world, id, request),
        Op::Destroy => instances::destroy(world, id),
        Op::DestroyBulk => instances::destroy_bulk(world, request),
        Op::Bid => instances::bid(world, id, request),
        Op::Update => instances::update(world, id, request),
        Op::Prepay => instances::prepay(world, id, request),
        Op::Deposit => instances::deposit(world, id),
        Op::Logs => instances::logs(world, id, request),
        Op::Execute => instances::execute(world, id, request),
        Op::Copy => instances::copy(world, request),
        Op::SshList => keys::list(world),
        Op::SshCreate => keys::create(world, request),
        Op::SshUpdate => keys::update(world, id, request),
        Op::SshDelete => keys::delete(world, id),
        Op::InstanceSsh => list::instance_keys(world, id),
        Op::Attach => keys::attach(world, id, request),
        Op::Detach => keys::detach(world, id, second),
        Op::Snapshot => instances::snapshot(world, id, request),
        Op::Charges => charges::charges(world, request),
        Op::Invoices => charges::invoices(),
        Op::InvoicesOld => charges::invoices_old(world),
        Op::Secrets => wire::good(serde_json::json!({"secrets": {}})),
        Op::Volumes => wire::good(serde_json::json!({"volumes": []})),
        Op::Stub => wire::good(serde_json::json!({})),
        Op::Result => instances::result(world, id),
        Op::Unknown => wire::refuse(404, "not_found", "no such path"),
    }
}

fn write_down(world: &mut World, request: &Request, route: Route, fault: Option<&Fault>, answer: &Response) {
    let body = match serde_json::from_slice::<Value>(&request.body) {
        Ok(body) if request.body.len() <= 16_384 => body,
        _ => Value::Null,
    };
    let query = request.query.iter().filter(|(key, _)| key != "api_key");
    let query = query.map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    let creates = matches!(route.op, Op::Create | Op::Launch);
    let made = creates.then(|| answer.value()["new_contract"].as_u64()).flatten();
    let closed = matches!(answer.delivery, Delivery::Close { .. });
    world.journal.push(Call {
        seq: 0,
        at_ms: world.now,
        op: route.op.name(),
        method: request.method.clone(),
        path: request.path.clone(),
        query,
        body,
        status: if closed { 0 } else { answer.status },
        fault: fault.map(Fault::name),
        instance: made.or((route.id > 0 && route.op != Op::Create).then_some(route.id)),
        agent: request.agent.clone(),
    });
}
