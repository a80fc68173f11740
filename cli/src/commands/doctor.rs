//! `outlast doctor`: tries out what runs depend on, and says of each thing
//! that is wrong what to do about it. Needs no controller.

use std::path::Path;
use std::time::Duration;

use controller::provider::ssh::{self, HostReport};
use controller::provider::{Standing, VastConfig, VastProvider};
use serde_json::json;

use super::now_ms;
use crate::app::Context;
use crate::exit_code::ExitCode;
use crate::printer::money;
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
    let vast = vast(ctx, &home).await;
    if json {
        let (problem, cure) = found.problem.clone().unzip();
        let ok = problem.is_none();
        let (warning, warned_cure) = found.warning.clone().unzip();
        let cure = cure.or(warned_cure);
        let store =
            json!({ "name": found.store, "ok": ok, "problem": problem, "warning": warning, "cure": cure });
        let (problem, cure) = keys.clone().unzip();
        let keys = json!({ "ok": problem.is_none(), "problem": problem, "cure": cure });
        ctx.printer
            .json(&json!({ "store": store, "keys": keys, "ssh": as_json(&hosts), "vast": vast_json(&vast) }));
    } else if let Some((problem, cure)) = &keys {
        // Whoever seals nothing loses nothing: told, and no failure.
        ctx.printer.warn(&format!("keys: {problem}"));
        ctx.printer.help(cure);
    }
    let mut good = tell_hosts(ctx, &hosts, json);
    good &= tell_vast(ctx, &vast, json);
    match found.problem {
        None if json => {}
        None if found.warning.is_some() => {
            if let Some((what, cure)) = &found.warning {
                ctx.printer.warn(&format!("store {}: {what}", found.store));
                ctx.printer.help(cure);
            }
        }
        None => ctx.printer.line(&format!("store {}: good", found.store)),
        Some((problem, cure)) => {
            ctx.printer.error(&format!("store {}: {problem}", found.store));
            ctx.printer.help(&cure);
            good = false;
        }
    }
    Ok(if good { ExitCode::Ok } else { ExitCode::Configuration })
}

/// The account at Vast.ai: whether its key is accepted and what money there is.
/// A controller that runs may have the key that was set when it was started.
async fn vast(ctx: &Context, home: &Path) -> Standing {
    let config = VastConfig {
        url: None,
        keys: home.join("keys"),
        boot_deadline: Duration::from_mins(10),
        pace_percent: 100,
    };
    match VastProvider::new(config, |name| ctx.env.get(name).cloned()) {
        Ok(vast) => vast.standing().await,
        Err(why) => {
            let problem = Some((why, "see whether this computer has TLS certificates".to_owned()));
            Standing { key: String::new(), credit_usd: None, problem }
        }
    }
}

fn vast_json(vast: &Standing) -> serde_json::Value {
    let (problem, cure) = vast.problem.clone().unzip();
    let set_up = !vast.key.is_empty() || problem.is_some();
    json!({
        "ok": problem.is_none(), "set_up": set_up, "key": vast.key, "credit_usd": vast.credit_usd,
        "problem": problem, "cure": cure,
    })
}

/// Says how the account stands; `false`: something is wrong.
fn tell_vast(ctx: &Context, vast: &Standing, json: bool) -> bool {
    if let Some((problem, cure)) = &vast.problem {
        ctx.printer.error(&format!("vast: {problem}"));
        ctx.printer.help(cure);
        return false;
    }
    match vast.credit_usd {
        _ if json => {}
        Some(usd) => {
            ctx.printer.line(&format!("vast: good, {} is accepted, {} of credit", vast.key, money(usd)));
        }
        None => ctx
            .printer
            .note("vast: no key, so it is not set up: https://cloud.vast.ai/manage-keys/ makes one"),
    }
    true
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
