//! `outlast hypothesis`: what is thought to be true, and later whether it was.

use super::Answer;
use super::notes::{Entry, Kind, Notes};
use super::remember::{listed, written};
use crate::args::HypothesisArgs;

/// See the module.
///
/// # Errors
/// The run is not there, nothing can be written, or an id that means none or several.
pub(crate) fn answer(args: &HypothesisArgs) -> anyhow::Result<Answer> {
    let notes = Notes::of_named(&args.path)?;
    let text = args.text.join(" ");
    for (id, kind) in [(&args.confirm, Kind::Confirmed), (&args.refute, Kind::Refuted)] {
        if let Some(id) = id {
            let about = notes.hypothesis(id)?;
            let text = if text.trim().is_empty() { about.text.clone() } else { text };
            return Ok(written(&notes, &notes.append(kind, &text, Some(about.id))?, args.shown.tokens));
        }
    }
    if text.is_empty() {
        let kinds = |entry: &Entry| matches!(entry.kind, Kind::Hypothesis | Kind::Confirmed | Kind::Refuted);
        return Ok(listed(&notes, kinds, args.shown.tokens));
    }
    Ok(written(&notes, &notes.append(Kind::Hypothesis, &text, None)?, args.shown.tokens))
}
