//! `outlast hypothesis`: what is thought to be true, and later whether it was.

use super::Answer;
use super::notes::{Kind, Notes};
use super::remember::{standing, written};
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
        return Ok(standing(&notes, args.shown.tokens));
    }
    Ok(written(&notes, &notes.append(Kind::Hypothesis, &text, None)?, args.shown.tokens))
}
