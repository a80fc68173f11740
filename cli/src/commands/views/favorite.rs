//! `outlast favorite`: a run is marked by the tag `favorite`.

use super::Answer;
use super::notes::{Kind, Notes};
use super::remember::tags_of;
use crate::args::FavoriteArgs;

/// The tag that a favourite has.
const FAVORITE: &str = "favorite";

/// See the module.
///
/// # Errors
/// The run is not there, or nothing can be written.
pub(crate) fn answer(args: &FavoriteArgs) -> anyhow::Result<Answer> {
    let notes = Notes::of_run(&args.path)?;
    if notes.tags().contains(FAVORITE) == args.remove {
        notes.append(if args.remove { Kind::Untag } else { Kind::Tag }, FAVORITE, None)?;
    }
    Ok(tags_of(&Notes::of_run(&args.path)?, args.shown.tokens))
}
