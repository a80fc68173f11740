//! `outlast tag`: words that a run is found by, and the group that it belongs to.

use super::Answer;
use super::notes::{Kind, Notes};
use super::remember::tags_of;
use crate::args::TagArgs;
use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// See the module.
///
/// # Errors
/// The run is not there, nothing can be written, or a tag or group that is not there to be taken away.
pub(crate) fn answer(args: &TagArgs) -> anyhow::Result<Answer> {
    let notes = Notes::of_run(&args.path)?;
    let kept = notes.tags();
    if args.remove && args.tags.is_empty() && args.group.is_none() {
        let failure = Failure::new(ExitCode::Usage, "what is to be taken away?");
        return Err(failure.help("name tags, or --group NAME").into());
    }
    if let Some(group) = &args.group {
        let has = notes.group() == Some(group.trim());
        if args.remove && !has {
            let known = notes.group().map_or("none".to_owned(), words::quoted);
            let message = format!("no group {} was given here; it has {known}", words::quoted(group));
            return Err(Failure::new(ExitCode::NotFound, message)
                .help("the group that a log itself has cannot be taken away, but another can be given")
                .into());
        }
        if args.remove || !has {
            notes.append(if args.remove { Kind::Ungroup } else { Kind::Group }, group, None)?;
        }
    }
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
    Ok(tags_of(&Notes::of_run(&args.path)?, args.shown.tokens))
}
