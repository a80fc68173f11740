//! The views over training curves. Each makes one [`Answer`] out of its
//! arguments alone: a text that keeps to a number of tokens, and everything as
//! JSON. Printing is done here, so that others can give the same answers.

mod budget;
pub(crate) mod history;
mod load;
pub(crate) mod metrics;
mod numbers;
pub(crate) mod settings;
pub(crate) mod stats;

use crate::app::Context;
use crate::args::ViewVerb;
use crate::exit_code::ExitCode;

/// What a view says.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// ASCII, of no more tokens than were asked for.
    pub(crate) text: String,
    /// Everything, names as the log has them.
    pub(crate) json: serde_json::Value,
}

/// Does it.
///
/// # Errors
/// Whatever the view could not do.
pub(crate) async fn perform(ctx: &Context, mut verb: ViewVerb) -> anyhow::Result<ExitCode> {
    for path in verb.paths() {
        *path = crate::commands::analyze::live::place(ctx, path).await?;
    }
    let (answer, json) = match &verb {
        ViewVerb::History(args) => (history::answer(args)?, args.shown.json),
        ViewVerb::Stats(args) => (stats::answer(args)?, args.shown.json),
        ViewVerb::Metrics(args) => (metrics::answer(args)?, args.shown.json),
        ViewVerb::Settings(args) => (settings::answer(args)?, args.shown.json),
    };
    if json {
        ctx.printer.json(&answer.json);
    } else {
        ctx.printer.raw(answer.text.as_bytes());
    }
    Ok(ExitCode::Ok)
}

/// A text out of a log in a sentence, or what to say where it is empty.
fn words_of(text: &str, empty: &str) -> String {
    if text.is_empty() { empty.to_owned() } else { crate::commands::analyze::words::name(text) }
}
