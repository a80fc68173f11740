//! `outlast doctor`: tries out what runs depend on, and says of each thing
//! that is wrong what to do about it. Needs no controller.

use serde_json::json;

use super::now_ms;
use crate::app::Context;
use crate::exit_code::ExitCode;

/// Does it.
///
/// # Errors
/// Where no home directory is known.
pub async fn perform(ctx: &Context, json: bool) -> anyhow::Result<ExitCode> {
    let home = ctx.home()?;
    let get = |name: &str| ctx.env.get(name).cloned();
    let found = Box::pin(controller::objects::diagnose(&home, &get, &now_ms)).await;
    let keys = controller::keys::standing(&home).map_err(|error| error.to_string());
    let keys = match &keys {
        Ok(found) => found.as_ref().and_then(controller::keys::Standing::problem),
        Err(why) => Some((why.clone(), "restore the keys from a backup".to_owned())),
    };
    if json {
        let (problem, cure) = found.problem.clone().unzip();
        let store = json!({ "name": found.store, "ok": problem.is_none(), "problem": problem, "cure": cure });
        let (problem, cure) = keys.clone().unzip();
        let keys = json!({ "ok": problem.is_none(), "problem": problem, "cure": cure });
        ctx.printer.json(&json!({ "store": store, "keys": keys }));
    } else if let Some((problem, cure)) = &keys {
        // Whoever seals nothing loses nothing: told, and no failure.
        ctx.printer.warn(&format!("keys: {problem}"));
        ctx.printer.help(cure);
    }
    match found.problem {
        None => {
            if !json {
                ctx.printer.line(&format!("store {}: good", found.store));
            }
            Ok(ExitCode::Ok)
        }
        Some((problem, cure)) => {
            ctx.printer.error(&format!("store {}: {problem}", found.store));
            ctx.printer.help(&cure);
            Ok(ExitCode::Configuration)
        }
    }
}
