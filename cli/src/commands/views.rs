//! The views over training curves. Each makes one [`Answer`] out of its
//! arguments alone: a text that keeps to a number of tokens, and everything as
//! JSON. Printing is done here, so that others can give the same answers.

pub(crate) mod budget;
pub(crate) mod changes;
pub(crate) mod compare;
pub(crate) mod decision;
mod described;
pub(crate) mod export;
pub(crate) mod favorite;
pub(crate) mod group;
pub(crate) mod history;
mod html;
pub(crate) mod hypothesis;
pub(crate) mod link;
pub(crate) mod load;
mod markdown;
pub(crate) mod metrics;
pub(crate) mod note;
mod notes;
pub(crate) mod numbers;
mod page;
mod picture;
pub(crate) mod plot;
pub(crate) mod ranks;
mod remarks;
mod remember;
pub(crate) mod report;
pub(crate) mod reproduce;
pub(crate) mod runs;
pub(crate) mod settings;
pub(crate) mod stats;
pub(crate) mod tag;

use std::path::Path;

use super::analyze::live;
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
pub(crate) async fn perform(ctx: &Context, verb: ViewVerb) -> anyhow::Result<ExitCode> {
    if let ViewVerb::Runs(args) = &verb {
        runs::own::one_path(args)?;
    }
    let mut verb = resolved(ctx, verb).await?;
    match &mut verb {
        ViewVerb::Plot(args) => *args = plot::for_terminal(ctx, args),
        ViewVerb::Changes(args) if args.memory.is_none() => {
            args.memory = ctx.home().ok().map(|home| home.join("seen"));
        }
        _ => {}
    }
    let (answer, json) = answer(&verb)?;
    if json {
        ctx.printer.json(&answer.json);
    } else {
        ctx.printer.raw(answer.text.as_bytes());
    }
    Ok(ExitCode::Ok)
}

/// The same view with the files of runs that it names.
///
/// # Errors
/// Where there is no such run.
pub(crate) async fn resolved(ctx: &Context, mut verb: ViewVerb) -> anyhow::Result<ViewVerb> {
    if let ViewVerb::Runs(args) = &mut verb {
        runs::own::resolve(ctx, args).await?;
    }
    if let ViewVerb::Changes(args) = &mut verb
        && args.path.is_none()
    {
        let own = runs::own::all(ctx, "*").await?;
        (args.places, args.left_out) = (own.places, own.left_out);
    }
    for path in verb.paths() {
        *path = live::place(ctx, path).await?;
    }
    for named in verb.places() {
        let (run, step) =
            named.rsplit_once('@').map_or((named.as_str(), None), |(run, step)| (run, Some(step)));
        let place = live::place(ctx, Path::new(run)).await?;
        let step = step.map(|step| format!("@{step}")).unwrap_or_default();
        *named = format!("{}{step}", place.display());
    }
    Ok(verb)
}

/// What it says, and whether it is asked for as JSON.
///
/// # Errors
/// Whatever the view could not do.
pub(crate) fn answer(verb: &ViewVerb) -> anyhow::Result<(Answer, bool)> {
    Ok(match verb {
        ViewVerb::History(args) => (history::answer(args)?, args.shown.json),
        ViewVerb::Stats(args) => (stats::answer(args)?, args.shown.json),
        ViewVerb::Metrics(args) => (metrics::answer(args)?, args.shown.json),
        ViewVerb::Compare(args) => (compare::answer(args)?, args.shown.json),
        ViewVerb::Runs(args) => (runs::answer(args)?, args.shown.json),
        ViewVerb::Group(args) => (group::answer(args)?, args.shown.json),
        ViewVerb::Plot(args) => (plot::answer(args)?, args.shown.json),
        ViewVerb::Report(args) => (report::answer(args)?, args.shown.json),
        ViewVerb::Export(args) => (export::answer(args)?, args.shown.json),
        ViewVerb::Note(args) => (note::answer(args)?, args.shown.json),
        ViewVerb::Tag(args) => (tag::answer(args)?, args.shown.json),
        ViewVerb::Favorite(args) => (favorite::answer(args)?, args.shown.json),
        ViewVerb::Hypothesis(args) => (hypothesis::answer(args)?, args.shown.json),
        ViewVerb::Decision(args) => (decision::answer(args)?, args.shown.json),
        ViewVerb::Link(args) => (link::answer(args)?, args.shown.json),
        ViewVerb::Reproduce(args) => (reproduce::answer(args)?, args.shown.json),
        ViewVerb::Ranks(args) => (ranks::answer(args)?, args.shown.json),
        ViewVerb::Changes(args) => (changes::answer(args)?, args.shown.json),
        ViewVerb::Settings(args) => (settings::answer(args)?, args.shown.json),
    })
}

/// Where what people say of a run is written down.
///
/// # Errors
/// The path is not there, or its notes cannot be read.
pub(crate) fn notes_file(path: &Path) -> Result<std::path::PathBuf, crate::exit_code::Failure> {
    notes::Notes::of(path).map(|notes| notes.file)
}

/// Whether a file of that name is where notes stand, and no log.
pub(crate) fn holds_notes(name: &str) -> bool {
    name == notes::FILE
}

/// A text out of a log in a sentence, or what to say where it is empty.
fn words_of(text: &str, empty: &str) -> String {
    if text.is_empty() { empty.to_owned() } else { crate::commands::analyze::words::name(text) }
}
