//! `outlast note`: what people say of runs in their own words.

use super::Answer;
use super::notes::{Kind, Notes};
use super::remember::{listed, written};
use crate::args::NoteArgs;

/// See the module.
///
/// # Errors
/// The run is not there, or nothing can be written.
pub(crate) fn answer(args: &NoteArgs) -> anyhow::Result<Answer> {
    let notes = Notes::of_named(&args.path)?;
    if args.text.is_empty() {
        return Ok(listed(&notes, |_| true, args.shown.tokens));
    }
    Ok(written(&notes, &notes.append(Kind::Note, &args.text.join(" "), None)?, args.shown.tokens))
}
