//! `outlast version`: which program this is.

use serde_json::json;

use crate::app::Context;
use crate::daemon;
use crate::exit_code::ExitCode;

/// Prints it.
pub fn perform(ctx: &Context, json: bool) -> ExitCode {
    let build =
        daemon::own_exe().map_or_else(|_| "unknown".to_owned(), |exe| controller::command::build_id(&exe));
    if json {
        let schema = controller::store::SCHEMA;
        ctx.printer.json(&json!({ "version": proto::VERSION, "build_id": build, "schema": schema }));
    } else {
        ctx.printer.line(&format!("outlast {} (build {build})", proto::VERSION));
    }
    ExitCode::Ok
}
