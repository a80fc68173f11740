//! `outlast config`: shows and checks the configuration.

use super::load;
use crate::app::Context;
use crate::args::ConfigVerb;
use crate::exit_code::ExitCode;

/// Does it.
///
/// # Errors
/// All that is wrong with the configuration.
pub fn perform(ctx: &Context, verb: ConfigVerb) -> anyhow::Result<ExitCode> {
    match verb {
        ConfigVerb::Show { origin, path, config, json } => {
            let loaded = load(ctx, &path, &config, &[])?;
            if json {
                ctx.printer.json(&loaded.show_json());
            } else {
                ctx.printer.raw(loaded.show(origin).as_bytes());
            }
        }
        ConfigVerb::Check { path, config } => {
            let loaded = load(ctx, &path, &config, &[])?;
            match &loaded.file {
                Some(file) => ctx.printer.note(&format!("{} is right", file.display())),
                None => ctx.printer.note("there is no outlast.toml; the defaults are in force"),
            }
        }
    }
    Ok(ExitCode::Ok)
}
