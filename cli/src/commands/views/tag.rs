//! `outlast tag`: words that a run is found by.

use super::Answer;
use super::notes::{Kind, Notes};
use super::remember::tags_of;
use crate::args::TagArgs;
use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// See the module.
///
/// # Errors
/// The run is not there, nothing can be written, or a tag that is not there to be taken away.
pub(crate) fn answer(args: &TagArgs) -> anyhow::Result<Answer> {
    let notes = Notes::of(&args.path)?;
    let kept = notes.tags();
    for tag in &args.tags {
        let has = kept.contains(tag.trim());
        if args.remove && !has {
            let all: Vec<String> = kept.iter().map(|tag| words::name(tag)).collect();
            let message = format!("no tag {}; there are: {}", words::quoted(tag), all.join(", "));
            return Err(Failure::new(ExitCode::NotFound, message)
                .help("tags that a log itself has cannot be taken away")
                .into());
        }
        if args.remove || !has {
            notes.append(if args.remove { Kind::Untag } else { Kind::Tag }, tag, None)?;
        }
    }
    Ok(tags_of(&Notes::of(&args.path)?, args.shown.tokens))
}
