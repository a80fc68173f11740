//! `outlast decision`: what was decided, and why.

use super::Answer;
use super::notes::{Kind, Notes};
use super::remember::{listed, written};
use crate::args::DecisionArgs;

/// See the module.
///
/// # Errors
/// The run is not there, or nothing can be written.
pub(crate) fn answer(args: &DecisionArgs) -> anyhow::Result<Answer> {
    let notes = Notes::of_named(&args.path)?;
    if args.text.is_empty() {
        return Ok(listed(&notes, |entry| entry.kind == Kind::Decision, args.shown.tokens));
    }
    Ok(written(
        &notes,
        &notes.append(Kind::Decision, &args.text.join(" "), args.why.clone())?,
        args.shown.tokens,
    ))
}
