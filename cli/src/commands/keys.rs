//! `outlast keys`: the keys of sealed checkpoints. It works on the data directory
//! and needs no controller. A private key goes into the file that was asked for
//! and nowhere else: never to a terminal.

use controller::home::HomeError;
use controller::keys::{add_recipient, export_recovery, standing};
use serde_json::json;

use crate::app::Context;
use crate::args::KeysVerb;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::safe;
use crate::remote::only_there;

/// Does what was asked.
///
/// # Errors
/// Where the data directory cannot be used.
pub fn perform(ctx: &Context, verb: &KeysVerb) -> anyhow::Result<ExitCode> {
    let words = match verb {
        KeysVerb::Show { .. } => "keys show",
        KeysVerb::Recovery { .. } => "keys recovery --out FILE",
        KeysVerb::AddRecipient { .. } => "keys add-recipient PUBLIC-KEY",
    };
    only_there(&ctx.home()?, words)?;
    match verb {
        KeysVerb::Show { json } => show(ctx, *json),
        KeysVerb::Recovery { out } => {
            let to = std::path::absolute(out)?;
            let public = export_recovery(&ctx.home()?, &to).map_err(|error| failure(&error))?;
            ctx.printer.line(&safe(&to.display().to_string()));
            ctx.printer.note(&format!(
                "recovery key {}, and no other copy of it: keep it where the controller's computer is not",
                public.id()
            ));
            Ok(ExitCode::Ok)
        }
        KeysVerb::AddRecipient { key } => {
            let key: artifacts::seal::PublicKey =
                key.parse().map_err(|error: artifacts::seal::SealError| {
                    Failure::new(ExitCode::Usage, error.to_string())
                })?;
            add_recipient(&ctx.home()?, key).map_err(|error| failure(&error))?;
            ctx.printer
                .note(&format!("from now on sealed to {} too; what is stored stays as it is", key.id()));
            Ok(ExitCode::Ok)
        }
    }
}

fn failure(error: &HomeError) -> Failure {
    Failure::new(ExitCode::BadInput, error.to_string())
}

fn show(ctx: &Context, as_json: bool) -> anyhow::Result<ExitCode> {
    let found = standing(&ctx.home()?).map_err(|error| failure(&error))?;
    let Some(found) = found else {
        if as_json {
            ctx.printer.json(&json!({"recipients": []}));
        } else {
            ctx.printer.note("there are no keys yet: the controller makes them at its first start");
        }
        return Ok(ExitCode::Ok);
    };
    if as_json {
        let recipients: Vec<_> = found
            .recipients
            .good
            .iter()
            .map(|key| json!({"id": key.id().to_string(), "public": key.to_string()}))
            .collect();
        let flaws: Vec<_> =
            found.recipients.flaws.iter().map(|flaw| json!({"line": flaw.line, "why": flaw.why})).collect();
        let (problem, cure) = found.problem().unzip();
        ctx.printer
            .json(&json!({"recipients": recipients, "flaws": flaws, "problem": problem, "cure": cure}));
        return Ok(ExitCode::Ok);
    }
    let rows: Vec<Vec<String>> =
        found.recipients.good.iter().map(|key| vec![key.id().to_string(), key.to_string()]).collect();
    ctx.printer.table(&["ID", "PUBLIC KEY"], &rows);
    if let Some((what, cure)) = found.problem() {
        ctx.printer.warn(&what);
        ctx.printer.help(&cure);
    }
    Ok(ExitCode::Ok)
}
