//! `outlast doctor`: tries out what runs depend on, and says of each thing
//! that is wrong what to do about it. Needs no controller.

use std::path::Path;

use controller::provider::ssh::{self, HostReport};
use serde_json::json;

use super::now_ms;
use crate::app::Context;
use crate::exit_code::ExitCode;
use crate::remote::only_there;

/// Does it.
///
/// # Errors
/// Where no home directory is known.
pub async fn perform(ctx: &Context, json: bool) -> anyhow::Result<ExitCode> {
    let home = ctx.home()?;
    // Its hosts, keys and store are the controller's.
    only_there(&home, "doctor")?;
    let get = |name: &str| ctx.env.get(name).cloned();
    let found = Box::pin(controller::objects::diagnose(&home, &get, &now_ms)).await;
    let keys = controller::keys::standing(&home).map_err(|error| error.to_string());
    let keys = match &keys {
        Ok(found) => found.as_ref().and_then(controller::keys::Standing::problem),
        Err(why) => Some((why.clone(), "restore the keys from a backup".to_owned())),
    };
    let hosts = hosts(ctx, &home).await;
    if json {
        let (problem, cure) = found.problem.clone().unzip();
        let store = json!({ "name": found.store, "ok": problem.is_none(), "problem": problem, "cure": cure });
        let (problem, cure) = keys.clone().unzip();
        let keys = json!({ "ok": problem.is_none(), "problem": problem, "cure": cure });
        ctx.printer.json(&json!({ "store": store, "keys": keys, "ssh": as_json(&hosts) }));
    } else if let Some((problem, cure)) = &keys {
        // Whoever seals nothing loses nothing: told, and no failure.
        ctx.printer.warn(&format!("keys: {problem}"));
        ctx.printer.help(cure);
    }
    let mut good = tell_hosts(ctx, &hosts, json);
    match found.problem {
        None if json => {}
        None => ctx.printer.line(&format!("store {}: good", found.store)),
        Some((problem, cure)) => {
            ctx.printer.error(&format!("store {}: {problem}", found.store));
            ctx.printer.help(&cure);
            good = false;
        }
    }
    Ok(if good { ExitCode::Ok } else { ExitCode::Configuration })
}

/// What is known of the user's own hosts, or why their settings cannot be used.
type Hosts = Result<Vec<HostReport>, String>;

async fn hosts(ctx: &Context, home: &Path) -> Hosts {
    let env = |name: &str| ctx.env.get(name).cloned();
    let hub = controller::home::hub_of(home);
    let hub = hub.map(|hub| hub.to_string()).unwrap_or_default();
    let config = ssh::configured(home, &hub, &env).map_err(|error| error.to_string())?;
    Ok(Box::pin(ssh::diagnose(config)).await)
}

fn as_json(hosts: &Hosts) -> serde_json::Value {
    let reports = match hosts {
        Err(problem) => return json!({ "ok": false, "problem": problem, "hosts": [] }),
        Ok(reports) => reports,
    };
    let host = |report: &HostReport| {
        let (problem, cure) = report.problem.clone().unzip();
        json!({
            "name": report.name, "destination": report.destination, "ok": problem.is_none(), "slots": report.slots,
            "free": report.free, "taken": report.taken, "problem": problem, "cure": cure,
        })
    };
    let good = reports.iter().all(|report| report.problem.is_none());
    json!({ "ok": good, "problem": null, "hosts": reports.iter().map(host).collect::<Vec<_>>() })
}

/// Says of each host what is wrong, or which slots are free; `false`: something
/// is wrong.
fn tell_hosts(ctx: &Context, hosts: &Hosts, json: bool) -> bool {
    let reports = match hosts {
        Err(problem) => {
            ctx.printer.error(problem);
            return false;
        }
        Ok(reports) => reports,
    };
    for report in reports {
        let name = &report.name;
        if let Some((problem, cure)) = &report.problem {
            ctx.printer.error(&format!("host {name}: {problem}"));
            ctx.printer.help(cure);
        } else if !json {
            let free = report.free.unwrap_or(0);
            ctx.printer.line(&format!("host {name}: good, {free} of {} slots free", report.slots));
            for taken in &report.taken {
                ctx.printer.line(&format!("  {taken}"));
            }
        }
    }
    reports.iter().all(|report| report.problem.is_none())
}
