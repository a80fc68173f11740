//! `outlast export`: one run as a page for other tools, or as a model card.

use serde_json::json;

use super::page::Part;
use super::report::fitted;
use super::{Answer, load, markdown, plot};
use crate::args::{ExportArgs, ExportKind};

/// See the module.
///
/// # Errors
/// There is no such run, or several, or the file cannot be written.
pub(crate) fn answer(args: &ExportArgs) -> anyhow::Result<Answer> {
    let run = load::one(&args.path, args.run.as_deref(), args.shown.format.as_ref())?;
    let part = Part::of(&run, &[]);
    let ranked = match args.to {
        ExportKind::Obsidian => markdown::obsidian(&part),
        ExportKind::Notion => markdown::notion(&part),
        ExportKind::Card => markdown::card(&part),
    };
    let whole = markdown::whole(&ranked);
    let text = match &args.out {
        None => fitted(&ranked, args.shown.tokens as usize),
        Some(out) => {
            plot::save(out, whole.as_bytes())?;
            plot::said_written(out, "", args.shown.tokens)
        }
    };
    Ok(Answer { text, json: json!({ "written": args.out, "markdown": whole }) })
}
