//! What an assistant writes down of runs: notes and tags beside the logs. It exists
//! where a person allowed control. It costs nothing and destroys nothing, so that it
//! needs no code; it writes below the roots and into the data directory alone, and
//! what it wrote is a text in quotes for whoever reads it.

use std::path::Path;
use std::sync::Arc;

use super::arguments::Arguments;
use super::desk::Desk;
use super::reply::Reply;
use crate::args::{DecisionArgs, FavoriteArgs, HypothesisArgs, NoteArgs, Shown, TagArgs, ViewVerb};
use crate::commands::analyze::words;
use crate::commands::views;
use crate::exit_code::{ExitCode, Failure};

/// What may be written.
const KINDS: &str = "note, tag, untag, favorite, hypothesis, decision";

/// `note`
pub(super) async fn note(desk: &Arc<Desk>, mut given: Arguments) -> anyhow::Result<Reply> {
    let most = given.granted();
    let path = desk.path_or_run(&given.needed("path")?)?;
    let kind = given.needed("kind")?;
    let (text, why) = (given.text("text")?, given.text("why")?);
    given.end()?;
    if why.is_some() && kind != "decision" {
        let wrong = Failure::new(ExitCode::Usage, "`why` goes with a decision alone");
        return Err(wrong.help("leave it out, or write it into `text`").into());
    }
    let shown = Shown { tokens: u32::try_from(most / 2).unwrap_or(u32::MAX).max(50), ..Shown::default() };
    let needed = || {
        text.clone().filter(|text| !text.trim().is_empty()).ok_or_else(|| {
            Failure::new(ExitCode::Usage, format!("`text` is missing: what the {} is", words::name(&kind)))
        })
    };
    let verb = match kind.as_str() {
        "note" => ViewVerb::Note(NoteArgs { path, text: vec![needed()?], shown }),
        "tag" | "untag" => ViewVerb::Tag(TagArgs {
            path,
            tags: vec![needed()?],
            remove: kind == "untag",
            group: None,
            shown,
        }),
        "favorite" => ViewVerb::Favorite(FavoriteArgs { path, remove: false, shown }),
        "hypothesis" => ViewVerb::Hypothesis(HypothesisArgs {
            path,
            text: vec![needed()?],
            shown,
            ..HypothesisArgs::default()
        }),
        "decision" => ViewVerb::Decision(DecisionArgs { path, text: vec![needed()?], why, shown }),
        other => {
            let wrong = Failure::new(ExitCode::Usage, format!("there is no kind {}", words::quoted(other)));
            return Err(wrong.help(format!("the kinds are {KINDS}")).into());
        }
    };
    let mut verb = views::resolved(&desk.ctx, verb).await?;
    for path in verb.paths() {
        may_write(desk, &views::notes_file(path)?)?;
    }
    let (answer, _) = tokio::task::spawn_blocking(move || views::answer(&verb)).await??;
    Ok(Reply::default()
        .line(answer.text.lines().next().unwrap_or_default())
        .fact("done", true)
        .fact("id", answer.json["written"]["id"].clone())
        .fact("tags", answer.json["tags"].clone()))
}

/// Notes stand beside the runs or further up: where that is outside of what a person
/// named, nothing is written.
fn may_write(desk: &Desk, file: &Path) -> Result<(), Failure> {
    let dir = file.parent().unwrap_or(file);
    let home = desk.home.canonicalize().unwrap_or_else(|_| desk.home.clone());
    let inside = |root: &Path| dir.starts_with(root);
    if desk.roots.iter().any(|root| inside(root)) || inside(&home) || inside(&desk.home) {
        return Ok(());
    }
    let why = format!("its notes stand in {}, which is not below the server's roots", words::path(file));
    Err(Failure::new(ExitCode::Denied, why)
        .help("a person can start the server with --root DIR of that directory"))
}
